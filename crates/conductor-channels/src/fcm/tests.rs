use std::io::{Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use conductor_core::{Format, ManualClock, Priority, Scope, Timestamp};
use serde_json::json;

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, context, contract_tests, error_classes, faults, is_of_class, message,
    now, plugin, spec,
};
use crate::http::HttpClients;
use crate::jwt::tests::{is_valid_elsewhere, parts};

const EXAMPLE: &str = include_str!("example.json");
const ACCESS: &str = "ya29.T0P-S3CRET-ACCESS";
const NAME: &str = "projects/example-project/messages/0:1500415314455276%31bd1c9631bd1c96";
const DEVICE: &str = "bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1";
const AGAIN: SendErrorKind = SendErrorKind::Retryable { retry_after: None };

/// The example's account, whose tokens come from `token_url`.
fn account(token_url: &str) -> String {
    let mut account: Value = serde_json::from_str(EXAMPLE).unwrap();
    account["token_uri"] = Value::from(token_url);
    account.to_string()
}

/// The address of a server that gives everybody a token. It lives as long as the process.
fn token_server() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
                // The signed text is long; all of it has come when its last part, the signature, is complete.
                while !is_whole(&seen) {
                    match stream.read(&mut buffer) {
                        Ok(count) if count > 0 => seen.extend_from_slice(&buffer[..count]),
                        _ => break,
                    }
                }
                let body = json!({ "access_token": ACCESS, "expires_in": 3599, "token_type": "Bearer" }).to_string();
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        url
    })
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

fn subject() -> Subject {
    Subject {
        plugin: plugin("fcm"),
        values: json!({ "serviceAccount": account(token_server()), "target": DEVICE }),
        success: made(),
        provider_id: Some(NAME),
        secrets: &["T0P-S3CRET", "MIIEv", "eyJhbGciOiJSUzI1NiIs"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Unauthorized),
            (408, AGAIN),
            (413, SendErrorKind::Rejected),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, SendErrorKind::Unknown),
            (502, AGAIN),
            (503, AGAIN),
            (504, SendErrorKind::Unknown),
        ],
    }
}

fn made() -> Answer {
    Answer::json(200, &json!({ "name": NAME }))
}

fn token(text: &str) -> Answer {
    Answer::json(200, &json!({ "access_token": text, "expires_in": 3599, "token_type": "Bearer" }))
}

