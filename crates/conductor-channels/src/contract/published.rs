//! What is published about a provider: the description of its API, and which of its errors mean what.

use conductor_core::{Receipt, SendError, SendErrorKind};
use serde_json::{Value, json};

use super::{Seen, spec};

/// What a provider's own description takes at one place, and nothing that it does not name.
pub(crate) struct Description(jsonschema::Validator);

impl Description {
    /// The schema at `place`, a JSON pointer. None where the descriptions are missing, which is told.
    pub(crate) fn of(name: &str, place: &str) -> Option<Self> {
        Self::with(name, place, &json!({}))
    }

    /// The same with these members of the schema besides, or in the place of its own.
    pub(crate) fn with(name: &str, place: &str, more: &Value) -> Option<Self> {
        let spec = spec(name)?;
        let mut schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [spec.pointer(place).unwrap_or_else(|| panic!("{name} has no {place}"))],
            "unevaluatedProperties": false,
        });
        for shared in ["components", "definitions"] {
            if let Some(shared_schemas) = spec.get(shared) {
                schema[shared] = shared_schemas.clone();
            }
        }
        for (member, value) in more.as_object().into_iter().flatten() {
            schema[member] = value.clone();
        }
        Some(Self(jsonschema::validator_for(&schema).expect("the description is a schema")))
    }

    /// Fails where the description does not take the body.
    pub(crate) fn fits(&self, body: &Value) {
        let faults: Vec<String> = self.0.iter_errors(body).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?} in {body}");
    }

    /// Fails where the description takes the body: it would notice nothing.
    pub(crate) fn refuses(&self, body: &Value) {
        assert!(!self.0.is_valid(body), "{body} is taken");
    }
}

/// A row of `error_classes.json`.
pub(crate) struct Row {
    /// The statuses, as they are; none where the row is not about an answer of HTTP.
    pub(crate) statuses: Vec<u16>,
    /// The provider's own codes or words.
    pub(crate) code: String,
    /// What they mean.
    pub(crate) class: String,
}

impl Row {
    /// The single codes of a list such as `a, b`.
    pub(crate) fn codes(&self) -> impl Iterator<Item = &str> {
        self.code.split(", ")
    }
}

/// The rows of one provider, at least so many. None where the table is missing, which is told.
pub(crate) fn error_classes(provider: &str, least: usize) -> Option<Vec<Row>> {
    let table = spec("error_classes.json")?;
    let rows = table["providers"][provider].as_array().unwrap_or_else(|| panic!("the table has no {provider}"));
    assert!(rows.len() >= least, "{provider}: {}", rows.len());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |row: &Value| Row {
        statuses: text(&row["status"]).split([',', '/']).flat_map(|status| statuses(status.trim())).collect(),
        code: row["code"].as_str().unwrap_or_default().to_owned(),
        class: row["class"].as_str().expect("a class").to_owned(),
    };
    Some(rows.iter().map(row).collect())
}

/// Some of the statuses that `5xx` and the like stand for, or the one that is named.
fn statuses(text: &str) -> Vec<u16> {
    match text {
        "2xx" => vec![200, 202, 204],
        "3xx" => vec![300, 301, 302, 303, 307, 308],
        "4xx" => vec![400, 401, 403, 404, 413, 422],
        "5xx" => vec![500, 502, 503, 504],
        _ => text.parse().into_iter().collect(),
    }
}

/// Whether a result is what a class of `error_classes.json` becomes.
pub(crate) fn is_of_class(result: &Result<Receipt, SendError>, class: &str) -> bool {
    let kind = match result {
        Ok(_) => return class == "ok",
        Err(error) => error.kind,
    };
    match class {
        "retry" => matches!(kind, SendErrorKind::Retryable { .. }),
        "rate" => matches!(kind, SendErrorKind::RateLimited { .. }),
        "ambiguous" => kind == SendErrorKind::Unknown,
        "auth" => kind == SendErrorKind::Unauthorized,
        "recipient" | "policy" => kind == SendErrorKind::Permanent,
        "payload" => kind == SendErrorKind::Rejected,
        _ => false,
    }
}

