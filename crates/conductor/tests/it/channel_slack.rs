//! Slack through the whole server.

use serde_json::{Value, json};

use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, TestServer, World};

fn ok(body: &'static str) -> Answer {
    Answer { body, ..Answer::status(200) }
}

async fn with_slack(provider: &Provider, env: &Value, options: &Value) -> TestServer {
    let mut world = World::new();
    let mut all = json!({ "baseUrl": provider.url(), "allowNetworks": ["127.0.0.0/8"] });
    for (name, value) in options.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    world.plugins = json!([{ "name": "log" }, { "name": "slack" }]);
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "slack", "channelName": "team", "env": env, "options": all,
    }));
    world.variables.push(("BOT".into(), "xoxb-a-token".into()));
    world.variables.push(("HOOK".into(), "https://hooks.slack.com/services/T0/B0/a-secret".into()));
    world.start().await
}

async fn by_bot(provider: &Provider) -> TestServer {
    with_slack(provider, &json!({ "botToken": "BOT" }), &json!({ "channel": "C1H9RESGL" })).await
}

fn outcomes(story: &Value) -> Vec<&str> {
    let attempts = story["deliveries"][0]["attempts"].as_array().into_iter().flatten();
    attempts.filter_map(|attempt| attempt["outcome"].as_str()).collect()
}

#[tokio::test]
async fn a_bots_message_arrives_and_its_place_is_kept() {
    let provider = Provider::start().await;
    provider.then(ok(r#"{"ok":true,"channel":"C1H9RESGL","ts":"1503435956.000247"}"#));
    let server = by_bot(&provider).await;
    let body = json!({ "channel": "slack", "title": "Pump", "message": "*off* & out", "priority": "high" });
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "C1H9RESGL:1503435956.000247");
    let received = provider.received();
    assert_eq!(received[0].header("authorization"), "Bearer xoxb-a-token");
    assert_eq!(received[0].json()["text"], "⚠️ HIGH PRIORITY\nPump\n*off* &amp; out");
    assert_eq!(received[0].json()["channel"], "C1H9RESGL");
}

#[tokio::test]
async fn a_refusal_inside_a_success_is_one_and_refused_markup_is_left_off() {
    let provider = Provider::start().await;
    provider.next(ok(r#"{"ok":false,"error":"invalid_blocks"}"#));
    provider.then(ok(r#"{"ok":true,"channel":"C1H9RESGL","ts":"1.2"}"#));
    let server = by_bot(&provider).await;
    let id = server.send(KEY_A, &json!({ "channel": "slack", "message": "a **b**", "format": "markdown" })).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["rejected", "sent"]);
    let texts: Vec<Value> = provider.received().iter().map(|received| received.json()["text"].clone()).collect();
    assert_eq!(texts, ["a *b*", "a **b**"]);
    provider.next(ok(r#"{"ok":false,"error":"is_archived"}"#));
    let id = server.send(KEY_A, &json!({ "channel": "slack", "message": "hello" })).await;
    let story = server.wait_for(KEY_A, &id, "failed").await;
    let detail = story["deliveries"][0]["attempts"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("is_archived"), "{detail}");
}

#[tokio::test]
async fn a_long_text_goes_out_in_parts_that_slack_takes() {
    let provider = Provider::start().await;
    provider.then(ok("ok"));
    let server = with_slack(&provider, &json!({ "webhookUrl": "HOOK" }), &json!({})).await;
    let id = server.send(KEY_A, &json!({ "channel": "slack", "message": "Nine < ten & more. ".repeat(400) })).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let received = provider.received();
    assert!(received.len() > 1, "{}", received.len());
    for received in received {
        assert!(received.json()["text"].as_str().expect("a text").chars().count() <= 4_000);
        assert!(received.header("authorization").is_empty());
    }
}
