use std::time::Instant;

use conductor_core::{Format, Priority};
use serde_json::{Value, json};

use super::*;
use crate::contract::tls::Identity;
use crate::contract::{Answer, Subject, captured, checks, context, faults, is_of_class, message, plugin, spec};
use crate::http::HttpClients;
use server::{Act, CONNECTED, END, MailServer, Script};

mod letters;
mod real;
mod server;

const AGAIN: SendErrorKind = SendErrorKind::Retryable { retry_after: None };
const PASSWORD: &str = "T0P-S3CRET";

fn values(more: Value) -> Value {
    let mut values = json!({ "host": "localhost", "from": "Conductor <alerts@example.com>", "to": "ops@example.com" });
    let Value::Object(more) = more else { panic!("settings are an object") };
    for (name, value) in more {
        values[name] = value;
    }
    values
}

fn subject() -> Subject {
    Subject {
        plugin: plugin("email"),
        values: values(json!({ "username": "bot", "password": PASSWORD })),
        success: Answer::status(200),
        provider_id: None,
        secrets: &[PASSWORD],
        statuses: &[],
    }
}

async fn channel(clients: &HttpClients, more: Value) -> Email {
    let config = serde_json::from_value(values(more)).unwrap();
    Email::initialize(config, context(clients, None)).await.unwrap()
}

/// A channel to a server without encryption.
async fn plain(server: &MailServer) -> Email {
    channel(&HttpClients::new(), json!({ "port": server.port, "security": "none" })).await
}

/// A channel that logs in, over TLS with a certificate that it trusts.
async fn encrypted(server: &MailServer, identity: &Identity, security: &str) -> Email {
    let clients = HttpClients::new().trusting(identity.authority.der().clone());
    let more = json!({ "port": server.port, "security": security, "username": "bot", "password": PASSWORD });
    channel(&clients, more).await
}

