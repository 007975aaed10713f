//! The audit log: what happened, in the order in which it was written, each entry bound to the one before it.
//!
//! An entry's hash is SHA-256 of the hash before it and of everything in the entry, so that whoever changes, removes or
//! inserts one has to make all that follow anew. Content that may have to go (addresses, texts) enters the hash only
//! through a seal, a salted hash: when salt and content are removed, the chain still holds, and nobody can find the
//! content again by trying what it may have been.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};

use crate::delivery::DeliveryKey;
use crate::id::{ChannelId, NotificationId, TenantId};
use crate::notification::{Draft, word};
use crate::retention::Retention;
use crate::store::StoreError;
use crate::time::Timestamp;

mod chain;

pub use chain::{ChainCheck, ChainFault};

/// SHA-256.
pub type Hash = [u8; 32];
/// What makes a seal unguessable.
pub type Salt = [u8; 16];

/// The hash that the first entry follows.
pub const GENESIS: Hash = [0; 32];
/// The most bytes that an event's details may have, and that its content may.
pub const DETAILS_MAX_BYTES: usize = 64 * 1024;

/// How long entries are kept where nobody says.
pub const AUDIT_KEPT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditKind {
    /// A notification was accepted.
    Accepted,
    /// A newer one with the same `key` took its place.
    Superseded,
    /// An attempt came to nothing, and another follows.
    Retrying,
    /// Whether it was sent is unknown; it waits for a person.
    Held,
    /// The provider has it.
    Sent,
    /// A receipt says that it arrived.
    Delivered,
    /// A receipt says that it did not arrive.
    Undelivered,
    /// It was given up.
    Failed,
    /// Its time ran out.
    Expired,
    /// It was taken back.
    Canceled,
    /// A held one was taken as sent.
    Resolved,
    /// A dead letter or a held one was queued again.
    Replayed,
    /// A held delivery made room for one through another channel.
    Redirected,
    /// The next fallback was queued.
    Fallback,
    /// The process before this one died during an attempt.
    Lost,
    /// A bulk retry began.
    RetriesBegun,
    /// A bulk retry was stopped.
    RetriesCanceled,
    /// Old notifications, or their content, were removed.
    Tidied,
    /// Requests with a wrong key, or with none, were refused.
    KeysRefused,
    /// A callback's receiver wants no more.
    EndpointDisabled,
    /// It is told again.
    EndpointEnabled,
    /// The server started.
    Started,
    /// The server stopped in good order.
    Stopped,
    /// Another configuration took effect.
    Configured,
    /// A new configuration was refused.
    ConfigurationRefused,
    /// The oldest entries of this log were removed, as it is configured.
    EntriesRemoved,
    /// At the start, the log did not end where it had ended.
    ChainBroken,
}

word!(AuditKind {
    Accepted = "accepted", Superseded = "superseded", Retrying = "retrying", Held = "held", Sent = "sent",
    Delivered = "delivered", Undelivered = "undelivered", Failed = "failed", Expired = "expired",
    Canceled = "canceled", Resolved = "resolved", Replayed = "replayed", Redirected = "redirected",
    Fallback = "fallback", Lost = "lost", RetriesBegun = "retriesBegun", RetriesCanceled = "retriesCanceled",
    Tidied = "tidied", KeysRefused = "keysRefused", EndpointDisabled = "endpointDisabled",
    EndpointEnabled = "endpointEnabled", Started = "started", Stopped = "stopped",
    Configured = "configured", ConfigurationRefused = "configurationRefused", EntriesRemoved = "entriesRemoved",
    ChainBroken = "chainBroken"
});

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// Somebody with the tenant's key.
    Tenant,
    /// The operator.
    Operator,
    /// A provider, whose signature was right.
    Provider,
    /// The server itself.
    Server,
    /// Somebody who is not known.
    Unknown,
}

word!(Actor {
    Tenant = "tenant", Operator = "operator", Provider = "provider", Server = "server", Unknown = "unknown"
});

