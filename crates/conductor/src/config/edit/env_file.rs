//! Changes of a `.env` file that leave everything else in it as it was.

use std::path::{Path, PathBuf};

use conductor_core::Secret;
use zeroize::Zeroize as _;

use super::durable::{self, FileError, Staged};

/// The most that a `.env` file may hold, in bytes.
const MAX_BYTES: usize = 1024 * 1024;
const MODE: u32 = 0o600;
/// Some editors begin a file with it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A `.env` file, there or not, with the changes that are to be made to it.
pub struct EnvFile {
    path: PathBuf,
    before: Option<String>,
    text: String,
}

/// A `.env` file could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// It could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It cannot be understood. The line itself is not told: it may hold a secret.
    #[error("{}:{line}: this line is no NAME=value\n  help: put quotes around a value with spaces or special characters", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// It is too large to be a `.env` file.
    #[error("{} is larger than {MAX_BYTES} bytes\n  help: is this really a .env file?", .0.display())]
    TooLarge(PathBuf),
    /// A value that cannot stand in a `.env` file.
    #[error("the value of {0} holds a null byte or another control character, which a .env file cannot hold")]
    Value(String),
    /// The edit would have changed something else.
    #[error("{} is written in a way that cannot be edited safely\n  help: change {name} in it by hand", .path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// The variable that was to be changed.
        name: String,
    },
}

impl Drop for EnvFile {
    /// It holds secrets.
    fn drop(&mut self) {
        self.text.zeroize();
        self.before.zeroize();
    }
}

impl EnvFile {
    /// Reads a file. One that is missing is empty.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn open(path: &Path) -> Result<Self, EnvFileError> {
        let before = durable::read(path)?;
        let text = before.clone().unwrap_or_default();
        if text.len() > MAX_BYTES {
            return Err(EnvFileError::TooLarge(path.to_path_buf()));
        }
        let file = Self { path: path.to_path_buf(), before, text };
        file.pairs()?;
        Ok(file)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is such a file.
    pub fn exists(&self) -> bool {
        self.before.is_some()
    }

    /// What it says about a variable; its last word, where it says something twice.
    pub fn get(&self, name: &str) -> Option<Secret> {
        let pairs = self.pairs().ok()?;
        pairs.into_iter().rfind(|(key, _)| key == name).map(|(_, value)| Secret::new(value))
    }

    /// Sets a variable: in its place if the file has it, else at the end.
    ///
    /// # Errors
    /// The value cannot stand in such a file, or the file cannot be edited without changing something else.
    pub fn set(&mut self, name: &str, value: &Secret) -> Result<(), EnvFileError> {
        let line = line(name, value).ok_or_else(|| EnvFileError::Value(name.to_owned()))?;
        let mut expected: Vec<_> = self.pairs()?;
        match expected.iter().position(|(key, _)| key == name) {
            Some(first) => {
                let mut index = 0;
                expected.retain(|(key, _)| {
                    index += 1;
                    key != name || index - 1 == first
                });
                expected[first].1 = value.expose().to_owned();
            }
            None => expected.push((name.to_owned(), value.expose().to_owned())),
        }
        let mut text = String::with_capacity(self.text.len() + line.len() + 1);
        let mut done = false;
        for entry in entries(&self.text) {
            if entry.name != Some(name) {
                text.push_str(entry.text);
            } else if !std::mem::replace(&mut done, true) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        if !done {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&line);
            text.push('\n');
        }
        self.accept(text, &expected, name)
    }

    /// Removes a variable, if the file has it.
    ///
    /// # Errors
    /// The file cannot be edited without changing something else.
    pub fn remove(&mut self, name: &str) -> Result<(), EnvFileError> {
        let expected: Vec<_> = self.pairs()?.into_iter().filter(|(key, _)| key != name).collect();
        let kept = entries(&self.text).into_iter().filter(|entry| entry.name != Some(name));
        let text = kept.map(|entry| entry.text).collect();
        self.accept(text, &expected, name)
    }