async fn result(acts: impl IntoIterator<Item = (&'static str, Act)>) -> Result<Receipt, SendError> {
    let server = MailServer::playing(Script::with(acts)).await;
    plain(&server).await.send(&message("hello")).await
}

async fn refused(at: &'static str, text: &'static str) -> SendError {
    result([(at, Act::Say(text))]).await.expect_err(text)
}

#[test]
fn the_settings_are_the_schemas_and_their_examples_validate() {
    checks::the_settings_are_the_schemas_and_their_examples_validate(&subject());
}

#[test]
fn an_unknown_setting_is_told() {
    checks::an_unknown_setting_is_told(&subject());
}

#[test]
fn bad_settings_are_told_with_their_mend() {
    for (more, told) in [
        (json!({ "host": "" }), "host: is empty"),
        (json!({ "host": "smtp.example.com:587" }), "host: is more than a name"),
        (json!({ "host": "smtps://smtp.example.com" }), "host: is more than a name"),
        (json!({ "host": "a b" }), "host: is no name of a server"),
        (json!({ "port": 0 }), "port: is 0"),
        (json!({ "port": "5x" }), "invalid digit"),
        (json!({ "from": "alerts" }), "from: \"alerts\" is no e-mail address: it has no @"),
        (json!({ "from": "a@example.com\r\nBcc: b@example.com" }), "from: holds a line break"),
        (json!({ "to": "ops@example.com," }), "to: \"\" is no e-mail address"),
        (json!({ "to": "zoë@example.com" }), "SMTPUTF8"),
        (json!({ "replyTo": "@" }), "replyTo: "),
        (json!({ "username": "bot" }), "password: is missing beside the user name (set both, or neither)"),
        (json!({ "password": "x" }), "username: is missing beside the password"),
        (json!({ "username": "bot", "password": "x", "security": "none" }), "security: is \"none\""),
        (json!({ "username": "bot", "password": "x\u{0}y" }), "password: is too long or holds a NUL"),
        (json!({ "security": "ssl" }), "unknown variant `ssl`"),
    ] {
        let found = faults(plugin("email"), values(more.clone()));
        assert!(found.len() == 1 && found[0].contains(told), "{more}: {found:?}");
    }
    for good in [
        json!({ "host": "192.168.1.7", "port": "2525", "security": "none" }),
        json!({ "host": "[::1]", "security": "tls", "replyTo": "Help <help@example.com>" }),
        json!({ "host": "müller.example", "username": "", "password": "" }),
    ] {
        assert_eq!(faults(plugin("email"), values(good.clone())), Vec::<String>::new(), "{good}");
    }
}

#[tokio::test]
async fn a_base_url_is_refused_because_it_would_do_nothing() {
    let config = serde_json::from_value(values(json!({}))).unwrap();
    let base = "http://127.0.0.1/".parse().unwrap();
    let error = Email::initialize(config, context(&HttpClients::new(), Some(base))).await.err().unwrap();
    assert!(error.0.contains("baseUrl"), "{error}");
}

#[tokio::test]
async fn a_letter_is_handed_over() {
    let script = Script::with([]).offering(&["SIZE 5000", "DSN"]);
    let server = MailServer::playing(script).await;
    let sent = message("hello");
    let receipt = plain(&server).await.send(&sent).await.unwrap();
    let id = sent.part_id();
    assert_eq!(receipt.provider_id, Some(format!("{id}@example.com")));
    let seen = server.seen();
    assert_eq!(seen.lines[0], "EHLO [127.0.0.1]");
    let letter = &seen.letters[0];
    assert_eq!(
        seen.lines[1..],
        [
            format!("MAIL FROM:<alerts@example.com> SIZE={} RET=HDRS ENVID={id}", letter.len()),
            "RCPT TO:<ops@example.com> NOTIFY=FAILURE,DELAY".into(),
            "DATA".into(),
        ]
    );
    assert!(letter.contains(&format!("\r\nMessage-ID: <{id}@example.com>\r\n")), "{letter}");
    assert!(letter.ends_with("\r\n\r\nhello\r\n"), "{letter}");
}

#[tokio::test]
async fn a_retry_has_the_same_message_id() {
    let server = MailServer::playing(Script::with([(END, Act::Say("451 4.3.0 later"))])).await;
    let channel = plain(&server).await;
    let mut message = message("hello");
    assert_eq!(channel.send(&message).await.unwrap_err().kind, AGAIN);
    message.attempt = 2;
    channel.send(&message).await.unwrap();
    let seen = server.seen();
    let ids: Vec<_> =
        seen.letters.iter().filter_map(|letter| letter.lines().find(|line| line.starts_with("Message-ID"))).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
}

#[tokio::test]
async fn a_connection_carries_one_message_after_the_other() {
    let server = MailServer::playing(Script::with([])).await;
    let channel = plain(&server).await;
    for _ in 0..3 {
        channel.send(&message("hello")).await.unwrap();
    }
    assert_eq!((server.seen().connections, server.lines("RSET").len(), server.seen().letters.len()), (1, 2, 3));
    channel.shutdown().await;
    assert_eq!(server.seen().lines.last().map(String::as_str), Some("QUIT"));
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_opened_anew() {
    let first = || ("MAIL", Act::Say("250 ok"));
    for acts in [
        vec![("RSET", Act::Close)],
        vec![("RSET", Act::SayAndClose("421 4.4.2 timeout"))],
        vec![first(), ("MAIL", Act::Close)],
        vec![first(), ("MAIL", Act::SayAndClose("421 4.7.0 enough"))],
    ] {
        let server = MailServer::playing(Script::with(acts.clone())).await;
        let channel = plain(&server).await;
        for _ in 0..2 {
            channel.send(&message("hello")).await.unwrap();
        }
        assert_eq!((server.seen().connections, server.seen().letters.len()), (2, 2), "{acts:?}");
    }
}

#[tokio::test]
async fn what_a_refusal_means_is_as_the_table_says() {
    let Some(classes) = spec("error_classes.json") else { return };
    let table = ["smtp", "email"].iter().find_map(|name| find(&classes, name)).expect("a table for SMTP");
    let mut tried = 0;
    for entry in table.as_array().unwrap() {
        let (status, codes) = (entry["status"].as_str().unwrap(), entry["code"].as_str().unwrap());
        let expected = match (status, entry["class"].as_str().unwrap()) {
            // The note beside it says to retry later: the trouble is the server's own and passes by itself, so that
            // the channel must not stop for it.
            ("454", "auth") => "retry",
            (_, class) => class,
        };
        for status in statuses(status) {
            for code in enhanced(codes) {
                let step = if expected == "auth" { Step::Login } else { Step::Recipient };
                let reply = Reply { code: status, text: format!("{code} words") };
                // "Mailbox full (treat as retry)", says the note beside it.
                let expected = if code == "5.2.2" { "retry" } else { expected };
                let error = SendError::new(answer::kind(step, &reply), "");
                assert!(is_of_class(&Err(error), expected), "{status} {code}: {:?}", answer::kind(step, &reply));
                tried += 1;
            }
        }
    }
    assert!(tried > 25, "only {tried} were tried");
}

fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).or_else(|| value.as_object()?.values().find_map(|inner| find(inner, name)))
}

