//! What `docs/API.md` says of callbacks is held against what a receiver gets, and against the events and the schedule that
//! there are.

use conductor_core::callbacks::Event;
use serde_json::{Value, json};

use super::api::differences;
use super::markdown::blocks;
use super::section;
use crate::callbacks::{callback, with_callbacks};
use crate::repository::{read, root};
use crate::support::provider::{Answer, Provider};
use crate::support::server::{KEY_A, TENANT_A, World};

#[tokio::test]
async fn the_receiver_gets_the_headers_and_the_bodies_that_are_shown() {
    let document = read(&root().join("docs/API.md"));
    let blocks = blocks(section(&document, "Callbacks").expect("callbacks are documented"));
    let (receiver, provider) = (Provider::start().await, Provider::start().await);
    provider.next(Answer { body: "no such page", ..Answer::status(404) });
    provider.then(Answer::status(500));
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    let server =
        with_callbacks(world, &[callback(&receiver.url(), &["notification.failed", "channel.down"])]).start().await;
    for _ in 0..5 {
        let body = json!({ "channel": "webhook", "message": "x", "metadata": { "order": "42" } });
        server.send(KEY_A, &body).await;
    }
    let received = receiver.wait_for(2).await;
    let shown = blocks.iter().find(|block| block.language() == "http").expect("the headers are shown");
    let names: Vec<_> = shown.text.lines().skip(1).filter_map(|line| line.split_once(": ")).collect();
    assert!(names.len() >= 6, "{}", shown.text);
    for (name, value) in names {
        let real = received[0].header(name);
        assert!(
            name.starts_with("webhook-") && !real.is_empty() || real == value,
            "{name}: shown {value}, sent {real}"
        );
    }
    let bodies = blocks.iter().filter(|block| block.language() == "json");
    let bodies: Vec<Value> = bodies.map(|block| serde_json::from_str(&block.text).expect("JSON")).collect();
    for body in received.iter().map(|request| request.json()) {
        let shown = bodies.iter().find(|shown| shown["type"] == body["type"]);
        let shown = shown.unwrap_or_else(|| panic!("none is shown of {}", body["type"]));
        assert_eq!(differences(shown, &body, ""), Vec::<String>::new());
    }
    server.stop().await;
}

#[test]
fn every_event_is_documented() {
    for (document, heading) in [("docs/API.md", "Callbacks"), ("docs/CONFIGURATION.md", "The three files")] {
        let text = read(&root().join(document));
        let section = section(&text, heading).expect("there is such a section");
        for event in Event::ALL {
            assert!(section.contains(&format!("`{event}`")), "{document} does not name {event}");
        }
    }
}
