//! Sends into a Google Chat space through an incoming webhook.
//!
//! <https://developers.google.com/workspace/chat/quickstart/webhooks>

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{
    Channel, Format, Limits, Message, Problems, Rate, Receipt, Secret, SendError, SendErrorKind, TextLimit, Unit,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{Request, Response, tidy};
use crate::markdown::{Dialect, Rendering, escape};
use crate::quota::{Allowance, Quota};
use crate::secret_url::SecretUrl;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, head};

#[cfg(test)]
mod tests;

/// The largest message, in bytes, with all that stands in it.
/// <https://developers.google.com/workspace/chat/api/reference/rest/v1/spaces.messages/create>
const MESSAGE_MAX: usize = 32_000;
/// What of that is left to a message's fields other than its text, in bytes.
const RESERVED: usize = 2_000;
/// The longest text, in bytes.
pub const TEXT_MAX: usize = MESSAGE_MAX - RESERVED;
/// The longest key of a thread here, in characters. Google takes 4,000, which would not fit beside the text.
const THREAD_KEY_MAX: usize = 200;

const WEBHOOK_HELP: &str = "copy it from the space's Apps & integrations, Webhooks: \
                            https://chat.googleapis.com/v1/spaces/…/messages?key=…&token=…";

/// The `google-chat` plugin.
pub struct GoogleChat {
    context: ChannelContext,
    url: SecretUrl,
    thread: Option<String>,
}

/// What a `google-chat` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The address of the space's webhook.
    #[schemars(with = "String")]
    pub webhook_url: Secret,
    /// A name of your own for a thread that all messages go into, such as `alerts`. The first message begins it.
    pub thread_key: Option<String>,
}

impl ChannelPlugin for GoogleChat {
    const KIND: &'static str = "google-chat";
    const ABOUT: &'static str = "Sends into a Google Chat space through an incoming webhook";
    const SETTINGS: &'static [Setting] = &[Setting {
        name: "WEBHOOK_URL",
        secret: true,
        required: true,
        about: "The address of the space's webhook, from Apps & integrations, Webhooks.",
        example: "https://chat.googleapis.com/v1/spaces/AAAAexample/messages?key=example&token=example",
        classic: Some(Classic::Secret),
    }];
    const STEPS: &'static [&'static str] = &[
        "In Google Chat, open the space's menu → **Apps & integrations** → **Webhooks** → **Add webhook**. It \
         takes a Google Workspace account.",
        "Give it a name, **Save**, and copy its address.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: TEXT_MAX, unit: Unit::Bytes }), rich: true };
    const MAX_CONCURRENCY: u32 = 2;
    /// All that writes into a space shares 60 messages a minute.
    /// <https://developers.google.com/workspace/chat/limits>
    const RATE: Option<Rate> = Some(Rate {
        limit: NonZeroU32::new(1).expect("1 is not zero"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(5).expect("5 is not zero"),
    });
    /// <https://developers.google.com/workspace/chat/limits>
    const QUOTA: Option<Quota<Config>> =
        Some(Quota::by(|config: &Config| vec![config.webhook_url.expose()]).with(&[Allowance::of_all(
            "a webhook",
            5,
            Duration::from_secs(5),
        )]));
    /// By `requestId`.
    const DEDUPES: bool = true;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(reason) = webhook(&config.webhook_url) {
            problems.add_with_help("webhookUrl", reason, WEBHOOK_HELP);
        }
        let fits = |key: &str| (1..=THREAD_KEY_MAX).contains(&key.chars().count()) && !key.contains(char::is_control);
        if config.thread_key.as_deref().is_some_and(|key| !fits(key)) {
            let reason = format!("is no key of a thread; expected 1 to {THREAD_KEY_MAX} characters in one line");
            problems.add_with_help("threadKey", reason, "for example alerts");
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let url = webhook(&config.webhook_url).map_err(|reason| InitError(format!("webhookUrl {reason}")))?;
        let url = url.at(context.base_url.as_ref());
        Ok(Self { url, thread: config.thread_key, context })
    }
}

#[async_trait]
impl Channel for GoogleChat {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        if message.target.is_some() {
            let text =
                "a webhook of Google Chat has one space only; leave targetId out, or add a channel for the other";
            return Err(SendError::new(SendErrorKind::Permanent, text));
        }
        let mut body = json!({ "text": self.written(message) });
        if let Some(key) = &self.thread {
            body["thread"] = json!({ "threadKey": key });
        }
        let request = Request::post(self.address(message)).timeout(self.context.request_timeout()).json(&body);
        self.read(&self.context.http.send(request).await?)
    }

    fn length(&self, message: &Message) -> usize {
        Unit::Bytes.count(&self.written(message))
    }
}

