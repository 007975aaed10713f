//! Whole copies of a store in one file: the backup of a store, also of one that a server is using, and the way back.
//!
//! A copy is written under another name, checked from end to end and on disk before it gets its own: a process that dies
//! on the way leaves no copy rather than half of one.

use std::ffi::{OsString, c_int};
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_core::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::contents::Contents;
use super::opening::{self, OpenError};
use super::{FILE, LOCK_FILE, damage};
use crate::Room;
use crate::migrate::{MigrateError, refuse_foreign, version};

/// So many pages are copied before the next look at what goes on: a megabyte.
const STEP_PAGES: c_int = 256;
/// While a copy is made, what a server writes stays in its log. When that has grown by so much, the copy is given up:
/// its target is too slow.
const LOG_GROWTH_MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// How often a step that another process holds up is tried again, and after how long.
const BUSY_MAX: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Free room beyond the copy's own size, for what the file system itself writes.
const SPARE_BYTES: u64 = 1024 * 1024;
/// How often a file is opened that others are renaming meanwhile.
const TAKE_TRIES: usize = 10;
/// Both bytes of a database's head that say how it is written; 1 means without a log beside it.
/// <https://www.sqlite.org/fileformat2.html#file_format_version_numbers>
const WRITTEN_BY: (u64, [u8; 2]) = (18, [1, 1]);

/// A copy that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// How many notifications it has.
    pub notifications: u64,
    /// What else is in it.
    pub contents: Contents,
}

/// Why a copy was not made. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What is to be copied is not there.
    #[error("{0}: there is no such file")]
    Missing(PathBuf),
    /// A file is there already that must not be replaced.
    #[error("{0}: there is one already")]
    Exists(PathBuf),
    /// Another process is writing the same copy.
    #[error("{0}: another process is writing this copy")]
    Busy(PathBuf),
    /// The file system has too little room.
    #[error("{path}: too little room: {needed} bytes are needed, {free} are free")]
    Room {
        /// The file that was to be written.
        path: PathBuf,
        /// In bytes.
        needed: u64,
        /// In bytes.
        free: u64,
    },
    /// What is to be copied cannot be used, or the data folder cannot.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// The server's log would have grown too long.
    #[error("{0}: it is written too slowly: the running server has to keep all that it writes meanwhile")]
    Slow(PathBuf),
    /// What was copied is not sound.
    #[error("{0}: it is damaged: {1}")]
    Damaged(PathBuf, String),
}

impl CopyError {
    fn of_engine(path: &Path, error: rusqlite::Error) -> Self {
        OpenError::of_engine(path, error).into()
    }

    fn of_migration(path: &Path, error: MigrateError) -> Self {
        OpenError::of_migration(path, error).into()
    }
}

/// Copies the store in `directory` into the one file `target`, as it is at one instant, and checks the copy. A server may
/// use the store meanwhile: it neither waits nor notices. `replaces` says whether a `target` that is there may be
/// replaced. `now` tells what is overdue.
///
/// # Errors
/// The copy cannot be made, or the store is damaged.
pub fn back_up(directory: &Path, target: &Path, replaces: bool, now: Timestamp) -> Result<Copied, CopyError> {
    let path = directory.join(FILE);
    if !path.exists() {
        return Err(CopyError::Missing(path));
    }
    if !replaces && target.symlink_metadata().is_ok() {
        return Err(CopyError::Exists(target.to_owned()));
    }
    refuse_own_files(directory, target)?;
    let source = opening::look_into(&path)?;
    refuse_empty(&path, &source)?;
    let part = Part::take(target)?;
    copy(&source, &path, &part)?;
    // What is wrong with the copy is wrong with the store: nothing else has touched it.
    let copied = check(&part.path, &path, now)?;
    part.become_file(target)?;
    Ok(copied)
}

/// Puts a copy of the store in `file` into `directory`, where none may be yet, and checks it. Takes the directory's
/// lock, so that no server starts meanwhile. `now` tells what is overdue.
///
/// # Errors
/// The copy cannot be made, `file` is no sound store of this version or an older one, or there is a store already.
pub fn restore(file: &Path, directory: &Path, now: Timestamp) -> Result<Copied, CopyError> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => CopyError::Missing(file.to_owned()),
        _ => CopyError::Io(file.to_owned(), error),
    };
    if !file.metadata().map_err(missing)?.is_file() {
        return Err(CopyError::Io(file.to_owned(), io::ErrorKind::IsADirectory.into()));
    }
    std::fs::create_dir_all(directory).map_err(|error| CopyError::Io(directory.to_owned(), error))?;
    let lock_path = directory.join(LOCK_FILE);
    let _lock = opening::lock(&lock_path)?;
    let path = directory.join(FILE);
    for part in [path.clone(), damage::log_of(&path)] {
        if part.symlink_metadata().is_ok_and(|found| !found.is_file() || found.len() > 0) {
            return Err(CopyError::Exists(part));
        }
    }
    let source = open_backup(file)?;
    refuse_empty(file, &source)?;
    let part = Part::take(&path)?;
    copy(&source, file, &part)?;
    let copied = check(&part.path, file, now)?;
    for owned in [&part.path, &lock_path] {
        give_to_owner(owned, directory);
    }
    for left in [damage::log_of(&path), with_suffix(&path, "-shm")] {
        remove(&left)?;
    }
    part.become_file(&path)?;
    Ok(copied)
}

