//! A stop is quick: nobody who merely waits, and nobody who is slow, holds it up. What was accepted stays.

use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::support::process::Process;
use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, World, answer, http};
use super::support::wire::{Wire, statuses};

/// A stop with no attempt under way takes less than this; the longest that a request may go on is five seconds.
const QUICK: Duration = Duration::from_secs(10);

async fn slow_world(after: Duration) -> (World, Provider) {
    let provider = Provider::start().await;
    provider.then(Answer::status(200).after(after));
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({ "maxConcurrency": 1 }));
    (world, provider)
}

/// Asks for an answer that comes with the outcome, which is not soon.
fn waiting(url: &str) -> tokio::task::JoinHandle<(u16, serde_json::Value)> {
    let body = json!({ "channel": "webhook", "message": "x" });
    let request =
        http().post(format!("{url}/notifications")).bearer_auth(KEY_A).header("prefer", "wait=30").json(&body);
    #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
    tokio::spawn(answer(request))
}

#[tokio::test]
async fn whoever_waits_for_an_outcome_is_answered_at_once_and_kept_connections_are_closed() {
    let (world, provider) = slow_world(Duration::from_secs(2)).await;
    let server = world.start().await;
    let address = server.address().to_string();
    let waiting = waiting(&server.url(""));
    provider.wait_for(1).await;
    let mut kept = Wire::open(&address).await;
    assert!(kept.say(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await);
    assert!(kept.hear_until("timestamp", 1).await.contains(" 200 "));
    let mut silent = Wire::open(&address).await;
    let start = Instant::now();
    let stopping = server.stop();
    let seen = async {
        let (status, told) = waiting.await.expect("an answer");
        assert_eq!((status, &told["status"]), (202, &json!("sending")), "{told}");
        assert!(kept.hear().await.1 && silent.hear().await.1, "they are closed");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(tokio::net::TcpStream::connect(&address).await.is_err(), "nobody new is let in");
    };
    let (_directory, ()) = tokio::join!(stopping, seen);
    assert!(start.elapsed() >= Duration::from_secs(1), "the attempt under way has ended first");
    assert!(start.elapsed() < QUICK, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_client_in_the_middle_of_its_request_does_not_hold_the_stop_up() {
    let server = World::new().start().await;
    let mut slow = Vec::new();
    for said in [
        "POST /notifications HTTP/1.1\r\nHost".to_owned(),
        format!(
            "POST /notifications HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY_A}\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{"
        ),
        "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000),
    ] {
        let mut wire = Wire::open(&server.address().to_string()).await;
        let _ = tokio::time::timeout(Duration::from_millis(200), wire.say(said.as_bytes())).await;
        slow.push(wire);
    }
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < QUICK, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_process_well_and_loses_nothing() {
    let (world, provider) = slow_world(Duration::from_secs(1)).await;
    let directory = TempDir::new().unwrap();
    world.write(&directory.path().join("config"));
    let mut process = Process::start(&directory, &world);
    let under_way = waiting(&process.url);
    provider.wait_for(1).await;
    let queued = waiting(&process.url);
    let mut kept = Wire::open(&process.address()).await;
    assert!(kept.say(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await);
    let url = format!("{}/notifications?limit=9", process.url);
    while answer(http().get(&url).bearer_auth(KEY_A)).await.1["data"].as_array().map(Vec::len) != Some(2) {}
    process.terminate();
    let status = process.ended_within(QUICK).await.expect("it ends in time");
    assert!(status.success(), "{status}");
    assert_eq!(statuses(&kept.hear().await.0), [200]);
    for waited in [under_way, queued] {
        let (status, told) = waited.await.unwrap();
        assert_eq!(status, 202, "{told}");
    }
    assert_eq!(provider.received().len(), 1);
    let process = Process::start(&directory, &world);
    provider.wait_for(2).await;
    let sent = |list: serde_json::Value| list["data"].as_array().unwrap().len();
    let start = Instant::now();
    let url = format!("{}/notifications?status=sent", process.url);
    while sent(answer(http().get(&url).bearer_auth(KEY_A)).await.1) < 2 {
        assert!(start.elapsed() < QUICK, "both are sent, each once");
    }
    assert_eq!(provider.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let (world, provider) = slow_world(Duration::from_secs(25)).await;
    let directory = TempDir::new().unwrap();
    world.write(&directory.path().join("config"));
    let mut process = Process::start(&directory, &world);
    let waiting = waiting(&process.url);
    provider.wait_for(1).await;
    process.terminate();
    assert_eq!(waiting.await.unwrap().0, 202);
    process.terminate();
    let status = process.ended_within(Duration::from_secs(5)).await.expect("it ends at once");
    assert!(!status.success());
}
