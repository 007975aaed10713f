//! What is under way when the configuration changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::support::provider::{Answer, DEADLINE, Provider};
use super::super::support::server::{KEY_A, TENANT_A, World};
use super::spy::{self, Seen};
use super::taken_over;

async fn until(seen: &Arc<Seen>, event: &str) {
    let start = Instant::now();
    while !seen.events().iter().any(|known| known == event) {
        assert!(start.elapsed() < DEADLINE, "{event:?} never came: {:?}", seen.events());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Each to another target, so that none waits for another.
fn message(text: &str) -> Value {
    json!({ "channel": "spy", "message": text, "targetId": text })
}

#[tokio::test]
async fn a_send_ends_on_the_channel_that_it_began_with_and_that_is_shut_down_once_after_it() {
    let seen = spy::seen("flight");
    let server = spy::world("flight", "old").start().await;
    let first = server.send(KEY_A, &message("first")).await;
    until(&seen, "old sends first").await;
    assert_eq!(server.reload(&spy::world("flight", "new")).await.0, 200);
    let second = server.send(KEY_A, &message("second")).await;
    until(&seen, "new sends second").await;
    assert!(!seen.events().contains(&"old shuts down".to_owned()), "{:?}", seen.events());
    seen.released.cancel();
    for id in [first, second] {
        let story = server.wait_for(KEY_A, &id, "sent").await;
        assert_eq!(story["deliveries"][0]["attempts"].as_array().map(Vec::len), Some(1), "{story:#}");
    }
    until(&seen, "old shuts down").await;
    // What comes next goes through the new one alone.
    let third = server.send(KEY_A, &message("third")).await;
    server.wait_for(KEY_A, &third, "sent").await;
    server.stop().await;
    let events = seen.events();
    let place = |event: &str| events.iter().position(|known| known == event).expect("it happened");
    let count = |event: &str| events.iter().filter(|known| *known == event).count();
    assert!(place("old sent first") < place("old shuts down"), "{events:?}");
    for event in ["old opens", "old shuts down", "new begins", "new opens", "new sent third", "new shuts down"] {
        assert_eq!(count(event), 1, "{event}: {events:?}");
    }
}

#[tokio::test]
async fn a_channel_that_is_as_it_was_is_left_alone_and_one_with_another_limit_keeps_its_connection() {
    let seen = spy::seen("kept");
    let server = spy::world("kept", "only").start().await;
    seen.released.cancel();
    for round in 1..=5_u32 {
        let mut world =
            spy::world("kept", "only").webhook(TENANT_A, &format!("hook {round}"), "http://127.0.0.1:9/", &json!({}));
        world.channels[2]["options"]["maxConcurrency"] = json!(round);
        assert_eq!(server.reload(&world).await.0, 200);
        let id = server.send(KEY_A, &json!({ "channel": "spy", "message": "x" })).await;
        server.wait_for(KEY_A, &id, "sent").await;
    }
    server.stop().await;
    let events = seen.events();
    let others: Vec<_> = events.iter().filter(|event| !event.contains(" sen")).collect();
    assert_eq!(others, ["only begins", "only opens", "only shuts down"]);
}

#[tokio::test]
async fn what_the_old_account_came_to_is_no_word_on_the_new_one() {
    let seen = spy::seen("word");
    let server = spy::world("word", "old").start().await;
    let lost = server.send(KEY_A, &message("lost")).await;
    until(&seen, "old sends lost").await;
    assert_eq!(server.reload(&spy::world("word", "new")).await.0, 200);
    let next = server.send(KEY_A, &message("next")).await;
    until(&seen, "new sends next").await;
    seen.released.cancel();
    server.wait_for(KEY_A, &next, "sent").await;
    let story = server.wait_for(KEY_A, &lost, "sent").await;
    assert_eq!(story["deliveries"][0]["attempts"][0]["outcome"], "unauthorized", "{story:#}");
    let after = server.send(KEY_A, &message("after")).await;
    server.wait_for(KEY_A, &after, "sent").await;
    server.stop().await;
}

#[tokio::test]
async fn a_channel_that_cannot_be_made_has_the_whole_configuration_refused() {
    let seen = spy::seen("broken");
    let server = spy::world("broken", "old").start().await;
    let (status, refused) = server.reload(&spy::world("broken", "broken")).await;
    assert_eq!(status, 422, "{refused:#}");
    assert!(refused["details"][0]["message"].as_str().is_some_and(|text| text.contains("its life is broken")));
    seen.released.cancel();
    let id = server.send(KEY_A, &json!({ "channel": "spy", "message": "x" })).await;
    server.wait_for(KEY_A, &id, "sent").await;
    server.stop().await;
    assert_eq!(seen.events(), ["old begins", "old opens", "old sends x", "old sent x", "old shuts down"]);
}

#[tokio::test]
async fn what_waits_for_a_removed_channel_ends_as_a_dead_letter_or_goes_the_next_way() {
    let (provider, other) = (Provider::start().await, Provider::start().await);
    provider.then(Answer::status(429).header("Retry-After", "2"));
    let base = World::new().webhook(TENANT_A, "other", &other.url(), &json!({}));
    let server = base.clone().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let (_, channels) = server.get(KEY_A, "/channels").await;
    let id = |name: &str| {
        let all = channels["data"].as_array().expect("channels");
        all.iter().find(|channel| channel["channelName"] == name).expect("it is there")["channelId"].clone()
    };
    let alone = server.send(KEY_A, &json!({ "channelId": id("hook"), "message": "alone" })).await;
    let fallback = json!([{ "channelId": id("other") }]);
    let twofold =
        server.send(KEY_A, &json!({ "channelId": id("hook"), "message": "two ways", "fallback": fallback })).await;
    provider.wait_for(1).await;
    let told = taken_over(&server, |number| {
        let mut world = base.clone();
        world.tenants[1]["weight"] = json!(number + 2);
        world
    })
    .await;
    assert_eq!(told["changed"]["channels"], json!([]), "{told:#}");
    let story = server.wait_for(KEY_A, &alone, "failed").await;
    assert_eq!(story["deliveries"][0]["reason"], "channelRemoved", "{story:#}");
    server.wait_for(KEY_A, &twofold, "sent").await;
    assert_eq!(other.received().len(), 1);
    let (status, _) = server.post(KEY_A, "/notifications", &json!({ "channelId": id("hook"), "message": "x" })).await;
    assert_eq!(status, 400);
    server.stop().await;
}
