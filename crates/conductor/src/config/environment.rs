//! The variables that the configuration names: the process's own, then those of two `.env` files.
//!
//! Besides the command line this is the only place that reads the environment.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use conductor_core::Secret;
use zeroize::Zeroizing;

use super::readings::Readings;
use super::report::{Fault, Place, Position};

/// The most bytes that a `.env` file, or a file that a `_FILE` variable names, may have.
pub const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// What a variable's name ends with when its value is the path of a file that holds the value.
pub const FILE_SUFFIX: &str = "_FILE";

/// The variables, from the strongest source to the weakest.
pub struct Environment {
    layers: Vec<Layer>,
    working_dir: PathBuf,
    data_dir: PathBuf,
    faults: Vec<Fault>,
    /// What has been read for it so far, and with it.
    readings: Mutex<Readings>,
}

/// What was found under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A value that is not empty.
    Found {
        /// The value.
        value: Secret,
        /// Whether `<NAME>_FILE` is set too; the variable wins.
        file_is_ignored: bool,
    },
    /// The variable is set, or its file is there, but nothing is in it.
    Empty,
    /// Neither the variable nor `<NAME>_FILE` is set.
    Missing,
    /// `<NAME>_FILE` names a file that cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

#[derive(Default)]
struct Layer {
    values: HashMap<String, Secret>,
    /// Names whose UUID is written in lower case, to the name as it is.
    folded: HashMap<String, String>,
}

impl Layer {
    fn insert(&mut self, name: String, value: Secret) {
        if let Some(folded) = fold(&name) {
            self.folded.insert(folded, name.clone());
        }
        self.values.insert(name, value);
    }

    fn get(&self, name: &str) -> Option<&Secret> {
        let folded = || self.values.get(self.folded.get(&fold(name)?)?);
        self.values.get(name).or_else(folded)
    }
}

/// The name with the UUID after `TENANT_` in lower case; none where it has no UUID there.
fn fold(name: &str) -> Option<String> {
    const UUID_CHARS: usize = 36;
    let rest = name.strip_prefix("TENANT_")?;
    let uuid = rest.get(..UUID_CHARS)?;
    let is_uuid = uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'_');
    is_uuid.then(|| format!("TENANT_{}{}", uuid.to_ascii_lowercase(), &rest[UUID_CHARS..]))
}

