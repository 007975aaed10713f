//! Sends to Slack: as a bot with `chat.postMessage`, or through an incoming webhook.
//!
//! <https://docs.slack.dev/reference/methods/chat.postMessage>,
//! <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{
    Channel, Health, Limits, Message, Problems, Rate, Receipt, Secret, SendError, SendErrorKind, TextLimit, Unit,
};
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::http::{Request, Response, below};
use crate::quota::{Allowance, Quota};
use crate::secret_url::SecretUrl;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, token, ways};
use ways::Told;

mod answer;
#[cfg(test)]
mod tests;
mod text;

/// Slack's own address.
const BASE_URL: &str = "https://slack.com";

/// The longest text that Slack advises, in characters.
/// <https://docs.slack.dev/reference/methods/chat.postMessage#truncating>
pub const TEXT_MAX: usize = 4_000;
/// Slack cuts off what is longer than this, in characters, and calls that a success.
/// <https://docs.slack.dev/reference/methods/chat.postMessage#truncating>
const CUT_OFF_AT: usize = 40_000;
/// The longest name of a target, in characters: Slack's channels have names of up to 80, with a number sign before.
const TARGET_MAX: usize = 81;
/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

const TOKEN_HELP: &str = "copy the Bot User OAuth Token from api.slack.com/apps (OAuth & Permissions): xoxb-…";
const CHANNEL_HELP: &str = "for example C1H9RESGL: in Slack, the channel's details show its id at their end";
const WEBHOOK_HELP: &str = "copy it from api.slack.com/apps (Incoming Webhooks): https://hooks.slack.com/services/…";
const THREAD_HELP: &str = "for example 1503435956.000247: the `ts` of the thread's first message";

/// The `slack` plugin.
pub struct Slack {
    context: ChannelContext,
    way: Way,
    thread: Option<String>,
    unfurl: Option<bool>,
}

/// What a `slack` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The bot's token, beginning with `xoxb-`.
    #[schemars(with = "Option<String>")]
    pub bot_token: Option<Secret>,
    /// The Slack channel that gets the bot's messages, as an id such as `C1H9RESGL` or a name such as `#alerts`.
    pub channel: Option<String>,
    /// The address of an incoming webhook, in the place of token and channel.
    #[schemars(with = "Option<String>")]
    pub webhook_url: Option<Secret>,
    /// The thread that all messages go into: the `ts` of its first message, such as `1503435956.000247`.
    pub thread_ts: Option<String>,
    /// Whether Slack shows previews of links. Without it, Slack decides by the kind of link.
    pub unfurl: Option<bool>,
}

enum Way {
    Bot(Bot),
    Webhook(SecretUrl),
}

struct Bot {
    token: Secret,
    authorization: HeaderValue,
    channel: String,
    base: Url,
}

