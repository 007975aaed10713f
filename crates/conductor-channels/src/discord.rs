//! Sends to a Discord channel as a bot.
//!
//! <https://discord.com/developers/docs/resources/message#create-message>

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conductor_core::{
    Channel, Health, Limits, Message, Problems, Rate, Receipt, Secret, SendError, SendErrorKind, Standing, TextLimit,
    Unit,
};
use http::HeaderValue;
use http::header::{AUTHORIZATION, USER_AGENT};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use crate::http::{Request, Response, below};
use crate::quota::{Allowance, Quota};
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, token};

mod account;
mod answer;
mod budget;
mod gateway;
#[cfg(test)]
mod tests;
mod text;
pub mod webhook;

use account::{Account, Parting};
use answer::Whose;
use gateway::{Gateway, Pace};

/// Discord's own address.
const BASE_URL: &str = "https://discord.com";

/// The most characters of a bot's message.
/// <https://discord.com/developers/docs/resources/message#create-message>
pub const CONTENT_MAX: usize = 2000;

/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// Discord asks for this form and may refuse others.
/// <https://discord.com/developers/docs/reference#user-agent>
const AGENT: &str = concat!("DiscordBot (", env!("CARGO_PKG_REPOSITORY"), ", ", env!("CARGO_PKG_VERSION"), ")");

/// The `discord` plugin.
pub struct Discord {
    context: ChannelContext,
    base: Url,
    token: Secret,
    authorization: HeaderValue,
    channel: Snowflake,
    account: Arc<Account>,
    gateway: bool,
    /// Whether the gateway connection is to stand for this channel.
    opened: AtomicBool,
}

/// What a `discord` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The bot's token, from the Discord developer portal (Bot, Reset Token).
    #[schemars(with = "String")]
    pub bot_token: Secret,
    /// The channel that gets the messages, as a number: Copy Channel ID in Discord's developer mode.
    pub channel_id: String,
    /// Whether the bot is connected to Discord's gateway, so that it shows as online. Messages go out either way. To be
    /// `false` where the gateway cannot be reached, as behind a proxy for the API alone.
    #[serde(default = "connected")]
    pub gateway: bool,
}

const fn connected() -> bool {
    true
}

/// Discord's ids: a number of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Snowflake(u64);

impl Snowflake {
    fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten()?;
        (number > 0).then_some(Self(number))
    }
}

impl std::fmt::Display for Snowflake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl ChannelPlugin for Discord {
    const KIND: &'static str = "discord";
    const ALIASES: &'static [&'static str] = &["discord-bot"];
    const ABOUT: &'static str = "Sends to a Discord channel as a bot";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "BOT_TOKEN",
            secret: true,
            required: true,
            about: "The bot's token, from the Discord developer portal (Bot, Reset Token).",
            example: "example.bot.token",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "CHANNEL_ID",
            secret: false,
            required: true,
            about: "The channel that gets the messages, as a number: Copy Channel ID in Discord's developer mode.",
            example: "290926798999357250",
            classic: Some(Classic::Id),
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Open <https://discord.com/developers/applications>, **New Application**, and give it a name.",
        "**Bot** → **Reset Token** → copy the token. It is shown once. No privileged intents are needed.",
        "**OAuth2** → **URL Generator**: tick `bot`, then **View Channels** and **Send Messages** (and **Send \
         Messages in Threads** for threads). Open the address that it shows, and add the bot to your server.",
        "In Discord: **User Settings** → **Advanced** → **Developer Mode** on. Then right-click the channel → \
         **Copy Channel ID**.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: CONTENT_MAX, unit: Unit::Characters }), rich: true };
    const MAX_CONCURRENCY: u32 = 4;
    /// What all of a bot's requests share; the narrower limits are told in the answers.
    /// <https://discord.com/developers/docs/topics/rate-limits#global-rate-limit>
    const RATE: Option<Rate> = Some(Rate {
        limit: NonZeroU32::new(50).expect("50 is not zero"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(50).expect("50 is not zero"),
    });
    /// <https://discord.com/developers/docs/topics/rate-limits#global-rate-limit>
    const QUOTA: Option<Quota<Config>> =
        Some(Quota::by(|config: &Config| vec![config.bot_token.expose()]).with(&[Allowance::of_all(
            "a bot",
            50,
            Duration::from_secs(1),
        )]));
    const TARGET: Option<&'static str> = Some("CHANNEL_ID");
    /// Within "the past few minutes": a `nonce` with `enforce_nonce`.
    const DEDUPES: bool = true;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(reason) = token::header("Bot", &config.bot_token) {
            problems.add_with_help("botToken", reason, "copy it from the Discord developer portal (Bot, Reset Token)");
        }
        if Snowflake::parse(&config.channel_id).is_none() {
            let help = "for example 290926798999357250: turn on Discord's developer mode and take Copy Channel ID";
            problems.add_with_help("channelId", "is no Discord id; expected digits", help);
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let authorization = token::header("Bot", &config.bot_token);
        let authorization = authorization.map_err(|reason| InitError(format!("botToken {reason}")))?;
        let channel = Snowflake::parse(&config.channel_id);
        let channel = channel.ok_or_else(|| InitError("channelId is no Discord id; expected digits".into()))?;
        let base = context.base_url.clone();
        let base = base.unwrap_or_else(|| Url::parse(BASE_URL).expect("the constant is a URL"));
        let account = Account::of(&base, &config.bot_token);
        let opened = AtomicBool::new(false);
        let Config { bot_token: token, gateway, .. } = config;
        Ok(Self { context, base, token, authorization, channel, account, gateway, opened })
    }
}

