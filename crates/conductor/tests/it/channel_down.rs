//! Providers that are down when the server starts: all of them, in one server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, World};

/// An answer in which every provider's success can be read.
const TAKEN: &str = r#"{"ok":true,"channel":"C1","ts":"1.2","status":1,"request":"r","id":"1","event_id":"$made:x",
    "name":"projects/example-project/messages/1","access_token":"ya29.token","expires_in":3599,
    "result":{"message_id":42},"sid":"SM0123456789abcdef0123456789abcdef","messages":[{"id":"wamid.1"}]}"#;

const APPLE_KEY: &str = include_str!("../../../conductor-channels/src/apns/test_key.p8");
const GOOGLE_ACCOUNT: &str = include_str!("../../../conductor-channels/src/fcm/example.json");

/// For each plugin that speaks HTTP: its secrets, and the rest of what it has to be told.
fn told(url: &str) -> Vec<(&'static str, Value, Value)> {
    let mut account: Value = serde_json::from_str(GOOGLE_ACCOUNT).expect("JSON");
    account["token_uri"] = url.into();
    let chat = "https://chat.googleapis.com/v1/spaces/AAAA/messages?key=a-key&token=a-token";
    vec![
        ("webhook", json!({}), json!({ "url": url })),
        ("discord", json!({ "botToken": "a.bot.token" }), json!({ "channelId": "41", "gateway": false })),
        ("discord-webhook", json!({ "webhookUrl": "https://discord.com/api/webhooks/77/a-token" }), json!({})),
        ("telegram", json!({ "botToken": "123:a-token" }), json!({ "chatId": "42" })),
        (
            "matrix",
            json!({ "accessToken": "syt_token" }),
            json!({ "homeserverUrl": url.trim_end_matches("/hook"), "roomId": "!a:x" }),
        ),
        ("slack", json!({ "botToken": "xoxb-a-token" }), json!({ "channel": "C1" })),
        (
            "mattermost",
            json!({ "botToken": "a-token" }),
            json!({ "serverUrl": "https://chat.example", "channelId": "4xp9fdt77pncbef59f4k1qe83o" }),
        ),
        ("teams", json!({ "webhookUrl": "https://teams.example/flow?sig=a-secret" }), json!({})),
        ("google-chat", json!({ "webhookUrl": chat }), json!({})),
        (
            "sms",
            json!({ "authToken": "a-token" }),
            json!({ "accountSid": "AC0123456789abcdef0123456789abcdef", "from": "+15551234567", "to": "+15557654321" }),
        ),
        ("whatsapp", json!({ "accessToken": "a-token" }), json!({ "phoneNumberId": "1", "to": "+15557654321" })),
        ("fcm", json!({ "serviceAccount": account.to_string() }), json!({ "target": "/topics/news" })),
        (
            "apns",
            json!({ "key": APPLE_KEY }),
            json!({ "keyId": "DOWN123456", "teamId": "DEF123GHIJ", "topic": "com.example.app", "deviceToken": "ab12" }),
        ),
        ("ntfy", json!({ "token": "tk_token" }), json!({ "topic": "alerts" })),
        ("gotify", json!({ "appToken": "a-token" }), json!({ "serverUrl": "https://gotify.example" })),
        (
            "pushover",
            json!({ "token": "azGDORePK8gMaC0QOYAMyEEuzJnyUi" }),
            json!({ "user": "uQiRzpo4DXghDmr9QzzfQu27cmVRsG" }),
        ),
    ]
}

fn channel(world: &mut World, kind: &str, secrets: &Value, options: &Value) {
    let variable = |name: &str| format!("{}_{name}", kind.to_uppercase().replace('-', "_"));
    let secrets = secrets.as_object().expect("secrets");
    let env: Value = secrets.keys().map(|name| (name.clone(), variable(name))).collect();
    let values = secrets.iter().map(|(name, value)| (variable(name), value.as_str().expect("a text").to_owned()));
    world.variables.extend(values);
    let channel =
        json!({ "tenantId": TENANT_A, "channelType": kind, "channelName": kind, "env": env, "options": options });
    world.channels.push(channel);
}

/// A server with a channel of each kind to a port where nobody listens.
fn world(url: &str) -> (World, Vec<&'static str>) {
    let mut world = World::new();
    let mut kinds = Vec::new();
    for (kind, secrets, mut options) in told(url) {
        options["allowNetworks"] = json!(["127.0.0.0/8"]);
        options["baseUrl"] = url.trim_end_matches("/hook").into();
        channel(&mut world, kind, &secrets, &options);
        kinds.push(kind);
    }
    world.plugins = kinds.iter().chain(&["log", "email"]).map(|kind| json!({ "name": kind })).collect();
    (world, kinds)
}

#[tokio::test]
async fn providers_that_are_down_stop_no_start_are_told_and_come_back_by_themselves() {
    let port = Provider::port();
    let url = format!("http://{}/hook", port.local_addr().expect("it is bound"));
    let (mut world, kinds) = world(&url);
    let every =
        conductor_channels::PLUGINS.iter().map(|plugin| plugin.kind).filter(|kind| !["log", "email"].contains(kind));
    assert_eq!(every.collect::<std::collections::BTreeSet<_>>(), kinds.iter().copied().collect());
    let mail = json!({
        "host": "127.0.0.1", "port": port.local_addr().expect("it is bound").port(), "security": "none",
        "from": "a@example.com", "to": "b@example.com", "allowNetworks": ["127.0.0.0/8"],
    });
    channel(&mut world, "email", &json!({}), &mail);
    let begun = Instant::now();
    let server = world.start().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "the start waited: {:?}", begun.elapsed());
    let mut waiting = Vec::new();
    for kind in kinds.iter().copied().chain(["email"]) {
        for number in 0..3 {
            let body = json!({ "channel": kind, "message": format!("number {number}") });
            waiting.push((kind, server.send(KEY_A, &body).await));
        }
    }
    // Nobody else's trouble: what can go out does.
    let id = server.send(KEY_A, &json!({ "channel": "log", "message": "hello" })).await;
    server.wait_for(KEY_A, &id, "sent").await;
    for kind in kinds.iter().copied().chain(["email"]) {
        let reason = server.wait_for_health(KEY_A, kind, "down").await;
        assert!(reason.as_str().is_some_and(|reason| reason.contains("could not connect")), "{kind}: {reason}");
    }
    for (kind, id) in &waiting {
        let (_, story) = server.get(KEY_A, &format!("/notifications/{id}")).await;
        assert_eq!(story["deliveries"][0]["attempts"][0]["outcome"], "retryable", "{kind}: {story:#}");
        assert_ne!(story["status"], "failed", "{kind}");
    }
    let provider = Provider::start_on(port);
    provider.then(Answer { body: TAKEN, ..Answer::status(200) });
    for kind in kinds {
        let id = server.send(KEY_A, &json!({ "channel": kind, "message": "hello again" })).await;
        server.wait_for(KEY_A, &id, "sent").await;
        assert_eq!(server.wait_for_health(KEY_A, kind, "up").await, Value::Null, "{kind}");
    }
    server.stop().await;
}
