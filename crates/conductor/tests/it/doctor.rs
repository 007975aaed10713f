//! `conductor doctor` against what can be wrong: each fault is found and told with its mend, and what is well is not
//! called otherwise.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::process::{Ended, Process, bare, call, conductor, everything_in, in_world, run};
use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, World, answer, http};
use super::support::skip::skipped;

/// One thing that was found.
#[derive(Debug)]
struct Found {
    section: String,
    mark: String,
    text: String,
    help: String,
}

/// What `doctor --json` finds. Its exit code has to fit.
#[track_caller]
fn look(command: &mut Command) -> Vec<Found> {
    let ended = run(command.args(["doctor", "--json"]));
    let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let found = |entry: &Value| Found {
        section: word(entry, "section"),
        mark: word(entry, "mark"),
        text: word(entry, "text"),
        help: word(entry, "help"),
    };
    let all: Vec<Found> = ended.json().as_array().expect("a list").iter().map(found).collect();
    let is_bad = all.iter().any(|found| found.mark == "bad");
    assert_eq!(ended.code, Some(i32::from(is_bad)), "{}", ended.text());
    assert!(all.iter().all(|found| found.mark == "good" || !found.help.is_empty()), "no mend: {all:#?}");
    all
}

/// Expects one finding of this section and mark with these words in text or help.
#[track_caller]
fn expect(all: &[Found], section: &str, mark: &str, words: &[&str]) {
    let has = |found: &&Found| {
        let said = format!("{} {}", found.text, found.help);
        found.section == section && found.mark == mark && words.iter().all(|word| said.contains(word))
    };
    assert!(all.iter().any(|found| has(&found)), "no {mark} finding of {section} says {words:?}: {all:#?}");
}

/// What is to be mended or worth a look, but for what this machine's own disk is to blame for.
fn complaints(all: &[Found]) -> Vec<&Found> {
    let is_the_machines = |found: &&Found| {
        let machine = ["lies in memory", "container's own layer", "one write took", "are free", "may open only"];
        machine.iter().any(|words| found.text.contains(words))
    };
    all.iter().filter(|found| found.mark != "good" && !is_the_machines(found)).collect()
}

fn folder() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    call(folder.path(), &["init"]).with(0);
    folder
}

/// A call in a folder that `init` has filled, at a port of its own.
fn at(folder: &TempDir, port: &str) -> Command {
    let mut command = conductor(folder.path(), &[]);
    command.env("PORT", port);
    command
}

/// A port that nobody listens on.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port().to_string()
}

#[test]
fn a_server_that_is_well_is_told_so_before_its_first_start_while_it_runs_and_after() {
    let folder = folder();
    let port = free_port();
    let found = look(&mut at(&folder, &port));
    assert!(complaints(&found).is_empty(), "{:#?}", complaints(&found));
    expect(&found, "Configuration", "good", &["data/config: 1 tenant, 1 channel, 2 plugins"]);
    expect(&found, "Store", "good", &["there is none", "the first start makes it"]);
    expect(&found, "Server", "good", &["no server runs", "is free for one"]);
    let process = Process::serve(&mut conductor(folder.path(), &[]));
    call(folder.path(), &["send", "--port", &process.port(), "--channel", "log", "--wait", "10", "Hello"]).with(0);
    let found = look(&mut at(&folder, &process.port()));
    assert!(complaints(&found).is_empty(), "{:#?}", complaints(&found));
    expect(&found, "Store", "good", &["in use by a server"]);
    expect(&found, "Store", "good", &["every page of it is sound"]);
    expect(&found, "Store", "good", &["0 deliveries wait"]);
    expect(&found, "Server", "good", &["Conductor ", " answers on http://127.0.0.1:"]);
    expect(&found, "Server", "good", &["it takes notifications"]);
    expect(&found, "Channels", "good", &["log (log) of Default Tenant: "]);
    expect(&found, "Clock", "good", &["the newest notification in the store is from "]);
    process.stop().with(0);
    let before = everything_in(folder.path());
    let found = look(&mut at(&folder, &port));
    assert!(complaints(&found).is_empty(), "{:#?}", complaints(&found));
    expect(&found, "Store", "good", &["in use by nobody"]);
    assert!(everything_in(folder.path()).keys().eq(before.keys()), "it leaves something behind");
    // For a person the same is one line each, and a closing line.
    let told = run(at(&folder, &port).arg("doctor")).with(0).out;
    for line in ["Configuration\n  ✅ data/config: 1 tenant", "\nStore\n  ✅ ", "\nClock\n  ✅ "] {
        assert!(told.contains(line), "{line:?} not in {told}");
    }
    let last = told.lines().last().unwrap_or_default();
    assert!(last == "Everything is well." || last.starts_with("Nothing has to be mended; "), "{told}");
}