/// Facts of an event that stay as long as the entry: never what tells of a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details(String);

/// Content that may have to go before its entry does.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Content {
    /// There is none.
    #[default]
    None,
    /// It is kept elsewhere, with its salt; this is its seal.
    Elsewhere(Hash),
    /// It is kept with the entry until it is redacted.
    Here(Map<String, Value>),
}

/// Something that is to stand in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// What happened.
    pub kind: AuditKind,
    /// Who did it.
    pub actor: Actor,
    /// Whose it is; none where it concerns the whole server.
    pub tenant: Option<TenantId>,
    /// Which notification it concerns.
    pub notification: Option<NotificationId>,
    /// Which of its deliveries.
    pub ordinal: Option<u8>,
    /// Which channel.
    pub channel: Option<ChannelId>,
    /// What else is to be said.
    pub details: Details,
    /// What is to be said for a while only.
    pub content: Content,
}

impl AuditEvent {
    /// An event that concerns the whole server.
    pub fn of_server(kind: AuditKind, actor: Actor, details: Details) -> Self {
        let (tenant, notification, ordinal, channel) = (None, None, None, None);
        Self { kind, actor, tenant, notification, ordinal, channel, details, content: Content::None }
    }

    /// An event that concerns a tenant, but none of its notifications.
    pub fn of_tenant(kind: AuditKind, actor: Actor, tenant: TenantId, details: Details) -> Self {
        Self { tenant: Some(tenant), ..Self::of_server(kind, actor, details) }
    }

    /// An event of one delivery.
    pub fn of_delivery(
        kind: AuditKind,
        actor: Actor,
        (tenant, key, channel): (TenantId, DeliveryKey, ChannelId),
        details: Details,
    ) -> Self {
        Self {
            kind,
            actor,
            tenant: Some(tenant),
            notification: Some(key.notification),
            ordinal: Some(key.ordinal),
            channel: Some(channel),
            details,
            content: Content::None,
        }
    }
}

/// Most details take no more, in bytes.
const DETAILS_USUAL_BYTES: usize = 64;

impl Details {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact. `value` is escaped as JSON wants it.
    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Self {
        // Nearly all are words and numbers, and they are written for every notification.
        if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            self.begin(name);
            self.0.extend(["\"", value, "\"}"]);
            return self;
        }
        let value = serde_json::to_string(value).expect("a text is JSON");
        self.raw(name, value)
    }

    /// Adds a fact if there is one.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, name: &str, value: u64) -> Self {
        self.raw(name, value)
    }

    /// Adds a fact that is true; one that is not is left out.
    #[must_use]
    pub fn flag(self, name: &str, value: bool) -> Self {
        if value { self.raw(name, true) } else { self }
    }

    /// Adds anything.
    #[must_use]
    pub fn value(self, name: &str, value: &Value) -> Self {
        self.raw(name, value)
    }

    /// `value` prints itself as JSON.
    fn raw(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.begin(name);
        write!(self.0, "{value}}}").expect("a text takes everything");
        self
    }

    /// What stands before a value.
    fn begin(&mut self, name: &str) {
        if self.0.is_empty() {
            self.0.reserve(DETAILS_USUAL_BYTES);
            self.0.push('{');
        } else {
            self.0.pop();
            self.0.push(',');
        }
        self.0.extend(["\"", name, "\":"]);
    }

    /// A JSON object; none if nothing was added.
    pub fn as_json(&self) -> Option<&str> {
        if self.0.is_empty() { None } else { Some(&self.0) }
    }
}

/// An entry's fields, as its hash covers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a> {
    /// Its number; the first is 1, and none is left out.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// See [`AuditKind`]; a newer version may know more.
    pub kind: &'a str,
    /// See [`Actor`].
    pub actor: &'a str,
    /// Whose.
    pub tenant: Option<TenantId>,
    /// Of which notification.
    pub notification: Option<NotificationId>,
    /// Of which delivery.
    pub ordinal: Option<u8>,
    /// Of which channel.
    pub channel: Option<ChannelId>,
    /// A JSON object.
    pub details: Option<&'a str>,
    /// The seal of its content.
    pub seal: Option<&'a Hash>,
}