/// Whether a description has a call: its method, its path below `prefix`, and the names in its query.
fn has_call(spec: &Value, prefix: &str, seen: &Seen) -> Result<(), String> {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let path = path.strip_prefix(prefix).ok_or_else(|| format!("{path} does not begin with {prefix}"))?;
    let paths = spec["paths"].as_object().expect("a description has paths");
    let items = paths.iter().filter(|(template, _)| fits(template, path)).map(|(_, item)| item);
    let method = seen.method.to_lowercase();
    // Where several templates fit, one that knows everything in the query is the one that is meant.
    let unknown = |item: &Value, operation: &Value| {
        let lists = [item, operation].into_iter().filter_map(|place| place["parameters"].as_array()).flatten();
        let known: Vec<&str> = lists.filter_map(|parameter| parameter["name"].as_str()).collect();
        let mut names = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name.into_owned());
        names.find(|name| !known.contains(&name.as_str()))
    };
    let unknown = items.filter_map(|item| Some(unknown(item, item.get(&method)?)));
    match unknown.min() {
        None => Err(format!("no {method} {path}")),
        Some(None) => Ok(()),
        Some(Some(name)) => Err(format!("{method} {path} knows no {name}")),
    }
}

/// Whether a path is one of those that a template such as `/bot{token}/getMe` stands for.
fn fits(template: &str, path: &str) -> bool {
    let fits = |(wanted, found): (&str, &str)| match wanted.split_once('{') {
        Some((before, rest)) => {
            let after = rest.split_once('}').map_or("", |(_, after)| after);
            found.len() > before.len() + after.len() && found.starts_with(before) && found.ends_with(after)
        }
        None => wanted == found,
    };
    template.split('/').count() == path.split('/').count() && template.split('/').zip(path.split('/')).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::samples::samples;
    use crate::contract::{Answer, Provider, context, message, plugin};
    use crate::http::HttpClients;

    #[test]
    fn a_call_that_is_not_described_is_noticed() {
        let spec = json!({ "paths": { "/bot{token}/a": { "get": { "parameters": [{ "name": "b" }] } } } });
        let call = |method, path| has_call(&spec, "/x", &Seen::of(method, path));
        assert_eq!(call("GET", "/x/bot12/a?b=1"), Ok(()));
        for (method, path) in [
            ("POST", "/x/bot12/a"),
            ("GET", "/x/bot/a"),
            ("GET", "/x/bot12/a?c=1"),
            ("GET", "/x/bot12/a/b"),
            ("GET", "/bot12/a"),
        ] {
            assert!(call(method, path).is_err(), "{method} {path}");
        }
    }

    #[tokio::test]
    async fn every_call_stands_in_the_providers_own_description() {
        for (kind, name, prefix) in [
            ("discord", "discord.json", "/api/v10"),
            ("discord-webhook", "discord.json", "/api/v10"),
            ("slack", "slack_oas3.json", "/api"),
            ("telegram", "telegram.json", ""),
            ("matrix", "matrix.json", ""),
            ("sms", "twilio.json", ""),
            ("whatsapp", "whatsapp.json", ""),
            ("gotify", "gotify.json", ""),
        ] {
            let Some(spec) = spec(name) else { return };
            let sample = samples().into_iter().find(|sample| sample.kind == kind).expect("it is there");
            let values = (sample.values)(false).as_object().cloned().expect("an object");
            let provider =
                Provider::answering([Answer::json(200, &json!({ "health": "green", "database": "green" }))]).await;
            let context = context(&HttpClients::new(), Some(provider.url()));
            let channel = plugin(kind).initialize(values, context).await.expect("the settings are valid");
            for target in [None, sample.target.map(str::to_owned)] {
                // What the answer means is another test's matter.
                let _ = channel.send(&conductor_core::Message { target, ..message("hello") }).await;
            }
            let _ = channel.health_check().await;
            assert!(provider.seen().len() >= 2, "{kind}");
            for seen in provider.seen() {
                assert_eq!(has_call(&spec, prefix, &seen), Ok(()), "{kind}");
            }
        }
    }
}
