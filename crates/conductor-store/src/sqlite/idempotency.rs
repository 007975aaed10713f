//! What was accepted with which `Idempotency-Key`.

use conductor_core::store::{Accepted, IDEMPOTENCY_KEPT, Idempotency};
use conductor_core::{Notification, NotificationId, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::write::notification_by_id;

/// What was accepted with an idempotency key before, if that is remembered.
pub(crate) fn earlier(
    connection: &Connection,
    tenant: TenantId,
    idempotency: &Idempotency,
    now: Timestamp,
) -> rusqlite::Result<Option<Accepted>> {
    let sql = "SELECT fingerprint, notification FROM idempotency WHERE tenant = ?1 AND key = ?2 AND accepted_at > ?3";
    let oldest = now.minus(IDEMPOTENCY_KEPT).millis();
    let find = |key: &str| -> rusqlite::Result<Option<([u8; 32], [u8; 16])>> {
        let row = (tenant.bytes(), key, oldest);
        connection.prepare_cached(sql)?.query_row(row, |row| Ok((row.get(0)?, row.get(1)?))).optional()
    };
    let Some((fingerprint, mut id)) = find(&idempotency.key)? else { return Ok(None) };
    if fingerprint != idempotency.fingerprint {
        return Ok(Some(Accepted::Conflict));
    }
    if let Some(part) = part_key(idempotency) {
        match find(&part)? {
            Some((_, of_part)) => id = of_part,
            None => return Ok(None),
        }
    }
    // What was accepted then may have been pruned: nothing is left to replay.
    let earlier = notification_by_id(connection, NotificationId::from_bytes(id))?;
    Ok(earlier.map(|earlier| Accepted::Replayed(Box::new(earlier))))
}

/// Under which key a notification of a batch is remembered, beside the key of the whole.
fn part_key(idempotency: &Idempotency) -> Option<String> {
    idempotency.part.map(|part| format!("{}\u{1f}{part}", idempotency.key))
}

/// Remembers an idempotency key, or tells what was accepted with it before.
pub(crate) fn remember(
    transaction: &Transaction<'_>,
    notification: &Notification,
    idempotency: &Idempotency,
) -> rusqlite::Result<Option<Accepted>> {
    if let Some(earlier) = earlier(transaction, notification.tenant, idempotency, notification.accepted_at)? {
        return Ok(Some(earlier));
    }
    let tenant = notification.tenant.bytes();
    let sql = "INSERT OR REPLACE INTO idempotency (tenant, key, fingerprint, notification, accepted_at) \
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let (id, at) = (notification.id.bytes(), notification.accepted_at.millis());
    for key in [Some(idempotency.key.clone()), part_key(idempotency)].into_iter().flatten() {
        transaction.prepare_cached(sql)?.execute((tenant, key, idempotency.fingerprint, id, at))?;
    }
    Ok(None)
}
