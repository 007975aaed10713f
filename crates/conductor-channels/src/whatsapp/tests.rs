use conductor_core::receipts::Arrival;
use conductor_core::receipts::ReceiptMethod;
use conductor_core::{Format, Priority, Scope, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, plugin,
};

const TOKEN: &str = "T0P-S3CRET-access-token";
const WAMID: &str = "wamid.HBgLMTY1MDM4Nzk0MzkVAgARGBI3MTE5MjVBOTE3MDk5QUVFM0YA";

fn subject() -> Subject {
    Subject {
        plugin: plugin("whatsapp"),
        values: json!({
            "accessToken": TOKEN, "phoneNumberId": "106540352242922", "appSecret": "T0P-S3CRET-app",
            "verifyToken": "T0P-S3CRET-verify", "to": "+15557654321",
        }),
        success: made(),
        provider_id: Some(WAMID),
        secrets: &["T0P-S3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Permanent),
            (408, SendErrorKind::Retryable { retry_after: None }),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, SendErrorKind::Unknown),
            (502, SendErrorKind::Retryable { retry_after: None }),
            (503, SendErrorKind::Retryable { retry_after: None }),
            (504, SendErrorKind::Unknown),
        ],
    }
}

fn made() -> Answer {
    let body = json!({ "messaging_product": "whatsapp", "messages": [{ "id": WAMID, "message_status": "accepted" }] });
    Answer::json(200, &body)
}

// Meta recognises no repetition; what it repeats in receipts is the same in every attempt.
contract_tests!(subject(), |seen: &Seen| seen.json()["biz_opaque_callback_data"].as_str().unwrap_or("").to_owned());

async fn sent(message: &Message, change: impl FnOnce(&mut Value)) -> Value {
    let seen = subject().seen_with(message, |values, _| change(values)).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v23.0/106540352242922/messages"));
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    seen.json()
}

fn with_template(template: Value) -> Message {
    let mut message = message("not shown");
    message.data.insert("template".into(), template);
    message
}

#[tokio::test]
async fn a_text_is_sent_as_meta_wants_it() {
    let mut message = message("**bold** text");
    (message.title, message.priority, message.format) = (Some("Pump".into()), Priority::High, Format::Markdown);
    message.target = Some("4915112345678".into());
    let expected = json!({
        "messaging_product": "whatsapp", "recipient_type": "individual", "to": "+4915112345678", "type": "text",
        "text": { "body": "⚠️ *HIGH PRIORITY*\n*Pump*\n*bold* text", "preview_url": false },
        "biz_opaque_callback_data": "01943c2a-7c3e-7000-8000-000000000001.0.0.1",
    });
    assert_eq!(sent(&message, |_| {}).await, expected);
}

#[tokio::test]
async fn a_template_is_sent_in_the_place_of_the_text() {
    let template = json!({ "name": "order_sent", "language": "en_US", "parameters": ["42", 7] });
    let expected = json!({
        "name": "order_sent", "language": { "policy": "deterministic", "code": "en_US" },
        "components": [{ "type": "body",
            "parameters": [{ "type": "text", "text": "42" }, { "type": "text", "text": "7" }] }],
    });
    let body = sent(&with_template(template), |_| {}).await;
    assert_eq!((&body["type"], &body["template"], body.get("text")), (&json!("template"), &expected, None));
    let plain = sent(&with_template(json!({ "name": "hello_world", "language": "en_US" })), |_| {}).await;
    assert_eq!(plain["template"].get("components"), None);
}

#[tokio::test]
async fn a_template_that_makes_no_sense_is_never_asked_for() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    for template in [
        json!("order_sent"),
        json!({}),
        json!({ "name": "a" }),
        json!({ "name": " ", "language": "en" }),
        json!({ "name": "a", "language": { "code": "en" } }),
        json!({ "name": "a", "language": "en", "parameters": "x" }),
        json!({ "name": "a", "language": "en", "parameters": [null] }),
        json!({ "name": "a", "language": "en", "parameters": vec!["x"; 101] }),
        json!({ "name": "a", "language": "en", "params": ["x"] }),
    ] {
        let error = channel.send(&with_template(template.clone())).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{template}");
        assert!(error.message.starts_with("data.template "), "{error}");
    }
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn every_request_fits_metas_own_description() {
    let Some(described) = Description::of("whatsapp.json", "/components/schemas/Message") else { return };
    let template = json!({ "name": "order_sent", "language": "en_US", "parameters": ["42"] });
    let mut titled = message("hello");
    titled.title = Some("Title".into());
    for message in [titled, with_template(template), with_template(json!({ "name": "a", "language": "de" }))] {
        // Without the app's secret, so without `biz_opaque_callback_data`: Meta's description does not know it yet.
        let body = sent(&message, |values| drop(values.as_object_mut().unwrap().remove("appSecret"))).await;
        described.fits(&body);
        let mut misspelt = body.clone();
        misspelt["recipient"] = "x".into();
        described.refuses(&misspelt);
    }
}

