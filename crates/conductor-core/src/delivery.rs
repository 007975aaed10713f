//! The state machine of a delivery.
//!
//! ```text
//!            accept                      claim                     settle: sent          receipt
//!   (new) ───────────▶ queued ◀───┐ ───────────▶ sending ──────────────────────▶ sent ──────────▶ delivered
//!                        │        │                │ │ │                                          undelivered
//!                 cancel │        └── retry, ──────┘ │ └── settle: failed ────▶ failed, expired
//!                        ▼            release        └──── settle: held ──▶ held ──▶ queued, sent, canceled
//!              canceled, superseded
//! ```
//!
//! What has ended stays as it ended: a dead letter that is replayed, or a fallback, is a new delivery of the same
//! notification. A receipt alone changes what was sent, and `undelivered` to `delivered`; never the other way round.
//!
//! `scheduled` is `queued` before `sendAt`; `retrying` is `queued` after an attempt; both are only names of it.
//! `sending` is never written down by an engine that one process owns: a process that died holds no lease.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{DeliveryId, NotificationId};
use crate::notification::word;
use crate::time::Timestamp;

/// Where a notification or a delivery stands, as the API tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits for its `sendAt`.
    Scheduled,
    /// Waits for its first attempt.
    Queued,
    /// An attempt is under way.
    Sending,
    /// At least one attempt failed; another follows.
    Retrying,
    /// Whether it was sent is unknown; waits for a person.
    Held,
    /// The provider has it.
    Sent,
    /// A receipt says that it arrived.
    Delivered,
    /// A receipt says that it did not arrive.
    Undelivered,
    /// Given up: a dead letter.
    Failed,
    /// Not sent before its time ran out: a dead letter.
    Expired,
    /// Taken back by the caller.
    Canceled,
    /// A newer one with the same key took its place.
    Superseded,
}

word!(Status {
    Scheduled = "scheduled", Queued = "queued", Sending = "sending", Retrying = "retrying", Held = "held", Sent = "sent",
    Delivered = "delivered", Undelivered = "undelivered", Failed = "failed", Expired = "expired", Canceled = "canceled",
    Superseded = "superseded"
});

impl Status {
    /// Whether nothing more happens by itself. A held delivery has not ended: it waits for a person.
    pub const fn has_ended(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Queued | Self::Sending | Self::Retrying | Self::Held)
    }

    /// Whether it ended without reaching the provider, though nobody took it back: listed as a dead letter and open
    /// to `retry`.
    pub const fn is_dead_letter(self) -> bool {
        matches!(self, Self::Failed | Self::Expired | Self::Undelivered)
    }
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The provider has it.
    Sent,
    /// Refused for now.
    Retryable,
    /// Too fast; the provider said how long to wait.
    RateLimited,
    /// The channel's own credentials were refused.
    Unauthorized,
    /// The content was refused.
    Rejected,
    /// This target can never be reached.
    Permanent,
    /// The request went out and no answer came.
    Unknown,
}

word!(Outcome {
    Sent = "sent", Retryable = "retryable", RateLimited = "rateLimited", Unauthorized = "unauthorized",
    Rejected = "rejected", Permanent = "permanent", Unknown = "unknown"
});

/// Why a delivery became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureReason {
    /// The provider refuses this target.
    Permanent,
    /// The provider refuses this content.
    Rejected,
    /// Its time ran out.
    Expired,
    /// The channel is no longer configured.
    ChannelRemoved,
}

word!(FailureReason {
    Permanent = "permanent", Rejected = "rejected", Expired = "expired", ChannelRemoved = "channelRemoved"
});

impl FailureReason {
    /// The status in which a delivery ends for this reason.
    pub const fn status(self) -> Status {
        match self {
            Self::Expired => Status::Expired,
            Self::Permanent | Self::Rejected | Self::ChannelRemoved => Status::Failed,
        }
    }
}

/// Names one delivery: the notification and which of its deliveries (0 is the first; fallbacks and redirects follow).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    /// The notification.
    pub notification: NotificationId,
    /// Which of its deliveries.
    pub ordinal: u8,
}

impl DeliveryKey {
    /// The id under which the API and the provider know this delivery.
    pub fn id(self) -> DeliveryId {
        DeliveryId::derive(self.notification, self.ordinal)
    }
}

impl fmt::Debug for DeliveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.notification, self.ordinal)
    }
}

/// One try of a delivery, as it is kept and told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 1 over the delivery's whole life.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// What it came to.
    pub outcome: Outcome,
    /// The provider's own code, such as an HTTP status.
    pub code: Option<String>,
    /// The provider's words, shortened; never a secret.
    pub detail: Option<String>,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_has_not_ended() {
        let waiting: Vec<_> = Status::ALL.iter().filter(|status| !status.has_ended()).map(|s| s.as_str()).collect();
        assert_eq!(waiting, ["scheduled", "queued", "sending", "retrying", "held"]);
        assert!(Status::ALL.iter().filter(|status| status.is_dead_letter()).all(|status| status.has_ended()));
    }
}
