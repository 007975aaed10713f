//! Removes the oldest entries, and content that is older than it may be: in small steps.
//!
//! Entries go only from the beginning, block by block. The hash of the last one stays, and an entry says up to which one
//! they went, so that what is left can still be proved.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_core::audit::{AuditEvent, AuditKind, AuditTidied, Details, Hash, hex};
use conductor_core::{Actor, Retention, StoreError, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::BLOCK;
use crate::sqlite::work::Work;
use crate::sqlite::writer::{Command, Effect};
use crate::sqlite::{SqliteStore, rows};

/// What a step may take of the writer's time.
const STEP_TARGET: Duration = Duration::from_millis(5);
/// The most blocks that one step removes.
const BLOCKS_MAX: u64 = 16;
/// Of so many blocks, one has to end with a time that can be believed.
const BELIEVED_WITHIN: u64 = 64;
/// The most entries with content that one step looks at.
const LOOK_MAX: usize = 1_000;

/// What a step is to do.
#[derive(Debug)]
pub(crate) struct AuditTidy {
    /// Older entries go.
    keep_from: Option<Timestamp>,
    now: Timestamp,
    /// The content of these goes.
    redact: Vec<i64>,
}

impl SqliteStore {
    /// See [`conductor_core::AuditLog::tidy_audit`].
    pub(super) async fn tidy_audit_step(
        &self,
        keep_from: Option<Timestamp>,
        retention: &Arc<Retention>,
        now: Timestamp,
    ) -> Result<AuditTidied, StoreError> {
        let mut place = self.audit_place.lock().await;
        let (from, kept) = (*place, Arc::clone(retention));
        let look = move |connection: &Connection| look(connection, from, keep_from, &kept, now);
        let Looked { wish, through, may_remove } = self.own_readers.read(look).await?;
        let mut done = AuditTidied::default();
        if may_remove || !wish.redact.is_empty() {
            done = self.command(|reply| Command::TidyAudit(Box::new(wish), reply)).await?;
        }
        *place = through.unwrap_or(0);
        done.is_done = through.is_none() && done.removed == 0;
        Ok(done)
    }
}

/// What a look has found.
pub(crate) struct Looked {
    pub(crate) wish: AuditTidy,
    /// How far it has come along the content; none if to the end.
    through: Option<i64>,
    may_remove: bool,
}

/// Looks for content that is too old, behind `from`, and for entries that are.
pub(crate) fn look(
    connection: &Connection,
    from: i64,
    keep_from: Option<Timestamp>,
    retention: &Retention,
    now: Timestamp,
) -> rusqlite::Result<Looked> {
    let snapshot = connection.unchecked_transaction()?;
    let sql = "SELECT c.seq, a.at, a.tenant FROM audit_content AS c CROSS JOIN audit AS a ON a.seq = c.seq \
               WHERE c.seq > ?1 ORDER BY c.seq LIMIT ?2";
    let mut statement = snapshot.prepare_cached(sql)?;
    let read = |row: &Row<'_>| {
        // What is no id, because somebody changed it, must not keep the other content from going.
        let tenant = row.get::<_, Option<[u8; 16]>>(2).ok().flatten().map(TenantId::from_bytes);
        Ok((row.get::<_, i64>(0)?, rows::time(row, 1)?, tenant))
    };
    let found: Vec<_> = statement.query_map((from, rows::count(LOOK_MAX)), read)?.collect::<rusqlite::Result<_>>()?;
    let is_old = |at: Timestamp, tenant: Option<TenantId>| {
        let keep = tenant.map_or(retention.others, |tenant| retention.of(tenant));
        keep.content.or(keep.whole).is_some_and(|age| at <= now.minus(age))
    };
    let through = (found.len() == LOOK_MAX).then(|| found.last().map(|(seq, ..)| *seq)).flatten();
    let redact = found.into_iter().filter(|(_, at, tenant)| is_old(*at, *tenant)).map(|(seq, ..)| seq).collect();
    let may_remove = match keep_from {
        Some(keep_from) => next_block(&snapshot, &Removed::read(&snapshot)?, keep_from, now)?.is_some(),
        None => false,
    };
    Ok(Looked { wish: AuditTidy { keep_from, now, redact }, through, may_remove })
}