#[async_trait]
impl Channel for Discord {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let channel = self.target(message)?;
        let content = text::content(message, self.context.allow_mentions);
        let length = Unit::Characters.count(&content);
        if length > CONTENT_MAX {
            return Err(SendError::new(SendErrorKind::Rejected, too_long(length)));
        }
        let url = below(&self.base, &format!("/api/v10/channels/{channel}/messages"));
        let request = Request::post(url).timeout(self.context.request_timeout()).json(&self.body(message, &content));
        self.account.budget.take(channel.0, Instant::now())?;
        let response = self.ask(request).await?;
        self.account.budget.learn(channel.0, &response.headers, Instant::now());
        if response.status.is_success() {
            return taken(&response);
        }
        let whose = Whose::Bot { own: channel == self.channel };
        Err(answer::error(&response, whose, self.token.expose(), self.context.clock.now()))
    }

    fn length(&self, message: &Message) -> usize {
        Unit::Characters.count(&text::content(message, self.context.allow_mentions))
    }

    async fn health_check(&self) -> Health {
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let request = Request::get(below(&self.base, "/api/v10/users/@me")).timeout(timeout);
        let error = match self.ask(request).await {
            Ok(response) if response.status.is_success() => return Health::Up,
            Ok(response) => {
                answer::error(&response, Whose::Bot { own: true }, self.token.expose(), self.context.clock.now())
            }
            Err(error) => error,
        };
        error.health()
    }

    fn open(&self) {
        if !self.gateway || self.opened.swap(true, Ordering::SeqCst) {
            return;
        }
        self.account.open(|standing, identified| Gateway {
            http: self.context.http.clone(),
            base: self.base.clone(),
            token: self.token.clone(),
            authorization: self.authorization.clone(),
            clock: Arc::clone(&self.context.clock),
            pace: Pace::DISCORD,
            standing,
            identified,
        });
    }

    fn standing(&self) -> Option<Standing> {
        self.account.standing().filter(|_| self.opened.load(Ordering::SeqCst))
    }

    async fn shutdown(&self) {
        if let Some(parting) = self.leave() {
            parting.goodbye().await;
        }
    }
}

impl Drop for Discord {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

impl Discord {
    /// This channel needs the gateway connection no more.
    fn leave(&self) -> Option<Parting> {
        self.opened.swap(false, Ordering::SeqCst).then(|| self.account.leave()).flatten()
    }

    fn target(&self, message: &Message) -> Result<Snowflake, SendError> {
        let Some(target) = &message.target else { return Ok(self.channel) };
        Snowflake::parse(target).ok_or_else(|| {
            let text = "the targetId is no Discord channel id; expected digits, such as 290926798999357250";
            SendError::new(SendErrorKind::Permanent, text)
        })
    }

    fn body(&self, message: &Message, content: &str) -> Value {
        json!({
            "content": content,
            "allowed_mentions": { "parse": kinds(self.context.allow_mentions) },
            "nonce": nonce(message.part_id()),
            "enforce_nonce": true,
        })
    }

    async fn ask(&self, request: Request) -> Result<Response, SendError> {
        let request = request
            .header(AUTHORIZATION, self.authorization.clone())
            .header(USER_AGENT, HeaderValue::from_static(AGENT));
        Ok(self.context.http.send(request).await?)
    }
}

/// What kinds of mentions Discord may turn into notifications.
const fn kinds(allow_mentions: bool) -> &'static [&'static str] {
    if allow_mentions { &["users", "roles", "everyone"] } else { &[] }
}

/// What a success says: the message's id. A page of text instead of JSON is not from Discord but from something
/// before it, so it is no proof that there is a message.
fn taken(response: &Response) -> Result<Receipt, SendError> {
    let body = response.json();
    if body.is_null() && response.complete && !response.body.is_empty() {
        let text = "the answer was a success but none of Discord's: is baseUrl right, does a proxy stand between?";
        return Err(SendError::new(SendErrorKind::Unknown, text).with_code(response.status.as_str()));
    }
    // Stored and shown: whatever else stands there, from something between here and Discord, is not passed on.
    let id = body.get("id").and_then(Value::as_str).filter(|id| Snowflake::parse(id).is_some());
    Ok(Receipt { provider_id: id.map(str::to_owned) })
}

fn too_long(length: usize) -> String {
    format!(
        "the message is {length} characters long as Discord counts, with its title, its marks and the backslashes \
         that keep special characters as typed; {CONTENT_MAX} are allowed"
    )
}

/// The part's id in 22 characters; Discord takes 25.
fn nonce(part: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(part.as_bytes())
}
