//! FCM, APNs, ntfy, Gotify and Pushover through the whole server.

use serde_json::{Value, json};

use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, TestServer, World};

/// A key that was made for this test and opens nothing.
const APPLE_KEY: &str = include_str!("../../../conductor-channels/src/apns/test_key.p8");
const GOOGLE_ACCOUNT: &str = include_str!("../../../conductor-channels/src/fcm/example.json");

/// A server where tenant A has a channel of this kind to `provider`. `secrets` are settings that come from variables.
async fn server(kind: &str, provider: &Provider, options: Value, secrets: &[(&str, &str)]) -> TestServer {
    let mut world = World::new();
    world.plugins = json!([{ "name": "log" }, { "name": kind }]);
    let mut all = options;
    all["allowNetworks"] = json!(["127.0.0.0/8"]);
    all["baseUrl"] = Value::from(provider.url().trim_end_matches("/hook"));
    let variables = secrets.iter().map(|(name, value)| (format!("VARIABLE_{name}"), (*value).to_owned()));
    world.variables.extend(variables);
    let env: Value = secrets.iter().map(|(name, _)| (*name, format!("VARIABLE_{name}"))).collect();
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": kind, "channelName": "phone", "env": env, "options": all,
    }));
    world.start().await
}

fn answering(body: &'static str) -> Answer {
    Answer { body, ..Answer::status(200) }
}

/// The attempts' outcomes and codes.
fn attempts(story: &Value) -> Vec<(&str, Option<&str>)> {
    let attempts = story["deliveries"][0]["attempts"].as_array().into_iter().flatten();
    attempts.map(|attempt| (attempt["outcome"].as_str().unwrap_or_default(), attempt["code"].as_str())).collect()
}

fn urgent(channel: &str) -> Value {
    json!({ "channel": channel, "title": "Pump", "message": "It is off", "priority": "high" })
}

