//! Orders, paces, shares and rates that another configuration changes.

use std::time::Duration;

use serde_json::json;

use super::super::support::provider::{Answer, Provider};
use super::super::support::server::{KEY_A, KEY_B, TENANT_A, World};

#[tokio::test]
async fn a_channel_that_is_ordered_no_more_lets_others_pass_and_one_that_becomes_so_does_not() {
    let provider = Provider::start().await;
    let world = |ordered: bool| World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({ "ordered": ordered }));
    let server = world(true).start().await;
    let later = |seconds: u32| Answer::status(503).header("Retry-After", seconds.to_string());
    provider.next(later(3600));
    let send = async |text: &str| server.send(KEY_A, &json!({ "channel": "webhook", "message": text })).await;
    let head = send("head").await;
    let (second, third) = (send("second").await, send("third").await);
    server.wait_for(KEY_A, &head, "retrying").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(provider.received().len(), 1, "the head holds back the others");
    assert_eq!(server.reload(&world(false)).await.0, 200);
    for id in [&second, &third] {
        server.wait_for(KEY_A, id, "sent").await;
    }
    assert_eq!(server.reload(&world(true)).await.0, 200);
    let fourth = send("fourth").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let sent: Vec<_> = provider.received().iter().map(|received| received.message()).collect();
    assert_eq!(sent, ["head", "second", "third"], "the head holds back what came after it was made to");
    // It is taken back: nobody stands before the fourth any more.
    assert_eq!(server.post(KEY_A, &format!("/notifications/{head}/cancel"), &json!({})).await.0, 200);
    server.wait_for(KEY_A, &fourth, "sent").await;
    server.stop().await;
}

#[tokio::test]
async fn a_faster_pace_and_more_attempts_at_once_count_for_what_waits_already() {
    let provider = Provider::start().await;
    let world = |per: &str, most: u32| {
        let options = json!({ "rate": { "per": per, "limit": most, "burst": most }, "maxConcurrency": most });
        World::new().webhook(TENANT_A, "hook", &provider.url(), &options)
    };
    let server = world("1h", 1).start().await;
    let mut ids = Vec::new();
    for number in 0..8 {
        let target = format!("t{number}");
        let body = json!({ "channel": "webhook", "message": "x", "targetId": target });
        ids.push(server.send(KEY_A, &body).await);
    }
    provider.wait_for(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(provider.received().len(), 1, "one an hour");
    provider.then(Answer::status(200).after(Duration::from_millis(50)));
    assert_eq!(server.reload(&world("10ms", 4)).await.0, 200);
    for id in &ids {
        server.wait_for(KEY_A, id, "sent").await;
    }
    assert!(provider.most_under_way() > 1, "one at a time");
    server.stop().await;
}

#[tokio::test]
async fn what_is_used_up_of_a_rate_stays_used_up_unless_the_rate_is_another() {
    let world = |limit: u32, weight: u32| {
        let mut world = World::new();
        world.tenants[0]["rateLimit"] = json!({ "requests": { "per": "1h", "limit": limit, "burst": 2 } });
        world.tenants[0]["weight"] = json!(weight);
        world
    };
    let server = world(1, 1).start().await;
    let ask = async || server.get(KEY_A, "/channels").await.0;
    assert_eq!([ask().await, ask().await, ask().await], [200, 200, 429]);
    assert_eq!(server.reload(&world(1, 2)).await.0, 200);
    assert_eq!(ask().await, 429);
    assert_eq!(server.reload(&world(2, 2)).await.0, 200);
    assert_eq!([ask().await, ask().await, ask().await], [200, 200, 429]);
    assert_eq!(server.get(KEY_B, "/channels").await.0, 200);
    server.stop().await;
}
