//! Sends text messages through Twilio.
//!
//! <https://www.twilio.com/docs/messaging/api/message-resource>

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conductor_core::receipts::{ReceiptAnswer, ReceiptError, ReceiptRequest};
use conductor_core::{
    Channel, Format, Health, Limits, Message, Priority, Problems, Receipt, Secret, SendError, SendErrorKind, TextLimit,
    Unit,
};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::http::{Request, Response, below};
use crate::markdown::{Dialect, Rendering};
use crate::quota::Quota;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting};

mod answer;
mod receipts;
mod segments;
#[cfg(test)]
mod tests;

use segments::segments;

/// Twilio's own address.
const BASE_URL: &str = "https://api.twilio.com";
/// The most characters of a message.
pub const BODY_MAX: usize = 1600;
/// The most segments of a message, and what a channel uses of them unless it says else.
pub const SEGMENTS_MAX: u32 = 10;
/// For how many seconds Twilio keeps a message that its sender cannot send yet.
const VALIDITY_MAX: u64 = 36_000;
/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// What goes before a message of high priority: in letters that every phone's alphabet has, so that it costs little.
const HIGH: &str = "HIGH PRIORITY\n";

const NUMBER_RULE: &str = "expected a phone number with its country code, such as +15551234567";

/// The `sms` plugin.
pub struct Sms {
    context: ChannelContext,
    base: Url,
    account: String,
    token: Secret,
    authorization: HeaderValue,
    /// What must not be shown: the token, and the header that is made of it.
    hidden: [Secret; 2],
    from: Sender,
    to: Option<String>,
    max_segments: usize,
}

/// What a `sms` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The account's SID, from the Twilio Console: `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// The account's Auth Token, from the Twilio Console. It signs the receipts too.
    #[schemars(with = "String")]
    pub auth_token: Secret,
    /// Who sends: a number of the account (`+15551234567`), a short code, a messaging service (`MG` and 32 digits) or
    /// an alphanumeric sender of at most 11 characters.
    pub from: String,
    /// The number that gets the messages where a notification names none.
    pub to: Option<String>,
    /// The most segments of one message, 1 to 10: a longer text goes out in several messages.
    #[serde(default = "most_segments")]
    #[schemars(range(min = 1, max = 10))]
    pub max_segments: u32,
}

const fn most_segments() -> u32 {
    SEGMENTS_MAX
}

/// Who sends.
enum Sender {
    /// A number, a short code or a name.
    From(String),
    /// A messaging service, which picks a number.
    Service(String),
}

