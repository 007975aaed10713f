//! What each command writes. Nothing here commits, and nothing in memory changes but the marks of what is being ended.

use conductor_core::receipts::Arrival;
use conductor_core::store::{
    Accepted, Expired, FIRST_ATTEMPTS_KEPT, Finished, LAST_ATTEMPTS_KEPT, Lease, NewNotification, Progress, Queued,
    Settled,
};
use conductor_core::{
    Attempt, ChannelId, DeliveryKey, FailureReason, Notification, NotificationId, Scope, Settlement, Status, TenantId,
    Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::audit::{self, Seal};
use super::memory::Memory;
use super::weights::Weight;
use super::work::{Cause, StateChange, Work};
use super::writer::{Command, Effect};
use super::{callbacks, change, idempotency, receipts, replays, retention, rows};

/// Does one command within the transaction.
pub(crate) fn apply(
    transaction: &Work<'_>,
    memory: &Memory,
    fed_through: Option<NotificationId>,
    command: &Command,
) -> rusqlite::Result<Effect> {
    match command {
        Command::Accept(new, seal, _) => accept(transaction, memory, fed_through, new, *seal),
        Command::Settle(lease, finished, _) => settle(transaction, lease, finished).map(Effect::Settled),
        Command::Advance(key, progress, _) => {
            let sql = "UPDATE pending SET parts_sent = ?3, plain = ?4, provider_id = ?5, cuts = ?6 \
                       WHERE notification = ?1 AND ordinal = ?2";
            let Progress { parts_sent, cuts, plain, provider_id } = progress;
            let row = (key.notification.bytes(), key.ordinal, parts_sent, plain, provider_id, cuts.cast_signed());
            transaction.prepare_cached(sql)?.execute(row)?;
            Ok(Effect::Written)
        }
        Command::Mark(keys, now, _) => {
            // What is not due or held will get no lease, so it is not to be blamed for anything.
            let sql = "UPDATE pending SET claimed = 1 WHERE notification = ?1 AND ordinal = ?2 AND due_at <= ?3 \
                       AND held = 0";
            let mut statement = transaction.prepare_cached(sql)?;
            for key in keys {
                statement.execute((key.notification.bytes(), key.ordinal, now.millis()))?;
            }
            Ok(Effect::Written)
        }
        Command::Unmark(key, _) => {
            let sql = "UPDATE pending SET claimed = 0 WHERE notification = ?1 AND ordinal = ?2";
            transaction.prepare_cached(sql)?.execute((key.notification.bytes(), key.ordinal))?;
            Ok(Effect::Written)
        }
        Command::Change(wish, _) => change::change(transaction, memory, wish),
        Command::Job(wish, _) => replays::apply(transaction, memory, wish),
        Command::Callback(change, _) => callbacks::apply(transaction, memory, change),
        Command::Report(received, _) => receipts::apply(transaction, received),
        Command::Expire(keys, at, _) => expire(transaction, memory, keys, *at).map(Effect::Expired),
        Command::Forget(keys, before, _) => {
            let sql = "DELETE FROM idempotency WHERE tenant = ?1 AND key = ?2 AND accepted_at < ?3";
            let mut statement = transaction.prepare_cached(sql)?;
            let mut count = 0;
            for (tenant, key) in keys {
                count += statement.execute((tenant.bytes(), key, before.millis()))?;
            }
            Ok(Effect::Forgotten(count))
        }
        Command::Prune(candidates, now, _) => retention::prune(transaction, candidates, *now),
        Command::Compact(pages, _) => retention::compact(transaction, *pages),
        Command::Record(event, _) => audit::record(transaction, event).map(|()| Effect::Written),
        Command::TidyAudit(wish, _) => audit::tidy(transaction, wish),
        #[cfg(test)]
        Command::Panic { after, .. } => after.then_some(Ok(Effect::Written)).expect("the test wants it"),
        Command::Ping(_) => {
            let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES ('pinged', 1)";
            transaction.prepare_cached(sql)?.execute([])?;
            Ok(Effect::Written)
        }
    }
}

/// What the scheduler has to know of a notification's first delivery.
pub(crate) fn first(notification: &Notification) -> Queued {
    Queued {
        key: DeliveryKey { notification: notification.id, ordinal: 0 },
        tenant: notification.tenant,
        channel: notification.channel_id,
        lane: rows::lane(notification.target.as_deref()),
        priority: notification.priority,
        due: notification.first_due(),
        tried: false,
        suspect: false,
        limited: None,
    }
}

fn accept(
    transaction: &Work<'_>,
    memory: &Memory,
    fed_through: Option<NotificationId>,
    new: &NewNotification,
    seal: Seal,
) -> rusqlite::Result<Effect> {
    let notification = &new.notification;
    if let Some(known) = &new.idempotency
        && let Some(earlier) = idempotency::remember(transaction, notification, known)?
    {
        return Ok(Effect::Accepted(earlier, None));
    }
    let superseded = match &notification.key {
        Some(key) => supersede(transaction, memory, notification, key)?,
        None => None,
    };
    rows::insert_notification(&mut *transaction.notification_statement()?, notification, &seal.salt)?;
    let waiting = Waiting::first(notification);
    insert_pending(transaction, &waiting)?;
    let at = notification.accepted_at;
    let status = rows::waiting_status(false, false, 0, waiting.due, at);
    transaction.note_state(&StateChange::of(&waiting, status, at, Cause::Accepted(new, seal)))?;
    if Some(notification.id) <= fed_through {
        // The lists' index was written past this id already, so nobody would come back for it.
        let sql = "INSERT OR IGNORE INTO feed (tenant, notification) VALUES (?1, ?2)";
        transaction.prepare_cached(sql)?.execute((notification.tenant.bytes(), notification.id.bytes()))?;
    }
    let accepted = Accepted::New { superseded: superseded.map(|queued| queued.key.notification) };
    Ok(Effect::Accepted(accepted, superseded))
}

/// Adds a notification, see [`rows::insert_notification`].
pub(super) const INSERT_NOTIFICATION: &str = "\
     INSERT INTO notification (id, tenant, channel, channel_id, target, message, title, \
     priority, format, data, metadata, key, fallback, accepted_at, send_at, expires_at, trace, salt) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";

pub(crate) fn notification_by_id(
    connection: &Connection,
    id: NotificationId,
) -> rusqlite::Result<Option<Notification>> {
    let sql = format!("SELECT {} FROM notification WHERE id = ?1", rows::NOTIFICATION_COLUMNS);
    connection.prepare_cached(&sql)?.query_row([id.bytes()], rows::notification).optional()
}

/// When a notification's content was removed, if it was.
pub(crate) fn redacted_at(connection: &Connection, id: NotificationId) -> rusqlite::Result<Option<Timestamp>> {
    let sql = "SELECT redacted_at FROM notification WHERE id = ?1";
    let at = connection.prepare_cached(sql)?.query_row([id.bytes()], |row| row.get::<_, Option<i64>>(0)).optional()?;
    Ok(at.flatten().map(Timestamp::from_millis))
}

/// Takes over a `key` and ends the notification that held it, if that still waits.
fn supersede(
    transaction: &Work<'_>,
    memory: &Memory,
    notification: &Notification,
    key: &str,
) -> rusqlite::Result<Option<Queued>> {
    let target = notification.target.as_deref().unwrap_or_default();
    let place = (notification.tenant.bytes(), notification.channel_id.bytes(), target, key);
    let sql = "SELECT notification FROM live_key WHERE tenant = ?1 AND channel_id = ?2 AND target = ?3 AND key = ?4";
    let holder: Option<[u8; 16]> = transaction.prepare_cached(sql)?.query_row(place, |row| row.get(0)).optional()?;
    let sql = "INSERT OR REPLACE INTO live_key (tenant, channel_id, target, key, notification) \
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let (tenant, channel, target, key) = place;
    transaction.prepare_cached(sql)?.execute((tenant, channel, target, key, notification.id.bytes()))?;
    let Some(holder) = holder.map(NotificationId::from_bytes) else { return Ok(None) };
    let Some(waiting) = waiting_of(transaction, holder)? else { return Ok(None) };
    if waiting.held || !memory.lock().begin_ending(waiting.key) {
        return Ok(None);
    }
    let cause = Cause::Superseded { by: notification.id };
    end(transaction, &waiting, &End::plain(Status::Superseded, notification.accepted_at, cause))?;
    Ok(Some(waiting.queued()))
}

/// A row of `pending`, or one that is to become one.
pub(crate) struct Waiting {
    pub(crate) key: DeliveryKey,
    pub(crate) tenant: TenantId,
    pub(crate) channel_id: ChannelId,
    /// The channel's type and the target, where they are not the notification's own.
    pub(crate) own: Option<(String, Option<String>)>,
    pub(crate) lane: u64,
    pub(crate) priority: conductor_core::Priority,
    pub(crate) due: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) failures: u32,
    pub(crate) next_fallback: u8,
    pub(crate) held: bool,
    pub(crate) progress: Progress,
    /// What waits until it is due, because the provider said so.
    pub(crate) limited: Option<Scope>,
    /// What its notification takes of its tenant's room, see [`Notification::bytes`].
    pub(crate) bytes: u64,
}

