//! Channels whose credentials are refused, and mended.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::support::provider::{Answer, Provider};
use super::super::support::server::{KEY_A, TENANT_A, TestServer, World};

async fn health(server: &TestServer) -> String {
    let (_, page) = server.get(KEY_A, "/channels").await;
    let channels = page["data"].as_array().expect("channels");
    let hook = channels.iter().find(|channel| channel["channelType"] == "webhook").expect("the channel");
    hook["health"]["status"].as_str().expect("a word").to_owned()
}

#[tokio::test]
async fn a_channel_with_mended_credentials_sends_what_waits_at_once() {
    let (refusing, taking) = (Provider::start().await, Provider::start().await);
    refusing.then(Answer::status(410));
    let world = |url: &str, weight: u32| {
        let mut world = World::new().webhook(TENANT_A, "hook", url, &json!({}));
        world.tenants[1]["weight"] = json!(weight);
        world
    };
    let server = world(&refusing.url(), 1).start().await;
    let mut waiting = Vec::new();
    for number in 0..5 {
        waiting.push(server.send(KEY_A, &json!({ "channel": "webhook", "message": format!("number {number}") })).await);
    }
    server.wait_for(KEY_A, &waiting[0], "retrying").await;
    assert_eq!(health(&server).await, "down");
    let tried = refusing.received().len();
    // Another change is no reason to try a refused key again.
    assert_eq!(server.reload(&world(&refusing.url(), 2)).await.0, 200);
    assert_eq!(health(&server).await, "down");
    let start = Instant::now();
    assert_eq!(server.reload(&world(&taking.url(), 2)).await.0, 200);
    for id in &waiting {
        server.wait_for(KEY_A, id, "sent").await;
    }
    // Asking whether it works comes a minute later only, and a webhook cannot be asked.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let mut sent: Vec<_> = taking.received().iter().map(|received| received.message()).collect();
    // The one that was refused waits for a moment of its own, in which others may pass.
    sent.sort_unstable();
    assert_eq!(sent, ["number 0", "number 1", "number 2", "number 3", "number 4"], "each once");
    assert_eq!(refusing.received().len(), tried);
    assert_eq!(health(&server).await, "up");
    server.stop().await;
}
