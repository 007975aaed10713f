//! What a caller posted, and the limits it has to keep.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{ChannelId, NotificationId, TenantId};
use crate::problem::Problems;
use crate::time::Timestamp;
use crate::trace::TraceContext;

/// The longest message, in bytes of UTF-8.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024;
/// The longest title, in bytes of UTF-8.
pub const TITLE_MAX_BYTES: usize = 1024;
/// The longest target, in bytes of UTF-8: an address within the provider.
pub const TARGET_MAX_BYTES: usize = 1024;
/// The longest `key`, in bytes of UTF-8.
pub const KEY_MAX_BYTES: usize = 255;
/// The most that `data` may hold, in bytes of compact JSON.
pub const DATA_MAX_BYTES: usize = 32 * 1024;
/// The most entries that `metadata` may have.
pub const METADATA_MAX_ENTRIES: usize = 64;
/// The longest name and the longest value in `metadata`, in bytes of UTF-8.
pub const METADATA_MAX_BYTES: usize = 1024;
/// The most fallbacks that a notification may name.
pub const FALLBACK_MAX: usize = 8;

/// How urgent a notification is. High goes first and is marked where people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Leaves when nothing more urgent waits.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Goes first.
    High,
}

/// How the message's text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Plain text: arrives as typed.
    #[default]
    Text,
    /// Markdown (CommonMark): turned into the provider's own dialect.
    Markdown,
}

macro_rules! word {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The word that the API and the store use.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}
pub(crate) use word;

word!(Priority { Low = "low", Normal = "normal", High = "high" });
word!(Format { Text = "text", Markdown = "markdown" });

/// Where to try next when a delivery failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// The channel's type, such as `discord`.
    pub channel: String,
    /// The channel.
    pub channel_id: ChannelId,
    /// The target within it; none means the channel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_id: Option<String>,
}

/// What is to become a [`Notification`]; nothing in it has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Its id.
    pub id: NotificationId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The channel's type.
    pub channel: String,
    /// The channel.
    pub channel_id: ChannelId,
    /// The target within it; none means the channel's default.
    pub target: Option<String>,
    /// The text.
    pub message: String,
    /// A subject or heading.
    pub title: Option<String>,
    /// How urgent.
    pub priority: Priority,
    /// How the text is written.
    pub format: Format,
    /// For plugins that carry it.
    pub data: Map<String, Value>,
    /// The caller's own labels.
    pub metadata: BTreeMap<String, String>,
    /// While one with the same key, channel and target is queued, this one takes its place.
    pub key: Option<String>,
    /// Where to try next.
    pub fallback: Vec<Fallback>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Not before.
    pub send_at: Option<Timestamp>,
    /// And not after.
    pub expires_at: Timestamp,
    /// Where it belongs in a trace that the caller or the operator keeps.
    pub trace: Option<TraceContext>,
}

/// A notification that keeps all limits. Immutable once accepted: its fields are read through it.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification(Box<Draft>);

impl std::ops::Deref for Notification {
    type Target = Draft;
    fn deref(&self) -> &Draft {
        &self.0
    }
}

impl Notification {
    /// Checks a draft: the only way to a notification. Problems name the request's fields (`message`, `metadata.room`).
    pub fn new(draft: Draft) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        check_text(&mut problems, "message", &draft.message, MESSAGE_MAX_BYTES);
        for (place, text, max) in [
            ("title", &draft.title, TITLE_MAX_BYTES),
            ("targetId", &draft.target, TARGET_MAX_BYTES),
            ("key", &draft.key, KEY_MAX_BYTES),
        ] {
            if let Some(text) = text {
                check_text(&mut problems, place, text, max);
            }
        }
        check_data(&mut problems, &draft.data);
        check_metadata(&mut problems, &draft.metadata);
        if draft.fallback.len() > FALLBACK_MAX {
            problems.add("fallback", format!("has {} entries; {FALLBACK_MAX} are allowed", draft.fallback.len()));
        }
        for (index, target) in draft.fallback.iter().enumerate().filter_map(|(i, f)| Some((i, f.target_id.as_ref()?))) {
            check_text(&mut problems, &format!("fallback.{index}.targetId"), target, TARGET_MAX_BYTES);
        }
        let first = draft.send_at.map_or(draft.accepted_at, |at| at.max(draft.accepted_at));
        if draft.expires_at <= first {
            let other = if draft.send_at.is_some_and(|at| at > draft.accepted_at) { "sendAt" } else { "now" };
            problems.add("expiresAt", format!("is not after {other}, so the notification could never be sent"));
        }
        if problems.is_empty() { Ok(Self::from_stored(draft)) } else { Err(problems) }
    }

    /// Takes what the store kept, which was checked when it was accepted.
    pub fn from_stored(draft: Draft) -> Self {
        Self(Box::new(draft))
    }

    /// How many bytes it takes of what its tenant may have waiting: those of its texts, and of `data`, `metadata` and the
    /// fallbacks as JSON.
    pub fn bytes(&self) -> u64 {
        let texts = [&self.title, &self.target, &self.key].into_iter().flatten().map(String::len);
        let json = [
            (!self.data.is_empty()).then(|| json_bytes(&self.data)),
            (!self.metadata.is_empty()).then(|| json_bytes(&self.metadata)),
            (!self.fallback.is_empty()).then(|| json_bytes(&self.fallback)),
        ];
        let bytes = texts.chain(json.into_iter().flatten()).fold(self.message.len(), usize::saturating_add);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// When its first attempt is due.
    pub fn first_due(&self) -> Timestamp {
        self.send_at.map_or(self.accepted_at, |at| at.max(self.accepted_at))
    }
}

