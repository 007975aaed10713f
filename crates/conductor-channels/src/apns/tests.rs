use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Mutex;

use bytes::Bytes;
use conductor_core::{Format, ManualClock, Scope};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::task::JoinSet;

use super::token::{KEPT, KEPT_MIN};
use super::*;
use crate::contract::tls::Identity;
use crate::contract::{
    Answer, Provider, Seen, Subject, context, contract_tests, error_classes, faults, is_of_class, message, now, plugin,
};
use crate::http::{HttpClients, Lookup};
use crate::jwt::tests::{is_valid_elsewhere, parts};

const KEY: &str = include_str!("test_key.p8");
const DEVICE: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const ID: &str = "eabeae54-14a8-11e5-b60b-1697f925ec7b";
const AGAIN: SendErrorKind = SendErrorKind::Retryable { retry_after: None };

fn subject() -> Subject {
    subject_of("ABC123DEFG")
}

/// Channels with the same key share their token, so a test that moves the clock has a key of its own.
fn subject_of(key_id: &str) -> Subject {
    Subject {
        plugin: plugin("apns"),
        values: json!({
            "key": KEY, "keyId": key_id, "teamId": "DEF123GHIJ", "topic": "com.example.app", "deviceToken": DEVICE,
        }),
        success: made(),
        provider_id: Some(ID),
        // How the key and how every token begin.
        secrets: &["MIGHAgEA", "eyJhbGciOiJFUzI1NiIs"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Rejected),
            (405, SendErrorKind::Rejected),
            (410, SendErrorKind::Permanent),
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
    Answer::status(200).with("apns-id", ID)
}

fn refused(status: u16, reason: &str) -> Answer {
    Answer::json(status, &json!({ "reason": reason }))
}

contract_tests!(subject(), |seen: &Seen| seen.header("apns-collapse-id").to_owned());

async fn seen(message: &Message) -> Seen {
    subject().seen(message).await
}

async fn channel(key_id: &str, provider: &Provider, clock: &Arc<ManualClock>) -> Arc<dyn Channel> {
    let mut context = context(&HttpClients::new(), Some(provider.url()));
    context.clock = Arc::<ManualClock>::clone(clock);
    subject_of(key_id).channel(context).await
}

fn urgent() -> Message {
    let mut message = message("2 * **3**");
    (message.title, message.priority) = (Some("Sum\nof things".into()), Priority::High);
    message.data = json!({ "room": "cellar", "litres": 7 }).as_object().cloned().unwrap();
    message
}

#[tokio::test]
async fn a_notification_is_sent_as_apple_wants_it() {
    let message = urgent();
    let seen = seen(&message).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", format!("/3/device/{DEVICE}").as_str()));
    let headers = [
        "apns-topic",
        "apns-push-type",
        "apns-priority",
        "apns-id",
        "apns-collapse-id",
        "apns-expiration",
        "content-type",
    ];
    let (id, expires) = (message.part_id().to_string(), message.expires_at.seconds().to_string());
    let expected = ["com.example.app", "alert", "10", &id, &id, &expires, "application/json"];
    assert_eq!(headers.map(|name| seen.header(name)), expected);
    let expected = json!({
        "aps": {
            "alert": { "title": "Sum of things", "body": "2 * **3**" },
            "sound": "default", "interruption-level": "time-sensitive",
        },
        "room": "cellar", "litres": 7,
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn what_has_the_same_key_takes_the_first_ones_place_under_an_id_of_its_own() {
    let keyed = |number: u128| Message {
        delivery: conductor_core::DeliveryId::new(uuid::Uuid::from_u128(number)),
        key: Some("a key in words, longer than the 64 bytes that Apple takes for one".into()),
        ..urgent()
    };
    let (first, second) = (seen(&keyed(1)).await, seen(&keyed(2)).await);
    let place = first.header("apns-collapse-id");
    assert!(place == second.header("apns-collapse-id") && place.len() <= 64, "{place}");
    assert_ne!(place, seen(&urgent()).await.header("apns-collapse-id"));
    assert_ne!(first.header("apns-id"), second.header("apns-id"));
    let past = Message { expires_at: conductor_core::Timestamp::ZERO, ..urgent() };
    assert_eq!(seen(&past).await.header("apns-expiration"), "1", "0 has a meaning of its own");
}

#[tokio::test]
async fn lower_priorities_are_quieter() {
    for (priority, aps) in [
        (Priority::Normal, json!({ "alert": { "body": "2 * 3" }, "sound": "default" })),
        (Priority::Low, json!({ "alert": { "body": "2 * 3" }, "interruption-level": "passive" })),
    ] {
        let message = Message { priority, format: Format::Markdown, title: None, ..urgent() };
        let seen = seen(&message).await;
        assert_eq!((seen.header("apns-priority"), &seen.json()["aps"]), ("5", &aps));
    }
}

#[tokio::test]
async fn a_long_text_is_shortened_until_all_fits() {
    for text in ["ä".repeat(30_000), "\"\n".repeat(5_000)] {
        let message = Message { body: text, ..urgent() };
        let seen = seen(&message).await;
        let body = seen.json()["aps"]["alert"]["body"].as_str().unwrap().to_owned();
        assert!(body.ends_with('…') && message.body.starts_with(body.trim_end_matches('…')));
        assert!(seen.body.len() <= PAYLOAD_MAX_BYTES && seen.body.len() > PAYLOAD_MAX_BYTES - 8, "{}", seen.body.len());
    }
    let mut full = urgent();
    full.data.insert("blob".into(), json!("x".repeat(PAYLOAD_MAX_BYTES)));
    let error = subject().refusal(&full, made()).await;
    assert!(error.kind == SendErrorKind::Rejected && error.message.contains("4096 bytes"), "{error}");
}

#[tokio::test]
async fn the_callers_data_cannot_take_apples_place() {
    let mut message = message("hello");
    message.data.insert("aps".into(), json!({ "badge": 9 }));
    let error = subject().refusal(&message, made()).await;
    assert!(error.kind == SendErrorKind::Rejected && error.message.contains("data.aps"), "{error}");
}

#[tokio::test]
async fn the_target_is_another_device() {
    let mut message = message("hello");
    message.target = Some("AB12".into());
    assert_eq!(seen(&message).await.path, "/3/device/AB12");
    for target in ["", "abc", "../x", "zz", &"ab".repeat(101)] {
        let provider = Provider::answering([made()]).await;
        message.target = Some(target.into());
        let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty(), "{target}");
    }
    let mut values = subject().values();
    values.remove("deviceToken");
    let provider = Provider::answering([made()]).await;
    let subject = Subject { values: values.into(), ..subject() };
    let error = subject.channel_to(&provider).await.send(&crate::contract::message("hello")).await.unwrap_err();
    assert!(error.kind == SendErrorKind::Permanent && error.message.contains("targetId"), "{error}");
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("apns", 12).into_iter().flatten().filter(|row| row.class != "ok") {
        // GOAWAY is no answer and has no status: another test has it.
        for (status, reason) in row.statuses.iter().flat_map(|status| row.codes().map(|reason| (*status, reason))) {
            let error = subject().refusal(&message("hello"), refused(status, reason)).await;
            assert!(error.message.contains(reason) && error.code.as_deref() == Some(reason), "{error:?}");
            assert!(is_of_class(&Err(error.clone()), &row.class), "{status} {reason} {}: {error:?}", row.class);
        }
    }
}

#[tokio::test]
async fn too_many_to_one_device_hold_back_only_that_one() {
    let limited = |scope| SendErrorKind::RateLimited { retry_after: None, scope };
    let one = subject().refusal(&message("hello"), refused(429, "TooManyRequests")).await;
    assert_eq!(one.kind, limited(Scope::Lane));
    let all = subject().refusal(&message("hello"), refused(429, "TooManyProviderTokenUpdates")).await;
    assert_eq!(all.kind, limited(Scope::Channel));
}

#[tokio::test]
async fn the_token_is_one_that_apple_can_check() {
    let seen = seen(&message("hello")).await;
    let token = seen.header("authorization").strip_prefix("bearer ").expect("a bearer token");
    let (header, claims) = parts(token);
    assert_eq!(header, json!({ "alg": "ES256", "kid": "ABC123DEFG", "typ": "JWT" }));
    assert_eq!(claims, json!({ "iss": "DEF123GHIJ", "iat": now().seconds() }));
    assert_ne!(is_valid_elsewhere(token, KEY), Some(false));
}

#[tokio::test]
async fn a_token_is_used_for_forty_minutes_by_all_channels_with_its_key() {
    let provider = Provider::answering([made()]).await;
    let clock = Arc::new(ManualClock::at(now()));
    let channels = [channel("KEPTKEPT01", &provider, &clock).await, channel("KEPTKEPT01", &provider, &clock).await];
    for advance in [Duration::ZERO, KEPT - Duration::from_secs(1), Duration::from_secs(1)] {
        clock.advance(advance);
        for channel in &channels {
            assert!(channel.send(&message("hello")).await.is_ok());
        }
    }
    let tokens: Vec<String> = provider.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert!(tokens[..4].iter().all(|token| *token == tokens[0]), "{tokens:?}");
    assert!(tokens[4] != tokens[0] && tokens[5] == tokens[4], "{tokens:?}");
    assert!((Duration::from_secs(20 * 60)..Duration::from_secs(60 * 60)).contains(&KEPT));
}

#[tokio::test]
async fn a_token_that_is_too_old_for_apple_is_renewed_once() {
    let expired = || refused(403, "ExpiredProviderToken");
    let clock = Arc::new(ManualClock::at(now()));
    let provider = Provider::answering([made(), expired(), made()]).await;
    let channel_of_one = channel("RENEWED001", &provider, &clock).await;
    assert!(channel_of_one.send(&message("hello")).await.is_ok());
    clock.advance(KEPT_MIN);
    assert!(channel_of_one.send(&message("hello")).await.is_ok());
    let tokens: Vec<String> = provider.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert!(tokens.len() == 3 && tokens[0] == tokens[1] && tokens[1] != tokens[2], "{tokens:?}");

    // One that was signed a moment ago is not renewed: Apple would refuse that too, and count it.
    let provider = Provider::answering([expired()]).await;
    let error = channel("RENEWED002", &provider, &clock).await.send(&message("hello")).await.unwrap_err();
    assert!(error.kind == SendErrorKind::Unauthorized && error.message.contains("clock"), "{error}");
    assert_eq!(provider.seen().len(), 1);
}

#[tokio::test]
async fn a_clock_that_was_put_back_gets_a_new_token() {
    let provider = Provider::answering([made()]).await;
    let clock = Arc::new(ManualClock::at(now()));
    let channel = channel("PUTBACK001", &provider, &clock).await;
    for time in [now(), now().minus(Duration::from_secs(3600))] {
        clock.set(time);
        assert!(channel.send(&message("hello")).await.is_ok());
    }
    let issued: Vec<Value> =
        provider.seen().iter().map(|seen| parts(&seen.header("authorization")[7..]).1["iat"].clone()).collect();
    assert_eq!(issued, [json!(now().seconds()), json!(now().seconds() - 3600)]);
}

#[tokio::test]
async fn health_sends_to_nobody() {
    for (answer, expected) in [
        (refused(400, "BadDeviceToken"), Some(Health::Up)),
        (refused(410, "Unregistered"), Some(Health::Up)),
        (refused(429, "TooManyRequests"), Some(Health::Unknown)),
        (refused(403, "InvalidProviderToken"), None),
        (refused(400, "TopicDisallowed"), None),
        (Answer::Hang, None),
    ] {
        let provider = Provider::answering([answer.clone()]).await;
        let health = subject().channel_to(&provider).await.health_check().await;
        match expected {
            Some(expected) => assert_eq!(health, expected, "{answer:?}"),
            None => assert!(matches!(health, Health::Down { .. }), "{answer:?}: {health:?}"),
        }
        assert_eq!(provider.only().path, format!("/3/device/{NOBODY}"));
    }
}

#[test]
fn the_environment_chooses_the_address() {
    assert_eq!(Environment::default().address(), "https://api.push.apple.com");
    let sandbox: Environment = serde_json::from_value(json!("sandbox")).unwrap();
    assert_eq!(sandbox.address(), "https://api.sandbox.push.apple.com");
}

#[test]
fn faults_of_the_settings_are_told_all_at_once_and_show_no_value() {
    let values = json!({ "key": "T0P", "keyId": "T0P", "teamId": "t0p4567890", "topic": "T0P/", "deviceToken": "T0P" });
    let found = faults(plugin("apns"), values);
    let places: Vec<&str> = found.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(places, ["key", "keyId", "teamId", "topic", "deviceToken"]);
    assert!(!found.concat().contains("T0P"), "{found:?}");
}

/// Finds every name on this machine.
struct Here;

impl Lookup for Here {
    fn lookup(&self, _name: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })
    }
}

/// What the server below does with a connection's requests.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    /// Says GOAWAY when the request has come, and closes.
    GoesAway,
}

