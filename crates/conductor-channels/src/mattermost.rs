//! Sends to Mattermost: as a bot with a token, or through an incoming webhook.
//!
//! <https://developers.mattermost.com/api-documentation/#/operations/CreatePost>,
//! <https://developers.mattermost.com/integrate/webhooks/incoming/>

use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{
    Channel, Format, Health, Limits, Message, Problems, Receipt, Secret, SendError, SendErrorKind, TextLimit, Unit,
};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{Request, Response, below, check_url};
use crate::markdown::{Dialect, Rendering, escape};
use crate::quota::Quota;
use crate::secret_url::SecretUrl;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, head, token, ways};
use ways::Told;

mod answer;
#[cfg(test)]
mod tests;

/// The longest post, in characters.
/// <https://docs.mattermost.com/administration-guide/configure/site-configuration-settings.html>
pub const TEXT_MAX: usize = 16_383;
/// The length of Mattermost's ids, in characters.
const ID_LENGTH: usize = 26;
/// The longest name of a channel that a webhook can be told, in characters: 64, with a sign before.
const NAME_MAX: usize = 65;
/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

const NO_ID: &str = "is no id of Mattermost; expected 26 letters and digits";
const SERVER_HELP: &str = "for example https://chat.example.com, as people open it in a browser";
const TOKEN_HELP: &str = "copy it where the bot is made: Integrations, Bot Accounts, Create New Token";
const CHANNEL_HELP: &str = "for example 4xp9fdt77pncbef59f4k1qe83o: the channel's View Info shows it at its end";
const WEBHOOK_HELP: &str = "copy it from Integrations, Incoming Webhooks: https://chat.example.com/hooks/…";
const ROOT_HELP: &str = "for example 7jbd4tsy4fgfxxonqzm8ymz5ph: the end of the address that Copy Link gives";

/// The `mattermost` plugin.
pub struct Mattermost {
    context: ChannelContext,
    way: Way,
    root: Option<String>,
}

/// What a `mattermost` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The server's address, such as `https://chat.example.com`.
    pub server_url: Option<String>,
    /// The bot's access token.
    #[schemars(with = "Option<String>")]
    pub bot_token: Option<Secret>,
    /// The Mattermost channel that gets the bot's messages: its id of 26 characters.
    pub channel_id: Option<String>,
    /// The address of an incoming webhook, in the place of the other three.
    #[schemars(with = "Option<String>")]
    pub webhook_url: Option<Secret>,
    /// The thread that all messages of a bot go into: the id of its first post.
    pub root_id: Option<String>,
}

enum Way {
    Bot(Bot),
    Webhook(SecretUrl),
}

struct Bot {
    server: Url,
    token: Secret,
    authorization: HeaderValue,
    channel: String,
}

impl ChannelPlugin for Mattermost {
    const KIND: &'static str = "mattermost";
    const ABOUT: &'static str = "Sends to Mattermost as a bot, or through an incoming webhook";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "SERVER_URL",
            secret: false,
            required: false,
            about: "The server's address. It needs BOT_TOKEN and CHANNEL_ID beside it; the other way is WEBHOOK_URL \
                    alone.",
            example: "https://chat.example.com",
            classic: None,
        },
        Setting {
            name: "BOT_TOKEN",
            secret: true,
            required: false,
            about: "The bot's access token, from Integrations, Bot Accounts.",
            example: "exampleexampleexampleexamp",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "CHANNEL_ID",
            secret: false,
            required: false,
            about: "The Mattermost channel that gets the bot's messages, from the channel's View Info.",
            example: "4xp9fdt77pncbef59f4k1qe83o",
            classic: Some(Classic::Id),
        },
        Setting {
            name: "WEBHOOK_URL",
            secret: true,
            required: false,
            about: "The address of an incoming webhook, from Integrations, Incoming Webhooks, in the place of the \
                    other three.",
            example: "https://chat.example.com/hooks/exampleexampleexampleexamp",
            classic: None,
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "For a bot: **Integrations** → **Bot Accounts** → **Add Bot Account**, and copy the token, which is shown \
         once. Add the bot to the team and to the channel. The channel's **View Info** shows its id at its end. \
         Where Bot Accounts is missing, the server's owner switches it on in the **System Console**.",
        "For a webhook: **Integrations** → **Incoming Webhooks** → **Add Incoming Webhook**, choose the channel, \
         and copy the address.",
    ];
    const WAYS: &'static [&'static [&'static str]] = &[&["SERVER_URL", "BOT_TOKEN", "CHANNEL_ID"], &["WEBHOOK_URL"]];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: TEXT_MAX, unit: Unit::Characters }), rich: true };
    /// A server whose owner has switched limits on counts by user, and says in its answers how much it allows.
    const QUOTA: Option<Quota<Config>> = Some(Quota::by(|config: &Config| {
        let secrets = [&config.bot_token, &config.webhook_url].into_iter().flatten().map(Secret::expose);
        config.server_url.as_deref().into_iter().chain(secrets).collect()
    }));
    const TARGET: Option<&'static str> = Some("CHANNEL_ID");
    /// A bot's posts have a `pending_post_id`, which the server knows a repetition by, but for seconds only, and a
    /// webhook's have none.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        let settings = [
            Told::of("SERVER_URL", config.server_url.as_deref(), server, SERVER_HELP),
            Told::of("BOT_TOKEN", config.bot_token.as_ref(), bearer, TOKEN_HELP),
            Told::of("CHANNEL_ID", config.channel_id.as_deref(), check_id, CHANNEL_HELP),
            Told::of("WEBHOOK_URL", config.webhook_url.as_ref(), SecretUrl::parse, WEBHOOK_HELP),
        ];
        ways::check(Self::WAYS, &settings, problems);
        match config.root_id.as_deref() {
            Some(id) if !is_id(id) => problems.add_with_help("rootId", NO_ID, ROOT_HELP),
            Some(_) if config.webhook_url.is_some() => {
                problems.add_with_help("rootId", "works for a bot only", "take it away, or send as a bot");
            }
            _ => {}
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let mut problems = Problems::new();
        Self::validate(&config, &mut problems);
        if !problems.is_empty() {
            return Err(InitError(problems.to_string()));
        }
        let base = context.base_url.as_ref();
        let way = match (config.server_url, config.bot_token, config.channel_id, config.webhook_url) {
            (Some(url), Some(token), Some(channel), _) => {
                let authorization = bearer(&token).map_err(|reason| InitError(format!("botToken {reason}")))?;
                let server = server(&url).map_err(|reason| InitError(format!("serverUrl {reason}")))?;
                Way::Bot(Bot { server: base.cloned().unwrap_or(server), token, authorization, channel })
            }
            (_, _, _, Some(url)) => {
                let url = SecretUrl::parse(&url).map_err(|reason| InitError(format!("webhookUrl {reason}")))?;
                Way::Webhook(url.at(base))
            }
            _ => return Err(InitError("neither a bot nor a webhook is set".into())),
        };
        Ok(Self { way, root: config.root_id, context })
    }
}

