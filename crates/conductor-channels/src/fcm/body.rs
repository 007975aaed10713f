//! How a notification becomes a message of Firebase.
//!
//! <https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages#resource:-message>

use conductor_core::{Message, Priority, SendError, SendErrorKind};
use serde_json::{Map, Value, json};

use crate::push;

/// The most bytes of a message to a device, and of one to topics.
/// <https://firebase.google.com/docs/cloud-messaging/concept-options>
pub(super) const DEVICE_MAX_BYTES: usize = 4096;
pub(super) const TOPIC_MAX_BYTES: usize = 2048;
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
pub(super) fn message(message: &Message, target: &Target) -> Result<Value, SendError> {
    let mut made = json!({
        "notification": {},
        "android": android(message),
        "apns": apns(message),
        "webpush": { "headers": { "Urgency": urgency(message) } },
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

/// A repetition has the same tag, so that it takes the first one's place.
fn android(message: &Message) -> Value {
    let (priority, shown) = match push::urgency(message) {
        Priority::High => ("HIGH", "PRIORITY_HIGH"),
        Priority::Normal => ("NORMAL", "PRIORITY_DEFAULT"),
        Priority::Low => ("NORMAL", "PRIORITY_LOW"),
    };
    let notification = json!({ "tag": message.part_id().to_string(), "notificationPriority": shown });
    json!({ "priority": priority, "notification": notification })
}

fn apns(message: &Message) -> Value {
    let (priority, aps) = match push::urgency(message) {
        Priority::High => ("10", json!({ "sound": "default", "interruption-level": "time-sensitive" })),
        Priority::Normal => ("5", json!({ "sound": "default" })),
        Priority::Low => ("5", json!({ "interruption-level": "passive" })),
    };
    let headers = json!({ "apns-priority": priority, "apns-collapse-id": message.part_id().to_string() });
    json!({ "headers": headers, "payload": { "aps": aps } })
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
