//! What was read to make a configuration: which files, and what they held. So a reload can tell whether anything that
//! matters has changed since, also where the system does not say so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::sha256::sha256;

/// So many bytes of the three files' hash are told: enough to tell two configurations apart.
const HASH_TOLD_BYTES: usize = 6;

/// The files that a configuration came from, each with what it held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings(BTreeMap<PathBuf, Reading>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    /// The most that was read of it, in bytes.
    most: u64,
    /// SHA-256 of that; none where it could not be read.
    content: Option<[u8; 32]>,
}

impl Readings {
    /// Of this file so much was read at the most, and this was in it; none where it could not be read.
    pub(super) fn note(&mut self, path: &Path, most: u64, content: Option<&[u8]>) {
        self.0.insert(path.to_owned(), Reading { most, content: content.map(sha256) });
    }

    /// The same files as they are now.
    pub fn again(&self) -> Self {
        let again = |(path, reading): (&PathBuf, &Reading)| {
            let content = read(path, reading.most).map(|content| sha256(&content));
            (path.clone(), Reading { content, ..*reading })
        };
        Self(self.0.iter().map(again).collect())
    }

    /// The folders in which these files lie, and those in which they really lie where they are links.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        let folder = |path: &Path| match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Some(PathBuf::from(".")),
            folder => folder.map(Path::to_owned),
        };
        let given = self.0.keys().filter_map(|path| folder(path));
        let real = self.0.keys().filter_map(|path| folder(&path.canonicalize().ok()?));
        given.chain(real).collect()
    }

    /// A short hash of what these files held, in hexadecimal digits.
    pub(super) fn hash_of(&self, paths: &[PathBuf]) -> String {
        let mut context = Context::new(&SHA256);
        for path in paths {
            context.update(self.0.get(path).and_then(|reading| reading.content.as_ref()).map_or(&[], |hash| hash));
        }
        let mut told = String::with_capacity(2 * HASH_TOLD_BYTES);
        for byte in &context.finish().as_ref()[..HASH_TOLD_BYTES] {
            // Writing to a string cannot fail.
            let _ = write!(told, "{byte:02x}");
        }
        told
    }
}

fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let file = File::open(path).ok()?;
    file.take(most).read_to_end(&mut content).ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn noted(paths: &[&PathBuf]) -> Readings {
        let mut readings = Readings::default();
        for path in paths {
            readings.note(path, 100, read(path, 100).as_deref());
        }
        readings
    }

    #[test]
    fn a_change_of_any_content_is_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, "1").unwrap();
        let before = noted(&[&one, &two]);
        assert_eq!(before.again(), before);
        fs::write(&two, "").unwrap();
        assert_ne!(before.again(), before, "one came");
        fs::remove_file(&two).unwrap();
        fs::rename(&one, &two).unwrap();
        fs::write(&one, "1").unwrap();
        fs::remove_file(&two).unwrap();
        assert_eq!(before.again(), before, "another file with the same content");
        fs::write(&one, "2").unwrap();
        assert_ne!(before.again(), before);
        fs::remove_file(&one).unwrap();
        assert_ne!(before.again(), before, "one went");
    }

    #[test]
    fn a_link_is_looked_for_where_it_stands_and_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("v1")).unwrap();
        fs::write(root.join("v1/file"), "1").unwrap();
        std::os::unix::fs::symlink("v1/file", root.join("file")).unwrap();
        let folders = noted(&[&root.join("file"), &PathBuf::from("nowhere")]).folders();
        assert_eq!(folders, BTreeSet::from([PathBuf::from("."), root.clone(), root.join("v1")]));
    }

    #[test]
    fn the_hash_is_of_the_named_files_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        for path in [&one, &two] {
            fs::write(path, "1").unwrap();
        }
        let named = [one.clone()];
        let before = noted(&[&one, &two]).hash_of(&named);
        assert_eq!(before.len(), 2 * HASH_TOLD_BYTES);
        fs::write(&two, "2").unwrap();
        assert_eq!(noted(&[&one, &two]).hash_of(&named), before);
        fs::write(&one, "2").unwrap();
        assert_ne!(noted(&[&one, &two]).hash_of(&named), before);
    }
}
