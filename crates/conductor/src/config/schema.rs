//! The JSON Schemas (draft 2020-12) of the three files.
//!
//! The loader checks each entry against the same definitions that an editor gets, so that the two cannot differ. A
//! `title` that says what is expected ("a duration such as …") stands in the loader's faults too.

use conductor_channels::{Classic, Plugin};
use conductor_core::callbacks::Event;
use serde_json::{Map, Value, json};

/// The most callbacks of one tenant.
pub const CALLBACKS_MAX: usize = 16;
/// The most entries of one `allowNetworks`.
pub const NETWORKS_MAX: usize = 64;
/// The largest share that a tenant may have when tenants take turns.
pub const WEIGHT_MAX: u32 = 1000;
/// The most attempts of one channel that may be under way at once.
pub const CONCURRENCY_MAX: u32 = 1000;
/// The largest `limit` and `burst` of a rate.
pub const RATE_MAX: u32 = 1_000_000;
/// The longest name of a tenant or a channel, in characters.
pub const NAME_MAX_CHARS: usize = 200;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of `tenants.json`.
pub fn tenants() -> Value {
    let mut definitions = definitions();
    definitions.insert("tenant".to_owned(), tenant());
    file("tenants", "The tenants of this server.", "tenant", &definitions)
}

/// The schema of `channels.json`, with the settings and options of these plugins.
pub fn channels(plugins: &[Plugin]) -> Value {
    let mut definitions = definitions();
    let mut channel = channel();
    let names = plugins.iter().flat_map(|plugin| std::iter::once(plugin.kind).chain(plugin.aliases.iter().copied()));
    channel["properties"]["channelType"]["enum"] = names.collect();
    let mut variants = Vec::with_capacity(plugins.len());
    for plugin in plugins {
        let options = options_of(plugin, &mut definitions);
        let required: Vec<&str> = options.get("required").map(|_| "options").into_iter().collect();
        let environment = environment_of(plugin);
        let names: Vec<&str> = std::iter::once(plugin.kind).chain(plugin.aliases.iter().copied()).collect();
        variants.push(json!({
            "if": { "properties": { "channelType": { "enum": names } }, "required": ["channelType"] },
            "then": {
                "properties": { "options": { "$ref": format!("#/$defs/options.{}", plugin.kind) }, "env": environment },
                "required": required
            }
        }));
        definitions.insert(format!("options.{}", plugin.kind), options);
    }
    if !variants.is_empty() {
        channel["allOf"] = Value::Array(variants);
    }
    definitions.insert("channel".to_owned(), channel);
    file("channels", "Which tenant uses which plugin, with which credentials and options.", "channel", &definitions)
}

/// The schema of `plugins.json`, with the names of these plugins.
pub fn plugins(plugins: &[Plugin]) -> Value {
    let mut plugin = plugin();
    let names = plugins.iter().flat_map(|plugin| std::iter::once(plugin.kind).chain(plugin.aliases.iter().copied()));
    plugin["properties"]["name"]["enum"] = names.collect();
    let definitions = Map::from_iter([("plugin".to_owned(), plugin)]);
    file("plugins", "The plugins that channels may use.", "plugin", &definitions)
}

/// Both shapes of a file: an object with one list in it, or the list alone.
fn file(member: &str, about: &str, entry: &str, definitions: &Map<String, Value>) -> Value {
    let list = json!({ "type": "array", "description": about, "items": { "$ref": format!("#/$defs/{entry}") } });
    json!({
        "$schema": DRAFT,
        "title": format!("Conductor: {member}.json"),
        "description": about,
        "type": ["object", "array"],
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "$schema": { "type": "string", "description": "Where an editor finds this schema." },
                    member: list
                },
                "required": [member],
                "additionalProperties": false
            },
            list
        ],
        "$defs": definitions
    })
}

/// The schema of one entry of a file, complete in itself.
pub(super) fn entry(mut entry: Value) -> Value {
    entry["$schema"] = json!(DRAFT);
    entry["$defs"] = Value::Object(definitions());
    entry
}

/// One entry of `tenants.json`.
pub(super) fn tenant() -> Value {
    json!({
        "type": "object",
        "properties": {
            "id": { "$ref": "#/$defs/uuid", "description": "The tenant's id; `conductor tenant add` makes one." },
            "name": { "$ref": "#/$defs/name", "description": "What people call the tenant." },
            "authKeyEnvVar": {
                "$ref": "#/$defs/variable",
                "description": "The variable that holds the API key. The same name with _NEXT may hold a second one."
            },
            "weight": {
                "type": "integer", "minimum": 1, "maximum": WEIGHT_MAX, "default": 1,
                "title": format!("a whole number from 1 to {WEIGHT_MAX}"),
                "description": "The tenant's share when tenants take turns."
            },
            "rateLimit": {
                "type": "object",
                "description": "How much the tenant may ask of this server.",
                "properties": {
                    "requests": { "$ref": "#/$defs/rate", "description": "How often it may ask." },
                    "queued": {
                        "type": "integer", "minimum": 1, "title": "a whole number from 1",
                        "description": "The most notifications that may wait."
                    },
                    "bytes": {
                        "type": "integer", "minimum": 1, "title": "a whole number of bytes from 1",
                        "description": "The most bytes that the notifications may take which wait."
                    }
                },
                "additionalProperties": false
            },
            "retention": {
                "$ref": "#/$defs/lasting",
                "description": "How long ended notifications are kept, 1h to 3650d, or forever. Without it, as RETENTION says."
            },
            "redactAfter": {
                "$ref": "#/$defs/duration",
                "description": "How long their content is kept, 1h to 3650d. Without it, as long as the rest."
            },
            "callbacks": {
                "type": "array", "maxItems": CALLBACKS_MAX, "items": callback(),
                "description": "Where the tenant hears of state changes, signed by Standard Webhooks."
            }
        },
        "required": ["id", "name", "authKeyEnvVar"],
        "additionalProperties": false
    })
}

