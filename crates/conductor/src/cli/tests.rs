use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use clap::CommandFactory;
use conductor_channels::{ChannelContext, ChannelPlugin, Classic, InitError, Setting};
use conductor_core::{
    Channel, Health, Limits, ManualClock, Message, Problems, Receipt, Secret, SendError, SendErrorKind, Timestamp,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::*;
use crate::config::edit::env_file::EnvFile;

/// Takes everything.
struct Quiet;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[async_trait]
impl Channel for Quiet {
    async fn send(&self, _: &Message) -> Result<Receipt, SendError> {
        Ok(Receipt { provider_id: Some("p\n1".to_owned()) })
    }
}

impl ChannelPlugin for Quiet {
    const KIND: &'static str = "log";
    const ABOUT: &'static str = "Takes everything";
    const SETTINGS: &'static [Setting] = &[];
    const LIMITS: Limits = Limits::NONE;
    type Config = Nothing;
    fn validate(_: &Nothing, _: &mut Problems) {}
    async fn initialize(_: Nothing, _: ChannelContext) -> Result<Self, InitError> {
        Ok(Self)
    }
}

/// Is always down.
struct Chat;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChatConfig {
    #[schemars(with = "String")]
    bot_token: Secret,
    room: Option<String>,
}

#[async_trait]
impl Channel for Chat {
    async fn send(&self, _: &Message) -> Result<Receipt, SendError> {
        Err(SendError::new(SendErrorKind::Permanent, "no such room").with_code("404"))
    }
    async fn health_check(&self) -> Health {
        Health::Down { reason: "the token is refused".to_owned() }
    }
}

impl ChannelPlugin for Chat {
    const KIND: &'static str = "discord";
    const ALIASES: &'static [&'static str] = &["discord-bot"];
    const ABOUT: &'static str = "Is always down";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "BOT_TOKEN",
            secret: true,
            required: true,
            about: "The bot's token.",
            example: "example token",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "ROOM",
            secret: false,
            required: false,
            about: "Where messages go.",
            example: "lobby",
            classic: Some(Classic::Id),
        },
    ];
    const LIMITS: Limits = Limits::NONE;
    type Config = ChatConfig;
    fn validate(config: &ChatConfig, problems: &mut Problems) {
        if config.bot_token.expose().is_empty() || config.room.as_deref() == Some("") {
            problems.add("botToken", "is empty");
        }
    }
    async fn initialize(_: ChatConfig, _: ChannelContext) -> Result<Self, InitError> {
        Ok(Self)
    }
}

static PLUGINS: &[Plugin] = &[Plugin::of::<Quiet>(), Plugin::of::<Chat>()];

/// A folder in which commands are run.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// One that `conductor init` has filled.
    fn filled() -> Self {
        let place = Self::new();
        place.run(&["init"]).expect("made");
        place
    }

    fn run(&self, arguments: &[&str]) -> Result<(Ended, String), Failure> {
        let (result, text) = self.run_and_hear(arguments);
        result.map(|ended| (ended, text))
    }

    fn run_and_hear(&self, arguments: &[&str]) -> (Result<Ended, Failure>, String) {
        let data = self.path("data");
        let config = data.join("config");
        let folders = ["--config-dir", config.to_str().expect("UTF-8"), "--data-dir", data.to_str().expect("UTF-8")];
        let words = ["conductor"].iter().chain(&folders).chain(arguments);
        let line = CommandLine::try_parse_from(words).expect("a good command line");
        let mut out = Vec::new();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_705_314_600_000)));
        let working_dir = self.0.path().to_path_buf();
        let result = run(line, &mut Session { plugins: PLUGINS, clock, working_dir, out: &mut out });
        (result, String::from_utf8(out).expect("UTF-8"))
    }

    fn refusal(&self, arguments: &[&str]) -> String {
        match self.run(arguments) {
            Err(Failure::Refused(text)) => text,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn env(&self, name: &str) -> Option<String> {
        let file = EnvFile::open(&self.path("data/.env")).expect("readable");
        file.get(name).map(|value| value.expose().to_owned())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments).expect("listed").1).expect("JSON")
    }

    /// All files with what they say.
    fn all_files(&self) -> BTreeSet<(PathBuf, String)> {
        let mut files = BTreeSet::new();
        let mut folders = vec![self.0.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("readable") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = fs::read_to_string(&path).expect("readable");
                    files.insert((path, text));
                }
            }
        }
        files
    }
}

