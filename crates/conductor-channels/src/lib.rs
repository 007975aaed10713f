//! Conductor's channel plugins: each talks to one kind of provider.
//!
//! A plugin is one file and one line in [`PLUGINS`]. It sees its own settings, one HTTP client and a clock; never the
//! store, another channel or the environment.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use conductor_core::{Channel, ChannelId, Clock, Limits, Problems, Rate, TenantId};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::Url;

use quota::{Allowance, Counted, Quota};

pub mod apns;
pub mod discord;
pub mod email;
pub mod fcm;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod google_chat;
pub mod gotify;
mod head;
pub mod http;
mod identity;
mod jwt;
pub mod log;
pub mod markdown;
pub mod matrix;
pub mod mattermost;
pub mod ntfy;
mod push;
pub mod pushover;
pub mod quota;
pub mod reference;
pub mod secret_url;
pub mod slack;
pub mod sms;
pub mod teams;
pub mod telegram;
pub mod text;
mod token;
mod ways;
pub mod webhook;
pub mod whatsapp;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod egress_tests;
#[cfg(test)]
mod secrecy_tests;

/// Something that a plugin has to be told before it can send.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The name as it ends an environment variable: `BOT_TOKEN`. In JSON it is written in camel case: `botToken`.
    pub name: &'static str,
    /// Whether it must never be shown. A secret is never read from `options`.
    pub secret: bool,
    /// Whether the plugin cannot work without it.
    pub required: bool,
    /// What it is for and where to get it, as a sentence.
    pub about: &'static str,
    /// A value that validates. Of a secret, one that is obviously none.
    pub example: &'static str,
    /// Which of the two classic fields of a channel names its variable.
    pub classic: Option<Classic>,
}

/// The two fields by which a channel of `channels.json` names variables without `env`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classic {
    /// `providerIdEnvVar`
    Id,
    /// `providerSecretEnvVar`
    Secret,
}

impl Setting {
    /// The name as JSON writes it: `botToken` for `BOT_TOKEN`.
    pub fn camel_case(&self) -> String {
        camel_case(self.name)
    }
}

/// The name of a setting as JSON writes it.
fn camel_case(setting: &str) -> String {
    let mut name = String::with_capacity(setting.len());
    let mut upper = false;
    for letter in setting.chars() {
        if letter == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            name.push(letter);
        } else {
            name.push(letter.to_ascii_lowercase());
        }
    }
    name
}

