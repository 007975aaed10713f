use serde_json::json;

use super::*;
use crate::contract::{
    Answer, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, plugin,
};

const TOKEN: &str = "tk_T0PS3CRETT0PS3CRETT0PS3CRET12";

fn subject() -> Subject {
    Subject {
        plugin: plugin("ntfy"),
        values: json!({ "topic": "alerts", "token": TOKEN }),
        success: made(),
        provider_id: Some("sPs71M8A2T"),
        secrets: &["T0PS3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Unauthorized),
            (408, SendErrorKind::Retryable { retry_after: None }),
            (413, SendErrorKind::Rejected),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, SendErrorKind::Retryable { retry_after: None }),
            (502, SendErrorKind::Retryable { retry_after: None }),
            (503, SendErrorKind::Retryable { retry_after: None }),
            (507, SendErrorKind::Permanent),
        ],
    }
}

fn made() -> Answer {
    Answer::json(200, &json!({ "id": "sPs71M8A2T", "time": 1_643_935_928, "event": "message", "topic": "alerts" }))
}

fn refused(status: u16, code: u64) -> Answer {
    Answer::json(
        status,
        &json!({ "code": code, "http": status, "error": "what it is", "link": "https://ntfy.sh/docs" }),
    )
}

contract_tests!(subject(), |seen: &Seen| seen.json()["sequence_id"].as_str().unwrap_or("").to_owned());

async fn seen(message: &Message) -> Seen {
    subject().seen(message).await
}

#[tokio::test]
async fn a_message_is_published_as_ntfy_wants_it() {
    let mut message = message("2 * 3");
    (message.title, message.priority) = (Some("Sum\nof things".into()), Priority::High);
    let data = json!({ "tags": ["warning"], "click": "https://example.com", "delay": "1h", "topic": "other" });
    message.data = data.as_object().cloned().unwrap();
    let seen = seen(&message).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/"));
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    let expected = json!({
        "topic": "alerts", "title": "Sum of things", "message": "2 * 3", "priority": 5,
        "tags": ["warning"], "click": "https://example.com", "sequence_id": message.part_id().to_string(),
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn markdown_says_that_it_is_and_only_the_first_part_rings_loudly() {
    let mut message = message("a **b**");
    (message.format, message.priority, message.parts) = (Format::Markdown, Priority::High, 2);
    message.title = Some("Title".into());
    let first = seen(&message).await.json();
    assert_eq!((&first["markdown"], &first["priority"], &first["title"]), (&json!(true), &json!(5), &json!("Title")));
    message.part = 1;
    let second = seen(&message).await.json();
    assert_eq!((&second["priority"], second.get("title")), (&json!(3), None));
    assert_ne!(first["sequence_id"], second["sequence_id"]);
}

#[tokio::test]
async fn what_has_the_same_key_takes_the_first_ones_place() {
    let keyed = |number: u128| Message {
        delivery: conductor_core::DeliveryId::new(uuid::Uuid::from_u128(number)),
        key: Some("pump/1".into()),
        ..message("hello")
    };
    let place = async |message: Message| seen(&message).await.json()["sequence_id"].clone();
    let first = place(keyed(1)).await;
    assert_eq!(first, place(keyed(2)).await);
    assert_ne!(first, place(Message { part: 1, ..keyed(1) }).await);
    assert_ne!(first, place(message("hello")).await);
}

#[tokio::test]
async fn the_servers_address_is_a_setting_and_a_token_is_sent_only_where_there_is_one() {
    let provider = Provider::answering([made()]).await;
    let values = json!({ "topic": "alerts", "serverUrl": provider.url().join("/push/").unwrap() });
    let subject = Subject { values, ..subject() };
    let channel = subject.channel(crate::contract::context(&crate::http::HttpClients::new(), None)).await;
    assert!(channel.send(&message("hello")).await.is_ok());
    let seen = provider.only();
    assert_eq!((seen.path.as_str(), seen.header("authorization")), ("/push/", ""));
}

#[tokio::test]
async fn four_thousand_and_ninety_six_bytes_are_the_most() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    assert!(channel.send(&message(&"a".repeat(MESSAGE_MAX_BYTES))).await.is_ok());
    // As JSON a line end takes two bytes, and the server reads no more than twice the limit.
    for long in ["a".repeat(MESSAGE_MAX_BYTES + 1), "\n".repeat(MESSAGE_MAX_BYTES)] {
        assert!(channel.length(&message(&long)) > MESSAGE_MAX_BYTES);
        let error = channel.send(&message(&long)).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Rejected);
    }
    assert_eq!(provider.seen().len(), 1);
}

#[tokio::test]
async fn the_target_is_another_topic() {
    let mut message = message("hello");
    message.target = Some("garden_2".into());
    assert_eq!(seen(&message).await.json()["topic"], "garden_2");
    for target in ["", "a/b", "a b", "ä", &"a".repeat(65)] {
        let provider = Provider::answering([made()]).await;
        message.target = Some(target.into());
        let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty());
    }
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("ntfy", 9).into_iter().flatten() {
        for (status, code) in
            row.statuses.iter().flat_map(|status| codes(&row.code).into_iter().map(|code| (*status, code)))
        {
            let error = subject().refusal(&message("hello"), refused(status, code)).await;
            assert!(error.message.starts_with("what it is"), "{error}");
            assert_eq!(error.code, Some(code.to_string()));
            assert!(is_of_class(&Err(error.clone()), &row.class), "{status} {code} {}: {error:?}", row.class);
        }
    }
}

