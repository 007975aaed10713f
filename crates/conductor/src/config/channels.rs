//! `channels.json`: which tenant uses which plugin, with which credentials and options.

use std::collections::HashMap;

use conductor_channels::Plugin;
use conductor_core::{ChannelId, OnUnknown, TenantId};
use serde_json::Value;

use super::document::Document;
use super::environment::Environment;
use super::hopeless::warn_of_rate;
use super::model::{ChannelConfig, CommonOptions};
use super::report::Report;
use super::resolve::{PluginShapes, Resolver};
use super::shape::{self, Shape, report_misfits};
use super::unreachable::warn_of_channel;
use super::values::{DELAY_NOTE, EXPIRES_AFTER, Reader, TIMEOUT};

/// The schemes that `baseUrl` may have.
const BASE_URL_SCHEMES: [&str; 2] = ["https", "http"];

/// What a channel may refer to. Where the file that says it could not be read, every reference passes.
pub(super) struct References<'a> {
    /// The ids of `tenants.json` with their places.
    pub(super) tenants: Option<&'a HashMap<TenantId, String>>,
    /// What each tenant may have waiting that has such a limit.
    pub(super) queued: HashMap<TenantId, u64>,
    /// The enabled plugins of `plugins.json`.
    pub(super) enabled: Option<&'a [Plugin]>,
    /// Every plugin of this build.
    pub(super) plugins: &'static [Plugin],
}

/// Reads the entries.
pub(super) fn read(
    document: &Document<'_>,
    entries: &[(String, &Value)],
    shape: &Shape,
    references: &References<'_>,
    environment: &Environment,
    report: &mut Report,
) -> Vec<ChannelConfig> {
    let mut channels = Vec::new();
    let mut ids = HashMap::new();
    let mut shapes = PluginShapes::default();
    for (pointer, entry) in entries {
        report_misfits(document, pointer, shape, entry, report);
        let tenant = read_tenant(document, pointer, entry, references, report);
        let plugin = read_plugin(document, pointer, entry, references, report);
        let queued = tenant.and_then(|tenant| references.queued.get(&tenant).copied());
        let common = read_common(&mut Reader { document, report }, pointer, entry, plugin, queued);
        let named = entry.get("channelName").and_then(Value::as_str);
        let name = named.or_else(|| entry.get("channelType").and_then(Value::as_str)).unwrap_or_default().to_owned();
        let id = read_id(document, pointer, entry, tenant, plugin, &name, &mut ids, report);
        let values = plugin.and_then(|plugin| {
            let resolver = Resolver { document, pointer, entry, plugin, tenant, name: &name, environment };
            resolver.resolve(&mut shapes, report)
        });
        if let (Some(id), Some(tenant), Some(plugin), Some(values)) = (id, tenant, plugin, values) {
            warn_of_channel(document, pointer, entry, plugin, &common, &values, report);
            channels.push(ChannelConfig { id, name, tenant, plugin, common, values });
        }
    }
    channels
}

fn read_tenant(
    document: &Document<'_>,
    pointer: &str,
    entry: &Value,
    references: &References<'_>,
    report: &mut Report,
) -> Option<TenantId> {
    let id: TenantId = entry.get("tenantId")?.as_str()?.parse().ok()?;
    if let Some(tenants) = references.tenants
        && !tenants.contains_key(&id)
    {
        let place = format!("{pointer}/tenantId");
        let fault = document.error(&place, format!("no tenant has the id {}", document.show(&place)));
        let fault = fault.expected("the id of a tenant of tenants.json");
        let known: Vec<String> = tenants.keys().map(TenantId::to_string).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let near = if known.len() == 1 { known.first().copied() } else { shape::nearest(&id.to_string(), &known) };
        report.add(match near {
            Some(near) => fault.help(format!("did you mean `{near}`?")),
            None => fault.help("`conductor tenant list` shows the tenants"),
        });
    }
    Some(id)
}

