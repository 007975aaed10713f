//! The audit log of a store, read beside the process that owns it, or while there is none.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use conductor_core::audit::{self, AuditEntry, AuditFilter, AuditKind, ChainCheck, ChainFault, Hash, Posted, Salt};
use conductor_core::{NotificationId, TenantId};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use crate::migrate::{MigrateError, refuse_foreign};
use crate::sqlite::OpenError;
use crate::sqlite::audit::BLOCK;
use crate::sqlite::audit::page::{ENTRY_COLUMNS, entry, hash, is_fed, is_unreadable};

/// So many entries are read at once, so that the store can write into its file meanwhile.
const CHUNK: i64 = 2_048;
/// So many of those that follow help to tell what happened to an entry.
const FOLLOWING: usize = 1_000;
/// So many faults are told one by one; further ones are counted.
const FAULTS_TOLD_MAX: u64 = 1_000;
/// So often it begins anew because old entries were removed meanwhile.
const BEGINS_MAX: usize = 3;

/// A store's audit log. Nothing is changed in the file.
pub struct AuditFile {
    connection: Connection,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditFileError {
    /// There is no store.
    #[error("{0}: there is no store")]
    Missing(PathBuf),
    /// The store was made by a version that had no audit log, and no later one has opened it.
    #[error("{0}: the store has no audit log yet; the first start of this version begins it")]
    TooOld(PathBuf),
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Reading failed.
    #[error("the audit log cannot be read: {0}")]
    Engine(#[from] rusqlite::Error),
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditFault {
    /// In the chain.
    Chain(ChainFault),
    /// What an entry said for a while was changed.
    Content(u64),
    /// A notification does not say what was accepted.
    Notification(u64, NotificationId),
    /// The index of tenants' entries lacks this one, so its tenant does not see it.
    Hidden(u64),
    /// The chain does not end as the store says.
    Head(u64),
    /// The store does not say where the chain begins and ends.
    NoHead,
    /// At a start, the log did not end as it had ended.
    Broken(u64),
    /// The entries up to this one are gone, and no entry says that they were old.
    Beginning(u64),
    /// The entry that was noted elsewhere is another one now.
    Noted(u64),
    /// The entry that was noted elsewhere is missing.
    NotedMissing(u64),
}

impl fmt::Display for AuditFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(fault) => fault.fmt(f),
            Self::Content(seq) => write!(f, "the content of entry {seq} was changed"),
            Self::Notification(seq, id) => {
                write!(f, "notification {id} does not say what was accepted with entry {seq}: it was changed")
            }
            Self::Hidden(seq) => {
                write!(f, "entry {seq} does not show in its tenant's list: the table audit_feed was changed")
            }
            Self::Head(seq) => {
                write!(f, "entry {seq} is the last, but not the one that was written last: one of the two was changed")
            }
            Self::NoHead => {
                f.write_str("the store no longer says where the log ends: the table audit_state was changed")
            }
            Self::Broken(seq) => {
                write!(f, "entry {seq} says that entries were removed from the log's end, or added, before that start")
            }
            Self::Beginning(seq) => {
                write!(f, "the entries 1 to {seq} were removed, and no entry says that they were old enough")
            }
            Self::Noted(seq) => write!(f, "entry {seq} is not the one that was noted: the log was written anew"),
            Self::NotedMissing(seq) => write!(f, "entry {seq} was noted and is missing: the log was cut"),
        }
    }
}

/// What a look through the whole log came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditVerdict {
    /// The first entry that is kept; 1 unless old ones were removed.
    pub first: u64,
    /// How many entries there are.
    pub entries: u64,
    /// The last one: its number and hash. To be noted elsewhere, because whoever can write the file can cut the log or
    /// write it anew as a whole.
    pub head: (u64, Hash),
    /// How many faults there are.
    pub faults: u64,
}

/// Where the chain begins and ends, and the last entry there is.
struct State {
    head: (u64, Hash),
    removed: (u64, Hash),
    last: u64,
    /// Up to where the index of tenants' entries goes.
    fed_through: u64,
    /// The store does not say where the chain begins and ends.
    is_missing: bool,
}

