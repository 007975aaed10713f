//! The examples of `examples/verify-callback` take what is signed and nothing else.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;

use super::{callback, with_callbacks};
use crate::examples::programs::installed;
use crate::repository::root;
use crate::support::provider::DEADLINE;
use crate::support::server::{KEY_A, World, http};

/// A running example, ended with the test.
struct Example {
    child: Child,
    lines: Receiver<String>,
    url: String,
}

impl Example {
    fn start(tool: &str, path: &str, variable: &str, key: &str) -> Self {
        let mut child = Command::new(tool)
            .arg(root().join("examples/verify-callback").join(path))
            .env("PORT", "0")
            .env(variable, key)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut example = Self { child, lines, url: String::new() };
        let line = example.line();
        example.url = line.strip_prefix("listening on ").expect("it says where it listens").to_owned();
        example
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("it says something")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PRIVATE: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const PUBLIC: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

async fn expect_example(tool: &str, path: &str, variable: &str, theirs: &str, ours: &[&str]) {
    if !installed(tool) {
        return;
    }
    let example = tokio::task::block_in_place(|| Example::start(tool, path, variable, theirs));
    let mut world = with_callbacks(World::new(), &[callback(&example.url, &["notification.sent"])]);
    world.variables.retain(|(name, _)| name != "HOOK");
    for (name, secret) in ["HOOK", "HOOK_NEXT"].iter().zip(ours) {
        world.variables.push(((*name).to_owned(), (*secret).to_owned()));
    }
    let server = world.start().await;
    let forged =
        json!({ "type": "notification.sent", "timestamp": "2026-01-01T00:00:00Z", "data": { "id": "forged" } });
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    for (time, signature) in [(now, "v1,AAAA v1a,AAAA"), (now, ""), (now - 1_000, "v1,AAAA")] {
        let request = http().post(&example.url).json(&forged).header("webhook-id", "x");
        let request = request.header("webhook-timestamp", time).header("webhook-signature", signature);
        assert_eq!(request.send().await.expect("an answer").status(), 401, "{path}");
        let line = tokio::task::block_in_place(|| example.line());
        assert!(line.starts_with("refused: "), "{path}: {line}");
    }
    let id = server.send(KEY_A, &json!({ "channel": "log", "message": "hello" })).await;
    let line = tokio::task::block_in_place(|| example.line());
    assert_eq!(line, format!("notification.sent {id}"), "{path}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_python_takes_what_is_signed_also_while_the_secret_is_changed() {
    for (theirs, ours) in [(OLD, &[OLD][..]), (OLD, &[OLD, NEW]), (NEW, &[OLD, NEW])] {
        expect_example("python3", "receiver.py", "CALLBACK_SECRET", theirs, ours).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_node_takes_what_is_signed_by_either_kind_of_key() {
    for (variable, theirs, ours) in [
        ("CALLBACK_SECRET", OLD, &[OLD, NEW][..]),
        ("CALLBACK_PUBLIC_KEY", PUBLIC, &[PRIVATE]),
        ("CALLBACK_PUBLIC_KEY", PUBLIC, &[OLD, PRIVATE]),
    ] {
        expect_example("node", "receiver.mjs", variable, theirs, ours).await;
    }
}
