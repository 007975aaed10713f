use conductor_core::{Format, Priority, Scope};
use serde_json::{Value, json};

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, plugin,
};
use crate::discord::tests::codes;

const RETRYABLE: SendErrorKind = SendErrorKind::Retryable { retry_after: None };
const URL: &str = "https://discord.com/api/webhooks/223704706495545344/T0P-S3CRET_token";

fn subject() -> Subject {
    Subject {
        plugin: plugin("discord-webhook"),
        values: json!({ "webhookUrl": URL }),
        success: made(),
        provider_id: Some("334385199974967042"),
        secrets: &["T0P-S3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Permanent),
            (408, RETRYABLE),
            (413, SendErrorKind::Rejected),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, SendErrorKind::Unknown),
            (502, RETRYABLE),
            (503, RETRYABLE),
            (504, SendErrorKind::Unknown),
        ],
    }
}

fn made() -> Answer {
    Answer::json(200, &json!({ "id": "334385199974967042", "channel_id": "290926798999357250" }))
}

contract_tests!(subject(), |seen: &Seen| String::from_utf8_lossy(&seen.body).into_owned());

fn urgent() -> Message {
    let mut message = message("2 * 3 * 4 @everyone");
    message.title = Some("Sum *of*".into());
    message.priority = Priority::High;
    message
}

async fn seen(message: &Message, values: Value, allow_mentions: bool) -> Seen {
    Subject { values, ..subject() }.seen_with(message, |_, context| context.allow_mentions = allow_mentions).await
}

#[tokio::test]
async fn a_message_is_posted_and_its_outcome_waited_for() {
    let seen = seen(&urgent(), json!({ "webhookUrl": URL }), false).await;
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.path, "/api/v10/webhooks/223704706495545344/T0P-S3CRET_token?wait=true");
    assert_eq!(seen.header("authorization"), "");
    assert!(seen.header("user-agent").starts_with("DiscordBot (https://"));
    let body = seen.json();
    assert_eq!(body["content"], "⚠️ **HIGH PRIORITY**\n**Sum \\*of\\***\n2 \\* 3 \\* 4 @\u{200B}everyone");
    assert_eq!(body["allowed_mentions"], json!({ "parse": [] }));
}

#[tokio::test]
async fn a_thread_is_the_target() {
    let configured = json!({ "webhookUrl": URL, "threadId": "41" });
    let mut message = message("hello");
    assert!(seen(&message, configured.clone(), false).await.path.ends_with("?wait=true&thread_id=41"));
    message.target = Some("42".into());
    assert!(seen(&message, configured, false).await.path.ends_with("?wait=true&thread_id=42"));
    for target in ["", "general", "1&wait=false", "-1"] {
        let provider = Provider::answering([made()]).await;
        message.target = Some(target.into());
        let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
        assert_eq!((error.kind, provider.seen().len()), (SendErrorKind::Permanent, 0), "{target}");
    }
}

#[tokio::test]
async fn every_request_fits_discords_own_description() {
    let Some(described) = Description::of("discord.json", "/components/schemas/IncomingWebhookRequestPartial") else {
        return;
    };
    described.refuses(&json!({ "contnet": "misspelt" }));
    for (format, allow_mentions) in [(Format::Text, false), (Format::Markdown, true)] {
        let message = Message { format, ..urgent() };
        let body = seen(&message, json!({ "webhookUrl": URL }), allow_mentions).await.json();
        described.fits(&body);
    }
}

#[tokio::test]
async fn two_thousand_characters_are_the_most() {
    let full = message(&"ä".repeat(CONTENT_MAX));
    let sent = seen(&full, json!({ "webhookUrl": URL }), false).await.json();
    assert_eq!(sent["content"].as_str().unwrap().chars().count(), CONTENT_MAX);
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    assert_eq!(channel.length(&full), CONTENT_MAX);
    let error = channel.send(&message(&"ä".repeat(CONTENT_MAX + 1))).await.unwrap_err();
    assert_eq!((error.kind, provider.seen().len()), (SendErrorKind::Rejected, 0));
}