impl ChannelPlugin for Slack {
    const KIND: &'static str = "slack";
    const ABOUT: &'static str = "Sends to Slack as a bot, or through an incoming webhook";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "BOT_TOKEN",
            secret: true,
            required: false,
            about: "The bot's token, from api.slack.com/apps (OAuth & Permissions). It needs CHANNEL beside it; the \
                    other way is WEBHOOK_URL alone.",
            example: "xoxb-example-token",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "CHANNEL",
            secret: false,
            required: false,
            about: "The Slack channel that gets the bot's messages, as an id or a name.",
            example: "C1H9RESGL",
            classic: Some(Classic::Id),
        },
        Setting {
            name: "WEBHOOK_URL",
            secret: true,
            required: false,
            about: "The address of an incoming webhook, from api.slack.com/apps (Incoming Webhooks), in the place of \
                    BOT_TOKEN and CHANNEL.",
            example: "https://hooks.slack.com/services/T00000000/B00000000/example",
            classic: None,
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Open <https://api.slack.com/apps>, **Create New App** → **From scratch**, and choose the workspace.",
        "For a bot: **OAuth & Permissions** → **Bot Token Scopes** → add `chat:write` (and `chat:write.public` \
         for public channels that the bot is not in). **Install to Workspace**, and copy the **Bot User OAuth \
         Token**. In Slack, invite the bot into the channel: `/invite @name`. The channel's details show its id \
         at their end.",
        "For a webhook: **Incoming Webhooks** → on → **Add New Webhook**, choose the channel, and copy the \
         address.",
    ];
    const WAYS: &'static [&'static [&'static str]] = &[&["BOT_TOKEN", "CHANNEL"], &["WEBHOOK_URL"]];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: TEXT_MAX, unit: Unit::Characters }), rich: true };
    const MAX_CONCURRENCY: u32 = 4;
    /// One message a second into a Slack channel, and more in short bursts.
    /// <https://docs.slack.dev/apis/web-api/rate-limits>
    const RATE: Option<Rate> = Some(Rate {
        limit: NonZeroU32::new(1).expect("1 is not zero"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(5).expect("5 is not zero"),
    });
    const TARGET: Option<&'static str> = Some("CHANNEL");
    /// A message a second into each Slack channel, and more in short bursts. How much the workspace takes in all, Slack
    /// says in its answers.
    /// <https://docs.slack.dev/apis/web-api/rate-limits>
    const QUOTA: Option<Quota<Config>> = Some(
        Quota::by(|config: &Config| {
            [&config.bot_token, &config.webhook_url].into_iter().flatten().map(Secret::expose).collect()
        })
        .with(&[Allowance::of_each("a Slack channel", 5, Duration::from_secs(5))]),
    );
    /// Slack takes no key that it would know a repetition by.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        let settings = [
            Told::of("BOT_TOKEN", config.bot_token.as_ref(), authorization, TOKEN_HELP),
            Told::of("CHANNEL", config.channel.as_deref(), check_target, CHANNEL_HELP),
            Told::of("WEBHOOK_URL", config.webhook_url.as_ref(), webhook, WEBHOOK_HELP),
        ];
        ways::check(Self::WAYS, &settings, problems);
        if config.thread_ts.as_deref().is_some_and(|ts| !is_ts(ts)) {
            problems.add_with_help("threadTs", "is no timestamp of a Slack message", THREAD_HELP);
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let mut problems = Problems::new();
        Self::validate(&config, &mut problems);
        if !problems.is_empty() {
            return Err(InitError(problems.to_string()));
        }
        let base = context.base_url.as_ref();
        let way = match (config.bot_token, config.channel, config.webhook_url) {
            (Some(token), Some(channel), _) => {
                let authorization = authorization(&token).map_err(|reason| InitError(format!("botToken {reason}")))?;
                let base = base.cloned();
                let base = base.unwrap_or_else(|| Url::parse(BASE_URL).expect("the constant is a URL"));
                Way::Bot(Bot { token, authorization, channel, base })
            }
            (_, _, Some(url)) => {
                let url = webhook(&url).map_err(|reason| InitError(format!("webhookUrl {reason}")))?;
                Way::Webhook(url.at(base))
            }
            _ => return Err(InitError("neither botToken with channel nor webhookUrl is set".into())),
        };
        Ok(Self { way, thread: config.thread_ts, unfurl: config.unfurl, context })
    }
}

