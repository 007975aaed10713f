//! What the engine and a channel say to one another.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::delivery::{DeliveryKey, Outcome};
use crate::id::{DeliveryId, NotificationId, TenantId};
use crate::notification::{Format, Priority, word};
use crate::receipts::{PartKey, ReceiptAnswer, ReceiptError, ReceiptRequest};
use crate::time::Timestamp;
use crate::trace::TraceContext;

/// A live connection to one provider with one tenant's credentials.
///
/// A value of this trait is always ready: a plugin's `initialize` returns it, so one that was not initialized cannot
/// exist. A provider that is down makes `send` fail as [`SendErrorKind::Retryable`].
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// Sends one message. Called concurrently; the caller sets the time limit and may drop the future at any point.
    async fn send(&self, message: &Message) -> Result<Receipt, SendError>;

    /// How long the provider would count this message as the channel renders it: title, marks and escapes included, in
    /// the unit of the plugin's [`TextLimit`]. Pure; asked often while a text is split.
    fn length(&self, message: &Message) -> usize {
        Unit::Characters.count(&message.body)
    }

    /// Asks whether a send would probably work now. Sends nothing that a person could see.
    async fn health_check(&self) -> Health {
        Health::Unknown
    }

    /// Begins what stands as long as the channel is in use, such as a connection that shows a bot as online. Returns at
    /// once; called within a runtime, and not at all for a channel that is only tried out.
    fn open(&self) {}

    /// How that is doing; none where nothing stands, or nothing is known yet. Read often.
    fn standing(&self) -> Option<Standing> {
        None
    }

    /// Reads what the provider reports, after a look at who calls: whoever can reach the server can call this. Pure, so
    /// that it can be asked often.
    ///
    /// # Errors
    /// The channel takes no receipts, or the call is not the provider's, or it makes no sense.
    fn receipt(&self, request: &ReceiptRequest) -> Result<ReceiptAnswer, ReceiptError> {
        let _ = request;
        Err(ReceiptError::NotTaken)
    }

    /// Lets go of connections. Called once, after the last `send` has returned.
    async fn shutdown(&self) {}
}

/// A message, rendered and ready to go.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The notification that it came from.
    pub notification: NotificationId,
    /// The same in every attempt: the provider's idempotency key is made from it.
    pub delivery: DeliveryId,
    /// Which of the notification's deliveries that is, from 0.
    pub ordinal: u8,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The address within the provider; none means the channel's default.
    pub target: Option<String>,
    /// A subject or heading.
    pub title: Option<String>,
    /// The text.
    pub body: String,
    /// How the text is written.
    pub format: Format,
    /// How urgent it is.
    pub priority: Priority,
    /// The caller's data for plugins that carry it.
    pub data: Map<String, Value>,
    /// The caller's own labels.
    pub metadata: BTreeMap<String, String>,
    /// When the notification was accepted.
    pub accepted_at: Timestamp,
    /// When it is of no use any more: a provider that keeps it for a device or a phone that is off should then forget it.
    pub expires_at: Timestamp,
    /// The notification's `key`: what has the same is about the same thing.
    pub key: Option<String>,
    /// Which part of a text that was too long for one message, from 0. Title and marks belong into part 0 only.
    pub part: u32,
    /// How many parts there are: 1 where the text was not split.
    pub parts: u32,
    /// Where the attempt belongs in a trace, for providers that keep one too.
    pub trace: Option<TraceContext>,
}

impl Message {
    /// What the provider recognises a repetition of this part by: the same in every attempt, different in every part.
    /// Part 0 has the delivery's own id.
    pub fn part_id(&self) -> Uuid {
        match self.part {
            0 => self.delivery.uuid(),
            part => Uuid::new_v5(&self.delivery.uuid(), &part.to_be_bytes()),
        }
    }

    /// What this part takes the place of where people see it: what has the same is replaced. Without a `key` it is
    /// [`Self::part_id`], so that a repetition replaces what it repeats; with one, it is the same in all of the tenant's
    /// notifications that have this key.
    pub fn replaces(&self, tenant: TenantId) -> Uuid {
        match &self.key {
            None => self.part_id(),
            Some(key) => Uuid::new_v5(&tenant.uuid(), format!("{}:{key}", self.part).as_bytes()),
        }
    }

    /// For how long from `now` a provider should keep it; at least a second.
    pub fn lifetime(&self, now: Timestamp) -> Duration {
        self.expires_at.since(now).max(Duration::from_secs(1))
    }

    /// What a provider that reports later is given to name this part by.
    pub fn part_key(&self) -> PartKey {
        let delivery = DeliveryKey { notification: self.notification, ordinal: self.ordinal };
        PartKey { delivery, part: self.part, parts: self.parts }
    }
}

/// What a plugin's provider takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message; none where there is no limit worth splitting for.
    pub text: Option<TextLimit>,
    /// Whether the plugin turns markdown into a dialect of its provider, which the provider may refuse. Then a refused
    /// message is sent once more as plain text.
    pub rich: bool,
}

impl Limits {
    /// Takes everything as it is.
    pub const NONE: Self = Self { text: None, rich: false };
}

/// The longest message that a provider takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextLimit {
    /// So many of `unit`.
    pub max: usize,
    /// What the provider counts.
    pub unit: Unit,
}

/// What a provider counts a text's length in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Unicode code points.
    Characters,
    /// UTF-16 code units.
    Utf16,
    /// Bytes of UTF-8.
    Bytes,
}

impl Unit {
    /// How long a text is.
    pub fn count(self, text: &str) -> usize {
        match self {
            Self::Characters => text.chars().count(),
            Self::Utf16 => text.encode_utf16().count(),
            Self::Bytes => text.len(),
        }
    }

