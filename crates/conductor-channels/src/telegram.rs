//! Sends to a Telegram chat as a bot.
//!
//! <https://core.telegram.org/bots/api#sendmessage>

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use conductor_core::{
    Channel, Health, Limits, Message, Priority, Problems, Rate, Receipt, Secret, SendError, SendErrorKind, TextLimit,
    Unit,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use crate::http::{Request, Response, below};
use crate::identity::{Identity, Shared};
use crate::quota::{Allowance, Quota};
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting};
use chats::{Chat, Chats, Place};

mod answer;
mod chats;
#[cfg(test)]
mod tests;
mod text;

/// Telegram's own address.
const BASE_URL: &str = "https://api.telegram.org";

/// The longest message in UTF-16 code units, "after entities parsing".
/// <https://core.telegram.org/bots/api#sendmessage>
pub const TEXT_MAX: usize = 4096;

/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of the chats of each bot.
static CHATS: Shared<Chats> = Shared::new();

/// The `telegram` plugin.
pub struct Telegram {
    context: ChannelContext,
    base: Url,
    token: Secret,
    place: Place,
    link_preview: bool,
    chats: Arc<Chats>,
}

/// What a `telegram` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The bot's token, from @BotFather.
    #[schemars(with = "String")]
    pub bot_token: Secret,
    /// The chat that gets the messages: a number, negative for groups and channels, or the `@name` of a public one.
    /// `-1001234567890:7` is topic 7 of that group.
    pub chat_id: String,
    /// The topic of that chat, as a number.
    pub message_thread_id: Option<i64>,
    /// Whether Telegram shows a preview of the first link.
    #[serde(default = "yes")]
    pub link_preview: bool,
}

const fn yes() -> bool {
    true
}

impl ChannelPlugin for Telegram {
    const KIND: &'static str = "telegram";
    const ABOUT: &'static str = "Sends to a Telegram chat as a bot";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "BOT_TOKEN",
            secret: true,
            required: true,
            about: "The bot's token, from @BotFather (/newbot, or /token for one that exists).",
            example: "123456789:example-token-of-a-telegram-bot-00",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "CHAT_ID",
            secret: false,
            required: true,
            about: "The chat that gets the messages: its number, or the @name of a public group or channel.",
            example: "-1001234567890",
            classic: Some(Classic::Id),
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "In Telegram, write `/newbot` to [@BotFather](https://t.me/BotFather) and answer its questions. It \
         answers with the token. For a bot that exists, `/token` shows it.",
        "For a chat with yourself, open the bot and press **Start**: a bot cannot write to people first. For a \
         group, add the bot to it. For a channel, add it as an administrator who may post messages.",
        "Write something there, and ask `https://api.telegram.org/bot<token>/getUpdates` which chat it came from: \
         its number is `chat.id`, negative for groups and channels. A topic's number is `message_thread_id`.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: TEXT_MAX, unit: Unit::Utf16 }), rich: true };
    const MAX_CONCURRENCY: u32 = 4;
    /// What all chats of a bot share; the narrower limits of a chat are told in the answers.
    /// <https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this>
    const RATE: Option<Rate> = Some(Rate {
        limit: NonZeroU32::new(30).expect("30 is not zero"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(30).expect("30 is not zero"),
    });
    const TARGET: Option<&'static str> = Some("CHAT_ID");
    /// About a message a second to a chat, with short bursts, and 20 a minute to a group.
    /// <https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this>
    const QUOTA: Option<Quota<Config>> =
        Some(Quota::by(|config: &Config| vec![config.bot_token.expose()]).placed(chats::without_topic).with(&[
            Allowance::of_all("a bot", 30, Duration::from_secs(1)),
            Allowance::of_each("a chat", 5, Duration::from_secs(5)),
            Allowance::of_each_that("a group", 20, Duration::from_secs(60), chats::is_shared),
        ]));
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(reason) = check_token(&config.bot_token) {
            problems.add_with_help("botToken", reason, "copy it from @BotFather in Telegram (/token)");
        }
        if let Err((place, reason)) = place(config) {
            let help = "for example -1001234567890: write in the chat and read chat.id in the answer of getUpdates";
            problems.add_with_help(place, reason, help);
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        check_token(&config.bot_token).map_err(|reason| InitError(format!("botToken {reason}")))?;
        let place = place(&config).map_err(|(name, reason)| InitError(format!("{name} {reason}")))?;
        let base = context.base_url.clone();
        let base = base.unwrap_or_else(|| Url::parse(BASE_URL).expect("the constant is a URL"));
        let (token, link_preview) = (config.bot_token, config.link_preview);
        let chats = CHATS.of(Identity::of(&[base.as_str(), token.expose()]), Chats::default);
        Ok(Self { context, base, token, place, link_preview, chats })
    }
}

#[async_trait]
impl Channel for Telegram {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let begun = Instant::now();
        let mut place = self.target(message)?;
        let is_own = place.chat == self.place.chat;
        place.chat = self.chats.current(place.chat);
        let body = self.body(message)?;
        let mut response = self.send_to(&place, &body, begun).await?;
        if let Some(moved) = answer::moved_to(&response) {
            self.follow(&place.chat, moved, is_own);
            place.chat = Chat::Number(moved);
            response = self.send_to(&place, &body, begun).await?;
        }
        if response.status.is_success() {
            return taken(&response);
        }
        let mut error = answer::error(&response, is_own, self.token.expose(), self.context.clock.now());
        if let SendErrorKind::RateLimited { retry_after: Some(wait), scope } = &mut error.kind {
            let until = self.context.clock.now().plus(*wait);
            *scope = self.chats.limited(&place.chat, until, self.context.clock.now(), *scope);
        }
        Err(error)
    }

