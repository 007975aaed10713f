use serde_json::json;

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, plugin,
};

const TOKEN: &str = "T0P.S3CRET-token_";

fn subject() -> Subject {
    Subject {
        plugin: plugin("gotify"),
        values: json!({ "serverUrl": "https://gotify.example.com/push", "appToken": TOKEN }),
        success: made(),
        provider_id: Some("25"),
        secrets: &["T0P.S3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Unauthorized),
            (408, SendErrorKind::Retryable { retry_after: None }),
            (413, SendErrorKind::Rejected),
            (500, SendErrorKind::Unknown),
            (502, SendErrorKind::Retryable { retry_after: None }),
            (503, SendErrorKind::Retryable { retry_after: None }),
            (504, SendErrorKind::Unknown),
        ],
    }
}

fn made() -> Answer {
    Answer::json(200, &json!({ "id": 25, "appid": 5, "message": "hello", "date": "2018-02-27T19:36:10.5+01:00" }))
}

contract_tests!(subject(), |seen: &Seen| String::from_utf8_lossy(&seen.body).into_owned());

async fn seen(message: &Message) -> Seen {
    subject().seen(message).await
}

fn urgent() -> Message {
    let mut message = message("**2** * 3");
    (message.title, message.priority) = (Some("Sum\nof things".into()), Priority::High);
    message.data.insert("click".into(), json!("https://example.com/sum"));
    message
}

#[tokio::test]
async fn a_message_is_created_as_gotify_wants_it() {
    let seen = seen(&urgent()).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/message"));
    assert_eq!(seen.header("x-gotify-key"), TOKEN);
    assert_eq!(seen.header("content-type"), "application/json");
    let expected = json!({
        "title": "Sum of things", "message": "**2** * 3", "priority": 8,
        "extras": { "client::notification": { "click": { "url": "https://example.com/sum" } } },
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn text_stays_text_and_markdown_says_that_it_is() {
    let mut message = message("a *b*");
    assert_eq!(seen(&message).await.json(), json!({ "message": "a *b*", "priority": 5 }));
    (message.format, message.priority) = (Format::Markdown, Priority::Low);
    let extras = json!({ "client::display": { "contentType": "text/markdown" } });
    assert_eq!(seen(&message).await.json(), json!({ "message": "a *b*", "priority": 2, "extras": extras }));
}

#[tokio::test]
async fn every_request_fits_gotifys_own_description() {
    let Some(described) = Description::of("gotify.json", "/definitions/CreateMessage") else { return };
    described.refuses(&json!({ "mesage": "misspelt" }));
    for format in [Format::Text, Format::Markdown] {
        let body = seen(&Message { format, ..urgent() }).await.json();
        described.fits(&body);
    }
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("gotify", 5).into_iter().flatten() {
        // 502 and 503 come from a proxy that has not reached Gotify, so there they are worth another try at once.
        for status in row.statuses.iter().copied().filter(|status| !matches!(status, 502 | 503)) {
            let body = json!({ "error": "Title", "errorCode": status, "errorDescription": "what it is" });
            let error = subject().refusal(&message("hello"), Answer::json(status, &body)).await;
            assert!(error.message.starts_with("what it is"), "{error}");
            assert!(is_of_class(&Err(error.clone()), &row.class), "{status} {}: {error:?}", row.class);
        }
    }
}

#[tokio::test]
async fn a_target_is_refused_because_the_token_is_the_target() {
    let provider = Provider::answering([made()]).await;
    let mut message = message("hello");
    message.target = Some("5".into());
    let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Permanent);
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn a_page_that_is_not_from_gotify_is_no_proof_of_a_message() {
    let provider = Provider::answering([Answer::page()]).await;
    let channel = subject().channel_to(&provider).await;
    assert_eq!(channel.send(&message("hello")).await.unwrap_err().kind, SendErrorKind::Unknown);
    assert!(matches!(channel.health_check().await, Health::Down { .. }));
}

#[tokio::test]
async fn health_asks_the_server_how_it_is_and_shows_it_the_token() {
    let green = || Answer::json(200, &json!({ "health": "green", "database": "green" }));
    let provider = Provider::answering([green(), Answer::status(400)]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Up);
    let seen: Vec<_> = provider.seen().iter().map(|seen| (seen.method.clone(), seen.path.clone())).collect();
    assert_eq!(seen, [("GET".into(), "/health".into()), ("POST".into(), "/message".into())]);
    assert_eq!((provider.seen()[1].json(), provider.seen()[1].header("x-gotify-key")), (json!({}), TOKEN));
    for answers in [
        vec![Answer::json(500, &json!({ "health": "orange", "database": "red" }))],
        vec![Answer::json(200, &json!({ "health": "green", "database": "red" }))],
        vec![Answer::status(404)],
        vec![Answer::Hang],
        vec![green(), Answer::status(401)],
        vec![green(), Answer::status(403)],
        vec![green(), Answer::Close],
    ] {
        let provider = Provider::answering(answers.clone()).await;
        let health = subject().channel_to(&provider).await.health_check().await;
        assert!(matches!(health, Health::Down { .. }), "{answers:?}: {health:?}");
    }
    let provider = Provider::answering([green(), Answer::status(429)]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Unknown);
}

#[test]
fn faults_of_the_settings_show_no_value() {
    for token in ["", "T0P S3CRET", "T0P.S3CRET\n", "T0P.S3CRÉT"] {
        let faults = faults(plugin("gotify"), json!({ "appToken": token, "serverUrl": "ftp://a:T0P@b.example" }));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("serverUrl: ") && faults[1].starts_with("appToken: "), "{faults:?}");
        assert!(!faults.concat().contains("T0P"), "{faults:?}");
    }
}
