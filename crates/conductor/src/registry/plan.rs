//! What a new version of the configuration changes.

use std::collections::BTreeSet;
use std::fmt;

use conductor_core::{ChannelId, TenantId, Timestamp};
use serde::Serialize;

use super::{LiveChannel, Registry, Tenant};

/// So many names of each kind are told in a line of the log.
const NAMED_MAX: usize = 20;

/// Which configuration it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// 1 at the start of the process, and one more with each that was taken over.
    pub number: u64,
    /// A short hash of the three files, in hexadecimal digits.
    pub hash: String,
    /// When it was taken over.
    pub loaded_at: Timestamp,
}

/// What became of each tenant and channel from one configuration to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReloadPlan {
    /// What was not there before.
    pub added: Parts,
    /// What is there still, and not as it was.
    pub changed: Parts,
    /// What is there no more.
    pub removed: Parts,
    /// Whether the operator's key is another, or came, or went.
    pub operator_key: bool,
}

/// Tenants and channels, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// Tenants.
    pub tenants: Vec<TenantPart>,
    /// Channels.
    pub channels: Vec<ChannelPart>,
}

/// A tenant of a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantPart {
    /// Its id.
    pub tenant_id: TenantId,
    /// Its name; the old one where it was removed.
    pub tenant_name: String,
}

/// A channel of a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelPart {
    /// Whose it is, or was.
    pub tenant_id: TenantId,
    /// Its id.
    pub channel_id: ChannelId,
    /// Its name; the old one where it was removed.
    pub channel_name: String,
    /// Its type.
    pub channel_type: String,
}

impl ReloadPlan {
    /// From one version to the next.
    pub fn between(before: &Registry, after: &Registry) -> Self {
        let mut plan = Self { operator_key: before.admin != after.admin, ..Self::default() };
        for tenant in after.tenants.values() {
            match before.tenant(tenant.id) {
                None => plan.added.tenants.push(TenantPart::of(tenant)),
                Some(old) if old.print != tenant.print || reordered(old, tenant) => {
                    plan.changed.tenants.push(TenantPart::of(tenant));
                }
                Some(_) => {}
            }
        }
        let gone = before.tenants.values().filter(|tenant| after.tenant(tenant.id).is_none());
        plan.removed.tenants.extend(gone.map(|tenant| TenantPart::of(tenant)));
        for channel in after.channels.values() {
            match before.channel(channel.id) {
                None => plan.added.channels.push(ChannelPart::of(channel)),
                Some(old) if old.prints != channel.prints => plan.changed.channels.push(ChannelPart::of(channel)),
                Some(_) => {}
            }
        }
        let gone = before.channels.values().filter(|channel| after.channel(channel.id).is_none());
        plan.removed.channels.extend(gone.map(|channel| ChannelPart::of(channel)));
        for parts in [&mut plan.added, &mut plan.changed, &mut plan.removed] {
            parts.tenants.sort_unstable();
            parts.channels.sort_unstable();
        }
        plan
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The first of a type is the one that a caller means who names no other, so that their order counts.
fn reordered(before: &Tenant, after: &Tenant) -> bool {
    let ids = |tenant: &Tenant| tenant.channels.iter().map(|channel| channel.id).collect::<BTreeSet<_>>();
    let both: BTreeSet<ChannelId> = ids(before).intersection(&ids(after)).copied().collect();
    let order = |tenant: &Tenant| {
        let ids = tenant.channels.iter().map(|channel| channel.id);
        ids.filter(|id| both.contains(id)).collect::<Vec<_>>()
    };
    order(before) != order(after)
}

impl TenantPart {
    fn of(tenant: &Tenant) -> Self {
        Self { tenant_id: tenant.id, tenant_name: tenant.name.clone() }
    }
}

impl ChannelPart {
    fn of(channel: &LiveChannel) -> Self {
        Self {
            tenant_id: channel.tenant,
            channel_id: channel.id,
            channel_name: channel.name.clone(),
            channel_type: channel.kind.to_owned(),
        }
    }
}

/// In one line: `tenant "Acme", channel "alerts" (discord)`; a dash where there is nothing.
impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants = self.tenants.iter().map(|tenant| format!("tenant {:?}", tenant.tenant_name));
        let channel = |channel: &ChannelPart| format!("channel {:?} ({})", channel.channel_name, channel.channel_type);
        let channels = self.channels.iter().map(channel);
        let named: Vec<_> = tenants.take(NAMED_MAX).chain(channels.take(NAMED_MAX)).collect();
        if named.is_empty() {
            return f.write_str("-");
        }
        f.write_str(&named.join(", "))?;
        match self.tenants.len() + self.channels.len() - named.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