impl Sender {
    fn parse(text: &str) -> Option<Self> {
        if answer::is_sid(text, &["MG"]) {
            return Some(Self::Service(text.to_owned()));
        }
        let is_short_code = (3..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b" +-_&".contains(&byte);
        let is_name = (1..=11).contains(&text.len())
            && text.trim() == text
            && text.bytes().all(may_stand)
            && text.bytes().any(|byte| byte.is_ascii_alphabetic());
        (is_number(text) || is_short_code || is_name).then(|| Self::From(text.to_owned()))
    }
}

/// Whether a text is a number as E.164 writes it.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or_default();
    (7..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl ChannelPlugin for Sms {
    const KIND: &'static str = "sms";
    const ABOUT: &'static str = "Sends text messages through Twilio";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "ACCOUNT_SID",
            secret: false,
            required: true,
            about: "The account's SID, from the Twilio Console: `AC` and 32 hexadecimal digits.",
            example: "AC00000000000000000000000000000000",
            classic: Some(Classic::Id),
        },
        Setting {
            name: "AUTH_TOKEN",
            secret: true,
            required: true,
            about: "The account's Auth Token, from the Twilio Console. It signs the receipts too.",
            example: "example-auth-token",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "FROM",
            secret: false,
            required: true,
            about: "Who sends: a number of the account, a short code, a messaging service (`MG…`) or an alphanumeric \
                    sender of at most 11 characters.",
            example: "+15551234567",
            classic: None,
        },
        Setting {
            name: "TO",
            secret: false,
            required: false,
            about: "The number that gets the messages where a notification names none.",
            example: "+15557654321",
            classic: None,
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Sign in to <https://console.twilio.com>. **Account Info** shows the **Account SID** and the **Auth \
         Token**.",
        "**Phone Numbers** → **Manage** → **Buy a number** that can send SMS; or **Messaging** → **Services** → \
         create one and add senders. On a trial account, first verify each number that is to get messages.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: BODY_MAX, unit: Unit::Characters }), rich: false };
    const MAX_CONCURRENCY: u32 = 4;
    const TARGET: Option<&'static str> = Some("TO");
    /// Twilio counts by account what is asked at once, and queues what its senders cannot send yet.
    const QUOTA: Option<Quota<Config>> =
        Some(Quota::by(|config: &Config| vec![&config.account_sid, config.auth_token.expose()]));
    /// Twilio makes a message of every request.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if !answer::is_sid(&config.account_sid, &["AC"]) {
            let help = "copy the Account SID from the Twilio Console; it begins with AC";
            problems.add_with_help("accountSid", "is no account's SID; expected AC and 32 hexadecimal digits", help);
        }
        if let Err(reason) = authorization(&config.account_sid, &config.auth_token) {
            problems.add_with_help("authToken", reason, "copy the Auth Token from the Twilio Console");
        }
        if Sender::parse(&config.from).is_none() {
            let help = "write a number of the account with its country code, or a messaging service's SID (MG…)";
            problems.add_with_help("from", "is neither a number nor a sender's name nor a messaging service", help);
        }
        if config.to.as_deref().is_some_and(|to| !is_number(to)) {
            problems.add_with_help("to", "is no phone number", NUMBER_RULE);
        }
        if !(1..=SEGMENTS_MAX).contains(&config.max_segments) {
            problems.add("maxSegments", format!("is {}; expected 1 to {SEGMENTS_MAX}", config.max_segments));
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let authorization = authorization(&config.account_sid, &config.auth_token);
        let (authorization, encoded) = authorization.map_err(|reason| InitError(format!("authToken {reason}")))?;
        let from = Sender::parse(&config.from).ok_or_else(|| InitError("from is no sender".into()))?;
        let base = context.base_url.clone();
        let base = base.unwrap_or_else(|| Url::parse(BASE_URL).expect("the constant is a URL"));
        let hidden = [encoded, config.auth_token.clone()];
        let max_segments = usize::try_from(config.max_segments.min(SEGMENTS_MAX)).expect("it is small");
        let Config { account_sid: account, auth_token: token, to, .. } = config;
        Ok(Self { context, base, account, token, authorization, hidden, from, to, max_segments })
    }
}

#[async_trait]
impl Channel for Sms {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let to = self.target(message)?;
        let text = text(message);
        let segments = segments(&text);
        if segments.count > self.max_segments {
            return Err(SendError::new(SendErrorKind::Rejected, self.too_long(segments)));
        }
        let url = below(&self.base, &format!("/2010-04-01/Accounts/{}/Messages.json", self.account));
        let callback = self.callback(message);
        let mut fields = vec![("To", to), ("Body", &*text)];
        fields.push(match &self.from {
            Sender::From(from) => ("From", from),
            Sender::Service(service) => ("MessagingServiceSid", service),
        });
        fields.extend(callback.as_deref().map(|url| ("StatusCallback", url)));
        let validity = self.validity(message);
        fields.extend(validity.as_deref().map(|seconds| ("ValidityPeriod", seconds)));
        let request = Request::post(url).timeout(self.context.request_timeout()).form(&fields);
        let response = self.ask(request).await?;
        if !response.status.is_success() {
            return Err(self.error(&response));
        }
        let receipt = answer::taken(&response)?;
        let encoding = segments.encoding.as_str();
        tracing::info!(
            target: "conductor::plugin::sms",
            { channel.id = %self.context.channel, delivery.id = %message.delivery, encoding, segments = segments.count },
            "A text message was taken"
        );
        Ok(receipt)
    }

    fn length(&self, message: &Message) -> usize {
        let text = text(message);
        let is_long = segments(&text).count > self.max_segments;
        // So long that it is split, however few characters those are.
        Unit::Characters.count(&text).max(if is_long { BODY_MAX + 1 } else { 0 })
    }

