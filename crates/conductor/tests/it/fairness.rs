//! A tenant that sends far more than its provider takes, and another one that sends now and then.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::latency::{Latency, expect_as_idle};
use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, TENANT_B, TestServer, World};

/// How much the first tenant has in the queue; `FAIRNESS_QUEUED` sets another number.
const QUEUED: usize = 20_000;
const BATCH: usize = 1_000;

async fn queued(server: &TestServer) -> u64 {
    let (_, channels) = server.get(KEY_A, "/channels").await;
    channels["data"].as_array().unwrap().iter().filter_map(|channel| channel["queued"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_backlog_leaves_anothers_latency_as_it_is_on_an_idle_server() {
    #[expect(clippy::disallowed_methods, reason = "how long a test runs is not the server's configuration")]
    let wanted = std::env::var("FAIRNESS_QUEUED").ok();
    let wanted = wanted.map_or(QUEUED, |number| number.parse().expect("FAIRNESS_QUEUED is a number"));
    let (busy, quick) = (Provider::start().await, Provider::start().await);
    busy.then(Answer::status(200).after(Duration::from_millis(20)));
    let world = World::new().webhook(TENANT_A, "busy", &busy.url(), &json!({}));
    let server = world.webhook(TENANT_B, "quick", &quick.url(), &json!({})).start().await;
    let idle = Latency::of(&server, &quick).await;
    for batch in 0..wanted / BATCH {
        let target = |n: usize| ((batch * BATCH + n) % 997).to_string();
        let one = |n| json!({ "channel": "webhook", "message": "x", "priority": "high", "targetId": target(n) });
        let all: Vec<Value> = (0..BATCH).map(one).collect();
        let (status, answer) = server.post(KEY_A, "/notifications/batch", &json!({ "notifications": all })).await;
        assert_eq!(status, 207, "{answer}");
    }
    let begun_with = queued(&server).await;
    let beside = Latency::of(&server, &quick).await;
    let left = queued(&server).await;
    assert!(left > 0 && left < begun_with, "of {begun_with} queued {left} are left: the test proves nothing");
    expect_as_idle(&idle, &beside, &format!("{begun_with} to {left} queued by another tenant"));
}