fn read_plugin(
    document: &Document<'_>,
    pointer: &str,
    entry: &Value,
    references: &References<'_>,
    report: &mut Report,
) -> Option<Plugin> {
    let name = entry.get("channelType")?.as_str()?;
    let place = format!("{pointer}/channelType");
    let Some(plugin) = conductor_channels::plugin(references.plugins, name) else {
        let names: Vec<&str> = references.plugins.iter().map(|plugin| plugin.kind).collect();
        let fault = document.error(&place, format!("there is no channel type {}", document.show(&place)));
        let fault = fault.expected(format!("one of {}", shape::list(&names)));
        report.add(match shape::nearest(name, &names) {
            Some(near) => fault.help(format!("did you mean `{near}`?")),
            None => fault.help("`conductor plugin list` tells what each type is for"),
        });
        return None;
    };
    let is_enabled = |enabled: &[Plugin]| enabled.iter().any(|enabled| enabled.kind == plugin.kind);
    if references.enabled.is_some_and(|enabled| !is_enabled(enabled)) {
        let found = format!("the plugin `{}` is not enabled", plugin.kind);
        let help = format!("write {{ \"name\": \"{}\", \"enabled\": true }} into plugins.json", plugin.kind);
        let fault = document.error(&place, found).expected("a type whose plugin is enabled in plugins.json");
        report.add(fault.help(help));
    }
    Some(*plugin)
}

/// Where each id stands, and whether it was derived.
type Ids = HashMap<ChannelId, (String, bool)>;

#[expect(clippy::too_many_arguments, reason = "an id depends on most of what an entry says")]
fn read_id(
    document: &Document<'_>,
    pointer: &str,
    entry: &Value,
    tenant: Option<TenantId>,
    plugin: Option<Plugin>,
    name: &str,
    ids: &mut Ids,
    report: &mut Report,
) -> Option<ChannelId> {
    let (id, derived) = match entry.get("channelId") {
        Some(id) => (id.as_str()?.parse().ok()?, false),
        None => (ChannelId::derive(tenant?, plugin?.kind, name), true),
    };
    let (first, first_derived) = ids.insert(id, (pointer.to_owned(), derived)).unwrap_or((String::new(), false));
    if first.is_empty() {
        return Some(id);
    }
    let line = document.line(&first);
    report.add(if derived && first_derived {
        let found = format!("two channels of one tenant and type have the name \"{name}\" and no `channelId`");
        let fault = document.error(pointer, found).expected("a name of its own for each, or a `channelId`");
        fault.help(format!("give one of the two another `channelName`; the other is in line {line}"))
    } else {
        let found = format!("the id {id} belongs to another channel already");
        let fault = document.error(&format!("{pointer}/channelId"), found).expected("an id of its own");
        fault.help(format!("give one of the two another id; the other is in line {line}"))
    });
    Some(id)
}

fn read_common(
    reader: &mut Reader<'_, '_>,
    pointer: &str,
    entry: &Value,
    plugin: Option<Plugin>,
    queued: Option<u64>,
) -> CommonOptions {
    let default = CommonOptions::default();
    let pointer = format!("{pointer}/options");
    let Some(options) = entry.get("options") else {
        warn_of_rate(reader, &pointer, plugin, &default, queued);
        return default;
    };
    let flag = |name: &str| options.get(name).and_then(Value::as_bool).unwrap_or(false);
    let on_unknown = match options.get("onUnknown").and_then(Value::as_str) {
        Some("hold") => OnUnknown::Hold,
        _ => OnUnknown::Retry,
    };
    let common = CommonOptions {
        base_url: reader.address(options, &pointer, "baseUrl", &BASE_URL_SCHEMES),
        allow_networks: reader.networks(options, &pointer, "allowNetworks"),
        timeout: reader.duration(options, &pointer, "timeout", &TIMEOUT).unwrap_or(default.timeout),
        max_concurrency: options.get("maxConcurrency").and_then(Value::as_u64).and_then(|most| most.try_into().ok()),
        rate: reader.rate(options, &pointer, "rate"),
        expires_after: reader
            .duration(options, &pointer, "expiresAfter", &EXPIRES_AFTER)
            .unwrap_or(default.expires_after),
        delay_note: reader.duration(options, &pointer, "delayNote", &DELAY_NOTE),
        ordered: flag("ordered"),
        on_unknown,
        allow_mentions: flag("allowMentions"),
    };
    warn_of_rate(reader, &pointer, plugin, &common, queued);
    common
}
