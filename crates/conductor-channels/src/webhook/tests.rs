use std::time::Duration;

use conductor_core::{Format, Priority};
use serde_json::{Value, json};

use super::*;
use crate::contract::{
    Answer, Provider, Seen, Subject, context, contract_tests, error_classes, faults, is_of_class, message, now, plugin,
    spec,
};
use crate::http::HttpClients;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const RETRYABLE: SendErrorKind = SendErrorKind::Retryable { retry_after: None };

fn subject() -> Subject {
    Subject {
        plugin: plugin("webhook"),
        values: json!({
            "url": "https://hooks.example.com/in/T0P-S3CRET-PATH?token=T0P-S3CRET-QUERY",
            "secret": SECRET,
            "headers": { "Authorization": "Bearer T0P-S3CRET-HEADER" },
        }),
        success: Answer::status(204),
        provider_id: None,
        secrets: &["T0P-S3CRET", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Rejected),
            (403, SendErrorKind::Rejected),
            (404, SendErrorKind::Rejected),
            (408, RETRYABLE),
            (410, SendErrorKind::Unauthorized),
            (413, SendErrorKind::Rejected),
            (422, SendErrorKind::Rejected),
            (425, RETRYABLE),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: conductor_core::Scope::Channel }),
            (500, RETRYABLE),
            (502, RETRYABLE),
            (503, RETRYABLE),
            (504, RETRYABLE),
            (599, RETRYABLE),
        ],
    }
}

contract_tests!(subject(), |seen: &Seen| seen.header("webhook-id").to_owned());

async fn sent(message: &Message, values: Value) -> Seen {
    let provider = Provider::answering([Answer::status(200)]).await;
    let subject = Subject { values, ..subject() };
    assert!(subject.channel_to(&provider).await.send(message).await.is_ok());
    provider.only()
}

#[tokio::test]
async fn the_body_says_all_about_the_notification() {
    let mut message = message("the pump is off");
    message.attempt = 3;
    message.target = Some("cellar".into());
    message.title = Some("Pump".into());
    (message.format, message.priority) = (Format::Markdown, Priority::High);
    message.data.insert("litres".into(), json!(7));
    message.metadata.insert("room".into(), "cellar".into());
    message.key = Some("pump".into());
    let seen = sent(&message, subject().values).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/in/T0P-S3CRET-PATH?token=T0P-S3CRET-QUERY"));
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header("content-length"), seen.body.len().to_string());
    assert_eq!(seen.header("user-agent"), concat!("Conductor/", env!("CARGO_PKG_VERSION")));
    assert_eq!(seen.header("authorization"), "Bearer T0P-S3CRET-HEADER");
    assert_eq!(seen.header("conductor-hops"), "1");
    let expected = json!({
        "type": "notification",
        "timestamp": "1994-11-06T08:49:37.000Z",
        "data": {
            "id": "01943c2a-7c3e-7000-8000-000000000001",
            "deliveryId": message.delivery.to_string(),
            "attempt": 3,
            "tenantId": "01943c2a-7c3e-7000-8000-123456789abc",
            "channelId": "00000000-0000-0000-0000-0000000000c1",
            "channel": "alerts",
            "targetId": "cellar",
            "title": "Pump",
            "message": "the pump is off",
            "format": "markdown",
            "priority": "high",
            "data": { "litres": 7 },
            "metadata": { "room": "cellar" },
            "key": "pump",
            "expiresAt": "1994-11-07T08:49:37.000Z",
        },
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn the_published_library_accepts_the_signature() {
    let provider = Provider::answering([Answer::status(200)]).await;
    let mut context = context(&HttpClients::new(), Some(provider.url()));
    let clock = conductor_core::ManualClock::at(now());
    clock.set(conductor_core::Timestamp::from_millis(i64::try_from(system_millis()).unwrap()));
    context.clock = std::sync::Arc::new(clock);
    let message = message("ünï ☃ \u{0} \"quoted\"");
    assert!(subject().channel(context).await.send(&message).await.is_ok());
    let seen = provider.only();
    assert_eq!(seen.header("webhook-id"), message.delivery.to_string());
    let theirs = standardwebhooks::Webhook::new(SECRET).unwrap();
    theirs.verify(&seen.body, &seen.headers).expect("the signature fits");
    let mut changed = seen.body.clone();
    changed.push(b' ');
    assert!(theirs.verify(&changed, &seen.headers).is_err());
}

#[tokio::test]
async fn the_published_signature_is_the_one_that_is_made() {
    let Some(vectors) = spec("signature_vectors.json") else { return };
    let vector = &vectors["standard_webhooks"]["vectors"][0];
    let text = |name: &str| vector[name].as_str().expect("a text");
    let key = conductor_core::signature::SigningKey::parse(&Secret::new(text("secret"))).expect("a key");
    let seconds = vector["webhook-timestamp"].as_i64().expect("a time");
    assert_eq!(key.sign(text("webhook-id"), seconds, text("body").as_bytes()), text("webhook-signature"));
}

fn system_millis() -> u128 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis()
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let seen = sent(&message("hello"), json!({ "url": "https://example.com/" })).await;
    assert!(!seen.headers.contains_key("webhook-signature"));
    assert_eq!(seen.header("webhook-timestamp"), "784111777");
}

#[tokio::test]
async fn a_base_address_keeps_the_urls_path_and_query() {
    let provider = Provider::answering([Answer::status(200)]).await;
    let base = provider.url().join("/proxy/").unwrap();
    let channel = subject().channel(context(&HttpClients::new(), Some(base))).await;
    assert!(channel.send(&message("hello")).await.is_ok());
    assert_eq!(provider.only().path, "/proxy/in/T0P-S3CRET-PATH?token=T0P-S3CRET-QUERY");
}

#[tokio::test]
async fn a_receiver_that_is_gone_stops_the_channel_and_says_why() {
    let provider = Provider::answering([Answer::status(410)]).await;
    let error = subject().channel_to(&provider).await.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unauthorized);
    assert!(error.message.contains("410 Gone: it wants no more"), "{error}");
}