#[test]
fn faults_of_the_configuration_and_open_secrets_are_told() {
    let folder = folder();
    let port = free_port();
    let env = folder.path().join("data/.env");
    fs::set_permissions(&env, fs::Permissions::from_mode(0o644)).expect("one's own");
    let found = look(&mut at(&folder, &port));
    expect(&found, "Files", "odd", &["data/.env holds keys", "mode 644", "chmod 600"]);
    let keys = fs::read_to_string(&env).expect("readable");
    fs::write(&env, "").expect("written");
    let found = look(&mut at(&folder, &port));
    expect(&found, "Configuration", "bad", &["data/config/tenants.json:6:24", "_AUTHKEY` is not set", "data/.env"]);
    assert!(!found.iter().any(|found| found.section == "Channels"), "there is nothing to ask");
    fs::write(&env, keys.lines().filter(|line| !line.contains("ADMIN")).collect::<Vec<_>>().join("\n"))
        .expect("written");
    let found = look(&mut at(&folder, &port));
    expect(&found, "Configuration", "odd", &["CONDUCTOR_ADMIN_KEY is not set", "/metrics"]);
    fs::remove_dir_all(folder.path().join("data/config")).expect("removed");
    let found = look(&mut at(&folder, &port));
    expect(&found, "Configuration", "bad", &["the directory does not exist", "`conductor init` makes what is missing"]);
}

#[test]
fn a_store_that_is_damaged_newer_or_anothers_is_told() {
    let folder = folder();
    let port = free_port();
    let process = Process::serve(&mut conductor(folder.path(), &[]));
    for number in 0..40 {
        let message = format!("message {number:04} {}", "x".repeat(2_000));
        call(folder.path(), &["send", "--port", &process.port(), "--channel", "log", &message]).with(0);
    }
    process.stop().with(0);
    let path = folder.path().join("data/conductor.db");
    let sound = fs::read(&path).expect("readable");
    let place = sound.windows(12).position(|part| part == b"message 0020").expect("it stands there") / 4_096 * 4_096;
    let file = fs::File::options().write(true).open(&path).expect("one's own");
    file.write_all_at(&[0xa5; 4_096], place as u64).expect("written");
    let found = look(&mut at(&folder, &port));
    expect(&found, "Store", "bad", &["it is damaged", "`conductor restore`", ".recover"]);
    fs::write(&path, &sound).expect("written");
    let store = Connection::open(&path).expect("opened");
    store.execute_batch("INSERT INTO migration SELECT max(number) + 1, x'00' FROM migration").expect("written");
    drop(store);
    let found = look(&mut at(&folder, &port));
    expect(&found, "Store", "bad", &["this program knows versions up to", "start the newer version"]);
    fs::write(&path, "something of somebody else's".repeat(500)).expect("written");
    let found = look(&mut at(&folder, &port));
    expect(&found, "Store", "bad", &["the file is no store of Conductor's"]);
    fs::write(&path, &sound).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("one's own");
    let found = look(&mut at(&folder, &port));
    expect(&found, "Files", "odd", &["data/conductor.db holds messages", "mode 640"]);
}

