//! What keeps the notifications: domain operations, each one transaction.
//!
//! The store is the truth; what the dispatcher holds in memory are only hints about what may be due. A hint that has
//! become wrong (canceled, superseded, already ended) is found out by [`Store::claim`], which gives no lease for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::audit::AuditLog;
use crate::callbacks::Callbacks;
use crate::channel::Scope;
use crate::delivery::{Attempt, DeliveryKey, FailureReason, Status};
use crate::id::{ChannelId, NotificationId, TenantId};
use crate::notification::{Notification, Priority};
use crate::receipts::{Receipts, Reception};
use crate::replay::Replays;
use crate::retention::{Compacted, Pruned, Retention};
use crate::retry::Settlement;
use crate::statistics::Statistics;
use crate::time::Timestamp;

/// The most entries that one [`Store::arrivals`], [`Store::claim`], page or bulk step handles.
pub const BATCH_MAX: usize = 1_000;

/// So many attempts of a delivery are kept from its beginning, and so many from its end. Those in between are counted
/// only: where an attempt is made every few seconds for days, nobody reads them all.
pub const FIRST_ATTEMPTS_KEPT: u32 = 20;
/// See [`FIRST_ATTEMPTS_KEPT`].
pub const LAST_ATTEMPTS_KEPT: u32 = 80;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room: nothing was written. It recovers by itself when there is room again.
    #[error("the store's disk is full")]
    Full,
    /// The engine failed otherwise: nothing was written.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The lease has been used up or belongs to another process.
    #[error("the lease is lost")]
    LeaseLost,
}

/// A notification to be kept, with the caller's wish not to have it twice.
#[derive(Debug, Clone)]
pub struct NewNotification {
    /// The notification.
    pub notification: Arc<Notification>,
    /// The caller's `Idempotency-Key`, if any.
    pub idempotency: Option<Idempotency>,
}

/// An `Idempotency-Key` with the fingerprint of the request that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, 1 to 255 bytes.
    pub key: String,
    /// Which notification of a batch, where there are several. All of them share key and fingerprint.
    pub part: Option<u32>,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
}

/// How long an `Idempotency-Key` is remembered.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What became of a [`NewNotification`].
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// It is on disk.
    New {
        /// The one whose place it took, if any.
        superseded: Option<NotificationId>,
    },
    /// The same request was accepted before, as this notification.
    Replayed(Box<Notification>),
    /// Another request was accepted with the same idempotency key.
    Conflict,
}

/// A delivery that waits: all that scheduling needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Which.
    pub key: DeliveryKey,
    /// Whose.
    pub tenant: TenantId,
    /// Through which channel.
    pub channel: ChannelId,
    /// A hash of the target: deliveries of one channel with the same lane leave in order.
    pub lane: u64,
    /// How urgent.
    pub priority: Priority,
    /// Not before.
    pub due: Timestamp,
    /// An attempt was made already: if it waits, then because that failed, not because its caller said when to send it.
    pub tried: bool,
    /// It was waiting when the process before this one died, which it may have caused.
    pub suspect: bool,
    /// Its provider has told its channel, or its lane, to wait until it is due.
    pub limited: Option<Scope>,
}

/// What a tenant has that has not ended: it waits, is held or is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// How many notifications.
    pub notifications: u64,
    /// How many bytes they take, see [`Notification::bytes`].
    pub bytes: u64,
}

/// Which part of what a channel has waiting to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogRequest {
    /// The channel.
    pub channel: ChannelId,
    /// Those of this priority; none means all.
    pub priority: Option<Priority>,
    /// Behind this one in the order of acceptance; none means from the beginning.
    pub after: Option<DeliveryKey>,
    /// The most to find.
    pub limit: usize,
}

/// A part of what a channel has waiting, see [`Store::backlog`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// What was found, in the order of acceptance; also what is under way or due later, but nothing that is held.
    pub found: Vec<Queued>,
    /// How far was looked: the next part begins behind it. None: to the end.
    pub through: Option<DeliveryKey>,
}

