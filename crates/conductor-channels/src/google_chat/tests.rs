use conductor_core::{Priority, Scope};

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, plugin,
    spec,
};

const WEBHOOK: &str = "https://chat.googleapis.com/v1/spaces/AAAAspace/messages?key=T0P-S3CRET-KEY&token=T0P-S3CRET%3D";
const PATH: &str = "/v1/spaces/AAAAspace/messages?key=T0P-S3CRET-KEY&token=T0P-S3CRET%3D";
const RETRYABLE: SendErrorKind = SendErrorKind::Retryable { retry_after: None };

fn subject() -> Subject {
    Subject {
        plugin: plugin("google-chat"),
        values: json!({ "webhookUrl": WEBHOOK }),
        success: Answer::json(200, &json!({ "name": "spaces/AAAAspace/messages/UMxb.UMxb", "text": "hello" })),
        provider_id: Some("spaces/AAAAspace/messages/UMxb.UMxb"),
        secrets: &["T0P-S3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Permanent),
            (409, SendErrorKind::Rejected),
            (413, SendErrorKind::Rejected),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, RETRYABLE),
            (502, RETRYABLE),
            (503, RETRYABLE),
            (504, RETRYABLE),
        ],
    }
}

contract_tests!(subject(), |seen: &Seen| {
    seen.path.split_once("&requestId=").map(|(_, id)| id.to_owned()).unwrap_or_default()
});

async fn seen_with(message: &Message, thread: Option<&str>, allow_mentions: bool) -> Seen {
    let change = |values: &mut Value, context: &mut ChannelContext| {
        context.allow_mentions = allow_mentions;
        if let Some(key) = thread {
            values["threadKey"] = key.into();
        }
    };
    subject().seen_with(message, change).await
}

fn refused(status: u16, name: &str) -> Answer {
    Answer::json(status, &json!({ "error": { "code": status, "message": "It cannot be.", "status": name } }))
}

fn urgent(format: Format) -> Message {
    let mut message = message("2 **b** <users/all> [d](https://example.com)");
    message.title = Some("Sum of\n things".into());
    (message.priority, message.format) = (Priority::High, format);
    message
}

#[tokio::test]
async fn a_message_is_created_once_by_its_request_id() {
    let message = urgent(Format::Markdown);
    let seen = seen_with(&message, None, false).await;
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.path, format!("{PATH}&requestId={}", message.delivery));
    let body = seen.json();
    assert_eq!(body.as_object().unwrap().len(), 1);
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("⚠️ *HIGH PRIORITY*\n*Sum of things*\n2 *b* "), "{text}");
    assert!(text.contains("<https://example.com|d>") && !text.contains("<users/all>"), "{text}");
}

#[tokio::test]
async fn text_arrives_as_typed() {
    let body = seen_with(&message("a < b, c & d"), None, false).await.json();
    assert_eq!(body["text"], "a < b, c & d");
    let body = seen_with(&message("2 *b* <https://example.com|x>"), None, false).await.json();
    let text = body["text"].as_str().unwrap();
    assert!(!text.contains("*b*") && !text.contains("<https"), "{text}");
    assert_eq!(text.replace(crate::markdown::BREAK, ""), "2 *b* <https://example.com|x>");
}

#[tokio::test]
async fn mentions_fire_only_where_they_may() {
    for format in [Format::Text, Format::Markdown] {
        let quiet = seen_with(&urgent(format), None, false).await.json();
        assert!(!quiet["text"].as_str().unwrap().contains("<users/all>"), "{quiet}");
        let loud = seen_with(&urgent(format), None, true).await.json();
        assert!(loud["text"].as_str().unwrap().contains("<users/all>"), "{loud}");
    }
}

#[tokio::test]
async fn a_thread_is_begun_or_kept_to() {
    let seen = seen_with(&message("hello"), Some("alerts & more"), false).await;
    assert_eq!(seen.json()["thread"], json!({ "threadKey": "alerts & more" }));
    assert!(seen.path.ends_with("&messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"), "{}", seen.path);
}

