//! What a start does about the process before it.

use conductor_core::retry::BACKOFF;
use conductor_core::{Status, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::audit::{self, Head, Ledger, Sealer};
use super::memory::Memory;
use super::rows;
use super::work::{Cause, StateChange, Work};
use super::write::{self, WAITING_COLUMNS, Waiting};

/// So many attempts of one delivery may be lost to a dying process before it waits longer from start to start.
const LOST_FREELY: u32 = 3;

/// Finds out how the last process ended. Attempts that it took with it are written down, so that a message which kills
/// the process is slowed down from start to start instead of looping. Returns whether it died, and where the audit log ends.
pub(crate) fn recover(
    connection: &Connection,
    memory: &Memory,
    now: Timestamp,
    sealer: &Sealer,
) -> rusqlite::Result<(bool, Head)> {
    let (head, broken) = audit::load_head(connection)?;
    let transaction = Work::begin(connection, Ledger::behind(head, now, sealer))?;
    if let Some(broken) = broken {
        transaction.append(&broken)?;
    }
    let clean: Option<bool> = transaction
        .query_row("SELECT value FROM meta WHERE name = 'stopped_cleanly'", [], |row| row.get(0))
        .optional()?;
    transaction.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('stopped_cleanly', 0)", [])?;
    // A new store has nothing in it that could have been under way.
    let unclean = clean == Some(false);
    if unclean {
        for waiting in under_way(&transaction)? {
            let change = StateChange::of(&waiting, Status::Retrying, now, Cause::Lost);
            transaction.note_state(&change)?;
        }
        let sql = "INSERT INTO attempt (notification, ordinal, number, at, duration_ms, outcome, detail) \
                   SELECT notification, ordinal, attempts + 1, ?1, 0, 'unknown', \
                   'the server stopped while this attempt was under way' FROM pending WHERE claimed > 0";
        transaction.execute(sql, [now.millis()])?;
        let sql = "UPDATE pending SET attempts = attempts + 1, failures = failures + 1, lost = lost + 1, claimed = 0, \
                   due_at = ?1 + CASE WHEN lost < ?2 THEN 0 ELSE min(?3 << min(lost - ?2, 20), ?4) END \
                   WHERE claimed > 0";
        let (step, most) = (rows::millis(BACKOFF[0]), rows::millis(BACKOFF[BACKOFF.len() - 1]));
        transaction.execute(sql, (now.millis(), LOST_FREELY, step, most))?;
    } else {
        transaction.execute("UPDATE pending SET claimed = 0 WHERE claimed > 0", [])?;
    }
    Ok((unclean, transaction.commit(memory)?.head))
}

/// The deliveries of which the last process had written down that an attempt was about to be made.
fn under_way(connection: &Connection) -> rusqlite::Result<Vec<Waiting>> {
    let sql = format!("SELECT {WAITING_COLUMNS} FROM pending WHERE claimed > 0");
    connection.prepare(&sql)?.query_map([], write::waiting)?.collect()
}