/// The columns that [`waiting`] reads.
pub(crate) const WAITING_COLUMNS: &str = "notification, ordinal, tenant, channel_id, channel, target, lane, priority, \
     due_at, expires_at, attempts, failures, next_fallback, held, parts_sent, plain, provider_id, cuts, limited, bytes";

pub(crate) fn waiting(row: &Row<'_>) -> rusqlite::Result<Waiting> {
    let channel: Option<String> = row.get(4)?;
    let target: Option<String> = row.get(5)?;
    Ok(Waiting {
        key: rows::key(row)?,
        tenant: TenantId::from_bytes(rows::id_bytes(row, 2)?),
        channel_id: ChannelId::from_bytes(rows::id_bytes(row, 3)?),
        own: channel.map(|channel| (channel, target)),
        lane: row.get::<_, i64>(6)?.cast_unsigned(),
        priority: rows::word(row, 7)?,
        due: rows::time(row, 8)?,
        expires_at: rows::time(row, 9)?,
        attempts: row.get(10)?,
        failures: row.get(11)?,
        next_fallback: row.get(12)?,
        held: row.get(13)?,
        progress: Progress {
            parts_sent: row.get(14)?,
            plain: row.get(15)?,
            provider_id: row.get(16)?,
            cuts: row.get::<_, i64>(17)?.cast_unsigned(),
        },
        limited: rows::optional_word(row, 18)?,
        bytes: row.get::<_, i64>(19)?.unsigned_abs(),
    })
}

