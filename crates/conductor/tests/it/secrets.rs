//! No secret reaches anything that the program prints, answers or stores: not in a log at its most talkative, not in
//! an error, not where somebody has put a secret in the wrong place.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::description::OPERATIONS;
use super::support::process::{Process, conductor, run};
use super::support::provider::DEADLINE;
use super::support::server::{self, TENANT_A, TENANT_B};

const KEY_A: &str = "5ec2e7a0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829000001";
const NEXT_A: &str = "5ec2e7a0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829000002";
const KEY_B: &str = "5ec2e7a0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829000003";
const ADMIN: &str = "5ec2e7a0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829000004";
/// A key of something else, with which somebody asks by mistake.
const WRONG: &str = "5ec2e7a0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829000005";
const TOKEN: &str = "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs";
const WEBHOOK: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTE=";
const CALLBACK: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTI=";
const HEADER: &str = "a-header-that-only-the-receiver-may-know-77";
const QUERY: &str = "a-query-that-only-the-receiver-may-know-88";

/// All of them. What signs is searched for without its prefix as well.
const SECRETS: [&str; 12] = [
    KEY_A,
    NEXT_A,
    KEY_B,
    ADMIN,
    WRONG,
    TOKEN,
    WEBHOOK,
    CALLBACK,
    "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTE=",
    "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTI=",
    HEADER,
    QUERY,
];

/// So much of a secret's beginning or end gives it away.
const PIECE: usize = 20;

/// Everything that came out, with where.
#[derive(Debug, Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    fn keep(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    fn has(&self, place: &str, words: &str) -> bool {
        self.0.iter().any(|(found, text)| found.contains(place) && text.contains(words))
    }

    /// What holds which secret.
    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (place, text) in &self.0 {
            for secret in SECRETS {
                // A piece is as good as the whole: some texts are cut.
                let pieces = [&secret[..PIECE], &secret[secret.len() - PIECE..]];
                if let Some(at) = pieces.iter().find_map(|piece| text.find(piece)) {
                    let line = text[..at].rsplit('\n').next().unwrap_or_default();
                    leaks.push(format!("{place}: {line}{secret}"));
                }
            }
        }
        leaks
    }
}

/// A provider that repeats everything it was sent, in every place of its answer. The message says with which status,
/// the first time that it comes: `answer 404`.
#[derive(Clone, Default)]
struct Echo {
    received: Arc<Mutex<Vec<String>>>,
    known: Arc<Mutex<HashSet<String>>>,
}

impl Echo {
    async fn start() -> (Self, String) {
        let echo = Self::default();
        let router = Router::new().fallback(repeat).with_state(echo.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        (echo, url)
    }
}

async fn repeat(State(echo): State<Echo>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8_lossy(&body);
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    // A webhook's body counts the attempts; its id stays.
    let id = Some(value("webhook-id")).filter(|id| !id.is_empty()).unwrap_or_else(|| body.to_string());
    let is_new = echo.known.lock().unwrap().insert(id);
    let wanted = body.split("answer ").nth(1).filter(|_| is_new);
    let status = wanted.and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(200);
    let said = format!("{uri} {} {}", value("authorization"), value("x-auth"));
    echo.received.lock().unwrap().push(said.clone());
    let answer = json!({ "id": said, "code": 0, "message": said, "retry_after": 0.2, "errors": { "content": said } });
    let mut response = (StatusCode::from_u16(status).expect("a status"), answer.to_string()).into_response();
    let repeated = said.parse().expect("visible ASCII");
    response.headers_mut().insert("x-repeated", repeated);
    response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    if status == 429 {
        response.headers_mut().insert("retry-after", "1".parse().expect("a value"));
    }
    if status == 302 {
        response.headers_mut().insert("location", format!("/?{}", said.replace(' ', "+")).parse().expect("a value"));
    }
    response
}

/// Writes a configuration with a secret in every place where one can be.
fn write_place(folder: &Path, provider: &str) {
    let tenants = json!([
        { "id": TENANT_A, "name": "A", "authKeyEnvVar": "KEY_A",
          "callbacks": [{ "url": "https://a.example/", "secretEnvVar": "CALLBACK", "events": ["notification.failed"] }] },
        { "id": TENANT_B, "name": "B", "authKeyEnvVar": "KEY_B" },
    ]);
    let local = json!(["127.0.0.0/8"]);
    let channels = json!([
        { "tenantId": TENANT_A, "channelType": "discord", "channelName": "chat", "providerIdEnvVar": "ROOM",
          "providerSecretEnvVar": "TOKEN", "options": { "baseUrl": provider, "allowNetworks": local } },
        { "tenantId": TENANT_A, "channelType": "webhook", "channelName": "hook", "env": { "url": "URL", "secret": "WEBHOOK" },
          "options": { "headers": { "X-Auth": HEADER }, "allowNetworks": local } },
        { "tenantId": TENANT_A, "channelType": "log", "channelName": "log" },
    ]);
    let plugins = json!([{ "name": "log" }, { "name": "webhook" }, { "name": "discord" }]);
    std::fs::create_dir_all(folder.join("data/config")).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    for (name, value) in [("tenants", tenants), ("channels", channels), ("plugins", plugins)] {
        write(&format!("data/config/{name}.json"), &format!("{value:#}"));
    }
    write(".env", &format!("CONDUCTOR_ADMIN_KEY={ADMIN}\nTOKEN='{TOKEN}'\nROOM=112233445566778899\n"));
    write(
        "data/.env",
        &format!("KEY_A_NEXT={NEXT_A}\nWEBHOOK_FILE=webhook\nURL={provider}/hook?token={QUERY}\nOTHER={WRONG}\n"),
    );
    write("webhook", &format!("{WEBHOOK}\n"));
    write("key", KEY_B);
}

/// A call in the place, with those secrets that the process itself is given.
fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = conductor(folder, arguments);
    command.env("KEY_A", KEY_A).env("KEY_B_FILE", "key").env("CALLBACK", CALLBACK);
    command
}

