//! Publishes to a topic of ntfy, on ntfy.sh or on a server of one's own.
//!
//! <https://docs.ntfy.sh/publish/#publish-as-json>

use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{
    Channel, Format, Health, Limits, Message, Priority, Problems, Receipt, Scope, Secret, SendError, SendErrorKind,
    TextLimit, Unit,
};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{Request, Response, below, check_url, retry_after, tidy};
use crate::quota::Quota;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, push, token};

#[cfg(test)]
mod tests;

/// The public server.
const BASE_URL: &str = "https://ntfy.sh";

/// The most bytes of a message; a longer one becomes an attachment. The whole JSON may have twice as many.
/// <https://docs.ntfy.sh/publish/#limitations>
pub const MESSAGE_MAX_BYTES: usize = 4096;

/// The longest name of a topic.
const TOPIC_MAX_BYTES: usize = 64;
/// Members of a notification's `data` that are handed on as they are.
const DATA: &[&str] = &["tags", "click", "icon", "actions"];
/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The `ntfy` plugin.
pub struct Ntfy {
    context: ChannelContext,
    base: Url,
    topic: String,
    token: Option<Secret>,
    authorization: Option<HeaderValue>,
}

/// What an `ntfy` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The server's address; without it, <https://ntfy.sh>.
    pub server_url: Option<String>,
    /// The topic that gets the messages: up to 64 letters, digits, `-` and `_`.
    pub topic: String,
    /// An access token, where the topic is protected: `tk_` and 29 letters and digits.
    #[schemars(with = "Option<String>")]
    pub token: Option<Secret>,
}

impl ChannelPlugin for Ntfy {
    const KIND: &'static str = "ntfy";
    const ABOUT: &'static str = "Publishes to a topic of ntfy, on ntfy.sh or on a server of your own";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "SERVER_URL",
            secret: false,
            required: false,
            about: "The server's address; without it, https://ntfy.sh.",
            example: "https://ntfy.example.com",
            classic: None,
        },
        Setting {
            name: "TOPIC",
            secret: false,
            required: true,
            about: "The topic that gets the messages. Who knows its name can read it, unless it is protected.",
            example: "alerts-7Gq2xLw9",
            classic: Some(Classic::Id),
        },
        Setting {
            name: "TOKEN",
            secret: true,
            required: false,
            about: "An access token, where the topic is protected (`ntfy token add`, or Account in the web app).",
            example: "tk_exampleexampleexampleexample",
            classic: Some(Classic::Secret),
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Choose a topic. On the public server everybody who knows its name can read it and write to it: take one \
         that nobody guesses, and keep it in a variable.",
        "Where topics are protected: **Account** → **Access tokens** → **Create** in the web app, or `ntfy token \
         add <user>` on the server.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: MESSAGE_MAX_BYTES, unit: Unit::Bytes }), rich: false };
    const MAX_CONCURRENCY: u32 = 4;
    /// It counts by user, and without a token by this server's address, whoever sends.
    const QUOTA: Option<Quota<Config>> = Some(Quota::by(|config: &Config| {
        let server = config.server_url.as_deref().unwrap_or_default();
        vec![server, config.token.as_ref().map_or("", Secret::expose)]
    }));
    const TARGET: Option<&'static str> = Some("TOPIC");
    /// Servers from 2.16 on put a repetition in the first one's place, by its `sequence_id`; it may ring again.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Some(Err(reason)) = config.server_url.as_deref().map(server) {
            problems.add_with_help("serverUrl", reason, "for example https://ntfy.example.com");
        }
        if !is_topic(&config.topic) {
            problems.add_with_help("topic", NO_TOPIC, "for example alerts-7Gq2xLw9");
        }
        if let Some(Err(reason)) = config.token.as_ref().map(|token| token::header("Bearer", token)) {
            problems.add_with_help("token", reason, "make one with `ntfy token add`, or in the web app under Account");
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let own = server(config.server_url.as_deref().unwrap_or(BASE_URL));
        let own = own.map_err(|reason| InitError(format!("serverUrl {reason}")))?;
        if !is_topic(&config.topic) {
            return Err(InitError(format!("topic {NO_TOPIC}")));
        }
        let authorization = config.token.as_ref().map(|token| token::header("Bearer", token)).transpose();
        let authorization = authorization.map_err(|reason| InitError(format!("token {reason}")))?;
        let base = context.base_url.clone().unwrap_or(own);
        Ok(Self { context, base, topic: config.topic, token: config.token, authorization })
    }
}

const NO_TOPIC: &str = "is no topic; expected up to 64 letters, digits, - and _";