impl Environment {
    /// Reads the process's variables, `.env` in the working directory and `.env` in the data directory. What is wrong
    /// with those files stands in [`Self::faults`].
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn load(working_dir: &Path, data_dir: &Path) -> Self {
        let mut process = Layer::default();
        for (name, value) in std::env::vars_os() {
            // What is not UTF-8 cannot be a key or a token, and no file can name it.
            if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
                process.insert(name, Secret::new(value));
            }
        }
        Self::with_files(process, working_dir, data_dir)
    }

    /// Reads the two `.env` files and nothing of the process.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn of_files(working_dir: &Path, data_dir: &Path) -> Self {
        Self::with_files(Layer::default(), working_dir, data_dir)
    }

    fn with_files(process: Layer, working_dir: &Path, data_dir: &Path) -> Self {
        let mut environment = Self {
            layers: vec![process],
            working_dir: working_dir.to_owned(),
            data_dir: data_dir.to_owned(),
            faults: Vec::new(),
            readings: Mutex::default(),
        };
        environment.add_file(&working_dir.join(".env"));
        if working_dir != data_dir {
            environment.add_file(&data_dir.join(".env"));
        }
        environment
    }

    /// Takes these variables and no files: for tests and examples.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut layer = Layer::default();
        for (name, value) in pairs {
            layer.insert(name.into(), Secret::new(value));
        }
        let (working_dir, data_dir, readings) = (".".into(), "data".into(), Mutex::default());
        Self { layers: vec![layer], working_dir, data_dir, faults: Vec::new(), readings }
    }

    /// Adds variables that count only where nothing else sets them: for a change that is tried before it is made.
    #[must_use]
    pub fn with_defaults(mut self, pairs: impl IntoIterator<Item = (String, Secret)>) -> Self {
        let mut layer = Layer::default();
        for (name, value) in pairs {
            layer.insert(name, value);
        }
        self.layers.push(layer);
        self
    }

    /// Whether the process itself sets the variable, so that no `.env` file can change it.
    pub fn is_set_by_process(&self, name: &str) -> bool {
        self.layers.first().is_some_and(|process| process.get(name).is_some())
    }

    /// What is wrong with the `.env` files.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The `.env` file in the data directory: where a missing variable is best written.
    pub fn data_file(&self) -> PathBuf {
        self.data_dir.join(".env")
    }

    /// A variable's value; empty where it is set but empty everywhere. A weaker source is asked also where a stronger
    /// one has the name without a value, as when a container passes on what was never set. `<NAME>_FILE` is not asked.
    pub fn get(&self, name: &str) -> Option<&str> {
        let values = || self.layers.iter().filter_map(|layer| layer.get(name)).map(Secret::expose);
        values().find(|value| !value.is_empty()).or_else(|| values().next())
    }

    /// A variable's value, or the content of the file that `<NAME>_FILE` names without one line end at its end. Where
    /// the name has a tenant's UUID in it, its hexadecimal digits may be in either case.
    pub fn lookup(&self, name: &str) -> Lookup {
        let value = self.get(name);
        let file = self.get(&format!("{name}{FILE_SUFFIX}")).filter(|path| !path.is_empty());
        match (value, file) {
            (Some(value), file) if !value.is_empty() => {
                Lookup::Found { value: Secret::new(value), file_is_ignored: file.is_some() }
            }
            (_, Some(path)) => self.read(Path::new(path)),
            (Some(_), None) => Lookup::Empty,
            (None, None) => Lookup::Missing,
        }
    }

    /// The variables of the `.env` files with this name, where the process's own environment is not asked.
    pub(super) fn in_files(&self, name: &str) -> Option<&str> {
        let mut values = self.layers.iter().skip(1).filter_map(|layer| layer.get(name)).map(Secret::expose);
        values.find(|value| !value.is_empty())
    }

    /// Remembers what was read of a file, `most` being the most that would have been.
    pub(super) fn note(&self, path: &Path, most: u64, content: Option<&[u8]>) {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).note(path, most, content);
    }

    /// Everything that has been read so far: the `.env` files, the files of `_FILE` variables that were looked up, and
    /// the three files where they were loaded with this environment.
    pub fn readings(&self) -> Readings {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read_text(&self, path: &Path) -> io::Result<Zeroizing<String>> {
        let content = read_bytes(path);
        // Also of what is no text: a look whether the file has changed compares bytes.
        self.note(path, FILE_MAX_BYTES + 1, content.as_ref().ok().map(|content| content.as_slice()));
        text_of(content?)
    }

    fn read(&self, path: &Path) -> Lookup {
        let path = self.working_dir.join(path);
        let text = match self.read_text(&path) {
            Ok(text) => text,
            Err(error) => return Lookup::Unreadable { path, reason: error.to_string() },
        };
        let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        match text {
            "" => Lookup::Empty,
            text => Lookup::Found { value: Secret::new(text), file_is_ignored: false },
        }
    }

    fn add_file(&mut self, path: &Path) {
        match self.read_text(path) {
            Ok(text) => {
                let layer = self.parse(path, text.trim_start_matches('\u{feff}'));
                self.layers.push(layer);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let fault = Fault::error(format!("the file cannot be read: {error}")).in_file(path);
                self.faults.push(fault.help("mend it, or remove it if it is not needed"));
            }
        }
    }

    fn parse(&mut self, path: &Path, text: &str) -> Layer {
        let mut layer = Layer::default();
        let lines = std::cell::Cell::new(0);
        for item in dotenvy::from_read_iter(OneLineAtATime { rest: text.as_bytes(), lines: &lines }) {
            match item {
                Ok((name, value)) => layer.insert(name, Secret::new(value)),
                Err(dotenvy::Error::LineParse(entry, _)) => {
                    let after = entry.strip_suffix('\n').unwrap_or(&entry).matches('\n').count();
                    let line = lines.get().saturating_sub(after).max(1);
                    // The line itself is not shown: what it holds may be a secret.
                    let position = Position { line, column: 1, source: None };
                    let place = Place { file: path.to_owned(), position: Some(position), pointer: None };
                    let fault = Fault::error("this line is no assignment of a variable").at(place);
                    let expected = "NAME=value, with the value in single quotes if it has spaces, quotes, # or $ in it";
                    self.faults.push(fault.expected(expected).help("close every quote, or begin a comment with #"));
                }
                Err(error) => {
                    let fault = Fault::error(format!("the file cannot be read: {error}")).in_file(path);
                    self.faults.push(fault);
                    break;
                }
            }
        }
        layer
    }
}

