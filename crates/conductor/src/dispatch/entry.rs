//! A delivery that waits, as the schedule holds it. Pure.

use conductor_core::store::{Lease, Queued};
use conductor_core::{DeliveryKey, Priority, Timestamp};

/// A delivery that waits. Kept small: there may be millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) key: DeliveryKey,
    pub(crate) suspect: bool,
    pub(crate) class: u8,
    pub(crate) limited: Limited,
    pub(crate) channel: u32,
    pub(crate) lane: u64,
}

/// How often in a row the provider has told a delivery to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Limited(u8);

/// Where a delivery stands among those that wait for its lane: urgency, then time, then age.
pub(crate) type PlaceInLane = (u8, u64, DeliveryKey);

impl Limited {
    /// After so many times it makes way for others of its lane, and grows its own waits.
    const PATIENCE: u8 = 2;
    /// Its waits grow no further.
    const MAX: u8 = Self::PATIENCE + 10;

    /// It was told to wait once more, `others_pass` telling whether others did not have to.
    pub(crate) fn again(self, others_pass: bool) -> Self {
        let grows = self.0 < Self::PATIENCE || others_pass;
        Self((self.0 + u8::from(grows)).min(Self::MAX))
    }

    /// Whether it lets others of its lane pass.
    pub(crate) fn makes_way(self) -> bool {
        self.0 >= Self::PATIENCE
    }

    /// How many times as long as it was told it waits.
    pub(crate) fn stretch(self) -> u32 {
        1 << self.0.saturating_sub(Self::PATIENCE)
    }
}

impl Entry {
    /// A delivery of the channel at this place.
    pub(crate) fn new(channel: u32, queued: &Queued, limited: Limited) -> Self {
        let Queued { key, suspect, lane, priority, .. } = *queued;
        Self { key, suspect, class: class_of(priority), limited, channel, lane }
    }

    /// The same as the store says it, with more to do at once.
    pub(crate) fn queued(&self, lease: &Lease) -> Queued {
        let (tenant, priority, due) = (lease.notification.tenant, lease.notification.priority, Timestamp::ZERO);
        let (key, channel, lane, suspect) = (self.key, lease.channel, self.lane, self.suspect);
        Queued { key, tenant, channel, lane, priority, due, tried: true, suspect, limited: None }
    }

    /// Where it stands among those that wait for its lane: by age alone where the channel is ordered. One that makes
    /// way stands behind all that have come by now.
    pub(crate) fn place_in_lane(&self, ordered: bool, now: Timestamp) -> PlaceInLane {
        if ordered {
            return (0, 0, self.key);
        }
        let accepted = u64::try_from(self.key.notification.uuid().as_u128() >> 80).unwrap_or(u64::MAX);
        let now = u64::try_from(now.millis()).unwrap_or(0);
        (self.class, if self.limited.makes_way() { accepted.max(now) } else { accepted }, self.key)
    }

    /// Its channel's place in the schedule.
    pub(crate) fn channel(&self) -> u32 {
        self.channel
    }
}

/// The place of a priority in arrays: high first.
pub(crate) fn class_of(priority: Priority) -> u8 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}
