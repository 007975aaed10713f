//! From the request to the provider: what is sent, tried again, given up, held back and taken back.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::provider::{Answer, Provider};
use super::support::server::{ADMIN_KEY, KEY_A, KEY_B, TENANT_A, TENANT_B, TestServer, WEBHOOK_SECRET, World};

/// A server whose tenant A has a webhook channel to a provider of its own.
async fn with_webhook(options: Value) -> (TestServer, Provider) {
    let provider = Provider::start().await;
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &options).start().await;
    (server, provider)
}

fn hook(message: &str) -> Value {
    json!({ "channel": "webhook", "message": message })
}

fn outcomes(story: &Value) -> Vec<&str> {
    let deliveries = story["deliveries"].as_array().into_iter().flatten();
    let attempts = deliveries.flat_map(|delivery| delivery["attempts"].as_array().into_iter().flatten());
    attempts.filter_map(|attempt| attempt["outcome"].as_str()).collect()
}

#[tokio::test]
async fn a_webhook_gets_the_notification_signed() {
    let (server, provider) = with_webhook(json!({})).await;
    let body = json!({
        "channel": "webhook", "message": "It rains", "title": "Weather", "priority": "high", "targetId": "roof",
        "metadata": { "room": "attic" }, "data": { "mm": 3 },
    });
    let id = server.send(KEY_A, &body).await;
    let received = provider.wait_for(1).await.remove(0);
    let data = &received.json()["data"];
    assert_eq!(data["id"], id);
    for field in ["message", "title", "priority", "targetId", "metadata", "data"] {
        assert_eq!(data[field], body[field], "{field}");
    }
    let judge = standardwebhooks::Webhook::new(WEBHOOK_SECRET).expect("a good secret");
    judge.verify(&received.body, &received.headers).expect("the published library accepts the signature");
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(received.header("webhook-id"), story["deliveries"][0]["id"]);
}

#[tokio::test]
async fn a_failing_provider_is_tried_again_with_the_same_id() {
    let (server, provider) = with_webhook(json!({})).await;
    provider.next(Answer::status(500)).next(Answer::status(503));
    let id = server.send(KEY_A, &hook("again")).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["retryable", "retryable", "sent"]);
    let received = provider.wait_for(3).await;
    assert!(received.iter().all(|request| request.header("webhook-id") == received[0].header("webhook-id")));
    assert_eq!(story["deliveries"][0]["attempts"][0]["code"], "500");
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    for (status, outcome) in [(503, "retryable"), (429, "rateLimited")] {
        let (server, provider) = with_webhook(json!({})).await;
        provider.next(Answer::status(status).header("retry-after", "1"));
        let id = server.send(KEY_A, &hook("later")).await;
        let received = provider.wait_for(2).await;
        let waited = received[1].at - received[0].at;
        assert!(waited >= Duration::from_millis(990), "{status}: {waited:?}");
        let story = server.wait_for(KEY_A, &id, "sent").await;
        assert_eq!(outcomes(&story), [outcome, "sent"]);
        assert_eq!(story["deliveries"][0]["attempts"][0]["retryAfterMs"], 1000);
    }
}

#[tokio::test]
async fn a_rate_limited_channel_sends_nothing_until_it_may() {
    let (server, provider) = with_webhook(json!({ "maxConcurrency": 1 })).await;
    provider.next(Answer::status(429).header("retry-after", "1"));
    let first = server.send(KEY_A, &json!({ "channel": "webhook", "message": "1", "targetId": "x" })).await;
    provider.wait_for(1).await;
    let second = server.send(KEY_A, &json!({ "channel": "webhook", "message": "2", "targetId": "y" })).await;
    let received = provider.wait_for(3).await;
    assert!(received[1].at - received[0].at >= Duration::from_millis(990));
    server.wait_for(KEY_A, &first, "sent").await;
    server.wait_for(KEY_A, &second, "sent").await;
}