#[test]
fn dead_letters_held_ones_disabled_endpoints_and_a_clock_behind_the_store_are_told() {
    let folder = folder();
    Process::serve(&mut conductor(folder.path(), &[])).stop().with(0);
    let store = Connection::open(folder.path().join("data/conductor.db")).expect("opened");
    let later = "CAST(strftime('%s', 'now') AS INTEGER) * 1000 + 7200000";
    let sql = format!(
        "INSERT INTO notification (id, tenant, channel, channel_id, message, priority, format, accepted_at, expires_at) \
         VALUES (x'01', x'02', 'log', x'03', 'x', 'normal', 'text', {later}, 7258118400000), \
         (x'00', x'02', 'log', x'03', 'x', 'normal', 'text', 0, 7258118400000); \
         INSERT INTO pending (notification, ordinal, tenant, channel_id, lane, priority, due_at, expires_at, attempts, failures, \
         next_fallback, held, claimed, lost) VALUES (x'01', 0, x'02', x'03', 0, 'normal', 0, 7258118400000, 1, 0, 0, 1, 0, 0); \
         INSERT INTO ended (notification, ordinal, tenant, channel_id, status, ended_at, attempts, next_fallback) \
         VALUES (x'00', 0, x'02', x'03', 'failed', 0, 1, 0); \
         INSERT INTO callback_endpoint (endpoint, tenant, fingerprint, made, waiting, delivered, given_up, dropped, disabled_at) \
         VALUES (x'04', x'02', x'05', 1, 0, 0, 0, 1, 0)"
    );
    store.execute_batch(&sql).expect("written");
    drop(store);
    let found = look(&mut at(&folder, &free_port()));
    expect(&found, "Store", "odd", &["1 is held: nobody knows", "resolve or retry"]);
    expect(&found, "Store", "odd", &["1 dead letter", "POST /notifications/retry"]);
    expect(&found, "Store", "odd", &["1 endpoint for callbacks disabled", "wants no more", "GET /callbacks"]);
    expect(&found, "Clock", "bad", &["behind the newest notification in the store", "NTP"]);
}

#[test]
fn a_port_that_another_program_has_and_a_server_that_is_elsewhere_are_told() {
    let folder = folder();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = silent.local_addr().expect("an address").port().to_string();
    let found = look(&mut at(&folder, &taken));
    expect(&found, "Server", "bad", &[&format!("port {taken} on 127.0.0.1 is taken"), "choose another port"]);
    let found = look(at(&folder, &free_port()).env("METRICS_ADDR", format!("127.0.0.1:{taken}")));
    expect(&found, "Server", "bad", &["/metrics does not answer", "METRICS_ADDR"]);
    let process = Process::serve(&mut conductor(folder.path(), &[]));
    let found = look(&mut at(&folder, &free_port()));
    expect(&found, "Server", "bad", &["a process uses the store, but nothing listens on", "PORT and HOST"]);
    let other = self::folder();
    let found = look(&mut at(&other, &process.port()));
    expect(&found, "Server", "odd", &["it uses another data folder than data"]);
    process.stop().with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_that_answers_is_no_server_of_ours() {
    let (folder, provider) = (folder(), Provider::start().await);
    let port = provider.url().rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port").to_owned();
    let found = tokio::task::spawn_blocking(move || look(&mut at(&folder, &port))).await.expect("it ends");
    expect(&found, "Server", "bad", &["another program answers on", "PORT"]);
}

/// A world with one channel that can be asked, besides the log.
fn asked(provider: &Provider) -> World {
    let mut world = World::new();
    world.plugins = json!([{ "name": "log" }, { "name": "ntfy" }, { "name": "sms" }]);
    let base = provider.url().trim_end_matches("/hook").to_owned();
    let options = json!({ "allowNetworks": ["127.0.0.0/8"], "timeout": "2s" });
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "ntfy", "channelName": "phone", "options": options,
        "env": { "serverUrl": "NTFY_URL", "topic": "NTFY_TOPIC" },
    }));
    world.variables.extend([("NTFY_URL".to_owned(), base), ("NTFY_TOPIC".to_owned(), "alerts".to_owned())]);
    world
}

