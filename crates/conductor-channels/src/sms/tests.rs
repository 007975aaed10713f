use conductor_core::receipts::{Arrival, ReceiptMethod};
use conductor_core::{Format, Priority, Scope};
use serde_json::{Map, Value, json};

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, now,
    plugin,
};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "T0P-S3CRET-auth-token";
const SID: &str = "SM0123456789abcdef0123456789abcdef";
const SERVICE: &str = "MG0123456789abcdef0123456789abcdef";

fn subject() -> Subject {
    Subject {
        plugin: plugin("sms"),
        values: json!({ "accountSid": ACCOUNT, "authToken": TOKEN, "from": "+15551234567", "to": "+15557654321" }),
        success: made(),
        provider_id: Some(SID),
        // The second ends what base64 makes of the account and the token.
        secrets: &["T0P-S3CRET", "MFAtUzNDUkVULWF1dGgtdG9rZW4="],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Unauthorized),
            (408, SendErrorKind::Retryable { retry_after: None }),
            (413, SendErrorKind::Rejected),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, SendErrorKind::Unknown),
            (502, SendErrorKind::Retryable { retry_after: None }),
            (503, SendErrorKind::Retryable { retry_after: None }),
            (504, SendErrorKind::Unknown),
        ],
    }
}

fn made() -> Answer {
    Answer::json(201, &json!({ "sid": SID, "status": "queued", "num_segments": "1" }))
}

// Twilio recognises no repetition: what it can see is only that the request is the same.
contract_tests!(subject(), |seen: &Seen| String::from_utf8_lossy(&seen.body).into_owned());

fn fields(seen: &Seen) -> Map<String, Value> {
    let pairs = url::form_urlencoded::parse(&seen.body).into_owned();
    pairs.map(|(name, value)| (name, Value::from(value))).collect()
}

async fn seen_with(message: &Message, change: impl FnOnce(&mut Value, &mut ChannelContext)) -> Seen {
    subject().seen_with(message, change).await
}

fn public() -> Option<Url> {
    Some("https://conductor.example/receipts/00000000-0000-0000-0000-0000000000c1".parse().unwrap())
}

#[tokio::test]
async fn a_message_is_created_as_twilio_wants_it() {
    let mut message = message("Träume & *mehr*\n+1");
    (message.title, message.priority) = (Some("Cellar\n pump".into()), Priority::High);
    message.target = Some("+4915112345678".into());
    let seen = seen_with(&message, |_, context| context.receipts_url = public()).await;
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.path, format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json"));
    assert_eq!(seen.header("authorization"), format!("Basic {}", STANDARD.encode(format!("{ACCOUNT}:{TOKEN}"))));
    assert_eq!(seen.header("content-type"), "application/x-www-form-urlencoded");
    let fields = Value::from(fields(&seen));
    let callback = format!("{}?delivery=01943c2a-7c3e-7000-8000-000000000001.0.0.1", public().unwrap());
    let body = "HIGH PRIORITY\nCellar pump\nTräume & *mehr*\n+1";
    let expected = json!({
        "To": "+4915112345678", "From": "+15551234567", "Body": body, "StatusCallback": callback,
    });
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn every_request_fits_twilios_own_description() {
    let path = "/paths/~12010-04-01~1Accounts~1{AccountSid}~1Messages.json/post/requestBody";
    let place = format!("{path}/content/application~1x-www-form-urlencoded/schema");
    let Some(described) = Description::of("twilio.json", &place) else { return };
    described.refuses(&json!({ "To": "+15557654321", "Bdoy": "misspelt" }));
    for from in ["+15551234567", SERVICE, "Conductor", "12345"] {
        for url in [None, public()] {
            let message = Message { expires_at: now().plus(Duration::from_secs(90)), ..message("hello") };
            let seen = seen_with(&message, |values, context| {
                values["from"] = from.into();
                context.receipts_url = url;
            });
            let mut fields = fields(&seen.await);
            // A form has no numbers.
            let validity = fields["ValidityPeriod"].as_str().and_then(|seconds| seconds.parse::<u64>().ok());
            fields.insert("ValidityPeriod".into(), validity.into());
            let fields = Value::from(fields);
            described.fits(&fields);
            assert_eq!(fields.get("MessagingServiceSid").is_some(), from == SERVICE);
        }
    }
}

#[tokio::test]
async fn a_message_that_is_soon_of_no_use_waits_at_twilio_no_longer() {
    for (seconds, expected) in [(36_000, None), (35_999, Some("35999")), (90, Some("90")), (0, Some("1"))] {
        let expires_at = now().plus(Duration::from_secs(seconds));
        let fields = fields(&seen_with(&Message { expires_at, ..message("hello") }, |_, _| {}).await);
        assert_eq!(fields.get("ValidityPeriod").and_then(Value::as_str), expected, "{seconds}");
    }
}

#[tokio::test]
async fn without_a_public_address_no_receipt_is_asked_for() {
    assert!(!fields(&seen_with(&message("hello"), |_, _| {}).await).contains_key("StatusCallback"));
}

#[tokio::test]
async fn markdown_goes_out_as_plain_text() {
    let mut message = message("**bold** and [a link](https://example.com)");
    message.format = Format::Markdown;
    let body = fields(&seen_with(&message, |_, _| {}).await)["Body"].as_str().unwrap().to_owned();
    assert!(body.starts_with("bold and a link") && body.contains("https://example.com"), "{body}");
}

#[tokio::test]
async fn a_text_of_too_many_segments_is_so_long_that_it_is_split() {
    let provider = Provider::answering([made()]).await;
    for (max_segments, letter, fits) in [(10, "a", 1530), (10, "ж", 670), (1, "a", 160), (3, "ж", 201)] {
        let mut subject = subject();
        subject.values["maxSegments"] = max_segments.into();
        let channel = subject.channel_to(&provider).await;
        let (full, over) = (message(&letter.repeat(fits)), message(&letter.repeat(fits + 1)));
        assert_eq!(channel.length(&full), fits);
        assert!(channel.length(&over) > BODY_MAX, "{letter}");
        assert!(channel.send(&full).await.is_ok());
        let error = channel.send(&over).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Rejected);
        assert!(error.message.contains("segments ("), "{error}");
    }
    assert_eq!(provider.seen().len(), 4, "what is too long is not sent");
}

