//! A provider that hangs, fails, or refuses the credentials costs its own channel only, and is not hammered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::support::latency::{Latency, expect_as_idle};
use super::support::process::{Process, serving};
use super::support::provider::{Answer, DEADLINE, Provider};
use super::support::server::{KEY_A, KEY_B, TENANT_A, TENANT_B, World, answer, http};

/// So many requests hang.
const HANGING: usize = 1_000;

/// Takes connections and answers nothing. Gives its address and how many have come.
async fn silent_provider() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            kept.push(connection);
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (url, count)
}

fn to_many_targets(count: usize) -> Value {
    let one = |target: usize| json!({ "channel": "webhook", "message": "x", "targetId": target.to_string() });
    json!({ "notifications": (0..count).map(one).collect::<Vec<_>>() })
}

/// The channel of this name as `GET /channels` shows it.
async fn channel(url: &str, name: &str) -> Value {
    let (_, channels) = answer(http().get(format!("{url}/channels")).bearer_auth(KEY_A)).await;
    let found = channels["data"].as_array().into_iter().flatten().find(|channel| channel["channelName"] == name);
    found.cloned().unwrap_or_default()
}

/// Waits until the channel shows what is wanted.
async fn channel_until(url: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let shown = channel(url, name).await;
        if wanted(&shown) {
            return shown;
        }
        assert!(start.elapsed() < DEADLINE, "not in time: {shown:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_hanging_requests_to_one_provider_leave_anothers_latency_as_it_was() {
    let (hanging, count) = silent_provider().await;
    let quick = Provider::start().await;
    let world = World::new().webhook(TENANT_A, "hanging", &hanging, &json!({ "maxConcurrency": HANGING }));
    let server = world.webhook(TENANT_B, "quick", &quick.url(), &json!({})).start().await;
    let idle = Latency::of(&server, &quick).await;
    let (status, answer) = server.post(KEY_A, "/notifications/batch", &to_many_targets(HANGING)).await;
    assert_eq!(status, 207, "{answer}");
    let start = Instant::now();
    while count.load(Ordering::SeqCst) < HANGING {
        assert!(start.elapsed() < DEADLINE, "{} of {HANGING} have come", count.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let beside = Latency::of(&server, &quick).await;
    expect_as_idle(&idle, &beside, &format!("{HANGING} hanging requests"));
}

#[tokio::test]
async fn a_provider_that_fails_always_is_probed_ever_more_rarely_and_comes_back() {
    let provider = Provider::start().await;
    provider.then(Answer::status(500));
    let directory = TempDir::new().unwrap();
    let world = World::new().webhook(TENANT_A, "failing", &provider.url(), &json!({ "maxConcurrency": 1 }));
    let process = Process::serve(&mut serving(directory.path(), &world));
    let url = process.url.clone();
    let request = http().post(format!("{url}/notifications/batch")).bearer_auth(KEY_A);
    assert_eq!(answer(request.json(&to_many_targets(40))).await.0, 207);
    let shown = channel_until(&url, "failing", |shown| shown["breaker"] == "open").await;
    assert_eq!(shown["health"]["status"], "down", "{shown:#}");
    assert!(shown["health"]["reason"].is_string() && shown["pausedUntil"].is_string(), "{shown:#}");
    assert!(process.logged("The channel is down").contains("WARN"));
    // Ten failures in a row, and then one at a time.
    let received = provider.wait_for(12).await;
    provider.then(Answer::status(200));
    let pauses: Vec<_> = received[..12].windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(pauses[9] >= Duration::from_millis(990), "{pauses:?}");
    assert!(pauses[10] >= Duration::from_millis(1_990), "{pauses:?}");
    let shown = channel_until(&url, "failing", |shown| shown["breaker"] == "closed").await;
    assert_eq!(shown["health"]["status"], "up", "{shown:#}");
    process.logged("The channel is up again");
    channel_until(&url, "failing", |shown| shown["queued"] == 0).await;
}

#[tokio::test]
async fn refused_credentials_are_shown_to_the_provider_once_however_much_is_queued() {
    let (refusing, other) = (Provider::start().await, Provider::start().await);
    refusing.then(Answer::status(410));
    let world = World::new().webhook(TENANT_A, "refused", &refusing.url(), &json!({ "maxConcurrency": 1 }));
    let server = world.webhook(TENANT_B, "other", &other.url(), &json!({})).start().await;
    assert_eq!(server.post(KEY_A, "/notifications/batch", &to_many_targets(200)).await.0, 207);
    let shown = channel_until(&server.url(""), "refused", |shown| shown["health"]["status"] == "down").await;
    assert!(shown["health"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{shown:#}");
    let id = server.send(KEY_B, &json!({ "channel": "webhook", "message": "elsewhere" })).await;
    server.wait_for(KEY_B, &id, "sent").await;
    server.send(KEY_A, &json!({ "channel": "webhook", "message": "one more" })).await;
    let id = server.send(KEY_B, &json!({ "channel": "webhook", "message": "and elsewhere" })).await;
    server.wait_for(KEY_B, &id, "sent").await;
    assert_eq!(channel(&server.url(""), "refused").await["queued"], 201);
    assert_eq!(refusing.received().len(), 1, "the provider is left alone");
}
