//! Reading the log, newest first: block after block, and of a tenant only the blocks in which it has entries.

use conductor_core::audit::{AuditEntry, AuditFilter, AuditPage, Hash};
use conductor_core::{AuditKind, ChannelId, NotificationId, TenantId};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Row};

use super::BLOCK;
use crate::sqlite::rows;

/// The most entries that one page looks at before it ends, however few have fitted.
const LOOK_MAX: u64 = 20_000;
/// A page ends when its entries are larger than this in all, however few they are.
const PAGE_MAX_BYTES: usize = 1024 * 1024;

/// The columns that [`entry`] reads, of `audit AS a` and `audit_content AS c`.
pub(crate) const ENTRY_COLUMNS: &str = "a.seq, a.at, a.kind, a.actor, a.tenant, a.notification, a.ordinal, \
     a.channel_id, a.details, a.seal, c.content, a.hash";

/// Reads an entry, and whether each of its fields could be read. One that cannot be, which only somebody else can have
/// written, is left out or shown as far as it goes: it must hide neither itself nor the other entries. What is no hash is
/// read as one that fits nothing. The content does not count: its seal tells of it.
pub(crate) fn entry(row: &Row<'_>) -> rusqlite::Result<(AuditEntry, bool)> {
    let mut is_whole = true;
    let hash = |bytes: Vec<u8>| Hash::try_from(bytes).unwrap_or_default();
    let whole = &mut is_whole;
    let entry = AuditEntry {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        at: rows::time(row, 1)?,
        kind: text(row, 2, whole)?.unwrap_or_default(),
        actor: text(row, 3, whole)?.unwrap_or_default(),
        tenant: if_readable(row.get(4), whole)?.map(TenantId::from_bytes),
        notification: if_readable(row.get(5), whole)?.map(NotificationId::from_bytes),
        ordinal: if_readable(row.get(6), whole)?,
        channel: if_readable(row.get(7), whole)?.map(ChannelId::from_bytes),
        details: text(row, 8, whole)?,
        seal: if_readable(row.get(9), whole)?.map(hash),
        content: text(row, 10, &mut true)?,
        hash: if_readable(row.get(11), whole)?.map(hash).unwrap_or_default(),
    };
    Ok((entry, is_whole))
}

/// A hash. What is none, or is not there, is read as one that fits nothing.
pub(crate) fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Hash> {
    let bytes = row.get::<_, Option<Vec<u8>>>(column)?.unwrap_or_default();
    Ok(Hash::try_from(bytes).unwrap_or_default())
}

/// Whether a value was read, but is none of its column. Everything else is damage of the file.
pub(crate) fn is_unreadable(error: &Error) -> bool {
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}

fn if_readable<T>(found: rusqlite::Result<Option<T>>, is_whole: &mut bool) -> rusqlite::Result<Option<T>> {
    found.or_else(|error| {
        *is_whole = false;
        if is_unreadable(&error) { Ok(None) } else { Err(error) }
    })
}

fn text(row: &Row<'_>, column: usize, is_whole: &mut bool) -> rusqlite::Result<Option<String>> {
    if let ValueRef::Text(bytes) = row.get_ref(column)? {
        let text = String::from_utf8_lossy(bytes);
        *is_whole &= std::str::from_utf8(bytes).is_ok();
        return Ok(Some(text.into_owned()));
    }
    if_readable(row.get(column), is_whole)
}

