//! Callbacks that will not be sent: thrown away or given up.

use conductor_core::callbacks::{CLEAR_MAX, Callback, CallbackAttempt, DETAIL_MAX, GIVEN_UP_KEPT};
use conductor_core::{EndpointId, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::sqlite::memory::Memory;
use crate::sqlite::rows;

/// Throws away a part of what is kept of an endpoint that is configured no more or is disabled; returns how many.
pub(super) fn clear(transaction: &Transaction<'_>, memory: &Memory, endpoint: EndpointId) -> rusqlite::Result<usize> {
    let sql = "SELECT disabled_at IS NOT NULL FROM callback_endpoint WHERE endpoint = ?1";
    let disabled: Option<bool> =
        transaction.prepare_cached(sql)?.query_row([endpoint.bytes()], |row| row.get(0)).optional()?;
    let is_subscribed = memory.callbacks.subscribed().contains(&endpoint);
    if is_subscribed && disabled != Some(true) {
        return Ok(0);
    }
    let sql = "DELETE FROM callback WHERE endpoint = ?1 AND number IN \
               (SELECT number FROM callback WHERE endpoint = ?1 ORDER BY number LIMIT ?2)";
    let count = transaction.prepare_cached(sql)?.execute((endpoint.bytes(), rows::count(CLEAR_MAX)))?;
    note_dropped(transaction, endpoint, count)?;
    if count == 0 && !is_subscribed {
        for sql in
            ["DELETE FROM callback_given_up WHERE endpoint = ?1", "DELETE FROM callback_endpoint WHERE endpoint = ?1"]
        {
            transaction.prepare_cached(sql)?.execute([endpoint.bytes()])?;
        }
    }
    Ok(count)
}

/// Throws away the oldest callback of an endpoint.
pub(super) fn drop_oldest(transaction: &Transaction<'_>, endpoint: EndpointId) -> rusqlite::Result<()> {
    let sql = "DELETE FROM callback WHERE endpoint = ?1 AND number = \
               (SELECT number FROM callback WHERE endpoint = ?1 ORDER BY number LIMIT 1)";
    let count = transaction.prepare_cached(sql)?.execute([endpoint.bytes()])?;
    note_dropped(transaction, endpoint, count)
}

/// Throws away a part of what was made before this time and was tried. What was never tried stays: it was this program
/// that was away, or the clock has jumped. The oldest have the smallest numbers and are tried first, so that only the
/// beginning has to be looked at.
pub(super) fn drop_old(
    transaction: &Transaction<'_>,
    endpoint: EndpointId,
    before: Timestamp,
) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM callback WHERE endpoint = ?1 AND created_at < ?3 AND attempts > 0 AND number IN \
               (SELECT number FROM callback WHERE endpoint = ?1 ORDER BY number LIMIT ?2)";
    let row = (endpoint.bytes(), rows::count(CLEAR_MAX), before.millis());
    let count = transaction.prepare_cached(sql)?.execute(row)?;
    note_dropped(transaction, endpoint, count)?;
    Ok(count)
}

fn note_dropped(transaction: &Transaction<'_>, endpoint: EndpointId, count: usize) -> rusqlite::Result<()> {
    if count > 0 {
        let sql = "UPDATE callback_endpoint SET waiting = waiting - ?2, dropped = dropped + ?2 WHERE endpoint = ?1";
        transaction.prepare_cached(sql)?.execute((endpoint.bytes(), rows::count(count)))?;
    }
    Ok(())
}

/// Remembers a callback that is given up, and forgets the oldest beyond [`GIVEN_UP_KEPT`].
pub(super) fn give_up(
    transaction: &Transaction<'_>,
    callback: &Callback,
    attempt: &CallbackAttempt,
    at: Timestamp,
) -> rusqlite::Result<usize> {
    let sql = "INSERT OR REPLACE INTO callback_given_up (endpoint, number, id, event, notification, created_at, \
               given_up_at, attempts, code, detail) \
               SELECT endpoint, number, id, event, notification, created_at, ?4, attempts + 1, ?5, ?6 FROM callback \
               WHERE endpoint = ?1 AND number = ?2 AND id = ?3";
    let count = transaction.prepare_cached(sql)?.execute(params![
        callback.endpoint.bytes(),
        callback.number,
        callback.id.bytes(),
        at.millis(),
        attempt.code,
        attempt.detail.as_ref().map(|text| text.chars().take(DETAIL_MAX).collect::<String>()),
    ])?;
    let sql = "DELETE FROM callback_given_up WHERE endpoint = ?1 AND number IN (SELECT number FROM callback_given_up \
               WHERE endpoint = ?1 ORDER BY given_up_at DESC, number DESC LIMIT -1 OFFSET ?2)";
    transaction.prepare_cached(sql)?.execute((callback.endpoint.bytes(), rows::count(GIVEN_UP_KEPT)))?;
    Ok(count)
}
