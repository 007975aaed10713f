//! What one version of the configuration became: tenants, their keys, live channels. Immutable but for each channel's
//! [`Flow`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use conductor_channels::http::{HttpClients, below};
use conductor_channels::{ChannelContext, Plugin};
use conductor_core::callbacks::Subscriptions;
use conductor_core::{
    Channel, ChannelId, Clock, EndpointId, Health, Keep, Limits, Rate, Retention, RetryPolicy, Standing, TenantId,
};
use ring::digest::{SHA256, digest};
use url::Url;

use crate::config::{ChannelConfig, Configuration, Lasting, TenantConfig};
use crate::registry::endpoint::Endpoint;
use crate::registry::flow::Flow;
use crate::registry::limit::RequestLimit;

pub mod endpoint;
pub mod flow;
pub mod limit;

/// Tenants, keys and channels.
pub struct Registry {
    tenants: HashMap<TenantId, Arc<Tenant>>,
    keys: HashMap<KeyHash, TenantId>,
    admin: Option<KeyHash>,
    channels: HashMap<ChannelId, Arc<LiveChannel>>,
    endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    retention: Arc<Retention>,
}

/// SHA-256 of a key. Keys are looked up by it, so that the time of a look-up says nothing about a key.
type KeyHash = [u8; 32];

/// A customer of this server.
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Its share when tenants take turns.
    pub weight: u32,
    /// How often it may ask.
    pub requests: Option<RequestLimit>,
    /// The most notifications that may wait.
    pub queued: Option<u64>,
    /// Its channels in the order of the configuration.
    pub channels: Vec<Arc<LiveChannel>>,
    /// Where it hears of state changes, in the order of the configuration.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// A configured channel with its plugin's live connection.
pub struct LiveChannel {
    /// Its id.
    pub id: ChannelId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// The plugin's name: the channel's type.
    pub kind: &'static str,
    /// How it retries.
    pub policy: RetryPolicy,
    /// How old a notification may become.
    pub expires_after: Duration,
    /// The time limit of one attempt.
    pub timeout: Duration,
    /// Attempts under way at once.
    pub max_concurrency: u32,
    /// How often it may send.
    pub rate: Option<Rate>,
    /// Whether a failing delivery holds back those behind it.
    pub ordered: bool,
    /// What its provider takes.
    pub limits: Limits,
    /// A text that is later than this says so.
    pub delay_note: Option<Duration>,
    /// Where it sends to unless a notification says else, where the plugin has such a default.
    pub target: Option<String>,
    /// What sends.
    pub channel: Arc<dyn Channel>,
    /// Where its provider can post receipts, as the provider sees it; none without `PUBLIC_URL`.
    pub receipts_url: Option<Url>,
    /// How it goes.
    pub flow: Flow,
}

impl Registry {
    /// Makes every channel. One that cannot be made is an error that names it. `public_url` is where providers reach
    /// this server.
    pub async fn build(
        configuration: Configuration,
        http: &HttpClients,
        clock: &Arc<dyn Clock>,
        public_url: Option<&Url>,
    ) -> Result<Self, anyhow::Error> {
        let mut channels: HashMap<TenantId, Vec<Arc<LiveChannel>>> = HashMap::new();
        for config in configuration.channels {
            let tenant = configuration.tenants.iter().find(|tenant| tenant.id == config.tenant);
            let tenant_name = tenant.map(|tenant| tenant.name.clone()).unwrap_or_default();
            let live = Arc::new(initialize(config, tenant_name, http, clock, public_url).await?);
            channels.entry(live.tenant).or_default().push(live);
        }
        let admin = configuration.admin_key.map(|key| hash(key.expose()));
        let retention = Arc::new(retention(configuration.keep, &configuration.tenants));
        let (tenants, keys) = (HashMap::new(), HashMap::new());
        let (channels_by_id, endpoints) = (HashMap::new(), HashMap::new());
        let mut registry = Self { tenants, keys, admin, channels: channels_by_id, endpoints, retention };
        for tenant in configuration.tenants {
            let channels = channels.remove(&tenant.id).unwrap_or_default();
            let endpoints = tenant.callbacks.iter().map(|each| Endpoint::new(tenant.id, each, http).map(Arc::new));
            let endpoints = endpoints.collect::<Result<_, _>>()?;
            registry.add(tenant, channels, endpoints);
        }
        Ok(registry)
    }

    fn add(&mut self, config: TenantConfig, channels: Vec<Arc<LiveChannel>>, endpoints: Vec<Arc<Endpoint>>) {
        let TenantConfig { id, name, keys, weight, requests, queued, .. } = config;
        self.keys.extend(keys.iter().map(|key| (hash(key.expose()), id)));
        self.channels.extend(channels.iter().map(|channel| (channel.id, Arc::clone(channel))));
        self.endpoints.extend(endpoints.iter().map(|endpoint| (endpoint.id, Arc::clone(endpoint))));
        let requests = requests.map(RequestLimit::new);
        self.tenants.insert(id, Arc::new(Tenant { id, name, weight, requests, queued, channels, endpoints }));
    }

