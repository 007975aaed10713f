//! One transaction of the writer, and the one place through which every change of a delivery's state passes.

use std::cell::RefCell;
use std::ops::Deref;

use conductor_core::receipts::Report;
use conductor_core::store::{Finished, NewNotification};
use conductor_core::{ChannelId, DeliveryKey, FailureReason, NotificationId, Status, TenantId, Timestamp};
use rusqlite::Transaction;

use super::callbacks::{self, Moved};
use super::memory::Memory;
use super::weights::Weight;
use super::write::Waiting;

/// A transaction, with what it has to tell of itself. It is rolled back unless it is committed.
pub(crate) struct Work<'c> {
    transaction: Transaction<'c>,
    /// What the present command has changed, in order.
    moved: RefCell<Vec<Moved>>,
    /// What will wait, or wait no longer, when it is committed.
    weights: RefCell<Vec<Weight>>,
}

impl<'c> Deref for Work<'c> {
    type Target = Transaction<'c>;
    fn deref(&self) -> &Transaction<'c> {
        &self.transaction
    }
}

#[allow(dead_code, reason = "what hangs on to the changes reads them")]
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

#[allow(dead_code, reason = "what hangs on to the changes reads them")]
/// Why a delivery's state has changed.
#[derive(Clone, Copy)]
pub(crate) enum Cause<'a> {
    /// A caller posted it.
    Accepted(&'a NewNotification),
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
    /// Its provider has reported what became of it.
    Reported(&'a Report),
}

impl<'a> StateChange<'a> {
    /// What has become of a delivery that waits, or did until now.
    pub(crate) fn of(waiting: &Waiting, status: Status, at: Timestamp, cause: Cause<'a>) -> Self {
        Self { key: waiting.key, tenant: waiting.tenant, channel_id: waiting.channel_id, status, at, cause }
    }
}

impl<'c> Work<'c> {
    pub(crate) fn new(transaction: Transaction<'c>) -> Self {
        Self { transaction, moved: RefCell::default(), weights: RefCell::default() }
    }

    /// Every change of a delivery's state passes here.
    pub(crate) fn note_state(&self, change: &StateChange<'_>) -> rusqlite::Result<()> {
        self.moved.borrow_mut().push(Moved::from(change));
        Ok(())
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

    /// Makes all that was written and noted last.
    pub(crate) fn commit(self, memory: &Memory) -> rusqlite::Result<()> {
        let Self { transaction, weights, .. } = self;
        transaction.commit()?;
        let mut memory = memory.lock();
        weights.into_inner().into_iter().for_each(|weight| memory.weights.change(weight));
        Ok(())
    }
}