impl AuditFile {
    /// Opens the log of the store in this directory.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, AuditFileError> {
        let path = directory.join(crate::sqlite::FILE);
        if !path.exists() {
            return Err(AuditFileError::Missing(path));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let engine = |error| OpenError::of_engine(&path, error);
        let connection = Connection::open_with_flags(&path, flags).map_err(engine)?;
        connection.execute_batch("PRAGMA busy_timeout = 5000").map_err(engine)?;
        refuse_foreign(&connection).map_err(|error: MigrateError| OpenError::of_migration(&path, error))?;
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'audit_state'";
        match connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(engine)? {
            0 => Err(AuditFileError::TooOld(path)),
            _ => Ok(Self { connection }),
        }
    }

    /// Gives each entry that fits, oldest first, until `each` fails.
    ///
    /// # Errors
    /// The log cannot be read, or `each` has failed.
    pub fn export<E: From<AuditFileError>>(
        &self,
        tenant: Option<TenantId>,
        filter: &AuditFilter,
        mut each: impl FnMut(&AuditEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let state = self.state()?;
        let mut after = state.removed.0;
        loop {
            let Chunk { entries: chunk, .. } = self.chunk(after, state.last).map_err(AuditFileError::from)?;
            let Some(last) = chunk.last() else { return Ok(()) };
            after = last.seq;
            for entry in &chunk {
                if tenant.is_none_or(|tenant| entry.tenant == Some(tenant)) && filter.takes(entry) {
                    each(entry)?;
                }
            }
        }
    }

    /// Looks through the whole log and tells each fault, the first thousand of very many. `noted` is an entry whose
    /// number and hash were noted elsewhere; one from before [`AuditVerdict::first`] proves nothing any more.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn verify(
        &self,
        noted: Option<(u64, Hash)>,
        mut tell: impl FnMut(AuditFault),
    ) -> Result<AuditVerdict, AuditFileError> {
        for _ in 1..BEGINS_MAX {
            let mut faults = Vec::new();
            let verdict = self.walk(noted, |fault| faults.push(fault))?;
            // Old entries that went in the middle of it look as if somebody had removed them.
            if faults.is_empty() || self.state()?.removed.0 < verdict.first {
                faults.into_iter().for_each(tell);
                return Ok(verdict);
            }
        }
        self.walk(noted, &mut tell)
    }

    fn walk(
        &self,
        noted: Option<(u64, Hash)>,
        mut tell: impl FnMut(AuditFault),
    ) -> Result<AuditVerdict, AuditFileError> {
        let state = self.state()?;
        let (mut entries, mut faults) = (0, 0);
        let mut tell = |fault| {
            faults += 1;
            if faults <= FAULTS_TOLD_MAX {
                tell(fault);
            }
        };
        let mut check = ChainCheck::behind(state.removed.0, state.removed.1);
        let mut removal_is_told = state.removed.0 == 0;
        let mut was_faulty = false;
        for seq in self.before_the_first(&state)? {
            tell(AuditFault::Chain(ChainFault::Inserted(seq)));
        }
        let mut window = Window::new(self, state.last);
        let mut index = Index { file: self, fed_through: state.fed_through, block: 0, found: HashSet::new() };
        while let Some(Seen { entry, is_whole, salt, following }) = window.next(state.removed.0)? {
            entries += 1;
            let was_at_the_end = check.place() >= state.head.0;
            let fault = match check.next(entry, following) {
                // What cannot be read is not what was written, whatever the rest of it looks like.
                None | Some(ChainFault::Unproven(_)) if !is_whole => Some(ChainFault::Changed(entry.seq)),
                fault => fault,
            };
            was_faulty = fault.is_some();
            if was_at_the_end && !state.is_missing {
                tell(AuditFault::Chain(ChainFault::Inserted(entry.seq)));
            } else if let Some(fault) = fault {
                tell(AuditFault::Chain(fault));
            } else if index.lacks(entry)? {
                tell(AuditFault::Hidden(entry.seq));
            }
            if let Some(fault) = self.fault_of_content(entry, salt)? {
                tell(fault);
            }
            if entry.kind == AuditKind::ChainBroken.as_str() {
                tell(AuditFault::Broken(entry.seq));
            }
            removal_is_told |= tells_of_removal(entry, &state);
        }
        if !removal_is_told {
            tell(AuditFault::Beginning(state.removed.0));
        }
        let end = check.place();
        if state.is_missing {
            tell(AuditFault::NoHead);
        } else if end < state.head.0 {
            tell(AuditFault::Chain(ChainFault::Removed { from: end + 1, to: state.head.0 }));
        } else if end == state.head.0 && !check.is_at(state.head.0, &state.head.1) && !was_faulty {
            tell(AuditFault::Head(check.last()));
        }
        if let Some(fault) = self.fault_of_noted(noted, &state)? {
            tell(fault);
        }
        Ok(AuditVerdict { first: state.removed.0 + 1, entries, head: state.head, faults })
    }

