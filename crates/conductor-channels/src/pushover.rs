//! Sends to a person's or a group's devices through Pushover.
//!
//! <https://pushover.net/api>

use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{
    Channel, Format, Health, Limits, Message, Priority, Problems, Receipt, Scope, Secret, SendError, SendErrorKind,
    TextLimit, Timestamp, Unit,
};
use http::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{Request, Response, below, retry_after, tidy};
use crate::markdown::{Dialect, render};
use crate::quota::Quota;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, push};

#[cfg(test)]
mod tests;

/// Pushover's own address.
const BASE_URL: &str = "https://api.pushover.net";
/// The most characters of a message. <https://pushover.net/api#limits>
pub const MESSAGE_MAX: usize = 1024;
/// The most characters of a title.
const TITLE_MAX: usize = 250;
/// Keys of applications, people and groups are so long.
const KEY_LENGTH: usize = 30;
/// Pushover wants no other try sooner. <https://pushover.net/api#friendly>
const PAUSE: Duration = Duration::from_secs(5);
/// The most faults that are named in an error.
const FAULTS_MAX: usize = 5;
/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The `pushover` plugin.
pub struct Pushover {
    context: ChannelContext,
    base: Url,
    token: Secret,
    user: String,
}

/// What a `pushover` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The application's token: 30 letters and digits, from Your Applications on pushover.net.
    #[schemars(with = "String")]
    pub token: Secret,
    /// The key of the person or group that gets the messages: 30 letters and digits, from the front page of
    /// pushover.net.
    pub user: String,
}

impl ChannelPlugin for Pushover {
    const KIND: &'static str = "pushover";
    const ABOUT: &'static str = "Sends to a person's or a group's devices through Pushover";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "TOKEN",
            secret: true,
            required: true,
            about: "The application's token: 30 letters and digits, from Your Applications on pushover.net.",
            example: "exampleexampleexampleexample12",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "USER",
            secret: false,
            required: true,
            about: "The key of the person or group that gets the messages: 30 letters and digits, from the front page \
                    of pushover.net.",
            example: "uQiRzpo4DXghDmr9QzzfQu27cmVRsG",
            classic: Some(Classic::Id),
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Log in at <https://pushover.net>. **Your User Key** stands on the front page; a group's key stands on \
         the group's page.",
        "**Create an Application/API Token**, give it a name and an icon, and copy the token.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: MESSAGE_MAX, unit: Unit::Characters }), rich: true };
    /// <https://pushover.net/api#friendly>: two connections at a time.
    const MAX_CONCURRENCY: u32 = 2;
    /// An application has so many messages in a month.
    const QUOTA: Option<Quota<Config>> = Some(Quota::by(|config: &Config| vec![config.token.expose()]));
    const TARGET: Option<&'static str> = Some("USER");
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if !is_key(config.token.expose()) {
            problems.add_with_help("token", NO_KEY, "copy it from Your Applications on pushover.net");
        }
        if !is_key(&config.user) {
            problems.add_with_help("user", NO_KEY, "copy Your User Key from the front page of pushover.net");
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        for (place, key) in [("token", config.token.expose()), ("user", &config.user)] {
            if !is_key(key) {
                return Err(InitError(format!("{place} {NO_KEY}")));
            }
        }
        let base = context.base_url.clone();
        let base = base.unwrap_or_else(|| Url::parse(BASE_URL).expect("the constant is a URL"));
        Ok(Self { context, base, token: config.token, user: config.user })
    }
}

const NO_KEY: &str = "is no key of Pushover's; expected 30 letters and digits";

#[async_trait]
impl Channel for Pushover {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let user = self.target(message)?;
        let length = self.length(message);
        if length > MESSAGE_MAX {
            let text = format!("the message is {length} characters long; {MESSAGE_MAX} are allowed");
            return Err(SendError::new(SendErrorKind::Rejected, text));
        }
        let body = self.body(message, user);
        let response = self.ask("/1/messages.json", &body, self.context.request_timeout()).await?;
        if response.status.is_success() {
            return taken(&response);
        }
        Err(self.error(&response))
    }

    fn length(&self, message: &Message) -> usize {
        Unit::Characters.count(&text(message))
    }

    async fn health_check(&self) -> Health {
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let body = json!({ "token": self.token.expose(), "user": self.user });
        let error = match self.ask("/1/users/validate.json", &body, timeout).await {
            Ok(response) if response.status.is_success() => match taken(&response) {
                Ok(_) => return Health::Up,
                Err(error) => error,
            },
            Ok(response) => self.error(&response),
            Err(error) => error,
        };
        error.health()
    }
}

