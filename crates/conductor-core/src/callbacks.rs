//! Callbacks: what a tenant's own server is told when one of its notifications, or channels, comes to another state.
//!
//! A callback is kept in the transaction that changed the state, with the exact bytes that will be posted, so that it is
//! neither lost nor sent for something that did not happen. It is tried again on a schedule of its own and never causes
//! a notification, a retry or another callback.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::delivery::Status;
use crate::id::{CallbackId, ChannelId, EndpointId, NotificationId, TenantId};
use crate::notification::word;
use crate::retry::RETRY_AFTER_MAX;
use crate::store::StoreError;
use crate::time::Timestamp;
use async_trait::async_trait;
use serde::Serialize;

pub use body::News;

mod body;

/// The waits between the attempts of one callback; after the attempt that follows the last it is given up.
pub const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
    Duration::from_secs(5 * 60 * 60),
    Duration::from_secs(10 * 60 * 60),
    Duration::from_secs(10 * 60 * 60),
];
/// By how much a wait is shortened or lengthened at random, as a part of it.
pub const JITTER: f64 = 0.2;
/// A callback that could not be sent for so long is not sent any more, however few attempts it had; but one it has.
pub const AGE_MAX: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// The most callbacks of one endpoint that wait. What comes then takes the place of the oldest.
pub const WAITING_MAX: u64 = 50_000;
/// So many callbacks that were given up are remembered for each endpoint.
pub const GIVEN_UP_KEPT: usize = 100;
/// The most callbacks that one [`Callbacks::clear_callbacks`] or [`Callbacks::drop_old_callbacks`] removes.
pub const CLEAR_MAX: usize = 500;
/// The most of a receiver's words that is kept, in characters.
pub const DETAIL_MAX: usize = 300;

/// What a tenant can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// The provider has it.
    NotificationSent,
    /// A receipt says that it arrived.
    NotificationDelivered,
    /// A receipt says that it did not arrive, and no fallback follows.
    NotificationUndelivered,
    /// Given up, and no fallback follows.
    NotificationFailed,
    /// Not sent before its time ran out.
    NotificationExpired,
    /// Taken back.
    NotificationCanceled,
    /// A newer one with the same key took its place.
    NotificationSuperseded,
    /// Whether it was sent is unknown; a person has to say.
    NotificationHeld,
    /// A channel does not get anything out any more.
    ChannelDown,
    /// It does again.
    ChannelUp,
}

word!(Event {
    NotificationSent = "notification.sent", NotificationDelivered = "notification.delivered",
    NotificationUndelivered = "notification.undelivered", NotificationFailed = "notification.failed",
    NotificationExpired = "notification.expired", NotificationCanceled = "notification.canceled",
    NotificationSuperseded = "notification.superseded", NotificationHeld = "notification.held",
    ChannelDown = "channel.down", ChannelUp = "channel.up"
});

impl Event {
    /// What is told when a notification comes to this status; none where nobody is told.
    pub const fn of(status: Status) -> Option<Self> {
        Some(match status {
            Status::Sent => Self::NotificationSent,
            Status::Delivered => Self::NotificationDelivered,
            Status::Undelivered => Self::NotificationUndelivered,
            Status::Failed => Self::NotificationFailed,
            Status::Expired => Self::NotificationExpired,
            Status::Canceled => Self::NotificationCanceled,
            Status::Superseded => Self::NotificationSuperseded,
            Status::Held => Self::NotificationHeld,
            Status::Scheduled | Status::Queued | Status::Sending | Status::Retrying => return None,
        })
    }

    /// Whether it is about a channel.
    pub const fn is_of_channel(self) -> bool {
        matches!(self, Self::ChannelDown | Self::ChannelUp)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Which events an endpoint wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventSet(u16);

impl EventSet {
    /// Every event.
    pub fn all() -> Self {
        Event::ALL.iter().copied().collect()
    }

    /// Whether this one is among them.
    pub const fn contains(self, event: Event) -> bool {
        self.0 & event.bit() != 0
    }

    /// The events, in the order of [`Event`].
    pub fn iter(self) -> impl Iterator<Item = Event> {
        Event::ALL.iter().copied().filter(move |event| self.contains(*event))
    }
}

impl FromIterator<Event> for EventSet {
    fn from_iter<T: IntoIterator<Item = Event>>(events: T) -> Self {
        Self(events.into_iter().fold(0, |set, event| set | event.bit()))
    }
}

/// Who wants to hear what. The store looks at it whenever a state changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscriptions(HashMap<TenantId, Vec<Subscription>>);

/// One endpoint's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// What it wants to hear.
    pub events: EventSet,
    /// A hash of everything that is configured for it: where that has changed, an endpoint that was disabled is not any
    /// more.
    pub fingerprint: [u8; 32],
}

impl Subscriptions {
    /// Adds an endpoint of a tenant.
    pub fn add(&mut self, tenant: TenantId, subscription: Subscription) {
        self.0.entry(tenant).or_default().push(subscription);
    }