/// The delivery of a notification that has not ended; there is at most one.
pub(crate) fn waiting_of(connection: &Connection, id: NotificationId) -> rusqlite::Result<Option<Waiting>> {
    let sql = format!("SELECT {WAITING_COLUMNS} FROM pending WHERE notification = ?1");
    connection.prepare_cached(&sql)?.query_row([id.bytes()], waiting).optional()
}

impl Waiting {
    fn first(notification: &Notification) -> Self {
        let Queued { key, tenant, channel, lane, priority, due, .. } = first(notification);
        let expires_at = notification.expires_at;
        let (attempts, failures, next_fallback, held, progress) = (0, 0, 0, false, Progress::default());
        Self {
            key,
            tenant,
            channel_id: channel,
            own: None,
            lane,
            priority,
            due,
            expires_at,
            attempts,
            failures,
            next_fallback,
            held,
            progress,
            limited: None,
            bytes: notification.bytes(),
        }
    }

    /// The delivery of a lease as its attempt has left it. What it takes of its tenant's room is in its row.
    fn after(lease: &Lease, finished: &Finished) -> Self {
        let notification = &lease.notification;
        let made = u32::from(finished.attempt.is_some());
        Self {
            key: lease.key,
            tenant: notification.tenant,
            channel_id: lease.channel,
            own: lease.redirected.clone().map(|channel| (channel, lease.target.clone())),
            lane: rows::lane(lease.target.as_deref()),
            priority: notification.priority,
            due: finished.at,
            expires_at: lease.expires_at,
            attempts: lease.attempt - 1 + made,
            failures: lease.failures,
            next_fallback: lease.next_fallback,
            held: false,
            progress: lease.progress.clone(),
            limited: None,
            bytes: 0,
        }
    }