    /// Adds a comment at the end.
    pub fn comment(&mut self, comment: &str) {
        if !self.text.is_empty() {
            let end = if self.text.ends_with('\n') { "\n" } else { "\n\n" };
            self.text.push_str(end);
        }
        for line in comment.lines() {
            self.text.push_str(&format!("# {line}\n"));
        }
    }

    /// Whether [`EnvFile::save`] would write anything.
    pub fn is_changed(&self) -> bool {
        self.before.as_deref().unwrap_or_default() != self.text
    }

    /// Writes the changes, whole or not at all, for its owner's eyes only.
    ///
    /// # Errors
    /// The folder or the disk does not take it.
    pub fn save(self) -> Result<(), EnvFileError> {
        match &self.before {
            None if self.text.is_empty() => {}
            None => drop(Staged::new(&self.path, &self.text, MODE)?.place_new()?),
            Some(before) if *before == self.text => durable::make_private(&self.path)?,
            Some(before) => durable::replace(&self.path, before, &self.text, Some(MODE))?,
        }
        Ok(())
    }

    fn pairs(&self) -> Result<Vec<(String, String)>, EnvFileError> {
        let mut pairs = Vec::new();
        for pair in dotenvy::from_read_iter(self.text.trim_start_matches(BYTE_ORDER_MARK).as_bytes()) {
            match pair {
                Ok(pair) => pairs.push(pair),
                Err(_) => return Err(EnvFileError::Syntax { path: self.path.clone(), line: self.bad_line() }),
            }
        }
        Ok(pairs)
    }

    /// The first line that cannot be understood. The parser tells the line's text, which is not to be shown, and no
    /// number.
    fn bad_line(&self) -> usize {
        let mut line = 1;
        for entry in entries(&self.text) {
            if dotenvy::from_read_iter(entry.text.trim_start_matches(BYTE_ORDER_MARK).as_bytes())
                .any(|pair| pair.is_err())
            {
                return line;
            }
            line += entry.text.matches('\n').count();
        }
        line
    }

    fn accept(&mut self, text: String, expected: &[(String, String)], name: &str) -> Result<(), EnvFileError> {
        let mut changed = Self { path: self.path.clone(), before: None, text };
        let is_right = changed.pairs().is_ok_and(|pairs| pairs == expected);
        if !is_right {
            return Err(EnvFileError::Unsafe { path: self.path.clone(), name: name.to_owned() });
        }
        std::mem::swap(&mut self.text, &mut changed.text);
        Ok(())
    }
}

/// `NAME=value`, quoted where it has to be. None where the value cannot stand in a `.env` file.
pub fn line(name: &str, value: &Secret) -> Option<String> {
    let text = value.expose();
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return None;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '@' | '%' | '+' | ',');
    if text.chars().all(plain) {
        return Some(format!("{name}={text}"));
    }
    let mut line = format!("{name}=\"");
    for c in text.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\\' | '"' | '$' => line.extend(['\\', c]),
            c => line.push(c),
        }
    }
    line.push('"');
    Some(line)
}

/// One assignment with all its lines, or one line that is none.
struct Entry<'a> {
    text: &'a str,
    name: Option<&'a str>,
}

/// Cuts a file into assignments, comments and blank lines, each with its line break.
fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut start = 0;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        let entry = &text[start..end];
        if is_complete(entry) || end == text.len() {
            entries.push(Entry { text: entry, name: name_of(entry) });
            start = end;
        }
    }
    entries
}