    async fn health_check(&self) -> Health {
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let url = below(&self.base, &format!("/2010-04-01/Accounts/{}.json", self.account));
        let error = match self.ask(Request::get(url).timeout(timeout)).await {
            Ok(response) if response.status.is_success() => return account_health(&response),
            Ok(response) => self.error(&response),
            Err(error) => error,
        };
        error.health()
    }

    fn receipt(&self, request: &ReceiptRequest) -> Result<ReceiptAnswer, ReceiptError> {
        receipts::read(request, self.token.expose())
    }
}

impl Sms {
    fn target<'a>(&'a self, message: &'a Message) -> Result<&'a str, SendError> {
        let permanent = |text: String| SendError::new(SendErrorKind::Permanent, text);
        let target = message.target.as_deref().or(self.to.as_deref());
        let target = target.ok_or_else(|| {
            permanent(format!(
                "nobody to send to: the notification has no targetId and the channel no TO; {NUMBER_RULE}"
            ))
        })?;
        if is_number(target) {
            return Ok(target);
        }
        Err(permanent(format!("the targetId is no phone number; {NUMBER_RULE}")))
    }

    fn too_long(&self, segments: segments::Segments) -> String {
        let (count, encoding, most) = (segments.count, segments.encoding.as_str(), self.max_segments);
        format!("the message takes {count} segments ({encoding}); maxSegments allows {most}")
    }

    /// For how many seconds Twilio may keep the message in its queue, where that is less than it does anyway.
    fn validity(&self, message: &Message) -> Option<String> {
        let seconds = message.lifetime(self.context.clock.now()).as_secs();
        (seconds < VALIDITY_MAX).then(|| seconds.to_string())
    }

    /// Where Twilio posts what becomes of the message.
    fn callback(&self, message: &Message) -> Option<String> {
        let mut url = self.context.receipts_url.clone()?;
        url.query_pairs_mut().append_pair(receipts::DELIVERY, &message.part_key().to_string());
        Some(url.into())
    }

    async fn ask(&self, request: Request) -> Result<Response, SendError> {
        Ok(self.context.http.send(request.header(AUTHORIZATION, self.authorization.clone())).await?)
    }

    fn error(&self, response: &Response) -> SendError {
        let [encoded, token] = &self.hidden;
        answer::error(response, &[encoded.expose(), token.expose()], self.context.clock.now())
    }
}

/// The whole text of a message: priority, title, body. Of a text in parts the first one alone has priority and title.
fn text(message: &Message) -> String {
    let mut text = String::with_capacity(message.body.len() + 64);
    let is_first = message.part == 0;
    if is_first && message.priority == Priority::High {
        text.push_str(HIGH);
    }
    if let Some(title) = message.title.as_deref().filter(|title| is_first && !title.trim().is_empty()) {
        text.push_str(&title.split_whitespace().collect::<Vec<_>>().join(" "));
        text.push('\n');
    }
    match message.format {
        Format::Text => text.push_str(&message.body),
        Format::Markdown => {
            let plain = Rendering { dialect: Dialect::Plain, allow_mentions: true };
            text.push_str(&plain.render(&message.body));
        }
    }
    text
}

fn account_health(response: &Response) -> Health {
    match response.json().get("status").and_then(serde_json::Value::as_str) {
        Some("active") => Health::Up,
        Some(status @ ("suspended" | "closed")) => {
            Health::Down { reason: format!("the Twilio account is {status}: the Twilio Console says why") }
        }
        _ => Health::Unknown,
    }
}

/// The header, and the part of it that must not be shown.
fn authorization(account: &str, token: &Secret) -> Result<(HeaderValue, Secret), &'static str> {
    let token = token.expose();
    if token.is_empty() {
        return Err("is empty; expected the account's Auth Token");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds a space, a line break or a character outside ASCII, which no token has");
    }
    let encoded = STANDARD.encode(format!("{account}:{token}"));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).map_err(|_| "cannot stand in a header")?;
    value.set_sensitive(true);
    Ok((value, Secret::new(encoded)))
}
