//! Sends to Apple devices through the Apple Push Notification service.
//!
//! <https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns>

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{Channel, Health, Limits, Message, Priority, Problems, Receipt, Secret, SendError, SendErrorKind};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use crate::http::{Request, Response, below};
use crate::jwt::Signer;
use crate::quota::Quota;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, push};
use token::{Bearer, ProviderToken};

mod answer;
#[cfg(test)]
mod tests;
mod token;

/// The most bytes of a notification's JSON.
/// <https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification>
pub const PAYLOAD_MAX_BYTES: usize = 4096;
/// Device tokens have 64 digits today, and Apple says that they may get longer.
const DEVICE_TOKEN_MAX_BYTES: usize = 200;
/// The most bytes of a bundle's id.
const TOPIC_MAX_BYTES: usize = 255;
/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// A device token that no device has: what is sent there is seen by nobody.
const NOBODY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The `apns` plugin.
pub struct Apns {
    context: ChannelContext,
    base: Url,
    token: Arc<ProviderToken>,
    topic: HeaderValue,
    device: Option<String>,
}

/// What an `apns` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The signing key: the whole text of the .p8 file from Apple's developer account.
    #[schemars(with = "String")]
    pub key: Secret,
    /// The key's id, ten letters and digits.
    pub key_id: String,
    /// The team's id, ten letters and digits.
    pub team_id: String,
    /// The app's bundle id, such as `com.example.app`.
    pub topic: String,
    /// The device that gets what names no `targetId`: its token, as hexadecimal digits.
    pub device_token: Option<String>,
    /// Which of Apple's two services: `production` for apps of the store and of TestFlight, `sandbox` for apps that
    /// Xcode has installed.
    #[serde(default)]
    pub environment: Environment,
}

/// Apple's two services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Environment {
    /// For apps of the store and of TestFlight.
    #[default]
    Production,
    /// For apps that Xcode has installed.
    Sandbox,
}

impl Environment {
    const fn address(self) -> &'static str {
        match self {
            Self::Production => "https://api.push.apple.com",
            Self::Sandbox => "https://api.sandbox.push.apple.com",
        }
    }
}

impl ChannelPlugin for Apns {
    const KIND: &'static str = "apns";
    const ABOUT: &'static str = "Sends to Apple devices through the Apple Push Notification service";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "KEY",
            secret: true,
            required: true,
            about: "The signing key: the whole text of the .p8 file from Apple's developer account (Keys).",
            // The private key whose number is 1: everybody knows it, so nobody can take it for a real one.
            example: "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAGhRANCAARr\
                      F9Hy4SxCR/i85uVjpEDydwN9gS3rM6D0oTlF2JjClk/jQuL+Gn+bjufrSnwPnhYrzjNXazFezsu2QGg3v1H1",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "KEY_ID",
            secret: false,
            required: true,
            about: "The key's id: ten letters and digits, shown beside the key in Apple's developer account.",
            example: "ABC123DEFG",
            classic: None,
        },
        Setting {
            name: "TEAM_ID",
            secret: false,
            required: true,
            about: "The team's id: ten letters and digits, in Apple's developer account under Membership.",
            example: "DEF123GHIJ",
            classic: None,
        },
        Setting {
            name: "TOPIC",
            secret: false,
            required: true,
            about: "The app's bundle id.",
            example: "com.example.app",
            classic: None,
        },
        Setting {
            name: "DEVICE_TOKEN",
            secret: false,
            required: false,
            about: "The device that gets what names no targetId: its token, as hexadecimal digits.",
            example: "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0",
            classic: Some(Classic::Id),
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Open <https://developer.apple.com/account> → **Keys** → **+**, tick **Apple Push Notifications service \
         (APNs)**, **Continue**, **Register**, **Download**. The `.p8` file can be downloaded once. The **Key \
         ID** stands beside it.",
        "The team's id stands under **Membership details**, the bundle id under **Identifiers**.",
    ];
    /// A push is one text on a screen, so a long one is shortened instead of split.
    const LIMITS: Limits = Limits::NONE;
    const MAX_CONCURRENCY: u32 = 32;
    const TARGET: Option<&'static str> = Some("DEVICE_TOKEN");
    /// Apple counts by device, and how often a key's token changes.
    const QUOTA: Option<Quota<Config>> =
        Some(Quota::by(|config: &Config| vec![config.key.expose(), &config.key_id, &config.team_id]));
    /// A repetition has the same `apns-collapse-id` and takes the first one's place on the screen, but it may ring again.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(error) = Signer::es256(config.key.expose()) {
            let help = "take the .p8 file from Apple's developer account (Keys); name it by the variable's _FILE form";
            problems.add_with_help("key", error.to_string(), help);
        }
        for (place, id) in [("keyId", &config.key_id), ("teamId", &config.team_id)] {
            if !is_apple_id(id) {
                problems.add_with_help(
                    place,
                    "is no id of Apple's; expected ten capital letters and digits",
                    "for example ABC123DEFG",
                );
            }
        }
        if topic(&config.topic).is_none() {
            problems.add_with_help(
                "topic",
                "is no bundle id; expected letters, digits, dots and hyphens",
                "for example com.example.app",
            );
        }
        if config.device_token.as_deref().is_some_and(|device| !is_device_token(device)) {
            problems.add_with_help(
                "deviceToken",
                NO_DEVICE_TOKEN,
                "the app gets it when it registers for notifications",
            );
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let mut problems = Problems::new();
        Self::validate(&config, &mut problems);
        let topic = topic(&config.topic).filter(|_| problems.is_empty());
        let topic = topic.ok_or_else(|| InitError(problems.to_string()))?;
        let token = ProviderToken::of(config.key.expose(), &config.key_id, &config.team_id);
        let token = token.map_err(|error| InitError(format!("key {error}")))?;
        let own = || Url::parse(config.environment.address()).expect("the constants are URLs");
        let base = context.base_url.clone().unwrap_or_else(own);
        Ok(Self { context, base, token, topic, device: config.device_token })
    }
}

