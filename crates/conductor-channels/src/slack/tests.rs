use conductor_core::{Format, Priority, Scope};
use serde_json::json;

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, plugin,
    spec,
};

const TOKEN: &str = "xoxb-T0P-S3CRET";
const WEBHOOK: &str = "https://hooks.slack.com/services/T00000000/B00000000/T0P-S3CRET-PATH";

fn statuses() -> &'static [(u16, SendErrorKind)] {
    &[
        (400, SendErrorKind::Rejected),
        (401, SendErrorKind::Unauthorized),
        (403, SendErrorKind::Unauthorized),
        (404, SendErrorKind::Permanent),
        (408, SendErrorKind::Retryable { retry_after: None }),
        (410, SendErrorKind::Permanent),
        (413, SendErrorKind::Rejected),
        (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
        (500, SendErrorKind::Unknown),
        (502, SendErrorKind::Unknown),
        (503, SendErrorKind::Unknown),
        (504, SendErrorKind::Unknown),
    ]
}

fn made() -> Answer {
    Answer::json(200, &json!({ "ok": true, "channel": "C1H9RESGL", "ts": "1503435956.000247", "message": {} }))
}

fn by_bot() -> Subject {
    Subject {
        plugin: plugin("slack"),
        values: json!({ "botToken": TOKEN, "channel": "C1H9RESGL" }),
        success: made(),
        provider_id: Some("C1H9RESGL:1503435956.000247"),
        secrets: &["T0P-S3CRET"],
        statuses: statuses(),
    }
}

fn by_webhook() -> Subject {
    Subject {
        values: json!({ "webhookUrl": WEBHOOK }),
        success: Answer::text(200, "ok"),
        provider_id: None,
        ..by_bot()
    }
}

fn id(seen: &Seen) -> String {
    seen.json()["metadata"]["event_payload"]["id"].as_str().unwrap_or("").to_owned()
}

mod bot {
    use super::*;
    contract_tests!(by_bot(), id, a_success_that_cannot_be_read_is_no_proof);
}

mod webhook {
    use super::*;
    contract_tests!(by_webhook(), id);
}

async fn seen_with(subject: Subject, message: &Message, options: &Value, allow_mentions: bool) -> Seen {
    let change = |values: &mut Value, context: &mut ChannelContext| {
        context.allow_mentions = allow_mentions;
        for (name, value) in options.as_object().into_iter().flatten() {
            values[name] = value.clone();
        }
    };
    subject.seen_with(message, change).await
}

async fn seen(message: &Message) -> Seen {
    by_bot().seen(message).await
}

fn no(word: &str) -> Answer {
    Answer::json(200, &json!({ "ok": false, "error": word }))
}

fn urgent(format: Format) -> Message {
    let mut message = message("2 **b** & *c* <!channel> @here [d](https://example.com)");
    message.title = Some("Sum *of*\n things".into());
    (message.priority, message.format) = (Priority::High, format);
    message
}

