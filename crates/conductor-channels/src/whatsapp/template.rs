//! Templates that Meta has approved: what may be sent to somebody who has not written within a day.
//!
//! <https://developers.facebook.com/docs/whatsapp/cloud-api/guides/send-message-templates>

use conductor_core::{Message, SendError, SendErrorKind};
use serde_json::{Map, Value, json};

/// The most parameters that a template's body may be given.
const PARAMETERS_MAX: usize = 100;

/// Whether a notification asks for a template in the place of its text.
pub(super) fn is_asked_for(message: &Message) -> bool {
    message.data.contains_key("template")
}

/// The template that `data.template` asks for, as Meta takes it: `{"name", "language", "parameters"}`.
pub(super) fn of(message: &Message) -> Result<Option<Value>, SendError> {
    let Some(asked) = message.data.get("template") else { return Ok(None) };
    let wrong = |what: &str| {
        let text = format!(
            "data.template {what}; expected {{\"name\": \"order_sent\", \"language\": \"en_US\", \"parameters\": [\"42\"]}}"
        );
        SendError::new(SendErrorKind::Permanent, text)
    };
    let Value::Object(asked) = asked else { return Err(wrong("is no object")) };
    if let Some(other) = asked.keys().find(|name| !["name", "language", "parameters"].contains(&name.as_str())) {
        let other: String = other.chars().take(40).collect();
        return Err(wrong(&format!("has the unknown member \"{other}\"")));
    }
    let name = word(asked, "name").ok_or_else(|| wrong("has no name"))?;
    let language = word(asked, "language").ok_or_else(|| wrong("has no language"))?;
    let mut template = json!({ "name": name, "language": { "policy": "deterministic", "code": language } });
    let parameters = match asked.get("parameters") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(values)) if values.len() <= PARAMETERS_MAX => {
            let parameters: Option<Vec<Value>> = values.iter().map(parameter).collect();
            parameters.ok_or_else(|| wrong("has a parameter that is neither a text nor a number"))?
        }
        Some(_) => return Err(wrong("has parameters that are no list, or more than 100")),
    };
    if !parameters.is_empty() {
        template["components"] = json!([{ "type": "body", "parameters": parameters }]);
    }
    Ok(Some(template))
}

fn word<'a>(asked: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    asked.get(name)?.as_str().filter(|text| !text.trim().is_empty())
}

fn parameter(value: &Value) -> Option<Value> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(json!({ "type": "text", "text": text }))
}
