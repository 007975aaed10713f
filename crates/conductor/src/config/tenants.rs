//! `tenants.json`: who may use this server, and with which keys.

use std::collections::{BTreeSet, HashMap};

use conductor_core::{Secret, TenantId};
use serde_json::Value;

use super::callbacks::read_callbacks;
use super::document::Document;
use super::environment::{Environment, Lookup};
use super::hopeless::warn_of_room;
use super::model::{Lasting, TenantConfig};
use super::report::{Fault, Report};
use super::sha256::sha256;
use super::shape::{Shape, report_misfits};
use super::values::{KEPT, Reader};
use super::variables::{self, NotHeld};
use super::visible::is_variable_name;

/// The variable that holds the operator's own key.
pub const ADMIN_KEY_VARIABLE: &str = "CONDUCTOR_ADMIN_KEY";
/// What the name of a tenant's second key's variable ends with.
pub const NEXT_SUFFIX: &str = "_NEXT";
/// The fewest characters of a key that is not called weak.
pub const KEY_MIN_CHARS: usize = 32;
/// The fewest different characters of a key that is not called weak.
pub const KEY_MIN_DISTINCT: usize = 8;
/// The most characters of a key: more do not fit into a request's header.
pub(super) const KEY_MAX_CHARS: usize = 4096;

const KEY_HELP: &str = "`openssl rand -hex 32` makes a good key";

/// The tenants as far as they are right, and the ids of all that have one.
#[derive(Default)]
pub(super) struct Tenants {
    pub(super) list: Vec<TenantConfig>,
    pub(super) ids: HashMap<TenantId, String>,
}

impl Tenants {
    /// How many notifications may wait, of each tenant that has such a limit.
    pub(super) fn queued(&self) -> impl Iterator<Item = (TenantId, u64)> {
        self.list.iter().filter_map(|tenant| Some((tenant.id, tenant.queued?)))
    }
}

/// Reads the entries.
pub(super) fn read(
    document: &Document<'_>,
    entries: &[(String, &Value)],
    shape: &Shape,
    admin_key: Option<&Secret>,
    environment: &Environment,
    report: &mut Report,
) -> Tenants {
    let mut tenants = Tenants::default();
    let mut keys = Keys { owners: HashMap::new(), admin_key };
    for (pointer, entry) in entries {
        report_misfits(document, pointer, shape, entry, report);
        let id = entry.get("id").and_then(Value::as_str).and_then(|id| id.parse::<TenantId>().ok());
        if let Some(id) = id
            && let Some(first) = tenants.ids.insert(id, pointer.clone())
        {
            let found = format!("the id {id} belongs to another tenant already");
            let help = format!("give one of the two another id; the other is in line {}", document.line(&first));
            report.add(document.error(&format!("{pointer}/id"), found).expected("an id of its own").help(help));
        }
        let secrets = read_keys(document, pointer, entry, &mut keys, environment, report);
        let mut reader = Reader { document, report };
        let limits = entry.get("rateLimit").unwrap_or(&Value::Null);
        let requests = reader.rate(limits, &format!("{pointer}/rateLimit"), "requests");
        let [queued, bytes] = ["queued", "bytes"].map(|name| limits.get(name).and_then(Value::as_u64));
        warn_of_room(&mut reader, &format!("{pointer}/rateLimit"), queued, bytes);
        let callbacks = read_callbacks(&mut reader, pointer, entry, environment);
        let (retention, redact_after) = read_retention(&mut reader, pointer, entry);
        let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
        if let (Some(id), Some(name), Some(key_variable)) = (id, text("name"), text("authKeyEnvVar")) {
            tenants.list.push(TenantConfig {
                id,
                name,
                key_variable,
                keys: secrets,
                weight: entry
                    .get("weight")
                    .and_then(Value::as_u64)
                    .and_then(|weight| weight.try_into().ok())
                    .unwrap_or(1),
                requests,
                queued,
                bytes,
                callbacks,
                retention,
                redact_after,
            });
        }
    }
    tenants
}

/// Which tenant each key belongs to.
struct Keys<'a> {
    owners: HashMap<[u8; 32], (String, String)>,
    admin_key: Option<&'a Secret>,
}

fn read_keys(
    document: &Document<'_>,
    pointer: &str,
    entry: &Value,
    keys: &mut Keys<'_>,
    environment: &Environment,
    report: &mut Report,
) -> Vec<Secret> {
    let Some(variable) = entry.get("authKeyEnvVar").and_then(Value::as_str).filter(|name| is_variable_name(name))
    else {
        return Vec::new();
    };
    let place = format!("{pointer}/authKeyEnvVar");
    let tenant = entry.get("name").and_then(Value::as_str).unwrap_or("without a name");
    let names = [variable.to_owned()];
    let mut secrets = Vec::new();
    match variables::find(&names, environment, document, &place, report) {
        Ok(held) => secrets.push((held.name, held.value)),
        Err(NotHeld::Missing) => {
            let expected = format!("the API key of the tenant \"{tenant}\"; {KEY_HELP}");
            report.add(variables::missing(&names, variable, &expected, environment, document, &place));
        }
        Err(NotHeld::Reported) => {}
    }
    // Most of the time there is no second key, so that an empty variable is none too.
    if let Ok(held) = variables::find(&[format!("{variable}{NEXT_SUFFIX}")], environment, document, &place, report) {
        secrets.push((held.name, held.value));
    }
    for (name, key) in &secrets {
        report_key(document, &place, tenant, name, key, keys, report);
    }
    secrets.into_iter().map(|(_, key)| key).collect()
}

