//! Starts that cannot succeed: each ends with exit code 2 and the mend, and leaves nothing behind.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::support::process::{Ended, Process, bare, call, conductor, everything_in, run};
use super::support::provider::Provider;
use super::support::skip::skipped;

/// The user who may do nothing on the machine.
const NOBODY: u32 = 65534;

/// Runs a command in the folder that has to be refused with these words, and leave the folder as it was.
fn refused(folder: &Path, command: &mut Command, words: &[&str]) -> Ended {
    let before = everything_in(folder);
    let ended = run(command).with(2);
    for word in words.iter().chain(&["error: ", "help: "]) {
        assert!(ended.err.contains(word), "{word:?} not in:\n{}", ended.err);
    }
    assert!(!ended.text().contains("panicked") && !ended.out.contains("serves on"), "{}", ended.text());
    let mut after = everything_in(folder);
    // A lock that nobody holds is nothing that was begun.
    after.retain(|path, _| before.contains_key(path) || !path.ends_with("conductor.lock"));
    let changed: Vec<_> = after.iter().filter(|(path, content)| before.get(*path) != Some(content)).collect();
    assert!(changed.is_empty() && after.len() == before.len(), "left behind: {changed:?}");
    ended
}

fn empty() -> TempDir {
    TempDir::new().expect("a folder")
}

/// A folder with a good configuration.
fn filled() -> TempDir {
    let folder = empty();
    call(folder.path(), &["init"]).with(0);
    folder
}

/// Replaces text in one of the three files.
fn edit(folder: &TempDir, name: &str, from: &str, to: &str) {
    let path = folder.path().join("data/config").join(name);
    let text = std::fs::read_to_string(&path).expect("readable");
    assert!(text.contains(from), "{from:?} not in {text}");
    std::fs::write(path, text.replace(from, to)).expect("written");
}

#[test]
fn a_port_that_is_taken_is_refused_before_anything_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let folder = empty();
    let mut command = conductor(folder.path(), &[]);
    let words = [&*format!("port {} on 127.0.0.1 is taken", address.port()), "choose another port: PORT="];
    refused(folder.path(), command.env("PORT", address.port().to_string()), &words);
    let mut command = conductor(folder.path(), &[]);
    let words = [&*address.to_string(), "METRICS_ADDR", "in use"];
    refused(folder.path(), command.env("METRICS_ADDR", address.to_string()), &words);
    // An address that no machine here has.
    let mut command = conductor(folder.path(), &[]);
    refused(
        folder.path(),
        command.env("HOST", "192.0.2.1"),
        &["192.0.2.1", "HOST has to be an address of this machine"],
    );
}

