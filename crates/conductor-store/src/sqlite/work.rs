//! One transaction of the writer, and the one place through which every change of a delivery's state passes.

use std::cell::{Cell, RefCell, RefMut};
use std::ops::Deref;

use conductor_core::audit::{AuditKind, Content, Details};
use conductor_core::store::{Finished, NewNotification};
use conductor_core::{
    Actor, AuditEvent, ChannelId, DeliveryKey, FailureReason, NotificationId, Priority, Status, TenantId, Timestamp,
};
use rusqlite::{CachedStatement, Connection, Transaction, TransactionBehavior};

use super::audit::{self, Ledger, Seal, Tail};
use super::callbacks::{self, Moved};
use super::memory::Memory;
use super::weights::Weight;
use super::write::{self, Waiting};

/// A transaction, with what it has to tell of itself. It is rolled back unless it is committed.
pub(crate) struct Work<'c> {
    connection: &'c Connection,
    transaction: Transaction<'c>,
    at_hand: AtHand<'c>,
    ledger: Ledger<'c>,
    /// What the present command has changed, in order.
    moved: RefCell<Vec<Moved>>,
    /// What will wait, or wait no longer, when it is committed.
    weights: RefCell<Vec<Weight>>,
    /// When the first of what comes to wait expires.
    expires_from: Cell<Timestamp>,
}

/// Statements that nearly every command needs: to look one up takes as long as to bind its values.
#[derive(Default)]
struct AtHand<'c> {
    notification: RefCell<Option<CachedStatement<'c>>>,
    pending: RefCell<Option<CachedStatement<'c>>>,
    audit: RefCell<Option<CachedStatement<'c>>>,
}

impl<'c> Deref for Work<'c> {
    type Target = Transaction<'c>;
    fn deref(&self) -> &Transaction<'c> {
        &self.transaction
    }
}

/// What has become of a delivery. Each is noted once, in the transaction that makes it so.
pub(crate) struct StateChange<'a> {
    /// Which delivery.
    pub(crate) key: DeliveryKey,
    /// Whose.
    pub(crate) tenant: TenantId,
    /// Through which channel.
    pub(crate) channel_id: ChannelId,
    /// What it is now.
    pub(crate) status: Status,
    /// Since when.
    pub(crate) at: Timestamp,
    /// Why.
    pub(crate) cause: Cause<'a>,
}

