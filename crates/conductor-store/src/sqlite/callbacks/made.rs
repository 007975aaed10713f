//! Making callbacks: in the transaction of what they tell.

use conductor_core::callbacks::{ChannelNews, Event, News, WAITING_MAX};
use conductor_core::receipts::Reception;
use conductor_core::{
    Attempt, CallbackId, ChannelId, DeliveryKey, EndpointId, FailureReason, NotificationId, Status, TenantId, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::cleared;
use crate::sqlite::memory::Memory;
use crate::sqlite::work::StateChange;
use crate::sqlite::write::notification_by_id;
use crate::sqlite::{receipts, rows};

/// A delivery that has come to another state.
#[derive(Clone, Copy)]
pub(crate) struct Moved {
    key: DeliveryKey,
    tenant: TenantId,
    channel: ChannelId,
    status: Status,
    at: Timestamp,
}

impl From<&StateChange<'_>> for Moved {
    fn from(change: &StateChange<'_>) -> Self {
        let StateChange { key, tenant, channel_id, status, at, .. } = *change;
        Self { key, tenant, channel: channel_id, status, at }
    }
}

/// Keeps a callback for each endpoint that wants to hear to what one command has brought each notification. What is told
/// is the last of it: where another delivery follows, be it a fallback's or a redirected one, the notification goes on.
/// That it was sent is told in any case: what follows at once is a report that came before.
pub(crate) fn tell(transaction: &Transaction<'_>, memory: &Memory, moved: &[Moved]) -> rusqlite::Result<()> {
    for (place, last) in moved.iter().enumerate() {
        let Some(event) = Event::of(last.status) else { continue };
        let endpoints = memory.callbacks.wanting(last.tenant, event);
        if endpoints.is_empty() {
            continue;
        }
        let goes_on = moved[place + 1..].iter().any(|later| later.key.notification == last.key.notification);
        if !goes_on || last.status == Status::Sent {
            let receipt = if goes_on { None } else { receipts::reception(transaction, last.key)? };
            tell_of(transaction, memory, last, (event, receipt.as_ref()), &endpoints)?;
        }
    }
    Ok(())
}

fn tell_of(
    transaction: &Transaction<'_>,
    memory: &Memory,
    moved: &Moved,
    (event, receipt): (Event, Option<&Reception>),
    endpoints: &[EndpointId],
) -> rusqlite::Result<()> {
    let Moved { key, channel, status, at, .. } = *moved;
    let Some(notification) = notification_by_id(transaction, key.notification)? else { return Ok(()) };
    let end = end_of(transaction, key)?.unwrap_or_default();
    let last = last_attempt(transaction, key)?;
    let news = News {
        event,
        at,
        notification: &notification,
        delivery: key,
        own: end.channel.as_deref().map(|channel| (channel, end.target.as_deref())),
        channel,
        status,
        reason: end.reason,
        provider_id: end.provider_id.as_deref(),
        attempts: last.as_ref().map_or(0, |attempt| attempt.number),
        last: last.as_ref(),
        receipt,
    };
    let body = news.body();
    let new = New { event, about: About::Notification(key.notification), body: &body, at };
    endpoints.iter().try_for_each(|endpoint| insert(transaction, memory, *endpoint, &new))
}

/// Keeps a callback for each endpoint that wants to hear of a channel, and what was told.
pub(super) fn of_channel(
    transaction: &Transaction<'_>,
    memory: &Memory,
    news: &ChannelNews,
    at: Timestamp,
) -> rusqlite::Result<usize> {
    let channel = news.channel.bytes();
    if news.down.is_some() {
        let sql = "INSERT OR REPLACE INTO channel_down (channel, tenant, since) VALUES (?1, ?2, ?3)";
        transaction.prepare_cached(sql)?.execute((channel, news.tenant.bytes(), news.since.millis()))?;
    } else {
        transaction.prepare_cached("DELETE FROM channel_down WHERE channel = ?1")?.execute([channel])?;
    }
    let event = news.event();
    let endpoints = memory.callbacks.wanting(news.tenant, event);
    let body = if endpoints.is_empty() { String::new() } else { news.body(at) };
    let new = New { event, about: About::Channel(news.channel), body: &body, at };
    endpoints.iter().try_for_each(|endpoint| insert(transaction, memory, *endpoint, &new))?;
    Ok(endpoints.len())
}