/// An error as Google writes it: messaging's own code in the details, that of all services as the status.
fn refused(status: u16, code: &str) -> Answer {
    let general = ["UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "RESOURCE_EXHAUSTED"].contains(&code);
    let own = json!([{ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code }]);
    let details = if general { json!([]) } else { own };
    let status_word = if general { code } else { "SOME_STATUS" };
    let error = json!({ "code": status, "message": "what it is", "status": status_word, "details": details });
    Answer::json(status, &json!({ "error": error }))
}

contract_tests!(subject(), |seen: &Seen| {
    seen.json()["message"]["android"]["notification"]["tag"].as_str().unwrap_or("").to_owned()
});

async fn seen(message: &Message) -> Seen {
    subject().seen(message).await
}

/// A channel whose tokens come from `tokens` and whose messages go to `provider`.
async fn channel(tokens: &Provider, provider: &Provider, clock: &Arc<ManualClock>) -> Arc<dyn Channel> {
    let mut context = context(&HttpClients::new(), Some(provider.url()));
    context.clock = Arc::<ManualClock>::clone(clock);
    let values = json!({ "serviceAccount": account(tokens.url().join("/token").unwrap().as_str()), "target": DEVICE });
    Subject { values, ..subject() }.channel(context).await
}

fn urgent() -> Message {
    let mut message = message("2 * **3**");
    (message.title, message.priority) = (Some("Sum\nof things".into()), Priority::High);
    let data = json!({ "room": "cellar", "litres": 7, "open": true, "list": [1, "a"], "none": null });
    message.data = data.as_object().cloned().unwrap();
    message
}

#[tokio::test]
async fn a_message_is_sent_as_firebase_wants_it() {
    let message = urgent();
    let seen = seen(&message).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/projects/example-project/messages:send"));
    assert_eq!(seen.header("authorization"), format!("Bearer {ACCESS}"));
    let id = message.part_id().to_string();
    let expected = json!({ "message": {
        "token": DEVICE,
        "notification": { "title": "Sum of things", "body": "2 * **3**" },
        "data": { "room": "cellar", "litres": "7", "open": "true", "list": "[1,\"a\"]", "none": "null" },
        "android": {
            "priority": "HIGH", "ttl": "86400s",
            "notification": { "tag": id, "notificationPriority": "PRIORITY_HIGH" },
        },
        "apns": {
            "headers": {
                "apns-priority": "10", "apns-collapse-id": id,
                "apns-expiration": message.expires_at.seconds().to_string(),
            },
            "payload": { "aps": { "sound": "default", "interruption-level": "time-sensitive" } },
        },
        "webpush": { "headers": { "Urgency": "high", "TTL": "86400", "Topic": id.replace('-', "") } },
    } });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn what_has_the_same_key_takes_the_first_ones_place_and_none_outlives_its_notification() {
    let keyed = |number: u128| Message {
        delivery: conductor_core::DeliveryId::new(uuid::Uuid::from_u128(number)),
        key: Some("pump".into()),
        ..urgent()
    };
    let (first, second) = (seen(&keyed(1)).await.json(), seen(&keyed(2)).await.json());
    for place in [
        "/android/collapseKey",
        "/android/notification/tag",
        "/apns/headers/apns-collapse-id",
        "/webpush/headers/Topic",
    ] {
        let at = |body: &Value| body["message"].pointer(place).cloned().expect("it is there");
        assert_eq!(at(&first), at(&second), "{place}");
        assert_ne!(seen(&urgent()).await.json()["message"].pointer(place), Some(&at(&first)), "{place}");
    }
    assert!(first["message"]["webpush"]["headers"]["Topic"].as_str().is_some_and(|topic| topic.len() == 32));
    for (seconds, ttl) in [(90, "90s"), (-5, "1s"), (60 * 24 * 60 * 60, "2419200s")] {
        let expires_at = Timestamp::from_millis(now().millis() + seconds * 1_000);
        let body = seen(&Message { expires_at, ..urgent() }).await.json();
        assert_eq!(body["message"]["android"]["ttl"], ttl);
    }
}

#[tokio::test]
async fn all_channels_with_one_service_account_wait_together() {
    let quota = || refused(429, "QUOTA_EXCEEDED").with("retry-after", "30");
    let provider = Provider::answering([quota(), made()]).await;
    let (first, second) = (subject().channel_to(&provider).await, subject().channel_to(&provider).await);
    let told = first.send(&message("hello")).await.unwrap_err().kind.retry_after();
    let held = second.send(&message("hello")).await.unwrap_err().kind.retry_after();
    assert!(told == Some(Duration::from_secs(30)) && held > Some(Duration::from_secs(20)), "{told:?} {held:?}");
    assert_eq!(provider.seen().len(), 1);
}

#[tokio::test]
async fn every_request_fits_googles_own_description() {
    let Some(spec) = spec("fcm.json") else { return };
    let closed = json!({ "components": closed(spec["components"].clone()) });
    let place = "/components/schemas/SendMessageRequest";
    let described = Description::with("fcm.json", place, &closed).expect("it was there");
    described.refuses(&json!({ "mesage": {} }));
    described.refuses(&json!({ "message": { "tokn": "x" } }));
    let mut bodies = Vec::new();
    for priority in [Priority::Low, Priority::Normal, Priority::High] {
        for target in [DEVICE, "/topics/news", "'dogs' in topics || 'cats' in topics"] {
            let message = Message { priority, target: Some(target.into()), ..urgent() };
            bodies.push(seen(&message).await.json());
        }
    }
    let provider = Provider::answering([made()]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Up);
    bodies.push(provider.only().json());
    for body in bodies {
        described.fits(&body);
    }
}

/// The schemas so that each takes only what it names.
fn closed(mut components: Value) -> Value {
    for schema in components["schemas"].as_object_mut().expect("schemas").values_mut() {
        if schema.get("properties").is_some() {
            schema["unevaluatedProperties"] = Value::from(false);
        }
    }
    components
}

#[tokio::test]
async fn a_target_is_a_device_a_topic_or_a_condition() {
    let condition = "'dogs' in topics && !('cats' in topics)";
    for (target, member, text) in [
        (DEVICE, "token", DEVICE),
        ("/topics/a-b_c.d~e%20", "topic", "a-b_c.d~e%20"),
        (condition, "condition", condition),
    ] {
        let message = Message { target: Some(target.into()), ..message("hello") };
        assert_eq!(seen(&message).await.json()["message"][member], text);
    }
    for target in ["", "/topics/", "/topics/a b", "a/b", "two words", "'a' on topics", &"'a' in topics || ".repeat(6)] {
        let provider = Provider::answering([made()]).await;
        let message = Message { target: Some(target.into()), ..message("hello") };
        let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty(), "{target}");
    }
    let provider = Provider::answering([made()]).await;
    let subject = Subject { values: json!({ "serviceAccount": account(token_server()) }), ..subject() };
    let error = subject.channel_to(&provider).await.send(&message("hello")).await.unwrap_err();
    assert!(error.kind == SendErrorKind::Permanent && error.message.contains("targetId"), "{error}");
}

#[tokio::test]
async fn a_long_text_is_shortened_until_all_fits() {
    for (target, max) in [(DEVICE, body::DEVICE_MAX_BYTES), ("/topics/news", body::TOPIC_MAX_BYTES)] {
        for text in ["ä".repeat(30_000), "\"\n".repeat(5_000)] {
            let message = Message { body: text, target: Some(target.into()), ..urgent() };
            let mut sent = seen(&message).await.json()["message"].clone();
            let body = sent["notification"]["body"].as_str().unwrap().to_owned();
            assert!(body.ends_with('…') && message.body.starts_with(body.trim_end_matches('…')));
            sent.as_object_mut().unwrap().retain(|name, _| name != "token" && name != "topic");
            let length = sent.to_string().len();
            assert!(length <= max && length > max - 8, "{length}");
        }
    }
    let mut full = urgent();
    full.data.insert("blob".into(), json!("x".repeat(body::DEVICE_MAX_BYTES)));
    let error = subject().refusal(&full, made()).await;
    assert!(error.kind == SendErrorKind::Rejected && error.message.contains("4096 bytes"), "{error}");
}

#[tokio::test]
async fn markdown_is_shown_as_plain_text() {
    let message = Message { format: Format::Markdown, ..urgent() };
    assert_eq!(seen(&message).await.json()["message"]["notification"]["body"], "2 * 3");
}

#[tokio::test]
async fn names_that_google_keeps_for_itself_are_refused() {
    for name in ["from", "message_type", "google.x", "gcm.notification.x"] {
        let mut message = message("hello");
        message.data.insert(name.into(), json!("x"));
        let error = subject().refusal(&message, made()).await;
        assert!(error.kind == SendErrorKind::Rejected && error.message.contains(name), "{error}");
    }
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("fcm", 10).into_iter().flatten() {
        for (status, code) in row.statuses.iter().flat_map(|status| row.code.split(" / ").map(|code| (*status, code))) {
            let error = subject().refusal(&message("hello"), refused(status, code)).await;
            assert!(error.message.starts_with("what it is"), "{error}");
            assert_eq!(error.code.as_deref(), Some(code));
            assert!(is_of_class(&Err(error.clone()), &row.class), "{status} {code} {}: {error:?}", row.class);
        }
    }
}

#[tokio::test]
async fn an_argument_that_is_wrong_because_of_the_target_is_the_targets_fault() {
    let violation = |field: &str| {
        let violations = json!([{ "field": field, "description": "Invalid registration token" }]);
        let details = json!([{ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations }]);
        let error = json!({ "code": 400, "message": "no", "status": "INVALID_ARGUMENT", "details": details });
        Answer::json(400, &json!({ "error": error }))
    };
    assert_eq!(subject().refusal(&message("hello"), violation("message.token")).await.kind, SendErrorKind::Permanent);
    let words = "The registration token is not a valid FCM registration token";
    let error = json!({ "code": 400, "message": words, "status": "INVALID_ARGUMENT" });
    let answer = Answer::json(400, &json!({ "error": error }));
    assert_eq!(subject().refusal(&message("hello"), answer.clone()).await.kind, SendErrorKind::Permanent);
    let topic = Message { target: Some("/topics/news".into()), ..message("hello") };
    assert_eq!(subject().refusal(&topic, answer).await.kind, SendErrorKind::Rejected);
    assert_eq!(subject().refusal(&message("hello"), violation("message.data[0]")).await.kind, SendErrorKind::Rejected);
}

#[tokio::test]
async fn a_quota_waits_a_minute_where_google_names_no_time_and_only_the_device_where_it_is_the_devices() {
    let quota = |subject: &str| {
        let violations = json!([{ "subject": subject, "description": "quota exceeded" }]);
        let own =
            json!({ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "QUOTA_EXCEEDED" });
        let details =
            json!([own, { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations }]);
        let error = json!({ "code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED", "details": details });
        Answer::json(429, &json!({ "error": error }))
    };
    let limited =
        |seconds, scope| SendErrorKind::RateLimited { retry_after: Some(Duration::from_secs(seconds)), scope };
    for (answer, expected) in [
        (quota("project:example-project"), limited(60, Scope::Channel)),
        (quota(&format!("device:{DEVICE}")), limited(60, Scope::Lane)),
        (quota("project:x").with("retry-after", "7"), limited(7, Scope::Channel)),
    ] {
        assert_eq!(subject().refusal(&message("hello"), answer).await.kind, expected);
    }
    let busy = subject().refusal(&message("hello"), refused(503, "UNAVAILABLE")).await;
    assert_eq!(busy.kind, SendErrorKind::Retryable { retry_after: Some(Duration::from_secs(10)) });
}

#[tokio::test]
async fn the_token_is_asked_for_with_a_text_that_google_can_check() {
    let (tokens, provider) = (Provider::answering([token("one")]).await, Provider::answering([made()]).await);
    let clock = Arc::new(ManualClock::at(now()));
    assert!(channel(&tokens, &provider, &clock).await.send(&message("hello")).await.is_ok());
    let asked = tokens.only();
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/token"));
    assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&asked.body).into_owned().collect();
    assert_eq!(form[0], ("grant_type".into(), "urn:ietf:params:oauth:grant-type:jwt-bearer".into()));
    assert_eq!((form.len(), form[1].0.as_str()), (2, "assertion"));
    let (header, claims) = parts(&form[1].1);
    let account: Value = serde_json::from_str(EXAMPLE).unwrap();
    assert_eq!(header, json!({ "alg": "RS256", "typ": "JWT", "kid": account["private_key_id"] }));
    let expected = json!({
        "iss": account["client_email"], "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": tokens.url().join("/token").unwrap(), "iat": now().seconds(), "exp": now().seconds() + 3600,
    });
    assert_eq!(claims, expected);
    let key = account["private_key"].as_str().unwrap();
    assert_ne!(is_valid_elsewhere(&form[1].1, key), Some(false));
    assert_eq!(provider.only().header("authorization"), "Bearer one");
}