fn callback() -> Value {
    let events: Vec<&str> = Event::ALL.iter().map(|event| event.as_str()).collect();
    json!({
        "type": "object",
        "properties": {
            "url": { "$ref": "#/$defs/url", "description": "Where to post." },
            "secretEnvVar": {
                "$ref": "#/$defs/variable",
                "description": "The variable that holds what signs: whsec_ and base64 of 24 to 64 bytes, or whsk_ and base64 of an \
                    ed25519 key. The same name with _NEXT may hold a second one."
            },
            "events": {
                "type": "array", "items": { "type": "string", "enum": events }, "default": [],
                "description": "Which events; an empty list means all."
            },
            "allowNetworks": { "$ref": "#/$defs/networks" }
        },
        "required": ["url", "secretEnvVar"],
        "additionalProperties": false
    })
}

/// One entry of `channels.json`, without what the plugin adds.
pub(super) fn channel() -> Value {
    json!({
        "type": "object",
        "properties": {
            "channelId": {
                "$ref": "#/$defs/uuid",
                "description": "The channel's id. Without it, one is derived from tenant, type and name."
            },
            "channelName": {
                "$ref": "#/$defs/name", "description": "What people call the channel. Without it, the type's name."
            },
            "tenantId": { "$ref": "#/$defs/uuid", "description": "Whose channel it is: an id of tenants.json." },
            "channelType": { "type": "string", "description": "The plugin: an enabled one of plugins.json." },
            "providerIdEnvVar": {
                "$ref": "#/$defs/optionalVariable",
                "description": "The variable that holds the provider's id: a channel, a chat, a number."
            },
            "providerSecretEnvVar": {
                "$ref": "#/$defs/optionalVariable",
                "description": "The variable that holds the provider's secret: a token, a key."
            },
            "env": {
                "type": "object", "additionalProperties": { "$ref": "#/$defs/variable" },
                "description": "For any setting of the plugin, the variable that holds it."
            },
            "options": { "type": "object", "properties": common_options(), "description": "How the channel works." }
        },
        "required": ["tenantId", "channelType"],
        "additionalProperties": false
    })
}

/// One entry of `plugins.json`.
pub(super) fn plugin() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "Which plugin." },
            "enabled": { "type": "boolean", "default": true, "description": "Whether channels may use it." },
            "options": { "type": "object", "default": {}, "description": "Kept for the plugin." }
        },
        "required": ["name"],
        "additionalProperties": false
    })
}

/// Whether every channel takes an option of that name.
pub(super) fn is_common_option(name: &str) -> bool {
    COMMON_OPTIONS.contains(&name)
}

/// The options that every channel takes.
pub(super) const COMMON_OPTIONS: [&str; 10] = [
    "baseUrl",
    "allowNetworks",
    "timeout",
    "maxConcurrency",
    "rate",
    "expiresAfter",
    "delayNote",
    "ordered",
    "onUnknown",
    "allowMentions",
];

fn common_options() -> Value {
    json!({
        "baseUrl": {
            "$ref": "#/$defs/url",
            "description": "Another address of the same API: a proxy, a self-hosted server, a test."
        },
        "allowNetworks": { "$ref": "#/$defs/networks" },
        "timeout": {
            "$ref": "#/$defs/duration", "default": "30s", "description": "The time limit of one attempt, up to 10m."
        },
        "maxConcurrency": {
            "type": "integer", "minimum": 1, "maximum": CONCURRENCY_MAX,
            "title": format!("a whole number from 1 to {CONCURRENCY_MAX}"),
            "description": "Attempts under way at once. Without it, as many as the plugin says."
        },
        "rate": {
            "$ref": "#/$defs/rate",
            "description": "How often the channel sends. Without it, as often as the plugin says."
        },
        "expiresAfter": {
            "$ref": "#/$defs/duration", "default": "24h",
            "description": "A notification older than this is given up; up to 365d."
        },
        "delayNote": {
            "$ref": "#/$defs/duration",
            "description": "A message that goes out later than this says so in its last line, such as \
                            \"delayed by 14 min\"; from 1s to 365d. Without it, none does."
        },
        "ordered": {
            "type": "boolean", "default": false,
            "description": "Whether a failing message holds back those behind it to the same target."
        },
        "onUnknown": {
            "type": "string", "enum": ["retry", "hold"], "default": "retry",
            "description": "Where it is unknown whether a message got out: try again, or wait for a person."
        },
        "allowMentions": {
            "type": "boolean", "default": false,
            "description": "Whether the provider's mention syntax in a text may fire."
        }
    })
}

