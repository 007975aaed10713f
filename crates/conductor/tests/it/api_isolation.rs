//! No tenant sees or changes what belongs to another, whichever call it tries.

use serde_json::{Value, json};

use crate::callbacks::{callback, with_callbacks};
use crate::support::client::{Client, Reply, reply};
use crate::support::description::{OPERATIONS, Operation};
use crate::support::provider::{Answer, Provider};
use crate::support::server::{KEY_A, KEY_B, TENANT_A, World};

/// What may be asked without a key. A new call belongs here only if it shows nothing of anybody.
const OPEN: &[&str] = &[
    "GET /",
    "GET /docs",
    "GET /health",
    "GET /livez",
    "GET /openapi.json",
    "GET /readyz",
    "GET /receipts/{channelId}",
    "POST /receipts/{channelId}",
];

/// What the first tenant has.
struct Theirs {
    notification: String,
    channel: String,
}

async fn ask(client: &Client, operation: &Operation, theirs: &Theirs, body: Option<&Value>) -> Reply {
    let path = operation.path_with(&[("id", &theirs.notification), ("channelId", &theirs.channel)]);
    let request = client.request(operation.method.clone(), &path);
    reply(match body {
        Some(body) => request.json(body),
        None => request,
    })
    .await
}

#[tokio::test]
async fn no_call_shows_or_changes_what_belongs_to_another_tenant() {
    let provider = Provider::start().await;
    provider.then(Answer::status(404));
    let world = World::new().webhook(TENANT_A, "secret hook", &provider.url(), &json!({}));
    let quiet = callback("http://127.0.0.1:9/", &["channel.up"]);
    let server = with_callbacks(world, &[quiet]).start().await;
    let (a, b) = (Client::new(&server, Some(KEY_A)), Client::new(&server, Some(KEY_B)));
    let message = "only for the first tenant";
    let sent = a.post("/notifications", &json!({ "channel": "webhook", "message": message })).await.expect(202);
    let text = |name: &str| sent[name].as_str().unwrap().to_owned();
    let theirs = Theirs { notification: text("id"), channel: text("channelId") };
    let before = a.until(&theirs.notification, "failed").await;
    let none = json!({ "channel": "log" });
    let job = a.post("/notifications/retry", &none).await.expect(200)["id"].as_str().unwrap().to_owned();
    let marks =
        [TENANT_A, "Tenant A", "secret hook", message, &provider.url(), &theirs.notification, &theirs.channel, &job];
    let endpoint = a.get("/callbacks").await.expect(200)["data"][0]["id"].as_str().unwrap().to_owned();
    let marks = [&marks[..], &[&endpoint]].concat();
    let their_endpoint = Theirs { notification: endpoint.clone(), channel: theirs.channel.clone() };
    let their_job = Theirs { notification: job.clone(), channel: theirs.channel.clone() };

    let item = json!({ "channelId": theirs.channel, "message": "mine" });
    let bodies = [
        None,
        Some(item.clone()),
        Some(json!({ "channelId": theirs.channel })),
        Some(json!({ "notifications": [item] })),
        Some(json!({ "channel": "log", "message": "mine", "fallback": [{ "channelId": theirs.channel }] })),
    ];
    for operation in OPERATIONS.iter() {
        for body in bodies.iter().filter(|body| body.is_none() || operation.takes_body()) {
            let theirs = match &*operation.path {
                path if path.contains("/retry/") => &their_job,
                path if path.starts_with("/callbacks/") => &their_endpoint,
                _ => &theirs,
            };
            let answer = ask(&b, operation, theirs, body.as_ref()).await;
            let (name, status) = (operation.name(), answer.status.as_u16());
            if operation.path.contains('{') {
                assert!(matches!(status, 403 | 404), "{name} answers {status}");
            }
            let told = String::from_utf8_lossy(&answer.body);
            for mark in &marks {
                assert!(!told.contains(mark), "{name} shows {mark}: {told}");
            }
        }
    }
    assert_eq!(a.get(&format!("/notifications/{}", theirs.notification)).await.expect(200), before);
    assert_eq!(provider.received().len(), 1);
}

#[tokio::test]
async fn a_list_of_one_tenant_cannot_be_turned_on_another() {
    let server = World::new().start().await;
    let (a, b) = (Client::new(&server, Some(KEY_A)), Client::new(&server, Some(KEY_B)));
    let sent = a.post("/notifications", &json!({ "channel": "log", "message": "theirs" })).await.expect(202);
    a.send(&json!({ "channel": "log", "message": "theirs too" })).await;
    let page = a.get("/notifications?limit=1").await.expect(200);
    let cursor = page["next"].as_str().expect("there is more");
    let channel = sent["channelId"].as_str().unwrap();
    for query in ["", "?q=theirs", &format!("?channelId={channel}"), &format!("?cursor={cursor}")] {
        assert_eq!(b.get(&format!("/notifications{query}")).await.expect(200)["data"], json!([]), "{query}");
    }
    let many = b.post("/notifications/retry", &json!({ "channelId": channel })).await.expect(200);
    assert_eq!(many["matched"], 0);
}

#[tokio::test]
async fn nothing_is_shown_without_a_key() {
    let server = World::new().start().await;
    let client = Client::new(&server, None);
    let theirs = Theirs { notification: TENANT_A.into(), channel: TENANT_A.into() };
    let mut open = Vec::new();
    for operation in OPERATIONS.iter() {
        if ask(&client, operation, &theirs, None).await.status.as_u16() != 401 {
            open.push(operation.name());
        }
    }
    open.sort_unstable();
    assert_eq!(open, OPEN);
}