/// The wish to make an attempt of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Which delivery.
    pub key: DeliveryKey,
    /// As in [`Queued::suspect`]: the claim itself is written down first, so that a message that kills the process is
    /// found out and slowed down.
    pub suspect: bool,
}

/// What became of a [`Claim`].
#[derive(Debug)]
pub enum Claimed {
    /// An attempt may be made.
    Leased(Box<Lease>),
    /// It waits, but for a later time.
    NotDue(Queued),
    /// It no longer waits, or an attempt is under way.
    Gone,
}

/// How far a delivery has come in earlier attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many parts of its text the provider has.
    pub parts_sent: u32,
    /// A hash of these parts. Another one than the same number of parts has now: the text is cut elsewhere than it was.
    pub cuts: u64,
    /// The provider refused the text with its markup, so that it goes out as plain text.
    pub plain: bool,
    /// The provider's id of the first part.
    pub provider_id: Option<String>,
}

/// The right to make one attempt. It is used up by [`Store::settle`] or [`Store::release`].
#[derive(Debug)]
pub struct Lease {
    /// Which delivery.
    pub key: DeliveryKey,
    /// What is to be sent.
    pub notification: Arc<Notification>,
    /// Through which channel.
    pub channel: ChannelId,
    /// The target within it; none means the channel's default.
    pub target: Option<String>,
    /// The channel's type, where the channel is not the one that the notification names.
    pub redirected: Option<String>,
    /// The number of the attempt that may be made, from 1.
    pub attempt: u32,
    /// Earlier attempts that count towards the backoff.
    pub failures: u32,
    /// When it is given up.
    pub expires_at: Timestamp,
    /// The place in the notification's list of fallbacks that follows when this delivery fails.
    pub next_fallback: u8,
    /// How far earlier attempts came.
    pub progress: Progress,
}

/// What became of an attempt.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The attempt, if one was made: a delivery can also end without one (expired, channel removed).
    pub attempt: Option<Attempt>,
    /// What follows.
    pub settlement: Settlement,
    /// The provider's id of the message, if it was sent.
    pub provider_id: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What a settled attempt led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The delivery's status now.
    pub status: Status,
    /// What is to be scheduled now: the delivery's own next attempt, or the first of its fallback.
    pub next: Option<Queued>,
}

/// A settlement that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unsettled {
    /// The lease, still good unless `error` is [`StoreError::LeaseLost`].
    pub lease: Box<Lease>,
    /// What was to be written.
    pub finished: Finished,
    /// Why it was not.
    pub error: StoreError,
}

/// A delivery whose time ran out while it waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Which.
    pub key: DeliveryKey,
    /// Whose.
    pub tenant: TenantId,
    /// Through which channel.
    pub channel: ChannelId,
}

/// Whether a wished change of state took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It did; the status now.
    Done(Status),
    /// This tenant has no such notification.
    NotFound,
    /// Its present status does not allow it.
    WrongStatus(Status),
    /// Its content was removed at this time, so that there is nothing left to send.
    Redacted(Timestamp),
}

/// Another channel for a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// The channel's type.
    pub channel: String,
    /// The channel.
    pub channel_id: ChannelId,
    /// The target within it; none means the channel's default.
    pub target: Option<String>,
}

/// Which notifications to list; everything that is given has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// This status.
    pub status: Option<Status>,
    /// Only dead letters, whichever they are.
    pub dead_letters: bool,
    /// A channel of this type.
    pub channel: Option<String>,
    /// This channel.
    pub channel_id: Option<ChannelId>,
    /// Accepted at this time or later.
    pub from: Option<Timestamp>,
    /// Accepted before this time.
    pub to: Option<Timestamp>,
    /// Message, title or a metadata value contains this, without regard to case.
    pub text: Option<String>,
}