    fn state(&self) -> Result<State, AuditFileError> {
        let sql = "SELECT s.head_seq, s.head_hash, s.removed_through, s.removed_hash, (SELECT max(seq) FROM audit), \
                   s.id, s.fed_through FROM (SELECT 1) LEFT JOIN audit_state AS s ON s.id = 1";
        let number = |row: &Row<'_>, column| row.get::<_, Option<i64>>(column).map(|n| n.unwrap_or(0).cast_unsigned());
        Ok(self.connection.query_row(sql, [], |row| {
            let (head, removed) = ((number(row, 0)?, hash(row, 1)?), (number(row, 2)?, hash(row, 3)?));
            let (last, fed_through) = (number(row, 4)?, number(row, 6)?);
            Ok(State { head, removed, last, fed_through, is_missing: row.get::<_, Option<i64>>(5)?.is_none() })
        })?)
    }

    /// What stands where the chain has not begun yet: no entry is written there, and old ones are gone.
    fn before_the_first(&self, state: &State) -> rusqlite::Result<Vec<u64>> {
        let mut statement = self.connection.prepare_cached("SELECT seq FROM audit WHERE seq <= ?1 ORDER BY seq")?;
        let found = statement.query_map([state.removed.0.cast_signed()], |row| row.get(0).map(i64::cast_unsigned))?;
        found.collect()
    }

    /// Some entries behind this one.
    fn chunk(&self, after: u64, through: u64) -> rusqlite::Result<Chunk> {
        let sql = format!(
            "SELECT {ENTRY_COLUMNS}, c.salt AS salt FROM audit AS a LEFT JOIN audit_content AS c ON c.seq = a.seq \
             WHERE a.seq > ?1 AND a.seq <= ?2 ORDER BY a.seq LIMIT ?3"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut found = statement.query((after.cast_signed(), through.cast_signed(), CHUNK))?;
        let mut chunk = Chunk::default();
        while let Some(row) = found.next()? {
            let (entry, is_whole) = entry(row)?;
            chunk.salts.extend(salt_in(row)?.map(|salt| (entry.seq, salt)));
            chunk.unreadable.extend((!is_whole).then_some(entry.seq));
            chunk.entries.push(entry);
        }
        Ok(chunk)
    }

    /// Whether what an entry seals is still what it was, as far as it is there.
    fn fault_of_content(&self, entry: &AuditEntry, salt: Option<&Salt>) -> rusqlite::Result<Option<AuditFault>> {
        let Some(seal) = entry.seal else { return Ok(None) };
        if let (Some(content), Some(salt)) = (&entry.content, salt) {
            return Ok((audit::seal(salt, content) != seal).then_some(AuditFault::Content(entry.seq)));
        }
        let Some(id) = entry.notification.filter(|_| entry.kind == AuditKind::Accepted.as_str()) else {
            return Ok(None);
        };
        let sql = "SELECT target, message, title, data, metadata, key, fallback, salt FROM notification \
                   WHERE id = ?1 AND redacted_at IS NULL";
        let is_right = self.connection.prepare_cached(sql)?.query_row([id.bytes()], |row| {
            let text = |column| row.get::<_, Option<String>>(column);
            let (target, message, title) = (text(0)?, row.get::<_, String>(1)?, text(2)?);
            let (data, metadata, key, fallback) = (text(3)?, text(4)?, text(5)?, text(6)?);
            let posted = Posted {
                target: target.as_deref(),
                message: &message,
                title: title.as_deref(),
                data: data.as_deref(),
                metadata: metadata.as_deref(),
                key: key.as_deref(),
                fallback: fallback.as_deref(),
            };
            Ok(salt_in(row)?.is_some_and(|salt| posted.seal(&salt) == seal))
        });
        let is_right = match is_right {
            Err(error) if is_unreadable(&error) => Some(false),
            is_right => is_right.optional()?,
        };
        Ok(is_right.filter(|is_right| !is_right).map(|_| AuditFault::Notification(entry.seq, id)))
    }

    fn fault_of_noted(&self, noted: Option<(u64, Hash)>, state: &State) -> rusqlite::Result<Option<AuditFault>> {
        let Some((seq, noted)) = noted.filter(|(seq, _)| *seq > state.removed.0) else { return Ok(None) };
        let sql = "SELECT hash FROM audit WHERE seq = ?1";
        let found = self.connection.query_row(sql, [seq.cast_signed()], |row| hash(row, 0)).optional()?;
        Ok(match found {
            None => Some(AuditFault::NotedMissing(seq)),
            Some(found) => (found != noted).then_some(AuditFault::Noted(seq)),
        })
    }
}

fn salt_in(row: &Row<'_>) -> rusqlite::Result<Option<Salt>> {
    Ok(row.get::<_, Option<Vec<u8>>>("salt")?.and_then(|bytes| Salt::try_from(bytes).ok()))
}

/// Whether an entry says that all up to where the log begins now was old enough.
fn tells_of_removal(entry: &AuditEntry, state: &State) -> bool {
    let (through, hash) = &state.removed;
    let details = entry.details.as_deref().filter(|_| entry.kind == AuditKind::EntriesRemoved.as_str());
    let details = details.and_then(|details| serde_json::from_str::<serde_json::Value>(details).ok());
    details.is_some_and(|details| {
        details["through"].as_u64() == Some(*through) && details["hash"].as_str() == Some(&audit::hex(hash))
    })
}

/// Some entries in their order.
#[derive(Default)]
struct Chunk {
    entries: Vec<AuditEntry>,
    /// The salts of their contents.
    salts: HashMap<u64, Salt>,
    /// Those of which something cannot be read.
    unreadable: HashSet<u64>,
}

/// What the store's index of tenants' entries has to know, block by block.
struct Index<'a> {
    file: &'a AuditFile,
    fed_through: u64,
    block: u64,
    /// The tenants that the index has in this block.
    found: HashSet<TenantId>,
}

