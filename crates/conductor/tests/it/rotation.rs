//! A key is changed while clients go on sending: nobody is refused on the way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::process::{Process, call, conductor, run};
use crate::support::provider::DEADLINE;
use crate::support::server;

/// Somebody who sends one notification after the other.
struct Sender {
    key: Mutex<String>,
    stop: AtomicBool,
    sent: AtomicUsize,
    refused: Mutex<Vec<String>>,
}

impl Sender {
    async fn go_on(&self, url: &str) {
        let client = server::http();
        while !self.stop.load(Ordering::SeqCst) {
            let key = self.key.lock().unwrap().clone();
            let body = json!({ "channel": "log", "message": "still here" });
            match client.post(format!("{url}/notifications")).bearer_auth(key).json(&body).send().await {
                Ok(answer) if answer.status() == 202 => drop(self.sent.fetch_add(1, Ordering::SeqCst)),
                Ok(answer) => self.refused.lock().unwrap().push(answer.status().to_string()),
                Err(error) => self.refused.lock().unwrap().push(error.to_string()),
            }
        }
    }

    async fn send_more(&self) {
        let (before, start) = (self.sent.load(Ordering::SeqCst), Instant::now());
        while self.sent.load(Ordering::SeqCst) < before + 20 {
            assert!(start.elapsed() < DEADLINE, "nothing is sent any more: {:?}", self.refused.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn status(url: &str, key: &str) -> u16 {
    let answer = server::http().get(format!("{url}/channels")).bearer_auth(key).send().await;
    answer.expect("an answer").status().as_u16()
}

async fn until(url: &str, key: &str, expected: u16) {
    let start = Instant::now();
    while status(url, key).await != expected {
        assert!(start.elapsed() < DEADLINE, "the key is not answered with {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn value(text: &str, before: &str) -> String {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("{before:?} is not in: {text}")).1;
    rest.split_whitespace().next().expect("a word").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_refused_while_a_key_is_changed() {
    let folder = TempDir::new().expect("a folder");
    let old = value(&call(folder.path(), &["init"]).with(0).text(), "API key    ");
    let process = Process::serve(&mut conductor(folder.path(), &[]));
    let (url, port) = (process.url.clone(), process.port());
    let command = |words: &[&str]| run(conductor(folder.path(), words).env("PORT", &port)).with(0).text();

    let (stop, sent, refused) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::default());
    let sender = Arc::new(Sender { key: Mutex::new(old.clone()), stop, sent, refused });
    let (client, at) = (Arc::clone(&sender), url.clone());
    #[expect(clippy::disallowed_methods, reason = "the test waits for its end")]
    let task = tokio::spawn(async move { client.go_on(&at).await });
    sender.send_more().await;

    let begun = command(&["tenant", "rotate-key", "Default Tenant"]);
    let new = value(&begun, "New API key  ");
    assert!(begun.contains("conductor reload") && begun.contains("--finish"), "{begun}");
    command(&["reload"]);
    until(&url, &new, 200).await;
    assert_eq!(status(&url, &old).await, 200, "both are valid");
    sender.send_more().await;
    sender.key.lock().unwrap().clone_from(&new);
    sender.send_more().await;

    let finished = command(&["tenant", "rotate-key", "Default Tenant", "--finish"]);
    assert!(finished.contains("conductor reload"), "{finished}");
    command(&["reload"]);
    until(&url, &old, 403).await;
    assert_eq!(status(&url, &new).await, 200);
    sender.send_more().await;
    sender.stop.store(true, Ordering::SeqCst);
    task.await.expect("the sender ends");
    assert_eq!(*sender.refused.lock().unwrap(), Vec::<String>::new());
    let env = std::fs::read_to_string(folder.path().join("data/.env")).expect("readable");
    assert!(env.contains(&new) && !env.contains(&old) && !env.contains("_NEXT"), "the new key alone is left");
    process.stop().with(0);
}
