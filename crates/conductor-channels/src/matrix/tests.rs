use conductor_core::{Format, Priority, Scope};

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, plugin,
    spec,
};

mod real;

const TOKEN: &str = "syt_T0P-S3CRET_token";
const ROOM: &str = "!room:example.org";
const AGAIN: SendErrorKind = SendErrorKind::Retryable { retry_after: None };

fn subject() -> Subject {
    Subject {
        plugin: plugin("matrix"),
        values: json!({ "homeserverUrl": "https://matrix.example.org", "accessToken": TOKEN, "roomId": ROOM }),
        success: made(),
        provider_id: Some("$event:example.org"),
        secrets: &["T0P-S3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Unauthorized),
            (405, SendErrorKind::Unauthorized),
            (408, AGAIN),
            (413, SendErrorKind::Rejected),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, AGAIN),
            (502, AGAIN),
            (503, AGAIN),
            (504, AGAIN),
        ],
    }
}

fn made() -> Answer {
    Answer::json(200, &json!({ "event_id": "$event:example.org" }))
}

fn refused(status: u16, code: &str) -> Answer {
    Answer::json(status, &json!({ "errcode": code, "error": "No, sorry" }))
}

contract_tests!(subject(), |seen: &Seen| seen.path.clone());

fn to(target: &str) -> Message {
    Message { target: Some(target.into()), ..message("hello") }
}

fn urgent(format: Format) -> Message {
    let mut message = message("2 *x* < 3 @room @bob:example.org");
    message.title = Some("Sum <of>\n things".into());
    (message.priority, message.format) = (Priority::High, format);
    message
}

async fn answered(message: &Message, answers: impl IntoIterator<Item = Answer>) -> (SendError, Vec<Seen>) {
    let provider = Provider::answering(answers).await;
    let result = subject().channel_to(&provider).await.send(message).await;
    (result.expect_err("a refusal"), provider.seen())
}

async fn refusal(message: &Message, answer: Answer) -> SendError {
    answered(message, [answer]).await.0
}

fn lines(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|seen| format!("{} {}", seen.method, seen.path.replace("/_matrix/client/v3", ""))).collect()
}

#[tokio::test]
async fn a_message_is_put_under_its_own_id() {
    let provider = Provider::answering([made()]).await;
    let message = message("hello");
    subject().channel_to(&provider).await.send(&message).await.expect("it was taken");
    let seen = provider.only();
    let id = message.part_id();
    assert_eq!(lines(std::slice::from_ref(&seen)), [format!("PUT /rooms/!room:example.org/send/m.room.message/{id}")]);
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.json(), json!({ "msgtype": "m.text", "body": "hello", "m.mentions": {} }));
}

#[tokio::test]
async fn every_part_is_a_message_of_its_own() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    for part in [0, 1] {
        let message = Message { part, parts: 2, ..urgent(Format::Markdown) };
        channel.send(&message).await.expect("it was taken");
        let seen = provider.seen().pop().expect("a request");
        assert_eq!(channel.length(&message), seen.body.len());
        assert_eq!(seen.json()["body"].as_str().unwrap().contains("HIGH PRIORITY"), part == 0);
    }
    let paths = lines(&provider.seen());
    assert_ne!(paths[0], paths[1]);
}

#[tokio::test]
async fn every_message_fits_matrix_own_description() {
    let Some(spec) = spec("matrix.json") else { return };
    let path = "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}";
    assert!(spec["paths"][path]["put"].is_object(), "the description has the call");
    for (notice, kind) in [(false, "m.room.message_m.text"), (true, "m.room.message_m.notice")] {
        // Every event may have it, so that no kind of message names it.
        let mentions = json!({ "properties": { "m.mentions": {
            "properties": { "user_ids": { "type": "array" }, "room": { "type": "boolean" } },
            "additionalProperties": false,
        } } });
        let place = format!("/components/schemas/{kind}");
        let described = Description::with("matrix.json", &place, &mentions).expect("it was there");
        described.refuses(&json!({ "msgtype": "m.text", "body": "x", "formated_body": "misspelt" }));
        for format in [Format::Text, Format::Markdown] {
            for allow_mentions in [false, true] {
                let content = text::content(&urgent(format), notice, allow_mentions);
                described.fits(&content);
            }
        }
    }
}