/// The store itself is never the place for its copy, whoever asks for that.
fn refuse_own_files(directory: &Path, target: &Path) -> Result<(), CopyError> {
    let folder = folder_of(target).canonicalize().map_err(|error| CopyError::Io(target.to_owned(), error))?;
    let own = directory.canonicalize().is_ok_and(|own| own == folder);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    if own && (name.starts_with(FILE) || name == LOCK_FILE) {
        return Err(CopyError::Exists(target.to_owned()));
    }
    Ok(())
}

/// A file with nothing in it is no store, though a server would make one of it.
fn refuse_empty(path: &Path, source: &Connection) -> Result<(), CopyError> {
    match version(source) {
        Ok(0) => Err(CopyError::of_migration(path, MigrateError::Foreign)),
        Ok(_) => Ok(()),
        Err(error) => Err(CopyError::of_migration(path, error)),
    }
}

/// Opens a file that nobody uses. It may lie where nothing can be written; one with a log beside it is read with that.
fn open_backup(file: &Path) -> Result<Connection, CopyError> {
    if damage::log_of(file).metadata().is_ok_and(|log| log.len() > 0) {
        return Ok(opening::look_into(file)?);
    }
    let mut address = "file:".to_owned();
    for byte in
        std::path::absolute(file).map_err(|error| CopyError::Io(file.to_owned(), error))?.as_os_str().as_encoded_bytes()
    {
        match byte {
            b'/' | b'.' | b'-' | b'_' => address.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => address.push(char::from(*byte)),
            byte => address.push_str(&format!("%{byte:02x}")),
        }
    }
    address.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(address, flags).map_err(|error| CopyError::of_engine(file, error))?;
    refuse_foreign(&connection).map_err(|error| CopyError::of_migration(file, error))?;
    Ok(connection)
}