fn statuses(text: &str) -> Vec<u16> {
    if let Some((from, to)) = text.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?))) {
        return (from..=to).collect();
    }
    text.split(", ").filter_map(|status| status.parse().ok()).collect()
}

fn enhanced(text: &str) -> Vec<String> {
    let one = |code: &str| code.trim().replace('x', "0");
    text.split([',', '/']).map(one).collect()
}

#[tokio::test]
async fn what_a_refusal_means_depends_on_what_was_refused() {
    use SendErrorKind::{Permanent, Rejected, Unauthorized};
    for (at, says, kind) in [
        (CONNECTED, "421 4.3.2 busy", AGAIN),
        (CONNECTED, "554 5.7.1 you are not welcome", Unauthorized),
        ("EHLO", "550 5.7.1 bad name", Unauthorized),
        ("MAIL", "451 4.7.1 slowly", AGAIN),
        ("MAIL", "530 5.7.0 log in first", Unauthorized),
        ("MAIL", "550 5.7.60 not your address", Unauthorized),
        ("MAIL", "553 5.1.8 no such sender", Unauthorized),
        ("MAIL", "552 5.3.4 too large", Rejected),
        ("MAIL", "501 5.5.4 what?", Rejected),
        ("RCPT", "450 4.2.1 mailbox busy", AGAIN),
        ("RCPT", "451 4.7.1 greylisted", AGAIN),
        ("RCPT", "452 4.2.2 mailbox full", AGAIN),
        ("RCPT", "421 4.4.2 closing", AGAIN),
        ("RCPT", "550 5.1.1 no such user", Permanent),
        ("RCPT", "550 no such user", Permanent),
        ("RCPT", "552 5.2.2 mailbox full", AGAIN),
        ("RCPT", "552 full", AGAIN),
        ("RCPT", "554 5.7.1 relay denied", Permanent),
        ("DATA", "451 4.3.0 no room", AGAIN),
        ("DATA", "554 5.5.1 no recipients", Permanent),
        (END, "452 4.3.1 no room", AGAIN),
        (END, "550 5.7.1 spam", Permanent),
        (END, "554 5.6.0 bad content", Rejected),
        (END, "554 no", Permanent),
        (END, "552 too large", Rejected),
    ] {
        let error = refused(at, says).await;
        assert_eq!(error.kind, kind, "{at}: {says}: {error}");
        assert_eq!(error.code.as_deref(), Some(&says[..3]));
        assert!(error.message.contains(says), "{error}");
    }
}

