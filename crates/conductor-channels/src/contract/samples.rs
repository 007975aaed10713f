//! Settings of channels of many plugins, for tests that try all of them.

use serde_json::{Value, json};

/// What a channel can be told, with another secret where `other` says so, and another target than its own.
pub(crate) struct Sample {
    pub(crate) kind: &'static str,
    pub(crate) values: fn(other: bool) -> Value,
    pub(crate) target: Option<&'static str>,
}

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

/// One of each plugin that speaks HTTP to a provider that counts.
pub(crate) fn samples() -> Vec<Sample> {
    let sample = |kind, values, target| Sample { kind, values, target };
    vec![
        sample("discord", |o| json!({ "botToken": pick(o, "a.b.c", "d.e.f"), "channelId": "41" }), Some("42")),
        sample(
            "discord-webhook",
            |o| json!({ "webhookUrl": format!("https://discord.com/api/webhooks/77/{}", pick(o, "aaa", "bbb")) }),
            Some("42"),
        ),
        sample("slack", |o| json!({ "botToken": pick(o, "xoxb-a", "xoxb-b"), "channel": "C1" }), Some("C2")),
        sample("telegram", |o| json!({ "botToken": pick(o, "1:aaa", "1:bbb"), "chatId": "-1" }), None),
        sample(
            "matrix",
            |o| json!({ "homeserverUrl": "https://m.example", "accessToken": pick(o, "a", "b"), "roomId": "!a:x" }),
            Some("!b:x"),
        ),
        sample(
            "sms",
            |o| json!({ "accountSid": ACCOUNT, "authToken": pick(o, "a", "b"), "from": "+15551234567" }),
            Some("+15557654321"),
        ),
        sample(
            "whatsapp",
            |o| json!({ "accessToken": pick(o, "a", "b"), "phoneNumberId": "1", "to": "+15551234567" }),
            Some("+15557654321"),
        ),
        sample("ntfy", |o| json!({ "topic": "a", "token": pick(o, "tk_a", "tk_b") }), Some("b")),
        sample("gotify", |o| json!({ "serverUrl": "https://g.example", "appToken": pick(o, "a", "b") }), None),
        sample(
            "pushover",
            |o| json!({ "token": pick(o, "a", "b").repeat(30), "user": "u".repeat(30) }),
            Some("gznej3rKEVAvPUxu9vvNnqpmZpokzF"),
        ),
        sample(
            "mattermost",
            |o| json!({ "serverUrl": "https://c.example", "botToken": pick(o, "a", "b"), "channelId": "c".repeat(26) }),
            Some("dddddddddddddddddddddddddd"),
        ),
        sample(
            "teams",
            |o| json!({ "webhookUrl": format!("https://t.example/x?sig={}", pick(o, "aaaa", "bbbb")) }),
            None,
        ),
        sample(
            "google-chat",
            |o| json!({ "webhookUrl": format!("https://g.example/v1/spaces/A/messages?key=k&token={}", pick(o, "a", "b")) }),
            None,
        ),
        sample("apns", apple, Some("ab12")),
    ]
}

fn pick(other: bool, one: &'static str, another: &'static str) -> &'static str {
    if other { another } else { one }
}

fn apple(other: bool) -> Value {
    let key = include_str!("../apns/test_key.p8");
    json!({ "key": key, "keyId": pick(other, "QUOTA00001", "QUOTA00002"), "teamId": "DEF123GHIJ",
        "topic": "com.example.app", "deviceToken": "00fc13ad" })
}