/// A server with TLS that speaks HTTP/2 alone, and the requests that came: their version, path and body.
async fn http2(manner: Manner) -> (HttpClients, Url, Arc<Mutex<Vec<(http::Version, String, Bytes)>>>, JoinSet<()>) {
    let identity = Identity::of("api.push.example");
    let acceptor = identity.acceptor(&[b"h2"]);
    let clients = HttpClients::with_lookup(Arc::new(Here)).trusting(identity.authority.der().clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://api.push.example:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
    let log: Arc<Mutex<Vec<_>>> = Arc::default();
    let seen = Arc::clone(&log);
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let seen = Arc::clone(&seen);
            let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                let seen = Arc::clone(&seen);
                async move {
                    let (version, path) = (request.version(), request.uri().path().to_owned());
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    seen.lock().unwrap().push((version, path, body));
                    if manner == Manner::GoesAway {
                        std::future::pending::<()>().await;
                    }
                    let answer = hyper::Response::builder().header("apns-id", ID).body(Full::new(Bytes::new()));
                    Ok::<_, Infallible>(answer.unwrap())
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            match manner {
                Manner::Answers => connection.await.unwrap(),
                Manner::GoesAway => {
                    let _ = tokio::time::timeout(Duration::from_millis(200), connection).await;
                }
            }
        }
    });
    (clients, url, log, server)
}

