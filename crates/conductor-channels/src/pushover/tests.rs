use conductor_core::Format;
use serde_json::json;

use super::*;
use crate::contract::{
    Answer, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, now, plugin,
};

const TOKEN: &str = "T0PS3CRETT0PS3CRETT0PS3CRET123";
const USER: &str = "uQiRzpo4DXghDmr9QzzfQu27cmVRsG";
const GROUP: &str = "gznej3rKEVAvPUxu9vvNnqpmZpokzF";
const REQUEST: &str = "647d2300-702c-4b38-8b2f-d56326ae460b";

const PAUSED: SendErrorKind = SendErrorKind::Retryable { retry_after: Some(PAUSE) };

fn subject() -> Subject {
    Subject {
        plugin: plugin("pushover"),
        values: json!({ "token": TOKEN, "user": USER }),
        success: made(),
        provider_id: Some(REQUEST),
        secrets: &["T0PS3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Rejected),
            (403, SendErrorKind::Rejected),
            (404, SendErrorKind::Rejected),
            (413, SendErrorKind::Rejected),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, PAUSED),
            (502, PAUSED),
            (503, PAUSED),
        ],
    }
}

fn made() -> Answer {
    Answer::json(200, &json!({ "status": 1, "request": REQUEST }))
}

fn refused(status: u16, member: &str) -> Answer {
    let mut body = json!({ "status": 0, "request": REQUEST, "errors": [format!("{member} is wrong"), "and more"] });
    body[member] = json!("invalid");
    Answer::json(status, &body)
}

contract_tests!(subject(), |seen: &Seen| String::from_utf8_lossy(&seen.body).into_owned());

async fn seen(message: &Message) -> Seen {
    subject().seen(message).await
}

#[tokio::test]
async fn a_message_is_sent_as_pushover_wants_it() {
    let mut message = message("2 * 3 <b>");
    (message.title, message.priority) = (Some("Sum\nof things".into()), Priority::High);
    let data = json!({ "click": "https://example.com", "sound": "bike", "device": "phone", "other": 1 });
    message.data = data.as_object().cloned().unwrap();
    let seen = seen(&message).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/1/messages.json"));
    let expected = json!({
        "token": TOKEN, "user": USER, "title": "Sum of things", "message": "2 * 3 <b>", "priority": 1,
        "timestamp": now().seconds(), "url": "https://example.com", "sound": "bike", "device": "phone",
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn markdown_is_sent_as_the_tags_that_pushover_knows_and_text_without_any() {
    let mut message = message("a **b** & [c](https://d.example/?e&f)\n> g");
    (message.format, message.priority) = (Format::Markdown, Priority::Low);
    let body = seen(&message).await.json();
    let text = "a <b>b</b> &amp; <a href=\"https://d.example/?e&amp;f\">c</a>\n\n&gt; g";
    assert_eq!((body["message"].as_str(), body["priority"].as_i64(), &body["html"]), (Some(text), Some(-1), &json!(1)));
    message.format = Format::Text;
    let body = seen(&message).await.json();
    assert_eq!((body["message"].as_str(), body.get("html")), (Some(message.body.as_str()), None));
}

#[tokio::test]
async fn the_length_is_that_of_what_is_sent() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    for format in [Format::Text, Format::Markdown] {
        let message = Message { format, ..message("**b** & <c>") };
        let body = seen(&message).await.json();
        assert_eq!(channel.length(&message), body["message"].as_str().unwrap().chars().count());
    }
}

#[tokio::test]
async fn a_message_goes_from_the_devices_only_after_a_time_that_its_caller_names() {
    let mut message = message("hello");
    assert!(seen(&message).await.json().get("ttl").is_none());
    for (ttl, expected) in [(json!(3600), Some(3600)), (json!(0), None), (json!("soon"), None)] {
        message.data.insert("ttl".into(), ttl);
        assert_eq!(seen(&message).await.json()["ttl"].as_u64(), expected);
    }
}

#[tokio::test]
async fn only_the_first_part_has_the_title_and_rings() {
    let mut message = message("text");
    (message.title, message.priority, message.parts) = (Some("Title".into()), Priority::High, 2);
    message.part = 1;
    let body = seen(&message).await.json();
    assert!(body.get("title").is_none());
    assert_eq!(body["priority"], 0);
}

#[tokio::test]
async fn a_thousand_and_twenty_four_characters_are_the_most() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    assert!(channel.send(&message(&"😀".repeat(MESSAGE_MAX))).await.is_ok());
    let error = channel.send(&message(&"a".repeat(MESSAGE_MAX + 1))).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Rejected);
    assert_eq!(provider.seen().len(), 1);
    let mut titled = message("text");
    titled.title = Some("ä".repeat(500));
    let title = seen(&titled).await.json()["title"].as_str().unwrap().to_owned();
    assert!(title.chars().count() == TITLE_MAX && title.ends_with('…'), "{title}");
}

