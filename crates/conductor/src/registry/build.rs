//! From a valid configuration to what serves, with as much as possible of what serves already.

use std::collections::HashMap;
use std::sync::Arc;

use conductor_channels::ChannelContext;
use conductor_channels::http::{HttpClients, below};
use conductor_core::{ChannelId, Clock, RetryPolicy, TenantId};
use tokio_util::task::TaskTracker;
use url::Url;

use super::endpoint::Endpoint;
use super::fingerprint::{self, ChannelPrints};
use super::limit::RequestLimit;
use super::plan::Version;
use super::{LiveChannel, Registry, Tenant, retention};
use crate::config::sha256::sha256;
use crate::config::{ChannelConfig, Configuration, TenantConfig};

/// What channels are made with.
struct Surroundings<'a> {
    http: &'a HttpClients,
    clock: &'a Arc<dyn Clock>,
    /// Where providers reach this server.
    public_url: Option<&'a Url>,
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
        Self::build_after(None, configuration, http, clock, public_url).await
    }

    /// The same, with every channel and limit of the version before that is configured as it was.
    pub async fn build_after(
        before: Option<&Self>,
        configuration: Configuration,
        http: &HttpClients,
        clock: &Arc<dyn Clock>,
        public_url: Option<&Url>,
    ) -> Result<Self, anyhow::Error> {
        let surroundings = Surroundings { http, clock, public_url };
        let names: HashMap<TenantId, &str> =
            configuration.tenants.iter().map(|tenant| (tenant.id, tenant.name.as_str())).collect();
        let mut channels: HashMap<TenantId, Vec<Arc<LiveChannel>>> = HashMap::new();
        for config in configuration.channels {
            let tenant_name = names.get(&config.tenant).copied().unwrap_or_default();
            let old = before.and_then(|before| before.channel(config.id));
            let live = surroundings.channel(old, config, tenant_name).await?;
            channels.entry(live.tenant).or_default().push(live);
        }
        let version = Version {
            number: before.map_or(1, |before| before.version.number + 1),
            hash: configuration.hash,
            loaded_at: clock.now(),
        };
        let mut registry = Self {
            tenants: HashMap::new(),
            keys: HashMap::new(),
            admin: configuration.admin_key.map(|key| sha256(key.expose().as_bytes())),
            channels: HashMap::new(),
            endpoints: HashMap::new(),
            retention: Arc::new(retention(configuration.keep, &configuration.tenants)),
            version,
        };
        for tenant in configuration.tenants {
            let channels = channels.remove(&tenant.id).unwrap_or_default();
            let endpoints = tenant.callbacks.iter().map(|each| Endpoint::new(tenant.id, each, http).map(Arc::new));
            let endpoints = endpoints.collect::<Result<_, _>>()?;
            let old = before.and_then(|before| before.tenant(tenant.id));
            registry.add(tenant, channels, endpoints, old.map(Arc::as_ref));
        }
        Ok(registry)
    }

    fn add(
        &mut self,
        config: TenantConfig,
        channels: Vec<Arc<LiveChannel>>,
        endpoints: Vec<Arc<Endpoint>>,
        old: Option<&Tenant>,
    ) {
        let print = fingerprint::of_tenant(&config);
        let TenantConfig { id, name, keys, weight, requests, queued, bytes, .. } = config;
        self.keys.extend(keys.iter().map(|key| (sha256(key.expose().as_bytes()), id)));
        self.channels.extend(channels.iter().map(|channel| (channel.id, Arc::clone(channel))));
        self.endpoints.extend(endpoints.iter().map(|endpoint| (endpoint.id, Arc::clone(endpoint))));
        // What is used up of a limit stays used up.
        let old = old.and_then(|old| old.requests.as_ref());
        let requests = requests.map(|rate| match old {
            Some(limit) if limit.rate == rate => Arc::clone(limit),
            _ => Arc::new(RequestLimit::new(rate)),
        });
        let tenant = Tenant { id, name, weight, requests, queued, bytes, channels, endpoints, print };
        self.tenants.insert(id, Arc::new(tenant));
    }

    /// Opens the channels whose connections the version before does not have.
    pub fn open_channels(&self, before: Option<&Self>) {
        let is_open = |channel: &LiveChannel| {
            before.and_then(|before| before.channel(channel.id)).is_some_and(|old| old.shares_connection(channel))
        };
        for channel in self.channels.values().filter(|channel| !is_open(channel)) {
            channel.channel.open();
        }
    }

    /// The channels whose connections the next version does not have.
    pub fn left_behind_by(&self, next: &Self) -> Vec<Arc<LiveChannel>> {
        let goes_on =
            |id: ChannelId, channel: &LiveChannel| next.channel(id).is_some_and(|next| next.shares_connection(channel));
        self.channels.iter().filter(|(id, channel)| !goes_on(**id, channel)).map(|(_, old)| Arc::clone(old)).collect()
    }
}

impl Surroundings<'_> {
    /// The old channel where it is configured the same; another with the old one's connection where the plugin is told
    /// the same; else a new one.
    async fn channel(
        &self,
        old: Option<&Arc<LiveChannel>>,
        config: ChannelConfig,
        tenant_name: &str,
    ) -> Result<Arc<LiveChannel>, anyhow::Error> {
        let receipts_url = self.public_url.map(|public| below(public, &format!("/receipts/{}", config.id)));
        let prints = ChannelPrints::of(&config, tenant_name, receipts_url.as_ref());
        if let Some(old) = old.filter(|old| old.prints.whole == prints.whole) {
            return Ok(Arc::clone(old));
        }
        let ChannelConfig { id, name, tenant, plugin, common, values } = config;
        let target = plugin.target_in(&values);
        let kept = old.filter(|old| old.prints.connection == prints.connection);
        let (channel, uses) = match kept {
            Some(old) => (Arc::clone(&old.channel), old.uses.clone()),
            None => {
                let context = ChannelContext {
                    tenant,
                    tenant_name: tenant_name.to_owned(),
                    channel: id,
                    channel_name: name.clone(),
                    base_url: common.base_url,
                    receipts_url: receipts_url.clone(),
                    timeout: common.timeout,
                    rate: common.rate,
                    allow_mentions: common.allow_mentions,
                    http: self.http.client(&common.allow_networks),
                    clock: Arc::clone(self.clock),
                };
                let channel = plugin.initialize(values.into_inner(), context).await;
                let named = |error| anyhow::anyhow!("channel \"{name}\" ({}): {error}", plugin.kind);
                (channel.map_err(named)?, TaskTracker::new())
            }
        };
        let flow = old.filter(|old| old.tenant == tenant).map(|old| Arc::clone(&old.flow)).unwrap_or_default();
        Ok(Arc::new(LiveChannel {
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
            flow,
            prints,
            uses,
        }))
    }
}
