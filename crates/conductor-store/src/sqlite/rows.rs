//! Between rows and the types of the core.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use conductor_core::store::Queued;
use conductor_core::{
    Attempt, ChannelId, DeliveryKey, Draft, Format, Notification, NotificationId, Outcome, Priority, Status, TenantId,
    Timestamp,
};
use rusqlite::types::{FromSqlError, Type, ValueRef};
use rusqlite::{Row, Statement, params};
use serde::de::DeserializeOwned;

/// The columns of `notification` in the order in which [`notification`] reads and [`insert_notification`] writes them.
pub(crate) const NOTIFICATION_COLUMNS: &str = "id, tenant, channel, channel_id, target, message, title, priority, \
     format, data, metadata, key, fallback, accepted_at, send_at, expires_at, trace";

/// The columns of `pending` in the order in which [`queued`] reads them.
pub(crate) const QUEUED_COLUMNS: &str =
    "notification, ordinal, tenant, channel_id, lane, priority, due_at, attempts, limited";

pub(crate) fn id_bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; 16]> {
    row.get(column)
}

/// A word of one of the core's enums.
pub(crate) fn word<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|_| {
        let error = FromSqlError::Other(format!("`{text}` is no word of this column").into());
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// The same where there may be none.
pub(crate) fn optional_word<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    if row.get_ref(column)? == ValueRef::Null { Ok(None) } else { word(row, column).map(Some) }
}

pub(crate) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

/// JSON, or the default where there is none.
pub(crate) fn json<T: DeserializeOwned + Default>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(T::default()),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))),
    }
}

/// Reads the row that begins with [`NOTIFICATION_COLUMNS`].
pub(crate) fn notification(row: &Row<'_>) -> rusqlite::Result<Notification> {
    Ok(Notification::from_stored(Draft {
        id: NotificationId::from_bytes(id_bytes(row, 0)?),
        tenant: TenantId::from_bytes(id_bytes(row, 1)?),
        channel: row.get(2)?,
        channel_id: ChannelId::from_bytes(id_bytes(row, 3)?),
        target: row.get(4)?,
        message: row.get(5)?,
        title: row.get(6)?,
        priority: word(row, 7)?,
        format: word::<Format>(row, 8)?,
        data: json(row, 9)?,
        metadata: json(row, 10)?,
        key: row.get(11)?,
        fallback: json(row, 12)?,
        accepted_at: time(row, 13)?,
        send_at: row.get::<_, Option<i64>>(14)?.map(Timestamp::from_millis),
        expires_at: time(row, 15)?,
        trace: optional_word(row, 16)?,
    }))
}

/// Writes the columns [`NOTIFICATION_COLUMNS`], and `salt`.
pub(crate) fn insert_notification(
    statement: &mut Statement<'_>,
    n: &Draft,
    salt: &[u8; 16],
) -> rusqlite::Result<usize> {
    fn text<T: serde::Serialize>(value: &T, is_empty: bool) -> rusqlite::Result<Option<String>> {
        let failed = |error| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
        if is_empty { Ok(None) } else { serde_json::to_string(value).map(Some).map_err(failed) }
    }
    statement.execute(params![
        n.id.bytes(),
        n.tenant.bytes(),
        &n.channel,
        n.channel_id.bytes(),
        &n.target,
        &n.message,
        &n.title,
        n.priority.as_str(),
        n.format.as_str(),
        text(&n.data, n.data.is_empty())?,
        text(&n.metadata, n.metadata.is_empty())?,
        &n.key,
        text(&n.fallback, n.fallback.is_empty())?,
        n.accepted_at.millis(),
        n.send_at.map(Timestamp::millis),
        n.expires_at.millis(),
        n.trace.map(|trace| trace.to_string()),
        salt,
    ])
}

/// Reads the row that begins with [`QUEUED_COLUMNS`]. Those up to `suspect_through` are suspect.
pub(crate) fn queued(row: &Row<'_>, suspect_through: Option<DeliveryKey>) -> rusqlite::Result<Queued> {
    let key = key(row)?;
    Ok(Queued {
        key,
        tenant: TenantId::from_bytes(id_bytes(row, 2)?),
        channel: ChannelId::from_bytes(id_bytes(row, 3)?),
        lane: row.get::<_, i64>(4)?.cast_unsigned(),
        priority: word::<Priority>(row, 5)?,
        due: time(row, 6)?,
        tried: row.get::<_, u32>(7)? > 0,
        suspect: Some(key) <= suspect_through,
        limited: optional_word(row, 8)?,
    })
}

/// Reads the key of a row that begins with `notification, ordinal`.
pub(crate) fn key(row: &Row<'_>) -> rusqlite::Result<DeliveryKey> {
    Ok(DeliveryKey { notification: NotificationId::from_bytes(id_bytes(row, 0)?), ordinal: row.get(1)? })
}

/// Reads a row of `attempt` from `number` on, which stands at `first`.
pub(crate) fn attempt(row: &Row<'_>, first: usize) -> rusqlite::Result<Attempt> {
    let millis = |value: i64| Duration::from_millis(value.unsigned_abs());
    Ok(Attempt {
        number: row.get(first)?,
        at: time(row, first + 1)?,
        duration: row.get(first + 2).map(millis)?,
        outcome: word::<Outcome>(row, first + 3)?,
        code: row.get(first + 4)?,
        detail: row.get(first + 5)?,
        retry_after: row.get::<_, Option<i64>>(first + 6)?.map(millis),
    })
}

/// Milliseconds as they are stored.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A number of rows as SQL takes it.
pub(crate) fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// The lane of a target within its channel. Stored, so it must not change between versions: a change would only let
/// what waits at an upgrade overtake one another once.
pub(crate) fn lane(target: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    hasher.finish()
}

/// The status of a delivery in `pending`, given what the row says and whether an attempt is under way.
pub(crate) fn waiting_status(held: bool, leased: bool, attempts: u32, due: Timestamp, now: Timestamp) -> Status {
    match (held, leased, attempts) {
        (true, ..) => Status::Held,
        (_, true, _) => Status::Sending,
        (_, _, 0) if due > now => Status::Scheduled,
        (_, _, 0) => Status::Queued,
        _ => Status::Retrying,
    }
}