/// What a channel gets besides its settings.
#[derive(Clone)]
pub struct ChannelContext {
    /// Whose channel it is.
    pub tenant: TenantId,
    /// The tenant's name, for logs.
    pub tenant_name: String,
    /// The channel.
    pub channel: ChannelId,
    /// The channel's name, for logs.
    pub channel_name: String,
    /// Another address of the same API, from the option `baseUrl`.
    pub base_url: Option<Url>,
    /// Where the provider can post receipts of this channel; none where the server does not know its public address.
    pub receipts_url: Option<Url>,
    /// The time limit of one attempt; the engine enforces it too.
    pub timeout: Duration,
    /// How often it may send, where its own options say so.
    pub rate: Option<Rate>,
    /// Whether the provider's mention syntax may fire.
    pub allow_mentions: bool,
    /// The way out: it keeps the channel's `allowNetworks`.
    pub http: http::HttpClient,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl ChannelContext {
    /// The time that one request of an attempt may take: a little less than the attempt itself, so that the plugin can
    /// still say what its time was lost on.
    pub fn request_timeout(&self) -> Duration {
        self.timeout.saturating_sub((self.timeout / 10).min(Duration::from_millis(250)))
    }
}

/// Why a channel could not be made although its configuration is valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InitError(pub String);

/// What a provider's plugin is.
pub trait ChannelPlugin: Channel + Sized {
    /// The name in `plugins.json`, and the `channelType`.
    const KIND: &'static str;
    /// Other names for it.
    const ALIASES: &'static [&'static str] = &[];
    /// What it does, as a short sentence.
    const ABOUT: &'static str;
    /// What it has to be told.
    const SETTINGS: &'static [Setting];
    /// How to get that from the provider, step by step, as Markdown.
    const STEPS: &'static [&'static str] = &[];
    /// Where there are several ways to the provider: the names of the settings that each of them needs. A channel is told
    /// all of one way and nothing of the others, so that none of these settings is `required`. An entry that names a
    /// variable or has an option for one way has chosen it; else what is found decides.
    const WAYS: &'static [&'static [&'static str]] = &[];
    /// What the provider takes.
    const LIMITS: Limits;
    /// How many attempts of one channel may be under way at once, unless the channel says else.
    const MAX_CONCURRENCY: u32 = 8;
    /// How often one channel may send, unless the channel says else.
    const RATE: Option<Rate> = None;
    /// The setting that is the channel's default target, where there is one: a name of [`Self::SETTINGS`].
    const TARGET: Option<&'static str> = None;
    /// Whether the provider recognises a repeated message by its id and makes no second one.
    const DEDUPES: bool = false;
    /// How the provider counts what all channels with the same credentials send, of whatever tenant; none where it does
    /// not, or where the plugin keeps account itself.
    const QUOTA: Option<Quota<Self::Config>> = None;
    /// Its settings and its own options, resolved: one object with the settings' names in camel case beside the
    /// options. Unknown fields are faults.
    type Config: DeserializeOwned + JsonSchema + Send + 'static;

    /// Finds what is wrong with a configuration, without a network. The places are names of settings and options.
    fn validate(config: &Self::Config, problems: &mut Problems);

    /// Makes the channel. A provider that is down is no reason to fail.
    fn initialize(
        config: Self::Config,
        context: ChannelContext,
    ) -> impl Future<Output = Result<Self, InitError>> + Send;
}

type Initialized = Pin<Box<dyn Future<Output = Result<Arc<dyn Channel>, InitError>> + Send>>;

/// A [`ChannelPlugin`] as a value, so that plugins stand in a table.
#[derive(Clone, Copy)]
pub struct Plugin {
    /// [`ChannelPlugin::KIND`]
    pub kind: &'static str,
    /// [`ChannelPlugin::ALIASES`]
    pub aliases: &'static [&'static str],
    /// [`ChannelPlugin::ABOUT`]
    pub about: &'static str,
    /// [`ChannelPlugin::SETTINGS`]
    pub settings: &'static [Setting],
    /// [`ChannelPlugin::STEPS`]
    pub steps: &'static [&'static str],
    /// [`ChannelPlugin::WAYS`]
    pub ways: &'static [&'static [&'static str]],
    /// [`ChannelPlugin::LIMITS`]
    pub limits: Limits,
    /// [`ChannelPlugin::MAX_CONCURRENCY`]
    pub max_concurrency: u32,
    /// [`ChannelPlugin::RATE`]
    pub rate: Option<Rate>,
    /// [`ChannelPlugin::TARGET`]
    pub target: Option<&'static str>,
    /// [`ChannelPlugin::DEDUPES`]
    pub dedupes: bool,
    /// What is known beforehand of [`ChannelPlugin::QUOTA`]; none where there is none.
    pub allowances: Option<&'static [Allowance]>,
    schema: fn() -> Value,
    validate: fn(Map<String, Value>, &mut Problems),
    initialize: fn(Map<String, Value>, ChannelContext) -> Initialized,
}