/// Whether every quote is closed.
fn is_complete(entry: &str) -> bool {
    let mut quote = None;
    let mut escaped = false;
    let mut after_space = true;
    for c in entry.chars() {
        match (quote, c) {
            _ if std::mem::take(&mut escaped) => {}
            (_, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') if after_space => return true,
            _ => {}
        }
        after_space = c.is_whitespace();
    }
    quote.is_none()
}

fn name_of(entry: &str) -> Option<&str> {
    let entry = entry.trim_start_matches(BYTE_ORDER_MARK).trim_start();
    let entry = entry.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(entry).trim_start();
    let (name, _) = entry.split_once('=')?;
    let name = name.trim_end();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> EnvFile {
        EnvFile { path: PathBuf::from(".env"), before: Some(text.to_owned()), text: text.to_owned() }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    #[test]
    fn a_change_leaves_comments_order_and_neighbours_alone() {
        let mut file = of("# mine\nA=1\n\nexport B = 'two words' # why\nC=3");
        file.set("B", &secret("new")).expect("edited");
        file.set("D", &secret("four $HOME \"x\" \\")).expect("edited");
        assert_eq!(file.text, "# mine\nA=1\n\nB=new\nC=3\nD=\"four \\$HOME \\\"x\\\" \\\\\"\n");
        file.remove("A").expect("edited");
        assert_eq!(file.text, "# mine\n\nB=new\nC=3\nD=\"four \\$HOME \\\"x\\\" \\\\\"\n");
        assert_eq!(file.get("D"), Some(secret("four $HOME \"x\" \\")));
        assert_eq!(file.get("A"), None);
    }

    #[test]
    fn a_line_inside_quotes_is_no_assignment() {
        let text = "A=\"first\nB=inside\nlast\"\nB=real\n";
        let mut file = of(text);
        file.set("B", &secret("changed")).expect("edited");
        assert_eq!(file.text, "A=\"first\nB=inside\nlast\"\nB=changed\n");
        assert_eq!(file.get("A"), Some(secret("first\nB=inside\nlast")));
    }

    #[test]
    fn a_variable_that_stands_twice_stands_once_after_a_change() {
        let mut file = of("A=1\nB=2\nA=3\n");
        file.set("A", &secret("4")).expect("edited");
        assert_eq!(file.text, "A=4\nB=2\n");
    }

    #[test]
    fn the_last_of_two_values_counts_and_a_byte_order_mark_does_not() {
        let mut file = of("\u{feff}A=1\r\nA=2\r\n");
        assert_eq!(file.get("A"), Some(secret("2")));
        file.set("B", &secret("3")).expect("edited");
        assert_eq!(file.text, "\u{feff}A=1\r\nA=2\r\nB=3\n");
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        fs::write(&path, "A=1\n# fine\nthis is hunter2 no assignment\n").expect("written");
        let error = EnvFile::open(&path).err().expect("a bad line").to_string();
        assert!(error.contains(".env:3:") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_saved_file_is_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        let mode = || fs::metadata(&path).expect("there").mode() & 0o777;
        let mut file = EnvFile::open(&path).expect("missing is empty");
        assert!(!file.exists());
        file.set("A", &secret("1")).expect("edited");
        file.save().expect("saved");
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        EnvFile::open(&path).expect("read").save().expect("nothing to write");
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let mut file = EnvFile::open(&path).expect("read");
        file.set("B", &secret("2")).expect("edited");
        file.save().expect("saved");
        assert_eq!((mode(), fs::read_to_string(&path).expect("readable").as_str()), (0o600, "A=1\nB=2\n"));
    }

    #[test]
    fn a_value_with_control_characters_is_refused() {
        assert!(matches!(of("").set("A", &secret("a\0b")), Err(EnvFileError::Value(_))));
        assert!(matches!(of("").set("A", &secret("a\rb")), Err(EnvFileError::Value(_))));
    }

    proptest! {
        #[test]
        fn every_value_reads_back_as_it_was_set(value in "[ -~\n\té–]{0,40}", other in "[ -~]{0,20}") {
            let mut file = of("# c\nX='y'\n");
            file.set("OTHER", &secret(&other)).expect("edited");
            file.set("A_B", &secret(&value)).expect("edited");
            file.set("OTHER", &secret("x")).expect("edited");
            prop_assert_eq!(file.get("A_B"), Some(secret(&value)));
            file.remove("A_B").expect("edited");
            prop_assert_eq!(file.text.as_str(), "# c\nX='y'\nOTHER=x\n");
        }

        #[test]
        fn no_text_makes_an_edit_lose_something(text in "[A-C='\"\\\\ \n#$x]{0,30}") {
            let mut file = of(&text);
            if let Ok(before) = file.pairs() && file.set("Z", &secret("z z")).is_ok() {
                let after: Vec<_> = file.pairs().expect("still good").into_iter().filter(|(key, _)| key != "Z").collect();
                prop_assert_eq!(before, after);
            }
        }
    }
}