/// Copies every page as it is at one instant.
fn copy(source: &Connection, path: &Path, part: &Part) -> Result<(), CopyError> {
    let read = |error| CopyError::of_engine(path, error);
    let write = |error| CopyError::of_engine(&part.path, error);
    // All steps see what the first one has seen: else each change by the server would make the copy begin anew.
    let snapshot = source.unchecked_transaction().map_err(read)?;
    let number = |sql| snapshot.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    // Looking at the tables begins the snapshot.
    let needed = number("SELECT count(*) FROM sqlite_schema").and_then(|_| number(sql)).map_err(read)?;
    part.expect_room(needed)?;
    let log_size = || damage::log_of(path).metadata().map_or(0, |log| log.len());
    let before = log_size();
    let mut target = part.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // It is written to disk as a whole when it is complete, and before that it is worth nothing.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(write)?;
    let backup = Backup::new(&snapshot, &mut target).map_err(write)?;
    let mut busy = 0;
    loop {
        match backup.step(STEP_PAGES).map_err(|error| part.failed(path, error))? {
            StepResult::Done => break,
            StepResult::More => busy = 0,
            _ if busy < BUSY_MAX => {
                busy += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            _ => return Err(CopyError::Busy(path.to_owned())),
        }
        if log_size().saturating_sub(before) > LOG_GROWTH_MAX_BYTES {
            return Err(CopyError::Slow(part.path.clone()));
        }
    }
    drop(backup);
    drop(target);
    let (place, bytes) = WRITTEN_BY;
    part.file.write_all_at(&bytes, place).map_err(|error| CopyError::Io(part.path.clone(), error))
}

/// Reads a copy from end to end. What is wrong with it is told as a fault of `origin`.
fn check(path: &Path, origin: &Path, now: Timestamp) -> Result<Copied, CopyError> {
    let read = |error| CopyError::of_engine(origin, error);
    let copy = open_alone(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(read)?;
    let found: String = copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(read)?;
    if found != "ok" {
        let what = found.lines().last().unwrap_or_default().trim().to_owned();
        return Err(CopyError::Damaged(origin.to_owned(), what));
    }
    refuse_foreign(&copy).map_err(|error| CopyError::of_migration(origin, error))?;
    let version = version(&copy).map_err(|error| CopyError::of_migration(origin, error))?;
    let count = copy.query_row("SELECT count(*) FROM notification", [], |row| row.get::<_, i64>(0)).map_err(read)?;
    let contents = Contents::read(&copy, version, now).map_err(read)?;
    Ok(Copied { notifications: count.unsigned_abs(), contents })
}

/// Opens a file that no other process looks at, without the engine's own locks, which a network share may not have.
fn open_alone(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    Connection::open_with_flags_and_vfs(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX, c"unix-none")
}

/// A file that is written beside the one that it becomes. Only one process has it at a time; what a dead one has left of
/// it is taken over. It goes when it has become nothing.
struct Part {
    path: PathBuf,
    file: File,
    is_done: bool,
}

impl Part {
    fn take(target: &Path) -> Result<Self, CopyError> {
        let path = with_suffix(target, ".part");
        let io = |error| CopyError::Io(path.clone(), error);
        for _ in 0..TAKE_TRIES {
            let mut options = File::options();
            options.read(true).write(true).mode(0o600);
            // A link is never followed: it could lead to a file that is somebody else's.
            let (file, is_new) = match options.clone().create_new(true).open(&path) {
                Ok(file) => (file, true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match options.open(&path) {
                    Ok(file) => (file, false),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(io(error)),
                },
                Err(error) => return Err(io(error)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(CopyError::Busy(path)),
                // A file system that knows no locks, as some shares, has to do without.
                Err(TryLockError::Error(_)) => {}
            }
            // Before the lock was had another process may have renamed or removed it.
            if is_at(&file, &path) {
                match file.set_permissions(std::fs::Permissions::from_mode(0o600)) {
                    // A file system that knows no modes, as of a memory stick, has to do without.
                    Err(_) if is_new => {}
                    set => set.map_err(io)?,
                }
                file.set_len(0).map_err(io)?;
                remove(&with_suffix(&path, "-journal"))?;
                return Ok(Self { path, file, is_done: false });
            }
        }
        Err(CopyError::Busy(path))
    }

    fn open(&self, flags: OpenFlags) -> Result<Connection, CopyError> {
        open_alone(&self.path, flags).map_err(|error| CopyError::of_engine(&self.path, error))
    }

    fn expect_room(&self, bytes: u64) -> Result<(), CopyError> {
        let room = Room::in_directory(folder_of(&self.path));
        let Room { bytes: free, .. } = room.map_err(|error| CopyError::Io(self.path.clone(), error))?;
        let needed = bytes.saturating_add(SPARE_BYTES);
        match free < needed {
            true => Err(CopyError::Room { path: self.path.clone(), needed, free }),
            false => Ok(()),
        }
    }

    /// What a step's error means: it can be the fault of either side.
    fn failed(&self, source: &Path, error: rusqlite::Error) -> CopyError {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::CannotOpen) => {
                CopyError::of_engine(&self.path, error)
            }
            _ => CopyError::of_engine(source, error),
        }
    }

    /// Gives it its own name, on disk with all that is in it.
    fn become_file(mut self, target: &Path) -> Result<(), CopyError> {
        let io = |error| CopyError::Io(target.to_owned(), error);
        self.file.sync_all().map_err(io)?;
        std::fs::rename(&self.path, target).map_err(io)?;
        self.is_done = true;
        match File::open(folder_of(target)).and_then(|folder| folder.sync_all()) {
            // A file system that cannot write a folder by itself, as some shares, does it with the file.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            synced => synced.map_err(io),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_done {
            // What cannot be removed is taken over by the next copy of that name.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether the open file is the one at this path, and no link to it.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(found)) = (file.metadata(), path.symlink_metadata()) else { return false };
    found.is_file() && (open.dev(), open.ino()) == (found.dev(), found.ino())
}

/// Root may restore for another user, who owns the directory and has to be able to use what is in it.
fn give_to_owner(path: &Path, directory: &Path) {
    let (Ok(file), Ok(owner)) = (path.metadata(), directory.metadata()) else { return };
    if (file.uid(), file.gid()) != (owner.uid(), owner.gid()) {
        // Nobody else may, and for nobody else it is needed.
        let _ = chown(path, Some(owner.uid()), Some(owner.gid()));
    }
}

fn remove(path: &Path) -> Result<(), CopyError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CopyError::Io(path.to_owned(), error)),
        _ => Ok(()),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}