/// The codes of a row such as `42902-42907, 42910` or `400xx`.
fn codes(text: &str) -> Vec<u64> {
    let number = |text: &str| text.replace('x', "0").parse::<u64>().expect("a code");
    let mut codes = Vec::new();
    for part in text.split(", ") {
        match part.split_once('-') {
            Some((first, last)) => codes.extend(number(first)..=number(last)),
            None => codes.push(number(part)),
        }
    }
    codes
}

#[tokio::test]
async fn a_protected_topic_that_one_message_names_does_not_stop_the_channel() {
    let mut message = message("hello");
    assert_eq!(subject().refusal(&message, refused(403, 40301)).await.kind, SendErrorKind::Unauthorized);
    message.target = Some("alerts".into());
    assert_eq!(subject().refusal(&message, refused(403, 40301)).await.kind, SendErrorKind::Unauthorized);
    message.target = Some("garden".into());
    assert_eq!(subject().refusal(&message, refused(403, 40301)).await.kind, SendErrorKind::Permanent);
}

#[tokio::test]
async fn a_page_that_is_not_from_ntfy_is_no_proof_of_a_message() {
    let provider = Provider::answering([Answer::page()]).await;
    let channel = subject().channel_to(&provider).await;
    assert_eq!(channel.send(&message("hello")).await.unwrap_err().kind, SendErrorKind::Unknown);
    assert!(matches!(channel.health_check().await, Health::Down { .. }));
}

#[tokio::test]
async fn health_asks_for_the_account_where_there_is_a_token_and_else_for_the_server() {
    let without = Subject { values: json!({ "topic": "alerts" }), ..subject() };
    for (subject, path, answer, up) in [
        (subject(), "/v1/account", Answer::json(200, &json!({ "username": "me" })), true),
        (subject(), "/v1/account", refused(401, 40101), false),
        (without, "/v1/health", Answer::json(200, &json!({ "healthy": false })), false),
    ] {
        let provider = Provider::answering([answer]).await;
        let health = subject.channel_to(&provider).await.health_check().await;
        assert_eq!(health == Health::Up, up, "{health:?}");
        let seen = provider.only();
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", path));
    }
    let provider = Provider::answering([Answer::json(200, &json!({ "healthy": true }))]).await;
    let without = Subject { values: json!({ "topic": "alerts" }), ..self::subject() };
    assert_eq!(without.channel_to(&provider).await.health_check().await, Health::Up);
}

#[test]
fn faults_of_the_settings_show_no_value() {
    let values = json!({ "topic": "T0P S3CRET", "token": "T0P S3CRET", "serverUrl": "https://a:T0P@b.example" });
    let faults = faults(plugin("ntfy"), values);
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(!faults.concat().contains("T0P"), "{faults:?}");
}