fn report_key(
    document: &Document<'_>,
    place: &str,
    tenant: &str,
    name: &str,
    key: &Secret,
    keys: &mut Keys<'_>,
    report: &mut Report,
) {
    let shown = variables::shown(name);
    if let Some(found) = unusable(key) {
        report.add(document.error(place, format!("the key in {shown} {found}")).help(KEY_HELP));
    } else if let Some(found) = weakness(key) {
        let fault = document.error(place, format!("the key in {shown} is weak: it {found}")).as_warning();
        report.add(fault.expected(STRONG).help(KEY_HELP));
    }
    if keys.admin_key == Some(key) {
        let found = format!("the key in {shown} is the operator's own key, {ADMIN_KEY_VARIABLE}");
        report.add(document.error(place, found).expected("a key of the tenant's own").help(KEY_HELP));
    }
    let owner = (place.to_owned(), tenant.to_owned());
    // By their hash, so that the table holds no copies of keys.
    if let Some((other, other_name)) = keys.owners.insert(sha256(key.expose().as_bytes()), owner)
        && other != place
    {
        let found = format!("the key in {shown} is the key of the tenant \"{other_name}\" too");
        let help =
            format!("give one of the two another key; the other is in line {}. {KEY_HELP}", document.line(&other));
        report.add(document.error(place, found).expected("a key that names one tenant only").help(help));
    }
}

const STRONG: &str = "at least 32 characters, drawn at random";

/// Why no request could bring this key.
fn unusable(key: &Secret) -> Option<&'static str> {
    let key = key.expose();
    if key.trim().is_empty() {
        Some("is empty")
    } else if key.trim() != key {
        Some("begins or ends with white space, which no request can send")
    } else if key.contains(|letter: char| letter.is_control() || !letter.is_ascii()) {
        Some("has characters in it that no request can send")
    } else if key.len() > KEY_MAX_CHARS {
        Some("is too long to be sent with a request")
    } else {
        None
    }
}

/// Why a key could be guessed. The text says nothing about the key that helps to guess it.
fn weakness(key: &Secret) -> Option<String> {
    let key = key.expose();
    if key.chars().count() < KEY_MIN_CHARS {
        Some(format!("has fewer than {KEY_MIN_CHARS} characters"))
    } else if key.chars().collect::<BTreeSet<_>>().len() < KEY_MIN_DISTINCT {
        Some(format!("has fewer than {KEY_MIN_DISTINCT} different characters"))
    } else {
        None
    }
}

/// Finds the operator's key. An empty variable is none.
pub(super) fn admin_key(environment: &Environment, report: &mut Report) -> Option<Secret> {
    match environment.lookup(ADMIN_KEY_VARIABLE) {
        Lookup::Found { value, file_is_ignored } => {
            if file_is_ignored {
                let fault = Fault::error(variables::both_are_set(ADMIN_KEY_VARIABLE)).as_warning();
                report.add(fault.help("unset one of the two"));
            }
            if let Some(found) = unusable(&value) {
                report.add(Fault::error(format!("the key in `{ADMIN_KEY_VARIABLE}` {found}")).help(KEY_HELP));
            } else if let Some(found) = weakness(&value) {
                let found = format!("the operator's key in `{ADMIN_KEY_VARIABLE}` is weak: it {found}");
                report.add(Fault::error(found).as_warning().expected(STRONG).help(KEY_HELP));
            }
            Some(value)
        }
        Lookup::Unreadable { path, reason } => {
            let found = variables::unreadable(ADMIN_KEY_VARIABLE, &path, &reason);
            report.add(Fault::error(found).help(variables::UNREADABLE_HELP));
            None
        }
        Lookup::Empty => {
            let found = format!("`{ADMIN_KEY_VARIABLE}` is set, but empty; it counts as not set");
            report.add(Fault::error(found).as_warning().help(KEY_HELP));
            None
        }
        Lookup::Missing => None,
    }
}

/// How long the tenant's notifications are kept, and their content.
fn read_retention(
    reader: &mut Reader<'_, '_>,
    pointer: &str,
    entry: &Value,
) -> (Option<Lasting>, Option<std::time::Duration>) {
    let retention = reader.lasting(entry, pointer, "retention");
    let redact_after = reader.duration(entry, pointer, "redactAfter", &KEPT);
    if let (Some(Lasting::For(whole)), Some(content)) = (retention, redact_after)
        && content >= whole
    {
        let place = format!("{pointer}/redactAfter");
        let found = "the content would be kept as long as the whole, so that it is never removed on its own";
        let fault = reader.document.error(&place, found).as_warning().expected("less than `retention`");
        reader.report.add(fault.help("shorten `redactAfter`, or leave it out"));
    }
    (retention, redact_after)
}