    /// Those of a tenant.
    pub fn of(&self, tenant: TenantId) -> &[Subscription] {
        self.0.get(&tenant).map_or(&[], Vec::as_slice)
    }

    /// The tenant's endpoints that want this event.
    pub fn wanting(&self, tenant: TenantId, event: Event) -> impl Iterator<Item = &Subscription> {
        self.of(tenant).iter().filter(move |subscription| subscription.events.contains(event))
    }

    /// Every endpoint with its tenant.
    pub fn iter(&self) -> impl Iterator<Item = (TenantId, &Subscription)> {
        self.0.iter().flat_map(|(tenant, all)| all.iter().map(|subscription| (*tenant, subscription)))
    }
}

/// A callback that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Its place in the order in which they were made. Unlike [`Callback::id`], another store may use it again.
    pub number: i64,
    /// `webhook-id`: the same in every attempt.
    pub id: CallbackId,
    /// Where it goes to.
    pub endpoint: EndpointId,
    /// What it tells.
    pub event: Event,
    /// The exact text of its body.
    pub body: String,
    /// When the state changed.
    pub created_at: Timestamp,
    /// Not before.
    pub due: Timestamp,
    /// Attempts that were made.
    pub attempts: u32,
}

/// What follows the failed attempt number `attempts` of a callback: the time of the next one, or none: it is given up.
/// `asked` is how long the receiver wants to be left alone, `jitter` lies between 0 and 1.
pub fn next_attempt(
    attempts: u32,
    created_at: Timestamp,
    now: Timestamp,
    asked: Option<Duration>,
    jitter: f64,
) -> Option<Timestamp> {
    let wait = SCHEDULE.get(usize::try_from(attempts.checked_sub(1)?).ok()?)?;
    let wait = wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0));
    let due = now.plus(wait.max(asked.unwrap_or_default().min(RETRY_AFTER_MAX)));
    // A clock that was put forward and back again must not throw anything away.
    (now.since(created_at) < AGE_MAX).then_some(due)
}

/// How one attempt went, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackAttempt {
    /// When it began.
    pub at: Timestamp,
    /// The receiver took it.
    pub ok: bool,
    /// The answer's status.
    pub code: Option<String>,
    /// What went wrong, in a few words; never a secret.
    pub detail: Option<String>,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackNext {
    /// It is done.
    Done,
    /// Again at this time.
    Again(Timestamp),
    /// No more.
    GiveUp,
    /// No more, and the endpoint wants nothing else either.
    Disable,
}

/// A callback that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// `webhook-id`
    pub id: CallbackId,
    /// What it told.
    pub event: Event,
    /// Of which notification, if it was about one.
    pub notification: Option<NotificationId>,
    /// When the state had changed.
    pub created_at: Timestamp,
    /// When it was given up.
    pub at: Timestamp,
    /// How many attempts were made.
    pub attempts: u32,
    /// How the last one went.
    pub code: Option<String>,
    /// See [`CallbackAttempt::detail`].
    pub detail: Option<String>,
}

/// How an endpoint goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointState {
    /// Which.
    pub endpoint: EndpointId,
    /// Whose.
    pub tenant: TenantId,
    /// How many callbacks wait.
    pub waiting: u64,
    /// When the oldest of them was made.
    pub oldest: Option<Timestamp>,
    /// Taken by the receiver.
    pub delivered: u64,
    /// Given up after the last attempt.
    pub given_up: u64,
    /// Thrown away unsent: too many waited, or for too long, or the endpoint was disabled.
    pub dropped: u64,
    /// When it answered that it wants no more, if it did.
    pub disabled_at: Option<Timestamp>,
    /// The last attempt.
    pub last: Option<CallbackAttempt>,
}

/// A part of what waits for an endpoint, see [`Callbacks::callbacks`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingCallbacks {
    /// Those that are due first, whether they are due yet or not.
    pub first: Vec<Callback>,
    /// How the endpoint goes; none where nothing was ever kept for it.
    pub state: Option<EndpointState>,
}

/// What happened to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelNews {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub channel: ChannelId,
    /// Its type.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why it is down; none: it is up.
    pub down: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// Keeps callbacks. Every method is one transaction; what it returned has happened and is on disk.
#[async_trait]
pub trait Callbacks: Send + Sync {
    /// From now on these are told, and nobody else. An endpoint that was disabled and is configured otherwise now is
    /// enabled. What waits for those that are not among them stays until [`Callbacks::clear_callbacks`].
    async fn subscribe(&self, subscriptions: Subscriptions) -> Result<(), StoreError>;

    /// Returns when [`Callbacks::arrived_callbacks`] may have something. May return without cause.
    async fn callback_arrived(&self);

