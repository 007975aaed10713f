//! Every example is sent to the running server as its client sends it.

mod home_assistant;
mod wire;
pub(crate) mod yaml;

use std::path::Path;

use serde_json::{Value, json};
use wire::Request;

const SECRETS: &[(&str, &str)] = &[("conductor_authorization", "Bearer KEY")];

/// Every action of the automations in Home Assistant's example, as the request that it sends.
fn home_assistant_requests() -> Vec<Request> {
    let configuration = yaml::load(Path::new("examples/home-assistant/configuration.yaml"), SECRETS);
    let automations = configuration["automation"].as_array().expect("the example has automations");
    let actions = automations.iter().flat_map(|automation| automation["actions"].as_array().into_iter().flatten());
    actions.map(|action| home_assistant::request(&configuration, action)).collect()
}

#[test]
fn home_assistant_sends_every_field_as_a_text() {
    let bodies: Vec<Value> = home_assistant_requests()
        .iter()
        .map(|request| serde_json::from_str(&request.body).unwrap_or_else(|error| panic!("{error}: {request:?}")))
        .collect();
    let notify = |title: &str, message: &str, priority: &str| json!({ "channel": "log", "title": title, "message": message, "priority": priority });
    let kitchen = json!({
        "channel": "log", "title": "Home Assistant", "message": "Good morning, kitchen", "priority": "normal",
        "targetId": "1187654321098765432",
    });
    let number =
        json!({ "channel": "log", "message": "21.5", "priority": "normal", "targetId": "1187654321098765432" });
    assert_eq!(
        bodies,
        [
            notify("Freezer", "The freezer is above -12 °C.\nIs the door shut?", "high"),
            notify("Freezer", "It says \"too warm\".", "high"),
            notify("Home Assistant", "Good morning", "normal"),
            kitchen,
            number,
        ]
    );
}
