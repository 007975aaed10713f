//! What a valid configuration says, with every variable resolved.

use std::time::Duration;

use conductor_channels::Plugin;
use conductor_core::callbacks::EventSet;
use conductor_core::{ChannelId, Keep, OnUnknown, Rate, Secret, SecretValues, TenantId};
use ipnet::IpNet;
use url::Url;

use super::readings::Readings;
use crate::telemetry::otlp;

/// Everything that the three files and the environment say. Nothing in it can be wrong any more.
pub struct Configuration {
    /// In the order of `tenants.json`.
    pub tenants: Vec<TenantConfig>,
    /// In the order of `channels.json`: a tenant's first of a type is the one that `channel` alone names.
    pub channels: Vec<ChannelConfig>,
    /// The enabled plugins, in the order of `plugins.json`.
    pub plugins: Vec<Plugin>,
    /// `CONDUCTOR_ADMIN_KEY`, where it is set.
    pub admin_key: Option<Secret>,
    /// How long ended notifications are kept of tenants that do not say. The files do not: `RETENTION` does.
    pub keep: Keep,
    /// What is exported over OTLP, as the `OTEL_*` variables say.
    pub otlp: Option<otlp::Settings>,
    /// The files that it came from, and what they held.
    pub readings: Readings,
    /// A short hash of the three files, in hexadecimal digits.
    pub hash: String,
}

/// A customer of this server.
pub struct TenantConfig {
    /// `id`
    pub id: TenantId,
    /// `name`
    pub name: String,
    /// `authKeyEnvVar`: the variable that holds the key.
    pub key_variable: String,
    /// The key, and the one in `<authKeyEnvVar>_NEXT` where that is set.
    pub keys: Vec<Secret>,
    /// `weight`: its share when tenants take turns; 1 by default.
    pub weight: u32,
    /// `rateLimit.requests`
    pub requests: Option<Rate>,
    /// `rateLimit.queued`: the most notifications that may wait.
    pub queued: Option<u64>,
    /// `rateLimit.bytes`: the most bytes that those may take.
    pub bytes: Option<u64>,
    /// `callbacks`
    pub callbacks: Vec<CallbackConfig>,
    /// `retention`: how long ended notifications are kept; none means as `RETENTION` says.
    pub retention: Option<Lasting>,
    /// `redactAfter`: how long their content is kept; none means as long as the rest.
    pub redact_after: Option<Duration>,
}

/// How long something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// For so long.
    For(Duration),
    /// `forever`
    Forever,
}

impl Lasting {
    /// How long; none means for ever.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::For(duration) => Some(duration),
            Self::Forever => None,
        }
    }
}

/// Where a tenant wants to hear of state changes.
#[derive(Debug, Clone)]
pub struct CallbackConfig {
    /// `url`
    pub url: Url,
    /// What `secretEnvVar` holds, and what the variable of the same name with `_NEXT` holds; at least one.
    pub secrets: Vec<Secret>,
    /// `events`; an empty list means all.
    pub events: EventSet,
    /// `allowNetworks`
    pub allow_networks: Vec<IpNet>,
}

/// A tenant's configured use of a plugin.
pub struct ChannelConfig {
    /// `channelId`, or derived.
    pub id: ChannelId,
    /// `channelName`, or the type's name.
    pub name: String,
    /// `tenantId`
    pub tenant: TenantId,
    /// `channelType`, found among the enabled plugins.
    pub plugin: Plugin,
    /// The options that every channel takes.
    pub common: CommonOptions,
    /// The plugin's settings (camel case) and own options, resolved. It holds secrets: never print it.
    pub values: SecretValues,
}

/// The options that every channel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonOptions {
    /// `baseUrl`
    pub base_url: Option<Url>,
    /// `allowNetworks`
    pub allow_networks: Vec<IpNet>,
    /// `timeout`: for one attempt.
    pub timeout: Duration,
    /// `maxConcurrency`: attempts under way at once; none means the plugin's.
    pub max_concurrency: Option<u32>,
    /// `rate`: sends; none means the plugin's.
    pub rate: Option<Rate>,
    /// `expiresAfter`
    pub expires_after: Duration,
    /// `delayNote`: a text that is later than this says so; none means that none does.
    pub delay_note: Option<Duration>,
    /// `ordered`
    pub ordered: bool,
    /// `onUnknown`
    pub on_unknown: OnUnknown,
    /// `allowMentions`
    pub allow_mentions: bool,
}

impl Default for CommonOptions {
    fn default() -> Self {
        Self {
            base_url: None,
            allow_networks: Vec::new(),
            timeout: Duration::from_secs(30),
            max_concurrency: None,
            rate: None,
            expires_after: Duration::from_secs(24 * 60 * 60),
            delay_note: None,
            ordered: false,
            on_unknown: OnUnknown::default(),
            allow_mentions: false,
        }
    }
}