    /// The tenant that this key belongs to. Costs the same however many tenants there are.
    pub fn tenant_of_key(&self, key: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(self.keys.get(&hash(key))?)
    }

    /// Whether this is the operator's key. None where no such key is configured.
    pub fn is_admin_key(&self, key: &str) -> Option<bool> {
        self.admin.map(|admin| admin == hash(key))
    }

    /// A tenant.
    pub fn tenant(&self, id: TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(&id)
    }

    /// All tenants, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// Each tenant with the types of its channels.
    pub fn channel_types(&self) -> impl Iterator<Item = (TenantId, BTreeSet<&'static str>)> {
        let types = |tenant: &Tenant| tenant.channels.iter().map(|channel| channel.kind).collect();
        self.tenants.values().map(move |tenant| (tenant.id, types(tenant)))
    }

    /// A channel, whoever it belongs to: for the dispatcher.
    pub fn channel(&self, id: ChannelId) -> Option<&Arc<LiveChannel>> {
        self.channels.get(&id)
    }

    /// Where a tenant hears of state changes: for those who post there.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id)
    }

    /// Who wants to hear what.
    pub fn subscriptions(&self) -> Subscriptions {
        let mut subscriptions = Subscriptions::default();
        self.endpoints.values().for_each(|endpoint| subscriptions.add(endpoint.tenant, endpoint.subscription()));
        subscriptions
    }

    /// How long ended notifications are kept.
    pub fn retention(&self) -> &Arc<Retention> {
        &self.retention
    }

    /// All channels, in no order.
    pub fn channels(&self) -> impl Iterator<Item = &Arc<LiveChannel>> {
        self.channels.values()
    }
}

impl LiveChannel {
    /// What holds it up, if anything: what its attempts came to and, where those have nothing against it, how the
    /// connection that stands between them is doing.
    pub fn state(&self) -> flow::State {
        let state = self.flow.state();
        match self.channel.standing() {
            Some(Standing { health: health @ Health::Down { .. }, since }) if !state.health.is_down() => {
                flow::State { health, since, ..state }
            }
            Some(Standing { health, since }) if state.health == Health::Unknown => {
                flow::State { health, since, ..state }
            }
            _ => state,
        }
    }
}

impl Tenant {
    /// One of its channels.
    pub fn channel(&self, id: ChannelId) -> Option<&Arc<LiveChannel>> {
        self.channels.iter().find(|channel| channel.id == id)
    }

    /// Its first channel of a type, or of a type's alias.
    pub fn channel_of_type(&self, plugins: &[Plugin], name: &str) -> Option<&Arc<LiveChannel>> {
        let kind = conductor_channels::plugin(plugins, name)?.kind;
        self.channels.iter().find(|channel| channel.kind == kind)
    }
}

/// `others` is for tenants that do not say, or are configured no more.
fn retention(others: Keep, tenants: &[TenantConfig]) -> Retention {
    let keep = |tenant: &TenantConfig| {
        let whole = tenant.retention.map_or(others.whole, Lasting::duration);
        (tenant.id, Keep { whole, content: tenant.redact_after.or(others.content) })
    };
    Retention { others, tenants: tenants.iter().map(keep).collect() }
}

fn hash(key: &str) -> KeyHash {
    let digest = digest(&SHA256, key.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

async fn initialize(
    config: ChannelConfig,
    tenant_name: String,
    http: &HttpClients,
    clock: &Arc<dyn Clock>,
    public_url: Option<&Url>,
) -> Result<LiveChannel, anyhow::Error> {
    let ChannelConfig { id, name, tenant, plugin, common, values } = config;
    let receipts_url = public_url.map(|public| below(public, &format!("/receipts/{id}")));
    let context = ChannelContext {
        tenant,
        tenant_name,
        channel: id,
        channel_name: name.clone(),
        base_url: common.base_url,
        receipts_url: receipts_url.clone(),
        timeout: common.timeout,
        allow_mentions: common.allow_mentions,
        http: http.client(&common.allow_networks),
        clock: Arc::clone(clock),
    };
    let target = plugin.target_in(&values);
    let channel = plugin.initialize(values, context).await;
    let channel = channel.map_err(|error| anyhow::anyhow!("channel \"{name}\" ({}): {error}", plugin.kind))?;
    channel.open();
    Ok(LiveChannel {
        id,
        name,
        tenant,
        kind: plugin.kind,
        policy: RetryPolicy { provider_dedupes: plugin.dedupes, on_unknown: common.on_unknown },
        expires_after: common.expires_after,
        timeout: common.timeout,
        max_concurrency: common.max_concurrency.unwrap_or(plugin.max_concurrency).max(1),
        rate: common.rate.or(plugin.rate),
        ordered: common.ordered,
        limits: plugin.limits,
        delay_note: common.delay_note,
        target,
        channel,
        receipts_url,
        flow: Flow::default(),
    })
}