fn json_bytes<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

/// Text that is neither empty nor too long and has no NUL, which C-minded providers and databases cut a text at.
fn check_text(problems: &mut Problems, place: &str, text: &str, max: usize) {
    if text.trim().is_empty() {
        problems.add(place, "is empty; expected some text");
    } else if text.len() > max {
        problems.add(place, format!("is {} bytes long; {max} are allowed", text.len()));
    }
    if text.contains('\0') {
        problems.add(place, "holds a NUL character (\\u0000), which no provider can carry");
    }
}

fn check_data(problems: &mut Problems, data: &Map<String, Value>) {
    if data.is_empty() {
        return;
    }
    let size = json_bytes(data);
    if size > DATA_MAX_BYTES {
        problems.add("data", format!("is {size} bytes of JSON; {DATA_MAX_BYTES} are allowed"));
    }
}

fn check_metadata(problems: &mut Problems, metadata: &BTreeMap<String, String>) {
    if metadata.len() > METADATA_MAX_ENTRIES {
        problems.add("metadata", format!("has {} entries; {METADATA_MAX_ENTRIES} are allowed", metadata.len()));
    }
    for (name, value) in metadata.iter().take(METADATA_MAX_ENTRIES) {
        let place = || format!("metadata.{name}");
        if name.is_empty() {
            problems.add("metadata", "has an entry without a name");
        }
        if name.len() > METADATA_MAX_BYTES || value.len() > METADATA_MAX_BYTES {
            problems.add(place(), format!("is too long; a name and a value may have {METADATA_MAX_BYTES} bytes each"));
        }
        if name.contains('\0') || value.contains('\0') {
            problems.add(place(), "holds a NUL character (\\u0000)");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;
    use uuid::Uuid;

    pub(crate) fn draft() -> Draft {
        let accepted_at = Timestamp::from_millis(1_705_314_600_000);
        Draft {
            id: NotificationId::new(Uuid::from_u128(1)),
            tenant: TenantId::new(Uuid::from_u128(2)),
            channel: "log".into(),
            channel_id: ChannelId::new(Uuid::from_u128(3)),
            target: None,
            message: "Test notification".into(),
            title: None,
            priority: Priority::Normal,
            format: Format::Text,
            data: Map::new(),
            metadata: BTreeMap::new(),
            key: None,
            fallback: Vec::new(),
            accepted_at,
            send_at: None,
            expires_at: accepted_at.plus(Duration::from_secs(86_400)),
            trace: None,
        }
    }

    fn places(draft: Draft) -> Vec<String> {
        Notification::new(draft).err().into_iter().flatten().map(|p| p.place).collect()
    }

    #[test]
    fn a_plain_draft_is_accepted() {
        assert!(Notification::new(draft()).is_ok());
    }

    #[test]
    fn every_limit_is_checked_and_all_faults_are_told_at_once() {
        let mut bad = draft();
        bad.message = "x".repeat(MESSAGE_MAX_BYTES + 1);
        bad.title = Some("  ".into());
        bad.target = Some("a\0b".into());
        bad.key = Some("k".repeat(KEY_MAX_BYTES + 1));
        bad.data.insert("d".into(), "x".repeat(DATA_MAX_BYTES).into());
        bad.metadata.insert("m".into(), "x".repeat(METADATA_MAX_BYTES + 1));
        bad.expires_at = bad.accepted_at;
        assert_eq!(places(bad), ["message", "title", "targetId", "key", "data", "metadata.m", "expiresAt"]);
    }

    #[test]
    fn limits_are_inclusive() {
        let mut full = draft();
        full.message = "x".repeat(MESSAGE_MAX_BYTES);
        full.key = Some("k".repeat(KEY_MAX_BYTES));
        assert!(places(full).is_empty());
    }

    #[test]
    fn a_time_that_never_comes_is_refused() {
        let mut late = draft();
        late.send_at = Some(late.expires_at.plus(Duration::from_secs(1)));
        assert_eq!(places(late), ["expiresAt"]);
    }

    #[test]
    fn all_that_a_caller_may_fill_counts_towards_its_bytes() {
        let bytes = |change: fn(&mut Draft)| {
            let mut draft = draft();
            draft.message = "ü".into();
            change(&mut draft);
            Notification::new(draft).unwrap().bytes()
        };
        assert_eq!(bytes(|_| {}), 2);
        assert_eq!(bytes(|d| d.title = Some("abc".into())), 5);
        assert_eq!(bytes(|d| d.target = Some("abc".into())), 5);
        assert_eq!(bytes(|d| d.key = Some("abc".into())), 5);
        assert_eq!(bytes(|d| drop(d.data.insert("a".into(), 1.into()))), 2 + r#"{"a":1}"#.len() as u64);
        assert_eq!(bytes(|d| drop(d.metadata.insert("a".into(), "b".into()))), 2 + r#"{"a":"b"}"#.len() as u64);
        let fallback = Fallback { channel: "log".into(), channel_id: ChannelId::new(Uuid::nil()), target_id: None };
        let mut with = draft();
        with.fallback = vec![fallback.clone()];
        let json = serde_json::to_string(&[fallback]).unwrap();
        let expected = "Test notification".len() + json.len();
        assert_eq!(Notification::new(with).unwrap().bytes(), u64::try_from(expected).unwrap());
    }

    #[test]
    fn words_read_back() {
        for priority in Priority::ALL {
            assert_eq!(priority.as_str().parse(), Ok(*priority));
        }
        assert_eq!("urgent".parse::<Priority>(), Err(()));
    }
}