#[tokio::test]
async fn every_request_fits_googles_own_description() {
    let Some(described) = Description::of("google_chat.json", "/components/schemas/Message") else { return };
    described.refuses(&json!({ "txet": "misspelt" }));
    let spec = spec("google_chat.json").expect("it was there");
    let parameters = spec["paths"]["/v1/spaces/{spacesId}/messages"]["post"]["parameters"].as_array().unwrap();
    for format in [Format::Text, Format::Markdown] {
        for thread in [None, Some("alerts")] {
            let seen = seen_with(&urgent(format), thread, false).await;
            described.fits(&seen.json());
            let url = Url::parse("http://localhost").unwrap().join(&seen.path).unwrap();
            for (name, value) in url.query_pairs().filter(|(name, _)| !matches!(&**name, "key" | "token")) {
                let parameter = parameters.iter().find(|parameter| parameter["name"] == *name);
                let parameter = parameter.unwrap_or_else(|| panic!("{name} is unknown"));
                let allowed = parameter["schema"]["enum"].as_array();
                assert!(allowed.is_none_or(|allowed| allowed.contains(&json!(value))), "{name}={value}");
            }
        }
    }
}

#[tokio::test]
async fn the_length_is_that_of_what_is_sent_and_only_the_first_part_has_a_head() {
    let provider = Provider::answering([Answer::status(200)]).await;
    let channel = subject().channel_to(&provider).await;
    for format in [Format::Text, Format::Markdown] {
        for part in [0, 1] {
            let message = Message { part, parts: 2, body: "ä€ *b*".into(), ..urgent(format) };
            let seen = seen_with(&message, None, false).await;
            let body = seen.json();
            assert_eq!(channel.length(&message), body["text"].as_str().unwrap().len());
            assert_eq!(body["text"].as_str().unwrap().contains("HIGH PRIORITY"), part == 0);
            assert!(seen.path.ends_with(&message.part_id().to_string()));
        }
    }
}

#[tokio::test]
async fn the_largest_message_fits_with_all_that_is_beside_its_text() {
    let key = "\u{1F600}".repeat(THREAD_KEY_MAX);
    let seen = seen_with(&message(&"x".repeat(TEXT_MAX)), Some(&key), false).await;
    assert!(seen.body.len() <= MESSAGE_MAX, "{}", seen.body.len());
}

#[tokio::test]
async fn a_target_is_never_asked_for() {
    let provider = Provider::answering([Answer::status(200)]).await;
    let message = Message { target: Some("spaces/BBBB".into()), ..message("hello") };
    let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Permanent);
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("google_chat", 7).into_iter().flatten() {
        for status in &row.statuses {
            let name = if matches!(row.code.as_str(), "" | "-") { "INTERNAL" } else { &row.code };
            let result = subject().outcome(&message("hello"), refused(*status, name)).await;
            assert!(is_of_class(&result, &row.class), "{status} {name} {}: {result:?}", row.class);
            if let Err(error) = result {
                assert!(error.message.starts_with("It cannot be.") && error.code.as_deref() == Some(name), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_google_does_not_know_stops_the_channel() {
    let body = json!({ "error": {
        "code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT",
        "details": [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID" }],
    } });
    let error = subject().outcome(&message("hello"), Answer::json(400, &body)).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unauthorized);
    assert_eq!(subject().outcome(&message("hello"), refused(409, "ABORTED")).await.unwrap_err().kind, RETRYABLE);
}

#[tokio::test]
async fn a_page_that_is_not_from_google_is_no_proof_of_a_message() {
    assert_eq!(subject().outcome(&message("hello"), Answer::page()).await.unwrap_err().kind, SendErrorKind::Unknown);
    let odd = Answer::json(200, &json!({ "name": "T0P-S3CRET" }));
    assert_eq!(subject().outcome(&message("hello"), odd).await, Ok(Receipt::default()));
}

#[test]
fn faults_of_the_settings_show_no_value() {
    let space = "https://chat.googleapis.com/v1/spaces/T0P-S3CRET";
    let short = [format!("{space}/messages"), format!("{space}/messages?key=x"), space.to_owned(), "T0P".to_owned()];
    for url in short {
        let faults = faults(plugin("google-chat"), json!({ "webhookUrl": url, "threadKey": "" }));
        let places: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
        assert_eq!(places, ["webhookUrl", "threadKey"], "{faults:?}");
        assert!(!faults.concat().contains("T0P"), "{faults:?}");
    }
}
