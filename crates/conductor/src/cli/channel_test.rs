//! `conductor channel test`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use conductor_channels::http::HttpClients;
use conductor_channels::{ChannelContext, InitError};
use conductor_core::{
    Channel, Clock, DeliveryId, Format, Health, Message, NotificationId, Priority, Receipt, SendError, TenantId,
};
use serde_json::Map;

use super::{Ended, Failure, Session, choose_tenant, one_line, runtime, start};
use crate::config::first_run::new_id;
use crate::config::settings::Settings;
use crate::config::{self, ChannelConfig, Configuration};

const HELP: &str = "\
Example:
  conductor channel test alerts
  conductor channel test alerts --send

Makes the channel from the configuration, without the server, and asks its provider whether a message would \
go out; --send sends one that people see. Exit code 0: it would, or it did; 1: not; 2: the configuration is \
wrong. If it fails, it tells the provider's own words: mostly a wrong token or target.";

/// Nobody needs a trial message later than this.
const USEFUL_FOR: Duration = Duration::from_secs(60 * 60);

/// Which channel, and whether to send.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// The channel's name or id
    channel: String,
    /// The tenant's name or id, where several have a channel of that name
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Send a message that people see
    #[arg(long)]
    send: bool,
    /// The text to send
    #[arg(long, value_name = "TEXT", default_value = "A test message from Conductor", requires = "send")]
    message: String,
    /// The address within the provider, where it is not the channel's own
    #[arg(long, value_name = "ADDRESS", requires = "send")]
    target: Option<String>,
}

pub(super) fn run(arguments: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    let environment = session.environment(settings);
    let loaded = config::load(&settings.config_dir, &environment, session.plugins);
    let (configuration, _) = loaded.map_err(|report| {
        let folder = settings.config_dir.display();
        Failure::Refused(format!("the configuration in {folder} cannot be used\n\n{report}"))
    })?;
    let tenant = match &arguments.tenant {
        Some(wanted) => Some(choose_tenant(Some(wanted), settings)?.id),
        None => None,
    };
    let (config, tenant_name) = choose(configuration, &arguments.channel, tenant)?;
    start::install_logs(settings, session);
    let message = if arguments.send { Some(message(arguments, session)?) } else { None };
    let trial = Trial { config, tenant_name, message };
    let (ended, words) = runtime()?.block_on(trial.run(session))?;
    writeln!(session.out, "{words}")?;
    Ok(ended)
}

fn choose(
    configuration: Configuration,
    wanted: &str,
    tenant: Option<TenantId>,
) -> Result<(ChannelConfig, String), Failure> {
    let Configuration { tenants, mut channels, .. } = configuration;
    let name_of = |id: TenantId| tenants.iter().find(|tenant| tenant.id == id).map(|tenant| one_line(&tenant.name));
    let id = wanted.parse().ok();
    let is_wanted = |channel: &ChannelConfig| {
        let named = Some(channel.id) == id || channel.name == wanted;
        named && tenant.is_none_or(|tenant| channel.tenant == tenant)
    };
    let found: Vec<usize> = (0..channels.len()).filter(|index| is_wanted(&channels[*index])).collect();
    if let [only] = found.as_slice() {
        let config = channels.swap_remove(*only);
        let tenant = name_of(config.tenant).unwrap_or_default();
        return Ok((config, tenant));
    }
    let line = |channel: &ChannelConfig| {
        let tenant = name_of(channel.tenant).unwrap_or_default();
        format!("  {}  {} ({}) of {tenant}", channel.id, one_line(&channel.name), channel.plugin.kind)
    };
    let known: Vec<_> = channels.iter().map(line).collect();
    let what = if found.is_empty() { "there is no channel" } else { "several channels are called" };
    Err(Failure::Refused(format!("{what} {wanted:?}\n  help: name one by its id:\n{}", known.join("\n"))))
}

fn message(arguments: &Arguments, session: &Session<'_>) -> Result<Message, Failure> {
    let now = session.clock.now();
    let notification = NotificationId::new(new_id(now)?);
    Ok(Message {
        notification,
        delivery: DeliveryId::derive(notification, 0),
        ordinal: 0,
        attempt: 1,
        target: arguments.target.clone(),
        title: None,
        body: arguments.message.clone(),
        format: Format::Text,
        priority: Priority::Normal,
        data: Map::new(),
        metadata: BTreeMap::new(),
        accepted_at: now,
        expires_at: now.plus(USEFUL_FOR),
        key: None,
        part: 0,
        parts: 1,
        trace: None,
    })
}

/// How a channel is called in what is told of it.
pub(super) fn label(config: &ChannelConfig) -> String {
    format!("{} ({})", one_line(&config.name), config.plugin.kind)
}

/// Makes a channel to be tried out: nothing stands between its messages.
pub(super) async fn make(
    config: ChannelConfig,
    tenant_name: String,
    http: &HttpClients,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Channel>, InitError> {
    let ChannelConfig { id, name, tenant, plugin, common, values } = config;
    let context = ChannelContext {
        tenant,
        tenant_name,
        channel: id,
        channel_name: name,
        base_url: common.base_url,
        receipts_url: None,
        timeout: common.timeout,
        rate: common.rate,
        allow_mentions: common.allow_mentions,
        http: http.client(&common.allow_networks),
        clock: Arc::clone(clock),
    };
    plugin.initialize(values.into_inner(), context).await
}

struct Trial {
    config: ChannelConfig,
    tenant_name: String,
    message: Option<Message>,
}

impl Trial {
    async fn run(self, session: &Session<'_>) -> Result<(Ended, String), Failure> {
        let label = label(&self.config);
        let timeout = self.config.common.timeout;
        let channel = make(self.config, self.tenant_name, &HttpClients::new(), &session.clock).await;
        let channel = channel.map_err(|error| Failure::Failed(format!("{label} cannot be made: {error}")))?;
        let result = match &self.message {
            Some(message) => tokio::time::timeout(timeout, channel.send(message)).await.map(sent_in_words),
            None => tokio::time::timeout(timeout, health(channel.as_ref())).await,
        };
        channel.shutdown().await;
        let (ended, words) =
            result.unwrap_or_else(|_| (Ended::Badly, format!("no answer within {} s", timeout.as_secs_f32())));
        Ok((ended, format!("{label}: {words}")))
    }
}

async fn health(channel: &dyn Channel) -> (Ended, String) {
    match channel.health_check().await {
        Health::Up => (Ended::Well, "up".to_owned()),
        Health::Down { reason } => (Ended::Badly, format!("down: {}", one_line(&reason))),
        Health::Unknown => {
            (Ended::Well, "its settings are good; whether a message goes out only --send can tell".to_owned())
        }
    }
}

fn sent_in_words(result: Result<Receipt, SendError>) -> (Ended, String) {
    match result {
        Ok(Receipt { provider_id: Some(id) }) => {
            (Ended::Well, format!("sent; the provider calls it {}", one_line(&id)))
        }
        Ok(Receipt { provider_id: None }) => (Ended::Well, "sent".to_owned()),
        Err(error) => {
            let code = error.code.map(|code| format!(" ({})", one_line(&code))).unwrap_or_default();
            (Ended::Badly, format!("not sent, {}{code}: {}", error.kind.outcome().as_str(), one_line(&error.message)))
        }
    }
}