#[tokio::test]
async fn fcm_fetches_a_token_and_sends_and_a_phone_without_the_app_is_a_dead_letter() {
    let provider = Provider::start().await;
    provider.next(answering(r#"{"access_token":"ya29.token","expires_in":3599}"#));
    provider.next(answering(r#"{"name":"projects/example-project/messages/7"}"#));
    provider.then(Answer {
        body: r#"{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND",
            "details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}"#,
        ..Answer::status(404)
    });
    let mut account: Value = serde_json::from_str(GOOGLE_ACCOUNT).expect("JSON");
    account["token_uri"] = Value::from(provider.url());
    let secrets = [("serviceAccount", account.to_string())];
    let secrets = [(secrets[0].0, secrets[0].1.as_str())];
    let server = server("fcm", &provider, json!({ "target": "/topics/pumps" }), &secrets).await;
    let id = server.send(KEY_A, &urgent("fcm")).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "projects/example-project/messages/7");
    let mut gone = urgent("fcm");
    gone["targetId"] = json!("a-device:token");
    let id = server.send(KEY_A, &gone).await;
    let story = server.wait_for(KEY_A, &id, "failed").await;
    assert_eq!(attempts(&story), [("permanent", Some("UNREGISTERED"))]);
    let received = provider.received();
    assert_eq!(received.len(), 3, "one token does for both");
    assert_eq!(received[1].header("authorization"), "Bearer ya29.token");
    assert_eq!(received[1].json()["message"]["topic"], "pumps");
    assert_eq!(received[2].json()["message"]["token"], "a-device:token");
}

#[tokio::test]
async fn apns_shortens_a_long_text_and_a_phone_without_the_app_is_a_dead_letter() {
    let provider = Provider::start().await;
    provider.next(Answer::status(200).header("apns-id", "EABEAE54-14A8-11E5-B60B-1697F925EC7B"));
    provider.then(Answer { body: r#"{"reason":"Unregistered","timestamp":1454948015990}"#, ..Answer::status(410) });
    let options = json!({ "keyId": "ABC123DEFG", "teamId": "DEF123GHIJ", "topic": "com.example.app" });
    let server = server("apns", &provider, options, &[("key", APPLE_KEY)]).await;
    let mut body = urgent("apns");
    (body["message"], body["targetId"]) = ("It is off. ".repeat(2_000).into(), "ab12".into());
    (body["key"], body["expiresAt"]) = ("pump".into(), "2099-01-01T00:00:00Z".into());
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "EABEAE54-14A8-11E5-B60B-1697F925EC7B");
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "failed").await;
    assert_eq!(attempts(&story), [("permanent", Some("Unregistered"))]);
    let received = provider.received();
    assert_eq!(received.len(), 2, "a long text is one notification");
    let places = received.iter().map(|received| received.header("apns-collapse-id"));
    assert_eq!(places.collect::<std::collections::BTreeSet<_>>().len(), 1, "both have the same key");
    assert_eq!(received[0].header("apns-expiration"), "4070908800");
    let alert = &received[0].json()["aps"]["alert"];
    assert!(received[0].body.len() <= 4096 && alert["body"].as_str().is_some_and(|body| body.ends_with("off.…")));
    assert_eq!((received[0].header("apns-priority"), &alert["title"]), ("10", &json!("Pump")));
}

#[tokio::test]
async fn ntfy_sends_a_long_text_in_parts_of_which_one_rings_loudly() {
    let provider = Provider::start().await;
    provider.then(answering(r#"{"id":"sPs71M8A2T","event":"message"}"#));
    let server = server("ntfy", &provider, json!({ "topic": "pumps" }), &[("token", "tk_1234567890")]).await;
    let mut body = urgent("ntfy");
    body["message"] = "It is off. ".repeat(600).into();
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "sPs71M8A2T");
    let received = provider.received();
    let priorities: Vec<_> = received.iter().map(|received| received.json()["priority"].clone()).collect();
    assert_eq!(priorities, [json!(5), json!(3)]);
    assert!(received.iter().all(|received| received.header("authorization") == "Bearer tk_1234567890"));
    assert!(received[1].json()["message"].as_str().is_some_and(|text| text.ends_with("(2/2)")));
}

#[tokio::test]
async fn gotify_is_tried_again_when_it_was_down() {
    let provider = Provider::start().await;
    provider.next(Answer::status(503)).then(answering(r#"{"id":25}"#));
    let options = json!({ "serverUrl": "https://gotify.example" });
    let server = server("gotify", &provider, options, &[("appToken", "A-token")]).await;
    let id = server.send(KEY_A, &urgent("gotify")).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(attempts(&story), [("retryable", Some("503")), ("sent", None)]);
    assert_eq!(story["deliveries"][0]["providerId"], "25");
    let received = provider.received();
    assert_eq!(received[1].header("x-gotify-key"), "A-token");
    assert_eq!(received[1].json(), json!({ "title": "Pump", "message": "It is off", "priority": 8 }));
}

#[tokio::test]
async fn pushover_is_never_asked_twice_for_what_it_refuses() {
    let provider = Provider::start().await;
    provider.next(answering(r#"{"status":1,"request":"647d2300-702c-4b38-8b2f-d56326ae460b"}"#));
    provider.then(Answer { body: r#"{"status":0,"errors":["message is blank"]}"#, ..Answer::status(400) });
    let options = json!({ "user": "uQiRzpo4DXghDmr9QzzfQu27cmVRsG" });
    let token = "azGDORePK8gMaC0QOYAMyEEuzJnyUi";
    let server = server("pushover", &provider, options, &[("token", token)]).await;
    let id = server.send(KEY_A, &urgent("pushover")).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let id = server.send(KEY_A, &urgent("pushover")).await;
    let story = server.wait_for(KEY_A, &id, "failed").await;
    assert_eq!(attempts(&story), [("rejected", Some("400"))]);
    assert_eq!(story["deliveries"][0]["attempts"][0]["detail"], "message is blank");
    assert!(!story.to_string().contains(token));
    assert_eq!((provider.received().len(), &provider.received()[0].json()["priority"]), (2, &json!(1)));
}