/// A part of a list, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// What fits. It may be shorter than the limit, even empty, though more follow: looking is bounded too.
    pub items: Vec<Summary>,
    /// Where the next part begins: pass it as `before`. None: there is no more.
    pub next: Option<NotificationId>,
}

/// A notification in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The notification.
    pub notification: Notification,
    /// The status of its last delivery.
    pub status: Status,
    /// When its content was removed, if it was.
    pub redacted_at: Option<Timestamp>,
}

/// A notification with all that happened to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// The notification.
    pub notification: Notification,
    /// When its content was removed, if it was: message, title, data, targets, and what providers said of it.
    pub redacted_at: Option<Timestamp>,
    /// Its deliveries, in the order in which they were created; at least one.
    pub deliveries: Vec<DeliveryStory>,
}

impl Story {
    /// The status of the whole: that of its last delivery.
    pub fn status(&self) -> Status {
        self.deliveries.last().map_or(Status::Queued, |delivery| delivery.status)
    }
}

/// One delivery with its attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryStory {
    /// Which.
    pub key: DeliveryKey,
    /// The channel's type.
    pub channel: String,
    /// The channel.
    pub channel_id: ChannelId,
    /// The target within it; none means the channel's default.
    pub target: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// When the next attempt is due, where one follows.
    pub due_at: Option<Timestamp>,
    /// Why it was given up, if it was.
    pub reason: Option<FailureReason>,
    /// The provider's id of the message.
    pub provider_id: Option<String>,
    /// What the provider reported later, as far as that says something of the whole.
    pub receipt: Option<Reception>,
    /// The attempts, oldest first: the first [`FIRST_ATTEMPTS_KEPT`] and the last [`LAST_ATTEMPTS_KEPT`].
    pub attempts: Vec<Attempt>,
    /// How many there were besides.
    pub attempts_left_out: u32,
}