#[tokio::test]
async fn a_target_is_another_room_whatever_stands_in_its_name() {
    for (target, path) in [("!a/../b:x", "!a%2F..%2Fb:x"), ("!new", "!new"), ("!a?b#c%:x", "!a%3Fb%23c%25:x")] {
        let provider = Provider::answering([made()]).await;
        subject().channel_to(&provider).await.send(&to(target)).await.expect("it was taken");
        assert!(provider.only().path.starts_with(&format!("/_matrix/client/v3/rooms/{path}/send/")), "{target}");
    }
    for target in ["", "general", "@bob:example.org", "#alias", "https://example.org"] {
        let (error, seen) = answered(&to(target), [made()]).await;
        assert_eq!((error.kind, seen.len()), (SendErrorKind::Permanent, 0), "{target}");
    }
}

#[tokio::test]
async fn an_alias_is_looked_up_once() {
    let found = Answer::json(200, &json!({ "room_id": "!found:example.org", "servers": [] }));
    let provider = Provider::answering([found, made()]).await;
    let channel = subject().channel_to(&provider).await;
    for _ in 0..2 {
        channel.send(&to("#alerts:example.org")).await.expect("it was taken");
    }
    let lines = lines(&provider.seen());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], "GET /directory/room/%23alerts:example.org");
    assert!(lines[1].starts_with("PUT /rooms/!found:example.org/send/") && lines[1] == lines[2], "{lines:?}");
}

#[tokio::test]
async fn an_alias_that_leads_nowhere_sends_nothing() {
    let alias = to("#alerts:example.org");
    for (answer, kind) in [
        (refused(404, "M_NOT_FOUND"), SendErrorKind::Permanent),
        (Answer::json(200, &json!({ "room_id": 7 })), AGAIN),
        (Answer::json(200, &json!({ "room_id": "#other:example.org" })), AGAIN),
        (Answer::status(502), AGAIN),
        (Answer::Close, AGAIN),
        (Answer::Hang, AGAIN),
    ] {
        let (error, seen) = answered(&alias, [answer.clone()]).await;
        assert_eq!((error.kind, seen.len()), (kind, 1), "{answer:?}");
    }
}

#[tokio::test]
async fn a_room_that_is_not_joined_yet_is_joined() {
    let joined = Answer::json(200, &json!({ "room_id": ROOM }));
    let provider = Provider::answering([refused(403, "M_FORBIDDEN"), joined, made()]).await;
    subject().channel_to(&provider).await.send(&message("hello")).await.expect("it was taken");
    let seen = provider.seen();
    let lines = lines(&seen);
    assert_eq!((lines.len(), lines[1].as_str()), (3, "POST /join/!room:example.org"), "{lines:?}");
    assert!(lines[0].starts_with("PUT ") && lines[0] == lines[2], "{lines:?}");
    assert_eq!(seen[1].json(), json!({}));
}

#[tokio::test]
async fn who_may_not_join_is_told_so_and_tries_once() {
    let (error, seen) = answered(&message("hello"), [refused(403, "M_FORBIDDEN")]).await;
    assert_eq!((error.kind, error.code.as_deref()), (SendErrorKind::Unauthorized, Some("M_FORBIDDEN")));
    assert!(error.message.contains("No, sorry") && error.message.contains("invite the user"), "{error}");
    assert_eq!(seen.len(), 2);
    let (error, _) = answered(&to("!other:x"), [refused(403, "M_FORBIDDEN")]).await;
    assert_eq!(error.kind, SendErrorKind::Permanent, "it must not stop the channel for all others: {error}");
    // Joined, and the user may not speak there.
    let answers = [refused(403, "M_FORBIDDEN"), Answer::json(200, &json!({})), refused(403, "M_FORBIDDEN")];
    let (error, seen) = answered(&message("hello"), answers).await;
    assert_eq!((error.kind, seen.len()), (SendErrorKind::Unauthorized, 3));
    let (error, _) = answered(&message("hello"), [refused(403, "M_FORBIDDEN"), Answer::Close]).await;
    assert_eq!(error.kind, AGAIN, "nothing was sent: {error}");
}

