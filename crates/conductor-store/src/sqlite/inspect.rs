//! A look at a store from outside, also while a server uses it: what an operator wants to know of it.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use conductor_core::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::contents::Contents;
use super::opening::{self, OpenError};
use super::{FILE, damage, retention, rows};
use crate::migrate::{known, version};

/// How often a look that takes too long is told to end.
const AGAIN: Duration = Duration::from_millis(1);

/// What can be seen of a store from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// A process is using it.
    pub is_owned: bool,
    /// What it holds.
    pub contents: Contents,
    /// How many migrations this program knows.
    pub known: u32,
    /// The size of the log beside the file in bytes: what has not been moved into the file yet.
    pub log_bytes: u64,
    /// Whether the file gives empty room back to the file system.
    pub shrinks: bool,
    /// When the oldest notification that waits was accepted.
    pub oldest_waiting: Option<Timestamp>,
    /// When the delivery was due that has been due for the longest time; what is held is not due.
    pub longest_due: Option<Timestamp>,
    /// Dead letters: what failed, expired or did not arrive, and has not been tried again.
    pub dead_letters: u64,
    /// Endpoints for callbacks that want no more: their receivers have said so.
    pub disabled_endpoints: u64,
}

/// What a look through every page came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Soundness {
    /// All pages are as they were written.
    Sound,
    /// They are not, and what is wrong first.
    Damaged(String),
    /// The time did not suffice; nothing wrong was found in it.
    Unfinished,
}

/// Looks at the store in `directory`; none where there is none. Goes through everything that waits, but not through what
/// has ended. Changes nothing.
///
/// # Errors
/// The file cannot be read, or is no store of this version or an older one.
pub fn inspect(directory: &Path, now: Timestamp) -> Result<Option<Inspection>, OpenError> {
    let path = directory.join(FILE);
    if path.metadata().is_ok_and(|file| file.len() == 0) || !path.exists() {
        let log = damage::of_files(&path).map_err(|error| OpenError::Io(path.clone(), error))?;
        return log.map_or(Ok(None), |what| Err(OpenError::Damaged(path, what)));
    }
    let engine = |error| OpenError::of_engine(&path, error);
    let connection = opening::look_into(&path)?;
    let version = version(&connection).map_err(|error| OpenError::of_migration(&path, error))?;
    let look = |connection: &Connection| {
        let time = |sql: &str| connection.query_row(sql, [], |row| rows::time(row, 0)).optional();
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
        let first = "SELECT accepted_at FROM notification WHERE id = (SELECT notification FROM pending WHERE NOT held \
                     ORDER BY notification LIMIT 1)";
        let due = "SELECT due_at FROM pending WHERE NOT held ORDER BY due_at LIMIT 1";
        let dead = "SELECT count(*) FROM ended AS e WHERE e.status IN ('failed', 'expired', 'undelivered') AND NOT EXISTS \
                    (SELECT 1 FROM pending AS p WHERE p.notification = e.notification) AND NOT EXISTS (SELECT 1 FROM \
                    ended AS later WHERE later.notification = e.notification AND later.ordinal > e.ordinal)";
        let disabled = match has_table(connection, "callback_endpoint")? {
            true => count("SELECT count(*) FROM callback_endpoint WHERE disabled_at IS NOT NULL")?,
            false => 0,
        };
        Ok(Inspection {
            is_owned: opening::is_owned(directory),
            contents: Contents::read(connection, version, now)?,
            known: known(),
            log_bytes: damage::log_of(&path).metadata().map_or(0, |log| log.len()),
            shrinks: retention::is_compactable(connection)?,
            oldest_waiting: time(first)?,
            longest_due: time(due)?,
            dead_letters: count(dead)?,
            disabled_endpoints: disabled,
        })
    };
    match version {
        // Nothing is in it yet: a server died while it made it.
        0 => Ok(None),
        _ => look(&connection).map(Some).map_err(engine),
    }
}

/// An older version has not all tables.
fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.prepare("SELECT 1 FROM sqlite_schema WHERE name = ?1")?.exists([name])
}

/// Looks through every page of the store in `directory`, for `time` at the most. Reads only.
///
/// # Errors
/// The file cannot be read.
pub fn look_through(directory: &Path, time: Duration) -> Result<Soundness, OpenError> {
    let path = directory.join(FILE);
    let connection = opening::look_into(&path)?;
    let interrupt = connection.get_interrupt_handle();
    let (done, is_done) = mpsc::channel::<()>();
    let found: rusqlite::Result<String> = std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut wait = time;
            while is_done.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
                // One that comes before the look has begun is forgotten.
                interrupt.interrupt();
                wait = AGAIN;
            }
        });
        let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        drop(done);
        found
    });
    match found {
        Ok(found) if found == "ok" => Ok(Soundness::Sound),
        Ok(found) => Ok(Soundness::Damaged(found.lines().last().unwrap_or_default().trim().to_owned())),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(Soundness::Unfinished),
        Err(error) if damage::is_damage(&error) => Ok(Soundness::Damaged(error.to_string())),
        Err(error) => Err(OpenError::Engine(path, error)),
    }
}
