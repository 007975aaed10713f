//! Every command of the real program, against a running server.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::process::{Ended, Process, call, conductor, run, run_with_input};
use super::support::provider::{Answer, DEADLINE, Provider};
use super::support::server::{answer, http};

/// A folder with a configuration, and calls of the program in it.
struct Place {
    folder: TempDir,
    port: String,
}

impl Place {
    /// What `init` makes.
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        call(folder.path(), &["init"]).with(0);
        Self { folder, port: "0".to_owned() }
    }

    /// With a webhook channel that posts to `url`.
    fn with_webhook(url: &str) -> Self {
        let place = Self::new();
        let local = r#"allowNetworks=["127.0.0.0/8"]"#;
        let words =
            ["channel", "add", "--type", "webhook", "--name", "hook", "--env", "url=HOOK_URL", "--option", local];
        place.call(&words).with(0);
        place.append("data/.env", &format!("HOOK_URL={url}\n"));
        place
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn call(&self, arguments: &[&str]) -> Ended {
        run(conductor(self.path(), arguments).env("PORT", &self.port))
    }

    /// Starts a server to which the next calls speak.
    fn serve(&mut self) -> Process {
        let process = Process::serve(&mut conductor(self.path(), &[]));
        self.port = process.port();
        process
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn append(&self, name: &str, text: &str) {
        let text = format!("{}{text}", self.read(name));
        std::fs::write(self.path().join(name), text).expect("written");
    }

    /// What a `.env` file gives a variable.
    fn variable(&self, name: &str) -> Option<String> {
        let env = self.read("data/.env");
        env.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    }

    /// The first tenant as `tenant list --json` tells it.
    fn tenant(&self) -> Value {
        self.call(&["tenant", "list", "--json"]).with(0).json()[0].clone()
    }

    /// What a server answers to a key.
    async fn status(&self, key: &str) -> u16 {
        answer(http().get(format!("http://127.0.0.1:{}/channels", self.port)).bearer_auth(key)).await.0
    }

    /// Waits until a server answers so to a key.
    async fn until(&self, key: &str, status: u16) {
        let start = Instant::now();
        while self.status(key).await != status {
            assert!(start.elapsed() < DEADLINE, "never {status}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[test]
fn what_init_makes_is_good_serves_and_stays_as_it_is() {
    let mut place = Place::new();
    let check = place.call(&["check"]).with(0);
    assert!(check.out.contains("The configuration in data/config is good."), "{}", check.out);
    let again = place.call(&["init"]).with(0);
    assert!(again.out.starts_with("Configuration found in data/config.\n"), "{}", again.out);
    let before = place.read("data/.env");
    place.serve().stop().with(0);
    assert_eq!(place.read("data/.env"), before);
}

#[test]
fn the_schemas_take_good_files_and_refuse_bad_ones() {
    let place = Place::with_webhook("https://example.com/");
    let table = [
        ("tenants", "/tenants/0/name", json!(7)),
        ("channels", "/channels/1/options/allowNetworks", json!("10.0.0.0/8")),
        ("plugins", "/plugins/0/enabled", json!("yes")),
    ];
    for (name, pointer, bad) in table {
        let schema = place.call(&["schema", name]).with(0).json();
        let validator = jsonschema::draft202012::new(&schema).expect("a valid schema");
        let mut file: Value = serde_json::from_str(&place.read(&format!("data/config/{name}.json"))).expect("JSON");
        let faults: Vec<_> = validator.iter_errors(&file).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}");
        let bare = file[name].clone();
        assert!(validator.is_valid(&bare), "{name}: a bare list is refused");
        *file.pointer_mut(pointer).expect("it is there") = bad;
        assert!(!validator.is_valid(&file), "{name}: {pointer} may be anything");
        let mut odd = bare;
        odd[0]["nmae"] = json!("x");
        assert!(!validator.is_valid(&odd), "{name}: a misspelt member is taken");
    }
    let wrong = place.call(&["schema", "tenant"]).with(2);
    assert!(wrong.err.contains("tenants") && wrong.err.contains("plugins"), "{}", wrong.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn send_says_what_became_of_the_message() {
    let provider = Provider::start().await;
    let mut place = Place::with_webhook(&provider.url());
    let process = place.serve();
    let accepted = place.call(&["send", "--channel", "log", "Hello"]).with(0);
    assert!(accepted.out.starts_with("Accepted, queued: "), "{}", accepted.out);
    let words = ["send", "-c", "webhook", "-t", "A title", "-p", "high", "--wait", "20", "Hello"];
    let sent = place.call(&words).with(0);
    assert!(sent.out.starts_with("Sent: "), "{}", sent.out);
    let received = provider.wait_for(1).await[0].json();
    assert_eq!((&received["data"]["title"], &received["data"]["priority"]), (&json!("A title"), &json!("high")));
    let mut piped = conductor(place.path(), &["send", "-c", "webhook", "-w", "20", "-"]);
    run_with_input(piped.env("PORT", &place.port), "two\nlines\n").with(0);
    assert_eq!(provider.wait_for(2).await[1].message(), "two\nlines");
    provider.next(Answer::status(404));
    let failed = place.call(&["send", "-c", "webhook", "-w", "20", "Hello"]).with(1);
    assert!(failed.out.starts_with("Not sent (502): ") && failed.out.contains("404"), "{}", failed.out);
    provider.next(Answer::status(200).after(Duration::from_secs(20)));
    let late = place.call(&["send", "-c", "webhook", "-w", "1", "Hello"]).with(0);
    assert!(late.out.starts_with("Accepted, and still ") && late.out.contains("after 1 s"), "{}", late.out);
    drop(process);
}

#[test]
fn send_says_why_it_could_not() {
    let mut place = Place::new();
    let process = place.serve();
    let refused = place.call(&["send", "--channel", "fax", "Hello"]).with(1);
    assert!(refused.out.starts_with("Refused (400): ") && refused.out.contains("log"), "{}", refused.out);
    place.append("data/.env", "OTHER=not-the-key-0123456789abcdef0123456789abcdef\n");
    let wrong = place.call(&["send", "--key-env", "OTHER", "--channel", "log", "Hello"]).with(1);
    assert!(wrong.out.starts_with("Refused (403): "), "{}", wrong.out);
    assert!(!wrong.text().contains("not-the-key"), "{}", wrong.text());
    let missing = place.call(&["send", "--key-env", "NOWHERE", "--channel", "log", "Hello"]).with(2);
    assert!(missing.err.contains("NOWHERE is set nowhere") && missing.err.contains("help:"), "{}", missing.err);
    place.call(&["send", "--channel", "log", " "]).with(2);
    place.call(&["send", "--channel", "log"]).with(2);
    place.call(&["send", "--channel", "log", "--wait", "31", "Hello"]).with(2);
    process.stop().with(0);
    let down = place.call(&["send", "--channel", "log", "Hello"]).with(1);
    assert!(down.err.contains("cannot be reached") && down.err.contains("help: does it run"), "{}", down.err);
    assert!(down.took < Duration::from_secs(5), "{:?}", down.took);
}

#[test]
fn health_tells_quickly_whether_the_server_is_well() {
    let mut place = Place::new();
    let process = place.serve();
    let well = place.call(&["health"]).with(0);
    assert_eq!(well.out, "ok\n");
    let url = process.url.clone();
    call(place.path(), &["health", "--url", &url]).with(0);
    process.stop().with(0);
    let down = place.call(&["health"]).with(1);
    assert!(down.err.contains("cannot be reached"), "{}", down.err);
    let wrong = place.call(&["health", "--url", "localhost:3333"]).with(2);
    assert!(wrong.err.contains("help:"), "{}", wrong.err);
    for ended in [well, down] {
        assert!(ended.took < Duration::from_secs(2), "{:?}", ended.took);
    }
    // Something that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let hanging = call(place.path(), &["health", "--url", &url]).with(1);
    assert!(hanging.err.contains("did not answer in time"), "{}", hanging.err);
    assert!(hanging.took < Duration::from_secs(9), "{:?}", hanging.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_added_beside_a_running_server() {
    let mut place = Place::new();
    let process = place.serve();
    let added = place.call(&["tenant", "add", "Acme Ltd"]).with(0);
    let list = place.call(&["tenant", "list", "--json"]).with(0).json();
    let acme = &list[1];
    assert_eq!(
        (&acme["name"], &acme["keyIsSet"], list.as_array().map(Vec::len)),
        (&json!("Acme Ltd"), &json!(true), Some(2))
    );
    let key = place.variable(acme["authKeyEnvVar"].as_str().expect("a variable")).expect("a key");
    assert!(added.out.contains(&key) && added.out.contains(acme["id"].as_str().expect("an id")), "{}", added.out);
    let table = place.call(&["tenant", "list"]).with(0);
    assert!(table.out.contains("Acme Ltd") && !table.out.contains(&key), "{}", table.out);
    place.until(&key, 200).await;
    place.call(&["tenant", "add", "Acme Ltd"]).with(2);
    let id = acme["id"].as_str().expect("an id");
    place.call(&["channel", "add", "--tenant", id, "--type", "log"]).with(0);
    process.logged("added=\"channel \\\"log\\\" (log)\"");
    place.call(&["send", "--tenant", "Acme Ltd", "--channel", "log", "--wait", "10", "Hello"]).with(0);
    process.logged("tenant.name=\"Acme Ltd\"");
    let unclear = place.call(&["send", "--channel", "log", "Hello"]).with(2);
    assert!(unclear.err.contains("there are several tenants") && unclear.err.contains(id), "{}", unclear.err);
    process.stop().with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_without_an_outage() {
    let mut place = Place::new();
    let tenant = place.tenant();
    let variable = tenant["authKeyEnvVar"].as_str().expect("a variable").to_owned();
    let old = place.variable(&variable).expect("a key");
    place.call(&["tenant", "rotate-key", "Default Tenant", "--finish"]).with(2);
    let begun = place.call(&["tenant", "rotate-key", "Default Tenant"]).with(0);
    let new = place.variable(&format!("{variable}_NEXT")).expect("a second key");
    assert!(begun.out.contains(&new) && !begun.out.contains(&old), "{}", begun.out);
    assert_eq!(place.tenant()["nextKeyIsSet"], true);
    place.call(&["tenant", "rotate-key", "Default Tenant"]).with(2);
    let process = place.serve();
    assert_eq!((place.status(&old).await, place.status(&new).await), (200, 200));
    let finished = place.call(&["tenant", "rotate-key", "Default Tenant", "--finish"]).with(0);
    assert!(!finished.text().contains(&new) && !finished.text().contains(&old), "{}", finished.text());
    place.until(&old, 403).await;
    assert_eq!(place.status(&new).await, 200);
    assert_eq!((place.variable(&variable), place.variable(&format!("{variable}_NEXT"))), (Some(new), None));
    place.call(&["send", "--channel", "log", "--wait", "10", "Hello"]).with(0);
    process.stop().with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_added_listed_and_tried() {
    let provider = Provider::start().await;
    let mut place = Place::new();
    let local = r#"allowNetworks=["127.0.0.0/8"]"#;
    let words =
        ["channel", "add", "--type", "webhook", "--name", "alerts", "--option", local, "--option", "timeout=5s"];
    let added = place.call(&words).with(0);
    let line = added.out.lines().find(|line| line.ends_with("_WEBHOOK_URL=")).expect("the line that .env needs");
    let incomplete = place.call(&["check"]).with(2);
    assert!(incomplete.err.contains(line.trim_end_matches('=')), "{}", incomplete.err);
    place.append("data/.env", &format!("{line}{}\n", provider.url()));
    place.call(&["check"]).with(0);
    let list = place.call(&["channel", "list", "--json"]).with(0).json();
    assert_eq!((&list[1]["channelName"], &list[1]["channelType"]), (&json!("alerts"), &json!("webhook")));
    assert!(place.call(&["channel", "list"]).with(0).out.contains("alerts"));
    let tried = place.call(&["channel", "test", "alerts"]).with(0);
    assert!(tried.out.starts_with("alerts (webhook): "), "{}", tried.out);
    assert!(provider.received().is_empty(), "a test that is no send has sent");
    let sent = place.call(&["channel", "test", "alerts", "--send", "--message", "Is it here?"]).with(0);
    assert!(sent.out.starts_with("alerts (webhook): sent"), "{}", sent.out);
    assert_eq!(provider.wait_for(1).await[0].message(), "Is it here?");
    provider.next(Answer::status(410));
    let gone = place.call(&["channel", "test", "alerts", "--send"]).with(1);
    assert!(gone.out.contains("not sent") && gone.out.contains("410"), "{}", gone.out);
    let unknown = place.call(&["channel", "test", "alert"]).with(2);
    assert!(unknown.err.contains("there is no channel") && unknown.err.contains("alerts"), "{}", unknown.err);
    place.call(&["channel", "add", "--type", "webhook", "--name", "alerts"]).with(2);
    let process = place.serve();
    let id = list[1]["channelId"].as_str().expect("an id");
    place.call(&["send", "--channel-id", id, "--channel", "webhook", "--wait", "10", "Hello"]).with(0);
    process.stop().with(0);
}

#[test]
fn a_channel_that_can_go_two_ways_asks_for_one_of_them() {
    let place = Place::new();
    let added = place.call(&["channel", "add", "--type", "slack", "--name", "team"]).with(0).out;
    let (needed, instead) = added.split_once("\nOr, instead of that").expect("both ways are told");
    let needed: Vec<&str> = needed.lines().filter(|line| line.ends_with('=')).collect();
    assert!(needed.len() == 2 && needed[0].ends_with("_SLACK_BOT_TOKEN="), "{added}");
    let instead = instead.lines().find(|line| line.ends_with("_SLACK_WEBHOOK_URL=")).expect("the other way's line");
    assert!(instead.starts_with("# TENANT_") && added.contains("Until then a running server goes on"), "{added}");
    let nothing = place.call(&["check"]).with(2).err;
    assert!(nothing.contains("set `botToken` with `channel`, or `webhookUrl`"), "{nothing}");
    place.append("data/.env", &format!("{}xoxb-a-token\n", needed[0]));
    let half = place.call(&["check"]).with(2).err;
    assert!(half.contains("channel: is missing, and `botToken` alone"), "{half}");
    place.append("data/.env", &format!("{}C1H9RESGL\n", needed[1]));
    place.call(&["check"]).with(0);

    // The second channel names its way, so that the first one's variables are none of its own.
    let words = ["channel", "add", "--type", "slack", "--name", "hook", "--env", "webhookUrl=HOOK"];
    let added = place.call(&words).with(0).out;
    assert!(added.contains("\nHOOK=") && !added.contains("_BOT_TOKEN") && !added.contains("Or, instead"), "{added}");
    let hook = "https://hooks.slack.com/services/T0/B0/a-secret";
    place.append("data/.env", &format!("HOOK={hook}\n"));
    place.call(&["check"]).with(0);
    place.append("data/.env", &format!("{}{hook}\n", instead.trim_start_matches("# ")));
    let both = place.call(&["check"]).with(2).err;
    assert!(both.contains("is set, but so is `botToken`") && !both.contains("a-secret"), "{both}");
}

#[test]
fn a_plugin_is_shown_with_the_steps_to_its_credentials_and_what_it_does_by_itself() {
    let place = Place::new();
    let text = place.call(&["plugin", "show", "telegram"]).with(0).out;
    for words in [
        "telegram (not enabled): Sends to a Telegram chat as a bot",
        "BOT_TOKEN (required, secret): The bot's token",
        "TENANT_<id>_TELEGRAM_CHAT_ID, such as -1001234567890",
        "  1. In Telegram, write `/newbot`",
        "linkPreview (true unless it is set): Whether",
        "4,096 UTF-16 code units; a longer text goes out in parts",
        "30 in a second for a bot",
        "docs/CHANNELS.md#telegram",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert!(!text.contains("**"), "{text}");
    let alias = place.call(&["plugin", "show", "discord-bot"]).with(0).out;
    assert!(alias.starts_with("discord (") && alias.contains("Also called discord-bot."), "{alias}");
    for name in conductor_channels::PLUGINS.iter().map(|plugin| plugin.kind) {
        place.call(&["plugin", "show", name]).with(0);
    }
    let refused = place.call(&["plugin", "show", "pigeon"]).with(2).err;
    assert!(refused.contains("no plugin \"pigeon\"") && refused.contains("telegram"), "{refused}");
}

#[test]
fn plugins_are_listed_for_people_and_programs() {
    let place = Place::new();
    let list = place.call(&["plugin", "list", "--json"]).with(0).json();
    let names: Vec<_> = list.as_array().expect("a list").iter().filter_map(|plugin| plugin["name"].as_str()).collect();
    let discord =
        list.as_array().into_iter().flatten().find(|plugin| plugin["name"] == "discord").expect("it is there");
    assert_eq!(discord["limits"], serde_json::json!({ "text": { "max": 2000, "unit": "characters" }, "rich": true }));
    let text = place.call(&["plugin", "list"]).with(0).out;
    assert!(text.contains("2000 characters at most; a longer text goes out in parts"), "{text}");
    let slack = list.as_array().into_iter().flatten().find(|plugin| plugin["name"] == "slack").expect("it is there");
    assert_eq!(slack["ways"], json!([["BOT_TOKEN", "CHANNEL"], ["WEBHOOK_URL"]]));
    assert!(text.contains("WEBHOOK_URL (for one of several ways, secret): The address of an incoming"), "{text}");
    for name in ["log", "webhook", "discord"] {
        assert!(names.contains(&name) && text.contains(&format!("{name} (")), "{names:?} {text}");
    }
    assert!(text.contains("log (enabled)") && text.contains("webhook (not enabled)"), "{text}");
}

#[test]
fn edits_keep_the_comments_and_the_order_of_the_files() {
    let place = Place::new();
    let id = place.tenant()["id"].as_str().expect("an id").to_owned();
    let tenants = format!(
        "// mine\n[\n  /* first */ {{ \"name\": \"A\", \"id\": \"{id}\", \"authKeyEnvVar\": \"KEY\" }}, // kept\n]\n"
    );
    let plugins = "{\n  // why: because\n  \"plugins\": [\n    { \"enabled\": false, \"name\": \"webhook\" }, // off\n    { \"name\": \"log\" },\n  ],\n}\n";
    std::fs::write(place.path().join("data/config/tenants.json"), &tenants).expect("written");
    std::fs::write(place.path().join("data/config/plugins.json"), plugins).expect("written");
    place.append("data/.env", "# the last comment\nKEY=0123456789abcdef0123456789abcdef0123456789abcdef\n");
    let env = place.read("data/.env");
    place.call(&["check"]).with(0);
    place.call(&["tenant", "add", "B"]).with(0);
    place.call(&["channel", "add", "--tenant", "A", "--type", "webhook", "--name", "hook"]).with(0);
    let after = place.read("data/config/tenants.json");
    let kept = tenants.trim_end_matches("]\n").trim_end();
    assert!(after.starts_with(kept) && after.contains("\"B\""), "{after}");
    let after = place.read("data/config/plugins.json");
    let expected = plugins.replace("\"enabled\": false", "\"enabled\": true");
    assert_eq!(after, expected);
    assert!(place.read("data/.env").starts_with(&env), "{}", place.read("data/.env"));
}

#[test]
fn a_command_that_does_not_exist_is_told_with_one_that_does() {
    let place = Place::new();
    for (words, told) in
        [(&["chek"][..], "check"), (&["tenant", "lst"], "list"), (&["send", "--chanel", "log", "x"], "--channel")]
    {
        let wrong = place.call(words).with(2);
        assert!(wrong.err.contains(told), "{words:?}: {}", wrong.err);
    }
    let version = place.call(&["--version"]).with(0);
    assert_eq!(version.out, concat!("conductor ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_help_of_every_command_fits_a_terminal_and_shows_what_it_heeds() {
    let commands = [
        "serve",
        "init",
        "check",
        "doctor",
        "backup",
        "restore",
        "schema",
        "send",
        "health",
        "tenant add",
        "tenant list",
        "tenant rotate-key",
        "channel add",
        "channel list",
        "channel test",
        "plugin list",
        "plugin show",
    ];
    let place = Place::new();
    for command in commands {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = run(conductor(place.path(), &words).env("COLUMNS", "80")).with(0).out;
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
        assert!(help.contains(&format!("\n  conductor {command}")), "{command}: {help}");
        assert!(help.contains("--data-dir"), "{command}: {help}");
        assert_eq!(help.contains("--metrics-addr"), ["serve", "doctor"].contains(&command), "{command}: {help}");
        assert_eq!(
            help.contains("--port"),
            ["serve", "init", "doctor", "send", "health"].contains(&command),
            "{command}: {help}"
        );
    }
    // What is not shown is taken all the same: the environment of a service has all of it.
    let mut check = conductor(place.path(), &["check", "--log-format", "json"]);
    run(check.env("METRICS_ADDR", "127.0.0.1:9090").env("PUBLIC_URL", "https://conductor.example")).with(0);
}