#[tokio::test]
async fn only_the_end_of_the_message_leaves_it_open_whether_it_is_taken() {
    for act in [Act::Close, Act::Hang, Act::Say("hello?"), Act::Say("354 go on"), Act::Babble] {
        for at in [CONNECTED, "EHLO", "MAIL", "RCPT", "DATA", END] {
            let begun = Instant::now();
            if at == "DATA" && matches!(act, Act::Say("354 go on")) {
                continue;
            }
            let error = result([(at, act.clone())]).await.expect_err(at);
            let expected = if at == END { SendErrorKind::Unknown } else { AGAIN };
            assert_eq!(error.kind, expected, "{at} {act:?}: {error}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{at} {act:?}");
            if matches!(act, Act::Babble) {
                assert!(error.message.contains("a line of more than 4096 bytes"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn no_connection_is_worth_another_try() {
    let server = MailServer::playing(Script::with([])).await;
    let channel = plain(&server).await;
    drop(server);
    let error = channel.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.kind, AGAIN, "{error}");
    assert!(error.message.contains("could not connect to localhost:"), "{error}");
    assert!(matches!(channel.health_check().await, Health::Down { .. }));
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_refused() {
    let server = MailServer::playing(Script::with([])).await;
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"] {
        for security in ["none", "starttls", "tls"] {
            let more = json!({ "host": host, "port": server.port, "security": security });
            let config = serde_json::from_value(values(more)).unwrap();
            let context = ChannelContext { http: HttpClients::new().client(&[]), ..context(&HttpClients::new(), None) };
            let channel = Email::initialize(config, context).await.unwrap();
            let error = channel.send(&message("hello")).await.unwrap_err();
            assert_eq!(error.kind, SendErrorKind::Permanent, "{host}: {error}");
            assert!(error.message.contains("\"allowNetworks\": ["), "{host}: {error}");
        }
    }
    assert_eq!(server.seen().connections, 0);
}

#[tokio::test]
async fn unencrypted_mail_goes_to_allowed_networks_only() {
    let more = json!({ "host": "198.41.0.4", "security": "none" });
    let error = channel(&HttpClients::new(), more).await.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Permanent);
    assert!(error.message.contains("unencrypted") && error.message.contains("198.41.0.4/32"), "{error}");
}

#[tokio::test]
async fn the_login_goes_out_encrypted_only() {
    let identity = Identity::of("localhost");
    let login = "+AUTH PLAIN AGJvdABUMFAtUzNDUkVU";
    for (security, at_once) in [("starttls", false), ("tls", true)] {
        let script = Script::with([]).offering(&["STARTTLS", "AUTH LOGIN PLAIN"]).tls(&identity, at_once);
        let server = MailServer::playing(script).await;
        let channel = encrypted(&server, &identity, security).await;
        channel.send(&message("hello")).await.unwrap();
        let lines = server.seen().lines;
        let before = if at_once { 0 } else { 2 };
        assert!(lines.iter().skip(before).all(|line| line.starts_with('+')), "{lines:?}");
        assert_eq!(lines[before + 1], login);
        assert_eq!(channel.health_check().await, Health::Up);
    }
    let script = Script::with([]).offering(&["STARTTLS", "AUTH LOGIN"]).tls(&identity, false);
    let server = MailServer::playing(script).await;
    encrypted(&server, &identity, "starttls").await.send(&message("hello")).await.unwrap();
    assert_eq!(server.seen().lines[3..6], ["+AUTH LOGIN", "+Ym90", "+VDBQLVMzQ1JFVA=="]);
}

#[tokio::test]
async fn a_server_without_starttls_gets_nothing() {
    let identity = Identity::of("localhost");
    let server = MailServer::playing(Script::with([]).offering(&["AUTH PLAIN LOGIN"]).tls(&identity, false)).await;
    let error = encrypted(&server, &identity, "starttls").await.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Unauthorized);
    assert!(error.message.contains("offers no STARTTLS"), "{error}");
    assert_eq!(server.seen().lines, ["EHLO [127.0.0.1]"]);
}

#[tokio::test]
async fn a_starttls_that_goes_wrong_ends_the_conversation() {
    let identity = Identity::of("localhost");
    let other = Identity::of("localhost");
    for (act, trusted, kind) in [
        (Act::Say("454 4.7.0 no TLS now"), true, AGAIN),
        (Act::Say("502 5.5.1 no TLS"), true, SendErrorKind::Unauthorized),
        (Act::Say("220 begin\r\n250 injected"), true, AGAIN),
        (Act::Close, true, AGAIN),
        (Act::Hang, true, AGAIN),
        (Act::Say("220 but no TLS follows"), true, AGAIN),
        (Act::Say("220 begin"), false, AGAIN),
    ] {
        let acts = if trusted { vec![("STARTTLS", act.clone())] } else { vec![] };
        let script = Script::with(acts).offering(&["STARTTLS", "AUTH PLAIN"]).tls(&identity, false);
        let server = MailServer::playing(script).await;
        let channel = encrypted(&server, if trusted { &identity } else { &other }, "starttls").await;
        let error = channel.send(&message("hello")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{act:?}: {error}");
        assert_eq!(error.message.contains("SSL_CERT_FILE"), !trusted, "{error}");
        let injected = matches!(act, Act::Say(text) if text.contains("injected"));
        assert_eq!(error.message.contains("before the encryption began"), injected, "{error}");
        assert!(server.lines("AUTH").is_empty() && server.lines("MAIL").is_empty(), "{act:?}");
    }
}

#[tokio::test]
async fn a_certificate_must_be_for_the_servers_name() {
    let identity = Identity::of("mail.example");
    let server = MailServer::playing(Script::with([]).tls(&identity, true)).await;
    let error = encrypted(&server, &identity, "tls").await.send(&message("hello")).await.unwrap_err();
    assert!(error.kind == AGAIN && error.message.contains("certificate"), "{error}");
    assert!(server.seen().lines.is_empty());
}

#[tokio::test]
async fn refused_credentials_stop_the_channel_and_are_not_shown() {
    let identity = Identity::of("localhost");
    let (logs, guard) = captured();
    for (says, kind) in [
        ("535 5.7.8 T0P-S3CRET AGJvdABUMFAtUzNDUkVU VDBQLVMzQ1JFVA==", SendErrorKind::Unauthorized),
        ("534 5.7.9 use an app password", SendErrorKind::Unauthorized),
        ("500 5.5.1 AUTH PLAIN AGJvdABUMFAtUzNDUkVU: what?", SendErrorKind::Unauthorized),
        ("454 4.7.0 later", AGAIN),
    ] {
        let script = Script::with([("AUTH", Act::Say(says)), ("AUTH", Act::Say(says))]);
        let script = script.offering(&["AUTH PLAIN"]).tls(&identity, true);
        let server = MailServer::playing(script).await;
        let channel = encrypted(&server, &identity, "tls").await;
        let error = channel.send(&message("hello")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let said = format!("{error} {error:?} {:?} {channel:?}", channel.health_check().await);
        for secret in [PASSWORD, "AGJvdABUMFAtUzNDUkVU", "VDBQLVMzQ1JFVA"] {
            assert!(!said.contains(secret), "{said}");
        }
        assert_eq!(said.contains("***"), says.contains("AGJv"), "{said}");
    }
    drop(guard);
    assert!(!logs.text().contains(PASSWORD) && !logs.text().contains("AGJvdABU"));
    let server = MailServer::playing(Script::with([]).offering(&["AUTH CRAM-MD5"]).tls(&identity, true)).await;
    let error = encrypted(&server, &identity, "tls").await.send(&message("hello")).await.unwrap_err();
    assert!(error.kind == SendErrorKind::Unauthorized && error.message.contains("neither"), "{error}");
}

async fn to_three(acts: impl IntoIterator<Item = (&'static str, Act)>) -> (MailServer, Email) {
    let server = MailServer::playing(Script::with(acts)).await;
    let to = "a@example.com, Jo <b@example.com>, c@example.com";
    let channel = channel(&HttpClients::new(), json!({ "port": server.port, "security": "none", "to": to })).await;
    (server, channel)
}

#[tokio::test]
async fn all_recipients_get_one_letter_that_names_them() {
    let (server, channel) = to_three([]).await;
    channel.send(&message("hello")).await.unwrap();
    assert_eq!(server.lines("RCPT").len(), 3);
    let letter = server.seen().letters.remove(0);
    assert!(letter.contains("\r\nTo: a@example.com, Jo <b@example.com>, c@example.com\r\n"), "{letter}");
}

#[tokio::test]
async fn a_retry_goes_to_those_alone_who_have_nothing_yet() {
    let grey = ("RCPT TO:<b", Act::Say("451 4.7.1 greylisted"));
    let (server, channel) = to_three([grey, ("RCPT TO:<c", Act::Say("550 5.1.1 gone"))]).await;
    let mut message = message("hello");
    let error = channel.send(&message).await.unwrap_err();
    assert_eq!(error.kind, AGAIN);
    assert!(error.message.contains("1 of 3 recipients have it; b@example.com"), "{error}");
    message.attempt = 2;
    let receipt = channel.send(&message).await.unwrap();
    let asked = server.lines("RCPT");
    assert_eq!(asked[3..], ["RCPT TO:<b@example.com>", "RCPT TO:<c@example.com>"]);
    assert_eq!(server.seen().letters.len(), 2);
    assert!(!receipt.provider_id.unwrap().contains("refused"));
    // That is over: another notification goes to all of them.
    channel.send(&message).await.unwrap();
    assert_eq!(server.lines("RCPT").len(), 8);
}

#[tokio::test]
async fn a_message_that_some_recipients_have_is_sent_and_names_the_others() {
    let (server, channel) = to_three([("RCPT TO:<b", Act::Say("550 5.1.1 gone"))]).await;
    let receipt = channel.send(&message("hello")).await.unwrap();
    let id = receipt.provider_id.unwrap();
    assert!(id.ends_with(" (refused for b@example.com: 550 5.1.1 gone)"), "{id}");
    assert_eq!(server.seen().letters.len(), 1);
}

#[tokio::test]
async fn without_any_recipient_no_letter_goes_out() {
    let no = |at| (at, Act::Say("550 5.1.1 gone"));
    let (server, channel) = to_three([no("RCPT TO:<a"), ("RCPT TO:<b", Act::Say("451 later")), no("RCPT TO:<c")]).await;
    assert_eq!(channel.send(&message("hello")).await.unwrap_err().kind, AGAIN);
    let (_other, channel) = to_three([no("RCPT TO:<a"), no("RCPT TO:<b"), no("RCPT TO:<c")]).await;
    let error = channel.send(&message("hello")).await.unwrap_err();
    assert!(error.kind == SendErrorKind::Permanent && error.message.contains("0 of 3"), "{error}");
    assert!(server.lines("DATA").is_empty());
}

#[tokio::test]
async fn a_target_takes_the_recipients_place() {
    let (server, channel) = to_three([]).await;
    let mut message = message("hello");
    message.target = Some("Night <night@example.com>, x@example.com".into());
    channel.send(&message).await.unwrap();
    assert_eq!(server.lines("RCPT"), ["RCPT TO:<night@example.com>", "RCPT TO:<x@example.com>"]);
    for bad in ["nobody", "a@example.com\r\nRCPT TO:<b@example.com>", "a@example.com>\u{0}", "zoë@example.com", ""] {
        message.target = Some(bad.into());
        let error = channel.send(&message).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{bad}");
        assert!(error.message.starts_with("the targetId "), "{error}");
    }
    assert_eq!(server.lines("RCPT").len(), 2);
}

#[tokio::test]
async fn a_letter_that_is_too_large_for_the_server_is_not_tried() {
    let server = MailServer::playing(Script::with([]).offering(&["SIZE 300"])).await;
    let error = plain(&server).await.send(&message(&"x".repeat(300))).await.unwrap_err();
    assert!(error.kind == SendErrorKind::Rejected && error.message.contains("takes 300"), "{error}");
    assert!(server.lines("MAIL").is_empty());
}
