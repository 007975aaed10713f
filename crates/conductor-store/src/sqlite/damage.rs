//! A file that is damaged: a disk has forgotten something, or somebody has written into it.
//!
//! SQLite passes over a log that it cannot read as if nothing had been in it, and reads a damaged page only when it needs
//! it. Neither may cost what was promised without anybody being told.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use conductor_core::StoreError;
use rusqlite::{Connection, Error, ErrorCode};

/// A file up to this size is checked from end to end before it is used: some 40 ms. Of a larger one the start reads what
/// waits, and the rest is found out when it is needed.
const CHECKED_MAX_BYTES: i64 = 16 * 1024 * 1024;

/// Whether damage has been met while the store is in use. It stays so until the next start.
#[derive(Debug, Default)]
pub(crate) struct Damage(AtomicBool);

impl Damage {
    /// Takes note of an engine's error, if it means damage.
    pub(crate) fn note(&self, error: &Error) {
        if is_damage(error) {
            self.met(&error.to_string());
        }
    }

    /// Takes note of damage, and tells it once.
    pub(crate) fn met(&self, what: &str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::error!(
                what,
                "The store's file is damaged: nothing more is accepted, and what can still be read is sent. Stop the \
                 server, then put the last backup in its place or save what can be read; the next start says how"
            );
        }
    }

    /// A damaged store makes no more promises.
    pub(crate) fn refuse(&self) -> Result<(), StoreError> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(StoreError::Failed("its file is damaged; see what was logged before".to_owned())),
            false => Ok(()),
        }
    }
}

/// Whether an engine's error means that the file is damaged.
pub(crate) fn is_damage(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Where the engine keeps what has not been moved into the file yet.
pub(crate) fn log_of(database: &Path) -> PathBuf {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    PathBuf::from(log)
}

/// Looks at the files before the engine does. Some: what is wrong with them.
pub(crate) fn of_files(database: &Path) -> std::io::Result<Option<String>> {
    let log = log_of(database);
    let size = |path: &Path| match path.metadata() {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    let log_size = size(&log)?;
    if log_size > 0 && size(database)? == 0 {
        return Ok(Some(format!("it is missing or empty, but its log, {}, is not", log.display())));
    }
    let what = if log_size > 0 { of_log(&mut BufReader::new(File::open(&log)?))? } else { None };
    Ok(what.map(|what| format!("its log, {}, {what}", log.display())))
}

/// Reads the whole file if it is small. Some: what is wrong with it.
pub(crate) fn of_content(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    if number("PRAGMA page_count")?.saturating_mul(number("PRAGMA page_size")?) > CHECKED_MAX_BYTES {
        return Ok(None);
    }
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then(|| found.lines().last().unwrap_or_default().trim().to_owned()))
}

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The log's first word: its checksums read words as little-endian, or with the last bit set as big-endian.
const MAGIC: u32 = 0x377f_0682;
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 512..=65_536;

/// Reads a write-ahead log. Each transaction is on disk before the next one is begun, so that a process or a machine
/// that dies can only spoil the last one: what is spoilt with another one behind it is damage.
///
/// The format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>
fn of_log(log: &mut impl Read) -> std::io::Result<Option<&'static str>> {
    let mut header = [0; HEADER_BYTES];
    if !fill(log, &mut header)? || header == [0; HEADER_BYTES] {
        return Ok(None);
    }
    let magic = word(&header, 0);
    let mut sum = Sum { words: if magic & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes }, value: (0, 0) };
    sum.add(&header[..24]);
    let page_bytes = usize::try_from(word(&header, 8)).unwrap_or(0);
    if magic & !1 != MAGIC || !PAGE_BYTES.contains(&page_bytes) || sum.value != (word(&header, 24), word(&header, 28)) {
        return Ok(Some("has no valid header"));
    }
    let salt = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let (mut is_spoilt, mut is_ended) = (false, false);
    while fill(log, &mut frame)? {
        let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
        let is_of_this_log = &head[8..16] == salt;
        if !is_spoilt {
            sum.add(&head[..8]);
            sum.add(page);
            is_spoilt = !is_of_this_log || sum.value != (word(head, 16), word(head, 20));
        }
        if is_spoilt && is_of_this_log {
            if is_ended {
                return Ok(Some("is damaged in the middle"));
            }
            // The last page of a transaction tells how large the file has become.
            is_ended = word(head, 4) > 0;
        }
    }
    Ok(None)
}

/// The log's checksum of all that was added.
struct Sum {
    words: fn([u8; 4]) -> u32,
    value: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let (mut first, mut second) = self.value;
        for pair in bytes.chunks_exact(8) {
            let read = |at: usize| (self.words)([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
            first = first.wrapping_add(read(0)).wrapping_add(second);
            second = second.wrapping_add(read(4)).wrapping_add(first);
        }
        self.value = (first, second);
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads as much as fits. False: there is not so much left.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
