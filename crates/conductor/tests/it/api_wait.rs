//! `Prefer: wait`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Client;
use crate::support::provider::{Answer, Provider};
use crate::support::server::{KEY_A, TENANT_A, World};

const WAIT: &[(&str, &str)] = &[("prefer", "respond-async, wait=20")];

#[tokio::test]
async fn whoever_waits_hears_that_it_was_sent() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "log", "message": "m" });
    let answer = client.post_with("/notifications", WAIT, &body).await;
    assert_eq!(answer.expect(200)["status"], "sent");
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    let long = client.post_with("/notifications", &[("prefer", "wait=9999")], &body).await;
    assert_eq!(long.header("preference-applied"), Some("wait=30"));
}

#[tokio::test]
async fn whoever_waits_hears_the_providers_reason() {
    let provider = Provider::start().await;
    provider.then(Answer { body: "no such room", ..Answer::status(404) });
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let answer = client.post_with("/notifications", WAIT, &json!({ "channel": "webhook", "message": "m" })).await;
    let problem = answer.problem(502);
    assert_eq!((&problem["code"], &problem["notificationStatus"]), (&json!("404"), &json!("failed")), "{problem}");
    let story = client.get(answer.header("location").unwrap()).await.expect(200);
    assert_eq!((&story["status"], &story["id"]), (&json!("failed"), &problem["id"]));
    let words = story["deliveries"][0]["attempts"][0]["detail"].as_str().unwrap();
    assert!(problem["error"].as_str().unwrap().contains(words.trim_end_matches('.')), "{problem}");
}

#[tokio::test]
async fn the_wait_goes_on_through_the_fallbacks() {
    let provider = Provider::start().await;
    provider.then(Answer::status(404));
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "webhook", "message": "m", "fallback": [{ "channel": "log" }] });
    let answer = client.post_with("/notifications", WAIT, &body).await.expect(200);
    assert_eq!(answer["status"], "sent");
    let story = client.until(answer["id"].as_str().unwrap(), "sent").await;
    assert_eq!(story["deliveries"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_wait_that_ends_first_is_answered_as_accepted() {
    let provider = Provider::start().await;
    provider.then(Answer::status(503));
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "webhook", "message": "m" });
    let start = Instant::now();
    let answer = client.post_with("/notifications", &[("prefer", "wait=1")], &body).await;
    let status = answer.expect(202)["status"].clone();
    assert!(["queued", "sending", "retrying"].iter().any(|word| status == *word), "{status}");
    let took = start.elapsed();
    assert!((Duration::from_millis(990)..Duration::from_secs(10)).contains(&took), "{took:?}");
    assert_eq!(answer.header("preference-applied"), Some("wait=1"));
}

#[tokio::test]
async fn the_same_request_is_answered_while_an_earlier_one_still_waits() {
    let provider = Provider::start().await;
    provider.then(Answer::status(503));
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "webhook", "message": "m" });
    let send = async |wait| {
        let headers = [("idempotency-key", "k"), ("prefer", wait)];
        client.post_with("/notifications", &headers, &body).await
    };
    let second = async {
        // The first is on disk, and waits for an outcome that does not come so soon.
        provider.wait_for(1).await;
        let start = Instant::now();
        (send("wait=1").await, start.elapsed())
    };
    let (first, (second, took)) = tokio::join!(send("wait=3"), second);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(second.header("idempotent-replay"), Some("true"));
    assert_eq!(second.expect(202)["id"], first.json()["id"]);
}

#[tokio::test]
async fn a_stop_lets_nobody_wait_on() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "log", "message": "m", "sendAt": "2999-01-01T00:00:00Z" });
    let start = Instant::now();
    let waiting = client.post_with("/notifications", &[("prefer", "wait=30")], &body);
    let stopping = async {
        let list = || async { client.get("/notifications").await.expect(200)["data"].as_array().unwrap().len() };
        while list().await == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.stop().await
    };
    let (answer, _directory) = tokio::join!(waiting, stopping);
    assert_eq!(answer.expect(202)["status"], "scheduled");
    assert!(start.elapsed() < Duration::from_secs(15));
}
