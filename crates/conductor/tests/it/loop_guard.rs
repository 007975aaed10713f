//! A notification that Conductor caused itself is not the cause of another.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::support::provider::{DEADLINE, Received};
use super::support::server::{KEY_A, TENANT_A, World, answer, http};

/// Makes a notification of every notification that it gets.
#[derive(Default)]
struct Relay {
    /// Where it posts.
    to: OnceLock<String>,
    /// What it was answered.
    answers: Mutex<Vec<(u16, Value)>>,
}

/// Passes on all headers but those that belong to the connection and the body.
async fn relay(State(relay): State<Arc<Relay>>, mut headers: HeaderMap, body: Bytes) {
    for name in ["host", "content-length", "authorization"] {
        headers.remove(name);
    }
    let message = Received { path: String::new(), headers: headers.clone(), body, at: Instant::now() }.message();
    let again = json!({ "channel": "webhook", "message": message });
    let to = relay.to.get().expect("the server runs before it sends");
    let answered = answer(http().post(to).headers(headers).bearer_auth(KEY_A).json(&again)).await;
    relay.answers.lock().unwrap().push(answered);
}

#[tokio::test]
async fn a_relay_that_passes_headers_on_makes_no_loop() {
    let state = Arc::new(Relay::default());
    let router = Router::new().fallback(relay).with_state(Arc::clone(&state));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/relay", listener.local_addr().expect("an address"));
    #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    let server = World::new().webhook(TENANT_A, "hook", &url, &json!({})).start().await;
    state.to.set(server.url("/notifications")).expect("set once");
    let id = server.send(KEY_A, &json!({ "channel": "webhook", "message": "round and round" })).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let start = Instant::now();
    while state.answers.lock().unwrap().is_empty() {
        assert!(start.elapsed() < DEADLINE, "the relay was not answered");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let answers = state.answers.lock().unwrap().clone();
    let (status, problem) = &answers[0];
    assert_eq!((answers.len(), *status), (1, 400), "{problem}");
    assert_eq!(problem["details"][0]["field"], "Conductor-Hops");
    let error = problem["error"].as_str().expect("an error");
    assert!(error.contains("caused by a notification of Conductor itself"), "{error}");
    assert!(error.contains("do not pass this header on"), "{error}");
    let (_, list) = server.get(KEY_A, "/notifications").await;
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1), "{list:#}");
}

#[tokio::test]
async fn both_calls_refuse_a_hop_and_take_none() {
    let server = World::new().start().await;
    let one = json!({ "channel": "log", "message": "hello" });
    let hops = HeaderName::from_static("conductor-hops");
    for (path, body, taken) in
        [("/notifications", one.clone(), 202), ("/notifications/batch", json!({ "notifications": [one] }), 207)]
    {
        for (value, expected) in
            [(None, taken), (Some("0"), taken), (Some("1"), 400), (Some("7"), 400), (Some("x"), 400)]
        {
            let request = http().post(server.url(path)).bearer_auth(KEY_A).json(&body);
            let request = match value {
                Some(value) => request.header(hops.clone(), value),
                None => request,
            };
            let (status, answer) = answer(request).await;
            assert_eq!(status, expected, "{path} {value:?}: {answer}");
        }
    }
}