/// Up to where entries were removed.
struct Removed {
    through: u64,
    hash: Hash,
    at: Timestamp,
    head: u64,
}

impl Removed {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT removed_through, removed_hash, removed_at, head_seq FROM audit_state WHERE id = 1";
        connection.query_row(sql, [], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            Ok(Self { through: number(0)?, hash: row.get(1)?, at: rows::time(row, 2)?, head: number(3)? })
        })
    }
}

/// What has been removed when the next block is, too, if all in it is old enough. The end of the log always stays.
///
/// A block is as old as its last entry, if that has a time that can be believed: it is not in the future, nor before what
/// came before. One that has not, because the clock was wrong, goes with the first behind it that has.
fn next_block(
    connection: &Connection,
    removed: &Removed,
    keep_from: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<Option<Removed>> {
    let mut statement = connection.prepare_cached("SELECT at, hash FROM audit WHERE seq = ?1")?;
    let first = (removed.through + 1) / BLOCK;
    for block in first..first + BELIEVED_WITHIN {
        let last = block * BLOCK + BLOCK - 1;
        if last >= removed.head {
            break;
        }
        let read = |row: &Row<'_>| Ok((rows::time(row, 0)?, row.get(1)?));
        // Where somebody removed it already, what is left stays, so that it can be seen.
        let Some((at, hash)) = statement.query_row([last.cast_signed()], read).optional()? else { break };
        if (removed.at..=now).contains(&at) {
            let next = Removed { through: last, hash, at, head: removed.head };
            return Ok((at < keep_from).then_some(next));
        }
    }
    Ok(None)
}

/// Does a step, as far as there is time.
pub(crate) fn tidy(work: &Work<'_>, wish: &AuditTidy) -> rusqlite::Result<Effect> {
    let began = Instant::now();
    let mut done = AuditTidied::default();
    let mut statement = work.prepare_cached("DELETE FROM audit_content WHERE seq = ?1")?;
    for seq in &wish.redact {
        done.redacted += statement.execute([seq])? as u64;
    }
    if let Some(keep_from) = wish.keep_from {
        let before = Removed::read(work)?;
        let mut removed = Removed { ..before };
        for _ in 0..BLOCKS_MAX {
            let Some(next) = next_block(work, &removed, keep_from, wish.now)? else { break };
            remove(work, &removed, &next)?;
            removed = next;
            if began.elapsed() >= STEP_TARGET {
                break;
            }
        }
        done.removed = removed.through - before.through;
        if done.removed > 0 {
            let details = Details::new()
                .number("from", before.through + 1)
                .number("through", removed.through)
                .text("hash", &hex(&removed.hash));
            work.append(&AuditEvent::of_server(AuditKind::EntriesRemoved, Actor::Server, details))?;
        }
    }
    Ok(Effect::AuditTidied(done))
}

/// Removes the entries between two places.
fn remove(work: &Work<'_>, from: &Removed, to: &Removed) -> rusqlite::Result<()> {
    let sql = "UPDATE audit_state SET removed_through = ?1, removed_hash = ?2, removed_at = ?3 WHERE id = 1";
    work.prepare_cached(sql)?.execute((to.through.cast_signed(), to.hash, to.at.millis()))?;
    let range = (from.through.cast_signed(), to.through.cast_signed());
    let sql = "DELETE FROM audit_feed WHERE block <= ?3 AND tenant IN \
               (SELECT tenant FROM audit WHERE seq > ?1 AND seq <= ?2)";
    work.prepare_cached(sql)?.execute((range.0, range.1, (to.through / BLOCK).cast_signed()))?;
    for sql in
        ["DELETE FROM audit_content WHERE seq > ?1 AND seq <= ?2", "DELETE FROM audit WHERE seq > ?1 AND seq <= ?2"]
    {
        work.prepare_cached(sql)?.execute(range)?;
    }
    Ok(())
}