/// Looks beside no server, with the files and variables of a world.
async fn look_in(directory: &TempDir, world: &World, more: &'static [&'static str]) -> Vec<Found> {
    world.write(&directory.path().join("config"));
    let mut command = conductor(directory.path(), more);
    in_world(&mut command, directory.path(), world);
    command.env("PORT", free_port());
    tokio::task::spawn_blocking(move || look(&mut command)).await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_is_asked_and_no_message_is_sent() {
    let (directory, provider) = (TempDir::new().unwrap(), Provider::start().await);
    let world = asked(&provider);
    provider.then(Answer { body: r#"{"healthy":true}"#, ..Answer::status(200) });
    let found = look_in(&directory, &world, &[]).await;
    expect(&found, "Channels", "good", &["phone (ntfy) of Tenant A: up"]);
    expect(&found, "Clock", "good", &["it agrees with the providers'"]);
    assert!(provider.received().iter().all(|request| request.body.is_empty()), "a message was sent");
    let asked = provider.received().len();
    assert!(asked > 0);

    provider.then(Answer { body: r#"{"healthy":false}"#, ..Answer::status(200) });
    let found = look_in(&directory, &world, &[]).await;
    expect(
        &found,
        "Channels",
        "bad",
        &["phone (ntfy) of Tenant A: down", "not healthy", "`conductor channel test phone`"],
    );
    let asked = provider.received().len();
    let found = look_in(&directory, &world, &["--log-level", "info"]).await;
    assert!(provider.received().len() > asked, "{found:#?}");

    provider.then(Answer::status(200).after(std::time::Duration::from_secs(30)));
    let found = look_in(&directory, &world, &[]).await;
    expect(&found, "Channels", "bad", &["phone (ntfy) of Tenant A: "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_not_the_providers_is_told() {
    let (directory, provider) = (TempDir::new().unwrap(), Provider::start().await);
    let world = asked(&provider);
    let healthy = Answer { body: r#"{"healthy":true}"#, ..Answer::status(200) };
    provider.then(healthy.header("date", "Sun, 06 Nov 2044 08:49:37 GMT"));
    let found = look_in(&directory, &world, &[]).await;
    expect(&found, "Clock", "bad", &["behind the providers'", "NTP"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_nobody_is_asked() {
    let (directory, provider) = (TempDir::new().unwrap(), Provider::start().await);
    let mut world = asked(&provider);
    world.variables.push(("PUBLIC_URL".to_owned(), provider.url()));
    world.write(&directory.path().join("config"));
    let mut command = conductor(directory.path(), &["doctor", "--offline"]);
    in_world(&mut command, directory.path(), &world);
    command.env("PORT", free_port());
    let ended: Ended = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ends");
    assert!(ended.out.contains("no provider was asked (--offline)"), "{}", ended.text());
    assert!(ended.out.contains("✅ phone (ntfy) of Tenant A: its settings are good"), "{}", ended.text());
    assert!(ended.out.contains("which nobody outside can reach"), "{}", ended.text());
    assert!(provider.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_cannot_come_are_told() {
    let (directory, provider) = (TempDir::new().unwrap(), Provider::start().await);
    provider.then(Answer { body: r#"{"healthy":true}"#, ..Answer::status(200) });
    let mut world = asked(&provider);
    let options = json!({ "allowNetworks": ["127.0.0.0/8"], "baseUrl": provider.url(), "timeout": "2s" });
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "sms", "channelName": "texts", "options": options,
        "env": { "accountSid": "SID", "authToken": "SMS_TOKEN", "from": "SMS_FROM" },
    }));
    let sid = format!("AC{}", "0".repeat(32));
    for (name, value) in
        [("SID", &*sid), ("SMS_TOKEN", "0123456789abcdef0123456789abcdef"), ("SMS_FROM", "+15005550006")]
    {
        world.variables.push((name.to_owned(), value.to_owned()));
    }
    let found = look_in(&directory, &world, &[]).await;
    expect(
        &found,
        "Channels",
        "odd",
        &["texts (sms) of Tenant A: whether a message arrived is never known", "PUBLIC_URL"],
    );
    // With an address of a server that is this one.
    let process = Process::start(&directory, &world);
    let mut command = conductor(directory.path(), &[]);
    in_world(&mut command, directory.path(), &world);
    command.env("PORT", process.port()).env("PUBLIC_URL", &process.url);
    let found = tokio::task::spawn_blocking(move || look(&mut command)).await.expect("it ends");
    assert!(!found.iter().any(|found| found.text.contains("never known")), "{found:#?}");
    expect(&found, "Server", "good", &["leads to a Conductor"]);
    expect(&found, "Server", "odd", &["PUBLIC_URL is http://127.0.0.1:", "nobody outside can reach"]);
    process.stop().with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_been_due_for_long_is_told() {
    let (directory, provider) = (TempDir::new().unwrap(), Provider::start().await);
    provider.then(Answer::status(503));
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({ "ordered": true }));
    world.write(&directory.path().join("config"));
    let process = Process::start(&directory, &world);
    for _ in 0..2 {
        let body = json!({ "channel": "webhook", "message": "x" });
        let post = http().post(format!("{}/notifications", process.url)).bearer_auth(KEY_A).json(&body);
        assert_eq!(answer(post).await.0, 202);
    }
    // As if the second had been waiting behind the first for an hour.
    let store = Connection::open(directory.path().join("conductor.db")).expect("opened");
    store.execute_batch("PRAGMA busy_timeout = 5000; UPDATE pending SET due_at = due_at - 3600000").expect("written");
    let mut command = conductor(directory.path(), &[]);
    in_world(&mut command, directory.path(), &world);
    command.env("PORT", process.port());
    let found = tokio::task::spawn_blocking(move || look(&mut command)).await.expect("it ends");
    expect(&found, "Store", "good", &["2 deliveries wait, the oldest since "]);
    expect(&found, "Store", "odd", &["has been due for ", "GET /channels tells which"]);
    process.stop().with(0);
}

/// A look on a disk of so few bytes that no other process sees.
fn on_a_small_disk(folder: &Path, size: &str, before: &str) -> Option<Ended> {
    let script =
        format!("mkdir small; mount -t tmpfs -o size={size} tmpfs small; {before}; \"$0\" doctor --data-dir small");
    let mut command = bare("unshare", folder);
    command.env("PORT", free_port());
    let ended = run(command.args(["-rm", "sh", "-c", &script, env!("CARGO_BIN_EXE_conductor")]));
    if ended.err.contains("unshare") || ended.err.contains("mount") {
        skipped("this machine does not let its users mount a file system of their own");
        return None;
    }
    let _ = fs::remove_dir(folder.join("small"));
    Some(ended)
}

#[test]
fn a_disk_that_is_nearly_full_or_cannot_be_written_is_told() {
    let folder = folder();
    let Some(ended) = on_a_small_disk(folder.path(), "8m", "true") else { return };
    let told = ended.with(1).out;
    assert!(told.contains("❌ small: only 8.0 MiB are free") && told.contains("help: make room"), "{told}");
    assert!(told.contains("lies in memory"), "{told}");
    let told = on_a_small_disk(folder.path(), "8m", "mount -o remount,ro small").expect("as before").with(1).out;
    assert!(told.contains("❌ small cannot be written: Read-only file system"), "{told}");
    let told = on_a_small_disk(folder.path(), "200m", "true").expect("as before");
    assert!(told.out.contains("⚠️  small: only 200.0 MiB are free"), "{}", told.out);
}
