use conductor_core::{Priority, Scope};

use super::*;
use crate::contract::{
    Answer, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, plugin,
};

const TOKEN: &str = "T0P-S3CRET-token";
const CHANNEL: &str = "4xp9fdt77pncbef59f4k1qe83o";
const OTHER: &str = "7jbd4tsy4fgfxxonqzm8ymz5ph";

fn made() -> Answer {
    Answer::json(201, &json!({ "id": "q1w2e3r4t5y6u7i8o9p0a1s2d3", "channel_id": CHANNEL, "message": "hello" }))
}

fn refused(status: u16, id: &str) -> Answer {
    Answer::json(status, &json!({ "id": id, "message": "It cannot be.", "detailed_error": "", "status_code": status }))
}

fn by_bot() -> Subject {
    Subject {
        plugin: plugin("mattermost"),
        values: json!({ "serverUrl": "https://chat.example.com/team", "botToken": TOKEN, "channelId": CHANNEL }),
        success: made(),
        provider_id: Some("q1w2e3r4t5y6u7i8o9p0a1s2d3"),
        secrets: &["T0P-S3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Permanent),
            (413, SendErrorKind::Rejected),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, SendErrorKind::Unknown),
            (501, SendErrorKind::Unauthorized),
            (502, SendErrorKind::Unknown),
            (503, SendErrorKind::Unknown),
        ],
    }
}

fn by_webhook() -> Subject {
    Subject {
        values: json!({ "webhookUrl": "https://chat.example.com/hooks/T0P-S3CRET-PATH" }),
        success: Answer::text(200, "ok"),
        provider_id: None,
        ..by_bot()
    }
}

mod bot {
    use super::*;
    contract_tests!(by_bot(), |seen: &Seen| seen.json()["pending_post_id"].as_str().unwrap_or("").to_owned());
}

mod webhook {
    use super::*;
    contract_tests!(by_webhook(), |seen: &Seen| {
        seen.json()["props"]["conductor_id"].as_str().unwrap_or("").to_owned()
    });
}

async fn seen_with(subject: Subject, message: &Message, allow_mentions: bool) -> Seen {
    subject.seen_with(message, |_, context| context.allow_mentions = allow_mentions).await
}

fn urgent(format: Format) -> Message {
    let mut message = message("2 **b** @all [d](https://example.com)");
    message.title = Some("Sum *of*\n things".into());
    (message.priority, message.format) = (Priority::High, format);
    message
}

fn to(target: &str) -> Message {
    Message { target: Some(target.into()), ..message("hello") }
}