impl Index<'_> {
    /// Whether it should know of this entry and does not.
    fn lacks(&mut self, entry: &AuditEntry) -> rusqlite::Result<bool> {
        let block = entry.seq / BLOCK;
        let Some(tenant) = entry.tenant.filter(|_| is_fed(block, self.fed_through)) else { return Ok(false) };
        if block != self.block {
            self.block = block;
            self.found.clear();
        }
        if self.found.contains(&tenant) {
            return Ok(false);
        }
        let sql = "SELECT 1 FROM audit_feed WHERE tenant = ?1 AND block = ?2";
        let is_there = self.file.connection.prepare_cached(sql)?.exists((tenant.bytes(), block.cast_signed()))?;
        if is_there {
            self.found.insert(tenant);
        }
        Ok(!is_there)
    }
}

/// The entries in their order, with some of those that follow each.
struct Window<'a> {
    file: &'a AuditFile,
    through: u64,
    known: Chunk,
    /// The next one.
    at: usize,
    /// The last one that was read, if any was.
    last: Option<u64>,
    is_over: bool,
}

/// An entry and what is known of it.
struct Seen<'a> {
    entry: &'a AuditEntry,
    /// All of it could be read.
    is_whole: bool,
    /// Of its content.
    salt: Option<&'a Salt>,
    following: &'a [AuditEntry],
}

impl<'a> Window<'a> {
    fn new(file: &'a AuditFile, through: u64) -> Self {
        Self { file, through, known: Chunk::default(), at: 0, last: None, is_over: false }
    }

    /// The next entry.
    fn next(&mut self, after: u64) -> rusqlite::Result<Option<Seen<'_>>> {
        let known = &mut self.known;
        if !self.is_over && known.entries.len() - self.at <= FOLLOWING {
            known.entries.drain(..self.at);
            self.at = 0;
            let more = self.file.chunk(self.last.unwrap_or(after), self.through)?;
            self.is_over = more.entries.is_empty();
            self.last = more.entries.last().map(|entry| entry.seq).or(self.last);
            known.entries.extend(more.entries);
            let first = known.entries.first().map_or(0, |entry| entry.seq);
            known.salts.retain(|seq, _| *seq >= first);
            known.salts.extend(more.salts);
            known.unreadable.retain(|seq| *seq >= first);
            known.unreadable.extend(more.unreadable);
        }
        self.at += 1;
        let (known, at) = (&self.known, self.at);
        Ok(known.entries.get(at - 1).map(|entry| Seen {
            entry,
            is_whole: !known.unreadable.contains(&entry.seq),
            salt: known.salts.get(&entry.seq),
            following: &known.entries[at..known.entries.len().min(at + FOLLOWING)],
        }))
    }
}
