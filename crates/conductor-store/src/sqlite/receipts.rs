//! What providers report later. Each report is kept, and the delivery's status follows from all that are kept, so that
//! neither their order nor a repetition makes a difference.

use async_trait::async_trait;
use conductor_core::receipts::{Arrival, CODE_MAX, DETAIL_MAX, Receipts, Reception, Report, Reported, Reporter};
use conductor_core::store::Queued;
use conductor_core::{DeliveryKey, Notification, Status, StoreError, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::change::{self, Touched};
use super::work::{Cause, StateChange, Work};
use super::write::{Waiting, notification_by_id, queue_fallback, redacted_at, waiting_of};
use super::writer::{Command, Effect};
use super::{SqliteStore, rows};

/// A report on its way to the writer.
pub(crate) struct Received {
    reporter: Reporter,
    report: Report,
    now: Timestamp,
}

#[async_trait]
impl Receipts for SqliteStore {
    async fn report(&self, reporter: &Reporter, report: Report, now: Timestamp) -> Result<Reported, StoreError> {
        let received = Received { reporter: reporter.clone(), report, now };
        self.command(|reply| Command::Report(Box::new(received), reply)).await
    }
}

/// Keeps a report and changes what follows from it.
pub(crate) fn apply(transaction: &Work<'_>, received: &Received) -> rusqlite::Result<Effect> {
    let Received { reporter, report, now } = received;
    let key = report.part.delivery;
    let done = |reported| Ok(Effect::Reported(reported, None));
    let notification = notification_by_id(transaction, key.notification)?.filter(|n| n.tenant == reporter.tenant);
    let Some(notification) = notification else { return done(Reported::Unknown) };
    let ended = change::ended_of(transaction, key)?;
    let own = match &ended {
        Some(ended) => ended.waiting.own.as_ref().map(|(channel, _)| channel.clone()),
        None => match waiting_of(transaction, key.notification)?.filter(|waiting| waiting.key == key) {
            Some(waiting) => waiting.own.map(|(channel, _)| channel),
            None => return done(Reported::Unknown),
        },
    };
    if own.as_ref().unwrap_or(&notification.channel) != &reporter.channel {
        return done(Reported::Unknown);
    }
    let is_redacted = redacted_at(transaction, key.notification)?.is_some();
    keep(transaction, report, is_redacted, *now)?;
    // One under way is settled with what is kept.
    let Some(ended) = ended else { return done(Reported::Unchanged) };
    let Some(arrival) = arrival(transaction, key)? else { return done(Reported::Unchanged) };
    if !matches!((ended.status, arrival), (Status::Sent, _) | (Status::Undelivered, Arrival::Delivered)) {
        return done(Reported::Unchanged);
    }
    let status = arrival.status();
    arrive(transaction, &ended.waiting, (arrival, report.code.as_deref()), *now)?;
    let mut queued = None;
    if arrival == Arrival::Undelivered && !is_redacted {
        queued = fallback_of_undelivered(transaction, &notification, ended.waiting, *now)?;
    }
    let touched = queued.map(|queued| Touched { key, ended: None, taken_back: false, queued: Some(queued) });
    Ok(Effect::Reported(Reported::Changed(status), touched))
}

/// Moves what was sent to what the provider says of it, with its code, and notes that.
pub(crate) fn arrive(
    transaction: &Work<'_>,
    sent: &Waiting,
    (arrival, code): (Arrival, Option<&str>),
    now: Timestamp,
) -> rusqlite::Result<()> {
    let status = arrival.status();
    let sql = "UPDATE ended SET status = ?3 WHERE notification = ?1 AND ordinal = ?2";
    let row = (sent.key.notification.bytes(), sent.key.ordinal, status.as_str());
    transaction.prepare_cached(sql)?.execute(row)?;
    transaction.note_state(&StateChange::of(sent, status, now, Cause::Reported(code)))
}

/// Queues the next fallback of what was sent and did not arrive, if there is one and it comes in time.
pub(crate) fn fallback_of_undelivered(
    transaction: &Work<'_>,
    notification: &Notification,
    sent: Waiting,
    now: Timestamp,
) -> rusqlite::Result<Option<Queued>> {
    if now >= notification.expires_at {
        return Ok(None);
    }
    let expires_at = notification.expires_at;
    queue_fallback(transaction, notification, Waiting { due: now, expires_at, ..sent })
}

fn keep(transaction: &Transaction<'_>, report: &Report, is_redacted: bool, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "INSERT INTO receipt (notification, ordinal, part, parts, arrival, at, code, detail) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (notification, ordinal, part) DO UPDATE \
               SET arrival = excluded.arrival, at = excluded.at, code = excluded.code, detail = excluded.detail \
               WHERE excluded.arrival = 'delivered' AND arrival = 'undelivered'";
    let key = report.part.delivery;
    let short = |text: &Option<String>, max| text.as_ref().map(|text| text.chars().take(max).collect::<String>());
    transaction.prepare_cached(sql)?.execute(params![
        key.notification.bytes(),
        key.ordinal,
        report.part.part,
        report.part.parts,
        report.arrival.as_str(),
        report.at.unwrap_or(now).millis(),
        short(&report.code, CODE_MAX),
        short(&report.detail, DETAIL_MAX).filter(|_| !is_redacted),
    ])?;
    Ok(())
}

/// What the reports that are kept say of the delivery as a whole, if they do.
pub(crate) fn arrival(connection: &Connection, key: DeliveryKey) -> rusqlite::Result<Option<Arrival>> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE arrival = 'undelivered'), max(parts) FROM receipt \
               WHERE notification = ?1 AND ordinal = ?2";
    let row = (key.notification.bytes(), key.ordinal);
    let counts = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let (all, undelivered, parts): (i64, i64, Option<i64>) = connection.prepare_cached(sql)?.query_row(row, counts)?;
    Ok(match (undelivered, parts) {
        (1.., _) => Some(Arrival::Undelivered),
        (_, Some(parts)) if all >= parts => Some(Arrival::Delivered),
        _ => None,
    })
}

/// What the story tells of the reports: of the first part that did not arrive, or of the last that did.
pub(crate) fn reception(connection: &Connection, key: DeliveryKey) -> rusqlite::Result<Option<Reception>> {
    let Some(arrival) = arrival(connection, key)? else { return Ok(None) };
    let sql = match arrival {
        Arrival::Undelivered => {
            "SELECT arrival, at, code, detail FROM receipt WHERE notification = ?1 AND ordinal = ?2 \
             AND arrival = 'undelivered' ORDER BY part LIMIT 1"
        }
        Arrival::Delivered => {
            "SELECT arrival, at, code, detail FROM receipt WHERE notification = ?1 AND ordinal = ?2 \
             ORDER BY at DESC, part DESC LIMIT 1"
        }
    };
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Reception { arrival: rows::word(row, 0)?, at: rows::time(row, 1)?, code: row.get(2)?, detail: row.get(3)? })
    };
    let row = (key.notification.bytes(), key.ordinal);
    connection.prepare_cached(sql)?.query_row(row, read).optional()
}
