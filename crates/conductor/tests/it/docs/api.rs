//! `docs/API.md` is held against the server: its calls, its examples, and the answers that it shows.

use std::collections::BTreeSet;
use std::fs;

use conductor_core::ChannelId;
use serde_json::{Value, json};

use super::markdown::{Block, blocks};
use crate::examples::programs::{installed, run};
use crate::examples::wait_for_status;
use crate::examples::wire::Request;
use crate::repository::{read, root};
use crate::support::provider::{Answer, Provider};
use crate::support::server::{KEY_A, TENANT_A, TestServer, World};

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE"];

/// Every call that stands in code type: `GET /notifications/{id}`.
fn calls_named(markdown: &str) -> BTreeSet<String> {
    let code = markdown.split('`').skip(1).step_by(2);
    let calls = code.filter(|text| METHODS.iter().any(|method| text.starts_with(&format!("{method} /"))));
    calls.map(|call| call.split('?').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_document_and_the_api_name_the_same_calls() {
    let description = serde_json::to_value(conductor::api::document()).expect("the description is JSON");
    let mut described = BTreeSet::new();
    for (path, item) in description["paths"].as_object().expect("there are paths") {
        let methods = item.as_object().into_iter().flatten().map(|(method, _)| method.to_uppercase());
        described
            .extend(methods.filter(|method| METHODS.contains(&&**method)).map(|method| format!("{method} {path}")));
    }
    assert!(described.len() > 10, "only {described:?}");
    // Blocks of code would put the quotation marks out of step.
    let prose: String = read(&root().join("docs/API.md")).split("\n```").step_by(2).collect();
    assert_eq!(calls_named(&prose), described);
}

/// A block with a `curl` call: its mark is the status that it gets. With the answer that is shown right below it.
struct Example {
    document: &'static str,
    block: Block,
    status: String,
    answer: Option<Value>,
}

fn examples() -> Vec<Example> {
    let mut found = Vec::new();
    for document in ["README.md", "docs/API.md", "docs/OPERATIONS.md"] {
        let text = read(&root().join(document));
        let lines: Vec<_> = text.lines().collect();
        let blocks = blocks(&text);
        for (index, block) in blocks.iter().enumerate().filter(|(_, block)| block.text.contains("curl ")) {
            let status = block.mark().filter(|_| block.language() == "bash");
            let status = status.unwrap_or_else(|| panic!("{document}:{}: mark it: bash <status>", block.line));
            let end = block.line + block.text.lines().count();
            let shown = blocks.get(index + 1).filter(|next| next.language() == "json");
            let shown = shown.filter(|next| !lines[end..next.line].iter().any(|line| line.starts_with('#')));
            let answer = shown.map(|next| serde_json::from_str(&next.text).expect("another test says which is not"));
            found.push(Example { document, block: block.clone(), status: status.to_owned(), answer });
        }
    }
    assert!(found.len() >= 14, "only {} examples found", found.len());
    found
}

/// Where the members of two JSON values differ; their values may.
pub(super) fn differences(shown: &Value, real: &Value, place: &str) -> Vec<String> {
    match (shown, real) {
        (Value::Object(shown), Value::Object(real)) => {
            let names = |object: &serde_json::Map<_, _>| object.keys().cloned().collect::<BTreeSet<String>>();
            let mut found = Vec::new();
            if names(shown) != names(real) {
                found.push(format!("{place}: shown {:?}, answered {:?}", names(shown), names(real)));
            }
            let both = shown.iter().filter_map(|(name, value)| Some((name, value, real.get(name)?)));
            found.extend(both.flat_map(|(name, shown, real)| differences(shown, real, &format!("{place}/{name}"))));
            found
        }
        (Value::Array(shown), Value::Array(real)) => {
            let pairs = shown.iter().zip(real).enumerate();
            pairs.flat_map(|(index, (shown, real))| differences(shown, real, &format!("{place}/{index}"))).collect()
        }
        (Value::Null, _) | (_, Value::Null) => Vec::new(),
        _ if std::mem::discriminant(shown) == std::mem::discriminant(real) => Vec::new(),
        _ => vec![format!("{place}: shown {shown}, answered {real}")],
    }
}

/// Sends a notification and returns its id.
pub(super) fn post(server: &TestServer, body: &Value) -> String {
    let headers = [("Authorization", format!("Bearer {KEY_A}")), ("Content-Type", "application/json".to_owned())];
    let request = Request {
        method: "POST".to_owned(),
        url: server.url("/notifications"),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        body: body.to_string(),
    };
    let answer = request.send(server.address());
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// A bulk retry that has found nothing.
fn bulk_retry(server: &TestServer) -> String {
    let headers = [("Authorization", format!("Bearer {KEY_A}")), ("Content-Type", "application/json".to_owned())];
    let request = Request {
        method: "POST".to_owned(),
        url: server.url("/notifications/retry"),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        body: json!({ "channel": "discord" }).to_string(),
    };
    request.send(server.address()).json()["id"].as_str().expect("an id").to_owned()
}

/// A notification in the state that the example's call is meant for.
fn id_for(example: &Example, server: &TestServer) -> String {
    let text = &example.block.text;
    if text.contains("/notifications/retry/$ID") {
        return bulk_retry(server);
    }
    let tenant = TENANT_A.parse().expect("a tenant's id");
    let slow = ChannelId::derive(tenant, "webhook", "slow").to_string();
    let (body, status) = if text.contains("/cancel") {
        (
            json!({ "channel": "log", "message": "later", "sendAt": "2999-01-01T00:00:00Z", "expiresAt": "2999-01-02T00:00:00Z" }),
            "scheduled",
        )
    } else if text.contains("$ID/retry") {
        (json!({ "channel": "webhook", "message": "refused" }), "failed")
    } else if text.contains("/resolve") {
        (json!({ "channel": "log", "message": "sent" }), "sent")
    } else {
        (json!({ "channelId": slow, "message": "too fast" }), "retrying")
    };
    let id = post(server, &body);
    wait_for_status(server, &id, status);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_that_is_shown_gets_the_answer_that_is_shown() {
    if !installed("curl") {
        return;
    }
    let (refusing, slow) = (Provider::start().await, Provider::start().await);
    refusing.then(Answer::status(404));
    slow.then(
        Answer { body: r#"{"message": "You are being rate limited."}"#, ..Answer::status(429) }
            .header("Retry-After", "3600"),
    );
    let world = World::new().webhook(TENANT_A, "refusing", &refusing.url(), &json!({}));
    let server = world.webhook(TENANT_A, "slow", &slow.url(), &json!({})).start().await;
    let home = tempfile::tempdir().expect("a directory can be made");
    fs::write(home.path().join(".curlrc"), "write-out = \"\\n%{http_code}\"\n").expect("a file can be written");
    let home = home.path().to_str().expect("a path is a text");
    tokio::task::block_in_place(|| {
        for example in examples() {
            let Example { document, block, status, answer } = &example;
            let id = if block.text.contains("$ID") { id_for(&example, &server) } else { String::new() };
            let more = [("CURL_HOME", home), ("ID", &id)];
            let printed = run("sh", &["-eu", "-c", &block.text], &server.url(""), KEY_A, &more);
            let (body, code) = printed.rsplit_once('\n').expect("curl prints the status last");
            assert_eq!(code, status, "{document}:{}: {body}", block.line);
            if let Some(shown) = answer {
                let real = serde_json::from_str(body).expect("an answer is JSON");
                let found = differences(shown, &real, "");
                assert!(found.is_empty(), "{document}:{}:\n  {}", block.line, found.join("\n  "));
            }
        }
    });
    server.stop().await;
}

#[test]
fn differences_are_found() {
    let shown = json!({ "a": [{ "b": 1 }], "c": null, "d": "x" });
    assert_eq!(differences(&shown, &json!({ "a": [{ "b": 2 }, {}], "c": "y", "d": "z" }), ""), Vec::<String>::new());
    assert_eq!(differences(&shown, &json!({ "a": [{ "e": 2 }], "c": 1, "d": 5 }), "").len(), 2);
}
