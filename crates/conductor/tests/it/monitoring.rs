//! `examples/monitoring` is held against a running server: by Prometheus' own tools, and by Prometheus itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use conductor::readings;
use serde_json::{Value, json};

use crate::callbacks::{callback, with_callbacks};
use crate::docs::markdown::anchors;
use crate::examples::yaml;
use crate::repository::{read, root};
use crate::support::provider::{Answer, DEADLINE, Provider};
use crate::support::server::{ADMIN_KEY, KEY_A, TENANT_A, TestServer, World, answer, http};
use crate::support::skip::skipped;

const EXAMPLES: &str = "examples/monitoring";

/// A program of Debian's package `prometheus`: unpacked beside the build, or installed.
fn tool(name: &str) -> Option<PathBuf> {
    let unpacked = root().join("target/prometheus/usr/bin").join(name);
    let runs = |path: &Path| Command::new(path).arg("--version").output().is_ok_and(|it| it.status.success());
    let found = [unpacked, PathBuf::from(name)].into_iter().find(|path| runs(path));
    if found.is_none() {
        skipped(&format!("{name} is not there: CONTRIBUTING.md says how to get it"));
    }
    found
}

fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let mut child = Command::new(tool("promtool")?)
        .args(arguments)
        .current_dir(root().join(EXAMPLES))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    Some(child.wait_with_output().expect("it ends"))
}

fn expect_silence(arguments: &[&str], input: &str) {
    let Some(Output { status, stdout, stderr }) = promtool(arguments, input) else { return };
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success() && stderr.is_empty(), "promtool {arguments:?}:\n{stdout}\n{stderr}");
}

/// A server that has sent, failed and retried, so that every kind of series is there.
async fn busy_server() -> TestServer {
    let (provider, receiver) = (Provider::start().await, Provider::start().await);
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    let server = with_callbacks(world, &[callback(&receiver.url(), &["notification.failed"])]).start().await;
    provider.next(Answer::status(503)).next(Answer::status(200)).next(Answer::status(422));
    let body = json!({ "channel": "webhook", "message": "x" });
    let sent = server.send(KEY_A, &body).await;
    server.wait_for(KEY_A, &sent, "sent").await;
    let failed = server.send(KEY_A, &body).await;
    server.wait_for(KEY_A, &failed, "failed").await;
    server.send(KEY_A, &json!({ "channel": "log", "message": "x", "sendAt": "2999-01-01T00:00:00Z" })).await;
    let (start, mut told) = (Instant::now(), String::new());
    // Callbacks are looked after now and then.
    while !["conductor_callbacks_total{", "conductor_callbacks_waiting{"].iter().all(|it| told.contains(it)) {
        assert!(start.elapsed() < DEADLINE, "no callback was counted:\n{told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        told = metrics(&server).await;
    }
    server
}

async fn metrics(server: &TestServer) -> String {
    let request = http().get(server.url("/metrics")).bearer_auth(ADMIN_KEY).send().await.expect("an answer");
    assert_eq!(request.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    request.text().await.expect("a text")
}

#[tokio::test]
async fn promtool_has_nothing_against_the_metrics_of_a_running_server() {
    let text = metrics(&busy_server().await).await;
    expect_silence(&["check", "metrics"], &text);
    let Some(found) = promtool(&["check", "metrics"], "# TYPE x counter\nx 1\n") else { return };
    assert!(!found.status.success(), "the check would not notice a bad name");
}

#[test]
fn promtool_has_nothing_against_the_rules_and_every_rule_does_what_its_test_says() {
    expect_silence(&["check", "rules", "alerts.yml"], "");
    expect_silence(&["check", "config", "prometheus.yml"], "");
    expect_silence(&["test", "rules", "alerts_test.yml"], "");
}

/// Each alert with its expression and where its runbook is.
fn alerts() -> BTreeMap<String, (String, String)> {
    let rules = yaml::load(&Path::new(EXAMPLES).join("alerts.yml"), &[]);
    let rules = rules["groups"][0]["rules"].as_array().expect("rules").clone();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let alert = |rule: &Value| (text(&rule["alert"]), (text(&rule["expr"]), text(&rule["annotations"]["runbook"])));
    rules.iter().map(alert).collect()
}

#[test]
fn every_alert_is_tried_both_ways_and_operations_says_what_to_do() {
    let tests = yaml::load(&Path::new(EXAMPLES).join("alerts_test.yml"), &[]);
    let tried: BTreeSet<(String, bool)> = tests["tests"]
        .as_array()
        .expect("tests")
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().expect("a test"))
        .map(|test| (test["alertname"].as_str().expect("a name").to_owned(), test["exp_alerts"].is_array()))
        .collect();
    let known = anchors(&read(&root().join("docs/OPERATIONS.md")));
    let alerts = alerts();
    assert!(alerts.len() > 10);
    for (name, (_, runbook)) in &alerts {
        for fires in [true, false] {
            assert!(tried.contains(&(name.clone(), fires)), "{name}: no test where it fires: {fires}");
        }
        let anchor = runbook.strip_prefix("docs/OPERATIONS.md#").expect("a place in docs/OPERATIONS.md");
        assert!(known.iter().any(|known| known == anchor), "{name}: docs/OPERATIONS.md has no #{anchor}");
    }
}

/// Every expression in the dashboard, with its variables set to everything.
fn dashboard_expressions() -> Vec<String> {
    let dashboard = read(&root().join(EXAMPLES).join("grafana-dashboard.json"));
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let mut found = Vec::new();
    let mut open = vec![&dashboard];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                found.extend(members.get("expr").and_then(Value::as_str));
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    let set = |expression: &str| {
        let set = ["$tenant", "$channel_type", "$instance"]
            .iter()
            .fold(expression.to_owned(), |expression, name| expression.replace(&format!("\"{name}\""), "\".*\""));
        set.replace("$__rate_interval", "1m")
    };
    found.into_iter().map(set).collect()
}

/// The names of this program's metrics in an expression; those of a histogram's series are the histogram's.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let own = words.filter(|word| word.starts_with("conductor_") || word.starts_with("process_"));
    own.map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word))
}