/// One client for all: making one takes longer than asking.
fn http() -> &'static reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(server::http);
    &CLIENT
}

/// Asks a server and keeps all of the answer.
async fn ask(heard: &mut Heard, place: &str, request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
    let body = answer.text().await.expect("a body");
    let value = serde_json::from_str(&body).unwrap_or_default();
    heard.keep(format!("answer to {place}"), format!("{headers}\n{body}"));
    (status, value)
}

/// Sends through every channel that a provider answers, with every kind of answer, and keeps the stories.
async fn drive_deliveries(heard: &mut Heard, url: &str) {
    let mut ids = Vec::new();
    for channel in ["webhook", "discord"] {
        let waiting = json!({ "channel": channel, "message": "answer 404", "title": "waits" });
        let request = http().post(format!("{url}/notifications")).bearer_auth(KEY_A).header("prefer", "wait=20");
        assert_eq!(ask(heard, "a wait", request.json(&waiting)).await.0, 502);
    }
    // Refused credentials stop a channel: they come last, and with other codes in the commands.
    for status in [200, 400, 404, 302, 500, 429, 401] {
        for channel in ["log", "webhook", "discord"] {
            let message = json!({ "channel": channel, "message": format!("the message: answer {status}") });
            let request = http().post(format!("{url}/notifications")).bearer_auth(KEY_A).json(&message);
            let (code, accepted) = ask(heard, "a message", request).await;
            assert_eq!(code, 202, "{accepted}");
            let id = accepted["id"].as_str().expect("an id").to_owned();
            let start = Instant::now();
            loop {
                let request = http().get(format!("{url}/notifications/{id}")).bearer_auth(NEXT_A);
                let story = ask(heard, "a story", request).await.1;
                if story["deliveries"][0]["attempts"].as_array().is_some_and(|attempts| !attempts.is_empty()) {
                    break;
                }
                assert!(start.elapsed() < DEADLINE, "never tried: {story:#}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ids.push(id);
        }
    }
    for id in ids {
        for action in ["retry", "cancel", "resolve"] {
            let request = http().post(format!("{url}/notifications/{id}/{action}")).bearer_auth(KEY_A);
            ask(heard, action, request).await;
        }
    }
}

/// Asks every call of the API with every key, good or wrong.
async fn drive_routes(heard: &mut Heard, url: &str) {
    for operation in OPERATIONS.iter() {
        let path = operation.path_with(&[("id", TENANT_A), ("channelId", TENANT_B)]);
        for key in [Some(KEY_A), Some(KEY_B), Some(ADMIN), Some(WRONG), None] {
            let mut request = http().request(operation.method.clone(), format!("{url}{path}"));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            ask(heard, &operation.name(), request).await;
        }
    }
}

/// Puts keys where they do not belong.
async fn drive_mistakes(heard: &mut Heard, url: &str) {
    let get = |path: String| http().get(format!("{url}{path}"));
    for key in [KEY_A, WRONG] {
        for path in [
            format!("/notifications?key={key}"),
            format!("/notifications?q={key}"),
            format!("/notifications?cursor={key}"),
            format!("/notifications?status={key}"),
            format!("/channels?api_key={key}&x=%ff"),
            format!("/notifications/{key}"),
            format!("/{key}"),
            format!("/health?token={key}"),
        ] {
            ask(heard, "a key in the address", get(path.clone())).await;
            ask(heard, "a key in the address, with a key", get(path).bearer_auth(KEY_A)).await;
        }
        for value in
            [format!("Basic {key}"), format!("Bearer {key} {key}"), format!("Token token={key}"), format!("{key},")]
        {
            ask(heard, "a key after another scheme", get("/channels".to_owned()).header("authorization", value)).await;
        }
        for body in [
            format!("{{\"message\": \"x\", \"channel\": \"log\", \"key\": \"{key}"),
            format!("{{\"message\": \"x\", \"channel\": {key}}}"),
            format!("{{\"message\": \"x\", \"channel\": \"{key}\"}}"),
            format!("{{\"message\": \"x\", \"channelId\": \"{key}\"}}"),
            format!("{{\"message\": \"x\", \"channel\": \"log\", \"priority\": \"{key}\"}}"),
            format!("{{\"message\": \"x\", \"channel\": \"log\", \"sendAt\": \"{key}\"}}"),
            format!("{{\"message\": \"x\", \"channel\": \"log\", \"authorization\": \"{key}\"}}"),
            format!("{{\"message\": \"x\", \"channel\": \"log\", \"data\": \"{key}\"}}"),
            format!("{{\"message\": [\"{key}\"], \"channel\": \"log\"}}"),
            format!("\"{key}\""),
            key.to_owned(),
        ] {
            let request = http().post(format!("{url}/notifications")).bearer_auth(KEY_A);
            let (status, answer) =
                ask(heard, "a key in a bad body", request.header("content-type", "application/json").body(body)).await;
            assert_eq!(status, 400, "{answer}");
        }
        let request = http().post(format!("{url}/notifications")).bearer_auth(KEY_A);
        ask(heard, "a key in a form", request.body(format!("key={key}"))).await;
    }
}

fn commands(heard: &mut Heard, folder: &Path, port: &str) {
    let table: [(&[&str], i32); 19] = [
        (&["check"], 0),
        (&["doctor"], 1),
        (&["doctor", "--json"], 1),
        (&["init"], 0),
        (&["tenant", "list"], 0),
        (&["tenant", "list", "--json"], 0),
        (&["tenant", "rotate-key", "A"], 2),
        (&["tenant", "rotate-key", "A", "--finish"], 2),
        (&["tenant", "rotate-key", "B", "--finish"], 2),
        (&["channel", "list"], 0),
        (&["channel", "list", "--json"], 0),
        (&["channel", "test", "chat"], 0),
        (&["channel", "test", "chat", "--send", "--message", "answer 403"], 1),
        (&["channel", "test", "hook", "--send", "--message", "answer 401"], 1),
        (&["channel", "test", "hook", "--send", "--message", "answer 500"], 1),
        (&["plugin", "list", "--json"], 0),
        (&["send", "--tenant", "A", "--channel", "discord", "--wait", "1", "answer 404"], 0),
        (&["send", "--key-env", "OTHER", "--channel", "log", "Hello"], 1),
        (&["health"], 0),
    ];
    for (words, code) in table {
        let ended = run(program(folder, words).env("PORT", port).env("LOG_LEVEL", "trace"));
        // Whether a stopped channel's message waits, or its provider is well, is the other tests' concern.
        assert!(ended.code == Some(code) || ["send", "doctor"].contains(&words[0]), "{words:?}: {}", ended.text());
        heard.keep(words.join(" "), ended.text());
    }
    let named = run(&mut program(folder, &["send", "--key-env", WRONG, "--channel", "log", "Hello"]));
    heard.keep("send --key-env", named.with(2).text());
    let added = run(&mut program(
        folder,
        &["channel", "add", "--tenant", "A", "--type", "discord", "--env", &format!("botToken={TOKEN}")],
    ));
    heard.keep("channel add", added.with(2).text());
}

/// What other users of the machine see of a process.
fn keep_process(heard: &mut Heard, id: u32) {
    for name in ["cmdline", "comm", "status", "limits"] {
        let text = std::fs::read(format!("/proc/{id}/{name}")).expect("what the system tells of it");
        heard.keep(format!("/proc/…/{name}"), String::from_utf8_lossy(&text));
    }
}

/// What the store's files hold.
fn keep_store(heard: &mut Heard, folder: &Path) {
    for name in ["conductor.db", "conductor.db-wal"] {
        if let Ok(bytes) = std::fs::read(folder.join("data").join(name)) {
            heard.keep(format!("the file {name}"), String::from_utf8_lossy(&bytes));
        }
    }
}

/// Configurations with faults beside secrets, or made of them: a file, what stands in it, what is put in its place.
fn faults() -> Vec<(&'static str, String, String)> {
    let quoted = |text: &str| format!("\"{text}\"");
    let mut all = vec![
        ("data/config/tenants.json", quoted("KEY_A"), quoted(KEY_A)),
        ("data/config/tenants.json", quoted("KEY_A"), format!("\"KEY_A\", \"key\": \"{KEY_A}\"")),
        ("data/config/tenants.json", quoted("KEY_A"), format!("\"KEY_A\" \"{KEY_A}\"")),
        ("data/config/tenants.json", quoted("KEY_A"), KEY_A.to_owned()),
        ("data/config/tenants.json", quoted("CALLBACK"), quoted(CALLBACK)),
        ("data/config/channels.json", quoted("TOKEN"), quoted(TOKEN)),
        ("data/config/channels.json", quoted("TOKEN"), format!("\"{TOKEN}")),
        ("data/config/channels.json", "\"X-Auth\"".to_owned(), "\"Host\"".to_owned()),
        ("data/config/channels.json", "\"headers\"".to_owned(), "\"heders\"".to_owned()),
        ("data/config/channels.json", "\"headers\"".to_owned(), format!("\"botToken\": \"{TOKEN}\", \"headers\"")),
        (".env", format!("'{TOKEN}'"), format!("'{TOKEN}")),
        (".env", format!("'{TOKEN}'"), format!("\"{TOKEN}\\nx\"")),
        (".env", format!("TOKEN='{TOKEN}'"), TOKEN.to_owned()),
        ("data/.env", NEXT_A.to_owned(), KEY_B.to_owned()),
        ("data/.env", "URL=http".to_owned(), "URL=htp".to_owned()),
        ("data/.env", "KEY_A_NEXT=".to_owned(), format!("CONDUCTOR_ADMIN_KEY={KEY_A}\nKEY_A_NEXT= x ")),
        ("webhook", "whsec_".to_owned(), "whsc_".to_owned()),
        ("key", KEY_B.to_owned(), format!("{KEY_A}\n")),
    ];
    all.push(("webhook", WEBHOOK.to_owned(), format!("{WEBHOOK}{WEBHOOK}")));
    all
}

fn failing_starts(heard: &mut Heard, provider: &str) {
    for (name, from, to) in faults() {
        let folder = TempDir::new().expect("a folder");
        write_place(folder.path(), provider);
        let path = folder.path().join(name);
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.contains(&from), "{from:?} not in {name}: {text}");
        std::fs::write(&path, text.replace(&from, &to)).expect("written");
        let commands: [&[&str]; 8] = [
            &["check"],
            &["serve"],
            &["doctor"],
            &["channel", "test", "chat"],
            &["tenant", "list"],
            &["tenant", "list", "--json"],
            &["tenant", "rotate-key", "A"],
            &["send", "--tenant", "A", "--channel", "log", "Hello"],
        ];
        for arguments in commands {
            let ended = run(program(folder.path(), arguments).env("LOG_LEVEL", "trace"));
            let place = format!("{} after {from:?} became {to:?} in {name}", arguments.join(" "));
            let must_fail = ["check", "serve", "channel"].contains(&arguments[0]);
            assert!(ended.code == Some(2) || !must_fail, "{place}: {}", ended.text());
            heard.keep(place, ended.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_printed_holds_a_secret() {
    let (echo, provider) = Echo::start().await;
    let mut heard = Heard::default();
    for (format, variable) in [("text", "LOG_LEVEL"), ("json", "LOG_LEVEL"), ("text", "RUST_LOG")] {
        let folder = TempDir::new().expect("a folder");
        write_place(folder.path(), &provider);
        let mut command = program(folder.path(), &[]);
        command.env("LOG_FORMAT", format).env(variable, "trace").env("METRICS_ADDR", "127.0.0.1:0");
        let process = Process::serve(&mut command);
        let url = process.url.clone();
        keep_process(&mut heard, process.id());
        drive_routes(&mut heard, &url).await;
        drive_mistakes(&mut heard, &url).await;
        drive_deliveries(&mut heard, &url).await;
        drive_routes(&mut heard, &url).await;
        let metrics =
            process.out().split("Metrics are on ").nth(1).and_then(|rest| rest.lines().next().map(str::to_owned));
        ask(&mut heard, "the metrics' own listener", http().get(metrics.expect("an address"))).await;
        commands(&mut heard, folder.path(), &process.port());
        keep_store(&mut heard, folder.path());
        let ended = process.stop().with(0);
        heard.keep(format!("a server with {variable}=trace in {format}"), ended.text());
        keep_store(&mut heard, folder.path());
    }
    failing_starts(&mut heard, &provider);

    // What is searched holds what it should, and the provider did repeat what it was told.
    let received = echo.received.lock().unwrap().join("\n");
    for secret in [TOKEN, HEADER, QUERY] {
        assert!(received.contains(secret), "the provider was never told {secret}");
    }
    for (place, words) in [
        ("a server with LOG_LEVEL=trace in text", "the message: answer 404"),
        ("a server with LOG_LEVEL=trace in json", "\"message\":\"the message: answer 404\""),
        ("a server with RUST_LOG=trace", "[TRACE]"),
        ("/proc/…/cmdline", "conductor"),
        ("answer to GET /docs", "<html"),
        ("answer to GET /openapi.json", "\"openapi\""),
        ("the file conductor.db", "the message: answer 404"),
        ("a story", "***"),
        ("channel test chat --send", "***"),
        ("answer to GET /metrics", "# TYPE"),
        ("the metrics' own listener", "# TYPE"),
    ] {
        assert!(heard.has(place, words), "{words:?} was not heard in {place}");
    }
    let leaks = heard.leaks();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}

#[test]
fn a_new_key_is_shown_once_and_by_its_own_command_alone() {
    let folder = TempDir::new().expect("a folder");
    let keys = || {
        let env = std::fs::read_to_string(folder.path().join("data/.env")).expect("readable");
        let values = env.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        values.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    let mut known = Vec::new();
    for words in [
        &["init"][..],
        &["tenant", "add", "B"],
        &["tenant", "rotate-key", "B"],
        &["tenant", "rotate-key", "B", "--finish"],
    ] {
        let text = run(&mut conductor(folder.path(), words)).with(0).text();
        for key in keys() {
            let is_new = !known.contains(&key);
            let is_shown = text.contains(&key);
            assert!(is_new || !is_shown, "{words:?} shows a key again: {text}");
            known.push(key);
        }
        for again in [&["check"][..], &["init"], &["tenant", "list", "--json"]] {
            let text = run(&mut conductor(folder.path(), again)).with(0).text();
            assert!(known.iter().all(|key| !text.contains(key)), "{again:?}: {text}");
        }
    }
    assert_eq!(known.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
}

/// It ends by a signal that has the system write down its memory, where it is allowed to.
#[test]
fn a_process_that_dies_leaves_no_core_dump() {
    let folder = TempDir::new().expect("a folder");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -c unlimited; exec {} serve", env!("CARGO_BIN_EXE_conductor"))]);
    let mut process = Process::serve(shell.current_dir(folder.path()).env("PORT", "0").env("HOST", "127.0.0.1"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    process.signal(rustix::process::Signal::ABORT);
    let start = Instant::now();
    while process.is_running() {
        assert!(start.elapsed() < DEADLINE, "it does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("core")), "{left:?}");
}
