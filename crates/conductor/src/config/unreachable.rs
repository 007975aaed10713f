//! Warnings of addresses that the egress guard will refuse: better told now than with the first message.
//!
//! No name is looked up for that, since a check needs no network; what it resolves to is judged when it is used.

use conductor_channels::http::refusal;
use conductor_channels::{Classic, Plugin, Setting};
use ipnet::IpNet;
use serde_json::{Map, Value};
use url::{Host, Url};

use super::document::{Document, push_segment};
use super::model::{CallbackConfig, CommonOptions};
use super::report::Report;

/// Looks at the addresses that a channel was told. Where it has a `baseUrl`, that is the one which counts.
pub(super) fn warn_of_channel(
    document: &Document<'_>,
    pointer: &str,
    entry: &Value,
    plugin: Plugin,
    common: &CommonOptions,
    values: &Map<String, Value>,
    report: &mut Report,
) {
    let allowed = &common.allow_networks;
    if let Some(host) = common.base_url.as_ref().and_then(Url::host) {
        return warn(document, &format!("{pointer}/options/baseUrl"), &host.to_owned(), allowed, report);
    }
    for setting in plugin.settings {
        let host = values.get(&setting.camel_case()).and_then(Value::as_str).and_then(|text| host(setting, text));
        if let Some(host) = host {
            warn(document, &place(pointer, entry, setting), &host, allowed, report);
        }
    }
}

/// The same of a tenant's callback.
pub(super) fn warn_of_callback(document: &Document<'_>, pointer: &str, callback: &CallbackConfig, report: &mut Report) {
    if let Some(host) = callback.url.host() {
        warn(document, &format!("{pointer}/url"), &host.to_owned(), &callback.allow_networks, report);
    }
}

fn warn(document: &Document<'_>, place: &str, host: &Host<String>, allowed: &[IpNet], report: &mut Report) {
    let Some(refusal) = refusal(host, allowed) else { return };
    let found = format!("nothing will be sent to this address: {} is {}", refusal.address, refusal.what);
    let fault = document.error(place, found).as_warning().expected("a public address, or one that is allowed");
    report.add(fault.help(format!("if that is meant, allow it: \"allowNetworks\": [\"{}\"]", refusal.network)));
}

/// The host in a setting that is an address: of a URL, or of a mail server.
fn host(setting: &Setting, text: &str) -> Option<Host<String>> {
    if setting.name == "HOST" {
        return Host::parse(text).ok();
    }
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    url.host().map(|host| host.to_owned())
}

/// Where the entry says what the setting is.
fn place(pointer: &str, entry: &Value, setting: &Setting) -> String {
    let name = setting.camel_case();
    let classic = setting.classic.map(|classic| match classic {
        Classic::Id => "providerIdEnvVar",
        Classic::Secret => "providerSecretEnvVar",
    });
    let is_there = |members: &[&str]| members.iter().try_fold(entry, |value, member| value.get(member)).is_some();
    let known = [Some(vec!["env", &name]), classic.map(|name| vec![name]), Some(vec!["options", &name])];
    let found = known.into_iter().flatten().find(|members| is_there(members));
    let mut place = pointer.to_owned();
    found.unwrap_or_else(|| vec!["channelType"]).iter().for_each(|member| push_segment(&mut place, member));
    place
}