#[tokio::test]
async fn text_arrives_as_typed_with_the_marks_switched_off() {
    let seen = seen(&urgent(Format::Text)).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/api/chat.postMessage"));
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(seen.header("content-type"), "application/json; charset=utf-8");
    let text = "⚠️ HIGH PRIORITY\nSum *of* things\n\
                2 **b** &amp; *c* &lt;!channel&gt; @\u{200B}here [d](https://example.com)";
    let id = urgent(Format::Text).delivery.to_string();
    let expected = json!({
        "channel": "C1H9RESGL", "text": text, "mrkdwn": false, "parse": "none", "link_names": false,
        "metadata": { "event_type": "conductor_notification", "event_payload": { "id": id } },
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn markdown_becomes_slacks_own_marks() {
    let body = seen(&urgent(Format::Markdown)).await.json();
    assert_eq!(body["mrkdwn"], true);
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("⚠️ *HIGH PRIORITY*\n*Sum "), "{text}");
    assert!(text.contains("*b*") && text.contains("_c_") && text.contains("<https://example.com|d>"), "{text}");
    assert!(text.contains("&lt;!channel&gt;") && !text.contains("@here"), "{text}");
}

#[tokio::test]
async fn mentions_fire_only_where_they_may() {
    for format in [Format::Text, Format::Markdown] {
        let body = seen_with(by_bot(), &urgent(format), &json!({}), true).await.json();
        assert!(body["text"].as_str().unwrap().contains("<!channel> @here"), "{body}");
        assert_eq!(body["link_names"], true);
    }
}

#[tokio::test]
async fn options_reach_slack_both_ways() {
    let options = json!({ "threadTs": "1503435956.000247", "unfurl": false });
    for subject in [by_bot(), by_webhook()] {
        let body = seen_with(subject, &message("hello"), &options, false).await.json();
        assert_eq!(body["thread_ts"], "1503435956.000247");
        assert_eq!((&body["unfurl_links"], &body["unfurl_media"]), (&json!(false), &json!(false)));
    }
    let body = seen(&message("hello")).await.json();
    assert!(body.get("thread_ts").is_none() && body.get("unfurl_links").is_none());
}

#[tokio::test]
async fn every_request_fits_slacks_own_description() {
    let Some(spec) = spec("slack_oas3.json") else { return };
    let options = json!({ "threadTs": "1503435956.000247", "unfurl": true });
    for (path, subject) in
        [("/chat.postMessage", by_bot as fn() -> Subject), ("/services/{team}/{bot}/{secret}", by_webhook)]
    {
        let place = format!("/paths/{}/post/requestBody/content/application~1json/schema", path.replace('/', "~1"));
        let described = Description::of("slack_oas3.json", &place).expect("it was there");
        described.refuses(&json!({ "channel": "C1", "text": "x", "txet": "misspelt" }));
        for format in [Format::Text, Format::Markdown] {
            for (options, allow_mentions) in [(&json!({}), false), (&options, true)] {
                let body = seen_with(subject(), &urgent(format), options, allow_mentions).await.json();
                described.fits(&body);
            }
        }
    }
    assert!(spec["paths"]["/auth.test"]["get"].is_object(), "the health check's method");
}

#[tokio::test]
async fn the_length_is_that_of_what_is_sent_and_only_the_first_part_has_a_head() {
    let provider = Provider::answering([made()]).await;
    let channel = by_bot().channel_to(&provider).await;
    for format in [Format::Text, Format::Markdown] {
        for part in [0, 1] {
            let message = Message { part, parts: 2, ..urgent(format) };
            let body = seen(&message).await.json();
            let text = body["text"].as_str().unwrap();
            assert_eq!(channel.length(&message), text.chars().count());
            assert_eq!(text.contains("HIGH PRIORITY"), part == 0);
        }
    }
}

#[tokio::test]
async fn what_slack_would_cut_off_is_never_sent() {
    let provider = Provider::answering([made()]).await;
    let channel = by_bot().channel_to(&provider).await;
    assert!(channel.send(&message(&"ä".repeat(CUT_OFF_AT))).await.is_ok());
    let error = channel.send(&message(&"ä".repeat(CUT_OFF_AT + 1))).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Rejected);
    assert_eq!(provider.seen().len(), 1);
}

#[tokio::test]
async fn a_target_is_another_channel_of_the_bot() {
    for target in ["C2", "#ops", "U024BE7LH", "プロジェクト"] {
        let mut message = message("hello");
        message.target = Some(target.into());
        assert_eq!(seen(&message).await.json()["channel"], target);
    }
}

#[tokio::test]
async fn a_target_that_cannot_be_is_never_asked_for() {
    let long = "x".repeat(TARGET_MAX + 1);
    let bad = ["", " C2", "a b", "C1,C2", "<!channel>", "a\n", long.as_str()].map(|target| (by_bot(), target));
    for (subject, target) in bad.into_iter().chain([(by_webhook(), "C2")]) {
        let provider = Provider::answering([made()]).await;
        let mut message = message("hello");
        message.target = Some(target.into());
        let error = subject.channel_to(&provider).await.send(&message).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn a_refused_target_does_not_stop_the_channel() {
    for word in ["not_in_channel", "restricted_action", "restricted_action_read_only_channel"] {
        let own = by_bot().refusal(&message("hello"), no(word)).await;
        assert_eq!((own.kind, own.code.as_deref()), (SendErrorKind::Unauthorized, Some(word)));
        let mut other = message("hello");
        other.target = Some("C2".into());
        assert_eq!(by_bot().refusal(&other, no(word)).await.kind, SendErrorKind::Permanent, "{word}");
    }
}

#[tokio::test]
async fn a_limit_waits_as_long_as_slack_says() {
    let wait =
        |seconds| SendErrorKind::RateLimited { retry_after: Some(Duration::from_secs(seconds)), scope: Scope::Channel };
    let limited = json!({ "ok": false, "error": "ratelimited" });
    for status in [200, 429] {
        let answer = Answer::json(status, &limited).with("retry-after", "30");
        assert_eq!(by_bot().refusal(&message("hello"), answer).await.kind, wait(30), "{status}");
    }
    let answer = Answer::text(429, "rate_limited").with("retry-after", "30");
    assert_eq!(by_webhook().refusal(&message("hello"), answer).await.kind, wait(30));
}

#[tokio::test]
async fn slacks_own_words_are_told() {
    let body = json!({
        "ok": false, "error": "missing_scope", "needed": "chat:write:bot", "provided": "identify",
        "response_metadata": { "messages": ["[ERROR] must provide a string [json-pointer:/text]"] },
    });
    let error = by_bot().refusal(&message("hello"), Answer::json(200, &body)).await;
    let expected = "Slack refused it: missing_scope; needed: chat:write:bot; provided: identify; \
                    [ERROR] must provide a string [json-pointer:/text] (add the scope at api.slack.com/apps, then \
                    install the app once more)";
    assert_eq!((error.message.as_str(), error.code.as_deref()), (expected, Some("missing_scope")));
    let error = by_webhook().refusal(&message("hello"), Answer::text(404, "no_service")).await;
    assert!(error.message.contains("404") && error.message.contains("no_service (the webhook was removed"), "{error}");
}

#[tokio::test]
async fn a_token_that_slack_repeats_in_a_refusal_is_not_told() {
    let body = json!({ "ok": false, "error": "invalid_arguments", "needed": TOKEN,
        "response_metadata": { "messages": [format!("bad {TOKEN}")] } });
    let error = by_bot().refusal(&message("hello"), Answer::json(200, &body)).await;
    assert!(error.message.contains("***") && !error.message.contains("S3CRET"), "{error}");
}

#[tokio::test]
async fn the_error_tables_are_kept() {
    for (name, subject, least) in [("slack", by_bot(), 10), ("slack_webhook", by_webhook(), 8)] {
        for row in error_classes(name, least).into_iter().flatten() {
            for (status, word) in row.statuses.iter().flat_map(|status| row.codes().map(|word| (*status, word))) {
                let answer = match name {
                    "slack" if status == 200 => no(word),
                    _ => Answer::text(status, word),
                };
                let result = subject.outcome(&message("hello"), answer).await;
                assert!(is_of_class(&result, &row.class), "{name} {status} {word} {}: {result:?}", row.class);
            }
        }
    }
}

#[tokio::test]
async fn a_page_that_is_not_from_slack_is_no_proof_of_a_message() {
    for subject in [by_bot(), by_webhook()] {
        for page in ["<html>Please log in</html>", "hello", "{}"] {
            let error = subject.refusal(&message("hello"), Answer::text(200, page)).await;
            assert_eq!(error.kind, SendErrorKind::Unknown, "{page}");
        }
    }
}

#[tokio::test]
async fn health_asks_whose_the_token_is() {
    let provider = Provider::answering([Answer::json(200, &json!({ "ok": true, "user": "bot" }))]).await;
    assert_eq!(by_bot().channel_to(&provider).await.health_check().await, Health::Up);
    let seen = provider.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", "/api/auth.test"));
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    for answer in [no("invalid_auth"), Answer::status(500), Answer::text(200, "<html>"), Answer::Close] {
        let provider = Provider::answering([answer.clone()]).await;
        let health = by_bot().channel_to(&provider).await.health_check().await;
        assert!(matches!(health, Health::Down { .. }), "{answer:?}: {health:?}");
    }
    let provider = Provider::answering([no("ratelimited")]).await;
    assert_eq!(by_bot().channel_to(&provider).await.health_check().await, Health::Unknown);
    let provider = Provider::answering([Answer::text(200, "ok")]).await;
    assert_eq!(by_webhook().channel_to(&provider).await.health_check().await, Health::Unknown);
    assert!(provider.seen().is_empty());
}

#[test]
fn faults_of_the_settings_show_no_value() {
    for token in ["", "T0P-S3CRET", "Bearer xoxb-T0P", "xoxb-T0P S3CRET", "xoxb-T0P\n", "https://T0P-S3CRET.example"] {
        let faults = faults(plugin("slack"), json!({ "botToken": token, "channel": "a b", "threadTs": "yesterday" }));
        let places: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
        assert_eq!(places, ["botToken", "channel", "threadTs"], "{faults:?}");
        assert!(!faults.concat().contains("T0P"), "{faults:?}");
    }
    for url in ["T0P-S3CRET", "https://hooks.slack.com", "https://hooks.slack.com/triggers/T0P-S3CRET/1/2"] {
        let faults = faults(plugin("slack"), json!({ "webhookUrl": url }));
        assert!(faults.len() == 1 && faults[0].starts_with("webhookUrl: "), "{faults:?}");
        assert!(!faults.concat().contains("T0P"), "{faults:?}");
    }
}

#[test]
fn one_way_is_needed_and_only_one() {
    let all = json!({ "botToken": TOKEN, "channel": "C1H9RESGL", "webhookUrl": WEBHOOK });
    for (values, expected) in [
        (json!({}), ": nothing says where to send"),
        (json!({ "botToken": TOKEN }), "channel: is missing"),
        (json!({ "channel": "C1" }), "botToken: is missing"),
        (all, "webhookUrl: is set, but so is `botToken`"),
    ] {
        let faults = faults(plugin("slack"), values);
        assert!(faults.len() == 1 && faults[0].starts_with(expected), "{expected}: {faults:?}");
    }
}