#[tokio::test]
async fn a_token_is_kept_and_changed_before_it_runs_out() {
    let tokens = Provider::answering([token("one"), token("two")]).await;
    let provider = Provider::answering([made()]).await;
    let clock = Arc::new(ManualClock::at(now()));
    let channel = channel(&tokens, &provider, &clock).await;
    for (seconds, asked) in [(0, 1), (3_298, 1), (1, 2), (3_298, 2)] {
        clock.advance(Duration::from_secs(seconds));
        assert!(channel.send(&message("hello")).await.is_ok());
        assert_eq!(tokens.seen().len(), asked);
    }
    let used: Vec<String> = provider.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(used, ["Bearer one", "Bearer one", "Bearer two", "Bearer two"]);
}

#[tokio::test]
async fn many_messages_at_once_ask_for_one_token() {
    let (tokens, provider) = (Provider::answering([token("one")]).await, Provider::answering([made()]).await);
    let clock = Arc::new(ManualClock::at(now()));
    let channel = channel(&tokens, &provider, &clock).await;
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let channel = Arc::clone(&channel);
        sends.spawn(async move { channel.send(&message("hello")).await.is_ok() });
    }
    assert!(sends.join_all().await.into_iter().all(|sent| sent));
    assert_eq!((tokens.seen().len(), provider.seen().len()), (1, 10));
}

