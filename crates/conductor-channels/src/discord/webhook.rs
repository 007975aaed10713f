//! Posts through a webhook of a Discord channel.
//!
//! <https://discord.com/developers/docs/resources/webhook#execute-webhook>

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{
    Channel, Health, Limits, Message, Problems, Rate, Receipt, Secret, SendError, SendErrorKind, TextLimit, Unit,
};
use http::HeaderValue;
use http::header::USER_AGENT;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use url::{Host, Url};

use super::account::Account;
use super::answer::{self, Whose};
use super::{AGENT, BASE_URL, CONTENT_MAX, HEALTH_TIMEOUT, Snowflake, kinds, taken, text, too_long};
use crate::http::{Request, Response, below};
use crate::quota::{Allowance, Quota};
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting};

#[cfg(test)]
mod tests;

/// Where Discord's own webhooks stand.
const HOSTS: &[&str] = &["discord.com", "ptb.discord.com", "canary.discord.com", "discordapp.com"];
/// The longest token that is taken for one.
const TOKEN_MAX: usize = 200;
/// What an address looks like.
const EXAMPLE: &str = "https://discord.com/api/webhooks/223704706495545344/example-token-of-a-webhook";
/// A webhook's limits are for all of it, whatever thread a message goes to.
const PLACE: u64 = 0;

/// The `discord-webhook` plugin.
pub struct DiscordWebhook {
    context: ChannelContext,
    base: Url,
    webhook: Webhook,
    thread: Option<Snowflake>,
    account: Arc<Account>,
}

/// What a `discord-webhook` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The webhook's whole address, from the Discord channel's settings (Integrations, Webhooks, Copy Webhook URL).
    #[schemars(with = "String")]
    pub webhook_url: Secret,
    /// The thread that gets the messages, as a number; without it the channel itself gets them. A forum's webhook
    /// needs one.
    pub thread_id: Option<String>,
}

/// A webhook's id and its token, as they stand in its address.
#[derive(Debug, Clone)]
struct Webhook {
    id: Snowflake,
    token: Secret,
}

impl Webhook {
    fn parse(url: &Secret) -> Result<Self, &'static str> {
        let url = Url::parse(url.expose()).map_err(|_| "is no URL")?;
        let known = matches!(url.host(), Some(Host::Domain(name)) if HOSTS.contains(&name));
        if url.scheme() != "https" || url.port().is_some() || !known {
            return Err("does not begin with https://discord.com/ (where the server is another one, write it so all \
                        the same, and name that server in the option baseUrl)");
        }
        let parts: Vec<&str> = url.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).collect();
        let at = parts.iter().position(|part| *part == "webhooks").ok_or("is no webhook's address")?;
        let (id, token) = match &parts[at + 1..] {
            [id, token] => (*id, *token),
            [_, _, "slack" | "github", ..] => return Err("ends with /slack or /github, which takes other messages"),
            _ => return Err("is no webhook's address: it ends with the webhook's number and its token"),
        };
        let id = Snowflake::parse(id).ok_or("has no number after /webhooks/")?;
        let plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !plain || token.len() > TOKEN_MAX {
            return Err("ends with what is no webhook's token");
        }
        Ok(Self { id, token: Secret::new(token) })
    }
}