#[async_trait]
impl Channel for Ntfy {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let topic = self.target(message)?;
        let length = self.length(message);
        if length > MESSAGE_MAX_BYTES {
            let text = format!("the message is {length} bytes long as ntfy counts; {MESSAGE_MAX_BYTES} are allowed");
            return Err(SendError::new(SendErrorKind::Rejected, text));
        }
        // The path of the server's address, which stays without a slash at its end, is where JSON is published.
        let request = Request::post(below(&self.base, "/")).json(&self.body(message, topic));
        let response = self.ask(request, self.context.request_timeout()).await?;
        if response.status.is_success() {
            if push::is_foreign(&response) {
                return Err(SendError::new(SendErrorKind::Unknown, push::FOREIGN).with_code(response.status.as_str()));
            }
            let body = response.json();
            return Ok(Receipt { provider_id: body.get("id").and_then(Value::as_str).and_then(push::provider_id) });
        }
        Err(self.error(&response, topic == self.topic))
    }

    /// The message's bytes, or half of those of its JSON, of which the server takes twice as many.
    fn length(&self, message: &Message) -> usize {
        let topic = message.target.as_deref().unwrap_or(&self.topic);
        let whole = self.body(message, topic).to_string().len();
        message.body.len().max(whole.div_ceil(2))
    }

    async fn health_check(&self) -> Health {
        let path = if self.authorization.is_some() { "/v1/account" } else { "/v1/health" };
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let error = match self.ask(Request::get(below(&self.base, path)), timeout).await {
            Ok(response) if response.status.is_success() && !push::is_foreign(&response) => {
                let healthy = response.json().get("healthy").and_then(Value::as_bool).unwrap_or(true);
                let reason = || Health::Down { reason: "the server says that it is not healthy".into() };
                return if healthy { Health::Up } else { reason() };
            }
            Ok(response) if response.status.is_success() => {
                return Health::Down { reason: push::FOREIGN.into() };
            }
            Ok(response) => self.error(&response, true),
            Err(error) => error,
        };
        error.health()
    }
}

impl Ntfy {
    fn target<'a>(&'a self, message: &'a Message) -> Result<&'a str, SendError> {
        match message.target.as_deref() {
            None => Ok(&self.topic),
            Some(topic) if is_topic(topic) => Ok(topic),
            Some(_) => Err(SendError::new(SendErrorKind::Permanent, format!("the targetId {NO_TOPIC}"))),
        }
    }

    /// What is published. Of a text in parts the first one alone rings loudly.
    fn body(&self, message: &Message, topic: &str) -> Value {
        let priority = match push::urgency(message) {
            Priority::High => 5,
            Priority::Normal => 3,
            Priority::Low => 2,
        };
        let mut body = json!({
            "topic": topic,
            "message": message.body,
            "priority": priority,
            "sequence_id": message.replaces(self.context.tenant).to_string(),
        });
        if let Some(title) = push::title(message) {
            body["title"] = Value::from(title);
        }
        if message.format == Format::Markdown {
            body["markdown"] = Value::from(true);
        }
        for name in DATA {
            if let Some(value) = message.data.get(*name) {
                body[*name] = value.clone();
            }
        }
        body
    }

    async fn ask(&self, request: Request, timeout: Duration) -> Result<Response, SendError> {
        let request = request.timeout(timeout);
        let request = match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        };
        Ok(self.context.http.send(request).await?)
    }

    /// <https://github.com/binwiederhier/ntfy/blob/main/server/errors.go>. `own` says that the topic was the channel's.
    fn error(&self, response: &Response, own: bool) -> SendError {
        let now = self.context.clock.now();
        let body = response.json();
        let code = body.get("code").and_then(Value::as_u64).unwrap_or(0);
        let kind = match (response.status.as_u16(), code) {
            // A protected topic that one notification names must not stop the channel for the others.
            (403, _) if !own => SendErrorKind::Permanent,
            // Who goes on after too many wrong tokens is locked out.
            (429, 42909) => SendErrorKind::Unauthorized,
            (429, _) => {
                SendErrorKind::RateLimited { retry_after: retry_after(&response.headers, now), scope: Scope::Channel }
            }
            // There is no such page, so this is no ntfy.
            (404, _) => SendErrorKind::Unauthorized,
            (507, _) => SendErrorKind::Permanent,
            _ => response.classify(now).unwrap_or(SendErrorKind::Unknown),
        };
        let secrets: Vec<&str> = self.token.iter().map(Secret::expose).collect();
        let mut error = response.error(kind, &secrets);
        if let Some(words) = body.get("error").and_then(Value::as_str) {
            error.message = tidy(words, &secrets);
        }
        if code != 0 {
            error.code = Some(code.to_string());
        }
        error.message.push_str(match (response.status.as_u16(), kind) {
            (401, _) => " (the access token is wrong or was withdrawn)",
            (403, _) => " (the topic is protected: give the channel a token that may write to it)",
            (404, _) => " (is serverUrl the address of an ntfy server?)",
            _ => "",
        });
        error
    }
}

fn server(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL ({error})"))?;
    check_url(&url).map_err(|reason| format!("is no server's address: {reason}"))?;
    Ok(url)
}

fn is_topic(text: &str) -> bool {
    (1..=TOPIC_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