    pub(crate) fn queued(&self) -> Queued {
        Queued {
            key: self.key,
            tenant: self.tenant,
            channel: self.channel_id,
            lane: self.lane,
            priority: self.priority,
            due: self.due,
            tried: self.attempts > 0,
            suspect: false,
            limited: self.limited,
        }
    }
}

/// Adds a delivery, see [`insert_pending`].
pub(super) const INSERT_PENDING: &str = "\
     INSERT INTO pending (notification, ordinal, tenant, channel_id, channel, target, lane, priority, due_at, \
     expires_at, attempts, failures, next_fallback, held, claimed, lost, bytes) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, 0, 0, ?14)";

/// Adds a delivery of which nothing has been sent yet.
pub(super) fn insert_pending(transaction: &Work<'_>, waiting: &Waiting) -> rusqlite::Result<()> {
    let (channel, target) = match &waiting.own {
        Some((channel, target)) => (Some(channel), target.as_ref()),
        None => (None, None),
    };
    transaction.pending_statement()?.execute(params![
        waiting.key.notification.bytes(),
        waiting.key.ordinal,
        waiting.tenant.bytes(),
        waiting.channel_id.bytes(),
        channel,
        target,
        waiting.lane.cast_signed(),
        waiting.priority.as_str(),
        waiting.due.millis(),
        waiting.expires_at.millis(),
        waiting.attempts,
        waiting.failures,
        waiting.next_fallback,
        waiting.bytes.cast_signed(),
    ])?;
    transaction.weigh(Weight { tenant: waiting.tenant, bytes: waiting.bytes, comes: true });
    transaction.expires(waiting.expires_at);
    Ok(())
}

/// How a delivery ends.
pub(super) struct End<'a> {
    status: Status,
    reason: Option<FailureReason>,
    provider_id: Option<&'a str>,
    at: Timestamp,
    cause: Cause<'a>,
}

impl<'a> End<'a> {
    pub(super) fn plain(status: Status, at: Timestamp, cause: Cause<'a>) -> Self {
        End { status, reason: None, provider_id: None, at, cause }
    }
}

/// Moves a delivery from `pending` to `ended`, and notes that.
pub(super) fn end(transaction: &Work<'_>, waiting: &Waiting, end: &End<'_>) -> rusqlite::Result<()> {
    let (id, ordinal) = (waiting.key.notification.bytes(), waiting.key.ordinal);
    let sql = "DELETE FROM pending WHERE notification = ?1 AND ordinal = ?2 RETURNING bytes";
    let bytes = transaction.prepare_cached(sql)?.query_row((id, ordinal), |row| row.get::<_, i64>(0)).optional()?;
    let bytes = bytes.unwrap_or_default().unsigned_abs();
    transaction.weigh(Weight { tenant: waiting.tenant, bytes, comes: false });
    let sql = "INSERT INTO ended (notification, ordinal, tenant, channel_id, channel, target, status, reason, \
               provider_id, ended_at, attempts, next_fallback) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let (channel, target) = match &waiting.own {
        Some((channel, target)) => (Some(channel), target.as_ref()),
        None => (None, None),
    };
    transaction.prepare_cached(sql)?.execute(params![
        id,
        ordinal,
        waiting.tenant.bytes(),
        waiting.channel_id.bytes(),
        channel,
        target,
        end.status.as_str(),
        end.reason.map(FailureReason::as_str),
        end.provider_id.or(waiting.progress.provider_id.as_deref()),
        end.at.millis(),
        waiting.attempts,
        waiting.next_fallback,
    ])?;
    transaction.note_state(&StateChange::of(waiting, end.status, end.at, end.cause))
}

/// Lets go of a notification's `key`, if it still holds it.
pub(super) fn let_go_of_key(transaction: &Transaction<'_>, notification: &Notification) -> rusqlite::Result<()> {
    let Some(key) = &notification.key else { return Ok(()) };
    let target = notification.target.as_deref().unwrap_or_default();
    let place = (notification.tenant.bytes(), notification.channel_id.bytes(), target, key.as_str());
    delete_live_key(transaction, place, notification.id)
}