#[tokio::test]
async fn notifications_go_over_one_connection_of_http2() {
    let (clients, url, log, _server) = http2(Manner::Answers).await;
    let channel = subject().channel(context(&clients, Some(url))).await;
    for _ in 0..3 {
        let receipt = channel.send(&urgent()).await;
        assert_eq!(receipt, Ok(Receipt { provider_id: Some(ID.into()) }));
    }
    let log = log.lock().unwrap();
    assert_eq!(log.len(), 3, "the server takes one connection after the other, so all went over the first");
    for (version, path, body) in &*log {
        assert_eq!((*version, path.as_str()), (http::Version::HTTP_2, format!("/3/device/{DEVICE}").as_str()));
        assert_eq!(serde_json::from_slice::<Value>(body).unwrap()["room"], "cellar");
    }
}

/// The table calls GOAWAY worth another try, because Apple says which requests it still handles. Here that is not known
/// of the one that got no answer, so its outcome is unknown; the collapse id makes another try harmless.
#[tokio::test]
async fn a_connection_that_ends_under_a_notification_leaves_its_outcome_open() {
    let (clients, url, log, _server) = http2(Manner::GoesAway).await;
    let channel = subject().channel(context(&clients, Some(url))).await;
    let error = channel.send(&urgent()).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unknown, "{error}");
    assert_eq!(log.lock().unwrap().len(), 1);
}