    /// The unit's name in a sentence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Characters => "characters",
            Self::Utf16 => "UTF-16 code units",
            Self::Bytes => "bytes",
        }
    }
}

/// The provider has the message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    /// The provider's own id of it.
    pub provider_id: Option<String>,
}

/// Whether a channel would probably work now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answered.
    Up,
    /// It did not, and why.
    Down {
        /// For the tenant; never a secret.
        reason: String,
    },
    /// It cannot be asked without sending something.
    Unknown,
}

impl Health {
    /// Whether it would probably not work.
    pub const fn is_down(&self) -> bool {
        matches!(self, Self::Down { .. })
    }
}

/// How a connection that stands between messages is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is there.
    pub health: Health,
    /// Since when it is so.
    pub since: Timestamp,
}

/// How far a provider's "too fast" reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything that this channel sends.
    Channel,
    /// Only this target.
    Lane,
}

word!(Scope { Channel = "channel", Lane = "lane" });

/// Why a message did not go out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What kind of trouble: the engine decides by it.
    pub kind: SendErrorKind,
    /// For the tenant, in the provider's words where it gave some; never a secret.
    pub message: String,
    /// The provider's own code, such as an HTTP status.
    pub code: Option<String>,
}

/// The kinds of trouble that a channel can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendErrorKind {
    /// A refused connection, a 5xx, a 408: worth another try. Uses up an attempt.
    Retryable {
        /// The least time to wait, where the provider named one.
        retry_after: Option<Duration>,
    },
    /// Too fast. Uses up no attempt; what `scope` names waits at least this long.
    RateLimited {
        /// The time that the provider named; none where it named none.
        retry_after: Option<Duration>,
        /// How far the wait reaches.
        scope: Scope,
    },
    /// The channel's own credentials are refused: the channel stops at once and says so. Its deliveries wait for a
    /// mended configuration, or for a [`Channel::health_check`] that succeeds.
    Unauthorized,
    /// The content is refused: never repeated unchanged.
    Rejected,
    /// No such recipient, archived, blocked: never worth another try.
    Permanent,
    /// The request was written and no answer came: the message may be out.
    Unknown,
}

impl SendError {
    /// An error of this kind with words for the tenant.
    pub fn new(kind: SendErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None }
    }

    /// What it says of the channel where it is the answer to the question whether that works. Being too fast says nothing:
    /// a send may work once there is room.
    pub fn health(self) -> Health {
        match self.kind {
            SendErrorKind::RateLimited { .. } => Health::Unknown,
            _ => Health::Down { reason: self.message },
        }
    }

    /// Adds the provider's own code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

impl SendErrorKind {
    /// The word under which an attempt that ended so is kept.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Retryable { .. } => Outcome::Retryable,
            Self::RateLimited { .. } => Outcome::RateLimited,
            Self::Unauthorized => Outcome::Unauthorized,
            Self::Rejected => Outcome::Rejected,
            Self::Permanent => Outcome::Permanent,
            Self::Unknown => Outcome::Unknown,
        }
    }

    /// How long the provider asked to wait, where it did.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Retryable { retry_after } | Self::RateLimited { retry_after, .. } => retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_counts_its_own_way() {
        let text = "aä€😀";
        let counts = [Unit::Characters, Unit::Utf16, Unit::Bytes].map(|unit| unit.count(text));
        assert_eq!(counts, [4, 5, 10]);
    }

    fn message() -> Message {
        let notification = NotificationId::new(Uuid::from_u128(7));
        Message {
            notification,
            delivery: DeliveryId::derive(notification, 0),
            ordinal: 0,
            attempt: 1,
            target: None,
            title: None,
            body: "hello".into(),
            format: Format::Text,
            priority: Priority::Normal,
            data: Map::new(),
            metadata: BTreeMap::new(),
            accepted_at: Timestamp::ZERO,
            expires_at: Timestamp::from_millis(90_000),
            key: None,
            part: 0,
            parts: 3,
            trace: None,
        }
    }

    #[test]
    fn a_part_has_an_id_of_its_own_that_never_changes() {
        let mut message = message();
        assert_eq!(message.part_id(), message.delivery.uuid());
        message.part = 1;
        let second = message.part_id();
        (message.attempt, message.body) = (2, "other".into());
        assert_eq!(message.part_id(), second);
        message.part = 2;
        assert_ne!(message.part_id(), second);
    }

    #[test]
    fn what_has_the_same_key_takes_the_same_place_within_a_tenant() {
        let (one, other) = (TenantId::new(Uuid::from_u128(1)), TenantId::new(Uuid::from_u128(2)));
        let mut first = message();
        assert_eq!(first.replaces(one), first.part_id());
        first.key = Some("pump".into());
        let second = Message { delivery: DeliveryId::new(Uuid::from_u128(9)), ..first.clone() };
        assert_eq!(first.replaces(one), second.replaces(one));
        assert_ne!(first.replaces(one), second.replaces(other));
        assert_ne!(first.replaces(one), Message { part: 1, ..first.clone() }.replaces(one));
        assert_ne!(first.replaces(one), Message { key: Some("door".into()), ..first }.replaces(one));
    }

    #[test]
    fn a_lifetime_is_what_is_left_until_it_expires() {
        let lifetime = |millis| message().lifetime(Timestamp::from_millis(millis)).as_millis();
        assert_eq!([0, 80_000, 90_000, 200_000].map(lifetime), [90_000, 10_000, 1_000, 1_000]);
    }
}
