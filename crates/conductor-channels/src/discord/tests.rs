use conductor_core::{Format, Priority, Scope};
use serde_json::json;

use super::gateway::fake::FakeDiscord;
use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, context, contract_tests, error_classes, faults, is_of_class, message,
    plugin,
};
use crate::http::HttpClients;

const TOKEN: &str = "T0P-S3CRET.bot.token";

fn subject() -> Subject {
    Subject {
        plugin: plugin("discord"),
        values: json!({ "botToken": TOKEN, "channelId": "290926798999357250" }),
        success: made(),
        provider_id: Some("334385199974967042"),
        secrets: &["T0P-S3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Permanent),
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
    Answer::json(200, &json!({ "id": "334385199974967042", "channel_id": "290926798999357250" }))
}

contract_tests!(subject(), |seen: &Seen| seen.json()["nonce"].as_str().unwrap_or("").to_owned());

async fn seen(message: &Message, allow_mentions: bool) -> Seen {
    subject().seen_with(message, |_, context| context.allow_mentions = allow_mentions).await
}

fn urgent(format: Format) -> Message {
    let mut message = message("2 * 3 * 4 @everyone <@123>");
    message.title = Some("Sum *of*\n things".into());
    (message.priority, message.format) = (Priority::High, format);
    message
}

#[tokio::test]
async fn a_message_is_created_as_discord_wants_it() {
    let seen = seen(&urgent(Format::Text), false).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/api/v10/channels/290926798999357250/messages"));
    assert_eq!(seen.header("authorization"), format!("Bot {TOKEN}"));
    assert_eq!(seen.header("content-type"), "application/json");
    assert!(seen.header("user-agent").starts_with("DiscordBot (https://"), "{}", seen.header("user-agent"));
    let body = seen.json();
    let expected = "⚠️ **HIGH PRIORITY**\n**Sum \\*of\\* things**\n2 \\* 3 \\* 4 @\u{200B}everyone \\<@123>";
    assert_eq!(body["content"], expected);
    assert_eq!(body["allowed_mentions"], json!({ "parse": [] }));
    assert_eq!(body["enforce_nonce"], true);
    assert_eq!(body["nonce"].as_str().map(str::len), Some(22));
}

#[tokio::test]
async fn markdown_passes_and_mentions_fire_only_where_they_may() {
    let quiet = seen(&urgent(Format::Markdown), false).await.json();
    assert!(quiet["content"].as_str().unwrap().ends_with("\n2 * 3 * 4 @everyone <@123>"));
    assert_eq!(quiet["allowed_mentions"], json!({ "parse": [] }));
    let loud = seen(&urgent(Format::Text), true).await.json();
    assert!(loud["content"].as_str().unwrap().ends_with(" @everyone <@123>"));
    assert_eq!(loud["allowed_mentions"], json!({ "parse": ["users", "roles", "everyone"] }));
}

#[tokio::test]
async fn every_request_fits_discords_own_description() {
    let Some(described) = Description::of("discord.json", "/components/schemas/MessageCreateRequest") else { return };
    described.refuses(&json!({ "contnet": "misspelt" }));
    for format in [Format::Text, Format::Markdown] {
        for allow_mentions in [false, true] {
            let body = seen(&urgent(format), allow_mentions).await.json();
            described.fits(&body);
        }
    }
}

#[tokio::test]
async fn the_target_is_another_channel_of_the_same_bot() {
    let mut message = message("hello");
    message.target = Some("42".into());
    assert_eq!(seen(&message, false).await.path, "/api/v10/channels/42/messages");
}

#[tokio::test]
async fn a_target_that_is_no_id_is_never_asked_for() {
    for target in ["", "general", "42/../../users/@me", "-1", "+1", " 42", "0", "18446744073709551616", "٤٢"] {
        let provider = Provider::answering([made()]).await;
        let mut message = message("hello");
        message.target = Some(target.into());
        let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn two_thousand_characters_are_the_most() {
    let full = message(&"ä".repeat(CONTENT_MAX));
    assert_eq!(seen(&full, false).await.json()["content"].as_str().unwrap().chars().count(), CONTENT_MAX);
    for long in ["ä".repeat(CONTENT_MAX + 1), "*".repeat(CONTENT_MAX / 2 + 1)] {
        let provider = Provider::answering([made()]).await;
        let error = subject().channel_to(&provider).await.send(&message(&long)).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Rejected);
        assert!(error.message.contains("2000 are allowed"), "{error}");
        assert!(provider.seen().is_empty());
    }
}

#[tokio::test]
async fn the_length_is_that_of_what_is_sent() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    for format in [Format::Text, Format::Markdown] {
        for part in [0, 1] {
            let message = Message { part, ..urgent(format) };
            let sent = seen(&message, false).await.json();
            assert_eq!(channel.length(&message), sent["content"].as_str().unwrap().chars().count());
        }
    }
}

#[tokio::test]
async fn only_the_first_part_has_title_and_mark_and_each_its_own_nonce() {
    let message = Message { parts: 2, ..urgent(Format::Markdown) };
    let first = seen(&message, false).await.json();
    let second = seen(&Message { part: 1, ..message.clone() }, false).await.json();
    assert!(first["content"].as_str().unwrap().starts_with("⚠️ **HIGH PRIORITY**\n**Sum"));
    assert_eq!(second["content"], message.body);
    assert_ne!(first["nonce"], second["nonce"]);
    let again = seen(&Message { part: 1, attempt: 2, ..message }, false).await.json();
    assert_eq!(again["nonce"], second["nonce"]);
}

#[tokio::test]
async fn a_limit_waits_as_long_and_as_far_as_discord_says() {
    let body = |global| json!({ "message": "You are being rate limited.", "retry_after": 64.5701, "global": global });
    let millis = |text: &str| Some(Duration::from_millis(text.parse().unwrap()));
    let lane = |retry_after| SendErrorKind::RateLimited { retry_after, scope: Scope::Lane };
    let channel = |retry_after| SendErrorKind::RateLimited { retry_after, scope: Scope::Channel };
    for (answer, expected) in [
        (Answer::json(429, &body(false)).with("retry-after", "65"), lane(millis("64571"))),
        (Answer::json(429, &body(true)), channel(millis("64571"))),
        (Answer::json(429, &body(false)).with("x-ratelimit-global", "true"), channel(millis("64571"))),
        (Answer::json(429, &json!({ "code": 20028, "retry_after": 0.3, "global": false })), lane(millis("300"))),
        (Answer::json(429, &json!({ "code": 40062, "retry_after": 2, "global": false })), channel(millis("2000"))),
        (Answer::json(429, &json!({ "global": false })).with("x-ratelimit-reset-after", "1.25"), lane(millis("1250"))),
        (Answer::json(429, &json!({ "retry_after": -1, "global": false })), lane(None)),
        (Answer::json(429, &json!({ "retry_after": 1e30, "global": "x" })), channel(millis("86400000"))),
        (Answer::status(429).with("retry-after", "9"), channel(millis("9000"))),
    ] {
        let error = subject().refusal(&message("hello"), answer.clone()).await;
        assert_eq!(error.kind, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn missing_access_to_a_named_target_does_not_stop_the_channel() {
    let answer = Answer::json(403, &json!({ "message": "Missing Access", "code": 50001 }));
    let own = subject().refusal(&message("hello"), answer.clone()).await;
    assert_eq!((own.kind, own.code.as_deref()), (SendErrorKind::Unauthorized, Some("50001")));
    assert!(own.message.contains("Missing Access") && own.message.contains("invite the bot"), "{own}");
    let mut other = message("hello");
    other.target = Some("42".into());
    assert_eq!(subject().refusal(&other, answer).await.kind, SendErrorKind::Permanent);
    let mut same = message("hello");
    same.target = Some("290926798999357250".into());
    let refused = Answer::json(401, &json!({ "message": "401: Unauthorized", "code": 0 }));
    assert_eq!(subject().refusal(&same, refused).await.kind, SendErrorKind::Unauthorized);
}

#[tokio::test]
async fn the_faults_of_a_form_are_named() {
    let body = json!({
        "message": "Invalid Form Body", "code": 50035,
        "errors": { "content": { "_errors": [{ "code": "BASE_TYPE_MAX_LENGTH", "message": "Must be 2000 or fewer." }] } },
    });
    let error = subject().refusal(&message("hello"), Answer::json(400, &body)).await;
    assert_eq!(error.message, "Invalid Form Body; content: Must be 2000 or fewer.");
    assert_eq!((error.kind, error.code.as_deref()), (SendErrorKind::Rejected, Some("50035")));
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("discord", 20).into_iter().flatten() {
        for (status, code) in
            row.statuses.iter().flat_map(|status| codes(&row.code).into_iter().map(|code| (*status, code)))
        {
            let answer = Answer::json(status, &json!({ "message": "no", "code": code, "global": false }));
            let result = subject().outcome(&message("hello"), answer).await;
            assert!(is_of_class(&result, &row.class), "{status} {code} {}: {result:?}", row.class);
        }
    }
}

/// The codes of a row such as `50008, 220001-220004`; 0 where it names none.
pub(super) fn codes(text: &str) -> Vec<u64> {
    let mut codes = Vec::new();
    for part in text.split([',', '/']).map(str::trim) {
        match part.split_once('-').map(|(first, last)| (first.parse(), last.parse())) {
            Some((Ok(first), Ok(last))) => codes.extend::<std::ops::RangeInclusive<u64>>(first..=last),
            _ => codes.extend(part.parse::<u64>()),
        }
    }
    if codes.is_empty() { vec![0] } else { codes }
}

#[tokio::test]
async fn a_page_that_is_not_from_discord_is_no_proof_of_a_message() {
    assert_eq!(subject().refusal(&message("hello"), Answer::page()).await.kind, SendErrorKind::Unknown);
}

#[tokio::test]
async fn health_asks_who_the_bot_is() {
    let provider = Provider::answering([Answer::json(200, &json!({ "id": "1" }))]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Up);
    let seen = provider.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", "/api/v10/users/@me"));
    assert_eq!(seen.header("authorization"), format!("Bot {TOKEN}"));

    let provider = Provider::answering([Answer::json(401, &json!({ "message": "401: Unauthorized" }))]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert!(matches!(&health, Health::Down { reason } if reason.contains("token")), "{health:?}");

    let provider = Provider::answering([Answer::status(429)]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Unknown);

    let provider = Provider::answering([Answer::Hang]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert!(matches!(health, Health::Down { .. }), "{health:?}");
}

#[test]
fn faults_of_the_settings_show_no_value() {
    for token in ["", "T0P S3CRET", "Bot T0P-S3CRET", "Bearer T0P-S3CRET", "T0P-S3CRET\n", "T0P-S3CRÉT"] {
        let faults = faults(plugin("discord-bot"), json!({ "botToken": token, "channelId": "general" }));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("botToken: ") && faults[1].starts_with("channelId: "), "{faults:?}");
        assert!(!faults.concat().contains("T0P"), "{faults:?}");
    }
}

async fn channel_at(discord: &FakeDiscord, token: &str) -> Arc<dyn Channel> {
    let subject = Subject { values: json!({ "botToken": token, "channelId": "290926798999357250" }), ..subject() };
    subject.channel(context(&HttpClients::new(), Some(discord.url().parse().unwrap()))).await
}

#[tokio::test]
async fn all_channels_with_one_token_have_one_gateway_connection() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(600)).await;
    let (first, second) = (channel_at(&discord, TOKEN).await, channel_at(&discord, TOKEN).await);
    assert_eq!(first.standing(), None);
    for channel in [&first, &second, &first] {
        channel.open();
    }
    let is_up = |channel: &Arc<dyn Channel>| channel.standing().is_some_and(|now| now.health == Health::Up);
    discord.until("both are up", |_| is_up(&first) && is_up(&second)).await;
    first.shutdown().await;
    assert_eq!((discord.live(), first.standing()), (1, None));
    second.shutdown().await;
    discord.until("a goodbye", |discord| discord.live() == 0).await;
    assert_eq!(discord.identifies(), 1);
}

#[tokio::test]
async fn a_channel_that_is_dropped_takes_its_connection_along() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(600)).await;
    let channel = channel_at(&discord, TOKEN).await;
    channel.open();
    discord.until("a connection", |discord| discord.live() == 1).await;
    drop(channel);
    discord.until("no connection", |discord| discord.live() == 0).await;
}

#[tokio::test]
async fn a_channel_that_wants_no_gateway_asks_for_none() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(600)).await;
    let values = json!({ "botToken": TOKEN, "channelId": "42", "gateway": false });
    let context = context(&HttpClients::new(), Some(discord.url().parse().unwrap()));
    let channel = Subject { values, ..subject() }.channel(context).await;
    channel.open();
    assert!(channel.send(&message("hello")).await.is_ok());
    assert_eq!((discord.seen().len(), channel.standing()), (1, None), "{:?}", discord.seen());
    channel.shutdown().await;
}