#[tokio::test]
async fn a_bot_makes_a_post() {
    let seen = seen_with(by_bot(), &urgent(Format::Text), false).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/api/v4/posts"));
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    let id = urgent(Format::Text).delivery.to_string();
    let text =
        "⚠️ **HIGH PRIORITY**\n**Sum \\*of\\* things**\n2 \\*\\*b\\*\\* @\u{200B}all \\[d](<https://example.com>)";
    let expected = json!({
        "channel_id": CHANNEL, "message": text, "pending_post_id": id,
        "props": { "conductor_id": id, "disable_group_highlight": true },
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn a_webhook_gets_a_text() {
    let seen = seen_with(by_webhook(), &urgent(Format::Markdown), false).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/hooks/T0P-S3CRET-PATH"));
    assert!(seen.header("authorization").is_empty());
    let body = seen.json();
    let names: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, ["props", "text"]);
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("⚠️ **HIGH PRIORITY**\n**Sum \\*of\\* things**\n"), "{text}");
    assert!(text.contains("**b**") && text.contains("[d](https://example.com)") && !text.contains("@all"), "{text}");
}

#[tokio::test]
async fn mentions_fire_only_where_they_may() {
    for format in [Format::Text, Format::Markdown] {
        let body = seen_with(by_bot(), &urgent(format), true).await.json();
        assert!(body["message"].as_str().unwrap().contains(" @all "), "{body}");
        assert!(body["props"].get("disable_group_highlight").is_none());
    }
}

#[tokio::test]
async fn a_thread_is_kept_to() {
    let mut subject = by_bot();
    subject.values["rootId"] = OTHER.into();
    assert_eq!(seen_with(subject, &message("hello"), false).await.json()["root_id"], OTHER);
    assert!(seen_with(by_bot(), &message("hello"), false).await.json().get("root_id").is_none());
}

#[tokio::test]
async fn a_target_is_an_id_for_a_bot_and_a_name_for_a_webhook() {
    assert_eq!(seen_with(by_bot(), &to(OTHER), false).await.json()["channel_id"], OTHER);
    for name in ["town-square", "@rita", "off_topic"] {
        assert_eq!(seen_with(by_webhook(), &to(name), false).await.json()["channel"], name);
    }
    let long = "x".repeat(NAME_MAX + 1);
    let by_bot = ["", "town-square", "../users/me"].map(|target| (by_bot(), target));
    let by_webhook = ["", "a b", "a/b", long.as_str()].map(|target| (by_webhook(), target));
    for (subject, target) in by_bot.into_iter().chain(by_webhook) {
        let provider = Provider::answering([made()]).await;
        let error = subject.channel_to(&provider).await.send(&to(target)).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn a_refused_target_does_not_stop_the_channel() {
    let answer = refused(403, "api.context.permissions.app_error");
    for (subject, target) in [(by_bot(), OTHER), (by_webhook(), "town-square")] {
        let own = subject.refusal(&message("hello"), answer.clone()).await;
        assert_eq!(
            (own.kind, own.code.as_deref()),
            (SendErrorKind::Unauthorized, Some("api.context.permissions.app_error"))
        );
        assert!(own.message.contains("It cannot be.") && own.message.contains("add the bot"), "{own}");
        assert_eq!(subject.refusal(&to(target), answer.clone()).await.kind, SendErrorKind::Permanent);
    }
}

#[tokio::test]
async fn a_webhook_that_is_gone_stops_the_channel() {
    let answer = refused(400, "web.incoming_webhook.invalid.app_error");
    let error = by_webhook().refusal(&message("hello"), answer).await;
    assert_eq!(error.kind, SendErrorKind::Unauthorized);
    assert!(error.message.ends_with("(the webhook was removed: make a new one)"), "{error}");
}

#[tokio::test]
async fn a_limit_waits_as_long_as_the_server_says() {
    for (answer, millis) in [
        (Answer::status(429).with("x-ratelimit-reset", "3"), 3_000),
        (Answer::status(429).with("x-ratelimit-reset", "3").with("retry-after", "1"), 1_000),
    ] {
        let error = by_bot().refusal(&message("hello"), answer).await;
        assert_eq!(error.kind.retry_after(), Some(Duration::from_millis(millis)));
    }
}

#[tokio::test]
async fn the_length_is_that_of_what_is_sent_and_only_the_first_part_has_a_head() {
    let provider = Provider::answering([made()]).await;
    let channel = by_bot().channel_to(&provider).await;
    for format in [Format::Text, Format::Markdown] {
        for part in [0, 1] {
            let message = Message { part, parts: 2, ..urgent(format) };
            let body = seen_with(by_bot(), &message, false).await.json();
            let text = body["message"].as_str().unwrap();
            assert_eq!(channel.length(&message), text.chars().count());
            assert_eq!(text.contains("HIGH PRIORITY"), part == 0);
            assert_eq!(body["pending_post_id"], message.part_id().to_string());
        }
    }
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("mattermost", 8).into_iter().flatten() {
        let code =
            Some(row.code.as_str()).filter(|code| code.ends_with(".app_error")).unwrap_or("api.post.x.app_error");
        for status in &row.statuses {
            for subject in [by_bot(), by_webhook()] {
                let result = subject.outcome(&message("hello"), refused(*status, code)).await;
                assert!(is_of_class(&result, &row.class), "{status} {code} {}: {result:?}", row.class);
            }
        }
    }
}

#[tokio::test]
async fn a_page_that_is_not_from_mattermost_is_no_proof_of_a_message() {
    for subject in [by_bot(), by_webhook()] {
        let error = subject.refusal(&message("hello"), Answer::text(200, "<html>Please log in</html>")).await;
        assert_eq!(error.kind, SendErrorKind::Unknown);
    }
}

#[tokio::test]
async fn health_asks_who_the_bot_is() {
    let provider = Provider::answering([Answer::json(200, &json!({ "id": OTHER }))]).await;
    assert_eq!(by_bot().channel_to(&provider).await.health_check().await, Health::Up);
    let seen = provider.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", "/api/v4/users/me"));
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    let provider = Provider::answering([refused(401, "api.context.session_expired.app_error")]).await;
    let health = by_bot().channel_to(&provider).await.health_check().await;
    assert!(matches!(&health, Health::Down { reason } if reason.contains("the token is wrong")), "{health:?}");
    let provider = Provider::answering([Answer::status(429)]).await;
    assert_eq!(by_bot().channel_to(&provider).await.health_check().await, Health::Unknown);
    assert_eq!(by_webhook().channel_to(&provider).await.health_check().await, Health::Unknown);
    assert_eq!(provider.seen().len(), 1);
}

#[test]
fn faults_of_the_settings_show_no_value() {
    let values = json!({
        "serverUrl": "https://u:T0P@chat.example.com", "botToken": "T0P S3CRET", "channelId": "town-square",
        "rootId": "T0P",
    });
    let all = faults(plugin("mattermost"), values);
    let places: Vec<&str> = all.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(places, ["serverUrl", "botToken", "channelId", "rootId"], "{all:?}");
    assert!(!all.concat().contains("T0P"), "{all:?}");
    for url in ["chat.example.com", "https://chat.example.com/api/v4", "https://chat.example.com?x", "ftp://a"] {
        let faults = faults(plugin("mattermost"), json!({ "serverUrl": url, "botToken": "x", "channelId": CHANNEL }));
        assert!(faults.len() == 1 && faults[0].starts_with("serverUrl: "), "{url}: {faults:?}");
    }
    let thread = json!({ "webhookUrl": "https://chat.example.com/hooks/x", "rootId": CHANNEL });
    assert!(faults(plugin("mattermost"), thread)[0].starts_with("rootId: works for a bot only"));
}