const NO_DEVICE_TOKEN: &str = "is no device token; expected hexadecimal digits";

#[async_trait]
impl Channel for Apns {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let device = self.device(message)?;
        let payload = payload(message)?;
        let id = HeaderValue::try_from(message.part_id().to_string()).expect("a UUID is a header's value");
        let collapse_id = message.replaces(self.context.tenant).to_string();
        let collapse_id = HeaderValue::try_from(collapse_id).expect("a UUID is a header's value");
        // 0 would mean that Apple keeps nothing for a device that is off.
        let expiration = message.expires_at.seconds().max(1);
        let request = self
            .request(device, &payload, self.context.request_timeout())
            .header(HeaderName::from_static("apns-id"), id)
            .header(HeaderName::from_static("apns-collapse-id"), collapse_id)
            .header(HeaderName::from_static("apns-expiration"), HeaderValue::from(expiration))
            .header(HeaderName::from_static("apns-priority"), HeaderValue::from_static(priority(message)));
        let (response, bearer) = self.ask(request).await?;
        if response.status.is_success() {
            if push::is_foreign(&response) {
                return Err(SendError::new(SendErrorKind::Unknown, push::FOREIGN).with_code(response.status.as_str()));
            }
            let id = response.headers.get("apns-id").and_then(|id| id.to_str().ok());
            return Ok(Receipt { provider_id: id.and_then(push::provider_id) });
        }
        Err(answer::error(&response, bearer.expose(), self.context.clock.now()))
    }

    /// Sends to a device that does not exist: that this is all that Apple finds wrong shows that the rest is right.
    async fn health_check(&self) -> Health {
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let (response, bearer) = match self.ask(self.request(NOBODY, &json!({ "aps": {} }), timeout)).await {
            Ok(answered) => answered,
            Err(error) => return Health::Down { reason: error.message },
        };
        if response.status.is_success() {
            return Health::Up;
        }
        let error = answer::error(&response, bearer.expose(), self.context.clock.now());
        match error.kind {
            SendErrorKind::Permanent => Health::Up,
            _ => error.health(),
        }
    }
}

impl Apns {
    fn device<'a>(&'a self, message: &'a Message) -> Result<&'a str, SendError> {
        let permanent = |text: String| SendError::new(SendErrorKind::Permanent, text);
        match (&message.target, &self.device) {
            (Some(device), _) if is_device_token(device) => Ok(device),
            (Some(_), _) => Err(permanent(format!("the targetId {NO_DEVICE_TOKEN}"))),
            (None, Some(device)) => Ok(device),
            (None, None) => {
                let text =
                    "there is no device to send to: give the notification a targetId, or the channel a deviceToken";
                Err(permanent(text.into()))
            }
        }
    }