#[tokio::test]
async fn sends_go_out_while_the_gateway_is_down() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(600)).await;
    discord.answers_gateway(Some(503));
    let channel = channel_at(&discord, TOKEN).await;
    channel.open();
    assert!(channel.send(&message("hello")).await.is_ok());
    discord.until("it is told", |_| channel.standing().is_some()).await;
    let standing = channel.standing().expect("it was waited for");
    assert!(matches!(&standing.health, Health::Down { reason } if reason.contains("503")), "{standing:?}");
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_not_made_twice() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(600)).await;
    let channel = channel_at(&discord, TOKEN).await;
    discord.loses_answers(1);
    let first = channel.send(&message("hello")).await.expect_err("no answer came");
    assert_eq!((first.kind, discord.messages()), (SendErrorKind::Unknown, 1));
    let again = channel.send(&Message { attempt: 2, ..message("hello") }).await.expect("it is there");
    assert_eq!((again.provider_id.as_deref(), discord.messages()), (Some("1187654321098766001"), 1));
    let next = Message { delivery: conductor_core::DeliveryId::new(Uuid::from_u128(9)), ..message("hello") };
    assert!(channel.send(&next).await.is_ok());
    assert_eq!(discord.messages(), 2);
}

#[tokio::test]
async fn a_global_limit_holds_back_every_channel_with_the_same_token() {
    let limited = Answer::json(429, &json!({ "message": "slow", "retry_after": 30.0, "global": true }));
    let provider = Provider::answering([limited, made()]).await;
    let (first, second) = (subject().channel_to(&provider).await, subject().channel_to(&provider).await);
    let other = Subject { values: json!({ "botToken": "another.token", "channelId": "1" }), ..subject() };
    let other = other.channel_to(&provider).await;
    assert!(first.send(&message("hello")).await.is_err());
    let error = second.send(&message("hello")).await.expect_err("it is not even asked");
    let SendErrorKind::RateLimited { retry_after: Some(wait), scope: Scope::Channel } = error.kind else {
        panic!("{error:?}")
    };
    assert!(wait > Duration::from_secs(25), "{wait:?}");
    assert_eq!(provider.seen().len(), 1);
    assert!(other.send(&message("hello")).await.is_ok(), "another bot has its own limits");
}

#[tokio::test]
async fn a_window_that_is_used_up_is_waited_for_without_asking() {
    let last = made().with("x-ratelimit-limit", "5").with("x-ratelimit-remaining", "0");
    let provider = Provider::answering([last.with("x-ratelimit-reset-after", "7.5")]).await;
    let (first, second) = (subject().channel_to(&provider).await, subject().channel_to(&provider).await);
    assert!(first.send(&message("hello")).await.is_ok());
    let error = second.send(&message("hello")).await.expect_err("it is not even asked");
    assert!(matches!(error.kind, SendErrorKind::RateLimited { scope: Scope::Lane, .. }), "{error:?}");
    assert_eq!(provider.seen().len(), 1);
    let mut elsewhere = message("hello");
    elsewhere.target = Some("42".into());
    assert!(second.send(&elsewhere).await.is_ok());
}
