//! The API's own document against the running server: Schemathesis makes up requests that keep to it and others that do
//! not, and holds every answer against it. <https://schemathesis.readthedocs.io>

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::repository::root;
use crate::support::description::OPERATIONS;
use crate::support::process::Process;
use crate::support::provider::{Answer, DEADLINE, Provider};
use crate::support::server::{ADMIN_KEY, KEY_A, TENANT_A, World, answer, http};
use crate::support::skip::skipped;

/// Requests of each kind and each call, as a rule. `ATTACK_EXAMPLES` takes more, with a new seed.
const EXAMPLES: &str = "12";
/// The seed of the gate: it fails for what was changed, not for its luck.
const SEED: &str = "20260128";
/// A machine that is busy with other tests takes its time.
const TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Every check of this version but three: those of `hooks.py`, the last two, take the place of two, and whether a tenant
/// reaches what is another's (`object_level_authorization`) is what `api_isolation.rs` tries, call by call.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,missing_required_header,\
    unsupported_method,allow_header_conformance,use_after_free,ensure_resource_availability,ignored_auth,\
    refused_for_a_reason,what_breaks_the_schema_is_refused";

/// 502 says that the provider refused what the server had accepted. The document names it where it can be.
const OUTCOMES: &str = "[checks.not_a_server_error]\nexpected-statuses = [\"2xx\", \"3xx\", \"4xx\", \"502\"]";

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says so in the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// None where it cannot be had here, which is said.
fn schemathesis() -> Option<PathBuf> {
    let built = || root().join("target/schemathesis/bin/schemathesis");
    let program = variable("CONDUCTOR_SCHEMATHESIS").map_or_else(built, PathBuf::from);
    let version = Command::new(&program).arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        skipped(&format!("the API was not attacked: {} does not run (CONTRIBUTING.md)", program.display()));
        return None;
    }
    Some(program)
}

/// A dead letter, a scheduled and a sent notification, so that there is something to ask for and to change.
async fn fill(server: &Process, provider: &Provider) {
    let post = async |body: &Value| {
        let request = http().post(format!("{}/notifications", server.url)).bearer_auth(KEY_A).json(body);
        let (status, accepted) = answer(request).await;
        assert_eq!(status, 202, "{accepted}");
        accepted["id"].as_str().expect("an id").to_owned()
    };
    let until = async |id: &str, wanted: &str| {
        let start = Instant::now();
        loop {
            let request = http().get(format!("{}/notifications/{id}", server.url)).bearer_auth(KEY_A);
            let (_, story) = answer(request).await;
            if story["status"] == wanted {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "never {wanted}: {story:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    provider.next(Answer::status(404));
    let dead = post(&json!({ "channel": "webhook", "message": "dead", "title": "t", "metadata": { "a": "b" } })).await;
    until(&dead, "failed").await;
    post(&json!({ "channel": "log", "message": "later", "sendAt": "2999-01-01T00:00:00Z", "key": "k" })).await;
    let sent =
        post(&json!({ "channel": "webhook", "message": "sent", "data": { "c": 1 }, "format": "markdown" })).await;
    until(&sent, "sent").await;
}

/// Runs a command to its end. Gives all that it printed.
async fn run(command: &mut Command, log: &Path) -> (ExitStatus, String) {
    let file = || File::options().create(true).append(true).open(log).expect("the folder takes a file");
    let mut process = command.stdin(Stdio::null()).stdout(file()).stderr(file()).spawn().expect("it starts");
    let (start, told) = (Instant::now(), || std::fs::read_to_string(log).expect("it was written"));
    loop {
        if let Some(status) = process.try_wait().expect("its state") {
            return (status, told());
        }
        if start.elapsed() > TIME_MAX {
            process.kill().expect("it runs");
            panic!("it does not end: {}", told());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_to_its_document_under_attack() {
    let Some(program) = schemathesis() else { return };
    let provider = Provider::start().await;
    let directory = tempfile::tempdir().expect("a folder can be made");
    let mut world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).with_receipts(&provider.url());
    world.variables.push(("TRUSTED_PROXIES".into(), "127.0.0.1".into()));
    world.write(&directory.path().join("config"));
    let mut server = Process::start(&directory, &world);
    fill(&server, &provider).await;

    let settings = directory.path().join("schemathesis.toml");
    let hooks = root().join("crates/conductor/tests/it/api_attack/hooks.py");
    let text = format!(
        "hooks = {hooks:?}\n{OUTCOMES}\n[auth.openapi.tenantKey]\nbearer = \"{KEY_A}\"\n[auth.openapi.operatorKey]\nbearer = \"{ADMIN_KEY}\"\n"
    );
    std::fs::write(&settings, text).expect("the folder takes a file");
    let more = variable("ATTACK_EXAMPLES");
    let mut command = Command::new(program);
    command.arg("--config-file").arg(&settings).arg("run").arg(format!("{}/openapi.json", server.url));
    command.args(["--checks", CHECKS, "--max-examples", more.as_deref().unwrap_or(EXAMPLES)]);
    command.args(["--continue-on-failure", "--no-color", "--generation-database", "none", "--request-timeout", "40"]);
    if more.is_none() {
        command.args(["--seed", SEED]);
    }
    let (status, told) = run(command.current_dir(directory.path()), &directory.path().join("attack.log")).await;
    assert!(status.success(), "{told}");
    // A run that found nothing because it asked nothing shows nothing. The document itself is not asked for again.
    let all = OPERATIONS.len() - 1;
    assert!(told.contains(&format!("Selected: {all}/{all}")) && told.contains(&format!("Tested: {all}")), "{told}");
    assert!(server.is_running(), "{}", server.text());
    let errors: Vec<_> = server.err().lines().filter(|line| line.contains("] [ERROR] [")).map(str::to_owned).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}