/// Why a delivery's state has changed.
#[derive(Clone, Copy)]
pub(crate) enum Cause<'a> {
    /// A caller posted it. With the seal of what it says.
    Accepted(&'a NewNotification, Seal),
    /// A newer notification with the same `key` took its place.
    Superseded { by: NotificationId },
    /// An attempt was made, or given up before it was made. The reason, where it has failed.
    Settled(&'a Finished, Option<FailureReason>),
    /// The delivery with this ordinal failed, or did not arrive, and this one follows it.
    FallbackOf(u8),
    /// Somebody took it back.
    Canceled,
    /// Somebody took a held one as sent.
    Resolved,
    /// Somebody had it tried again: this delivery goes on, or is new.
    Replayed { redirected: bool },
    /// It was held, and a new delivery through another channel has taken its place.
    Redirected,
    /// Its time ran out while it waited.
    Expired,
    /// Its provider has reported what became of it, with this code.
    Reported(Option<&'a str>),
    /// The process before this one died during an attempt.
    Lost,
}

impl<'a> StateChange<'a> {
    /// What has become of a delivery that waits, or did until now.
    pub(crate) fn of(waiting: &Waiting, status: Status, at: Timestamp, cause: Cause<'a>) -> Self {
        Self { key: waiting.key, tenant: waiting.tenant, channel_id: waiting.channel_id, status, at, cause }
    }
}

impl<'c> Work<'c> {
    /// Begins a transaction. No other may have begun on this connection.
    pub(crate) fn begin(connection: &'c Connection, ledger: Ledger<'c>) -> rusqlite::Result<Self> {
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let (at_hand, moved, weights) = (AtHand::default(), RefCell::default(), RefCell::default());
        let expires_from = Cell::new(Timestamp::MAX);
        Ok(Self { connection, transaction, at_hand, ledger, moved, weights, expires_from })
    }

    /// The statement that adds a notification.
    pub(crate) fn notification_statement(&self) -> rusqlite::Result<RefMut<'_, CachedStatement<'c>>> {
        self.at_hand(&self.at_hand.notification, write::INSERT_NOTIFICATION)
    }

    /// The statement that adds a delivery of which nothing has been sent.
    pub(crate) fn pending_statement(&self) -> rusqlite::Result<RefMut<'_, CachedStatement<'c>>> {
        self.at_hand(&self.at_hand.pending, write::INSERT_PENDING)
    }

    fn at_hand<'a>(
        &self,
        place: &'a RefCell<Option<CachedStatement<'c>>>,
        sql: &str,
    ) -> rusqlite::Result<RefMut<'a, CachedStatement<'c>>> {
        let mut place = place.borrow_mut();
        if place.is_none() {
            *place = Some(self.connection.prepare_cached(sql)?);
        }
        Ok(RefMut::map(place, |statement| statement.as_mut().expect("it was just put there")))
    }

    /// Every change of a delivery's state passes here.
    pub(crate) fn note_state(&self, change: &StateChange<'_>) -> rusqlite::Result<()> {
        self.moved.borrow_mut().push(Moved::from(change));
        self.append(&event(change))
    }

    /// Makes the callbacks of what one command has noted: what it has brought each notification to is known at its end.
    pub(crate) fn tell(&self, memory: &Memory) -> rusqlite::Result<()> {
        let mut moved = self.moved.take();
        let told = callbacks::tell(self, memory, &moved);
        moved.clear();
        // It goes back with the room that it has.
        self.moved.replace(moved);
        told
    }

    /// Every row that comes into `pending`, or leaves it, passes here.
    pub(crate) fn weigh(&self, weight: Weight) {
        self.weights.borrow_mut().push(weight);
    }

    /// Every time at which something that waits expires passes here.
    pub(crate) fn expires(&self, at: Timestamp) {
        self.expires_from.set(self.expires_from.get().min(at));
    }

    /// Adds an entry to the audit log.
    pub(crate) fn append(&self, event: &AuditEvent) -> rusqlite::Result<()> {
        self.ledger.append(self.connection, &mut *self.at_hand(&self.at_hand.audit, audit::INSERT)?, event)
    }

    /// Makes all that was written and noted last. Returns where the audit log ends then.
    pub(crate) fn commit(self, memory: &Memory) -> rusqlite::Result<Tail> {
        let Self { transaction, at_hand, ledger, weights, expires_from, .. } = self;
        // They go back to the engine's cache.
        drop(at_hand);
        let tail = ledger.finish(&transaction)?;
        transaction.commit()?;
        let mut memory = memory.lock();
        memory.expiry.comes(expires_from.get());
        weights.into_inner().into_iter().for_each(|weight| memory.weights.change(weight));
        Ok(tail)
    }
}

/// What the audit log says of a change.
fn event(change: &StateChange<'_>) -> AuditEvent {
    use AuditKind as Kind;
    let mut content = Content::None;
    let by_status = || match change.status {
        Status::Sent => Kind::Sent,
        Status::Delivered => Kind::Delivered,
        Status::Undelivered => Kind::Undelivered,
        Status::Held => Kind::Held,
        Status::Expired => Kind::Expired,
        Status::Failed => Kind::Failed,
        Status::Canceled => Kind::Canceled,
        Status::Superseded => Kind::Superseded,
        Status::Scheduled | Status::Queued | Status::Sending | Status::Retrying => Kind::Retrying,
    };
    let nothing = Details::new();
    let (kind, actor, details) = match change.cause {
        Cause::Accepted(new, seal) => {
            content = Content::Elsewhere(seal.hash);
            (Kind::Accepted, Actor::Tenant, accepted(new))
        }
        Cause::Superseded { by } => (Kind::Superseded, Actor::Tenant, nothing.text("by", &by.to_string())),
        Cause::Settled(finished, reason) => (by_status(), Actor::Server, settled(finished, reason)),
        Cause::FallbackOf(before) => (Kind::Fallback, Actor::Server, nothing.number("after", before.into())),
        Cause::Canceled => (Kind::Canceled, Actor::Tenant, nothing),
        Cause::Resolved => (Kind::Resolved, Actor::Tenant, nothing),
        Cause::Replayed { redirected } => (Kind::Replayed, Actor::Tenant, nothing.flag("redirected", redirected)),
        Cause::Redirected => (Kind::Redirected, Actor::Tenant, nothing),
        Cause::Expired => (Kind::Expired, Actor::Server, nothing),
        Cause::Reported(word) => (by_status(), Actor::Provider, nothing.maybe("code", code(word))),
        Cause::Lost => (Kind::Lost, Actor::Server, nothing),
    };
    let of = (change.tenant, change.key, change.channel_id);
    AuditEvent { content, ..AuditEvent::of_delivery(kind, actor, of, details) }
}

fn accepted(new: &NewNotification) -> Details {
    let notification = &new.notification;
    let details = Details::new().text("channel", &notification.channel);
    let details = match notification.priority {
        Priority::Normal => details,
        priority => details.text("priority", priority.as_str()),
    };
    details.maybe("sendAt", notification.send_at.map(|at| at.to_string()).as_deref())
}

fn settled(finished: &Finished, reason: Option<FailureReason>) -> Details {
    let details = Details::new();
    let details = match &finished.attempt {
        Some(attempt) => details
            .number("attempt", attempt.number.into())
            .text("outcome", attempt.outcome.as_str())
            .maybe("code", code(attempt.code.as_deref())),
        None => details,
    };
    details.maybe("reason", reason.map(FailureReason::as_str))
}

/// The most bytes of a provider's code that the audit log repeats.
const CODE_MAX_BYTES: usize = 64;

/// A provider's code, if it is one: what is longer may be a sentence about somebody.
fn code(code: Option<&str>) -> Option<&str> {
    code.filter(|code| code.len() <= CODE_MAX_BYTES)
}