#[tokio::test]
async fn the_receivers_words_are_told() {
    let provider = Provider::answering([Answer::json(422, &json!({ "message": "no such room" }))]).await;
    let error = subject().channel_to(&provider).await.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.message, "the answer was 422 Unprocessable Entity: no such room");
}

#[test]
fn faults_are_told_all_at_once_and_show_no_value() {
    let values = json!({
        "url": "ftp://example.com/T0P-S3CRET",
        "secret": "T0P-S3CRET",
        "headers": { "Conductor-Hops": "0", "Webhook-Id": "T0P-S3CRET", "bad name": "x", "X-Ok": "fine", "X-Break": "T0P-S3CRET\r\nX: y",
                     "X-A": "1", "x-a": "2" },
    });
    let faults = faults(plugin("webhook"), values);
    let places: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
    let names = ["Conductor-Hops", "Webhook-Id", "X-Break", "bad name", "x-a"].map(|name| format!("headers.{name}"));
    assert_eq!(places[..2], ["url", "secret"]);
    assert_eq!(places[2..], names);
    assert!(!faults.concat().contains("T0P-S3CRET"), "{faults:?}");
}

#[test]
fn a_url_with_a_password_is_a_fault() {
    for url in ["https://user:T0P-S3CRET@example.com/", "not a url", "/hooks", "https://", "mailto:a@example.com"] {
        let faults = faults(plugin("webhook"), json!({ "url": url }));
        assert!(faults.len() == 1 && !faults[0].contains("T0P-S3CRET"), "{url}: {faults:?}");
    }
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("webhook", 8).into_iter().flatten() {
        for status in &row.statuses {
            // A channel has one receiver: one that is gone is not this target's fault but the channel's.
            let class = if *status == 410 { "auth" } else { &row.class };
            let result = subject().outcome(&message("hello"), Answer::status(*status)).await;
            assert!(is_of_class(&result, class), "{status} {class}: {result:?}");
        }
    }
}

#[tokio::test]
async fn a_slow_receiver_costs_no_more_than_the_time_limit() {
    let provider = Provider::answering([Answer::Hang]).await;
    let begun = std::time::Instant::now();
    let error = subject().channel_to(&provider).await.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unknown);
    assert!(begun.elapsed() >= Duration::from_millis(800) && begun.elapsed() < Duration::from_secs(5));
}
