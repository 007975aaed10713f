//! What people change: take back, queue again, settle by hand.

use conductor_core::store::{Queued, Redirect, Transition};
use conductor_core::{DeliveryKey, Notification, NotificationId, Status, TenantId, Timestamp};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::memory::Memory;
use super::rows;
use super::work::{Cause, StateChange, Work};
use super::write::{
    End, Waiting, end, insert_pending, let_go_of_key, notification_by_id, redacted_at, update_pending, waiting,
    waiting_of,
};
use super::writer::Effect;

/// A change of state that a person wants.
pub(crate) struct Change {
    pub(crate) tenant: TenantId,
    pub(crate) id: NotificationId,
    pub(crate) kind: ChangeKind,
}

pub(crate) enum ChangeKind {
    Cancel { at: Timestamp },
    Replay { redirect: Option<Redirect>, due: Timestamp, expires_at: Timestamp },
    Resolve { at: Timestamp },
}

/// What a [`Change`] did to `pending`.
pub(crate) struct Touched {
    /// The delivery that stood there before, or had ended.
    pub(crate) key: DeliveryKey,
    /// How it stood there, if it does not any more.
    pub(crate) ended: Option<Queued>,
    /// It waited for its turn until it was taken back.
    pub(crate) taken_back: bool,
    /// The delivery that is to be scheduled.
    pub(crate) queued: Option<Queued>,
}

/// A delivery that has ended, as if it were to wait again.
pub(crate) struct Ended {
    pub(crate) waiting: Waiting,
    pub(crate) status: Status,
}

macro_rules! ended {
    ($which:literal) => {
        concat!(
            "SELECT e.notification, e.ordinal, e.tenant, e.channel_id, e.channel, e.target, 0, n.priority, \
             n.expires_at, n.expires_at, e.attempts, 0, e.next_fallback, 0, 0, 0, NULL, 0, NULL, \
             octet_length(n.message) + coalesce(octet_length(n.title), 0) + coalesce(octet_length(n.target), 0) \
             + coalesce(octet_length(n.key), 0) + coalesce(octet_length(n.data), 0) \
             + coalesce(octet_length(n.metadata), 0) + coalesce(octet_length(n.fallback), 0), e.status \
             FROM ended AS e JOIN notification AS n ON n.id = e.notification WHERE e.notification = ?1 ",
            $which
        )
    };
}

fn read_ended(row: &Row<'_>) -> rusqlite::Result<Ended> {
    Ok(Ended { waiting: waiting(row)?, status: rows::word(row, 20)? })
}

/// The last delivery of a notification, if it has ended.
fn last_ended(transaction: &Transaction<'_>, id: NotificationId) -> rusqlite::Result<Option<Ended>> {
    let sql = ended!("ORDER BY e.ordinal DESC LIMIT 1");
    transaction.prepare_cached(sql)?.query_row([id.bytes()], read_ended).optional()
}

/// A delivery, if it has ended.
pub(crate) fn ended_of(transaction: &Transaction<'_>, key: DeliveryKey) -> rusqlite::Result<Option<Ended>> {
    let sql = ended!("AND e.ordinal = ?2");
    let row = (key.notification.bytes(), key.ordinal);
    transaction.prepare_cached(sql)?.query_row(row, read_ended).optional()
}

