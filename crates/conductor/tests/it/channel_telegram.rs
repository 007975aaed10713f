//! Telegram through the whole server.

use serde_json::{Value, json};

use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, TestServer, World};

const TOKEN: &str = "123456789:a-t0ken-that-nobody-may-see";
const MADE: &str = r#"{"ok":true,"result":{"message_id":42,"date":1,"chat":{"id":-7}}}"#;

async fn with_telegram(provider: &Provider) -> TestServer {
    let mut world = World::new();
    world.plugins = json!([{ "name": "log" }, { "name": "telegram" }]);
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "telegram", "channelName": "group",
        "env": { "botToken": "BOT" },
        "options": { "chatId": "-7", "baseUrl": provider.url(), "allowNetworks": ["127.0.0.0/8"] },
    }));
    world.variables.push(("BOT".into(), TOKEN.into()));
    provider.then(Answer { body: MADE, ..Answer::status(200) });
    world.start().await
}

fn message(text: &str) -> Value {
    json!({ "channel": "telegram", "title": "Pump", "message": text, "format": "markdown", "priority": "high" })
}

fn attempts(story: &Value) -> Vec<(String, String)> {
    let attempts = story["deliveries"][0]["attempts"].as_array().expect("attempts");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    attempts.iter().map(|attempt| (text(&attempt["outcome"]), text(&attempt["detail"]))).collect()
}

#[tokio::test]
async fn a_notification_becomes_a_message_in_telegram() {
    let provider = Provider::start().await;
    let server = with_telegram(&provider).await;
    let id = server.send(KEY_A, &message("It is **off**")).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "42");
    let text = "⚠️ <b>HIGH PRIORITY</b>\n<b>Pump</b>\nIt is <b>off</b>";
    let expected = json!({ "chat_id": -7, "text": text, "parse_mode": "HTML" });
    assert_eq!(provider.received()[0].json(), expected);
}

#[tokio::test]
async fn markdown_that_telegram_cannot_read_goes_out_as_it_was_typed() {
    let provider = Provider::start().await;
    let server = with_telegram(&provider).await;
    let refusal = r#"{"ok":false,"error_code":400,"description":"Bad Request: can't parse entities: no end tag"}"#;
    provider.next(Answer { body: refusal, ..Answer::status(400) });
    let id = server.send(KEY_A, &message("It is **off**")).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let refused = "Bad Request: can't parse entities: no end tag";
    assert_eq!(attempts(&story), [("rejected".into(), refused.into()), ("sent".into(), String::new())]);
    let second = provider.received()[1].json();
    assert_eq!(second["text"], "⚠️ HIGH PRIORITY\nPump\nIt is **off**");
    assert!(second.get("parse_mode").is_none(), "{second}");
}

#[tokio::test]
async fn who_has_blocked_the_bot_is_a_dead_letter_and_others_get_theirs() {
    let provider = Provider::start().await;
    let server = with_telegram(&provider).await;
    let words = r#"{"ok":false,"error_code":403,"description":"Forbidden: bot was blocked by the user"}"#;
    provider.next(Answer { body: words, ..Answer::status(403) });
    let to = json!({ "channel": "telegram", "message": "off", "targetId": "42" });
    let id = server.send(KEY_A, &to).await;
    let story = server.wait_for(KEY_A, &id, "failed").await;
    assert_eq!(attempts(&story), [("permanent".into(), "Forbidden: bot was blocked by the user".into())]);
    let id = server.send(KEY_A, &message("on")).await;
    server.wait_for(KEY_A, &id, "sent").await;
}

#[tokio::test]
async fn a_long_text_goes_out_in_parts_of_4096_code_units() {
    let provider = Provider::start().await;
    let server = with_telegram(&provider).await;
    let id = server.send(KEY_A, &message(&"Something & *something* 😀. ".repeat(400))).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let received = provider.received();
    assert_eq!(received.len(), 3);
    for (index, received) in received.iter().enumerate() {
        let text = received.json()["text"].as_str().expect("a text").to_owned();
        let shown = ["<i>", "</i>", "<b>", "</b>"].iter().fold(text.clone(), |text, tag| text.replace(tag, ""));
        let length = shown.replace("&amp;", "&").encode_utf16().count();
        assert!((1..=4_096).contains(&length), "{length}");
        assert!(text.ends_with(&format!("\n({}/3)", index + 1)), "{text}");
        assert_eq!(text.contains("<b>Pump</b>"), index == 0);
    }
}
