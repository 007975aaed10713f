//! The first five minutes: from an empty folder to a notification, by what a new user does and reads.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::process::{Process, bare, call, conductor, everything_in, run};
use super::support::provider::Provider;
use super::support::server::{TENANT_A, answer, http};
use super::support::skip::skipped;

/// The value of the first line of a `.env` file whose name ends so.
fn variable(env: &str, end: &str) -> Option<String> {
    let lines = env.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    lines.into_iter().find(|(name, _)| name.ends_with(end)).map(|(_, value)| value.to_owned())
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The command that the banner shows, as somebody would mark and copy it.
fn curl_line(banner: &str) -> String {
    let from = banner.find("\ncurl ").expect("a curl line") + 1;
    let mut lines = Vec::new();
    for line in banner[from..].lines() {
        lines.push(line);
        if !line.ends_with('\\') {
            break;
        }
    }
    lines.join("\n")
}

#[test]
fn the_first_start_ends_with_a_server_to_which_the_shown_line_sends() {
    let folder = TempDir::new().expect("a folder");
    // By this name a new user reaches it, because his server listens everywhere.
    let process = Process::serve(conductor(folder.path(), &[]).env("HOST", "localhost"));
    let banner = process.out();
    for name in ["data/config/tenants.json", "data/config/channels.json", "data/config/plugins.json", "data/.env"] {
        assert!(banner.contains(&format!("\n    {name}\n")) && folder.path().join(name).is_file(), "{name}: {banner}");
    }
    assert_eq!(std::fs::metadata(folder.path().join("data/.env")).expect("it is there").mode() & 0o777, 0o600);
    let env = read(folder.path(), "data/.env");
    let key = variable(&env, "_AUTHKEY").expect("a tenant's key");
    assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "the key is not 64 digits");
    let line = env.lines().find(|line| line.starts_with("TENANT_")).expect("a line");
    assert!(banner.contains(&format!("\n{line}\n")), "the line for a .env file is missing: {banner}");
    let admin = variable(&env, "CONDUCTOR_ADMIN_KEY").expect("the operator's key");
    assert!(admin.len() == 64 && admin != key && !banner.contains(&admin), "{banner}");
    let tenants: Value = serde_json::from_str(&read(folder.path(), "data/config/tenants.json")).expect("JSON");
    let id = tenants["tenants"][0]["id"].as_str().expect("an id");
    assert!(banner.contains(&format!("Tenant id  {id}")) && banner.contains(&key), "{banner}");
    assert!(banner.contains("✅ Default Tenant") && banner.contains("✅ log (log) of Default Tenant"), "{banner}");
    assert!(!process.text().contains("warning") && !process.err().contains("[WARN]"), "{}", process.text());
    if !Path::new("/usr/bin/curl").exists() {
        skipped("curl is not installed, so the banner's line was not tried");
        return;
    }
    let sent = run(bare("sh", folder.path()).arg("-c").arg(curl_line(&banner))).with(0);
    let sent = sent.json();
    assert_eq!((&sent["success"], &sent["status"]), (&json!(true), &json!("queued")), "{sent}");
    assert_eq!(sent["tenantId"], id);
    let line = process.logged("Hello from Conductor");
    assert!(line.contains("] [INFO] [conductor:plugin:log] Hello from Conductor"), "{line}");
    process.stop().with(0);
}

#[test]
fn the_second_start_says_what_it_found_and_makes_nothing() {
    let folder = TempDir::new().expect("a folder");
    let first = Process::serve(&mut conductor(folder.path(), &[]));
    let key = variable(&read(folder.path(), "data/.env"), "_AUTHKEY").expect("a key");
    first.stop().with(0);
    let files = || {
        let mut all = everything_in(folder.path());
        all.retain(|path, _| !path.to_string_lossy().contains("conductor.db"));
        all
    };
    let before = files();
    let second = Process::serve(&mut conductor(folder.path(), &[])).stop().with(0);
    assert!(second.out.starts_with("Configuration found in data/config.\n"), "{}", second.out);
    assert!(second.out.contains("✅ Default Tenant"), "{}", second.out);
    assert!(!second.out.contains("curl") && !second.text().contains(&key), "{}", second.text());
    assert!(before == files(), "a second start has changed files");
}

#[test]
fn every_line_fits_a_terminal_but_for_what_must_not_be_cut() {
    let folder = TempDir::new().expect("a folder");
    for start in ["the first", "the second"] {
        let out = Process::serve(&mut conductor(folder.path(), &[])).stop().with(0).out;
        for line in out.lines().filter(|line| line.chars().count() > 80) {
            assert!(line.contains("_AUTHKEY=") || line.contains("Bearer"), "{start}: {line}");
        }
    }
}