impl Plugin {
    /// The table's entry for a plugin.
    pub const fn of<P: ChannelPlugin>() -> Self {
        Self {
            kind: P::KIND,
            aliases: P::ALIASES,
            about: P::ABOUT,
            settings: P::SETTINGS,
            steps: P::STEPS,
            ways: P::WAYS,
            limits: P::LIMITS,
            max_concurrency: P::MAX_CONCURRENCY,
            rate: P::RATE,
            target: P::TARGET,
            dedupes: P::DEDUPES,
            allowances: match &P::QUOTA {
                Some(quota) => Some(quota.allowances()),
                None => None,
            },
            schema: || {
                schemars::generate::SchemaSettings::draft2020_12()
                    .into_generator()
                    .into_root_schema_for::<P::Config>()
                    .to_value()
            },
            validate: |values, problems| match serde_json::from_value::<P::Config>(Value::Object(values)) {
                Ok(config) => P::validate(&config, problems),
                Err(error) => problems.add("", error.to_string()),
            },
            initialize: |values, context| Box::pin(initialize::<P>(values, context)),
        }
    }

    /// Whether this is the plugin of that name, or has it as an alias.
    pub fn is_named(&self, name: &str) -> bool {
        self.kind == name || self.aliases.contains(&name)
    }

    /// The JSON Schema of its settings and options: an object whose `properties` are both, settings in camel case.
    pub fn schema(&self) -> Value {
        (self.schema)()
    }

    /// The default target that resolved settings name.
    pub fn target_in(&self, values: &Map<String, Value>) -> Option<String> {
        target_in(self.target, values)
    }

    /// Finds what is wrong with resolved settings and options.
    pub fn validate(&self, values: Map<String, Value>, problems: &mut Problems) {
        (self.validate)(values, problems);
    }

    /// Makes a channel from resolved settings and options.
    pub async fn initialize(
        &self,
        values: Map<String, Value>,
        context: ChannelContext,
    ) -> Result<Arc<dyn Channel>, InitError> {
        (self.initialize)(values, context).await
    }
}

fn target_in(setting: Option<&str>, values: &Map<String, Value>) -> Option<String> {
    values.get(&camel_case(setting?))?.as_str().map(str::to_owned)
}

async fn initialize<P: ChannelPlugin>(
    values: Map<String, Value>,
    context: ChannelContext,
) -> Result<Arc<dyn Channel>, InitError> {
    let target = target_in(P::TARGET, &values);
    let config = serde_json::from_value::<P::Config>(Value::Object(values));
    let config = config.map_err(|error| InitError(error.to_string()))?;
    let share = P::QUOTA.map(|quota| {
        let own_pace = context.rate.is_some();
        quota.share(P::KIND, context.base_url.as_ref(), &config, target, own_pace)
    });
    let channel = P::initialize(config, context).await?;
    Ok(match share {
        Some(share) => Arc::new(Counted { channel, share }),
        None => Arc::new(channel),
    })
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({})", self.kind)
    }
}

/// Every plugin of this build.
pub static PLUGINS: &[Plugin] = &[
    Plugin::of::<log::Log>(),
    Plugin::of::<webhook::Webhook>(),
    Plugin::of::<discord::Discord>(),
    Plugin::of::<discord::webhook::DiscordWebhook>(),
    Plugin::of::<email::Email>(),
    Plugin::of::<telegram::Telegram>(),
    Plugin::of::<matrix::Matrix>(),
    Plugin::of::<slack::Slack>(),
    Plugin::of::<mattermost::Mattermost>(),
    Plugin::of::<teams::Teams>(),
    Plugin::of::<google_chat::GoogleChat>(),
    Plugin::of::<sms::Sms>(),
    Plugin::of::<whatsapp::WhatsApp>(),
    Plugin::of::<fcm::Fcm>(),
    Plugin::of::<apns::Apns>(),
    Plugin::of::<ntfy::Ntfy>(),
    Plugin::of::<gotify::Gotify>(),
    Plugin::of::<pushover::Pushover>(),
];

/// The plugin of that name, or with that alias.
pub fn plugin<'a>(plugins: &'a [Plugin], name: &str) -> Option<&'a Plugin> {
    plugins.iter().find(|plugin| plugin.is_named(name))
}