#[tokio::test]
async fn those_who_waited_for_a_token_in_vain_do_not_ask_again() {
    let (tokens, provider) = (Provider::answering([Answer::status(503)]).await, Provider::answering([made()]).await);
    let clock = Arc::new(ManualClock::at(now()));
    let channel = channel(&tokens, &provider, &clock).await;
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let channel = Arc::clone(&channel);
        sends.spawn(async move { channel.send(&message("hello")).await.map_err(|error| error.kind) });
    }
    assert!(sends.join_all().await.into_iter().all(|result| result == Err(AGAIN)));
    assert_eq!((tokens.seen().len(), provider.seen().len()), (1, 0));
    assert!(channel.send(&message("hello")).await.is_err());
    assert_eq!(tokens.seen().len(), 2, "the next attempt asks anew");
}

#[tokio::test]
async fn a_token_that_google_no_longer_knows_is_changed_once() {
    let clock = Arc::new(ManualClock::at(now()));
    let stale = || refused(401, "UNAUTHENTICATED");
    let tokens = Provider::answering([token("one"), token("two")]).await;
    let provider = Provider::answering([stale(), made()]).await;
    assert!(channel(&tokens, &provider, &clock).await.send(&message("hello")).await.is_ok());
    assert_eq!(provider.seen()[1].header("authorization"), "Bearer two");

    let tokens = Provider::answering([token("one"), token("two")]).await;
    let provider = Provider::answering([stale()]).await;
    let error = channel(&tokens, &provider, &clock).await.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unauthorized);
    assert_eq!((tokens.seen().len(), provider.seen().len()), (2, 2));

    let tokens = Provider::answering([token("one")]).await;
    let provider = Provider::answering([refused(401, "THIRD_PARTY_AUTH_ERROR")]).await;
    assert!(channel(&tokens, &provider, &clock).await.send(&message("hello")).await.is_err());
    assert_eq!((tokens.seen().len(), provider.seen().len()), (1, 1), "another token would not help");
}