/// Keeps the notifications. Every method is one transaction; what it returned has happened and is on disk.
#[async_trait]
pub trait Store: Replays + Receipts + Callbacks + AuditLog + Send + Sync + 'static {
    /// Keeps a notification and queues its first delivery. With a `key`, ends the queued one whose place it takes.
    async fn accept(&self, new: NewNotification) -> Result<Accepted, StoreError>;

    /// What was accepted with an idempotency key before: replayed, in conflict, or none if nothing is remembered.
    async fn earlier(&self, tenant: TenantId, idempotency: &Idempotency) -> Result<Option<Accepted>, StoreError>;

    /// Hands over waiting deliveries that this process has not been handed yet: after the start all that the last
    /// process left, then whatever was accepted or replayed since. At most `limit` and [`BATCH_MAX`]. It looks at a
    /// bounded part of what waits at a time, so an answer may be short, even empty, though more follow: then
    /// [`Store::arrived`] returns at once. One that was handed over may be handed over again.
    async fn arrivals(&self, limit: usize) -> Result<Vec<Queued>, StoreError>;

    /// Finds what one channel has waiting, for a caller who could not keep all that [`Store::arrivals`] handed over.
    /// It looks at a bounded part of what waits at a time, so a part may be short, even empty, though more follow.
    async fn backlog(&self, request: BacklogRequest) -> Result<Backlog, StoreError>;

    /// From now on [`Store::arrivals`] leaves out what is due after `until`, unless it was tried before; a later call
    /// with a later time hands over what lies between. False: not now, try again soon. Without a call nothing is left
    /// out.
    fn look_ahead(&self, until: Timestamp) -> bool;

    /// Returns when [`Store::arrivals`] may have something. May return without cause.
    async fn arrived(&self);

    /// Leases these deliveries; the answers are in the order of the claims.
    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError>;

    /// Writes what became of an attempt: the attempt, the new state, the lease's progress and a fallback's delivery,
    /// together. What was sent ends as `delivered` or `undelivered` where a receipt has said so already. A fallback's delivery begins with nothing sent and with its markup. Where it fails nothing was written, the lease stands, and everything comes back for another try.
    async fn settle(&self, lease: Lease, finished: Finished) -> Result<Settled, Unsettled>;

    /// Writes how far the attempt under way has come, so that the next one goes on there, also after a crash. The lease
    /// has the progress even where it could not be written: then [`Store::settle`] writes it.
    async fn advance(&self, lease: &mut Lease, progress: Progress) -> Result<(), StoreError>;

    /// Gives a lease back as if it had never been taken. What [`Store::advance`] wrote stays.
    async fn release(&self, lease: Lease);

    /// Takes back a notification that is waiting.
    async fn cancel(&self, tenant: TenantId, id: NotificationId, at: Timestamp) -> Result<Transition, StoreError>;

    /// Queues a dead letter or a held one again, through another channel if `redirect` names one. A dead letter gets a
    /// new delivery, so that what happened stays as it was; a held one goes on with the part that was held. The backoff starts again.
    async fn replay(
        &self,
        tenant: TenantId,
        id: NotificationId,
        redirect: Option<Redirect>,
        due: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Transition, StoreError>;

    /// Takes a held notification as sent.
    async fn resolve(&self, tenant: TenantId, id: NotificationId, at: Timestamp) -> Result<Transition, StoreError>;

    /// A tenant's notification with all that happened to it.
    async fn notification(&self, tenant: TenantId, id: NotificationId) -> Result<Option<Story>, StoreError>;

    /// A tenant's notifications, newest first, those before `before` if it is given.
    async fn notifications(
        &self,
        tenant: TenantId,
        filter: &Filter,
        limit: usize,
        before: Option<NotificationId>,
    ) -> Result<Page, StoreError>;

    /// How many deliveries of a channel have not ended. Costs nothing.
    fn waiting(&self, channel: ChannelId) -> u64;

    /// What a tenant has that has not ended, in all channels, also in those that are configured no more. Costs nothing.
    fn load(&self, tenant: TenantId) -> Load;

    /// When the oldest notification that waits in each of these channels was accepted; nothing for an empty one. It looks
    /// at a bounded part of what waits at a time: nothing also for one whose oldest lies so far behind others' that it
    /// was not found yet, which a later call goes on with.
    async fn oldest(&self, tenant: TenantId, channels: &[ChannelId])
    -> Result<Vec<(ChannelId, Timestamp)>, StoreError>;

    /// Ends waiting deliveries whose time has run out, at most [`BATCH_MAX`]. Those under way and those that are held
    /// are left.
    async fn expire(&self, now: Timestamp) -> Result<Vec<Expired>, StoreError>;

    /// Forgets idempotency keys that were accepted before `before`. Returns how many.
    async fn forget_idempotency(&self, before: Timestamp) -> Result<usize, StoreError>;

    /// Does a step of what `retention` asks for, so small that whatever else waits for the store hardly notices: looks
    /// through a part of what is old, removes the notifications that have ended long enough ago, and the content of
    /// others. Call it until it is done, and then again after some time: it goes on where it stopped, and looks at
    /// everything again once in a thirtieth of the time that a tenant's notifications are kept.
    ///
    /// What waits or is held, and what ended later than `now`, stays.
    async fn prune(&self, retention: &Arc<Retention>, now: Timestamp) -> Result<Pruned, StoreError>;

    /// Does a small step towards a file without needless empty space. Some is left for what comes.
    async fn compact(&self) -> Result<Compacted, StoreError>;

    /// Whether the store can write now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What the store has done and how it stands. Asks the file system, so call it where waiting does no harm.
    fn statistics(&self) -> Statistics;

    /// Whether the store works at all. False: it has been closed, or has failed as a whole, which only a new start mends.
    fn is_running(&self) -> bool;

    /// Writes what is in flight and lets go of the files. Later calls are [`StoreError::Closed`].
    async fn close(&self);
}
