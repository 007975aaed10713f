//! What Home Assistant sends for an action, worked out from `configuration.yaml` as Home Assistant does it.

use minijinja::Environment;
use serde_json::{Map, Value, json};

use super::wire::{Request, python_json};

/// What `notify` puts into a notification without a title.
const DEFAULT_TITLE: &str = "Home Assistant";

/// The request that follows from an action of an automation: `notify.<name>` or `rest_command.<name>`.
pub(crate) fn request(configuration: &Value, action: &Value) -> Request {
    let called = action["action"].as_str().expect("an action has a name");
    let data = &action["data"];
    match called.split_once('.') {
        Some(("notify", name)) => {
            let notifiers = configuration["notify"].as_array().expect("notify is a list");
            let notifier = notifiers.iter().find(|notifier| notifier["name"] == name);
            notify(notifier.unwrap_or_else(|| panic!("no notifier {name}")), data)
        }
        Some(("rest_command", name)) => rest_command(&configuration["rest_command"][name], data),
        _ => panic!("{called} is none of the actions that send"),
    }
}

/// The platform `rest` of `notify`, which uses Python's `requests`.
fn notify(notifier: &Value, data: &Value) -> Request {
    assert_eq!(notifier["platform"], "rest");
    assert_eq!(notifier["method"], "POST_JSON", "otherwise it sends a form");
    let option = |name: &str| notifier.get(name).and_then(Value::as_str);
    let mut fields = Map::new();
    let message = data["message"].as_str().expect("Home Assistant wants a text");
    fields.insert(option("message_param_name").unwrap_or("message").to_owned(), message.into());
    if let Some(name) = option("title_param_name") {
        fields.insert(name.to_owned(), data.get("title").cloned().unwrap_or(DEFAULT_TITLE.into()));
    }
    if let (Some(name), Some(target)) = (option("target_param_name"), data.get("target")) {
        let first = target.as_array().map_or(target, |targets| &targets[0]);
        fields.insert(name.to_owned(), first.clone());
    }
    let mut variables = data.as_object().cloned().unwrap_or_default();
    variables.entry("data").or_insert(Value::Null);
    for (name, value) in notifier["data"].as_object().into_iter().flatten() {
        let value = value.as_str().map_or(value.clone(), |text| render(text, &Value::Object(variables.clone())).into());
        fields.insert(name.clone(), value);
    }
    let mut headers = vec![
        ("User-Agent".to_owned(), "python-requests/2.32.3".to_owned()),
        ("Accept-Encoding".to_owned(), "gzip, deflate, br".to_owned()),
        ("Accept".to_owned(), "*/*".to_owned()),
        ("Connection".to_owned(), "keep-alive".to_owned()),
    ];
    headers.extend(header_templates(notifier, &json!({})));
    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    let url = option("resource").expect("a notifier has a resource").to_owned();
    Request { method: "POST".to_owned(), url, headers, body: python_json(&Value::Object(fields)) }
}

/// `rest_command`, which uses `aiohttp`: everything is a template over the action's data.
fn rest_command(command: &Value, data: &Value) -> Request {
    let option = |name: &str| command.get(name).and_then(Value::as_str);
    let mut headers = header_templates(command, data);
    headers.extend(option("content_type").map(|value| ("Content-Type".to_owned(), value.to_owned())));
    headers.extend([
        ("Accept".to_owned(), "*/*".to_owned()),
        ("Accept-Encoding".to_owned(), "gzip, deflate, br".to_owned()),
        ("User-Agent".to_owned(), "HomeAssistant/2025.1.0 aiohttp/3.11.11 Python/3.13".to_owned()),
    ]);
    Request {
        method: option("method").unwrap_or("get").to_uppercase(),
        url: render(option("url").expect("a command has a URL"), data),
        headers,
        body: render(option("payload").expect("a command that sends has a payload"), data),
    }
}

fn header_templates(options: &Value, data: &Value) -> Vec<(String, String)> {
    let headers = options["headers"].as_object().into_iter().flatten();
    headers.map(|(name, value)| (name.clone(), render(value.as_str().expect("a header is a text"), data))).collect()
}

/// Renders a template and trims the result. `to_json` is Home Assistant's own filter: compact, without HTML escapes.
fn render(template: &str, variables: &Value) -> String {
    let mut environment = Environment::new();
    environment.add_filter("to_json", |value: minijinja::Value| {
        serde_json::to_string(&value).expect("a variable of an action is JSON")
    });
    let text = environment.render_str(template.trim(), minijinja::value::Serde(variables));
    text.unwrap_or_else(|error| panic!("{error:#} in {template}")).trim().to_owned()
}