/// Frees a `key` of a tenant, a channel and a target, if this notification holds it.
pub(super) fn delete_live_key(
    transaction: &Transaction<'_>,
    (tenant, channel, target, key): (&[u8; 16], &[u8; 16], &str, &str),
    holder: NotificationId,
) -> rusqlite::Result<()> {
    let sql = "DELETE FROM live_key WHERE tenant = ?1 AND channel_id = ?2 AND target = ?3 AND key = ?4 \
               AND notification = ?5";
    transaction.prepare_cached(sql)?.execute((tenant, channel, target, key, holder.bytes()))?;
    Ok(())
}

fn insert_attempt(transaction: &Transaction<'_>, key: DeliveryKey, attempt: &Attempt) -> rusqlite::Result<()> {
    let sql = "INSERT INTO attempt (notification, ordinal, number, at, duration_ms, outcome, code, detail, \
               retry_after_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    transaction.prepare_cached(sql)?.execute(params![
        key.notification.bytes(),
        key.ordinal,
        attempt.number,
        attempt.at.millis(),
        rows::millis(attempt.duration),
        attempt.outcome.as_str(),
        attempt.code,
        attempt.detail,
        attempt.retry_after.map(rows::millis),
    ])?;
    if attempt.number > FIRST_ATTEMPTS_KEPT + LAST_ATTEMPTS_KEPT {
        let sql = "DELETE FROM attempt WHERE notification = ?1 AND ordinal = ?2 AND number = ?3";
        let row = (key.notification.bytes(), key.ordinal, attempt.number - LAST_ATTEMPTS_KEPT);
        transaction.prepare_cached(sql)?.execute(row)?;
    }
    Ok(())
}

fn settle(transaction: &Work<'_>, lease: &Lease, finished: &Finished) -> rusqlite::Result<Settled> {
    let notification = &lease.notification;
    if let Some(attempt) = &finished.attempt {
        insert_attempt(transaction, lease.key, attempt)?;
    }
    let mut waiting = Waiting::after(lease, finished);
    let provider_id = finished.provider_id.as_deref();
    let settled = |reason| Cause::Settled(finished, reason);
    let still_waits = |waiting: &Waiting, status| {
        update_pending(transaction, waiting)?;
        transaction.note_state(&StateChange::of(waiting, status, finished.at, settled(None)))
    };
    match finished.settlement {
        Settlement::Sent => {
            let sent = End::plain(Status::Sent, finished.at, settled(None));
            end(transaction, &waiting, &End { provider_id, ..sent })?;
            let_go_of_key(transaction, notification)?;
            // A report may have been faster than the provider's own answer. It follows all the same.
            let reception = receipts::reception(transaction, lease.key)?;
            let arrival = reception.as_ref().map(|reception| reception.arrival);
            if let Some(reception) = &reception {
                let news = (reception.arrival, reception.code.as_deref());
                receipts::arrive(transaction, &waiting, news, finished.at)?;
            }
            let status = arrival.map_or(Status::Sent, Arrival::status);
            let next = match arrival {
                Some(Arrival::Undelivered) => {
                    receipts::fallback_of_undelivered(transaction, notification, waiting, finished.at)?
                }
                _ => None,
            };
            Ok(Settled { status, next })
        }
        Settlement::RetryAt { due, counts, limited } => {
            (waiting.due, waiting.failures) = (due, lease.failures + u32::from(counts));
            waiting.limited = limited;
            still_waits(&waiting, Status::Retrying)?;
            Ok(Settled { status: Status::Retrying, next: Some(waiting.queued()) })
        }
        Settlement::StepDown => {
            waiting.progress.plain = true;
            still_waits(&waiting, Status::Retrying)?;
            Ok(Settled { status: Status::Retrying, next: Some(waiting.queued()) })
        }
        Settlement::Hold => {
            waiting.held = true;
            still_waits(&waiting, Status::Held)?;
            Ok(Settled { status: Status::Held, next: None })
        }
        Settlement::Failed(reason) => {
            let status = reason.status();
            let plain = End::plain(status, finished.at, settled(Some(reason)));
            end(transaction, &waiting, &End { reason: Some(reason), provider_id, ..plain })?;
            // One that expires early, because its next attempt would come too late, leaves its time to the fallback.
            let in_time = reason != FailureReason::Expired || finished.at < lease.expires_at;
            let next = if in_time { queue_fallback(transaction, notification, waiting)? } else { None };
            if next.is_none() {
                let_go_of_key(transaction, notification)?;
            }
            Ok(Settled { status, next })
        }
    }
}

