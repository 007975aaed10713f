//! What others have published to check Standard Webhooks accepts what is posted, and nothing that was changed on the way.
//! The Rust library judges in the other tests. Those of Python and JavaScript come from their registries, into a folder
//! of the test's own.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::{SECRET, callback, with_callbacks};
use crate::support::provider::{Provider, Received};
use crate::support::server::{KEY_A, World};
use crate::support::skip::skipped;

const PYTHON: &[&str] = &["standardwebhooks==1.1.0", "cryptography==48.0.0"];
const NODE: &str = "standardwebhooks@1.1.1";
/// What is to take longer is ended.
const RUN_MAX: &str = "30";
const INSTALL_MAX: &str = "60";

const PRIVATE: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const PUBLIC: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// Reads what came from its input, and prints one word for each way in which it was looked at.
const JUDGE_PY: &str = r#"
import base64, json, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

given = json.load(sys.stdin)
def judge(body):
    try:
        Webhook(given["secret"]).verify(body, given["headers"])
        print("accepted")
    except WebhookVerificationError:
        print("refused")
def judge_public(body):
    headers = given["headers"]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(given["public"].removeprefix("whpk_")))
    entry = [entry for entry in headers["webhook-signature"].split(" ") if entry.startswith("v1a,")][0]
    signed = f'{headers["webhook-id"]}.{headers["webhook-timestamp"]}.{body}'.encode()
    try:
        key.verify(base64.b64decode(entry.removeprefix("v1a,")), signed)
        print("accepted")
    except InvalidSignature:
        print("refused")
for judged in (judge, judge_public):
    judged(given["body"])
    judged(given["body"].replace("notification.sent", "notification.lost"))
"#;

const JUDGE_MJS: &str = r#"
import { createPublicKey, verify } from "node:crypto";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const { Webhook } = createRequire(process.argv[2])("standardwebhooks");
const given = JSON.parse(readFileSync(0, "utf8"));
const changed = given.body.replace("notification.sent", "notification.lost");
for (const body of [given.body, changed]) {
  try {
    new Webhook(given.secret).verify(body, given.headers);
    console.log("accepted");
  } catch {
    console.log("refused");
  }
}
const jwk = { kty: "OKP", crv: "Ed25519", x: Buffer.from(given.public.slice(5), "base64").toString("base64url") };
const key = createPublicKey({ key: jwk, format: "jwk" });
for (const body of [given.body, changed]) {
  const entry = given.headers["webhook-signature"].split(" ").find((entry) => entry.startsWith("v1a,"));
  const signed = `${given.headers["webhook-id"]}.${given.headers["webhook-timestamp"]}.${body}`;
  console.log(verify(null, Buffer.from(signed), key, Buffer.from(entry.slice(4), "base64")) ? "accepted" : "refused");
}
"#;

/// A callback as it came, signed by a secret and by a private key.
async fn signed_twice() -> Received {
    let receiver = Provider::start().await;
    let mut world = with_callbacks(World::new(), &[callback(&receiver.url(), &["notification.sent"])]);
    world.variables.push(("HOOK_NEXT".into(), PRIVATE.into()));
    let server = world.start().await;
    server.send(KEY_A, &json!({ "channel": "log", "message": "hello", "metadata": { "ü": "\u{1f600}" } })).await;
    let received = receiver.wait_for(1).await.remove(0);
    server.stop().await;
    received
}

fn given(received: &Received) -> Value {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), received.header(name).into())).collect();
    let body = std::str::from_utf8(&received.body).expect("UTF-8");
    json!({ "secret": SECRET, "public": PUBLIC, "headers": headers, "body": body })
}

fn installs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new("timeout");
    command.arg(INSTALL_MAX).arg(program).args(arguments).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

/// What a script says of what it was given.
fn judged(call: &[&str], given: &Value) -> Vec<String> {
    let mut command = Command::new("timeout");
    command.arg(RUN_MAX).args(call).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("timeout can be called");
    child.stdin.take().expect("its input").write_all(given.to_string().as_bytes()).expect("it reads");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).lines().map(str::to_owned).collect()
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a test's paths are texts")
}

const VERDICT: [&str; 4] = ["accepted", "refused", "accepted", "refused"];

#[tokio::test(flavor = "multi_thread")]
async fn the_published_library_of_python_accepts_what_is_posted() {
    let folder = tempfile::tempdir().expect("a folder");
    let python = folder.path().join("bin/python");
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    let made = installs("python3", &["-m", "venv", shown(folder.path())])
        && installs(shown(&python), &[&quiet[..], PYTHON].concat());
    if !made {
        return skipped(&format!("{PYTHON:?} cannot be installed"));
    }
    let given = given(&signed_twice().await);
    assert_eq!(tokio::task::block_in_place(|| judged(&[shown(&python), "-c", JUDGE_PY], &given)), VERDICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_library_of_javascript_accepts_what_is_posted() {
    let folder = tempfile::tempdir().expect("a folder");
    let quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
    let call = [&["install", "--prefix", shown(folder.path())], &quiet[..], &[NODE]].concat();
    if !installs("npm", &call) {
        return skipped(&format!("{NODE} cannot be installed"));
    }
    let script = folder.path().join("judge.mjs");
    std::fs::write(&script, JUDGE_MJS).expect("a file");
    let given = given(&signed_twice().await);
    let call = ["node", shown(&script), shown(&script)];
    assert_eq!(tokio::task::block_in_place(|| judged(&call, &given)), VERDICT);
}
