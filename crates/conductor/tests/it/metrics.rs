//! What the server tells in numbers is what has happened.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::provider::{Answer, DEADLINE, Provider};
use crate::support::server::{ADMIN_KEY, KEY_A, KEY_B, TENANT_A, TENANT_B, TestServer, World};

async fn text(server: &TestServer) -> String {
    let (status, text) = server.get(ADMIN_KEY, "/metrics").await;
    assert_eq!(status, 200);
    text.as_str().expect("a text").to_owned()
}

/// The value of a series, named as it stands there; none where it is not there.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}

fn of(name: &str, tenant: &str, kind: &str, more: &str) -> String {
    format!("{name}{{tenant=\"{tenant}\",channel_type=\"{kind}\"{more}}}")
}

/// Reads the metrics until a series has this value.
async fn wait_for(server: &TestServer, series: &str, expected: f64) -> String {
    let start = Instant::now();
    loop {
        let text = text(server).await;
        if value(&text, series) == Some(expected) {
            return text;
        }
        assert!(start.elapsed() < DEADLINE, "{series} is never {expected}:\n{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn accepted_attempts_sent_and_failed_are_counted_by_tenant_and_type() {
    let provider = Provider::start().await;
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let body = json!({ "channel": "webhook", "message": "x" });
    provider.next(Answer::status(503)).next(Answer::status(200)).next(Answer::status(422));
    let id = server.send(KEY_A, &body).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let id = server.send(KEY_A, &body).await;
    server.wait_for(KEY_A, &id, "failed").await;
    let log = server.send(KEY_B, &json!({ "channel": "log", "message": "x" })).await;
    server.wait_for(KEY_B, &log, "sent").await;
    let text = text(&server).await;
    let attempt =
        |outcome: &str| of("conductor_attempts_total", TENANT_A, "webhook", &format!(",outcome=\"{outcome}\""));
    let failed =
        |reason: &str| of("conductor_deliveries_failed_total", TENANT_A, "webhook", &format!(",reason=\"{reason}\""));
    for (series, expected) in [
        (of("conductor_notifications_accepted_total", TENANT_A, "webhook", ""), 2.0),
        (of("conductor_notifications_accepted_total", TENANT_A, "log", ""), 0.0),
        (of("conductor_notifications_accepted_total", TENANT_B, "log", ""), 1.0),
        (attempt("sent"), 1.0),
        (attempt("retryable"), 1.0),
        (attempt("unauthorized"), 0.0),
        (of("conductor_deliveries_sent_total", TENANT_A, "webhook", ""), 1.0),
        (failed("permanent"), 0.0),
        (failed("rejected"), 1.0),
        (failed("expired"), 0.0),
        ("conductor_accept_duration_seconds_count{channel_type=\"webhook\"}".to_owned(), 2.0),
        ("conductor_attempt_duration_seconds_count{channel_type=\"webhook\"}".to_owned(), 3.0),
        ("conductor_queue_age_seconds_count{channel_type=\"webhook\"}".to_owned(), 1.0),
        ("conductor_http_requests_total{method=\"POST\",route=\"/notifications\",status=\"202\"}".to_owned(), 3.0),
        ("conductor_config_version".to_owned(), 1.0),
        ("conductor_config_last_reload_successful".to_owned(), 1.0),
    ] {
        assert_eq!(value(&text, &series), Some(expected), "{series} in:\n{text}");
    }
    assert!(value(&text, "conductor_store_commit_duration_seconds_count") >= Some(3.0));
    assert!(value(&text, "conductor_store_changes_total") >= Some(6.0));
    assert!(value(&text, "conductor_store_file_bytes") > Some(0.0));
    assert!(value(&text, "conductor_store_disk_free_bytes") > Some(0.0));
    assert_eq!(value(&text, "conductor_store_failing"), Some(0.0));
    assert!(value(&text, "process_resident_memory_bytes") > Some(0.0));
    let started = value(&text, "process_start_time_seconds").expect("a time");
    let now = conductor::clock::SystemClock;
    let now = conductor_core::Clock::now(&now).seconds() as f64;
    assert!((now - 300.0..=now + 1.0).contains(&started), "{started} is not a moment before {now}");
}

#[tokio::test]
async fn depth_and_age_of_the_oldest_tell_of_what_waits() {
    let provider = Provider::start().await;
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let later = json!({ "channel": "webhook", "message": "x", "sendAt": "2999-01-01T00:00:00Z" });
    let (depth, age) = (
        of("conductor_queue_depth", TENANT_A, "webhook", ""),
        of("conductor_queue_oldest_age_seconds", TENANT_A, "webhook", ""),
    );
    let empty = text(&server).await;
    assert_eq!((value(&empty, &depth), value(&empty, &age)), (Some(0.0), Some(0.0)));
    let ids = [server.send(KEY_A, &later).await, server.send(KEY_A, &later).await];
    tokio::time::sleep(Duration::from_millis(20)).await;
    let two = text(&server).await;
    assert_eq!(value(&two, &depth), Some(2.0));
    assert!(value(&two, &age) >= Some(0.02), "{two}");
    assert_eq!(value(&two, &of("conductor_queue_depth", TENANT_B, "log", "")), Some(0.0));
    for id in ids {
        server.post(KEY_A, &format!("/notifications/{id}/cancel"), &json!({})).await;
    }
    let none = text(&server).await;
    assert_eq!((value(&none, &depth), value(&none, &age)), (Some(0.0), Some(0.0)), "{none}");
}

#[tokio::test]
async fn a_channel_that_is_down_is_counted_as_down() {
    let provider = Provider::start().await;
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let health = |word: &str| of("conductor_channels", TENANT_A, "webhook", &format!(",health=\"{word}\""));
    assert_eq!(value(&text(&server).await, &health("unknown")), Some(1.0));
    let id = server.send(KEY_A, &json!({ "channel": "webhook", "message": "x" })).await;
    server.wait_for(KEY_A, &id, "sent").await;
    wait_for(&server, &health("up"), 1.0).await;
    provider.then(Answer::status(410));
    server.send(KEY_A, &json!({ "channel": "webhook", "message": "x" })).await;
    let down = wait_for(&server, &health("down"), 1.0).await;
    assert_eq!((value(&down, &health("up")), value(&down, &health("unknown"))), (Some(0.0), Some(0.0)));
    let held_up = |cause: &str| of("conductor_channels_held_up", TENANT_A, "webhook", &format!(",cause=\"{cause}\""));
    assert_eq!(value(&down, &held_up("pause")), Some(0.0));
    let limited = Answer::status(429).header("retry-after", "60");
    let provider = Provider::start().await;
    provider.then(limited);
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    server.send(KEY_A, &json!({ "channel": "webhook", "message": "x" })).await;
    wait_for(&server, &held_up("pause"), 1.0).await;
}

#[tokio::test]
async fn nothing_that_a_caller_writes_becomes_a_label() {
    let server = World::new().start().await;
    let words = ["s3cret-target", "s3cret-path", "s3cret-title"];
    let body = json!({ "channel": "log", "message": "x", "targetId": words[0], "title": words[2],
                       "metadata": { "room": words[2] } });
    let id = server.send(KEY_A, &body).await;
    server.wait_for(KEY_A, &id, "sent").await;
    server.get(KEY_A, &format!("/{}", words[1])).await;
    server.get(KEY_A, &format!("/notifications/{}", words[1])).await;
    let text = text(&server).await;
    for word in words.iter().chain([&id.as_str()]) {
        assert!(!text.contains(word), "{word} in:\n{text}");
    }
    assert_eq!(
        value(&text, "conductor_http_requests_total{method=\"GET\",route=\"unknown\",status=\"404\"}"),
        Some(1.0)
    );
}