#[tokio::test]
async fn only_the_first_part_has_title_and_mark_and_each_its_own_callback() {
    let mut message = Message { priority: Priority::High, title: Some("T".into()), parts: 2, ..message("hello") };
    message.part = 1;
    let second = fields(&seen_with(&message, |_, context| context.receipts_url = public()).await);
    assert_eq!(second["Body"], "hello");
    assert!(second["StatusCallback"].as_str().unwrap().ends_with(".0.1.2"));
}

#[tokio::test]
async fn what_is_no_number_is_never_asked_for() {
    for target in ["", "15557654321", "+0155576543", "+1 555 765 4321", "+1555765432a", "+123456", "+1234567890123456"]
    {
        let provider = Provider::answering([made()]).await;
        let mut message = message("hello");
        message.target = Some(target.into());
        let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn without_any_number_nothing_is_sent() {
    let provider = Provider::answering([made()]).await;
    let mut subject = subject();
    subject.values.as_object_mut().unwrap().remove("to");
    let error = subject.channel_to(&provider).await.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Permanent);
    assert!(error.message.contains("targetId") && provider.seen().is_empty(), "{error}");
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("twilio", 15).into_iter().flatten() {
        for code in row.codes().map(|code| code.parse::<u64>().expect("a code")) {
            if row.statuses.is_empty() {
                callback(code);
            }
            for status in &row.statuses {
                let answer = Answer::json(*status, &json!({ "code": code, "message": "no", "status": status }));
                let error = subject().refusal(&message("hello"), answer).await;
                assert!(error.message.contains("no") && error.code == Some(code.to_string()), "{error:?}");
                let result = Err(error);
                assert!(is_of_class(&result, &row.class), "{status} {code} {}: {result:?}", row.class);
            }
        }
    }
}

/// A code that comes with a receipt: the message was taken before, so that all of them mean the same.
fn callback(code: u64) {
    let code = u32::try_from(code).expect("a code");
    assert!(answer::meaning(code).is_some(), "{code} has no words");
}

#[tokio::test]
async fn an_unknown_code_counts_as_its_status_does() {
    let answer = Answer::json(400, &json!({ "code": 21999, "message": "Something new", "status": 400 }));
    let error = subject().refusal(&message("hello"), answer).await;
    assert_eq!((error.kind, error.message.as_str()), (SendErrorKind::Rejected, "Something new"));
    assert_eq!(subject().refusal(&message("hello"), Answer::page()).await.kind, SendErrorKind::Unknown);
}

#[tokio::test]
async fn health_asks_for_the_account() {
    let health = async |answer: Answer| {
        let provider = Provider::answering([answer]).await;
        let health = subject().channel_to(&provider).await.health_check().await;
        (health, provider.only())
    };
    let (up, seen) = health(Answer::json(200, &json!({ "status": "active" }))).await;
    assert_eq!((up, seen.method.as_str()), (Health::Up, "GET"));
    assert_eq!(seen.path, format!("/2010-04-01/Accounts/{ACCOUNT}.json"));
    let (down, _) = health(Answer::json(200, &json!({ "status": "suspended" }))).await;
    assert!(matches!(&down, Health::Down { reason } if reason.contains("suspended")), "{down:?}");
    let (down, _) = health(Answer::json(401, &json!({ "code": 20003, "message": "Authenticate" }))).await;
    assert!(matches!(&down, Health::Down { reason } if reason.contains("AUTH_TOKEN")), "{down:?}");
    assert_eq!(health(Answer::status(429)).await.0, Health::Unknown);
}

fn signed(url: &str, fields: &[(&str, &str)]) -> ReceiptRequest {
    let mut sorted = fields.to_vec();
    sorted.sort_unstable();
    let content: String = sorted.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, TOKEN.as_bytes());
    let signature = STANDARD.encode(ring::hmac::sign(&key, format!("{url}{content}").as_bytes()));
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish().into_bytes();
    let query = url.split_once('?').map_or("", |(_, query)| query).to_owned();
    let headers = [("x-twilio-signature".to_owned(), signature)].into();
    ReceiptRequest { method: ReceiptMethod::Post, url: Some(url.to_owned()), query, headers, body }
}