fn commands(command: &clap::Command, prefix: &str, found: &mut Vec<(String, clap::Command)>) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("{prefix} {}", sub.get_name());
        commands(sub, &name, found);
        if !sub.has_subcommands() {
            found.push((name, sub.clone()));
        }
    }
}

#[test]
fn every_command_has_an_example_and_says_what_to_do_when_it_fails() {
    let mut found = Vec::new();
    let command = CommandLine::command();
    commands(&command, "conductor", &mut found);
    assert!(found.len() >= 13, "{found:?}");
    for (name, mut command) in found {
        let help = command.render_long_help().to_string();
        assert!(help.contains(&format!("Example:\n  {name}")) || help.contains(name.as_str()), "{name}: {help}");
        assert!(help.contains("Example:"), "{name}");
        assert!(help.contains("If it fails") || help.contains("If the") || help.contains("If one"), "{name}: {help}");
    }
    assert!(CommandLine::command().render_long_help().to_string().contains("Example:"));
    command.debug_assert();
}

#[test]
fn a_flag_may_stand_before_or_after_the_command() {
    for words in [["conductor", "--port", "81", "check"], ["conductor", "check", "--port", "81"]] {
        let line = CommandLine::try_parse_from(words).expect("good");
        assert_eq!(line.process.resolve().expect("good").port, 81);
    }
}