#[tokio::test]
async fn the_length_is_that_of_what_is_sent() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    for format in [Format::Text, Format::Markdown] {
        for part in [0, 1] {
            let title = Some("A *title*".to_owned());
            let message = Message { part, parts: 2, format, title, ..message("some **text** and `code`") };
            let body = sent(&message, |_| {}).await;
            assert_eq!(channel.length(&message), body["text"]["body"].as_str().unwrap().chars().count());
        }
    }
    assert!(channel.send(&message(&"ä".repeat(TEXT_MAX))).await.is_ok());
    let error = channel.send(&message(&"ä".repeat(TEXT_MAX + 1))).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Rejected);
    let long = Message { body: "ä".repeat(9_999), ..with_template(json!({ "name": "a", "language": "de" })) };
    assert_eq!(channel.length(&long), 0, "a template is not split");
}

#[tokio::test]
async fn what_is_no_number_is_never_asked_for() {
    for target in ["", "+0155576543", "+1 555 765 4321", "group", "123456", "1234567890123456", "++15557654321"] {
        let provider = Provider::answering([made()]).await;
        let mut message = message("hello");
        message.target = Some(target.into());
        let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty(), "{target}");
    }
}

fn error_body(code: u64) -> Value {
    json!({ "error": { "message": format!("(#{code}) no"), "type": "OAuthException", "code": code,
        "error_data": { "messaging_product": "whatsapp", "details": "in detail" }, "fbtrace_id": "x" } })
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("whatsapp", 20).into_iter().flatten() {
        for code in row.codes() {
            let code: u64 = code.split('-').next().unwrap_or(code).parse().expect("a code");
            // Meta says itself that the status is not to be built on.
            for status in row.statuses.iter().copied().chain([400]) {
                let error = subject().refusal(&message("hello"), Answer::json(status, &error_body(code))).await;
                assert!(error.message.contains("no; in detail") && error.code == Some(code.to_string()), "{error:?}");
                // Not the content is at fault but the time, so that plain text would be refused as well.
                let class = if code == 131_047 { "recipient" } else { &row.class };
                let result = Err(error);
                assert!(is_of_class(&result, class), "{status} {code} {class}: {result:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_limit_waits_as_long_and_as_far_as_it_reaches() {
    let limited = |seconds: Option<u64>, scope| SendErrorKind::RateLimited {
        retry_after: seconds.map(Duration::from_secs),
        scope,
    };
    for (code, told, expected) in [
        (131_056, None, limited(Some(6), Scope::Lane)),
        (131_056, Some("16"), limited(Some(16), Scope::Lane)),
        (130_429, None, limited(None, Scope::Channel)),
        (130_429, Some("3"), limited(Some(3), Scope::Channel)),
        (80_007, None, limited(Some(60), Scope::Channel)),
    ] {
        let mut answer = Answer::json(400, &error_body(code));
        if let Some(told) = told {
            answer = answer.with("retry-after", told);
        }
        assert_eq!(subject().refusal(&message("hello"), answer).await.kind, expected, "{code}");
    }
}

#[tokio::test]
async fn a_closed_window_says_what_to_do() {
    let error = subject().refusal(&message("hello"), Answer::json(400, &error_body(131_047))).await;
    assert_eq!(error.kind, SendErrorKind::Permanent);
    assert!(error.message.contains("24 hours") && error.message.contains("data.template"), "{error}");
}

#[tokio::test]
async fn a_refused_template_is_not_sent_once_more() {
    let template = with_template(json!({ "name": "a", "language": "de" }));
    let error = subject().refusal(&template, Answer::json(404, &error_body(132_001))).await;
    assert_eq!((error.kind, error.code.as_deref()), (SendErrorKind::Permanent, Some("132001")));
}

#[tokio::test]
async fn health_asks_for_the_number() {
    let health = async |answer: Answer| {
        let provider = Provider::answering([answer]).await;
        let health = subject().channel_to(&provider).await.health_check().await;
        (health, provider.only().path)
    };
    let (up, path) = health(Answer::json(200, &json!({ "id": "1", "quality_rating": "GREEN" }))).await;
    assert_eq!((up, path.as_str()), (Health::Up, "/v23.0/106540352242922?fields=quality_rating,status"));
    let (down, _) = health(Answer::json(401, &error_body(190))).await;
    assert!(matches!(&down, Health::Down { reason } if reason.contains("access token")), "{down:?}");
    assert_eq!(health(Answer::status(429)).await.0, Health::Unknown);
}

fn signed(body: &[u8]) -> ReceiptRequest {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"T0P-S3CRET-app");
    let tag = ring::hmac::sign(&key, body);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = [("x-hub-signature-256".to_owned(), format!("sha256={hex}"))].into();
    ReceiptRequest { method: ReceiptMethod::Post, url: None, query: String::new(), headers, body: body.to_vec() }
}

fn webhook(statuses: &Value) -> Vec<u8> {
    let value = json!({ "messaging_product": "whatsapp", "metadata": { "phone_number_id": "106540352242922" },
        "statuses": statuses });
    let change = json!({ "field": "messages", "value": value });
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": [change] }] }).to_string().into()
}

#[tokio::test]
async fn a_receipt_is_taken_only_with_metas_signature() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    let token = message("hello").part_key().to_string();
    let status = |status: &str| {
        json!({ "id": WAMID, "status": status, "timestamp": "1749416383", "recipient_id": "1",
            "biz_opaque_callback_data": token })
    };
    let mut failed = status("failed");
    failed["errors"] = json!([{ "code": 131_026, "title": "Message undeliverable" }]);
    let body = webhook(&json!([status("sent"), status("delivered"), status("read"), failed, { "id": WAMID }, 7]));
    let reports = channel.receipt(&signed(&body)).unwrap().reports;
    let arrivals: Vec<_> = reports.iter().map(|report| report.arrival).collect();
    assert_eq!(arrivals, [Arrival::Delivered, Arrival::Delivered, Arrival::Undelivered]);
    assert!(reports.iter().all(|report| report.part == message("hello").part_key()));
    assert_eq!(reports[0].at, Some(Timestamp::from_millis(1_749_416_383_000)));
    let told = (reports[2].code.as_deref(), reports[2].detail.as_deref());
    assert_eq!(told, (Some("131026"), Some("Message undeliverable")));

    let mut forged = signed(&body);
    forged.body.push(b' ');
    assert_eq!(channel.receipt(&forged), Err(ReceiptError::WrongSignature));
    forged.headers.clear();
    assert_eq!(channel.receipt(&forged), Err(ReceiptError::WrongSignature));
    assert!(matches!(channel.receipt(&signed(b"no JSON")), Err(ReceiptError::Malformed(_))));
    for other in [&b"{}"[..], b"[]", b"null", br#"{"entry":[{"changes":[{"value":{"messages":[{}]}}]}]}"#] {
        assert_eq!(channel.receipt(&signed(other)), Ok(ReceiptAnswer::default()));
    }
}

#[tokio::test]
async fn metas_check_of_the_address_is_answered_only_with_the_verify_token() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    let get = |query: &str| {
        let query = query.to_owned();
        ReceiptRequest { method: ReceiptMethod::Get, query, ..signed(b"") }
    };
    let good = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=T0P-S3CRET-verify";
    assert_eq!(channel.receipt(&get(good)).map(|answer| answer.reply).as_deref(), Ok("1158201444"));
    for (query, expected) in [
        ("", ReceiptError::NotTaken),
        ("hub.mode=subscribe&hub.challenge=1", ReceiptError::WrongSignature),
        ("hub.mode=subscribe&hub.challenge=1&hub.verify_token=other", ReceiptError::WrongSignature),
        (
            "hub.mode=subscribe&hub.challenge=%3Ca%20b&hub.verify_token=T0P-S3CRET-verify",
            ReceiptError::Malformed("hub.challenge is no short word"),
        ),
    ] {
        assert_eq!(channel.receipt(&get(query)), Err(expected), "{query}");
    }
    let mut bare = subject();
    bare.values = json!({ "accessToken": TOKEN, "phoneNumberId": "1" });
    let channel = bare.channel_to(&provider).await;
    assert_eq!(channel.receipt(&get(good)), Err(ReceiptError::NotTaken));
    assert_eq!(channel.receipt(&signed(b"{}")), Err(ReceiptError::NotTaken));
}

#[test]
fn faults_of_the_settings_are_told_at_once_and_show_no_value() {
    let values = json!({
        "accessToken": "Bearer T0P-S3CRET", "phoneNumberId": "+15551234567", "appSecret": "", "verifyToken": "", "to": "me",
    });
    let faults = faults(plugin("whatsapp"), values);
    let places: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(places, ["accessToken", "phoneNumberId", "appSecret", "verifyToken", "to"]);
    assert!(!faults.concat().contains("S3CRET"), "{faults:?}");
}