#[test]
fn a_setting_of_the_process_that_is_wrong_is_refused() {
    let folder = empty();
    let table = [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("HOST", "localhost:3333"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "conductor=loud"),
        ("METRICS_ADDR", "9090"),
        ("PUBLIC_URL", "conductor.example"),
        ("RETENTION", "30"),
    ];
    for (variable, value) in table {
        let mut command = conductor(folder.path(), &[]);
        refused(folder.path(), command.env(variable, value), &[variable, &format!("{value:?}"), "expected: "]);
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_told_and_nothing_is_left() {
    let folder = empty();
    std::fs::write(folder.path().join("file"), "").expect("written");
    for variable in ["CONFIG_DIR", "CONDUCTOR_CONFIG_DIR", "DATA_DIR"] {
        for place in ["file", "file/below", "/proc/1/conductor"] {
            let mut command = conductor(folder.path(), &[]);
            refused(folder.path(), command.env(variable, place), &[place, "--config-dir", "--data-dir"]);
        }
    }
}

/// The program as somebody who is not root; none where that cannot be tried.
fn as_nobody(folder: &Path) -> Option<Command> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let program = env!("CARGO_BIN_EXE_conductor");
    let user = format!("--reuid={NOBODY}");
    let words = [&*user, "--regid=65534", "--clear-groups", program];
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("one's own folder");
    let version = |command: &mut Command| command.args(words).arg("--version").output();
    if !is_root || !version(&mut bare("setpriv", folder)).is_ok_and(|output| output.status.success()) {
        skipped("this takes root, setpriv, and a program that every user may run");
        return None;
    }
    let mut command = bare("setpriv", folder);
    command.args(words);
    Some(command)
}

#[test]
fn somebody_elses_folder_is_refused_with_the_mend() {
    let folder = empty();
    let Some(mut command) = as_nobody(folder.path()) else { return };
    refused(folder.path(), &mut command, &["Permission denied", "--config-dir"]);
    std::fs::create_dir(folder.path().join("data")).expect("made");
    let mut command = as_nobody(folder.path()).expect("it can be tried");
    refused(folder.path(), &mut command, &["Permission denied", "chown", "data"]);
    let folder = filled();
    for secret in ["data/.env", "data/conductor.db"] {
        let path = folder.path().join(secret);
        std::fs::write(&path, "").expect("written");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("one's own");
    }
    let mut command = as_nobody(folder.path()).expect("it can be tried");
    refused(folder.path(), &mut command, &["data/.env", "Permission denied"]);
}

#[test]
fn a_low_port_is_refused_to_who_may_not_take_it() {
    let folder = empty();
    let Some(mut command) = as_nobody(folder.path()) else { return };
    let lowest = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if lowest.trim().parse::<u16>().unwrap_or(0) <= 81 {
        eprintln!("SKIPPED: here everybody may take port 81");
        return;
    }
    refused(folder.path(), command.env("PORT", "81"), &["port 81", "is not allowed to this user", "PORT=3333"]);
}

#[test]
fn a_complete_configuration_may_be_read_only() {
    let folder = filled();
    let Some(mut command) = as_nobody(folder.path()) else { return };
    for name in ["data", "data/.env"] {
        chown(folder.path().join(name), Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    Process::serve(&mut command).stop().with(0);
    // What is missing cannot be made there.
    std::fs::remove_file(folder.path().join("data/config/plugins.json")).expect("removed");
    let mut command = as_nobody(folder.path()).expect("it can be tried");
    refused(folder.path(), &mut command, &["data/config/plugins.json", "Permission denied", "chown"]);
}

#[test]
fn a_missing_variable_is_told_with_its_place_and_the_line_that_mends_it() {
    let folder = filled();
    std::fs::remove_file(folder.path().join("data/.env")).expect("removed");
    let words = [
        "data/config/tenants.json:6:24 (/tenants/0/authKeyEnvVar)",
        "_AUTHKEY` is not set",
        "_AUTHKEY=…` to data/.env",
    ];
    for arguments in [&[][..], &["check"]] {
        let ended = refused(folder.path(), &mut conductor(folder.path(), arguments), &words);
        assert!(ended.out.contains("❌ Default Tenant"), "{}", ended.out);
    }
}

#[test]
fn bad_json_in_two_files_is_told_at_once() {
    let folder = filled();
    edit(&folder, "tenants.json", "\"Default Tenant\",", "\"Default Tenant\"");
    edit(&folder, "channels.json", "]", "");
    let words = [
        "data/config/tenants.json:5:31",
        "the file is not JSON: expected comma",
        "help: write a comma",
        "data/config/channels.json:",
        "2 errors",
    ];
    for arguments in [&[][..], &["check"]] {
        let ended = refused(folder.path(), &mut conductor(folder.path(), arguments), &words);
        assert!(ended.out.contains("❌ tenants.json: see below") && ended.out.contains("✅ discord"), "{}", ended.out);
    }
}

#[test]
fn every_fault_of_the_files_is_told_at_once() {
    let folder = filled();
    edit(&folder, "plugins.json", "\"discord\"", "\"discrod\"");
    edit(&folder, "tenants.json", "\"name\"", "\"nmae\"");
    edit(&folder, "channels.json", "\"channelType\": \"log\"", "\"channelType\": \"fax\"");
    let words = [
        "there is no plugin \"discrod\"",
        "data/config/plugins.json:9:15 (/plugins/1/name)",
        "did you mean `discord`?",
        "did you mean `name`?",
        "there is no channel type \"fax\"",
        "(/channels/0/channelType)",
    ];
    let ended = refused(folder.path(), &mut conductor(folder.path(), &[]), &words);
    assert!(ended.out.starts_with("Configuration found in data/config.\n"), "{}", ended.out);
    assert!(ended.out.contains("❌ log (fax)"), "{}", ended.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_server_holds_is_left_to_it() {
    let folder = filled();
    let first = Process::serve(&mut conductor(folder.path(), &[]));
    let second = run(&mut conductor(folder.path(), &[])).with(2);
    for word in ["another conductor is using this store", "data/conductor.lock", "help: stop the other one", "DATA_DIR"]
    {
        assert!(second.err.contains(word), "{word:?} not in {}", second.err);
    }
    assert!(!second.out.contains("serves on"), "{}", second.out);
    call(folder.path(), &["health", "--port", &first.port()]).with(0);
    call(folder.path(), &["send", "--port", &first.port(), "--channel", "log", "--wait", "10", "Hello"]).with(0);
    first.stop().with(0);
    // The lock ends with its holder, however that ends.
    drop(Process::serve(&mut conductor(folder.path(), &[])));
    Process::serve(&mut conductor(folder.path(), &[])).stop().with(0);
}

#[test]
fn a_store_that_is_no_store_is_refused_and_left_as_it_is() {
    let folder = filled();
    let path = folder.path().join("data/conductor.db");
    let garbage: Vec<u8> = (0..9000u32).map(|number| u8::try_from(number * 7 % 251).expect("small")).collect();
    std::fs::write(&path, garbage).expect("written");
    let words = ["data/conductor.db: the file is no store of Conductor's", "help: move it away"];
    refused(folder.path(), &mut conductor(folder.path(), &[]), &words);
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("made");
    refused(folder.path(), &mut conductor(folder.path(), &[]), &["data/conductor.db: Is a directory"]);
    std::fs::remove_dir(&path).expect("removed");
    Process::serve(&mut conductor(folder.path(), &[])).stop().with(0);
}

#[test]
fn nothing_is_made_beside_a_store_that_cannot_be_used() {
    let folder = empty();
    std::fs::create_dir(folder.path().join("data")).expect("made");
    std::fs::write(folder.path().join("data/conductor.db"), "something of somebody else's".repeat(500))
        .expect("written");
    refused(
        folder.path(),
        &mut conductor(folder.path(), &[]),
        &["data/conductor.db: the file is no store of Conductor's"],
    );
    assert!(!folder.path().join("data/config").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_sends_nothing_and_listens_nowhere() {
    let provider = Provider::start().await;
    let folder = filled();
    edit(&folder, "plugins.json", "\"discord\"", "\"webhook\"");
    let tenant = std::fs::read_to_string(folder.path().join("data/config/tenants.json")).expect("readable");
    let id = tenant.split('"').find(|word| word.len() == 36 && word.contains("-7")).expect("an id").to_owned();
    let entry = format!(
        r#"{{ "tenantId": "{id}", "channelType": "webhook", "env": {{ "url": "U" }}, "options": {{ "allowNetworks": ["127.0.0.0/8"] }} }}, {{"#
    );
    edit(&folder, "channels.json", "    {", &entry);
    let good = || {
        let mut command = conductor(folder.path(), &[]);
        command.env("U", provider.url());
        command
    };
    let process = Process::serve(&mut good());
    let port = process.port();
    call(folder.path(), &["send", "--port", &port, "--channel", "webhook", "--wait", "10", "first"]).with(0);
    process.stop().with(0);
    edit(&folder, "plugins.json", "\"log\"", "\"lgo\"");
    refused(folder.path(), good().env("PORT", &port), &["\"lgo\""]);
    assert!(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "something listens");
    assert_eq!(provider.received().len(), 1);
}