#[test]
fn the_version_is_told() {
    let error = CommandLine::try_parse_from(["conductor", "--version"]).expect_err("it ends there");
    assert_eq!(error.exit_code(), 0);
    assert!(error.to_string().contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn init_makes_a_configuration_that_check_finds_good() {
    let place = Place::new();
    let (_, text) = place.run(&["init"]).expect("made");
    let tenant = &place.json(&["tenant", "list", "--json"])[0];
    let (id, variable) = (tenant["id"].as_str().expect("an id"), tenant["authKeyEnvVar"].as_str().expect("a name"));
    let key = place.env(variable).expect("a key");
    for part in
        [id, "Default Tenant", &format!("\n{variable}={key}\n"), "CONDUCTOR_ADMIN_KEY", "curl http://localhost:"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(!text.contains(&place.env("CONDUCTOR_ADMIN_KEY").expect("a key")), "the operator's key is shown");
    assert!(text.contains("✅ Default Tenant") && text.contains("✅ log: ") && text.contains("✅ log (log)"), "{text}");
    let (ended, text) = place.run(&["check"]).expect("good");
    assert_eq!(ended, Ended::Well);
    assert!(!text.contains(&key) && !text.contains("warning"), "{text}");
    let (_, second) = place.run(&["init"]).expect("found");
    assert!(second.starts_with("Configuration found in ") && !second.contains(&key), "{second}");
}

#[test]
fn the_banner_fits_a_terminal_but_for_what_must_not_be_cut() {
    let (_, text) = Place::new().run(&["init"]).expect("made");
    let temporary = std::env::temp_dir().display().to_string();
    for line in text.lines().filter(|line| line.chars().count() > 80) {
        let is_whole = line.contains("_AUTHKEY") || line.contains("Bearer") || line.contains(&temporary);
        assert!(is_whole, "{line}");
    }
}

#[test]
fn a_missing_key_is_refused_and_marked() {
    let place = Place::filled();
    fs::remove_file(place.path("data/.env")).expect("removed");
    let (result, text) = place.run_and_hear(&["check"]);
    let Err(Failure::Refused(error)) = result else { panic!("expected a refusal") };
    assert!(text.contains("❌ Default Tenant") && text.contains("✅ log (log)"), "{text}");
    assert!(error.contains("_AUTHKEY"), "{error}");
    assert!(place.run(&["init"]).is_err());
    assert!(!place.path("data/.env").exists(), "a key was made for a tenant that was there");
}

#[test]
fn a_bad_channel_is_marked() {
    let place = Place::filled();
    let path = place.path("data/config/channels.json");
    let text =
        fs::read_to_string(&path).expect("readable").replace("\"channelType\": \"log\"", "\"channelType\": \"fax\"");
    fs::write(&path, text).expect("written");
    let (result, text) = place.run_and_hear(&["check"]);
    assert!(result.is_err() && text.contains("❌ log (fax)") && text.contains("✅ Default Tenant"), "{text}");
}

#[test]
fn an_added_tenant_has_a_key_and_the_configuration_stays_good() {
    let place = Place::filled();
    let path = place.path("data/config/tenants.json");
    let before = fs::read_to_string(&path).expect("readable");
    fs::write(&path, format!("// ours\n{before}")).expect("written");
    let (_, text) = place.run(&["tenant", "add", "Acme \"Ltd\""]).expect("added");
    let tenants = place.json(&["tenant", "list", "--json"]);
    assert_eq!((&tenants[1]["name"], &tenants[1]["keyIsSet"]), (&"Acme \"Ltd\"".into(), &true.into()));
    let key = place.env(tenants[1]["authKeyEnvVar"].as_str().expect("a name")).expect("a key");
    assert!(text.contains(&key) && text.contains(tenants[1]["id"].as_str().expect("an id")), "{text}");
    assert!(fs::read_to_string(&path).expect("readable").starts_with("// ours\n{"));
    place.run(&["check"]).expect("good");
    let files = place.all_files();
    for name in ["Acme \"Ltd\"", "", "a\nb", &"x".repeat(201)] {
        place.refusal(&["tenant", "add", name]);
    }
    assert_eq!(place.all_files(), files);
    let (_, list) = place.run(&["tenant", "list"]).expect("listed");
    assert!(list.contains("Acme") && !list.contains(&key), "{list}");
}

#[test]
fn a_key_is_changed_in_two_steps() {
    let place = Place::filled();
    let variable = place.json(&["tenant", "list", "--json"])[0]["authKeyEnvVar"].as_str().expect("a name").to_owned();
    let next = format!("{variable}_NEXT");
    let old = place.env(&variable).expect("a key");
    place.refusal(&["tenant", "rotate-key", "Default Tenant", "--finish"]);
    let (_, text) = place.run(&["tenant", "rotate-key", "Default Tenant"]).expect("begun");
    let new = place.env(&next).expect("a second key");
    assert!(text.contains(&new) && !text.contains(&old), "{text}");
    assert_eq!(place.env(&variable), Some(old.clone()));
    assert_eq!(place.json(&["tenant", "list", "--json"])[0]["nextKeyIsSet"], true);
    place.run(&["check"]).expect("both are good");
    place.refusal(&["tenant", "rotate-key", "Default Tenant"]);
    let admin = place.env("CONDUCTOR_ADMIN_KEY");
    let (_, text) = place.run(&["tenant", "rotate-key", "Default Tenant", "--finish"]).expect("ended");
    assert_eq!((place.env(&variable), place.env(&next)), (Some(new.clone()), None));
    assert_eq!(place.env("CONDUCTOR_ADMIN_KEY"), admin);
    assert!(!text.contains(&new) && new != old, "{text}");
    place.run(&["check"]).expect("good");
}

#[test]
fn a_key_in_the_working_folder_is_changed_there() {
    let place = Place::filled();
    fs::rename(place.path("data/.env"), place.path(".env")).expect("moved");
    let variable = place.json(&["tenant", "list", "--json"])[0]["authKeyEnvVar"].as_str().expect("a name").to_owned();
    place.run(&["tenant", "rotate-key", "Default Tenant"]).expect("begun");
    place.run(&["tenant", "rotate-key", "Default Tenant", "--finish"]).expect("ended");
    assert!(!place.path("data/.env").exists());
    let file = EnvFile::open(&place.path(".env")).expect("readable");
    assert!(file.get(&variable).is_some() && file.get(&format!("{variable}_NEXT")).is_none());
}

#[test]
fn a_key_from_a_file_of_its_own_is_left_to_its_owner() {
    let place = Place::filled();
    let variable = place.json(&["tenant", "list", "--json"])[0]["authKeyEnvVar"].as_str().expect("a name").to_owned();
    let mut env = EnvFile::open(&place.path("data/.env")).expect("readable");
    let key = env.get(&variable).expect("a key");
    fs::write(place.path("secret"), key.expose()).expect("written");
    env.remove(&variable).expect("edited");
    env.set(&format!("{variable}_FILE"), &Secret::new(place.path("secret").display().to_string())).expect("edited");
    env.save().expect("saved");
    place.run(&["tenant", "rotate-key", "Default Tenant"]).expect("begun");
    let files = place.all_files();
    let text = place.refusal(&["tenant", "rotate-key", "Default Tenant", "--finish"]);
    assert!(text.contains("where it is set") && text.contains(&variable), "{text}");
    assert_eq!(place.all_files(), files);
}

#[test]
fn an_added_channel_tells_what_is_still_needed() {
    let place = Place::filled();
    let path = place.path("data/config/plugins.json");
    let plugins = fs::read_to_string(&path).expect("readable");
    let off = plugins.replacen(
        "\"name\": \"discord\",\n      \"enabled\": true",
        "\"name\": \"discord\", // later\n      \"enabled\": false",
        1,
    );
    assert_ne!(plugins, off);
    fs::write(&path, off).expect("written");
    let words =
        ["channel", "add", "--type", "discord-bot", "--name", "ops", "--option", "room=12", "--option", "timeout=10s"];
    let (_, text) = place.run(&words).expect("added");
    let variable = place.json(&["tenant", "list", "--json"])[0]["authKeyEnvVar"].as_str().expect("a name").to_owned();
    let variable = variable.replace("AUTHKEY", "DISCORD_BOT_TOKEN");
    assert!(text.contains(&format!("# The bot's token.\n{variable}=\n")), "{text}");
    assert!(!text.contains("_ROOM") && text.contains("is enabled now"), "{text}");
    assert!(
        fs::read_to_string(&path)
            .expect("readable")
            .contains("\"name\": \"discord\", // later\n      \"enabled\": true")
    );
    let channels = place.json(&["channel", "list", "--json"]);
    assert_eq!((&channels[1]["channelName"], &channels[1]["channelType"]), (&"ops".into(), &"discord".into()));
    assert!(place.refusal(&["check"]).contains(&variable));
    let mut env = EnvFile::open(&place.path("data/.env")).expect("readable");
    env.set(&variable, &Secret::new("token")).expect("edited");
    env.save().expect("saved");
    place.run(&["check"]).expect("good now");
    let (_, list) = place.run(&["channel", "list"]).expect("listed");
    assert!(list.contains("ops") && list.contains("Default Tenant"), "{list}");
}

#[test]
fn a_channel_names_its_own_variables() {
    let place = Place::filled();
    let add = ["channel", "add", "--type", "discord", "--env", "BOT_TOKEN=ACME_TOKEN"];
    let (_, text) = place.run(&add).expect("added");
    assert!(text.contains("\nACME_TOKEN=\n") && !text.contains("example token"), "{text}");
    assert!(text.contains("# Where messages go. Example: lobby\n# TENANT_"), "{text}");
    let text = fs::read_to_string(place.path("data/config/channels.json")).expect("readable");
    assert!(text.contains("\"botToken\": \"ACME_TOKEN\""), "{text}");
}

#[test]
fn a_channel_that_would_be_wrong_is_refused_and_nothing_is_changed() {
    let place = Place::filled();
    let files = place.all_files();
    let table: [(&[&str], &str); 8] = [
        (&["--type", "fax"], "log, discord"),
        (&["--type", "log"], "already"),
        (&["--type", "log", "--name", "b", "--tenant", "Nobody"], "Default Tenant"),
        (&["--type", "log", "--name", "b", "--option", "timeout=soon"], "timeout"),
        (&["--type", "log", "--name", "b", "--option", "tmeout=10s"], "timeout"),
        (&["--type", "discord", "--option", "botToken=hunter2"], "botToken"),
        (&["--type", "discord", "--env", "token=ACME"], "botToken"),
        (&["--type", "discord", "--env", "botToken=hunter2!"], "name of a variable"),
    ];
    for (arguments, expected) in table {
        let words: Vec<&str> = ["channel", "add"].iter().chain(arguments).copied().collect();
        let text = place.refusal(&words);
        assert!(text.contains(expected), "{arguments:?}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(place.all_files(), files);
}

#[test]
fn an_edit_is_possible_while_something_else_is_wrong() {
    let place = Place::filled();
    fs::write(place.path("data/config/plugins.json"), "[{\"name\": \"log\", \"colour\": 1}]").expect("written");
    place.refusal(&["check"]);
    place.run(&["tenant", "add", "Acme"]).expect("added");
    place.run(&["channel", "add", "--type", "log", "--name", "b", "--tenant", "Acme"]).expect("added");
}

#[test]
fn a_channel_is_tried_without_the_server() {
    let place = Place::filled();
    let (ended, text) = place.run(&["channel", "test", "log"]).expect("tried");
    assert!(ended == Ended::Well && text.contains("--send"), "{text}");
    let (ended, text) = place.run(&["channel", "test", "log", "--send"]).expect("tried");
    assert_eq!((ended, text.as_str()), (Ended::Well, "log (log): sent; the provider calls it p 1\n"));
    let mut env = EnvFile::open(&place.path("data/.env")).expect("readable");
    env.set("ACME_TOKEN", &Secret::new("hunter2")).expect("edited");
    env.save().expect("saved");
    place
        .run(&["channel", "add", "--type", "discord", "--name", "ops", "--env", "botToken=ACME_TOKEN"])
        .expect("added");
    let (ended, text) = place.run(&["channel", "test", "ops"]).expect("tried");
    assert_eq!((ended, text.as_str()), (Ended::Badly, "ops (discord): down: the token is refused\n"));
    let (ended, text) = place.run(&["channel", "test", "ops", "--send"]).expect("tried");
    assert_eq!((ended, text.as_str()), (Ended::Badly, "ops (discord): not sent, permanent (404): no such room\n"));
    assert!(place.refusal(&["channel", "test", "nothing"]).contains("ops (discord)"));
}

#[test]
fn plugins_are_listed_with_their_settings() {
    let place = Place::new();
    let (_, text) = place.run(&["plugin", "list"]).expect("listed");
    assert!(text.contains("discord (not enabled)") && text.contains("BOT_TOKEN (required, secret)"), "{text}");
    let place = Place::filled();
    let all = place.json(&["plugin", "list", "--json"]);
    assert_eq!((&all[1]["enabled"], &all[1]["settings"][0]["option"]), (&true.into(), &"botToken".into()));
}

#[test]
fn schemas_are_printed_as_json() {
    for file in ["tenants", "channels", "plugins"] {
        let schema = Place::new().json(&["schema", file]);
        assert!(schema["$schema"].as_str().is_some_and(|name| name.contains("2020-12")), "{schema}");
    }
}

#[test]
fn a_bad_setting_of_the_process_is_refused() {
    let text = Place::new().refusal(&["--port", "http", "check"]);
    assert!(text.contains("PORT") && text.contains("help:"), "{text}");
}

/// Answers one request after the other with the texts given and keeps what was asked.
struct Fake {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn answering(answers: &'static [&'static str]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a connection");
                let request = read_request(&mut stream);
                heard.lock().expect("not poisoned").push(request);
                stream.write_all(answer.as_bytes()).expect("written");
            }
        });
        Self { port, asked }
    }
}

fn read_request(stream: &mut std::net::TcpStream) -> String {
    use std::io::Read;
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut part).expect("readable");
        request.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let expected = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        if body.len() >= expected.unwrap_or(0) {
            return String::from_utf8(request).expect("UTF-8");
        }
    }
}