/// The four files that a first start makes.
const FILES: [&str; 4] =
    ["data/config/tenants.json", "data/config/channels.json", "data/config/plugins.json", "data/.env"];

/// Starts on a folder from which the files of `missing` (a bit each) were taken away.
async fn start_half_filled(missing: usize) {
    let folder = TempDir::new().expect("a folder");
    call(folder.path(), &["init"]).with(0);
    let is_missing = |name: &&str| FILES.iter().position(|file| file == name).is_some_and(|at| missing & 1 << at != 0);
    let (gone, kept): (Vec<&str>, Vec<&str>) = FILES.into_iter().partition(is_missing);
    for name in &gone {
        std::fs::remove_file(folder.path().join(name)).expect("it was there");
    }
    let before: Vec<String> = kept.iter().map(|name| read(folder.path(), name)).collect();
    let is_keyless = gone.contains(&"data/.env") && kept.contains(&"data/config/tenants.json");
    if is_keyless {
        // A key that others know cannot be made anew: somebody has to say what it is.
        let refused = call(folder.path(), &[]).with(2);
        assert!(refused.err.contains("_AUTHKEY") && refused.err.contains("help:"), "{gone:?}: {}", refused.err);
        assert!(refused.out.contains("❌ Default Tenant"), "{gone:?}: {}", refused.out);
        assert!(!folder.path().join("data/.env").exists(), "{gone:?}: a key was made up");
    } else {
        let process = Process::serve(&mut conductor(folder.path(), &[]));
        for name in &gone {
            assert!(process.out().contains(&format!("    {name}\n")), "{gone:?}: {}", process.out());
        }
        // Where a new tenant had to be made beside the old key, its own is the last.
        let env = read(folder.path(), "data/.env");
        let key = env.lines().filter_map(|line| line.split_once("_AUTHKEY=")).next_back().expect("a key").1;
        let message = json!({ "channel": "log", "message": "Hello" });
        let request = http().post(format!("{}/notifications", process.url)).bearer_auth(key).json(&message);
        assert_eq!(answer(request).await.0, 202, "{gone:?}");
        process.stop().with(0);
    }
    for (name, text) in kept.iter().zip(before) {
        assert!(read(folder.path(), name).starts_with(&text), "{gone:?}: {name} was changed");
        assert!(*name == "data/.env" || read(folder.path(), name) == text, "{gone:?}: {name} was changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_missing_is_made_and_what_is_there_is_kept() {
    for missing in 0..1 << FILES.len() {
        start_half_filled(missing).await;
    }
}

/// The files as the TypeScript original has them: bare arrays, its own name of the Discord plugin, variables in upper
/// case. Only the provider's address is a test's.
fn write_originals(folder: &Path, provider: &str) {
    let upper = TENANT_A.to_uppercase().replace('-', "_");
    let tenants =
        json!([{ "id": TENANT_A, "name": "Default Tenant", "authKeyEnvVar": format!("TENANT_{upper}_AUTHKEY") }]);
    let channels = json!([{
        "tenantId": TENANT_A, "channelType": "discord-bot",
        "providerIdEnvVar": format!("TENANT_{upper}_DISCORD_CHANNEL_ID"),
        "providerSecretEnvVar": format!("TENANT_{upper}_DISCORD_BOT_TOKEN"),
        "options": { "baseUrl": provider, "allowNetworks": ["127.0.0.0/8"] },
    }]);
    let plugins = json!([{ "name": "discord-bot", "enabled": true, "options": {} }]);
    std::fs::create_dir_all(folder.join("data/config")).expect("a folder");
    for (name, value) in [("tenants", tenants), ("channels", channels), ("plugins", plugins)] {
        std::fs::write(folder.join(format!("data/config/{name}.json")), value.to_string()).expect("written");
    }
    let env = format!(
        "TENANT_{upper}_AUTHKEY=the-key-of-the-original-0123456789abcdef\nTENANT_{upper}_DISCORD_CHANNEL_ID=112233445566778899\n\
         TENANT_{upper}_DISCORD_BOT_TOKEN=MTEyMjMz.a.token-of-a-bot\n"
    );
    std::fs::write(folder.join(".env"), env).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_the_original_serve_unchanged() {
    let provider = Provider::start().await;
    let folder = TempDir::new().expect("a folder");
    write_originals(folder.path(), provider.url().trim_end_matches("/hook"));
    let before = everything_in(folder.path());
    let process = Process::serve(&mut conductor(folder.path(), &[]));
    assert!(process.out().starts_with("Configuration found in data/config.\n"), "{}", process.out());
    for channel in ["discord", "discord-bot"] {
        let message = json!({ "channel": channel, "message": "Test notification", "priority": "high" });
        let request = http().post(format!("{}/notifications", process.url)).json(&message);
        let (status, answer) = answer(request.bearer_auth("the-key-of-the-original-0123456789abcdef")).await;
        assert_eq!(status, 202, "{channel}: {answer}");
    }
    let received = provider.wait_for(2).await;
    assert_eq!(received[0].header("authorization"), "Bot MTEyMjMz.a.token-of-a-bot");
    assert!(received[0].json()["content"].as_str().is_some_and(|text| text.contains("Test notification")));
    process.stop().with(0);
    let after = everything_in(folder.path());
    assert!(before.iter().all(|(path, content)| after.get(path) == Some(content)), "a file was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_both_env_files_from_files_of_their_own_and_from_the_process() {
    let folder = TempDir::new().expect("a folder");
    let id = |number: usize| format!("01943c2a-7c3e-7000-8000-00000000000{number}");
    let tenant = |number: usize| json!({ "id": id(number), "name": format!("T{number}"), "authKeyEnvVar": format!("K{number}") });
    let key = |number: usize| format!("key-number-{number}-0123456789abcdef0123456789abcdef");
    std::fs::create_dir_all(folder.path().join("data/config")).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let tenants: Vec<Value> = (1..=4).map(tenant).collect();
    write("data/config/tenants.json", &Value::from(tenants).to_string());
    write("data/config/channels.json", "[]");
    write("data/config/plugins.json", "[]");
    write(".env", &format!("# mine\nexport K1='{}'\nK4=not-this-one-0123456789abcdef0123456789\n", key(1)));
    write("data/.env", &format!("K1=not-this-one-either-0123456789abcdef\nK2=\"{}\"\nK3_FILE=secret\n", key(2)));
    write("secret", &format!("{}\n", key(3)));
    let process = Process::serve(conductor(folder.path(), &[]).env("K4", key(4)));
    let status = async |key: &str| answer(http().get(format!("{}/channels", process.url)).bearer_auth(key)).await.0;
    for number in 1..=4 {
        assert_eq!(status(&key(number)).await, 200, "K{number}");
    }
    for wrong in ["not-this-one-0123456789abcdef0123456789", "not-this-one-either-0123456789abcdef", "secret"] {
        assert_eq!(status(wrong).await, 403, "{wrong}");
    }
    process.stop().with(0);
}

/// Whether a line begins as every line of a text log does: `[2024-01-15T10:30:00.000Z] [INFO] [conductor:…] `.
fn is_text_line(line: &str) -> bool {
    let Some((time, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] [")) else { return false };
    let Some((level, rest)) = rest.split_once("] [") else { return false };
    let Some((target, message)) = rest.split_once("] ") else { return false };
    let is_time = time.len() == 24 && time.ends_with('Z') && conductor_core::Timestamp::parse(time).is_ok();
    let is_level = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level);
    is_time && is_level && !target.is_empty() && !target.contains("::") && !message.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_in_the_log_by_its_id_and_a_quiet_log_still_delivers() {
    let folder = TempDir::new().expect("a folder");
    call(folder.path(), &["init"]).with(0);
    let key = variable(&read(folder.path(), "data/.env"), "_AUTHKEY").expect("a key");
    let process = Process::serve(&mut conductor(folder.path(), &[]));
    let send = |url: &str| {
        let request = http().post(format!("{url}/notifications")).bearer_auth(&key).header("x-request-id", "find-me-1");
        request.json(&json!({ "channel": "log", "message": "the text itself" }))
    };
    let (status, told) = answer(send(&process.url)).await;
    assert_eq!(status, 202, "{told}");
    let line = process.logged("find-me-1");
    assert!(line.contains(told["id"].as_str().expect("an id")), "{line}");
    process.stop().with(0);
    let process = Process::serve(conductor(folder.path(), &[]).env("LOG_LEVEL", "error"));
    assert_eq!(answer(send(&process.url)).await.0, 202);
    process.logged("the text itself");
}

#[test]
fn logs_are_text_for_people_or_one_object_a_line() {
    let folder = TempDir::new().expect("a folder");
    call(folder.path(), &["init"]).with(0);
    for format in ["text", "json"] {
        let mut command = conductor(folder.path(), &[]);
        let process = Process::serve(command.env("LOG_FORMAT", format).env("LOG_LEVEL", "trace"));
        let port = process.port();
        call(folder.path(), &["send", "--port", &port, "--channel", "log", "two\nlines [x] [y]"]).with(0);
        process.logged("Notification sent");
        let ended = process.stop().with(0);
        assert!(ended.err.lines().count() >= 4, "{}", ended.err);
        for line in ended.err.lines() {
            match format {
                "text" => assert!(is_text_line(line), "{line}"),
                _ => {
                    let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                    for member in ["timestamp", "level", "target", "message"] {
                        assert!(object[member].is_string(), "{member} in {line}");
                    }
                }
            }
        }
    }
}
