//! Telegram through the whole server.

use serde_json::{Value, json};

use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, KEY_B, TENANT_A, TENANT_B, TestServer, World};

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
async fn what_one_tenants_channel_is_told_holds_for_the_other_with_the_same_bot() {
    let provider = Provider::start().await;
    let mut world = World::new();
    world.plugins = json!([{ "name": "log" }, { "name": "telegram" }]);
    for (tenant, chat, bot) in [(TENANT_A, "-7", "BOT"), (TENANT_B, "-8", "BOT"), (TENANT_B, "-9", "OTHER")] {
        world.channels.push(json!({
            "tenantId": tenant, "channelType": "telegram", "channelName": chat, "env": { "botToken": bot },
            "options": { "chatId": chat, "baseUrl": provider.url(), "allowNetworks": ["127.0.0.0/8"] },
        }));
    }
    world.variables.extend([("BOT".into(), TOKEN.into()), ("OTHER".into(), "987:another-bot".into())]);
    provider.next(Answer::status(429).header("retry-after", "3")).then(Answer { body: MADE, ..Answer::status(200) });
    let server = world.start().await;
    let first = server.send(KEY_A, &message("hello")).await;
    provider.wait_for(1).await;
    server.wait_for(KEY_A, &first, "retrying").await;
    let second = server.send(KEY_B, &message("hello")).await;
    let held = server.wait_for(KEY_B, &second, "retrying").await;
    let (outcome, detail) = attempts(&held).remove(0);
    assert!(outcome == "rateLimited" && detail.starts_with("not asked: "), "{outcome}: {detail}");
    assert_eq!(provider.received().len(), 1);
    // Another bot of the same tenant has room of its own.
    let (_, page) = server.get(KEY_B, "/channels").await;
    let other = page["data"].as_array().into_iter().flatten().find(|channel| channel["channelName"] == "-9");
    let mut elsewhere = message("hello");
    elsewhere["channelId"] = other.expect("the channel")["channelId"].clone();
    let id = server.send(KEY_B, &elsewhere).await;
    server.wait_for(KEY_B, &id, "sent").await;
    for (key, id) in [(KEY_A, first), (KEY_B, second)] {
        let story = server.wait_for(key, &id, "sent").await;
        assert_eq!(attempts(&story).len(), 2, "a wait is no failed attempt: {story:#}");
    }
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