#[tokio::test]
async fn a_receipt_is_taken_only_with_twilios_signature() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    let message = message("hello");
    let url = format!("{}?delivery={}", public().unwrap(), message.part_key());
    let request = signed(&url, &[("MessageSid", SID), ("MessageStatus", "undelivered"), ("ErrorCode", "30005")]);
    let answer = channel.receipt(&request).unwrap();
    assert_eq!(answer.reports.len(), 1);
    let report = &answer.reports[0];
    assert_eq!(
        (report.part, report.arrival, report.code.as_deref()),
        (message.part_key(), Arrival::Undelivered, Some("30005"))
    );

    let wrong = |change: fn(&mut ReceiptRequest)| {
        let mut request = request.clone();
        change(&mut request);
        channel.receipt(&request)
    };
    assert_eq!(wrong(|request| request.headers.clear()), Err(ReceiptError::WrongSignature));
    assert_eq!(wrong(|request| request.body.extend(b"x")), Err(ReceiptError::WrongSignature));
    assert_eq!(wrong(|request| request.url = Some("https://other.example/".into())), Err(ReceiptError::WrongSignature));
    assert_eq!(wrong(|request| request.url = None), Err(ReceiptError::NotTaken));
    assert_eq!(wrong(|request| request.method = ReceiptMethod::Get), Err(ReceiptError::NotTaken));
    let foreign = signed(public().unwrap().as_str(), &[("MessageStatus", "delivered")]);
    assert_eq!(channel.receipt(&foreign), Ok(ReceiptAnswer::default()), "a message of another program");
}

#[test]
fn faults_of_the_settings_are_told_at_once_and_show_no_value() {
    let values = json!({
        "accountSid": "SK0123", "authToken": "T0P S3CRET", "from": "not a sender!", "to": "5557654321", "maxSegments": 11,
    });
    let faults = faults(plugin("sms"), values);
    let places: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(places, ["accountSid", "authToken", "from", "to", "maxSegments"]);
    assert!(!faults.concat().contains("S3CRET"), "{faults:?}");
}

#[test]
fn a_sender_is_a_number_a_short_code_a_name_or_a_service() {
    for good in ["+15551234567", "12345", "Conductor", "My Co & Co", SERVICE] {
        assert!(Sender::parse(good).is_some(), "{good}");
    }
    for bad in ["", "15551234567890", "+1", "TwelveLetter", " name", "n\u{e4}me", "Tab\tName"] {
        assert!(Sender::parse(bad).is_none(), "{bad}");
    }
}
