//! How signals end a server, what it says, and what it leaves.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::process::{Process, serving};
use super::support::provider::{Answer, DEADLINE, Provider};
use super::support::server::{KEY_A, TENANT_A, World, answer, http};

async fn send(process: &Process, channel: &str) -> String {
    let message = json!({ "channel": channel, "message": "Hello" });
    let request = http().post(format!("{}/notifications", process.url)).bearer_auth(KEY_A).json(&message);
    let (status, accepted) = answer(request).await;
    assert_eq!(status, 202, "{accepted}");
    accepted["id"].as_str().expect("an id").to_owned()
}

async fn story(process: &Process, id: &str) -> Value {
    answer(http().get(format!("{}/notifications/{id}", process.url)).bearer_auth(KEY_A)).await.1
}

async fn until(process: &Process, id: &str, status: &str) -> Value {
    let start = Instant::now();
    loop {
        let story = story(process, id).await;
        if story["status"] == status {
            return story;
        }
        assert!(start.elapsed() < DEADLINE, "never {status}: {story:#}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until nobody takes connections there any more.
fn closed(url: &str) {
    let address = url.trim_start_matches("http://");
    let start = Instant::now();
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(start.elapsed() < DEADLINE, "{address} still takes connections");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn either_signal_stops_a_server_that_has_nothing_to_do() {
    let directory = TempDir::new().expect("a directory");
    let world = World::new();
    for signal in [Signal::TERM, Signal::INT] {
        let process = Process::serve(&mut serving(directory.path(), &world));
        let id = send(&process, "log").await;
        until(&process, &id, "sent").await;
        let url = process.url.clone();
        let since = Instant::now();
        process.signal(signal);
        let ended = process.ended().with(0);
        assert!(since.elapsed() < Duration::from_secs(5), "{signal:?}: {:?}", since.elapsed());
        assert!(ended.err.contains("Stopping") && ended.err.trim_end().ends_with("Stopped"), "{}", ended.err);
        closed(&url);
    }
}

#[test]
fn a_signal_right_after_the_start_stops_it_as_well() {
    let directory = TempDir::new().expect("a directory");
    for _ in 0..5 {
        Process::serve(&mut serving(directory.path(), &World::new())).stop().with(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_the_attempt_under_way_end() {
    let provider = Provider::start().await;
    provider.then(Answer::status(200).after(Duration::from_millis(700)));
    let directory = TempDir::new().expect("a directory");
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    let process = Process::serve(&mut serving(directory.path(), &world));
    let id = send(&process, "webhook").await;
    provider.wait_for(1).await;
    process.stop().with(0);
    let process = Process::serve(&mut serving(directory.path(), &world));
    let story = until(&process, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["attempts"].as_array().map(Vec::len), Some(1), "{story:#}");
    assert_eq!(provider.received().len(), 1, "it was sent again");
    process.stop().with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_forces_the_end_and_the_next_start_goes_on() {
    let provider = Provider::start().await;
    provider.next(Answer::status(200).after(Duration::from_secs(25)));
    let directory = TempDir::new().expect("a directory");
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    let mut process = Process::serve(&mut serving(directory.path(), &world));
    let id = send(&process, "webhook").await;
    provider.wait_for(1).await;
    let url = process.url.clone();
    process.signal(Signal::INT);
    process.logged("Stopping");
    closed(&url);
    assert!(process.is_running(), "it did not wait for the attempt: {}", process.text());
    let since = Instant::now();
    process.terminate();
    let ended = process.ended().with(1);
    assert!(since.elapsed() < Duration::from_secs(3), "forced, it took {:?}", since.elapsed());
    assert!(ended.err.contains("[WARN] [conductor:cli:serve] Forced to stop"), "{}", ended.err);
    let process = Process::serve(&mut serving(directory.path(), &world));
    until(&process, &id, "sent").await;
    let received = provider.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    process.stop().with(0);
}