#[tokio::test]
async fn dashboard_and_alerts_name_only_metrics_that_a_running_server_tells() {
    let text = metrics(&busy_server().await).await;
    let told: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let alerts = alerts().into_values().map(|(expression, _)| expression);
    let expressions: Vec<String> = dashboard_expressions().into_iter().chain(alerts).collect();
    assert!(expressions.len() > 40, "only {} found", expressions.len());
    for expression in &expressions {
        assert!(!expression.contains('$'), "a variable is left in {expression}");
        for name in names(expression) {
            assert!(told.contains(name), "{name} in {expression} is none of {told:?}");
        }
    }
    let used: BTreeSet<&str> = expressions.iter().flat_map(|expression| names(expression)).collect();
    let unused: Vec<_> = told.iter().filter(|name| name.starts_with("conductor_") && !used.contains(*name)).collect();
    assert!(unused.len() <= 2, "neither dashboard nor alerts show {unused:?}");
}

/// Every metric, also those of which there is no series yet.
#[tokio::test]
async fn operations_lists_every_metric_and_no_other() {
    let server = World::new().start().await;
    let told: BTreeSet<String> =
        readings::families(server.server.app()).await.iter().map(|family| family.name.to_owned()).collect();
    let document = read(&root().join("docs/OPERATIONS.md"));
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let name = |cell: &str| cell.split('{').next().unwrap_or_default().to_owned();
    let listed: BTreeSet<String> =
        rows.map(name).filter(|name| name.starts_with("conductor_") || name.starts_with("process_")).collect();
    assert_eq!(listed, told);
}

/// Prometheus itself, which ends with the test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Runs on the example's configuration, with this server as its target, and asks it more often.
    fn start(program: &Path, target: SocketAddr) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let configuration = read(&root().join(EXAMPLES).join("prometheus.yml"));
        let example = "127.0.0.1:9333";
        assert!(configuration.contains(example) && configuration.contains(": 15s"));
        let configuration = configuration.replace(example, &target.to_string()).replace(": 15s", ": 1s");
        std::fs::write(data.path().join("prometheus.yml"), configuration).expect("a file");
        std::fs::copy(root().join(EXAMPLES).join("alerts.yml"), data.path().join("alerts.yml")).expect("a file");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let child = Command::new(program)
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus runs");
        Self { child, address, _data: data }
    }

    async fn get(&self, path: &str, pairs: &[(&str, &str)]) -> Option<Value> {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let url = format!("http://{}/api/v1/{path}?{query}", self.address);
        let sent = http().get(url).send().await.ok()?;
        serde_json::from_str(&sent.text().await.ok()?).ok()
    }

    async fn query(&self, expression: &str) -> Vec<Value> {
        let found = self.get("query", &[("query", expression)]).await.unwrap_or_default();
        assert_eq!(found["status"], "success", "{expression}: {found}");
        found["data"]["result"].as_array().expect("a result").clone()
    }
}

#[tokio::test]
async fn prometheus_scrapes_the_server_and_answers_every_question_of_the_dashboard() {
    let Some(program) = tool("prometheus") else { return };
    let server = busy_server().await;
    let target = server.server.metrics_address().expect("a listener for metrics");
    let prometheus = Prometheus::start(&program, target);
    let start = Instant::now();
    loop {
        let up = prometheus.get("query", &[("query", "count_over_time(up[1m])")]).await;
        let scrapes = up.and_then(|up| up["data"]["result"][0]["value"][1].as_str()?.parse::<u32>().ok());
        if scrapes >= Some(3) {
            break;
        }
        assert!(start.elapsed() < 2 * DEADLINE, "Prometheus has not scraped the server: {scrapes:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(prometheus.query("up == 1").await.len(), 1, "the scrape failed");
    for expression in dashboard_expressions() {
        let found = prometheus.query(&expression).await;
        // What only shows itself when something is wrong is empty here.
        if !expression.ends_with("> 0") {
            assert!(!found.is_empty(), "{expression} finds nothing");
        }
    }
    let waiting =
        prometheus.query(&format!("conductor_queue_depth{{tenant=\"{TENANT_A}\",channel_type=\"log\"}}")).await;
    assert_eq!(waiting[0]["value"][1], "1");
    let rules = prometheus.get("rules", &[]).await.expect("an answer");
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("rules").clone();
    assert_eq!(rules.len(), alerts().len());
    for rule in &rules {
        assert_ne!(rule["health"], "err", "{rule}");
    }
    let (status, _) = answer(http().get(format!("http://{target}/metrics"))).await;
    assert_eq!(status, 200);
}