#[async_trait]
impl Channel for Mattermost {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let now = self.context.clock.now();
        match &self.way {
            Way::Bot(bot) => {
                let target = message.target.as_deref().unwrap_or(&bot.channel);
                if !is_id(target) {
                    let text = "the targetId is no id of a Mattermost channel; expected 26 letters and digits";
                    return Err(SendError::new(SendErrorKind::Permanent, text));
                }
                let request = Request::post(below(&bot.server, "/api/v4/posts")).json(&self.post(message, target));
                let response = self.ask(request.header(AUTHORIZATION, bot.authorization.clone())).await?;
                answer::of_bot(&response, target == bot.channel, &[bot.token.expose()], now)
            }
            Way::Webhook(url) => {
                let mut body = json!({ "text": self.written(message), "props": self.props(message) });
                if let Some(target) = &message.target {
                    check_name(target)?;
                    body["channel"] = target.as_str().into();
                }
                let response = self.ask(Request::post(url.url().clone()).json(&body)).await?;
                answer::of_webhook(&response, message.target.is_none(), &url.hidden(), now)
            }
        }
    }

    fn length(&self, message: &Message) -> usize {
        Unit::Characters.count(&self.written(message))
    }

    async fn health_check(&self) -> Health {
        // A webhook cannot be asked without posting.
        let Way::Bot(bot) = &self.way else { return Health::Unknown };
        let request = Request::get(below(&bot.server, "/api/v4/users/me"));
        let request = request.header(AUTHORIZATION, bot.authorization.clone());
        let request = request.timeout(self.context.request_timeout().min(HEALTH_TIMEOUT));
        let error = match self.context.http.send(request).await {
            Ok(response) if response.status.is_success() => return Health::Up,
            Ok(response) => answer::error(&response, true, &[bot.token.expose()], self.context.clock.now()),
            Err(error) => error.into(),
        };
        error.health()
    }
}

impl Mattermost {
    /// The whole text of a message: priority, title, body. Of a text in parts the first one alone has priority and
    /// title.
    fn written(&self, message: &Message) -> String {
        let mut text = head::lines(message, ("**", "**"), |title| escape(title, Dialect::Mattermost));
        let rendering = Rendering { dialect: Dialect::Mattermost, allow_mentions: self.context.allow_mentions };
        text.push_str(&match message.format {
            Format::Text => rendering.escape(&message.body),
            Format::Markdown => rendering.render(&message.body),
        });
        text
    }

    fn post(&self, message: &Message, channel: &str) -> Value {
        let mut body = json!({
            "channel_id": channel,
            "message": self.written(message),
            "pending_post_id": message.part_id(),
            "props": self.props(message),
        });
        if let Some(root) = &self.root {
            body["root_id"] = root.as_str().into();
        }
        body
    }

    /// The id lets a plugin of the server recognise a repetition. Mentions are broken in the text already; the switch
    /// keeps Mattermost from marking groups all the same.
    fn props(&self, message: &Message) -> Value {
        let mut props = json!({ "conductor_id": message.part_id() });
        if !self.context.allow_mentions {
            props["disable_group_highlight"] = true.into();
        }
        props
    }

    async fn ask(&self, request: Request) -> Result<Response, SendError> {
        Ok(self.context.http.send(request.timeout(self.context.request_timeout())).await?)
    }
}

fn server(url: &str) -> Result<Url, &'static str> {
    let url = Url::parse(url).map_err(|_| "is no URL; expected the server's address")?;
    check_url(&url)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has more than a path behind the host; expected the server's address alone");
    }
    if url.path().trim_end_matches('/').ends_with("/api/v4") {
        return Err("ends with the path of the API; expected the server's address alone");
    }
    Ok(url)
}

fn bearer(token: &Secret) -> Result<HeaderValue, &'static str> {
    token::header("Bearer", token)
}

fn check_id(id: &str) -> Result<(), &'static str> {
    if is_id(id) { Ok(()) } else { Err(NO_ID) }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// A channel's name as a webhook takes it, such as `town-square`, or `@name` for a person.
fn check_name(target: &str) -> Result<(), SendError> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'@' | b'#' | b'-' | b'_' | b'.');
    if target.is_empty() || target.len() > NAME_MAX || !target.bytes().all(is_name) {
        let text = "the targetId is no name of a Mattermost channel, such as town-square, nor of a person: @name";
        return Err(SendError::new(SendErrorKind::Permanent, text));
    }
    Ok(())
}
