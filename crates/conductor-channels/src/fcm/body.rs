//! How a notification becomes a message of Firebase.
//!
//! <https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages#resource:-message>

use std::time::Duration;

use conductor_core::{Message, Priority, SendError, SendErrorKind, TenantId, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::push;

/// The most bytes of a message to a device, and of one to topics.
/// <https://firebase.google.com/docs/cloud-messaging/concept-options>
pub(super) const DEVICE_MAX_BYTES: usize = 4096;
pub(super) const TOPIC_MAX_BYTES: usize = 2048;
/// The longest that Google keeps a message: four weeks.
const LIFETIME_MAX: Duration = Duration::from_secs(28 * 24 * 60 * 60);
/// A condition names five topics at most.
const CONDITION_TOPICS_MAX: usize = 5;

/// Who gets a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A device's registration token.
    Device(String),
    /// A topic, without `/topics/`.
    Topic(String),
    /// A logical expression of topics.
    Condition(String),
}

impl Target {
    /// Reads what a person wrote; else says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(topic) = text.strip_prefix("/topics/") {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
            let is_topic = !topic.is_empty() && topic.bytes().all(good);
            return is_topic
                .then(|| Self::Topic(topic.into()))
                .ok_or("names no topic; expected letters, digits and -_.~%");
        }
        if text.contains(char::is_whitespace) || text.contains('\'') {
            let topics = text.matches(" in topics").count();
            let is_condition = (1..=CONDITION_TOPICS_MAX).contains(&topics) && !text.contains(char::is_control);
            let fault =
                "is no condition; expected such as 'dogs' in topics || 'cats' in topics, with five topics at most";
            return is_condition.then(|| Self::Condition(text.into())).ok_or(fault);
        }
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:".contains(&byte);
        let is_device = !text.is_empty() && text.bytes().all(good);
        is_device
            .then(|| Self::Device(text.into()))
            .ok_or("is no registration token; expected letters, digits and -_:, or a topic that begins with /topics/")
    }

    /// The place of the target, as Google names it in an error.
    pub(super) const fn field(&self) -> &'static str {
        match self {
            Self::Device(_) => "message.token",
            Self::Topic(_) => "message.topic",
            Self::Condition(_) => "message.condition",
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Device(text) | Self::Topic(text) | Self::Condition(text) => text,
        }
    }

    const fn max_bytes(&self) -> usize {
        match self {
            Self::Device(_) => DEVICE_MAX_BYTES,
            Self::Topic(_) | Self::Condition(_) => TOPIC_MAX_BYTES,
        }
    }

    /// Writes it into a message.
    pub(super) fn write(&self, message: &mut Value) {
        let name = match self {
            Self::Device(_) => "token",
            Self::Topic(_) => "topic",
            Self::Condition(_) => "condition",
        };
        message[name] = Value::from(self.text());
    }
}

/// The message. All of it but the target counts for its size, which is more than Google counts.
pub(super) fn message(message: &Message, target: &Target, screen: &Screen) -> Result<Value, SendError> {
    let mut made = json!({
        "notification": {},
        "android": android(message, screen),
        "apns": apns(message, screen),
        "webpush": webpush(message, screen),
    });
    let data = data(&message.data)?;
    if !data.is_empty() {
        made["data"] = Value::Object(data);
    }
    if let Some(title) = push::title(message) {
        made["notification"]["title"] = Value::from(title);
    }
    let max = target.max_bytes();
    let fits = |body: &str| {
        let mut tried = made.clone();
        tried["notification"]["body"] = Value::from(body);
        tried.to_string().len() <= max
    };
    let Some(body) = push::shortened(&push::body(message), max, fits) else {
        let text =
            format!("the title and the data leave no room for the text: {max} bytes of JSON are allowed for all");
        return Err(SendError::new(SendErrorKind::Rejected, text));
    };
    made["notification"]["body"] = Value::from(body);
    target.write(&mut made);
    Ok(made)
}

/// For how long a message is kept for a device that is off, and which place it takes on the screen.
pub(super) struct Screen {
    /// What has the same takes the place of the one before it; so does a repetition.
    place: Uuid,
    lifetime: Duration,
    expires_at: Timestamp,
}

impl Screen {
    pub(super) fn of(message: &Message, tenant: TenantId, now: Timestamp) -> Self {
        let lifetime = message.lifetime(now).min(LIFETIME_MAX);
        Self { place: message.replaces(tenant), lifetime, expires_at: now.plus(lifetime) }
    }
}

fn android(message: &Message, screen: &Screen) -> Value {
    let (priority, shown) = match push::urgency(message) {
        Priority::High => ("HIGH", "PRIORITY_HIGH"),
        Priority::Normal => ("NORMAL", "PRIORITY_DEFAULT"),
        Priority::Low => ("NORMAL", "PRIORITY_LOW"),
    };
    let notification = json!({ "tag": screen.place.to_string(), "notificationPriority": shown });
    let ttl = format!("{}s", screen.lifetime.as_secs());
    let mut android = json!({ "priority": priority, "ttl": ttl, "notification": notification });
    // Google keeps four of them for a device at most, so that they are spent only where the caller has a key.
    if message.key.is_some() {
        android["collapseKey"] = screen.place.to_string().into();
    }
    android
}

fn apns(message: &Message, screen: &Screen) -> Value {
    let (priority, aps) = match push::urgency(message) {
        Priority::High => ("10", json!({ "sound": "default", "interruption-level": "time-sensitive" })),
        Priority::Normal => ("5", json!({ "sound": "default" })),
        Priority::Low => ("5", json!({ "interruption-level": "passive" })),
    };
    let headers = json!({
        "apns-priority": priority,
        "apns-collapse-id": screen.place.to_string(),
        "apns-expiration": screen.expires_at.seconds().to_string(),
    });
    json!({ "headers": headers, "payload": { "aps": aps } })
}

/// <https://www.rfc-editor.org/rfc/rfc8030#section-5>: a topic has 32 letters and digits at most.
fn webpush(message: &Message, screen: &Screen) -> Value {
    let ttl = screen.lifetime.as_secs().to_string();
    json!({ "headers": { "Urgency": urgency(message), "TTL": ttl, "Topic": screen.place.simple().to_string() } })
}

/// <https://www.rfc-editor.org/rfc/rfc8030#section-5.3>
const fn urgency(message: &Message) -> &'static str {
    match push::urgency(message) {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

/// The caller's data as Google takes it: every value is a text. What is none is written as JSON.
fn data(data: &Map<String, Value>) -> Result<Map<String, Value>, SendError> {
    let reserved = |name: &str| {
        matches!(name, "from" | "message_type") || name.starts_with("google.") || name.starts_with("gcm.notification.")
    };
    if let Some(name) = data.keys().find(|name| reserved(name)) {
        let text = format!("data.{name} is Google's own name: give this member of the data another");
        return Err(SendError::new(SendErrorKind::Rejected, text));
    }
    let as_text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(data.iter().map(|(name, value)| (name.clone(), as_text(value).into())).collect())
}