impl ChannelPlugin for DiscordWebhook {
    const KIND: &'static str = "discord-webhook";
    const ABOUT: &'static str = "Sends to a Discord channel through its webhook";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "WEBHOOK_URL",
            secret: true,
            required: true,
            about: "The webhook's whole address, from the Discord channel's settings (Integrations, Webhooks).",
            example: EXAMPLE,
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "THREAD_ID",
            secret: false,
            required: false,
            about: "The thread that gets the messages, as a number: Copy Thread ID in Discord's developer mode.",
            example: "290926798999357250",
            classic: Some(Classic::Id),
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "In Discord, on the channel: **Edit Channel** → **Integrations** → **Webhooks** → **New Webhook**; give \
         it the name that its messages shall bear.",
        "**Copy Webhook URL**.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: CONTENT_MAX, unit: Unit::Characters }), rich: true };
    const MAX_CONCURRENCY: u32 = 2;
    /// What Discord lets an address without a bot's token send; a webhook's narrower limits are told in its answers.
    /// <https://discord.com/developers/docs/topics/rate-limits#global-rate-limit>
    const RATE: Option<Rate> = Some(Rate {
        limit: NonZeroU32::new(50).expect("50 is not zero"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(50).expect("50 is not zero"),
    });
    const QUOTA: Option<Quota<Config>> =
        Some(Quota::by(|config: &Config| vec![config.webhook_url.expose()]).with(&[Allowance::of_all(
            "a webhook",
            50,
            Duration::from_secs(1),
        )]));
    const TARGET: Option<&'static str> = Some("THREAD_ID");
    /// Webhooks have no nonce.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(reason) = Webhook::parse(&config.webhook_url) {
            let help = format!("copy it from the Discord channel's settings (Integrations, Webhooks); like {EXAMPLE}");
            problems.add_with_help("webhookUrl", reason, help);
        }
        if config.thread_id.as_deref().is_some_and(|id| Snowflake::parse(id).is_none()) {
            let help = "for example 290926798999357250: turn on Discord's developer mode and take Copy Thread ID";
            problems.add_with_help("threadId", "is no Discord id; expected digits", help);
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let webhook = Webhook::parse(&config.webhook_url);
        let webhook = webhook.map_err(|reason| InitError(format!("webhookUrl {reason}")))?;
        let thread = match &config.thread_id {
            Some(id) => Some(Snowflake::parse(id).ok_or_else(|| InitError("threadId is no Discord id".into()))?),
            None => None,
        };
        let base = context.base_url.clone();
        let base = base.unwrap_or_else(|| Url::parse(BASE_URL).expect("the constant is a URL"));
        let account = Account::of(&base, &webhook.token);
        Ok(Self { context, base, webhook, thread, account })
    }
}

#[async_trait]
impl Channel for DiscordWebhook {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let thread = self.thread(message)?;
        let content = text::content(message, self.context.allow_mentions);
        let length = Unit::Characters.count(&content);
        if length > CONTENT_MAX {
            return Err(SendError::new(SendErrorKind::Rejected, too_long(length)));
        }
        let mut url = self.url();
        // Without it, the answer says nothing of what became of the message.
        url.query_pairs_mut().append_pair("wait", "true");
        if let Some(thread) = thread {
            url.query_pairs_mut().append_pair("thread_id", &thread.to_string());
        }
        let body = json!({
            "content": content,
            "allowed_mentions": { "parse": kinds(self.context.allow_mentions) },
        });
        self.account.budget.take(PLACE, Instant::now())?;
        let request = Request::post(url).timeout(self.context.request_timeout()).json(&body);
        let response = self.ask(request).await?;
        self.account.budget.learn(PLACE, &response.headers, Instant::now());
        if response.status.is_success() {
            return taken(&response);
        }
        Err(self.error(&response, thread == self.thread))
    }

    fn length(&self, message: &Message) -> usize {
        Unit::Characters.count(&text::content(message, self.context.allow_mentions))
    }

    async fn health_check(&self) -> Health {
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let error = match self.ask(Request::get(self.url()).timeout(timeout)).await {
            Ok(response) if response.status.is_success() => return Health::Up,
            Ok(response) => self.error(&response, true),
            Err(error) => error,
        };
        error.health()
    }
}

impl DiscordWebhook {
    fn url(&self) -> Url {
        let Webhook { id, token } = &self.webhook;
        below(&self.base, &format!("/api/v10/webhooks/{id}/{}", token.expose()))
    }

    fn thread(&self, message: &Message) -> Result<Option<Snowflake>, SendError> {
        let Some(target) = &message.target else { return Ok(self.thread) };
        let thread = Snowflake::parse(target).ok_or_else(|| {
            let text = "the targetId is no id of a Discord thread; expected digits, such as 290926798999357250";
            SendError::new(SendErrorKind::Permanent, text)
        })?;
        Ok(Some(thread))
    }

    async fn ask(&self, request: Request) -> Result<Response, SendError> {
        let request = request.header(USER_AGENT, HeaderValue::from_static(AGENT));
        Ok(self.context.http.send(request).await?)
    }

    fn error(&self, response: &Response, own: bool) -> SendError {
        let (token, now) = (self.webhook.token.expose(), self.context.clock.now());
        answer::error(response, Whose::Webhook { own }, token, now)
    }
}
