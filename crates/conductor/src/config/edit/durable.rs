//! Files that are there whole or not at all: written beside their place, synced, and only then put there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file could not be read or written; told with the path and the mend.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}\n  help: {}", .path.display(), help(.source, .path))]
pub struct FileError {
    /// What was tried: `read`, `write`, `create`.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// `action` on `path` failed.
    pub fn new(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { action, path: path.into(), source }
    }
}

fn help(error: &io::Error, path: &Path) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "give the folder to the user who runs Conductor (`chown -R \"$(id -u)\" {folder}`), or name other folders \
             with --config-dir (CONFIG_DIR) and --data-dir (DATA_DIR)"
        ),
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "{folder} cannot be written to: mount it writable, or name other folders with --config-dir (CONFIG_DIR) \
             and --data-dir (DATA_DIR)"
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on the disk, then start again".into(),
        io::ErrorKind::ResourceBusy => {
            "the file is mounted on its own and cannot be replaced whole: mount its folder instead".into()
        }
        io::ErrorKind::AlreadyExists => "another process has just made it: start again".into(),
        io::ErrorKind::InvalidData => "the file has to be text in UTF-8: save it so and start again".into(),
        _ => "name other folders with --config-dir (CONFIG_DIR) and --data-dir (DATA_DIR), or mend this one".into(),
    }
}

/// A file that is written and synced, but not yet in its place. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    temporary: PathBuf,
    target: PathBuf,
    placed: bool,
}

impl Staged {
    /// Writes `text` beside `target`, to be put there later. `mode` is what `chmod` takes.
    ///
    /// # Errors
    /// The folder or the disk does not take it.
    pub fn new(target: &Path, text: &str, mode: u32) -> Result<Self, FileError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let folder = folder_of(target);
        let temporary = folder.join(format!(".{name}.{}.tmp", fastrand::u64(..)));
        let staged = Self { temporary, target: target.to_path_buf(), placed: false };
        staged.fill(text, mode).map_err(|error| FileError::new("write", target, error))?;
        Ok(staged)
    }

    fn fill(&self, text: &str, mode: u32) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&self.temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// Puts the file in its place, which must be free.
    ///
    /// # Errors
    /// The place is taken meanwhile, or the folder does not take it.
    pub fn place_new(self) -> Result<PathBuf, FileError> {
        let placed = match fs::hard_link(&self.temporary, &self.target) {
            // Some file systems know no hard links. There the check and the rename are two steps.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !self.target.exists() => self.rename(),
            Err(error) => Err(error),
            Ok(()) => sync_folder(&self.target),
        };
        placed.map_err(|error| FileError::new("create", &self.target, error))?;
        Ok(self.target.clone())
    }

    /// Puts the file in the place of the one that is there.
    ///
    /// # Errors
    /// The folder does not take it.
    pub fn replace(mut self) -> Result<(), FileError> {
        self.rename().map_err(|error| FileError::new("write", &self.target, error))?;
        self.placed = true;
        Ok(())
    }

    fn rename(&self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)?;
        sync_folder(&self.target)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // It is gone already where it was renamed; nothing else can be done about a failure here.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Replaces a file whole, keeping its owner and its mode, or the `mode` given. A symbolic link is followed. Refuses when
/// the file no longer says `before`: somebody else has edited it meanwhile.
///
/// # Errors
/// The file changed meanwhile, or the folder or the disk does not take it.
pub fn replace(path: &Path, before: &str, after: &str, mode: Option<u32>) -> Result<(), FileError> {
    let path = fs::canonicalize(path).map_err(|error| FileError::new("write", path, error))?;
    let now = fs::metadata(&path).map_err(|error| FileError::new("read", &path, error))?;
    let staged = Staged::new(&path, after, mode.unwrap_or(now.mode() & 0o7777))?;
    // Only root may give a file away; for anybody else it is his own already, or stays his.
    let _ = std::os::unix::fs::chown(&staged.temporary, Some(now.uid()), Some(now.gid()));
    if read(&path)?.as_deref() != Some(before) {
        let changed = io::Error::other("it was changed by somebody else meanwhile, so nothing was written; try again");
        return Err(FileError::new("write", &path, changed));
    }
    staged.replace()
}

/// What a file says; none where there is no file.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", path, error)),
    }
}

/// Makes a folder and those above it, where they are missing.
///
/// # Errors
/// One cannot be made.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    let made = fs::create_dir_all(path).map_err(|error| match error.kind() {
        // The system says "exists"; a reader would take it for a folder.
        io::ErrorKind::AlreadyExists => io::Error::new(io::ErrorKind::NotADirectory, "this is a file, not a folder"),
        _ => error,
    });
    made.map_err(|error| FileError::new("create", path, error))
}

/// Takes the rights of group and others from a file that holds secrets.
///
/// # Errors
/// The mode cannot be changed.
pub fn make_private(path: &Path) -> Result<(), FileError> {
    let metadata = fs::metadata(path).map_err(|error| FileError::new("read", path, error))?;
    if metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o700))
        .map_err(|error| FileError::new("protect", path, error))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder is there");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_staged_file_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let staged = Staged::new(&folder.path().join("a"), "text", 0o600).expect("written");
        assert_eq!(names(folder.path()).len(), 1);
        drop(staged);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_new_file_never_overwrites_one_that_came_meanwhile() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let staged = Staged::new(&path, "mine", 0o600).expect("written");
        fs::write(&path, "theirs").expect("written");
        let error = staged.place_new().expect_err("the place is taken");
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("readable"), "theirs");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn replacing_keeps_the_mode_and_follows_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        replace(&link, "old", "new", None).expect("replaced");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "new");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(names(folder.path()), ["a", "link"]);
    }

    #[test]
    fn a_file_that_was_edited_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        fs::write(&path, "edited").expect("written");
        let error = replace(&path, "as it was read", "new", None).expect_err("it changed");
        assert!(error.to_string().contains("changed by somebody else"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "edited");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told_with_its_path_and_the_mend() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        let shown = create_folder(&file.join("config")).expect_err("a file is in the way").to_string();
        assert!(shown.contains("file/config") && shown.contains("--config-dir"), "{shown}");
    }
}