#[tokio::test]
async fn the_target_is_another_person_or_a_group() {
    let mut message = message("hello");
    message.target = Some(GROUP.into());
    assert_eq!(seen(&message).await.json()["user"], GROUP);
    for target in ["", "me", "uQiRzpo4DXghDmr9QzzfQu27cmVRs-", "uQiRzpo4DXghDmr9QzzfQu27cmVRsG1"] {
        let provider = Provider::answering([made()]).await;
        message.target = Some(target.into());
        let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty());
    }
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("pushover", 3).into_iter().flatten() {
        for status in &row.statuses {
            let error = subject().refusal(&message("hello"), refused(*status, "message")).await;
            assert_eq!(error.message, "message is wrong; and more");
            assert!(is_of_class(&Err(error.clone()), &row.class), "{status} {}: {error:?}", row.class);
        }
    }
}

#[tokio::test]
async fn a_wrong_token_stops_the_channel_and_a_wrong_key_only_its_message() {
    assert_eq!(subject().refusal(&message("hello"), refused(400, "token")).await.kind, SendErrorKind::Unauthorized);
    assert_eq!(subject().refusal(&message("hello"), refused(400, "user")).await.kind, SendErrorKind::Permanent);
}

#[tokio::test]
async fn a_used_up_quota_waits_for_the_month_to_end() {
    let reset = |seconds: i64| (now().seconds() + seconds).to_string();
    for (value, expected) in [
        (reset(600), Some(Duration::from_secs(600))),
        (reset(40 * 86_400), Some(Duration::from_secs(86_400))),
        (reset(-600), None),
        ("soon".into(), None),
        (i64::MAX.to_string(), None),
    ] {
        let error =
            subject().refusal(&message("hello"), refused(429, "quota").with("x-limit-app-reset", value.clone())).await;
        let limited = SendErrorKind::RateLimited { retry_after: expected, scope: Scope::Channel };
        assert_eq!(error.kind, limited, "{value}");
    }
}

#[tokio::test]
async fn what_is_not_from_pushover_is_no_proof_of_a_message() {
    for answer in [Answer::page(), Answer::json(200, &json!({ "status": 0 }))] {
        assert_eq!(subject().refusal(&message("hello"), answer).await.kind, SendErrorKind::Unknown);
    }
}

#[tokio::test]
async fn health_asks_whether_token_and_key_are_good() {
    let provider = Provider::answering([made()]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Up);
    let seen = provider.only();
    assert_eq!((seen.path.as_str(), seen.json()), ("/1/users/validate.json", json!({ "token": TOKEN, "user": USER })));
    let provider = Provider::answering([refused(400, "token")]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert_eq!(health, Health::Down { reason: "token is wrong; and more".into() });
    let provider = Provider::answering([Answer::status(429)]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Unknown);
}

#[test]
fn faults_of_the_settings_show_no_value() {
    for token in ["", "T0PS3CRET", "T0PS3CRETT0PS3CRETT0PS3CRET12-"] {
        let faults = faults(plugin("pushover"), json!({ "token": token, "user": "T0P" }));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(!faults.concat().contains("T0P"), "{faults:?}");
    }
}