pub(crate) fn change(transaction: &Work<'_>, memory: &Memory, change: &Change) -> rusqlite::Result<Effect> {
    let done = |transition| Ok(Effect::Changed(transition, None));
    let notification = notification_by_id(transaction, change.id)?.filter(|n| n.tenant == change.tenant);
    let Some(notification) = notification else { return done(Transition::NotFound) };
    let waiting = match waiting_of(transaction, change.id)? {
        Some(waiting) => waiting,
        None => {
            let Some(last) = last_ended(transaction, change.id)? else { return done(Transition::NotFound) };
            return match &change.kind {
                ChangeKind::Replay { .. } if last.status.is_dead_letter() => {
                    if let Some(at) = redacted_at(transaction, change.id)? {
                        return done(Transition::Redacted(at));
                    }
                    replay(transaction, &notification, &change.kind, last.waiting, Some(last.status))
                }
                _ => done(Transition::WrongStatus(last.status)),
            };
        }
    };
    let now = match change.kind {
        ChangeKind::Cancel { at } | ChangeKind::Resolve { at } => at,
        ChangeKind::Replay { due, .. } => due,
    };
    let status = rows::waiting_status(waiting.held, false, waiting.attempts, waiting.due, now);
    let allowed = match change.kind {
        ChangeKind::Cancel { .. } => true,
        ChangeKind::Replay { .. } | ChangeKind::Resolve { .. } => waiting.held,
    };
    if memory.lock().is_leased(waiting.key) || (allowed && !memory.lock().begin_ending(waiting.key)) {
        return done(Transition::WrongStatus(Status::Sending));
    }
    if !allowed {
        return done(Transition::WrongStatus(status));
    }
    let (status, at, cause) = match &change.kind {
        ChangeKind::Cancel { at } => (Status::Canceled, *at, Cause::Canceled),
        ChangeKind::Resolve { at } => (Status::Sent, *at, Cause::Resolved),
        ChangeKind::Replay { .. } => return replay(transaction, &notification, &change.kind, waiting, None),
    };
    end(transaction, &waiting, &End::plain(status, at, cause))?;
    let_go_of_key(transaction, &notification)?;
    let taken_back = !waiting.held;
    let touched = Touched { key: waiting.key, ended: Some(waiting.queued()), taken_back, queued: None };
    Ok(Effect::Changed(Transition::Done(status), Some(touched)))
}

/// Queues a notification again. What has ended stays as it ended: a new delivery follows it. One that is held goes on
/// as itself, unless it is to go through another channel. `ended` is the status of the old one, none if it is held.
fn replay(
    transaction: &Work<'_>,
    notification: &Notification,
    kind: &ChangeKind,
    old: Waiting,
    ended: Option<Status>,
) -> rusqlite::Result<Effect> {
    let ChangeKind::Replay { redirect, due, expires_at } = kind else {
        unreachable!("only a replay is replayed");
    };
    let (key, due, expires_at) = (old.key, *due, *expires_at);
    let cause = Cause::Replayed { redirected: redirect.is_some() };
    let target = old.own.as_ref().map_or(notification.target.as_deref(), |(_, target)| target.as_deref());
    let again = Waiting { due, expires_at, failures: 0, held: false, lane: rows::lane(target), ..old };
    if ended.is_none() && redirect.is_none() {
        let sql = "UPDATE pending SET expires_at = ?3 WHERE notification = ?1 AND ordinal = ?2";
        transaction.prepare_cached(sql)?.execute((key.notification.bytes(), key.ordinal, expires_at.millis()))?;
        transaction.expires(expires_at);
        update_pending(transaction, &again)?;
        let status = rows::waiting_status(false, false, again.attempts, due, due);
        transaction.note_state(&StateChange::of(&again, status, due, cause))?;
        let touched = Touched { key, ended: Some(again.queued()), taken_back: false, queued: Some(again.queued()) };
        return Ok(Effect::Changed(Transition::Done(status), Some(touched)));
    }
    let Some(ordinal) = key.ordinal.checked_add(1) else {
        return Ok(Effect::Changed(Transition::WrongStatus(ended.unwrap_or(Status::Held)), None));
    };
    if ended.is_none() {
        end(transaction, &again, &End::plain(Status::Canceled, due, Cause::Redirected))?;
    }
    let before = again.queued();
    let mut waiting = Waiting { key: DeliveryKey { ordinal, ..key }, attempts: 0, ..again };
    if let Some(redirect) = redirect {
        waiting.channel_id = redirect.channel_id;
        waiting.lane = rows::lane(redirect.target.as_deref());
        waiting.own = Some((redirect.channel.clone(), redirect.target.clone()));
    }
    insert_pending(transaction, &waiting)?;
    transaction.note_state(&StateChange::of(&waiting, Status::Queued, due, cause))?;
    let ended = ended.is_none().then_some(before);
    let touched = Touched { key, ended, taken_back: false, queued: Some(waiting.queued()) };
    Ok(Effect::Changed(Transition::Done(Status::Queued), Some(touched)))
}
