//! Matrix through the whole server.

use serde_json::{Value, json};

use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, TestServer, World};

const MADE: &str = r#"{"event_id":"$made:example.org"}"#;

async fn with_matrix(provider: &Provider) -> TestServer {
    let mut world = World::new();
    world.plugins = json!([{ "name": "log" }, { "name": "matrix" }]);
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "matrix", "channelName": "room",
        "env": { "accessToken": "TOKEN" },
        "options": { "homeserverUrl": provider.url(), "roomId": "!room:example.org", "allowNetworks": ["127.0.0.0/8"] },
    }));
    world.variables.push(("TOKEN".into(), "syt_a_t0ken".into()));
    provider.then(Answer { body: MADE, ..Answer::status(200) });
    world.start().await
}

fn delivery(story: &Value) -> &Value {
    &story["deliveries"][0]
}

#[tokio::test]
async fn a_notification_becomes_a_message_in_a_room() {
    let provider = Provider::start().await;
    let server = with_matrix(&provider).await;
    let body = json!({ "channel": "matrix", "title": "Pump", "message": "It is **off**", "format": "markdown" });
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(delivery(&story)["providerId"], "$made:example.org");
    let received = provider.received().remove(0);
    assert_eq!(received.header("authorization"), "Bearer syt_a_t0ken");
    let expected = json!({
        "msgtype": "m.text", "m.mentions": {}, "body": "Pump\nIt is off", "format": "org.matrix.custom.html",
        "formatted_body": "<strong>Pump</strong><br><p>It is <strong>off</strong></p>",
    });
    assert_eq!(received.json(), expected);
}

#[tokio::test]
async fn a_token_that_was_logged_out_stops_the_channel_and_says_so() {
    let provider = Provider::start().await;
    let server = with_matrix(&provider).await;
    let body = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Invalid access token passed."}"#;
    provider.then(Answer { body, ..Answer::status(401) });
    let id = server.send(KEY_A, &json!({ "channel": "matrix", "message": "off" })).await;
    provider.wait_for(1).await;
    let story = server.wait_for(KEY_A, &id, "retrying").await;
    let attempt = &delivery(&story)["attempts"][0];
    assert_eq!((&attempt["outcome"], &attempt["code"]), (&json!("unauthorized"), &json!("M_UNKNOWN_TOKEN")));
    let detail = attempt["detail"].as_str().expect("words");
    assert!(detail.contains("Invalid access token passed.") && !detail.contains("syt_"), "{detail}");
}

#[tokio::test]
async fn a_limit_uses_up_no_attempt() {
    let provider = Provider::start().await;
    let server = with_matrix(&provider).await;
    let body = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":20}"#;
    provider.next(Answer { body, ..Answer::status(429) });
    let id = server.send(KEY_A, &json!({ "channel": "matrix", "message": "off" })).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let attempts = delivery(&story)["attempts"].as_array().expect("attempts");
    assert_eq!((&attempts[0]["outcome"], &attempts[0]["retryAfterMs"]), (&json!("rateLimited"), &json!(20)));
    assert_eq!(attempts[1]["outcome"], "sent");
}