impl Pushover {
    fn target<'a>(&'a self, message: &'a Message) -> Result<&'a str, SendError> {
        match message.target.as_deref() {
            None => Ok(&self.user),
            Some(user) if is_key(user) => Ok(user),
            Some(_) => Err(SendError::new(SendErrorKind::Permanent, format!("the targetId {NO_KEY}"))),
        }
    }

    /// Of a text in parts the first one alone rings loudly. The time is that when the notification was accepted, so that
    /// a late one shows its age.
    fn body(&self, message: &Message, user: &str) -> Value {
        let priority = match push::urgency(message) {
            Priority::High => 1,
            Priority::Normal => 0,
            Priority::Low => -1,
        };
        let mut body = json!({
            "token": self.token.expose(),
            "user": user,
            "message": text(message),
            "priority": priority,
            "timestamp": message.accepted_at.seconds(),
        });
        if message.format == Format::Markdown {
            body["html"] = Value::from(1);
        }
        let short = |title: String| push::shortened(&title, title.len(), |text| text.chars().count() <= TITLE_MAX);
        if let Some(title) = push::title(message).and_then(short) {
            body["title"] = Value::from(title);
        }
        for (name, theirs) in [("click", "url"), ("sound", "sound"), ("device", "device")] {
            if let Some(value) = message.data.get(name).and_then(Value::as_str) {
                body[theirs] = Value::from(value);
            }
        }
        // Not from the notification's expiry: Pushover takes back what people have seen already, too.
        if let Some(seconds) = message.data.get("ttl").and_then(Value::as_u64).filter(|seconds| *seconds > 0) {
            body["ttl"] = Value::from(seconds);
        }
        body
    }

    async fn ask(&self, path: &str, body: &Value, timeout: Duration) -> Result<Response, SendError> {
        Ok(self.context.http.send(Request::post(below(&self.base, path)).timeout(timeout).json(body)).await?)
    }

    fn error(&self, response: &Response) -> SendError {
        let now = self.context.clock.now();
        let body = response.json();
        let is_invalid = |name: &str| body.get(name).and_then(Value::as_str) == Some("invalid");
        let kind = match response.status.as_u16() {
            429 => {
                let retry_after = retry_after(&response.headers, now).or_else(|| reset(&response.headers, now));
                SendErrorKind::RateLimited { retry_after, scope: Scope::Channel }
            }
            // What is wrong is not this message but the channel's token, or the one person whom it is for.
            400..=499 if is_invalid("token") => SendErrorKind::Unauthorized,
            400..=499 if is_invalid("user") => SendErrorKind::Permanent,
            400..=499 => SendErrorKind::Rejected,
            500..=599 => {
                let asked = retry_after(&response.headers, now).unwrap_or_default();
                SendErrorKind::Retryable { retry_after: Some(asked.max(PAUSE)) }
            }
            _ => response.classify(now).unwrap_or(SendErrorKind::Unknown),
        };
        let secrets = [self.token.expose()];
        let mut error = response.error(kind, &secrets);
        let faults = body.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let faults: Vec<&str> = faults.take(FAULTS_MAX).collect();
        if !faults.is_empty() {
            error.message = tidy(&faults.join("; "), &secrets);
        }
        error
    }
}

/// The text as Pushover reads it: markdown as the few tags that it knows.
fn text(message: &Message) -> String {
    match message.format {
        Format::Text => message.body.clone(),
        Format::Markdown => render(&message.body, Dialect::PushoverHtml),
    }
}

/// What a success says. `status` is 1 there, whatever the answer's status.
fn taken(response: &Response) -> Result<Receipt, SendError> {
    let body = response.json();
    if push::is_foreign(response) || body.get("status").is_some_and(|status| *status != 1) {
        return Err(SendError::new(SendErrorKind::Unknown, push::FOREIGN).with_code(response.status.as_str()));
    }
    Ok(Receipt { provider_id: body.get("request").and_then(Value::as_str).and_then(push::provider_id) })
}

/// How long it is until the month's quota begins anew.
fn reset(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let seconds: i64 = headers.get("x-limit-app-reset")?.to_str().ok()?.trim().parse().ok()?;
    let at = Timestamp::from_millis(seconds.checked_mul(1000)?);
    (at > now).then(|| at.since(now).min(conductor_core::retry::RETRY_AFTER_MAX))
}

fn is_key(text: &str) -> bool {
    text.len() == KEY_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
