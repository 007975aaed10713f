//! What `docs/CHANNELS.md` says of the webhook channel is held against what a receiver gets.

use serde_json::{Value, json};

use super::api::{differences, post};
use super::markdown::{Block, blocks};
use super::section;
use crate::examples::programs::{installed, run};
use crate::repository::{read, root};
use crate::support::provider::{Provider, Received};
use crate::support::server::{TENANT_A, WEBHOOK_SECRET, World};

fn block(language: &str) -> Block {
    let document = read(&root().join("docs/CHANNELS.md"));
    let section = section(&document, "webhook").expect("the webhook channel is documented");
    let found = blocks(section).into_iter().find(|block| block.language() == language && block.mark().is_none());
    found.unwrap_or_else(|| panic!("no block of {language}"))
}

async fn received() -> Received {
    let provider = Provider::start().await;
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let body = json!({ "channel": "webhook", "message": "Test notification", "priority": "high" });
    tokio::task::block_in_place(|| post(&server, &body));
    let received = provider.wait_for(1).await.remove(0);
    server.stop().await;
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_gets_the_headers_and_the_body_that_are_shown() {
    let received = received().await;
    let shown = block("http").text;
    let names: Vec<_> = shown.lines().skip(1).filter_map(|line| line.split_once(": ")).collect();
    assert!(names.len() >= 5, "{shown}");
    for (name, value) in names {
        let real = received.header(name);
        assert!(!real.is_empty(), "no {name} came");
        assert!(name.starts_with("webhook-") || real == value, "{name}: shown {value}, sent {real}");
    }
    let shown: Value = serde_json::from_str(&block("json").text).expect("another test says which is not");
    assert_eq!(differences(&shown, &received.json(), ""), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_that_is_shown_accepts_the_signature_and_nothing_else() {
    if !installed("python3") {
        return;
    }
    let received = received().await;
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: Value = names.iter().map(|name| ((*name).to_owned(), Value::from(received.header(name)))).collect();
    let body = String::from_utf8(received.body.to_vec()).expect("JSON is UTF-8");
    let check = |secret: &str, body: &str| {
        let call = "import json, sys\nprint(verify(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3].encode()))";
        let program = format!("{}\n{call}", block("python").text);
        let arguments = ["-c", &program, secret, &headers.to_string(), body];
        tokio::task::block_in_place(|| run("python3", &arguments, "", "", &[])).trim().to_owned()
    };
    assert_eq!(check(WEBHOOK_SECRET, &body), "True");
    assert_eq!(check(WEBHOOK_SECRET, &body.replace("high", "low")), "False");
    assert_eq!(check("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", &body), "False");
}