#[tokio::test]
async fn a_refused_message_is_a_dead_letter_that_can_be_sent_again() {
    let (server, provider) = with_webhook(json!({})).await;
    provider.next(Answer::status(422));
    let id = server.send(KEY_A, &hook("odd")).await;
    let story = server.wait_for(KEY_A, &id, "failed").await;
    assert_eq!(outcomes(&story), ["rejected"]);
    let (_, list) = server.get(KEY_A, "/notifications?status=failed").await;
    assert_eq!(list["data"][0]["id"], id);
    let (status, answer) = server.post(KEY_A, &format!("/notifications/{id}/retry"), &json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let statuses: Vec<_> = story["deliveries"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
    assert_eq!(statuses, ["failed", "sent"]);
    let (status, _) = server.post(KEY_A, &format!("/notifications/{id}/retry"), &json!({})).await;
    assert_eq!(status, 409, "what was sent is not sent again");
}

#[tokio::test]
async fn a_gone_receiver_stops_its_channel_only_and_a_restart_tries_it_again() {
    let (gone, other) = (Provider::start().await, Provider::start().await);
    gone.then(Answer::status(410));
    let world = World::new().webhook(TENANT_A, "gone", &gone.url(), &json!({})).webhook(
        TENANT_B,
        "other",
        &other.url(),
        &json!({}),
    );
    let server = world.clone().start().await;
    let first = server.send(KEY_A, &hook("1")).await;
    server.wait_for(KEY_A, &first, "retrying").await;
    let second = server.send(KEY_A, &hook("2")).await;
    let elsewhere = server.send(KEY_B, &hook("3")).await;
    server.wait_for(KEY_B, &elsewhere, "sent").await;
    let (_, channels) = server.get(KEY_A, "/channels").await;
    let channel = &channels["data"][1];
    assert_eq!(channel["health"]["status"], "down", "{channels:#}");
    assert_eq!(channel["queued"], 2);
    assert!(channel["oldestQueuedAt"].is_string());
    assert_eq!(gone.received().len(), 1, "the receiver is left alone");
    let metrics = server.get(ADMIN_KEY, "/metrics").await.1;
    let depth = format!("conductor_queue_depth{{tenant=\"{TENANT_A}\",channel_type=\"webhook\"}} 2");
    assert!(metrics.as_str().is_some_and(|text| text.contains(&depth)), "{metrics}");
    let directory = server.stop().await;
    gone.then(Answer::status(200));
    let server = world.start_in(directory).await;
    server.wait_for(KEY_A, &first, "sent").await;
    server.wait_for(KEY_A, &second, "sent").await;
}

#[tokio::test]
async fn what_is_canceled_is_not_sent() {
    let (server, provider) = with_webhook(json!({})).await;
    let later = "2099-01-01T00:00:00Z";
    let body = json!({ "channel": "webhook", "message": "no", "sendAt": later, "expiresAt": "2099-01-02T00:00:00Z" });
    let id = server.send(KEY_A, &body).await;
    assert_eq!(server.get(KEY_A, &format!("/notifications/{id}")).await.1["status"], "scheduled");
    let (status, _) = server.post(KEY_A, &format!("/notifications/{id}/cancel"), &json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(server.get(KEY_A, &format!("/notifications/{id}")).await.1["status"], "canceled");
    let (status, _) = server.post(KEY_A, &format!("/notifications/{id}/cancel"), &json!({})).await;
    assert_eq!(status, 409);
    assert!(provider.received().is_empty());
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_end_and_keeps_the_rest_for_the_next_start() {
    let provider = Provider::start().await;
    provider.next(Answer::status(200).after(Duration::from_millis(400)));
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({ "maxConcurrency": 1 }));
    let server = world.clone().start().await;
    let under_way = server.send(KEY_A, &hook("under way")).await;
    provider.wait_for(1).await;
    let waits = server.send(KEY_A, &hook("waits")).await;
    let directory = server.stop().await;
    assert_eq!(provider.received().len(), 1);
    let server = world.start_in(directory).await;
    let story = server.get(KEY_A, &format!("/notifications/{under_way}")).await.1;
    assert_eq!(outcomes(&story), ["sent"]);
    server.wait_for(KEY_A, &waits, "sent").await;
    assert_eq!(provider.received().len(), 2);
}

#[tokio::test]
async fn private_addresses_are_refused_however_they_are_written() {
    let provider = Provider::start().await;
    let port = provider.url().rsplit(':').next().unwrap().to_owned();
    let hosts = ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:127.0.0.1]", "localhost", "127.1"];
    let mut world = World::new();
    for host in hosts {
        let url = format!("http://{host}:{port}");
        world = world.webhook(TENANT_A, host, &url, &json!({ "allowNetworks": [] }));
    }
    let server = world.start().await;
    let (_, channels) = server.get(KEY_A, "/channels").await;
    for host in hosts {
        let channel = channels["data"].as_array().unwrap().iter().find(|channel| channel["channelName"] == host);
        let id = server.send(KEY_A, &json!({ "channelId": channel.unwrap()["channelId"], "message": "x" })).await;
        let story = server.wait_for(KEY_A, &id, "failed").await;
        let detail = story["deliveries"][0]["attempts"][0]["detail"].as_str().unwrap();
        assert!(detail.contains("allowNetworks"), "{host}: {detail}");
    }
    assert!(provider.received().is_empty());
}

#[tokio::test]
async fn a_fallback_takes_over_what_failed_for_good() {
    let (first, second) = (Provider::start().await, Provider::start().await);
    first.then(Answer::status(400));
    let world = World::new().webhook(TENANT_A, "first", &first.url(), &json!({}));
    let server = world.webhook(TENANT_A, "second", &second.url(), &json!({})).start().await;
    let (_, channels) = server.get(KEY_A, "/channels").await;
    let fallback = json!([{ "channel": "webhook", "channelId": channels["data"][2]["channelId"], "targetId": "roof" }]);
    let body = json!({ "channel": "webhook", "message": "important", "fallback": fallback });
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let statuses: Vec<_> = story["deliveries"].as_array().unwrap().iter().map(|d| &d["status"]).collect();
    assert_eq!(statuses, ["failed", "sent"]);
    assert_eq!(second.wait_for(1).await[0].json()["data"]["targetId"], "roof");
}

#[tokio::test]
async fn the_last_of_a_key_takes_the_place_of_those_that_wait() {
    let (server, provider) = with_webhook(json!({ "maxConcurrency": 1 })).await;
    provider.next(Answer::status(200).after(Duration::from_millis(300)));
    let keyed = |message| json!({ "channel": "webhook", "message": message, "key": "door" });
    let under_way = server.send(KEY_A, &keyed("open 1")).await;
    provider.wait_for(1).await;
    let replaced = server.send(KEY_A, &keyed("closed 1")).await;
    let last = server.send(KEY_A, &keyed("open 2")).await;
    server.wait_for(KEY_A, &replaced, "superseded").await;
    server.wait_for(KEY_A, &under_way, "sent").await;
    server.wait_for(KEY_A, &last, "sent").await;
    let messages: Vec<_> = provider.received().iter().map(|request| request.message()).collect();
    assert_eq!(messages, ["open 1", "open 2"]);
}

#[tokio::test]
async fn what_cannot_be_sent_in_its_time_expires() {
    let (server, provider) = with_webhook(json!({ "expiresAfter": "2s" })).await;
    provider.then(Answer::status(429).header("retry-after", "1"));
    let id = server.send(KEY_A, &hook("soon or never")).await;
    let story = server.wait_for(KEY_A, &id, "expired").await;
    assert_eq!(outcomes(&story)[0], "rateLimited");
}

#[tokio::test]
async fn a_channel_has_no_more_attempts_under_way_than_it_may() {
    let (server, provider) = with_webhook(json!({ "maxConcurrency": 3 })).await;
    provider.then(Answer::status(200).after(Duration::from_millis(150)));
    let mut ids = Vec::new();
    for target in 0..12 {
        ids.push(
            server.send(KEY_A, &json!({ "channel": "webhook", "message": "x", "targetId": target.to_string() })).await,
        );
    }
    for id in ids {
        server.wait_for(KEY_A, &id, "sent").await;
    }
    assert!((2..=3).contains(&provider.most_under_way()), "{}", provider.most_under_way());
}

#[tokio::test]
async fn one_target_gets_its_messages_in_order() {
    let (server, provider) = with_webhook(json!({ "maxConcurrency": 8 })).await;
    provider.next(Answer::status(200).after(Duration::from_millis(50)));
    for number in 0..20 {
        server.send(KEY_A, &hook(&number.to_string())).await;
    }
    let received = provider.wait_for(20).await;
    let order: Vec<usize> = received.iter().map(|request| request.message().parse().unwrap()).collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hanging_provider_costs_its_own_channel_only() {
    let (hanging, quick) = (Provider::start().await, Provider::start().await);
    hanging.then(Answer::status(200).after(Duration::from_secs(60)));
    let world = World::new().webhook(TENANT_A, "hanging", &hanging.url(), &json!({ "timeout": "2s" }));
    let server = world.webhook(TENANT_B, "quick", &quick.url(), &json!({})).start().await;
    for target in 0..30 {
        server.send(KEY_A, &json!({ "channel": "webhook", "message": "x", "targetId": target.to_string() })).await;
    }
    hanging.wait_for(1).await;
    let start = std::time::Instant::now();
    let id = server.send(KEY_B, &hook("quick")).await;
    server.wait_for(KEY_B, &id, "sent").await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_more_urgent_one_goes_before_those_that_wait_for_the_same_target() {
    let (server, provider) = with_webhook(json!({})).await;
    provider.next(Answer::status(200).after(Duration::from_millis(400)));
    server.send(KEY_A, &hook("under way")).await;
    provider.wait_for(1).await;
    for number in 0..3 {
        server.send(KEY_A, &hook(&number.to_string())).await;
    }
    server.send(KEY_A, &json!({ "channel": "webhook", "message": "urgent", "priority": "high" })).await;
    let received = provider.wait_for(5).await;
    let order: Vec<_> = received.iter().map(|request| request.message()).collect();
    assert_eq!(order, ["under way", "urgent", "0", "1", "2"]);
}

#[tokio::test]
async fn a_fallback_gets_the_time_that_is_left() {
    let (server, provider) = with_webhook(json!({ "expiresAfter": "60s" })).await;
    provider.then(Answer::status(429).header("retry-after", "3600"));
    let body = json!({ "channel": "webhook", "message": "important", "fallback": [{ "channel": "log" }] });
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let ways: Vec<_> = story["deliveries"].as_array().unwrap().iter().map(|d| (&d["channel"], &d["status"])).collect();
    assert_eq!(json!(ways), json!([["webhook", "expired"], ["log", "sent"]]));
}

#[tokio::test]
async fn a_provider_that_asks_for_no_pause_is_not_asked_without_one() {
    let (server, provider) = with_webhook(json!({})).await;
    provider.then(Answer::status(429).header("retry-after", "0"));
    server.send(KEY_A, &hook("again and again")).await;
    let received = provider.wait_for(3).await;
    let pauses: Vec<_> = received.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_millis(990)), "{pauses:?}");
}

#[tokio::test]
async fn what_may_have_been_sent_is_held_for_a_person_where_the_channel_says_so() {
    let (server, provider) = with_webhook(json!({ "timeout": "300ms", "onUnknown": "hold" })).await;
    provider.next(Answer::status(200).after(Duration::from_secs(5)));
    let id = server.send(KEY_A, &hook("sent?")).await;
    let story = server.wait_for(KEY_A, &id, "held").await;
    assert_eq!(outcomes(&story), ["unknown"]);
    let (_, list) = server.get(KEY_A, "/notifications?status=held").await;
    assert_eq!(list["data"][0]["id"], id);
    assert_eq!(server.post(KEY_A, &format!("/notifications/{id}/resolve"), &json!({})).await.0, 200);
    server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(provider.received().len(), 1);
}

#[tokio::test]
async fn a_rate_limited_channel_sends_nothing_until_it_may_though_the_server_starts_anew() {
    let provider = Provider::start().await;
    provider.next(Answer::status(429).header("retry-after", "4"));
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    let server = world.clone().start().await;
    let first = server.send(KEY_A, &json!({ "channel": "webhook", "message": "first" })).await;
    server.wait_for(KEY_A, &first, "retrying").await;
    let told = provider.received()[0].at;
    let server = world.start_in(server.stop().await).await;
    let second = server.send(KEY_A, &json!({ "channel": "webhook", "message": "second", "targetId": "b" })).await;
    for id in [first, second] {
        server.wait_for(KEY_A, &id, "sent").await;
    }
    let waited = provider.received()[1].at - told;
    assert!(waited >= Duration::from_millis(3_990), "{waited:?}");
}