impl GoogleChat {
    /// The whole text of a message: priority, title, body. Of a text in parts the first one alone has priority and
    /// title.
    fn written(&self, message: &Message) -> String {
        let mut text = head::lines(message, ("*", "*"), |title| escape(title, Dialect::GoogleChat));
        let rendering = Rendering { dialect: Dialect::GoogleChat, allow_mentions: self.context.allow_mentions };
        text.push_str(&match message.format {
            Format::Text => rendering.escape(&message.body),
            Format::Markdown => rendering.render(&message.body),
        });
        text
    }

    /// The webhook's address with what Google Chat knows a repetition by.
    fn address(&self, message: &Message) -> Url {
        let mut url = self.url.url().clone();
        url.query_pairs_mut().append_pair("requestId", &message.part_id().to_string());
        if self.thread.is_some() {
            url.query_pairs_mut().append_pair("messageReplyOption", "REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD");
        }
        url
    }

    fn read(&self, response: &Response) -> Result<Receipt, SendError> {
        let body = response.json();
        let Some(kind) = response.classify(self.context.clock.now()) else {
            if body.is_null() && response.complete && !response.body.is_empty() {
                let text = "the answer was a success but none of Google Chat's: is the address right, does a proxy \
                            stand between?";
                return Err(SendError::new(SendErrorKind::Unknown, text).with_code(response.status.as_str()));
            }
            let name = body.get("name").and_then(Value::as_str).filter(|name| is_message_name(name));
            return Ok(Receipt { provider_id: name.map(str::to_owned) });
        };
        let status = body.pointer("/error/status").and_then(Value::as_str).filter(|status| is_status(status));
        let kind = match (response.status.as_u16(), status) {
            // There is the message already: ours, of an earlier attempt.
            (409, Some("ALREADY_EXISTS")) => return Ok(Receipt::default()),
            (409, Some("ABORTED")) => SendErrorKind::Retryable { retry_after: None },
            (400, _) if is_about_the_key(&body) => SendErrorKind::Unauthorized,
            _ => kind,
        };
        let mut error = response.error(kind, &self.url.hidden());
        if let Some(words) = body.pointer("/error/message").and_then(Value::as_str) {
            error.message = tidy(words, &self.url.hidden());
        }
        error.message.push_str(match (response.status.as_u16(), kind) {
            (_, SendErrorKind::Unauthorized) => " (the webhook's address is wrong or was revoked: copy it once more)",
            (404, _) => " (the space or its webhook is gone: make a new webhook)",
            _ => "",
        });
        match status {
            Some(status) => Err(error.with_code(status)),
            None => Err(error),
        }
    }
}

fn webhook(url: &Secret) -> Result<SecretUrl, &'static str> {
    let parsed = SecretUrl::parse(url)?;
    let has = |wanted: &str| parsed.url().query_pairs().any(|(name, value)| name == wanted && !value.is_empty());
    if !parsed.url().path().ends_with("/messages") || !has("key") || !has("token") {
        return Err("is no webhook's whole address; expected one with …/messages?key=…&token=…");
    }
    Ok(parsed)
}

/// Google answers 400 to a key that it does not know, and says so in the details.
fn is_about_the_key(body: &Value) -> bool {
    let details = body.pointer("/error/details").and_then(Value::as_array).into_iter().flatten();
    details.filter_map(|detail| detail.get("reason")?.as_str()).any(|reason| reason == "API_KEY_INVALID")
}

/// Whether a text is a message's name, such as `spaces/AAAA/messages/BBBB.CCCC`. Whatever else stands there is not from
/// Google, and is not passed on.
fn is_message_name(text: &str) -> bool {
    const LENGTH_MAX: usize = 300;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-');
    text.len() <= LENGTH_MAX && text.starts_with("spaces/") && text.bytes().all(letter)
}

fn is_status(text: &str) -> bool {
    (1..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}