#[tokio::test]
async fn a_limit_waits_as_long_as_the_homeserver_says() {
    let body = json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests", "retry_after_ms": 3713 });
    let kind =
        |millis| SendErrorKind::RateLimited { retry_after: Some(Duration::from_millis(millis)), scope: Scope::Channel };
    let both = Answer::json(429, &body).with("retry-after", "4");
    for (answer, expected) in [(both, kind(4_000)), (Answer::json(429, &body), kind(3_713))] {
        let error = refusal(&message("hello"), answer).await;
        assert_eq!((error.kind, error.code.as_deref()), (expected, Some("M_LIMIT_EXCEEDED")));
    }
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("matrix", 11).into_iter().flatten() {
        for (status, code) in row.statuses.iter().flat_map(|status| row.codes().map(|code| (*status, code))) {
            let result = subject().outcome(&message("hello"), refused(status, code)).await;
            assert!(is_of_class(&result, &row.class), "{status} {code} {}: {result:?}", row.class);
        }
    }
}

#[tokio::test]
async fn a_token_that_has_run_out_is_told_from_a_wrong_one() {
    let body = json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "Invalid access token", "soft_logout": true });
    let soft = refusal(&message("hello"), Answer::json(401, &body)).await;
    assert!(soft.message.contains("has run out"), "{soft}");
    let hard = refusal(&to("!other:x"), refused(401, "M_UNKNOWN_TOKEN")).await;
    assert_eq!(hard.kind, SendErrorKind::Unauthorized);
    assert!(hard.message.contains("is wrong or its device was logged out"), "{hard}");
}

#[tokio::test]
async fn what_is_no_homeserver_stops_the_channel_but_not_for_a_named_room() {
    let own = refusal(&message("hello"), Answer::status(404)).await;
    assert!(own.kind == SendErrorKind::Unauthorized && own.message.contains("is homeserverUrl"), "{own}");
    assert_eq!(refusal(&to("!other:x"), Answer::status(404)).await.kind, SendErrorKind::Permanent);
    let alias = refusal(&to("#other:x"), Answer::status(405)).await;
    assert_eq!(alias.kind, SendErrorKind::Rejected);
}

#[tokio::test]
async fn what_is_too_long_is_never_sent() {
    let (error, seen) = answered(&message(&"ä".repeat(CONTENT_MAX / 2)), [made()]).await;
    assert_eq!((error.kind, seen.len()), (SendErrorKind::Rejected, 0));
    assert!(error.message.contains("60000 are"), "{error}");
}

#[tokio::test]
async fn a_page_that_is_not_from_a_homeserver_is_no_proof_of_a_message() {
    assert_eq!(refusal(&message("hello"), Answer::page()).await.kind, SendErrorKind::Unknown);
}

#[tokio::test]
async fn health_asks_who_the_user_is() {
    let provider = Provider::answering([Answer::json(200, &json!({ "user_id": "@bot:example.org" }))]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Up);
    let seen = provider.only();
    assert_eq!(lines(std::slice::from_ref(&seen)), ["GET /account/whoami"]);
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));

    let provider = Provider::answering([refused(401, "M_UNKNOWN_TOKEN")]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert!(matches!(&health, Health::Down { reason } if reason.contains("access token")), "{health:?}");

    for (answer, words) in [(Answer::page(), "none of a homeserver"), (Answer::status(404), "the homeserver itself?")] {
        let provider = Provider::answering([answer]).await;
        let health = subject().channel_to(&provider).await.health_check().await;
        assert!(matches!(&health, Health::Down { reason } if reason.contains(words)), "{health:?}");
    }

    let provider = Provider::answering([Answer::status(429)]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Unknown);

    let provider = Provider::answering([Answer::Hang]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert!(matches!(health, Health::Down { .. }), "{health:?}");
}

#[test]
fn faults_of_the_settings_show_no_value() {
    for token in ["", "T0P S3CRET", "Bearer T0P-S3CRET", "T0P-S3CRET\n", "T0P-S3CRÉT"] {
        for url in
            ["", "matrix.example.org", "ftp://T0P", "https://T0P@x", "https://x/?T0P", "https://x/_matrix/client"]
        {
            let values = json!({ "homeserverUrl": url, "accessToken": token, "roomId": "alerts" });
            let faults = faults(plugin("matrix"), values);
            let places: Vec<_> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
            assert_eq!(places, ["homeserverUrl", "accessToken", "roomId"], "{faults:?}");
            assert!(!faults.concat().contains("T0P"), "{faults:?}");
        }
    }
}