#[async_trait]
impl Channel for Slack {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let text = text::written(message, self.context.allow_mentions);
        let length = Unit::Characters.count(&text);
        if length > CUT_OFF_AT {
            let text = format!("the message is {length} characters long with its title; Slack cuts at {CUT_OFF_AT}");
            return Err(SendError::new(SendErrorKind::Rejected, text));
        }
        let now = self.context.clock.now();
        match &self.way {
            Way::Bot(bot) => {
                let target = message.target.as_deref().unwrap_or(&bot.channel);
                if let Err(reason) = check_target(target) {
                    return Err(SendError::new(SendErrorKind::Permanent, format!("the targetId {reason}")));
                }
                let mut body = self.body(message, &text);
                body["channel"] = target.into();
                body["parse"] = "none".into();
                body["link_names"] = self.context.allow_mentions.into();
                let response = self.ask(bot.request(&body)).await?;
                answer::of_bot(&response, target == bot.channel, bot.token.expose(), now)
            }
            Way::Webhook(url) => {
                if message.target.is_some() {
                    let text = "an incoming webhook of Slack has one channel only; leave targetId out, or use a bot";
                    return Err(SendError::new(SendErrorKind::Permanent, text));
                }
                let request = Request::post(url.url().clone()).json(&self.body(message, &text));
                let response = self.ask(request).await?;
                answer::of_webhook(&response, &url.hidden(), now)
            }
        }
    }

    fn length(&self, message: &Message) -> usize {
        Unit::Characters.count(&text::written(message, self.context.allow_mentions))
    }

    async fn health_check(&self) -> Health {
        // A webhook cannot be asked without posting.
        let Way::Bot(bot) = &self.way else { return Health::Unknown };
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let request = Request::get(below(&bot.base, "/api/auth.test"));
        let request = request.header(AUTHORIZATION, bot.authorization.clone()).timeout(timeout);
        let answer = match self.context.http.send(request).await {
            Ok(response) => answer::of_health(&response, bot.token.expose(), self.context.clock.now()),
            Err(error) => Err(error.into()),
        };
        match answer {
            Ok(()) => Health::Up,
            Err(error) => error.health(),
        }
    }
}

impl Slack {
    /// What both ways have in common. The metadata lets an app of the workspace recognise a repetition.
    fn body(&self, message: &Message, text: &str) -> Value {
        let mut body = json!({
            "text": text,
            "mrkdwn": text::has_marks(message),
            "metadata": {
                "event_type": "conductor_notification",
                "event_payload": { "id": message.part_id() },
            },
        });
        if let Some(thread) = &self.thread {
            body["thread_ts"] = thread.as_str().into();
        }
        if let Some(unfurl) = self.unfurl {
            body["unfurl_links"] = unfurl.into();
            body["unfurl_media"] = unfurl.into();
        }
        body
    }

    async fn ask(&self, request: Request) -> Result<Response, SendError> {
        // Without the name of the encoding Slack warns in every answer.
        let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        Ok(self.context.http.send(request.timeout(self.context.request_timeout())).await?)
    }
}

impl Bot {
    fn request(&self, body: &Value) -> Request {
        let request = Request::post(below(&self.base, "/api/chat.postMessage")).json(body);
        request.header(AUTHORIZATION, self.authorization.clone())
    }
}

fn authorization(token: &Secret) -> Result<HeaderValue, &'static str> {
    let value = token::header("Bearer", token)?;
    let is_slacks = token.expose().starts_with("xox");
    is_slacks.then_some(value).ok_or("is no token of Slack; expected one that begins with xoxb-, without spaces")
}

fn webhook(url: &Secret) -> Result<SecretUrl, &'static str> {
    let parsed = SecretUrl::parse(url)?;
    if parsed.url().path().starts_with("/triggers/") {
        return Err("is the address of a workflow's trigger, which takes other fields; expected an incoming webhook");
    }
    Ok(parsed)
}

fn check_target(target: &str) -> Result<(), &'static str> {
    let is_name = |letter: char| !letter.is_whitespace() && !letter.is_control() && !matches!(letter, '<' | '>' | ',');
    if target.is_empty() || target.chars().count() > TARGET_MAX || !target.chars().all(is_name) {
        return Err("is no channel of Slack; expected an id such as C1H9RESGL, or a name such as #alerts");
    }
    Ok(())
}

/// Whether a text is a message's timestamp. It is never read as a number: that would lose digits.
fn is_ts(text: &str) -> bool {
    let digits = |text: &str| (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(seconds, rest)| digits(seconds) && digits(rest))
}
