//! Reading the log, newest first: block after block, and of a tenant only the blocks in which it has entries.

use conductor_core::audit::{AuditEntry, AuditFilter, AuditPage, Hash};
use conductor_core::{ChannelId, NotificationId, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::{BLOCK, CLOCK_SLACK};
use crate::sqlite::rows;

/// The most entries that one page looks at before it ends, however few have fitted.
const LOOK_MAX: u64 = 20_000;
/// A page ends when its entries are larger than this in all, however few they are.
const PAGE_MAX_BYTES: usize = 1024 * 1024;

/// The columns that [`entry`] reads, of `audit AS a` and `audit_content AS c`.
pub(crate) const ENTRY_COLUMNS: &str = "a.seq, a.at, a.kind, a.actor, a.tenant, a.notification, a.ordinal, \
     a.channel_id, a.details, a.seal, c.content, a.hash";

/// Reads an entry. What is no hash is read as one that fits nothing.
pub(crate) fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let id = |column| row.get::<_, Option<[u8; 16]>>(column);
    let hash = |bytes: Vec<u8>| Hash::try_from(bytes).unwrap_or_default();
    Ok(AuditEntry {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        at: rows::time(row, 1)?,
        kind: row.get(2)?,
        actor: row.get(3)?,
        tenant: id(4)?.map(TenantId::from_bytes),
        notification: id(5)?.map(NotificationId::from_bytes),
        ordinal: row.get(6)?,
        channel: id(7)?.map(ChannelId::from_bytes),
        details: row.get(8)?,
        seal: row.get::<_, Option<Vec<u8>>>(9)?.map(hash),
        content: row.get(10)?,
        hash: row.get(11).map(hash)?,
    })
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
    let at_least = |at: Timestamp| first_from(&snapshot, removed + 1, head + 1, at);
    let mut end = before.map_or(head + 1, |before| before.min(head + 1));
    if let Some(to) = filter.to {
        end = end.min(at_least(to)?);
    }
    let mut begin = removed + 1;
    // An id may be a little ahead of a clock that was put back.
    let made_at = filter.notification.map(|id| id.made_at().minus(CLOCK_SLACK));
    if let Some(from) = filter.from.max(made_at) {
        begin = begin.max(at_least(from)?);
    }
    let blocks = Blocks { tenant, fed_below: (fed + 1) / BLOCK, begin };
    let mut page = Page { tenant, filter, limit, items: Vec::new(), bytes: 0, looked_at: 0, next: None };
    let mut above = end.div_ceil(BLOCK);
    while let Some(block) = blocks.below(&snapshot, above)? {
        let range = (begin.max(block * BLOCK), end.min((block + 1) * BLOCK));
        if !page.take(&snapshot, range)? {
            return Ok(AuditPage { items: page.items, next: page.next });
        }
        above = block;
    }
    Ok(AuditPage { items: page.items, next: None })
}

/// The blocks that may hold something.
struct Blocks {
    tenant: Option<TenantId>,
    /// The index knows of the blocks before this one.
    fed_below: u64,
    begin: u64,
}

impl Blocks {
    /// The last such block before this one.
    fn below(&self, connection: &Connection, block: u64) -> rusqlite::Result<Option<u64>> {
        let first = self.begin / BLOCK;
        let found = match (block.checked_sub(1), &self.tenant) {
            (Some(last), Some(tenant)) if last < self.fed_below => {
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

/// A page that is being filled.
struct Page<'a> {
    tenant: Option<TenantId>,
    filter: &'a AuditFilter,
    limit: usize,
    items: Vec<AuditEntry>,
    bytes: usize,
    looked_at: u64,
    next: Option<u64>,
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
            let entry = entry(row)?;
            if self.filter.takes(&entry) {
                self.bytes += entry.details.as_ref().map_or(0, String::len);
                self.bytes += entry.content.as_ref().map_or(0, String::len);
                self.items.push(entry);
            }
        }
        Ok(true)
    }
}

fn is_of(row: &Row<'_>, tenant: TenantId) -> bool {
    row.get_ref(4).is_ok_and(|value| value.as_blob().is_ok_and(|bytes| bytes == tenant.bytes()))
}

/// The first entry of these that was written at this time or later, as far as their times go up.
pub(crate) fn first_from(connection: &Connection, begin: u64, end: u64, at: Timestamp) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("SELECT at FROM audit WHERE seq = ?1")?;
    let (mut low, mut high) = (begin, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let written = statement.query_row([middle.cast_signed()], |row| rows::time(row, 0)).optional()?;
        if written.is_some_and(|written| written < at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