#[tokio::test]
async fn a_webhook_that_was_deleted_stops_the_channel() {
    let gone = Answer::json(404, &json!({ "message": "Unknown Webhook", "code": 10015 }));
    let error = subject().refusal(&message("hello"), gone).await;
    assert_eq!((error.kind, error.code.as_deref()), (SendErrorKind::Unauthorized, Some("10015")));
    assert!(error.message.contains("Unknown Webhook") && error.message.contains("Integrations"), "{error}");
    let unknown = Answer::json(404, &json!({ "message": "Unknown Channel", "code": 10003 }));
    assert_eq!(subject().refusal(&message("hello"), unknown).await.kind, SendErrorKind::Permanent);
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("discord", 20).into_iter().flatten() {
        for (status, code) in
            row.statuses.iter().flat_map(|status| codes(&row.code).into_iter().map(|code| (*status, code)))
        {
            // The table is a bot's: to a webhook's channel, a webhook that is gone is what a refused token is to a bot's.
            let class = if code == 10015 { "auth" } else { &row.class };
            let answer = Answer::json(status, &json!({ "message": "no", "code": code, "global": false }));
            let result = subject().outcome(&message("hello"), answer).await;
            assert!(is_of_class(&result, class), "{status} {code} {class}: {result:?}");
        }
    }
}

#[tokio::test]
async fn a_limit_holds_the_webhook_and_slow_mode_its_thread() {
    for (code, scope) in [(0, Scope::Channel), (20016, Scope::Lane)] {
        let body = json!({ "message": "slow", "retry_after": 1.5, "global": false, "code": code });
        let error = subject().refusal(&message("hello"), Answer::json(429, &body)).await;
        let retry_after = Some(Duration::from_millis(1500));
        assert_eq!(error.kind, SendErrorKind::RateLimited { retry_after, scope });
    }
}

#[tokio::test]
async fn health_asks_for_the_webhook_itself() {
    let provider = Provider::answering([Answer::json(200, &json!({ "id": "223704706495545344" }))]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Up);
    let seen = provider.only();
    assert_eq!(seen.method, "GET");
    assert_eq!(seen.path, "/api/v10/webhooks/223704706495545344/T0P-S3CRET_token");
    let gone = Answer::json(404, &json!({ "message": "Unknown Webhook", "code": 10015 }));
    let provider = Provider::answering([gone]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert!(matches!(&health, Health::Down { reason } if reason.contains("Unknown Webhook")), "{health:?}");
}

#[test]
fn an_address_that_is_no_webhooks_is_told_and_never_shown() {
    for url in [
        "",
        "T0P-S3CRET",
        "ftp://discord.com/api/webhooks/1/T0P-S3CRET",
        "http://discord.com/api/webhooks/1/T0P-S3CRET",
        "https://discord.com:8443/api/webhooks/1/T0P-S3CRET",
        "https://discord.example/api/webhooks/1/T0P-S3CRET",
        "https://discord.com/channels/1/T0P-S3CRET",
        "https://discord.com/api/webhooks/T0P-S3CRET",
        "https://discord.com/api/webhooks/x/T0P-S3CRET",
        "https://discord.com/api/webhooks/1/T0P-S3CRET/slack",
        "https://discord.com/api/webhooks/1/T0P-S3CRET/github",
        "https://discord.com/api/webhooks/1/T0P-S3CRET%2F..",
    ] {
        let faults = faults(plugin("discord-webhook"), json!({ "webhookUrl": url, "threadId": "x" }));
        assert_eq!(faults.len(), 2, "{url}: {faults:?}");
        assert!(faults[0].starts_with("webhookUrl: ") && faults[1].starts_with("threadId: "), "{faults:?}");
        assert!(!faults.concat().contains("T0P"), "{faults:?}");
    }
    for url in
        ["https://discord.com/api/v10/webhooks/1/T0P-S3CRET", "https://discordapp.com/api/webhooks/1/a_b-c?wait=true"]
    {
        assert_eq!(faults(plugin("discord-webhook"), json!({ "webhookUrl": url })), Vec::<String>::new());
    }
}
