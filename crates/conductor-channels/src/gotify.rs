//! Sends to an application of a Gotify server.
//!
//! <https://gotify.net/api-docs#/message/createMessage>

use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{
    Channel, Format, Health, Limits, Message, Priority, Problems, Receipt, Secret, SendError, SendErrorKind,
};
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{Request, Response, below, check_url, tidy};
use crate::quota::Quota;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, push};

#[cfg(test)]
mod tests;

/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The `gotify` plugin.
pub struct Gotify {
    context: ChannelContext,
    base: Url,
    token: Secret,
    key: HeaderValue,
}

/// What a `gotify` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The server's address, such as `https://gotify.example.com`.
    pub server_url: String,
    /// The application's token, from Apps in Gotify's web page. A client's token will not do.
    #[schemars(with = "String")]
    pub app_token: Secret,
}

impl ChannelPlugin for Gotify {
    const KIND: &'static str = "gotify";
    const ABOUT: &'static str = "Sends to an application of a Gotify server";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "SERVER_URL",
            secret: false,
            required: true,
            about: "The server's address.",
            example: "https://gotify.example.com",
            classic: Some(Classic::Id),
        },
        Setting {
            name: "APP_TOKEN",
            secret: true,
            required: true,
            about: "The application's token, from Apps in Gotify's web page. A client's token will not do.",
            example: "Aexample.token_",
            classic: Some(Classic::Secret),
        },
    ];
    const STEPS: &'static [&'static str] =
        &["In Gotify's web page: **Apps** → **Create application**. Copy its token with the eye beside it. A \
         client's token will not do: it can only read."];
    const LIMITS: Limits = Limits::NONE;
    const MAX_CONCURRENCY: u32 = 4;
    /// Gotify has no limits; a proxy before it may.
    const QUOTA: Option<Quota<Config>> =
        Some(Quota::by(|config: &Config| vec![&config.server_url, config.app_token.expose()]));
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(reason) = server(&config.server_url) {
            problems.add_with_help("serverUrl", reason, "for example https://gotify.example.com");
        }
        if let Err(reason) = key(&config.app_token) {
            problems.add_with_help("appToken", reason, "copy it from Apps in Gotify's web page");
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let own = server(&config.server_url).map_err(|reason| InitError(format!("serverUrl {reason}")))?;
        let key = key(&config.app_token).map_err(|reason| InitError(format!("appToken {reason}")))?;
        let base = context.base_url.clone().unwrap_or(own);
        Ok(Self { context, base, token: config.app_token, key })
    }
}

#[async_trait]
impl Channel for Gotify {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        if message.target.is_some() {
            let text = "a Gotify channel has one target, its application: leave the targetId out, or add a channel with \
                        the other application's token";
            return Err(SendError::new(SendErrorKind::Permanent, text));
        }
        let response = self.create(&body(message), self.context.request_timeout()).await?;
        if response.status.is_success() {
            if push::is_foreign(&response) {
                return Err(SendError::new(SendErrorKind::Unknown, push::FOREIGN).with_code(response.status.as_str()));
            }
            let id = response.json().get("id").and_then(Value::as_u64);
            return Ok(Receipt { provider_id: id.map(|id| id.to_string()) });
        }
        Err(self.error(&response))
    }

    /// Whether the server is well, and then whether it finds nothing wrong with an empty message but that it is empty.
    async fn health_check(&self) -> Health {
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT) / 2;
        let request = Request::get(below(&self.base, "/health")).timeout(timeout);
        let response = match self.context.http.send(request).await {
            Ok(response) => response,
            Err(error) => return Health::Down { reason: error.to_string() },
        };
        let body = response.json();
        let state = |name: &str| body.get(name).and_then(Value::as_str);
        match (state("health"), state("database")) {
            (Some("green"), Some("green")) if response.status.is_success() => {}
            (Some(_), Some(_)) => {
                return Health::Down { reason: "the server says that it or its database is not well".into() };
            }
            _ if response.status.is_success() => return Health::Down { reason: push::FOREIGN.into() },
            _ => return Health::Down { reason: self.error(&response).message },
        }
        match self.create(&json!({}), timeout).await {
            Ok(response) if response.status.as_u16() == 400 => Health::Up,
            Ok(response) => self.error(&response).health(),
            Err(error) => Health::Down { reason: error.message },
        }
    }
}

impl Gotify {
    async fn create(&self, body: &Value, timeout: Duration) -> Result<Response, SendError> {
        let request = Request::post(below(&self.base, "/message")).timeout(timeout).json(body);
        Ok(self.context.http.send(request.header(HeaderName::from_static("x-gotify-key"), self.key.clone())).await?)
    }

    fn error(&self, response: &Response) -> SendError {
        let status = response.status.as_u16();
        let kind = match status {
            // There is no such page, so this is no Gotify.
            404 => SendErrorKind::Unauthorized,
            // These come from something before Gotify, which the message has not reached.
            502 | 503 => response.classify(self.context.clock.now()).unwrap_or(SendErrorKind::Unknown),
            // Gotify writes the message first and tells those who listen afterwards.
            500..=599 => SendErrorKind::Unknown,
            _ => response.classify(self.context.clock.now()).unwrap_or(SendErrorKind::Unknown),
        };
        let secrets = [self.token.expose()];
        let mut error = response.error(kind, &secrets);
        if let Some(words) = response.json().get("errorDescription").and_then(Value::as_str) {
            error.message = tidy(words, &secrets);
        }
        error.message.push_str(match status {
            401 => " (the application's token is wrong, or the application was deleted)",
            403 => " (an application's token is needed; is this a client's?)",
            404 => " (is serverUrl the address of a Gotify server?)",
            _ => "",
        });
        error
    }
}

/// <https://github.com/gotify/android#message-priorities>: from 8 on a message pops up, from 4 on it makes a sound.
fn body(message: &Message) -> Value {
    let priority = match push::urgency(message) {
        Priority::High => 8,
        Priority::Normal => 5,
        Priority::Low => 2,
    };
    let mut body = json!({ "message": message.body, "priority": priority });
    if let Some(title) = push::title(message) {
        body["title"] = Value::from(title);
    }
    let mut extras = json!({});
    if message.format == Format::Markdown {
        extras["client::display"] = json!({ "contentType": "text/markdown" });
    }
    if let Some(url) = message.data.get("click").and_then(Value::as_str) {
        extras["client::notification"] = json!({ "click": { "url": url } });
    }
    if extras.as_object().is_some_and(|extras| !extras.is_empty()) {
        body["extras"] = extras;
    }
    body
}

fn server(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL ({error})"))?;
    check_url(&url).map_err(|reason| format!("is no server's address: {reason}"))?;
    Ok(url)
}

fn key(token: &Secret) -> Result<HeaderValue, &'static str> {
    let token = token.expose();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("is no token; expected letters, digits, dots, - and _");
    }
    let mut value = HeaderValue::try_from(token).map_err(|_| "cannot stand in a header")?;
    value.set_sensitive(true);
    Ok(value)
}