/// The encoding that [`Fields::encode`] writes.
const ENCODING: u8 = 1;

impl Fields<'_> {
    /// Writes the one encoding of these fields: no two different entries have the same. Numbers are big-endian; a text
    /// has its length before it; a field that may be missing has a byte before it, 1 or 0.
    pub fn encode(&self, out: &mut Vec<u8>) {
        fn text(out: &mut Vec<u8>, text: &str) {
            out.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        fn maybe(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
            out.push(u8::from(bytes.is_some()));
            out.extend_from_slice(bytes.unwrap_or_default());
        }
        out.push(ENCODING);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.at.millis().to_be_bytes());
        text(out, self.kind);
        text(out, self.actor);
        maybe(out, self.tenant.as_ref().map(|id| &id.bytes()[..]));
        maybe(out, self.notification.as_ref().map(|id| &id.bytes()[..]));
        maybe(out, self.ordinal.as_ref().map(std::slice::from_ref));
        maybe(out, self.channel.as_ref().map(|id| &id.bytes()[..]));
        out.push(u8::from(self.details.is_some()));
        if let Some(details) = self.details {
            text(out, details);
        }
        maybe(out, self.seal.map(|seal| &seal[..]));
    }

    /// The hash of an entry that follows `previous`. `room` is used for the encoding, so that a caller with many
    /// entries allocates once.
    pub fn hash(&self, previous: &Hash, room: &mut Vec<u8>) -> Hash {
        room.clear();
        room.extend_from_slice(previous);
        self.encode(room);
        digest(&[room])
    }
}

/// SHA-256 of these, one after the other.
fn digest(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A hash as people write it.
pub fn hex(hash: &Hash) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes everything");
        text
    })
}

/// The seal of some content: without its salt nobody can tell what it was.
pub fn seal(salt: &Salt, content: &str) -> Hash {
    digest(&[salt, content.as_bytes()])
}

/// What a notification says, as far as its removal from the store has to leave the log alone. Texts as they are stored.
#[derive(Debug, Clone, Copy)]
pub struct Posted<'a> {
    /// The target.
    pub target: Option<&'a str>,
    /// The text.
    pub message: &'a str,
    /// The heading.
    pub title: Option<&'a str>,
    /// `data` as JSON.
    pub data: Option<&'a str>,
    /// `metadata` as JSON.
    pub metadata: Option<&'a str>,
    /// `key`
    pub key: Option<&'a str>,
    /// `fallback` as JSON.
    pub fallback: Option<&'a str>,
}

impl Posted<'_> {
    /// The seal of all of it, which its acceptance has in the log: whoever has the notification with its salt can prove
    /// that it says what was accepted.
    pub fn seal(&self, salt: &Salt) -> Hash {
        let Self { target, message, title, data, metadata, key, fallback } = *self;
        let mut context = Context::new(&SHA256);
        context.update(salt);
        for part in [target, Some(message), title, data, metadata, key, fallback] {
            context.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            context.update(part.unwrap_or_default().as_bytes());
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }

    /// The seal of a notification that is about to be stored.
    pub fn seal_of(draft: &Draft, salt: &Salt) -> Hash {
        fn json<T: serde::Serialize>(value: &T, is_empty: bool) -> Option<String> {
            if is_empty { None } else { serde_json::to_string(value).ok() }
        }
        let data = json(&draft.data, draft.data.is_empty());
        let metadata = json(&draft.metadata, draft.metadata.is_empty());
        let fallback = json(&draft.fallback, draft.fallback.is_empty());
        Posted {
            target: draft.target.as_deref(),
            message: &draft.message,
            title: draft.title.as_deref(),
            data: data.as_deref(),
            metadata: metadata.as_deref(),
            key: draft.key.as_deref(),
            fallback: fallback.as_deref(),
        }
        .seal(salt)
    }
}

