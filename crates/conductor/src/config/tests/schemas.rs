//! The schemas that an editor gets say what the loader says.

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::config::schema;
use crate::config::testing::{Files, OTHER, PLUGINS, TENANT, pattern};

fn validators() -> [(&'static str, Validator); 3] {
    let schemas = [
        ("tenants.json", schema::tenants()),
        ("channels.json", schema::channels(PLUGINS)),
        ("plugins.json", schema::plugins(PLUGINS)),
    ];
    schemas.map(|(file, schema)| {
        jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{file}: {error}"));
        (file, jsonschema::draft202012::new(&schema).unwrap())
    })
}

/// Good files with this one in the place of another, and everything that a channel could need from the environment.
fn files(file: &str, value: &Value) -> Files {
    Files::good().file(file, &value.to_string()).variable("A", "tok_a").variable(&pattern("PORT"), "80")
}

fn good() -> Vec<(&'static str, Value)> {
    let tenant = json!({ "id": TENANT, "name": "Acme", "authKeyEnvVar": "KEY" });
    let full = json!({
        "id": TENANT, "name": "Acme", "authKeyEnvVar": "KEY", "weight": 2,
        "rateLimit": { "requests": { "per": "1s", "limit": 100, "burst": 200 }, "queued": 100_000 },
        "callbacks": [], "retention": "90d", "redactAfter": "7d"
    });
    let channel = |kind: &str| json!({ "tenantId": TENANT, "channelType": kind });
    let parrot = json!({
        "channelId": OTHER, "channelName": "alerts", "tenantId": TENANT, "channelType": "parrot-bot",
        "providerIdEnvVar": "A", "providerSecretEnvVar": "A", "env": { "token": "A" },
        "options": {
            "baseUrl": "https://a.example/api", "allowNetworks": ["10.0.0.0/8"], "timeout": "500ms",
            "maxConcurrency": 1,
            "rate": { "limit": 1 }, "expiresAfter": "7d", "delayNote": "5m", "ordered": true, "onUnknown": "hold", "allowMentions": false,
            "loud": true, "mood": "merry", "port": 80, "channelId": "c"
        }
    });
    let pager = json!({ "tenantId": TENANT, "channelType": "pager", "options": { "region": "eu", "number": "1" } });
    vec![
        ("tenants.json", json!([])),
        ("tenants.json", json!({ "tenants": [tenant] })),
        ("tenants.json", json!([full])),
        ("channels.json", json!([])),
        ("channels.json", json!([channel("log"), channel("parrot-talk"), parrot, pager])),
        ("channels.json", json!({ "$schema": "channels.schema.json", "channels": [channel("log")] })),
        ("plugins.json", json!([{ "name": "parrot-talk" }])),
        ("plugins.json", json!({ "plugins": [{ "name": "parrot-bot", "enabled": true, "options": { "x": 1 } }] })),
    ]
}

#[test]
fn what_the_loader_accepts_the_schema_accepts() {
    let validators = validators();
    for (file, value) in good() {
        let validator = &validators.iter().find(|(name, _)| *name == file).unwrap().1;
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{value}\n{errors:?}");
        let mut files = files(file, &value);
        if value == json!([]) {
            files = files.channels("[]");
        }
        files.accepted();
    }
}

/// Every good example with every one of its values replaced by others, and every member renamed or removed.
fn changed(value: &Value) -> Vec<Value> {
    let mut changed = vec![json!(null), json!(0), json!(""), json!([7]), json!({ "x": 7 })];
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                for other in self::changed(member) {
                    let mut copy = members.clone();
                    copy.insert(name.clone(), other);
                    changed.push(Value::Object(copy));
                }
                let mut renamed = members.clone();
                renamed.remove(name);
                changed.push(Value::Object(renamed.clone()));
                renamed.insert(format!("{name}x"), member.clone());
                changed.push(Value::Object(renamed));
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                for other in self::changed(element) {
                    let mut copy = elements.clone();
                    copy[index] = other;
                    changed.push(Value::Array(copy));
                }
            }
        }
        _ => {}
    }
    changed
}

#[test]
fn what_the_schema_refuses_the_loader_refuses() {
    let validators = validators();
    let (mut refused, mut cases) = (0, 0);
    for (file, value) in good() {
        let validator = &validators.iter().find(|(name, _)| *name == file).unwrap().1;
        for value in changed(&value) {
            cases += 1;
            if !validator.is_valid(&value) {
                refused += 1;
                assert!(files(file, &value).load().is_err(), "the loader accepts in {file}: {value}");
            }
        }
    }
    assert!(refused > 300 && cases > refused, "{refused} of {cases}");
}

#[test]
fn the_schema_of_a_channel_completes_the_plugins_options() {
    let schema = schema::channels(PLUGINS);
    let options = &schema["$defs"]["options.parrot-talk"]["properties"];
    assert_eq!(options["loud"]["description"], "Whether it cries.");
    assert_eq!(options["loud"]["default"], false);
    assert_eq!(options["timeout"]["default"], "30s");
    assert_eq!(options["channelId"]["description"], "for the tests");
    assert!(options.get("token").is_none(), "a secret has no place in the file");
    assert_eq!(schema["$defs"]["options.pager"]["required"], json!(["region"]));
    let kinds = &schema["$defs"]["channel"]["properties"]["channelType"]["enum"];
    assert_eq!(*kinds, json!(["log", "parrot-talk", "parrot-bot", "pager"]));
}

#[test]
fn every_member_of_the_schemas_is_described() {
    fn check(path: &str, schema: &Value) {
        for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let path = format!("{path}/{name}");
            assert!(member.get("description").is_some() || member.get("$ref").is_some(), "{path}");
            check(&path, member);
        }
    }
    for schema in [schema::tenants(), schema::channels(PLUGINS), schema::plugins(PLUGINS)] {
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            check(name, definition);
        }
    }
}