fn definitions() -> Map<String, Value> {
    let definitions = json!({
        "uuid": {
            "type": "string", "title": "a UUID such as 01943c2a-7c3e-7000-8000-123456789abc",
            "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
        },
        "name": {
            "type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS, "pattern": "[^ ]",
            "title": format!("a name of 1 to {NAME_MAX_CHARS} characters")
        },
        "variable": {
            "type": "string", "title": "the name of an environment variable: letters, digits and _",
            "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength": 256
        },
        "optionalVariable": {
            "type": "string", "title": "the name of an environment variable: letters, digits and _",
            "pattern": "^([A-Za-z_][A-Za-z0-9_]*)?$", "maxLength": 256
        },
        "duration": {
            "type": "string", "title": "a duration such as 500ms, 30s, 5m, 24h or 7d",
            "pattern": "^[0-9]{1,12}(ms|s|m|h|d)$"
        },
        "lasting": {
            "type": "string", "title": "a duration such as 12h, 30d or 365d, or forever",
            "pattern": "^([0-9]{1,12}(ms|s|m|h|d)|forever)$"
        },
        "url": {
            "type": "string", "format": "uri", "title": "an address such as https://example.com/path",
            "pattern": "^[A-Za-z][A-Za-z0-9+.-]*://[^/\\s]+(/[^\\s]*)?$"
        },
        "networks": {
            "type": "array", "items": { "$ref": "#/$defs/network" }, "maxItems": NETWORKS_MAX, "default": [],
            "description": "Private networks that may be reached, as CIDR: 192.168.0.0/16."
        },
        "network": {
            "type": "string", "title": "a network as CIDR, such as 192.168.0.0/16 or fd00::/8",
            "pattern": "^[0-9A-Fa-f:.]+/[0-9]{1,3}$"
        },
        "rate": {
            "type": "object", "title": "a rate such as { \"per\": \"1s\", \"limit\": 5, \"burst\": 10 }",
            "properties": {
                "per": {
                    "$ref": "#/$defs/duration", "default": "1s", "description": "The time that `limit` counts for."
                },
                "limit": {
                    "type": "integer", "minimum": 1, "maximum": RATE_MAX, "title": "a whole number from 1 to 1000000",
                    "description": "How many in that time."
                },
                "burst": {
                    "type": "integer", "minimum": 1, "maximum": RATE_MAX, "title": "a whole number from 1 to 1000000",
                    "description": "How many may go at once after a pause. Without it, as many as `limit`."
                }
            },
            "required": ["limit"],
            "additionalProperties": false
        }
    });
    match definitions {
        Value::Object(definitions) => definitions,
        _ => Map::new(),
    }
}

/// The schema of a plugin's `options`: the common ones, its own, and its settings that are no secrets. The plugin's
/// definitions move to the file's.
fn options_of(plugin: &Plugin, definitions: &mut Map<String, Value>) -> Value {
    let mut own = plugin.schema();
    move_references(&mut own, plugin.kind);
    if let Some(Value::Object(own)) = own.get_mut("$defs").map(Value::take) {
        definitions.extend(own.into_iter().map(|(name, schema)| (format!("{}.{name}", plugin.kind), schema)));
    }
    let setting = |name: &str| plugin.settings.iter().find(|setting| setting.camel_case() == name);
    let mut properties = match common_options() {
        Value::Object(properties) => properties,
        _ => Map::new(),
    };
    if let Some(Value::Object(own)) = own.get_mut("properties").map(Value::take) {
        for (name, mut schema) in own {
            match setting(&name) {
                Some(setting) if setting.secret => continue,
                Some(setting) if schema.is_object() => schema["description"] = json!(setting.about),
                _ => {}
            }
            properties.entry(name).or_insert(schema);
        }
    }
    let required: Vec<&str> = own
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|name| setting(name).is_none() && !is_common_option(name))
        .collect();
    let mut options = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        options["required"] = json!(required);
    }
    options
}

/// The schema of a plugin's `env`.
fn environment_of(plugin: &Plugin) -> Value {
    let mut properties = Map::new();
    for setting in plugin.settings {
        let classic = match setting.classic {
            Some(Classic::Id) => " (the same as providerIdEnvVar)",
            Some(Classic::Secret) => " (the same as providerSecretEnvVar)",
            None => "",
        };
        let about = format!("The variable that holds: {}{classic}", setting.about);
        properties.insert(setting.camel_case(), json!({ "$ref": "#/$defs/variable", "description": about }));
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn move_references(schema: &mut Value, kind: &str) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(target) if name == "$ref" => {
                        if let Some(definition) = target.strip_prefix("#/$defs/") {
                            *target = format!("#/$defs/{kind}.{definition}");
                        }
                    }
                    value => move_references(value, kind),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| move_references(element, kind)),
        _ => {}
    }
}