#[tokio::test]
async fn no_token_means_no_message() {
    let page = || Answer::page();
    let grant = json!({ "error": "invalid_grant", "error_description": "Invalid JWT Signature." });
    for (answer, expected) in [
        (Answer::json(400, &grant), SendErrorKind::Unauthorized),
        (Answer::status(404), SendErrorKind::Unauthorized),
        (Answer::status(302), SendErrorKind::Unauthorized),
        (Answer::status(500), AGAIN),
        (Answer::status(429), SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
        (Answer::Close, AGAIN),
        (Answer::Hang, AGAIN),
        (page(), AGAIN),
        (token(""), AGAIN),
        (token("two\nlines"), AGAIN),
        (Answer::EchoJson { status: 401 }, SendErrorKind::Unauthorized),
    ] {
        let (tokens, provider) = (Provider::answering([answer.clone()]).await, Provider::answering([made()]).await);
        let clock = Arc::new(ManualClock::at(now()));
        let channel = channel(&tokens, &provider, &clock).await;
        let error = channel.send(&message("hello")).await.unwrap_err();
        assert_eq!(error.kind, expected, "{answer:?}: {error}");
        assert!(!error.message.contains("eyJ"), "{error}");
        assert!(provider.seen().is_empty());
        assert!(!matches!(channel.health_check().await, Health::Up));
    }
    let tokens = Provider::answering([Answer::json(400, &grant)]).await;
    let provider = Provider::answering([made()]).await;
    let clock = Arc::new(ManualClock::at(now()));
    let error = channel(&tokens, &provider, &clock).await.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("invalid_grant"));
    assert!(error.message.contains("Invalid JWT Signature."), "{error}");
}

#[tokio::test]
async fn health_has_a_message_checked_that_nobody_gets() {
    let provider = Provider::answering([made()]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Up);
    assert_eq!(provider.only().json()["validateOnly"], true);
    let provider = Provider::answering([refused(403, "PERMISSION_DENIED")]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert!(matches!(&health, Health::Down { reason } if reason.contains("API Admin")), "{health:?}");
    let provider = Provider::answering([refused(429, "QUOTA_EXCEEDED")]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Unknown);
}

#[test]
fn faults_of_the_settings_are_told_all_at_once_and_show_no_value() {
    let broken = json!({ "type": "authorized_user", "project_id": "T0P/../", "client_email": "T0P", "private_key_id": 7,
        "private_key": "T0P", "token_uri": "ftp://T0P" });
    let found = faults(plugin("fcm"), json!({ "serviceAccount": broken.to_string(), "target": "T0P topic" }));
    assert_eq!(found.len(), 7, "{found:?}");
    assert!(!found.concat().contains("T0P"), "{found:?}");
    for text in ["", "T0P", "{\"T0P\": ", "[\"T0P\"]", "null"] {
        let found = faults(plugin("fcm"), json!({ "serviceAccount": text }));
        assert!(!found.is_empty() && found.iter().all(|fault| fault.starts_with("serviceAccount: ")), "{found:?}");
        assert!(!found.concat().contains("T0P"), "{found:?}");
    }
    let mut short: Value = serde_json::from_str(EXAMPLE).unwrap();
    short["private_key"] = Value::from(include_str!("../apns/test_key.p8"));
    let found = faults(plugin("fcm"), json!({ "serviceAccount": short.to_string() }));
    assert!(found.len() == 1 && found[0].contains("RSA"), "{found:?}");
}