fn with_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[test]
fn health_asks_the_server_of_the_settings() {
    with_tls_provider();
    let fake = Fake::answering(&[
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 15\r\n\r\n{\"status\":\"ok\"}",
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    ]);
    let (place, port) = (Place::new(), fake.port.to_string());
    assert_eq!(place.run(&["--port", &port, "health"]).expect("asked"), (Ended::Well, "ok\n".to_owned()));
    assert_eq!(place.run(&["--port", &port, "health"]).expect("asked").0, Ended::Badly);
    assert!(fake.asked.lock().expect("not poisoned")[0].starts_with("GET /health HTTP/1.1\r\n"));
}

#[test]
fn a_server_that_does_not_run_is_told_with_its_address() {
    with_tls_provider();
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port().to_string()
    };
    match Place::new().run(&["--port", &port, "health"]) {
        Err(Failure::Failed(text)) => assert!(text.contains(&port) && text.contains("cannot be reached"), "{text}"),
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[test]
fn send_posts_with_the_tenants_key() {
    with_tls_provider();
    let fake = Fake::answering(&[
        "HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 28\r\n\r\n{\"id\":\"i\",\"status\":\"queued\"}",
        "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 21\r\n\r\n{\"error\":\"no, wrong\"}",
    ]);
    let place = Place::filled();
    let url = format!("http://127.0.0.1:{}/base/", fake.port);
    let words = ["send", "--url", &url, "-c", "log", "--title", "T", "--priority", "high", "--wait", "3", "Hello"];
    let (ended, text) = place.run(&words).expect("sent");
    assert_eq!((ended, text.as_str()), (Ended::Well, "Accepted, and still queued after 3 s: i\n"));
    let variable = place.json(&["tenant", "list", "--json"])[0]["authKeyEnvVar"].as_str().expect("a name").to_owned();
    let key = place.env(&variable).expect("a key");
    let request = fake.asked.lock().expect("not poisoned")[0].clone();
    let (head, body) = request.split_once("\r\n\r\n").expect("a request");
    assert!(head.starts_with("POST /base/notifications HTTP/1.1\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains(&format!("authorization: bearer {key}")) && head.contains("prefer: wait=3"), "{head}");
    let expected = serde_json::json!({ "channel": "log", "title": "T", "priority": "high", "message": "Hello" });
    assert_eq!(serde_json::from_str::<Value>(body).expect("JSON"), expected);
    let (ended, text) = place.run(&["send", "--url", &url, "-c", "log", "Hello"]).expect("asked");
    assert_eq!((ended, text.as_str()), (Ended::Badly, "Refused (403): no, wrong\n"));
}

#[test]
fn send_without_a_key_or_with_an_unclear_tenant_is_refused() {
    let place = Place::filled();
    let text = place.refusal(&["send", "-c", "log", "--key-env", "CONDUCTOR_NO_SUCH_VARIABLE", "Hello"]);
    assert!(text.contains("CONDUCTOR_NO_SUCH_VARIABLE"), "{text}");
    place.run(&["tenant", "add", "Acme"]).expect("added");
    let text = place.refusal(&["send", "-c", "log", "Hello"]);
    assert!(text.contains("--tenant") && text.contains("Acme"), "{text}");
    assert!(
        place.refusal(&["send", "-c", "log", "--url", "localhost:3333", "--tenant", "Acme", "x"]).contains("--url")
    );
    assert!(place.refusal(&["send", "-c", "log", " "]).contains("empty"));
}

#[test]
fn a_command_in_a_place_without_a_configuration_says_how_to_make_one() {
    let place = Place::new();
    for words in [&["tenant", "list"][..], &["channel", "list"], &["tenant", "add", "x"], &["send", "-c", "log", "x"]] {
        assert!(place.refusal(words).contains("conductor init"), "{words:?}");
    }
    assert!(fs::read_dir(Path::new(place.0.path())).expect("readable").next().is_none());
}

/// What stands on a command line is read by every user of the machine (`/proc/<pid>/cmdline`).
#[test]
fn no_command_takes_a_secret_as_an_argument() {
    fn names(command: &clap::Command, found: &mut Vec<String>) {
        found.extend(command.get_arguments().map(|argument| argument.get_id().to_string()));
        command.get_subcommands().for_each(|part| names(part, found));
    }
    let mut found = Vec::new();
    names(&super::command(), &mut found);
    let is_secret = |name: &&String| ["key", "token", "secret", "password"].iter().any(|word| name.contains(word));
    // It takes the name of a variable.
    let mut suspects: Vec<_> = found.iter().filter(is_secret).filter(|name| *name != "key_env").collect();
    suspects.dedup();
    assert!(found.len() > 20 && suspects.is_empty(), "{suspects:?}");
}
