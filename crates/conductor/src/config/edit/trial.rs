//! What a change would do, tried before it is made.

use std::path::Path;

use conductor_channels::Plugin;

use super::durable::{self, FileError, Staged};
use super::{Document, EditError, ListFile};
use crate::config;
use crate::config::environment::Environment;
use crate::config::report::{Fault, Severity};

/// The errors that the files would have with the changes of `edited`, and do not have without them. `before` and
/// `after` are the variables without and with those that come with the change.
///
/// # Errors
/// A file cannot be read, or the copies that are tried cannot be written.
pub fn new_errors(
    folder: &Path,
    edited: &[&Document],
    before: &Environment,
    after: &Environment,
    plugins: &'static [Plugin],
) -> Result<Vec<Fault>, EditError> {
    let copies = Copies::new(folder)?;
    let mut texts = Vec::new();
    for file in [ListFile::Tenants, ListFile::Channels, ListFile::Plugins] {
        texts.extend(durable::read(&file.path(folder))?.map(|text| (file, text)));
    }
    for (file, text) in &texts {
        copies.write(*file, text)?;
    }
    let known = errors(&copies.0, before, plugins);
    for document in edited {
        copies.write(document.file(), &document.text())?;
    }
    let is_new = |fault: &Fault| !known.iter().any(|other| is_same(other, fault));
    Ok(errors(&copies.0, after, plugins).into_iter().filter(is_new).collect())
}

fn errors(folder: &Path, environment: &Environment, plugins: &'static [Plugin]) -> Vec<Fault> {
    let report = match config::load(folder, environment, plugins) {
        Ok((_, report)) | Err(report) => report,
    };
    report.faults().iter().filter(|fault| fault.severity == Severity::Error).cloned().collect()
}

/// A change moves lines, but no entry that was there before.
fn is_same(one: &Fault, other: &Fault) -> bool {
    let file = |fault: &Fault| fault.place.as_ref().map(|place| place.file.clone());
    one.found == other.found && one.pointer() == other.pointer() && file(one) == file(other)
}

/// A folder for the copies, gone when it is dropped. They name variables and hold no secrets.
struct Copies(std::path::PathBuf);

impl Copies {
    fn new(folder: &Path) -> Result<Self, FileError> {
        let copies = Self(folder.join(format!(".trial-{}", fastrand::u64(..))));
        durable::create_folder(&copies.0)?;
        Ok(copies)
    }

    fn write(&self, file: ListFile, text: &str) -> Result<(), FileError> {
        Staged::new(&file.path(&self.0), text, 0o600)?.replace()
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // What cannot be removed is only in the way, not wrong.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
