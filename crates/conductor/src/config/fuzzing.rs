//! What must hold for any configuration files and any `.env` file, as functions that panic where it does not. The fuzz
//! targets call them with what the fuzzer makes up, the tests with what it has found (`fuzz/corpus`).

use std::cell::OnceCell;
use std::collections::HashSet;
use std::path::Path;

use conductor_channels::PLUGINS;
use conductor_core::Secret;
use tempfile::TempDir;

use super::edit::env_file::{EnvFile, EnvFileError};
use super::list_file::ListFile;
use super::{Configuration, Environment, Fault, Report, Severity, load};

/// What parts an input that is several texts.
const SEPARATOR: u8 = 0x1f;
/// The variables that the files can name: two good keys, a weak one, an empty one, and what channels ask for.
const VARIABLES: &[(&str, &str)] = &[
    ("KEY_A", "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"),
    ("KEY_A_NEXT", "1f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"),
    ("KEY_B", "f0e1d2c3b4a5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f"),
    ("WEAK", "weak-key"),
    ("EMPTY", ""),
    ("GONE_FILE", "/nonexistent/file"),
    ("TOKEN", "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy"),
    ("SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("URL", "https://receiver.example/hooks/8f14e45fceea167a5a36dedd4bea2543"),
    ("CONDUCTOR_ADMIN_KEY", "2f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"),
];
/// What is shorter stands in a report by chance.
const SECRET_MIN: usize = 16;

thread_local! {
    /// One folder for all inputs of a thread: making one takes longer than what is tried in it.
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

fn in_folder<T>(with: impl FnOnce(&Path) -> T) -> T {
    FOLDER.with(|folder| with(folder.get_or_init(|| tempfile::tempdir().expect("a folder can be made")).path()))
}

/// The three files, one behind the other.
pub fn config(data: &[u8]) {
    let mut texts = data.splitn(3, |byte| *byte == SEPARATOR);
    let files = [ListFile::Tenants, ListFile::Channels, ListFile::Plugins];
    let texts = files.map(|file| (file, texts.next().unwrap_or_default()));
    in_folder(|folder| {
        for (file, text) in texts {
            std::fs::write(file.path(folder), text).expect("the folder takes a file");
        }
        let environment = Environment::from_pairs(VARIABLES.iter().copied());
        let loaded = load(folder, &environment, PLUGINS);
        let report = match &loaded {
            Ok((configuration, report)) => {
                assert_eq!(report.errors(), 0, "accepted, with:\n{report}");
                is_whole(configuration);
                report
            }
            Err(report) => {
                assert!(report.errors() > 0, "refused without an error");
                report
            }
        };
        for fault in report.faults() {
            lies_inside(fault, folder, &texts);
        }
        shows_no_secret(report, data);
        let again = load(folder, &environment, PLUGINS);
        let told = again.as_ref().map_or_else(|report| report, |(_, report)| report);
        assert_eq!(told, report, "the same files are told differently the second time");
    });
}

/// Nothing in an accepted configuration refers to what is not there.
fn is_whole(configuration: &Configuration) {
    let Configuration { tenants, channels, plugins, admin_key, .. } = configuration;
    let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
    for tenant in tenants {
        assert!(ids.insert(tenant.id), "the tenant {} twice", tenant.id);
        assert!(!tenant.keys.is_empty() && tenant.weight > 0, "the tenant {}", tenant.id);
        for key in tenant.keys.iter().map(Secret::expose) {
            assert!(!key.trim().is_empty() && keys.insert(key), "a key is empty, or opens two doors");
        }
    }
    assert!(admin_key.as_ref().is_none_or(|key| !keys.contains(key.expose())), "the operator's key is a tenant's");
    let mut seen = HashSet::new();
    for channel in channels {
        assert!(seen.insert(channel.id), "the channel {} twice", channel.id);
        assert!(ids.contains(&channel.tenant), "the channel {} is nobody's", channel.id);
        assert!(plugins.iter().any(|plugin| plugin.kind == channel.plugin.kind), "{} is not on", channel.plugin.kind);
        assert!(!channel.common.timeout.is_zero() && channel.common.max_concurrency != Some(0));
    }
}

/// A fault's place is one that a person finds in an editor.
fn lies_inside(fault: &Fault, folder: &Path, texts: &[(ListFile, &[u8])]) {
    assert!(!fault.found.trim().is_empty());
    let told = fault.to_string();
    assert!(told.chars().all(|letter| letter == '\n' || !letter.is_control()), "{told:?}");
    let Some(place) = &fault.place else { return };
    let text = texts.iter().find(|(file, _)| file.path(folder) == place.file);
    let text = String::from_utf8_lossy(text.unwrap_or_else(|| panic!("{told} lies in no file")).1);
    let Some(position) = &place.position else { return };
    let line = position.line.checked_sub(1).and_then(|line| text.split('\n').nth(line));
    let line = line.unwrap_or_else(|| panic!("{told} lies on no line"));
    assert!((1..=line.chars().count() + 1).contains(&position.column), "{told} lies behind its line");
    assert!(place.pointer.as_deref().is_none_or(|pointer| pointer.is_empty() || pointer.starts_with('/')), "{told}");
}

/// A variable's value is never told. What stands in the input is no secret of a variable.
fn shows_no_secret(report: &Report, data: &[u8]) {
    let told = format!("{report}\n{report:?}");
    let secrets = VARIABLES.iter().map(|(_, value)| *value).filter(|value| value.len() >= SECRET_MIN);
    for secret in secrets.filter(|value| !value.starts_with('/')) {
        let is_in_input = data.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(is_in_input || !told.contains(secret), "a secret in:\n{told}");
    }
    assert!(report.faults().iter().all(|fault| fault.severity == Severity::Error || report.warnings() > 0));
}

/// The names that are set and removed; a file that the fuzzer makes up may have them already.
const NAMES: &[&str] = &["A", "KEY", "TENANT_01943c2a_7c3e_7000_8000_123456789abc_AUTHKEY", "B_2"];

/// A value, and a `.env` file. The first byte says which variable is set to it.
pub fn env_file(data: &[u8]) {
    let [which, rest @ ..] = data else { return };
    let mut texts = rest.splitn(2, |byte| *byte == SEPARATOR);
    let value = Secret::new(String::from_utf8_lossy(texts.next().unwrap_or_default()));
    let text = texts.next().unwrap_or_default();
    let name = NAMES[usize::from(*which) % NAMES.len()];
    in_folder(|folder| {
        let path = folder.join(".env");
        std::fs::write(&path, text).expect("the folder takes a file");
        let Some(before) = pairs_read_alike(folder, text) else { return };
        let mut file = EnvFile::open(&path).expect("it was read before");
        match file.set(name, &value) {
            Ok(()) => file.save().expect("the folder takes a file"),
            Err(EnvFileError::Value(_)) => {
                let is_kept = |letter: char| matches!(letter, '\n' | '\t') || !letter.is_control();
                assert!(!value.expose().chars().all(is_kept), "a good value is refused");
                return;
            }
            Err(EnvFileError::Unsafe { .. }) => return,
            Err(other) => panic!("{other}"),
        }
        let changed = std::fs::read(&path).expect("it was saved");
        let after = pairs_read_alike(folder, &changed).expect("what was saved can be read");
        let found = after.iter().rfind(|(key, _)| key == name).map(|(_, found)| found.as_str());
        assert_eq!(found, Some(value.expose()), "in {:?}", String::from_utf8_lossy(&changed));
        assert_eq!(others(&after, name), others(&before, name), "in {:?}", String::from_utf8_lossy(&changed));
        let mut file = EnvFile::open(&path).expect("it was read before");
        if file.remove(name).is_ok() {
            file.save().expect("the folder takes a file");
            let left = std::fs::read(&path).expect("it was saved");
            let left = pairs_read_alike(folder, &left).expect("what was saved can be read");
            assert_eq!(left, others(&before, name), "after removing {name}");
        }
    });
}

type Pairs = Vec<(String, String)>;

fn others(pairs: &Pairs, name: &str) -> Pairs {
    pairs.iter().filter(|(key, _)| key != name).cloned().collect()
}

/// What `.env` in the folder says; none where it cannot be read. Whoever starts the server, whoever edits the file and
/// the library that both build on have to agree.
fn pairs_read_alike(folder: &Path, text: &[u8]) -> Option<Pairs> {
    let environment = Environment::of_files(&folder.join("nowhere"), folder);
    let edited = EnvFile::open(&folder.join(".env"));
    assert_eq!(environment.faults().is_empty(), edited.is_ok(), "{:?}", String::from_utf8_lossy(text));
    for fault in environment.faults() {
        let lines = String::from_utf8_lossy(text).lines().count().max(1);
        assert!(fault.line().is_none_or(|line| (1..=lines).contains(&line)), "{fault} of {lines} lines");
    }
    let edited = edited.ok()?;
    let text = std::str::from_utf8(text).expect("it was read").trim_start_matches('\u{feff}');
    let pairs: Pairs = dotenvy::from_read_iter(text.as_bytes()).map(|pair| pair.expect("it was read")).collect();
    for (name, _) in &pairs {
        let last = pairs.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(environment.get(name), last, "{name} at the start");
        assert_eq!(edited.get(name).as_ref().map(Secret::expose), last, "{name} while it is edited");
    }
    Some(pairs)
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
pub(crate) mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn what_the_fuzzer_found_for_configurations_holds() {
        replay("config", super::config);
    }

    #[test]
    fn what_the_fuzzer_found_for_env_files_holds() {
        replay("env_file", super::env_file);
    }
}
