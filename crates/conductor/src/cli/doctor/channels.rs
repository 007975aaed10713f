//! The channels, each asked as it would be before a message.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use conductor_channels::http::HttpClients;
use conductor_core::receipts::{ReceiptError, ReceiptMethod, ReceiptRequest};
use conductor_core::{Channel, Clock, Health, TenantId};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::super::amounts::length;
use super::super::channel_test::{label, make};
use super::super::one_line;
use super::Finding;
use crate::config::{ChannelConfig, Configuration};

/// So many channels are asked at once.
const AT_ONCE: usize = 8;
/// The longest time for one channel, and for all of them.
const ONE_MAX: Duration = Duration::from_secs(10);
const ALL_MAX: Duration = Duration::from_secs(60);

/// What asking takes.
pub(super) struct Asked<'a> {
    pub(super) http: &'a HttpClients,
    pub(super) clock: &'a Arc<dyn Clock>,
    /// Whether providers may be asked.
    pub(super) is_online: bool,
    pub(super) public_url: Option<&'a Url>,
}

impl Asked<'_> {
    /// Looks at every channel, in the order of the configuration.
    pub(super) async fn look(&self, configuration: Configuration) -> Vec<Finding> {
        let Configuration { tenants, channels, .. } = configuration;
        let names: HashMap<TenantId, String> = tenants.into_iter().map(|tenant| (tenant.id, tenant.name)).collect();
        let end = Instant::now() + ALL_MAX;
        let look = |config: ChannelConfig| {
            let tenant = names.get(&config.tenant).cloned().unwrap_or_default();
            self.one(config, tenant, end)
        };
        let findings: Vec<Vec<Finding>> = stream::iter(channels).map(look).buffered(AT_ONCE).collect().await;
        let mut findings = findings.concat();
        if findings.is_empty() {
            findings.push(Finding::odd("there are none", "add one with `conductor channel add`"));
        }
        if !self.is_online {
            findings.push(Finding::good("no provider was asked (--offline)"));
        }
        findings
    }

    async fn one(&self, config: ChannelConfig, tenant: String, end: Instant) -> Vec<Finding> {
        let name = one_line(&config.name);
        let called = format!("{} of {}", label(&config), one_line(&tenant));
        let time = config.common.timeout.min(ONE_MAX);
        let begin = Instant::now();
        if begin >= end {
            return vec![Finding::odd(
                format!("{called}: not asked, because the others took {}", length(ALL_MAX)),
                format!("`conductor channel test {name}` asks it alone"),
            )];
        }
        let asked = async {
            let channel = match make(config, tenant, self.http, self.clock).await {
                Ok(channel) => channel,
                Err(error) => return (Err(error), false),
            };
            let health = if self.is_online { channel.health_check().await } else { Health::Unknown };
            let needs_address = needs_address(channel.as_ref());
            channel.shutdown().await;
            (Ok(health), needs_address)
        };
        let Ok((health, needs_address)) = timeout_at(end.min(begin + time), asked).await else {
            return vec![Finding::bad(
                format!("{called}: no answer within {} s", time.as_secs_f32()),
                "its provider is down, or this machine cannot reach it: look at the network, a proxy, a firewall",
            )];
        };
        let mut findings = vec![match health {
            Ok(Health::Up) => Finding::good(format!("{called}: up")),
            Ok(Health::Unknown) if self.is_online => {
                Finding::good(format!("{called}: its settings are good; it cannot be asked without a message"))
            }
            Ok(Health::Unknown) => Finding::good(format!("{called}: its settings are good")),
            Ok(Health::Down { reason }) => Finding::bad(
                format!("{called}: down: {}", one_line(&reason)),
                format!("mend its token or its target (docs/CHANNELS.md); `conductor channel test {name}` asks again"),
            ),
            Err(error) => Finding::bad(format!("{called}: it cannot be made: {error}"), "mend its settings"),
        }];
        if needs_address && self.public_url.is_none() {
            findings.push(Finding::odd(
                format!("{called}: whether a message arrived is never known, because PUBLIC_URL is not set"),
                "set it to the address at which the provider reaches this server",
            ));
        }
        findings
    }
}

/// Whether a channel takes receipts only where the server knows its public address.
fn needs_address(channel: &dyn Channel) -> bool {
    let takes = |url: Option<&str>| {
        let (query, headers, body) = (String::new(), BTreeMap::new(), Vec::new());
        let request = ReceiptRequest { method: ReceiptMethod::Post, url: url.map(str::to_owned), query, headers, body };
        channel.receipt(&request) != Err(ReceiptError::NotTaken)
    };
    takes(Some("https://conductor.example")) && !takes(None)
}
