//! Every example is sent to the running server as its client sends it.

mod home_assistant;
pub(crate) mod programs;
pub(crate) mod wire;
pub(crate) mod yaml;

use std::path::Path;
use std::time::Instant;

use programs::{installed, run, run_homey_script};
use serde_json::{Value, json};
use wire::Request;

use crate::repository::{read, root};
use crate::support::provider::{Answer, DEADLINE, Provider};
use crate::support::server::{KEY_A, TENANT_A, TestServer, World};

/// What would break a client that puts JSON together carelessly.
const TRICKY: &str = "It says \"too warm\":\nC:\\freezer is at −9 °C 🎉 'now'";

/// Every action of the automations in Home Assistant's example, as the request that it sends.
fn home_assistant_requests(key: &str) -> Vec<Request> {
    let authorization = format!("Bearer {key}");
    let secrets = [("conductor_authorization", authorization.as_str())];
    let configuration = yaml::load(Path::new("examples/home-assistant/configuration.yaml"), &secrets);
    let automations = configuration["automation"].as_array().expect("the example has automations");
    let actions = automations.iter().flat_map(|automation| automation["actions"].as_array().into_iter().flatten());
    actions.map(|action| home_assistant::request(&configuration, action)).collect()
}

/// The same with other words: what an automation's own data may hold.
fn tricky_home_assistant_requests(key: &str) -> Vec<Request> {
    let authorization = format!("Bearer {key}");
    let secrets = [("conductor_authorization", authorization.as_str())];
    let configuration = yaml::load(Path::new("examples/home-assistant/configuration.yaml"), &secrets);
    let called = ["notify.conductor", "rest_command.conductor"];
    let actions = called.map(|action| json!({ "action": action, "data": { "message": TRICKY, "title": TRICKY } }));
    actions.iter().map(|action| home_assistant::request(&configuration, action)).collect()
}

fn body(request: &Request) -> Value {
    serde_json::from_str(&request.body).unwrap_or_else(|error| panic!("{error}: {request:?}"))
}

/// Asks for a notification until its status is this one.
pub(crate) fn wait_for_status(server: &TestServer, id: &str, status: &str) -> Value {
    let request = Request {
        method: "GET".to_owned(),
        url: server.url(&format!("/notifications/{id}")),
        headers: vec![("Authorization".to_owned(), format!("Bearer {KEY_A}"))],
        body: String::new(),
    };
    let start = Instant::now();
    loop {
        let story = request.send(server.address()).json();
        if story["status"] == status {
            return story;
        }
        assert!(start.elapsed() < DEADLINE, "{id} is not {status}: {story}");
        std::thread::yield_now();
    }
}

/// Sends a request, and checks that the notification was sent with what the request's body says.
fn arrives(server: &TestServer, request: &Request) {
    let answer = request.send(server.address());
    assert_eq!(answer.status, 202, "{request:?} got {answer:?}");
    let id = answer.json()["id"].as_str().expect("an answer has an id").to_owned();
    let story = wait_for_status(server, &id, "sent");
    for (name, value) in body(request).as_object().expect("a body is an object") {
        assert_eq!(&story[name], value, "{name} of {story}");
    }
}

#[test]
fn home_assistant_sends_every_field_as_a_text() {
    let bodies: Vec<Value> = home_assistant_requests(KEY_A).iter().map(body).collect();
    let freezer =
        |message: &str| json!({ "channel": "log", "title": "Freezer", "message": message, "priority": "high" });
    let default = "Home Assistant";
    assert_eq!(
        bodies,
        [
            freezer("The freezer is above -12 °C.\nIs the door shut?"),
            freezer("It says \"too warm\"."),
            json!({ "channel": "log", "title": default, "message": "Good morning", "priority": "normal" }),
            json!({
                "channel": "log", "title": default, "message": "Good morning, kitchen", "priority": "normal",
                "targetId": "1187654321098765432",
            }),
            json!({ "channel": "log", "message": "21.5", "priority": "normal", "targetId": "1187654321098765432" }),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_home_assistant_sends_arrives() {
    let server = World::new().start().await;
    let requests = [home_assistant_requests(KEY_A), tricky_home_assistant_requests(KEY_A)].concat();
    assert_eq!(requests.len(), 7);
    tokio::task::block_in_place(|| requests.iter().for_each(|request| arrives(&server, request)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_homeys_request_card_sends_arrives() {
    let server = World::new().start().await;
    let card: Value = serde_json::from_str(&read(&root().join("examples/homey/http-request.json"))).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let headers = card["headers"].as_object().expect("the card has headers");
    let header = |(name, value): (&String, &Value)| (name.clone(), text(value).replace("your-key", KEY_A));
    let request = Request {
        method: text(&card["method"]),
        url: text(&card["url"]),
        headers: headers.iter().map(header).collect(),
        body: serde_json::to_string_pretty(&card["body"]).expect("JSON"),
    };
    tokio::task::block_in_place(|| arrives(&server, &request));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_homey_script_sends_arrives() {
    if !installed("node") {
        return;
    }
    let server = World::new().start().await;
    tokio::task::block_in_place(|| {
        let script = Path::new("examples/homey/send-notification.js");
        let id = run_homey_script(script, TRICKY, &server.url(""), KEY_A);
        let story = wait_for_status(&server, id.trim(), "sent");
        assert_eq!((&story["message"], &story["title"]), (&TRICKY.into(), &"Homey".into()));
        assert_eq!(story["priority"], "high");
    });
    server.stop().await;
}

/// The examples that are programs: how each is called with a message and a channel.
const PROGRAMS: &[(&str, &str)] = &[
    ("curl", "examples/curl/send.sh"),
    ("python3", "examples/python/notify.py"),
    ("node", "examples/node/notify.mjs"),
];

fn run_example(tool: &str, path: &str, channel: &str, url: &str) -> String {
    let program = if tool == "curl" { "sh" } else { tool };
    run(program, &[path, TRICKY, channel], url, KEY_A, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_programs_send_reaches_the_provider() {
    let provider = Provider::start().await;
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let mut sent = 0;
    for (tool, path) in PROGRAMS.iter().filter(|(tool, _)| installed(tool)) {
        let printed = tokio::task::block_in_place(|| run_example(tool, path, "webhook", &server.url("")));
        sent += 1;
        let received = provider.wait_for(sent).await;
        assert_eq!(received[sent - 1].message(), TRICKY, "{path}");
        let id = received[sent - 1].json()["data"]["id"].as_str().expect("an id").to_owned();
        assert!(printed.contains(&id), "{path} printed: {printed}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_try_again_with_the_same_key() {
    for (tool, path) in PROGRAMS.iter().filter(|(tool, _)| installed(tool)) {
        let busy = Provider::start().await;
        busy.next(Answer { body: "{}", ..Answer::status(503) }.header("Retry-After", "0"));
        busy.next(Answer { body: r#"{"id": "the-id"}"#, ..Answer::status(202) });
        let url = busy.url();
        let printed = tokio::task::block_in_place(|| run_example(tool, path, "log", &url));
        assert!(printed.contains("the-id"), "{path} printed: {printed}");
        let received = busy.received();
        let keys: Vec<_> = received.iter().map(|request| request.header("idempotency-key")).collect();
        assert_eq!(keys.len(), 2, "{path}");
        assert!(keys[0].len() >= 32 && keys[0] == keys[1], "{path} sent {keys:?}");
        assert_eq!(received[0].body, received[1].body, "{path}");
    }
}