    fn length(&self, message: &Message) -> usize {
        text::written(message, self.context.allow_mentions).length()
    }

    async fn health_check(&self) -> Health {
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let request = Request::post(self.method("getMe")).timeout(timeout);
        let error = match self.context.http.send(request).await {
            Ok(response) if response.status.is_success() => return health(&response),
            Ok(response) => answer::error(&response, true, self.token.expose(), self.context.clock.now()),
            Err(error) => error.into(),
        };
        error.health()
    }
}

impl Telegram {
    fn target(&self, message: &Message) -> Result<Place, SendError> {
        let Some(target) = &message.target else { return Ok(self.place.clone()) };
        Place::parse(target).ok_or_else(|| {
            let text = "the targetId is no Telegram chat; expected a number or an @name, and behind a colon the number \
                        of a topic where there is one, such as -1001234567890 or -1001234567890:7";
            SendError::new(SendErrorKind::Permanent, text)
        })
    }

    /// The body but for the place.
    fn body(&self, message: &Message) -> Result<Map<String, Value>, SendError> {
        let written = text::written(message, self.context.allow_mentions);
        let length = written.length();
        if length > TEXT_MAX {
            return Err(SendError::new(SendErrorKind::Rejected, too_long(length)));
        }
        let mut body = Map::new();
        body.insert("text".into(), written.text.into());
        if written.is_html {
            body.insert("parse_mode".into(), "HTML".into());
        }
        if !written.entities.is_empty() {
            body.insert("entities".into(), written.entities.into());
        }
        if !self.link_preview {
            body.insert("link_preview_options".into(), json!({ "is_disabled": true }));
        }
        if message.priority == Priority::Low {
            body.insert("disable_notification".into(), true.into());
        }
        Ok(body)
    }

    async fn send_to(&self, place: &Place, body: &Map<String, Value>, begun: Instant) -> Result<Response, SendError> {
        let mut body = body.clone();
        body.insert("chat_id".into(), place.chat.to_json());
        if let Some(topic) = place.topic {
            body.insert("message_thread_id".into(), topic.into());
        }
        let left = self.context.request_timeout().saturating_sub(begun.elapsed());
        Ok(self.context.http.send(Request::post(self.method("sendMessage")).timeout(left).json(&body)).await?)
    }

    /// The token stands in the address, so no error may show one.
    fn method(&self, name: &str) -> Url {
        below(&self.base, &format!("/bot{}/{name}", self.token.expose()))
    }

    /// Keeps in mind that a group has become a supergroup with another number.
    fn follow(&self, from: &Chat, to: i64, is_own: bool) {
        self.chats.moved(from, to);
        let advice = if is_own {
            format!("put {to} into the channel's chatId")
        } else {
            "put its new number into the targetId".to_owned()
        };
        tracing::warn!(
            channel.id = %self.context.channel,
            channel.name = self.context.channel_name,
            "A Telegram group became a supergroup; its messages go to its new number until the next start: {advice}"
        );
    }
}

/// What a success says: the message's id. A page of text instead of JSON is not from Telegram but from something
/// before it, so it is no proof that there is a message.
fn taken(response: &Response) -> Result<Receipt, SendError> {
    let body = response.json();
    if body.is_null() && response.complete && !response.body.is_empty() {
        let text = "the answer was a success but none of Telegram's: is baseUrl right, does a proxy stand between?";
        return Err(SendError::new(SendErrorKind::Unknown, text).with_code(response.status.as_str()));
    }
    let id = body.get("result").and_then(|message| message.get("message_id")?.as_i64());
    Ok(Receipt { provider_id: id.map(|id| id.to_string()) })
}

fn health(response: &Response) -> Health {
    if response.json().get("ok") == Some(&Value::Bool(true)) {
        return Health::Up;
    }
    Health::Down { reason: "there is an answer, but none of Telegram's: is baseUrl right?".into() }
}

fn too_long(length: usize) -> String {
    format!(
        "the message is {length} UTF-16 code units long as Telegram counts, with its title and its mark; {TEXT_MAX} are \
         allowed"
    )
}

/// The digits before the colon are the bot's number, what stands behind it is the secret.
fn check_token(token: &Secret) -> Result<(), &'static str> {
    let token = token.expose();
    if token.is_empty() {
        return Err("is empty; expected the bot's token");
    }
    if token.starts_with("bot") {
        return Err("begins with bot, as in an address; expected the token alone");
    }
    let Some((number, secret)) = token.split_once(':') else {
        return Err("holds no colon; expected a number, a colon and letters, as @BotFather writes it");
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !is_number || secret.is_empty() || !secret.bytes().all(named) {
        return Err("is no token of a bot; expected a number, a colon and letters, as @BotFather writes it");
    }
    Ok(())
}

/// Where the channel's own messages go; else the setting that is wrong, and why.
fn place(config: &Config) -> Result<Place, (&'static str, &'static str)> {
    let expected = "is no Telegram chat; expected a number or an @name";
    let mut place = Place::parse(&config.chat_id).ok_or(("chatId", expected))?;
    match (config.message_thread_id, place.topic) {
        (Some(_), Some(_)) => return Err(("messageThreadId", "names a topic and chatId names one too; expected one")),
        (Some(topic), None) if topic < 1 => return Err(("messageThreadId", "is no topic; expected a positive number")),
        (Some(topic), None) => place.topic = Some(topic),
        (None, _) => {}
    }
    Ok(place)
}