/// Queues the fallback that follows a delivery which has ended, if there is one left.
pub(super) fn queue_fallback(
    transaction: &Work<'_>,
    notification: &Notification,
    ended: Waiting,
) -> rusqlite::Result<Option<Queued>> {
    let fallback = notification.fallback.get(usize::from(ended.next_fallback));
    let (Some(fallback), Some(ordinal)) = (fallback, ended.key.ordinal.checked_add(1)) else { return Ok(None) };
    let next = Waiting {
        key: DeliveryKey { ordinal, ..ended.key },
        channel_id: fallback.channel_id,
        own: Some((fallback.channel.clone(), fallback.target_id.clone())),
        lane: rows::lane(fallback.target_id.as_deref()),
        attempts: 0,
        failures: 0,
        next_fallback: ended.next_fallback + 1,
        bytes: notification.bytes(),
        ..ended
    };
    insert_pending(transaction, &next)?;
    let cause = Cause::FallbackOf(ended.key.ordinal);
    transaction.note_state(&StateChange::of(&next, Status::Queued, next.due, cause))?;
    Ok(Some(next.queued()))
}

pub(super) fn update_pending(transaction: &Transaction<'_>, waiting: &Waiting) -> rusqlite::Result<()> {
    let sql = "UPDATE pending SET due_at = ?3, attempts = ?4, failures = ?5, held = ?6, parts_sent = ?7, plain = ?8, \
               provider_id = ?9, cuts = ?10, limited = ?11, claimed = 0, lost = 0 \
               WHERE notification = ?1 AND ordinal = ?2";
    transaction.prepare_cached(sql)?.execute((
        waiting.key.notification.bytes(),
        waiting.key.ordinal,
        waiting.due.millis(),
        waiting.attempts,
        waiting.failures,
        waiting.held,
        waiting.progress.parts_sent,
        waiting.progress.plain,
        &waiting.progress.provider_id,
        waiting.progress.cuts.cast_signed(),
        waiting.limited.map(Scope::as_str),
    ))?;
    Ok(())
}

fn expire(
    transaction: &Work<'_>,
    memory: &Memory,
    keys: &[DeliveryKey],
    at: Timestamp,
) -> rusqlite::Result<Vec<Expired>> {
    let sql = format!("SELECT {WAITING_COLUMNS} FROM pending WHERE notification = ?1 AND ordinal = ?2");
    let mut select = transaction.prepare_cached(&sql)?;
    let mut expired = Vec::new();
    for key in keys {
        let waiting = select.query_row((key.notification.bytes(), key.ordinal), waiting).optional()?;
        let Some(waiting) = waiting.filter(|w| !w.held && w.expires_at <= at) else { continue };
        if !memory.lock().begin_ending(*key) {
            continue;
        }
        let reason = Some(FailureReason::Expired);
        end(transaction, &waiting, &End { reason, ..End::plain(Status::Expired, at, Cause::Expired) })?;
        if let Some(notification) = notification_by_id(transaction, key.notification)? {
            let_go_of_key(transaction, &notification)?;
        }
        expired.push(Expired { key: *key, tenant: waiting.tenant, channel: waiting.channel_id });
    }
    Ok(expired)
}

/// Writes a sorted part of the tenants' feed. Returns the greatest id in it.
pub(crate) fn feed(
    connection: &mut Connection,
    unfed: &[(TenantId, NotificationId)],
) -> rusqlite::Result<Option<NotificationId>> {
    let transaction = connection.transaction()?;
    {
        let sql = "INSERT OR IGNORE INTO feed (tenant, notification) VALUES (?1, ?2)";
        let mut statement = transaction.prepare_cached(sql)?;
        for (tenant, id) in unfed {
            statement.execute((tenant.bytes(), id.bytes()))?;
        }
    }
    let last = unfed.iter().map(|(_, id)| *id).max();
    if let Some(last) = last {
        let sql = "INSERT INTO meta (name, value) VALUES ('feed_mark', ?1) \
                   ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)";
        transaction.execute(sql, [last.bytes()])?;
    }
    transaction.commit()?;
    Ok(last)
}