    fn request(&self, device: &str, payload: &Value, timeout: Duration) -> Request {
        Request::post(below(&self.base, &format!("/3/device/{device}")))
            .timeout(timeout)
            .json(payload)
            .header(HeaderName::from_static("apns-topic"), self.topic.clone())
            .header(HeaderName::from_static("apns-push-type"), HeaderValue::from_static("alert"))
    }

    /// Asks with the provider token, and once more with a new one where Apple finds it too old.
    async fn ask(&self, request: Request) -> Result<(Response, Bearer), SendError> {
        let (clock, began) = (&self.context.clock, Instant::now());
        let bearer = self.token.current(clock.now()).map_err(unsigned)?;
        let response = self.ask_as(request.clone(), &bearer).await?;
        if answer::reason(&response).as_deref() != Some("ExpiredProviderToken") {
            return Ok((response, bearer));
        }
        let Some(bearer) = self.token.renewed(&bearer, clock.now()).map_err(unsigned)? else {
            return Ok((response, bearer));
        };
        let left = request.timeout.saturating_sub(began.elapsed());
        let response = self.ask_as(request.timeout(left), &bearer).await?;
        Ok((response, bearer))
    }

    async fn ask_as(&self, request: Request, bearer: &Bearer) -> Result<Response, SendError> {
        Ok(self.context.http.send(request.header(AUTHORIZATION, bearer.header())).await?)
    }
}

fn unsigned(error: crate::jwt::SignError) -> SendError {
    SendError::new(SendErrorKind::Retryable { retry_after: None }, error.to_string())
}

/// <https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns>: 10 at once, 5
/// with regard to the device's power.
const fn priority(message: &Message) -> &'static str {
    match push::urgency(message) {
        Priority::High => "10",
        Priority::Normal | Priority::Low => "5",
    }
}

/// The notification's JSON. Apple's own part is `aps`, and the caller's data stands beside it.
fn payload(message: &Message) -> Result<Value, SendError> {
    let rejected = |text: String| SendError::new(SendErrorKind::Rejected, text);
    if message.data.contains_key("aps") {
        return Err(rejected("data.aps is Apple's own name: give this member of the data another".into()));
    }
    let mut payload = Value::Object(message.data.clone());
    payload["aps"] = aps(message);
    let text = push::body(message);
    let with = |payload: &mut Value, body: &str| payload["aps"]["alert"]["body"] = Value::from(body);
    let fits = |body: &str| {
        let mut tried = payload.clone();
        with(&mut tried, body);
        tried.to_string().len() <= PAYLOAD_MAX_BYTES
    };
    let Some(body) = push::shortened(&text, PAYLOAD_MAX_BYTES, fits) else {
        let text = "the title and the data leave no room for the text";
        return Err(rejected(format!("{text}: {PAYLOAD_MAX_BYTES} bytes of JSON are allowed for all three")));
    };
    with(&mut payload, &body);
    Ok(payload)
}

fn aps(message: &Message) -> Value {
    let mut alert = json!({});
    if let Some(title) = push::title(message) {
        alert["title"] = Value::from(title);
    }
    match push::urgency(message) {
        Priority::High => json!({ "alert": alert, "sound": "default", "interruption-level": "time-sensitive" }),
        Priority::Normal => json!({ "alert": alert, "sound": "default" }),
        Priority::Low => json!({ "alert": alert, "interruption-level": "passive" }),
    }
}

fn is_apple_id(id: &str) -> bool {
    id.len() == 10 && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn is_device_token(token: &str) -> bool {
    (2..=DEVICE_TOKEN_MAX_BYTES).contains(&token.len())
        && token.len().is_multiple_of(2)
        && token.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn topic(topic: &str) -> Option<HeaderValue> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_topic = (1..=TOPIC_MAX_BYTES).contains(&topic.len()) && topic.bytes().all(good);
    is_topic.then(|| HeaderValue::try_from(topic).ok()).flatten()
}
