//! What one version of the configuration became: tenants, their keys, live channels. Immutable but for each channel's
//! [`Flow`].

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use conductor_channels::Plugin;
use conductor_core::callbacks::Subscriptions;
use conductor_core::{
    Channel, ChannelId, EndpointId, Health, Keep, Limits, Rate, Retention, RetryPolicy, Standing, TenantId,
};
use futures_util::FutureExt as _;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use url::Url;

use crate::config::sha256::sha256;
use crate::config::{Lasting, TenantConfig};
use crate::registry::endpoint::Endpoint;
use crate::registry::fingerprint::{ChannelPrints, Fingerprint};
use crate::registry::flow::Flow;
use crate::registry::limit::RequestLimit;
use crate::registry::plan::Version;

mod build;
pub mod endpoint;
pub mod fingerprint;
pub mod flow;
pub mod limit;
pub mod plan;

/// How long a channel may take to shut down.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// Tenants, keys and channels.
pub struct Registry {
    tenants: HashMap<TenantId, Arc<Tenant>>,
    keys: HashMap<KeyHash, TenantId>,
    admin: Option<KeyHash>,
    channels: HashMap<ChannelId, Arc<LiveChannel>>,
    endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    retention: Arc<Retention>,
    version: Version,
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
    pub requests: Option<Arc<RequestLimit>>,
    /// The most notifications that may wait.
    pub queued: Option<u64>,
    /// The most bytes that those may take, see [`conductor_core::Notification::bytes`].
    pub bytes: Option<u64>,
    /// Its channels in the order of the configuration.
    pub channels: Vec<Arc<LiveChannel>>,
    /// Where it hears of state changes, in the order of the configuration.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Of all that is said of it.
    print: Fingerprint,
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
    /// How it goes: of all versions of a channel the same.
    pub flow: Arc<Flow>,
    /// What was configured.
    pub prints: ChannelPrints,
    /// Who is using what sends. Closed when it is to be shut down.
    uses: TaskTracker,
}

/// A promise that what sends is not shut down as long as this lives.
pub struct InUse(#[expect(dead_code, reason = "it counts as long as it lives")] TaskTrackerToken);

impl Registry {
    /// The tenant that this key belongs to. Costs the same however many tenants there are.
    pub fn tenant_of_key(&self, key: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(self.keys.get(&sha256(key.as_bytes()))?)
    }

    /// Whether this is the operator's key. None where no such key is configured.
    pub fn is_admin_key(&self, key: &str) -> Option<bool> {
        self.admin.map(|admin| admin == sha256(key.as_bytes()))
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

    /// Which configuration this is.
    pub fn version(&self) -> &Version {
        &self.version
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
    /// Counts as a use of what sends, until it is dropped. None: it is being shut down, because another version of the
    /// configuration has taken its place.
    pub fn enter(&self) -> Option<InUse> {
        let token = self.uses.token();
        (!self.uses.is_closed()).then_some(InUse(token))
    }

    /// Lets nobody begin to use what sends, and waits until nobody does.
    pub async fn until_unused(&self) {
        self.uses.close();
        self.uses.wait().await;
    }

    /// How many are using what sends.
    pub fn users(&self) -> usize {
        self.uses.len()
    }

    /// Has it let go of its connections, for a limited time. To be called once, after its last use.
    pub async fn shut_down(&self) {
        let ended = AssertUnwindSafe(self.channel.shutdown()).catch_unwind();
        if !matches!(tokio::time::timeout(SHUTDOWN_MAX, ended).await, Ok(Ok(()))) {
            tracing::warn!(channel.id = %self.id, channel.name = %self.name, "The channel did not shut down");
        }
    }

    /// Whether both send through the same.
    pub fn shares_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.channel, &other.channel)
    }

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