/// An entry as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number.
    pub seq: u64,
    /// When it was written, by the clock as it was then. Where the clock was put back by more than two hours, it is
    /// earlier than that of the entry before; by less, the same.
    pub at: Timestamp,
    /// What happened: one of [`AuditKind`], or a word of a newer version.
    pub kind: String,
    /// Who did it: one of [`Actor`], or a word of a newer version.
    pub actor: String,
    /// Whose.
    pub tenant: Option<TenantId>,
    /// Of which notification.
    pub notification: Option<NotificationId>,
    /// Of which delivery.
    pub ordinal: Option<u8>,
    /// Of which channel.
    pub channel: Option<ChannelId>,
    /// A JSON object.
    pub details: Option<String>,
    /// The seal of its content.
    pub seal: Option<Hash>,
    /// The content, a JSON object, where it is kept with the entry and not redacted.
    pub content: Option<String>,
    /// The hash of this entry and, through it, of all before it.
    pub hash: Hash,
}

impl AuditEntry {
    /// What its hash covers.
    pub fn fields(&self) -> Fields<'_> {
        Fields {
            seq: self.seq,
            at: self.at,
            kind: &self.kind,
            actor: &self.actor,
            tenant: self.tenant,
            notification: self.notification,
            ordinal: self.ordinal,
            channel: self.channel,
            details: self.details.as_deref(),
            seal: self.seal.as_ref(),
        }
    }
}

/// Which entries to list; everything that is given has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Written at this time or later.
    pub from: Option<Timestamp>,
    /// Written before this time.
    pub to: Option<Timestamp>,
    /// This kind.
    pub kind: Option<AuditKind>,
    /// Of this notification.
    pub notification: Option<NotificationId>,
}

impl AuditFilter {
    /// Whether an entry fits.
    pub fn takes(&self, entry: &AuditEntry) -> bool {
        self.from.is_none_or(|from| entry.at >= from)
            && self.to.is_none_or(|to| entry.at < to)
            && self.kind.is_none_or(|kind| entry.kind == kind.as_str())
            && self.notification.is_none_or(|id| entry.notification == Some(id))
    }
}

/// A part of the log, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// What fits. It may be shorter than the limit, even empty, though more follow: looking is bounded too.
    pub items: Vec<AuditEntry>,
    /// Where the next part begins: pass it as `before`. None: there is no more.
    pub next: Option<u64>,
}

/// What one step of [`AuditLog::tidy_audit`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditTidied {
    /// Entries that are gone.
    pub removed: u64,
    /// Entries whose content is gone.
    pub redacted: u64,
    /// Everything has been looked through: the next step begins a new round.
    pub is_done: bool,
}

/// Keeps the log. What changes a delivery is written by the method that changes it, in the same transaction.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Adds what no change of the store says by itself. When it returns, the entry is on disk.
    async fn record(&self, event: AuditEvent) -> Result<(), StoreError>;

    /// A part of the log, newest first: the tenant's own entries, or all where no tenant is given, which is for the
    /// operator alone. `before` is [`AuditPage::next`] of the part before.
    async fn audit(
        &self,
        tenant: Option<TenantId>,
        filter: &AuditFilter,
        limit: usize,
        before: Option<u64>,
    ) -> Result<AuditPage, StoreError>;

    /// Does a small step: removes the oldest entries that were written before `keep_from`, and the content of those
    /// that is older than `retention` says for their tenants' content. Call it until it is done, and then again after
    /// some time.
    async fn tidy_audit(
        &self,
        keep_from: Option<Timestamp>,
        retention: &Arc<Retention>,
        now: Timestamp,
    ) -> Result<AuditTidied, StoreError>;
}

#[cfg(test)]
mod tests;