    /// The endpoints for which something was kept since the last call: after the start and after
    /// [`Callbacks::subscribe`] all for which something waits.
    fn arrived_callbacks(&self) -> Vec<EndpointId>;

    /// The endpoints that were enabled or are configured otherwise since the last call: how they have answered before
    /// says nothing any more.
    fn renewed_endpoints(&self) -> Vec<EndpointId>;

    /// What waits for an endpoint, at most `limit`, with how it goes.
    async fn callbacks(&self, endpoint: EndpointId, limit: usize) -> Result<WaitingCallbacks, StoreError>;

    /// Writes how an attempt went and what follows. One that was thrown away in the meantime stays away.
    async fn settle_callback(
        &self,
        callback: &Callback,
        attempt: CallbackAttempt,
        next: CallbackNext,
        at: Timestamp,
    ) -> Result<(), StoreError>;

    /// Every endpoint for which anything is kept, also those that are configured no more.
    async fn all_endpoints(&self) -> Result<Vec<EndpointState>, StoreError>;

    /// Throws away up to [`CLEAR_MAX`] of the callbacks of an endpoint that is disabled or configured no more, and when
    /// none is left whatever is kept of the latter. Returns how many; 0: nothing is left. Does nothing for others.
    async fn clear_callbacks(&self, endpoint: EndpointId) -> Result<usize, StoreError>;

    /// Throws away those among an endpoint's [`CLEAR_MAX`] oldest callbacks that were made before `before` and have had
    /// an attempt. Returns how many.
    async fn drop_old_callbacks(&self, endpoint: EndpointId, before: Timestamp) -> Result<usize, StoreError>;

    /// Enables a tenant's endpoint. False: it is none of the tenant's, or was not disabled.
    async fn enable_endpoint(&self, tenant: TenantId, endpoint: EndpointId) -> Result<bool, StoreError>;

    /// How a tenant's endpoints go, as far as anything was kept for them.
    async fn endpoints(&self, tenant: TenantId) -> Result<Vec<EndpointState>, StoreError>;

    /// The last [`GIVEN_UP_KEPT`] callbacks of an endpoint that were given up, newest first.
    async fn given_up(&self, endpoint: EndpointId) -> Result<Vec<GivenUp>, StoreError>;

    /// The channels of which their tenant was told last that they are down.
    async fn channels_down(&self) -> Result<Vec<ChannelId>, StoreError>;

    /// Tells of a channel, and remembers what was told.
    async fn tell_of_channel(&self, news: ChannelNews, at: Timestamp) -> Result<(), StoreError>;

    /// Forgets what was told of a channel that is there no more.
    async fn forget_channel(&self, channel: ChannelId) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    #[test]
    fn a_callback_is_tried_eight_times_over_a_day() {
        let waits = |jitter| {
            (1..=8).map(move |made| next_attempt(made, NOW, NOW, None, jitter).map(|due| due.millis() / 1_000))
        };
        let exact = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000].map(Some);
        assert!(waits(0.5).eq(exact.into_iter().chain([None])));
        assert!(waits(0.0).eq([4, 240, 1_440, 5_760, 14_400, 28_800, 28_800].map(Some).into_iter().chain([None])));
        assert!(waits(1.0).eq([6, 360, 2_160, 8_640, 21_600, 43_200, 43_200].map(Some).into_iter().chain([None])));
        assert_eq!(next_attempt(0, NOW, NOW, None, 0.5), None);
    }

    #[test]
    fn a_receiver_that_asks_for_time_gets_it_within_bounds() {
        let due = |asked| next_attempt(1, NOW, NOW, Some(Duration::from_secs(asked)), 0.5).unwrap().millis() / 1_000;
        assert_eq!(due(1), 5);
        assert_eq!(due(90), 90);
        assert_eq!(due(u64::MAX), 86_400);
    }

    #[test]
    fn what_could_not_be_sent_for_three_days_is_given_up() {
        let later = NOW.plus(AGE_MAX);
        assert!(next_attempt(1, NOW, later.minus(Duration::from_millis(1)), None, 0.5).is_some());
        assert_eq!(next_attempt(1, NOW, later, None, 0.5), None);
        assert!(next_attempt(1, later, NOW, None, 0.5).is_some(), "the clock was put back");
    }

    #[test]
    fn every_state_that_stays_has_its_event() {
        for status in Status::ALL {
            let told = Event::of(*status);
            assert_eq!(told.is_some(), status.has_ended() || *status == Status::Held, "{status:?}");
            assert!(told.is_none_or(|event| event.as_str() == format!("notification.{}", status.as_str())));
        }
        assert!(Event::ALL.iter().all(|event| EventSet::all().contains(*event)));
        let two: EventSet = [Event::ChannelUp, Event::NotificationSent].into_iter().collect();
        assert_eq!(two.iter().collect::<Vec<_>>(), [Event::NotificationSent, Event::ChannelUp]);
    }
}
