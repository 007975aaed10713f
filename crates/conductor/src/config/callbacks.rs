//! A tenant's `callbacks`: where it hears of state changes, and what signs them.

use conductor_core::Secret;
use conductor_core::callbacks::{Event, EventSet};
use conductor_core::signature::SigningKey;
use serde_json::Value;

use super::environment::Environment;
use super::model::CallbackConfig;
use super::tenants::NEXT_SUFFIX;
use super::unreachable::warn_of_callback;
use super::values::Reader;
use super::variables::{self, NotHeld};
use super::visible::is_variable_name;

/// Reads the entries of one tenant.
pub(super) fn read_callbacks(
    reader: &mut Reader<'_, '_>,
    pointer: &str,
    entry: &Value,
    environment: &Environment,
) -> Vec<CallbackConfig> {
    let mut callbacks: Vec<CallbackConfig> = Vec::new();
    let entries = entry.get("callbacks").and_then(Value::as_array);
    for (index, entry) in entries.into_iter().flatten().enumerate() {
        let pointer = format!("{pointer}/callbacks/{index}");
        let url = reader.address(entry, &pointer, "url", &["https", "http"]);
        let secrets = read_secrets(reader, &pointer, entry, environment);
        let allow_networks = reader.networks(entry, &pointer, "allowNetworks");
        let events = entry.get("events").and_then(Value::as_array).into_iter().flatten();
        let events: EventSet = events.filter_map(|event| event.as_str()?.parse::<Event>().ok()).collect();
        let events = if events == EventSet::default() { EventSet::all() } else { events };
        let (Some(url), false) = (url, secrets.is_empty()) else { continue };
        if callbacks.iter().any(|earlier| earlier.url == url) {
            let fault =
                reader.document.error(&format!("{pointer}/url"), "another callback of this tenant has this URL");
            let fault = fault.expected("one entry for each URL");
            reader.report.add(fault.help("put the events of both into one entry, and remove the other"));
            continue;
        }
        let callback = CallbackConfig { url, secrets, events, allow_networks };
        warn_of_callback(reader.document, &pointer, &callback, reader.report);
        callbacks.push(callback);
    }
    callbacks
}

const EXPECTED: &str =
    "what signs the callbacks: whsec_ and base64 of 24 to 64 bytes, or whsk_ and base64 of an ed25519 key";

/// The secret that signs, and the one that is to follow it where there is such a one.
fn read_secrets(reader: &mut Reader<'_, '_>, pointer: &str, entry: &Value, environment: &Environment) -> Vec<Secret> {
    let variable = entry.get("secretEnvVar").and_then(Value::as_str).filter(|name| is_variable_name(name));
    let Some(variable) = variable else { return Vec::new() };
    let place = format!("{pointer}/secretEnvVar");
    let (document, names) = (reader.document, [variable.to_owned()]);
    let mut found = Vec::new();
    match variables::find(&names, environment, document, &place, reader.report) {
        Ok(held) => found.push(held),
        Err(NotHeld::Missing) => {
            let fault = variables::missing(&names, variable, EXPECTED, environment, document, &place);
            reader.report.add(fault);
        }
        Err(NotHeld::Reported) => {}
    }
    let next = [format!("{variable}{NEXT_SUFFIX}")];
    found.extend(variables::find(&next, environment, document, &place, reader.report));
    for held in &found {
        if let Err(error) = SigningKey::parse(&held.value) {
            let found = format!("the secret in {} {error}", variables::shown(&held.name));
            let help = "`echo whsec_$(openssl rand -base64 32)` makes a good one";
            reader.report.add(document.error(&place, found).expected(EXPECTED).help(help));
        }
    }
    found.into_iter().map(|held| held.value).collect()
}