struct New<'a> {
    event: Event,
    about: About,
    body: &'a str,
    at: Timestamp,
}

enum About {
    Notification(NotificationId),
    Channel(ChannelId),
}

fn insert(transaction: &Transaction<'_>, memory: &Memory, endpoint: EndpointId, new: &New<'_>) -> rusqlite::Result<()> {
    let sql = "UPDATE callback_endpoint SET made = made + 1, waiting = waiting + 1 WHERE endpoint = ?1 \
               RETURNING made, waiting";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let counts = transaction.prepare_cached(sql)?.query_row([endpoint.bytes()], read).optional()?;
    // An endpoint without a row is not configured any more.
    let Some((number, waiting)) = counts else { return Ok(()) };
    let (about, notification) = match &new.about {
        About::Notification(id) => (id.bytes(), Some(id.bytes())),
        About::Channel(id) => (id.bytes(), None),
    };
    if waiting.unsigned_abs() > WAITING_MAX {
        cleared::drop_oldest(transaction, endpoint)?;
    }
    let sql = "INSERT INTO callback (endpoint, number, id, event, notification, body, created_at, due_at, attempts) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, 0)";
    transaction.prepare_cached(sql)?.execute(params![
        endpoint.bytes(),
        number,
        CallbackId::derive(endpoint, number, about, new.at).bytes(),
        new.event.as_str(),
        notification,
        new.body,
        new.at.millis(),
    ])?;
    memory.callbacks.write_for(endpoint);
    Ok(())
}

fn last_attempt(connection: &Connection, key: DeliveryKey) -> rusqlite::Result<Option<Attempt>> {
    let sql = "SELECT number, at, duration_ms, outcome, code, detail, retry_after_ms FROM attempt \
               WHERE notification = ?1 AND ordinal = ?2 ORDER BY number DESC LIMIT 1";
    let row = (key.notification.bytes(), key.ordinal);
    connection.prepare_cached(sql)?.query_row(row, |row| rows::attempt(row, 0)).optional()
}

/// How a delivery has ended, or is held.
#[derive(Default)]
struct End {
    channel: Option<String>,
    target: Option<String>,
    reason: Option<FailureReason>,
    provider_id: Option<String>,
}

fn end_of(connection: &Connection, key: DeliveryKey) -> rusqlite::Result<Option<End>> {
    let sql = "SELECT channel, target, reason, provider_id FROM ended WHERE notification = ?1 AND ordinal = ?2 \
               UNION ALL SELECT channel, target, NULL, provider_id FROM pending WHERE notification = ?1 AND ordinal = ?2";
    let read = |row: &rusqlite::Row<'_>| {
        let reason = rows::optional_word(row, 2)?;
        Ok(End { channel: row.get(0)?, target: row.get(1)?, reason, provider_id: row.get(3)? })
    };
    connection.prepare_cached(sql)?.query_row((key.notification.bytes(), key.ordinal), read).optional()
}

/// Takes from what waits what is to be forgotten of a notification: the addresses of people, and what was said of them.
pub(crate) fn redact(connection: &Connection, notification: NotificationId) -> rusqlite::Result<()> {
    let sql = "UPDATE callback SET body = json_replace(body, '$.data.targetId', NULL, '$.data.delivery.targetId', NULL, \
               '$.data.delivery.lastAttempt.detail', NULL, '$.data.delivery.receipt.detail', NULL) \
               WHERE notification = ?1";
    connection.prepare_cached(sql)?.execute([notification.bytes()])?;
    Ok(())
}
