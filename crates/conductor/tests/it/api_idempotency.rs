//! `Idempotency-Key`.

use serde_json::json;

use crate::support::client::Client;
use crate::support::provider::{Answer, Provider};
use crate::support::server::{KEY_A, KEY_B, TENANT_A, World};

#[tokio::test]
async fn the_same_request_again_gets_the_same_answer_and_sends_nothing() {
    let provider = Provider::start().await;
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "webhook", "message": "once" });
    let first = client.post_with("/notifications", &[("idempotency-key", "k-1")], &body).await;
    assert_eq!(first.header("idempotent-replay"), None);
    client.until(first.expect(202)["id"].as_str().unwrap(), "sent").await;
    for form in ["k-1", "\"k-1\""] {
        let again = client.post_with("/notifications", &[("idempotency-key", form)], &body).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.header("idempotent-replay"), Some("true"));
    }
    assert_eq!(provider.received().len(), 1);
}

#[tokio::test]
async fn another_request_with_the_key_is_refused_and_another_tenants_is_not() {
    let server = World::new().start().await;
    let (a, b) = (Client::new(&server, Some(KEY_A)), Client::new(&server, Some(KEY_B)));
    let key = &[("idempotency-key", "k")];
    let body = |message| json!({ "channel": "log", "message": message });
    a.post_with("/notifications", key, &body("one")).await.expect(202);
    let refused = a.post_with("/notifications", key, &body("two")).await;
    assert_eq!(refused.problem(422)["type"], "/docs#problem-idempotency-key-reused");
    let other = b.post_with("/notifications", key, &body("two")).await;
    assert_eq!((other.status.as_u16(), other.header("idempotent-replay")), (202, None));
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_its_key() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let key = &[("idempotency-key", "k")];
    client.post_with("/notifications", key, &json!({ "channel": "log" })).await.problem(400);
    client.post_with("/notifications", key, &json!({ "channel": "log", "message": "m" })).await.expect(202);
}

#[tokio::test]
async fn a_key_outlives_the_process() {
    let client = |server: &_| Client::new(server, Some(KEY_A));
    let (key, body) = (&[("idempotency-key", "k")], json!({ "channel": "log", "message": "m" }));
    let server = World::new().start().await;
    let first = client(&server).post_with("/notifications", key, &body).await.expect(202);
    let server = World::new().start_in(server.stop().await).await;
    let again = client(&server).post_with("/notifications", key, &body).await;
    assert_eq!(again.expect(202), first);
    assert_eq!(again.header("idempotent-replay"), Some("true"));
}

#[tokio::test]
async fn many_at_once_make_one_notification() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "log", "message": "m" });
    let key = &[("idempotency-key", "k")];
    let answers = futures_util::future::join_all((0..40).map(|_| client.post_with("/notifications", key, &body))).await;
    let mut ids: Vec<_> = Vec::new();
    for answer in answers {
        match answer.status.as_u16() {
            202 => ids.push(answer.json()["id"].clone()),
            _ => {
                assert_eq!(answer.problem(409)["type"], "/docs#problem-in-flight");
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
        }
    }
    assert!(!ids.is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(client.get("/notifications").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let long = "k".repeat(256);
    for bad in ["", "a b", "\"open", &long, "\u{e9}"] {
        let body = json!({ "channel": "log", "message": "m" });
        let refused = client.post_with("/notifications", &[("idempotency-key", bad)], &body).await;
        refused.problem(400);
        assert_eq!(refused.fields(), ["Idempotency-Key"], "{bad}");
    }
}

#[tokio::test]
async fn whoever_waits_again_hears_what_it_came_to() {
    let provider = Provider::start().await;
    provider.then(Answer::status(404));
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let headers = &[("idempotency-key", "k"), ("prefer", "wait=20")];
    let body = json!({ "channel": "webhook", "message": "m" });
    let first = client.post_with("/notifications", headers, &body).await;
    let again = client.post_with("/notifications", headers, &body).await;
    assert_eq!((first.problem(502), first.header("idempotent-replay")), (again.problem(502), None));
    assert_eq!(again.header("idempotent-replay"), Some("true"));
}

#[tokio::test]
async fn the_stored_answer_is_given_also_when_the_request_would_be_refused_now() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let soon = conductor_core::Timestamp::from_millis(now().millis() + 400);
    let body = json!({ "channel": "log", "message": "once", "expiresAt": soon });
    let key = &[("idempotency-key", "late")];
    let first = client.post_with("/notifications", key, &body).await.expect(202);
    while now() <= soon {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let again = client.post_with("/notifications", key, &body).await.expect(202);
    assert_eq!(again, first);
    client.post("/notifications", &body).await.problem(400);
}

fn now() -> conductor_core::Timestamp {
    use conductor_core::Clock as _;
    conductor::clock::SystemClock.now()
}
