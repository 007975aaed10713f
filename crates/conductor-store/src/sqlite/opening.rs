//! Opening the files: whose they are, whether they are sound, how the engine is to treat them.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{LOCK_FILE, damage, retention};
use crate::migrate::{MigrateError, migrate, refuse_foreign, version};

/// A command that looks whether the store has an owner takes the lock for an instant. So long a start waits for that.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns it.
    #[error("{0}: another conductor is using this store")]
    Locked(PathBuf),
    /// The directory or the lock file cannot be used.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] std::io::Error),
    /// The tables could not be brought up to date.
    #[error("{0}: {1}")]
    Migrate(PathBuf, #[source] MigrateError),
    /// A file cannot be read as it was written. Nothing was changed in it.
    #[error("{0}: the store is damaged: {1}")]
    Damaged(PathBuf, String),
    /// The engine failed.
    #[error("{0}: {1}")]
    Engine(PathBuf, #[source] rusqlite::Error),
}

impl OpenError {
    /// What an engine's error means for the start.
    pub(crate) fn of_engine(path: &Path, error: rusqlite::Error) -> Self {
        match damage::is_damage(&error) {
            true => Self::Damaged(path.to_owned(), error.to_string()),
            false => Self::Engine(path.to_owned(), error),
        }
    }

    /// The same for the migrations.
    pub(crate) fn of_migration(path: &Path, error: MigrateError) -> Self {
        match error {
            MigrateError::Engine(error) => Self::of_engine(path, error),
            error => Self::Migrate(path.to_owned(), error),
        }
    }
}

/// Opens the file for the writer, making it if it is missing, and brings its tables up to date. One that is not
/// Conductor's, of a newer version or not sound is refused, and left as it is.
pub(crate) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let engine = |error| OpenError::of_engine(path, error);
    let mut connection = examine(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(engine)?;
    configure(&connection).map_err(engine)?;
    migrate(&mut connection).map_err(|error| OpenError::of_migration(path, error))?;
    retention::make_compactable(&connection).map_err(engine)?;
    Ok(connection)
}

/// Opens the file as [`connect`], and changes nothing in it, also when it is closed.
pub(crate) fn examine(path: &Path) -> Result<Connection, OpenError> {
    let file = |error| OpenError::Io(path.to_owned(), error);
    let engine = |error| OpenError::of_engine(path, error);
    let sound = |damage: Option<String>| damage.map_or(Ok(()), |what| Err(OpenError::Damaged(path.to_owned(), what)));
    sound(damage::of_files(path).map_err(file)?)?;
    keep_private(path).map_err(file)?;
    let connection = Connection::open(path).map_err(engine)?;
    leave_log(&connection, path).map_err(engine)?;
    refuse_foreign(&connection).map_err(|error| OpenError::of_migration(path, error))?;
    version(&connection).map_err(|error| OpenError::of_migration(path, error))?;
    sound(damage::of_content(&connection).map_err(engine)?)?;
    Ok(connection)
}

/// Opens a file that is there for reading alone, also while a server writes it. Of one that no server owns the log is
/// looked at first: the engine would pass over one that is damaged.
pub(crate) fn look_into(path: &Path) -> Result<Connection, OpenError> {
    let file = |error| OpenError::Io(path.to_owned(), error);
    let engine = |error| OpenError::of_engine(path, error);
    // A log that is being written looks damaged to whoever reads it meanwhile.
    if let Some(what) = damage::of_files(path).map_err(file)?
        && !path.parent().is_some_and(is_owned)
    {
        return Err(OpenError::Damaged(path.to_owned(), what));
    }
    // Who may not write cannot take away, when the file is closed, what the engine made beside it to read it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(engine)?;
    leave_log(&connection, path).map_err(engine)?;
    let settings = "PRAGMA query_only = 1; PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY";
    connection.execute_batch(settings).map_err(engine)?;
    refuse_foreign(&connection).map_err(|error| OpenError::of_migration(path, error))?;
    Ok(connection)
}

/// A log with something in it stays when the file is closed; one that is empty goes.
fn leave_log(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    let has_log = damage::log_of(path).metadata().is_ok_and(|log| log.len() > 0);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log).map(drop)
}

/// Takes the store for this process, as long as the file is held.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| OpenError::Io(path.to_owned(), error))?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begin.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(OpenError::Io(path.to_owned(), error)),
        }
    }
}

/// Whether a process owns the store in this directory. Makes nothing.
pub(crate) fn is_owned(directory: &Path) -> bool {
    let lock = File::open(directory.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Makes the file, if it is missing, so that only its owner can read it: it holds people's messages.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// How the engine treats the file.
pub(crate) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA secure_delete = FAST; PRAGMA journal_mode = WAL; \
         PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 2000; PRAGMA cache_size = -8000; \
         PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864; PRAGMA busy_timeout = 5000",
    )
}