/// Hands out one line a read, so that the count of lines says where the parser stands.
struct OneLineAtATime<'a> {
    rest: &'a [u8],
    lines: &'a std::cell::Cell<usize>,
}

impl Read for OneLineAtATime<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line = self.rest.iter().position(|byte| *byte == b'\n').map_or(self.rest.len(), |end| end + 1);
        let length = line.min(buffer.len());
        let (now, rest) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.rest = rest;
        if length > 0 && (now.ends_with(b"\n") || rest.is_empty()) {
            self.lines.set(self.lines.get() + 1);
        }
        Ok(length)
    }
}

/// Reads a file, at most one byte more than [`FILE_MAX_BYTES`]. It holds secrets, so that its memory is overwritten.
fn read_bytes(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn text_of(mut content: Zeroizing<Vec<u8>>) -> io::Result<Zeroizing<String>> {
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    String::from_utf8(std::mem::take(&mut *content)).map(Zeroizing::new).map_err(|error| {
        let error_at = error.utf8_error().valid_up_to();
        drop(Zeroizing::new(error.into_bytes()));
        io::Error::new(io::ErrorKind::InvalidData, format!("byte {} is not valid UTF-8", error_at + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "01943c2a_7c3e_7000_8000_123456789abc";

    fn found(value: &str) -> Lookup {
        Lookup::Found { value: Secret::new(value), file_is_ignored: false }
    }

    fn in_directories(process: &[(&str, &str)], working: &str, data: &str) -> (Environment, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        let (working_dir, data_dir) = (root.path().join("work"), root.path().join("data"));
        for (dir, text) in [(&working_dir, working), (&data_dir, data)] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join(".env"), text).unwrap();
        }
        let mut layer = Layer::default();
        for (name, value) in process {
            layer.insert((*name).to_owned(), Secret::new(*value));
        }
        (Environment::with_files(layer, &working_dir, &data_dir), root)
    }

    #[test]
    fn a_file_that_cannot_be_used_is_remembered_as_it_is_so_that_it_is_not_read_for_ever() {
        let too_large = vec![b'#'; usize::try_from(FILE_MAX_BYTES).unwrap() + 2];
        for content in [&b"# caf\xe9\n"[..], &too_large] {
            let root = tempfile::tempdir().unwrap();
            std::fs::write(root.path().join(".env"), content).unwrap();
            let environment = Environment::with_files(Layer::default(), root.path(), &root.path().join("data"));
            assert_eq!(environment.faults().len(), 1);
            assert_eq!(environment.readings().again(), environment.readings());
        }
    }

    #[test]
    fn the_process_wins_then_the_working_directory_then_the_data_directory() {
        let process = [("A", "process")];
        let (environment, _root) = in_directories(&process, "A=work\nB=work\n", "A=data\nB=data\nC=data\n");
        assert!(environment.faults().is_empty());
        let values: Vec<_> = ["A", "B", "C", "D"].iter().map(|name| environment.lookup(name)).collect();
        assert_eq!(values, [found("process"), found("work"), found("data"), Lookup::Missing]);
    }

    #[test]
    fn an_empty_variable_hides_no_value_of_a_weaker_source() {
        let (environment, _root) = in_directories(&[("A", ""), ("B", "")], "B=\n", "A=data\n");
        assert_eq!(environment.lookup("A"), found("data"));
        assert_eq!((environment.lookup("B"), environment.get("B")), (Lookup::Empty, Some("")));
    }

    #[test]
    fn the_process_variables_are_read() {
        let empty = tempfile::tempdir().unwrap();
        let environment = Environment::load(empty.path(), empty.path());
        assert!(environment.get("PATH").is_some_and(|path| !path.is_empty()));
    }

    #[test]
    fn quotes_comments_and_export_are_understood() {
        let text = "\u{feff}# a comment\nexport A='with # and space'\r\nB=\"two\nlines\"\n\nC=\n";
        let (environment, _root) = in_directories(&[], text, "");
        assert!(environment.faults().is_empty(), "{:?}", environment.faults());
        assert_eq!(environment.get("A"), Some("with # and space"));
        assert_eq!(environment.get("B"), Some("two\nlines"));
        assert_eq!(environment.lookup("C"), Lookup::Empty);
    }

    #[test]
    fn a_bad_line_is_a_fault_with_its_line_and_the_others_are_read() {
        let text = "A=1\n# comment\nhunter2 no assignment\nB=2\n\nC='hunter2 unclosed\nD=4\n";
        let (environment, root) = in_directories(&[], "", text);
        let faults = environment.faults();
        assert_eq!(faults.iter().map(Fault::line).collect::<Vec<_>>(), [Some(3), Some(6)]);
        let printed = faults[0].to_string();
        assert!(printed.contains(&format!("{}:3:1", root.path().join("data/.env").display())), "{printed}");
        assert!(!faults.iter().any(|fault| fault.to_string().contains("hunter2")));
        assert_eq!((environment.get("A"), environment.get("B")), (Some("1"), Some("2")));
    }

    #[test]
    fn an_env_file_that_is_no_text_is_a_fault() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(".env"), b"A=\xff\n").unwrap();
        let environment = Environment::with_files(Layer::default(), root.path(), &root.path().join("none"));
        assert_eq!(environment.faults().len(), 1);
    }

    #[test]
    fn a_file_gives_the_value_without_one_line_end() {
        let root = tempfile::tempdir().unwrap();
        for (text, value) in [("key", "key"), ("key\n", "key"), ("key\r\n", "key"), ("key\n\n", "key\n")] {
            std::fs::write(root.path().join("key"), text).unwrap();
            let mut environment = Environment::from_pairs([("KEY_FILE", "key"), ("EMPTY", "")]);
            environment.working_dir = root.path().to_owned();
            assert_eq!(environment.lookup("KEY"), found(value));
        }
        std::fs::write(root.path().join("key"), "\n").unwrap();
        let path = root.path().join("key").display().to_string();
        assert_eq!(Environment::from_pairs([("KEY_FILE", path)]).lookup("KEY"), Lookup::Empty);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_its_path() {
        for path in ["/nonexistent/key", "/"] {
            let lookup = Environment::from_pairs([("KEY_FILE", path)]).lookup("KEY");
            assert!(matches!(&lookup, Lookup::Unreadable { path: told, .. } if told == Path::new(path)), "{lookup:?}");
        }
    }

    #[test]
    fn a_variable_wins_over_its_file_and_says_so() {
        let environment = Environment::from_pairs([("KEY", "value"), ("KEY_FILE", "/nonexistent")]);
        let expected = Lookup::Found { value: Secret::new("value"), file_is_ignored: true };
        assert_eq!(environment.lookup("KEY"), expected);
    }

    #[test]
    fn the_digits_of_a_uuid_may_be_in_either_case() {
        let upper = UUID.to_ascii_uppercase();
        for (set, asked) in [(UUID, upper.as_str()), (&upper, UUID), (UUID, UUID), (&upper, &upper)] {
            let environment = Environment::from_pairs([(format!("TENANT_{set}_AUTHKEY"), "value")]);
            assert_eq!(environment.lookup(&format!("TENANT_{asked}_AUTHKEY")), found("value"), "{set} {asked}");
            assert_eq!(environment.lookup(&format!("TENANT_{asked}_authkey")), Lookup::Missing);
        }
    }
}
