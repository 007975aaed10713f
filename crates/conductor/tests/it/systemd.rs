//! The unit file in `examples/systemd` is one that systemd understands, that shuts the service in, and that fits the
//! program.

use std::path::PathBuf;
use std::process::Command;

use conductor::server::STOP_GRACE;

use crate::repository::{read, root};
use crate::support::skip::skipped;

/// What `systemd-analyze security` may say of the unit, times ten: 0 is a service that can do nothing, 100 one that can
/// do everything. What is left is the network, which it is there for.
const EXPOSURE_MAX: &str = "15";

fn unit() -> String {
    read(&root().join("examples/systemd/conductor.service"))
}

/// Every value of a directive, in order.
fn values(directive: &str) -> Vec<String> {
    let text = unit();
    let lines = text.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

fn value(directive: &str) -> String {
    let [only] = values(directive).try_into().unwrap_or_else(|all| panic!("{directive}: {all:?}"));
    only
}

/// The unit with the program that was built, in a folder of its own. None where systemd's tool is not here.
fn with_built_program() -> Option<(tempfile::TempDir, PathBuf)> {
    if !Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success()) {
        skipped("the systemd unit was not checked: there is no systemd-analyze (CONTRIBUTING.md)");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("conductor.service");
    let text = unit().replace("/usr/local/bin/conductor", env!("CARGO_BIN_EXE_conductor"));
    std::fs::write(&path, text).expect("the folder takes a file");
    Some((folder, path))
}

/// A call that needs no running systemd. Gives whether it succeeded, and all that it printed.
fn analyze(arguments: &[&str], unit: &PathBuf) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).arg(unit).output().expect("it runs");
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn systemd_knows_every_directive_of_the_unit() {
    let Some((folder, path)) = with_built_program() else { return };
    let (good, told) = analyze(&["verify"], &path);
    assert!(good && told.is_empty(), "{told}");
    // A directive that is misspelt is passed over when the service starts: here it has to be told.
    let misspelt = read(&path).replace("ProtectSystem=", "ProtectSytem=");
    let path = folder.path().join("misspelt.service");
    std::fs::write(&path, misspelt).expect("the folder takes a file");
    let (_, told) = analyze(&["verify"], &path);
    assert!(told.contains("ProtectSytem"), "{told}");
}

#[test]
fn the_unit_leaves_the_service_little_more_than_the_network() {
    let Some((_folder, path)) = with_built_program() else { return };
    let (good, told) = analyze(&["security", "--offline=yes", "--no-pager", "--threshold", EXPOSURE_MAX], &path);
    assert!(good && told.contains("Overall exposure level"), "{told}");
}

#[test]
fn the_unit_fits_the_program() {
    let seconds: u64 = value("TimeoutStopSec").parse().expect("seconds");
    assert!(seconds > STOP_GRACE.as_secs() + 5, "a stop takes longer than {seconds} s");
    // The exit code of a bad configuration, which no second start mends.
    assert_eq!(value("RestartPreventExitStatus"), "2");
    let state = format!("/var/lib/{}", value("StateDirectory"));
    assert_eq!(value("WorkingDirectory"), state);
    let environment = value("Environment");
    let variables: Vec<_> = environment.split(' ').filter_map(|pair| pair.split_once('=')).collect();
    assert_eq!(variables.iter().find(|(name, _)| *name == "DATA_DIR"), Some(&("DATA_DIR", state.as_str())));
    let documented = read(&root().join("docs/CONFIGURATION.md"));
    for (name, value) in variables {
        assert!(documented.contains(&format!("`{name}`")), "{name} is no variable of the server");
        assert!(!value.starts_with('/') || value.starts_with(&state), "{name}: it may write in {state} alone");
    }
}