/// A part of the log, newest first: a tenant's, or all of it.
pub(crate) fn read(
    connection: &Connection,
    tenant: Option<TenantId>,
    filter: &AuditFilter,
    limit: usize,
    before: Option<u64>,
) -> rusqlite::Result<AuditPage> {
    // One snapshot, so that what is fed or removed meanwhile is neither missed nor seen twice.
    let snapshot = connection.unchecked_transaction()?;
    let sql = "SELECT head_seq, removed_through, fed_through FROM audit_state WHERE id = 1";
    let number = |row: &Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let (head, removed, fed) =
        snapshot.query_row(sql, [], |row| Ok((number(row, 0)?, number(row, 1)?, number(row, 2)?)))?;
    // A time is not searched for: the entries' times go back where the clock was put back.
    let end = before.map_or(head + 1, |before| before.min(head + 1));
    let begin = removed + 1;
    let blocks = Blocks { tenant, fed_through: fed, begin };
    let mut page =
        Page { tenant, filter, limit, items: Vec::new(), bytes: 0, looked_at: 0, next: None, is_over: false };
    let mut above = end.div_ceil(BLOCK);
    while let Some(block) = blocks.below(&snapshot, above)? {
        let range = (begin.max(block * BLOCK), end.min((block + 1) * BLOCK));
        if !page.take(&snapshot, range)? {
            return Ok(AuditPage { items: page.items, next: page.next });
        }
        if page.is_over {
            break;
        }
        above = block;
    }
    Ok(AuditPage { items: page.items, next: None })
}

/// The blocks that may hold something.
struct Blocks {
    tenant: Option<TenantId>,
    /// The index knows of the entries up to this one.
    fed_through: u64,
    begin: u64,
}

impl Blocks {
    /// The last such block before this one.
    fn below(&self, connection: &Connection, block: u64) -> rusqlite::Result<Option<u64>> {
        let first = self.begin / BLOCK;
        let found = match (block.checked_sub(1), &self.tenant) {
            (Some(last), Some(tenant)) if is_fed(last, self.fed_through) => {
                let sql = "SELECT max(block) FROM audit_feed WHERE tenant = ?1 AND block <= ?2";
                let row = (tenant.bytes(), last.cast_signed());
                let found: Option<i64> = connection.prepare_cached(sql)?.query_row(row, |row| row.get(0))?;
                found.map(i64::cast_unsigned)
            }
            (last, _) => last,
        };
        Ok(found.filter(|block| *block >= first))
    }
}

/// Whether this block is one of those that the index knows, if it is fed up to this entry.
pub(crate) fn is_fed(block: u64, fed_through: u64) -> bool {
    block < (fed_through + 1) / BLOCK
}

/// A page that is being filled.
struct Page<'a> {
    tenant: Option<TenantId>,
    filter: &'a AuditFilter,
    limit: usize,
    items: Vec<AuditEntry>,
    bytes: usize,
    looked_at: u64,
    next: Option<u64>,
    /// Nothing before can fit.
    is_over: bool,
}

impl Page<'_> {
    /// Takes what fits of these entries, newest first. False: the page is full.
    fn take(&mut self, connection: &Connection, (begin, end): (u64, u64)) -> rusqlite::Result<bool> {
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM audit AS a LEFT JOIN audit_content AS c ON c.seq = a.seq \
             WHERE a.seq >= ?1 AND a.seq < ?2 ORDER BY a.seq DESC"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut found = statement.query((begin.cast_signed(), end.cast_signed()))?;
        while let Some(row) = found.next()? {
            if self.items.len() == self.limit || self.bytes > PAGE_MAX_BYTES || self.looked_at >= LOOK_MAX {
                return Ok(false);
            }
            self.looked_at += 1;
            self.next = Some(row.get::<_, i64>(0)?.cast_unsigned());
            if self.tenant.is_some_and(|tenant| !is_of(row, tenant)) {
                continue;
            }
            let (entry, _) = entry(row)?;
            // A notification's first entry is that it was accepted: the rest of a long log need not be looked at.
            let is_first = entry.notification.is_some() && entry.notification == self.filter.notification;
            self.is_over = is_first && entry.kind == AuditKind::Accepted.as_str();
            if self.filter.takes(&entry) {
                self.bytes += entry.details.as_ref().map_or(0, String::len);
                self.bytes += entry.content.as_ref().map_or(0, String::len);
                self.items.push(entry);
            }
            if self.is_over {
                break;
            }
        }
        Ok(true)
    }
}

fn is_of(row: &Row<'_>, tenant: TenantId) -> bool {
    row.get_ref(4).is_ok_and(|value| value.as_blob().is_ok_and(|bytes| bytes == tenant.bytes()))
}
