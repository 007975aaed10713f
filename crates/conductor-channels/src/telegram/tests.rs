use conductor_core::{Format, Scope};

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, captured, context, contract_tests, error_classes, faults,
    is_of_class, message, plugin,
};
use crate::http::HttpClients;

const TOKEN: &str = "123456789:AAE-T0P-S3CRET_0123456789-abcdefghij";
const CHAT: i64 = -1_001_234_567_890;

fn subject() -> Subject {
    Subject {
        plugin: plugin("telegram"),
        values: json!({ "botToken": TOKEN, "chatId": CHAT.to_string() }),
        success: made(),
        provider_id: Some("42"),
        secrets: &["T0P-S3CRET"],
        statuses: &[
            (400, SendErrorKind::Rejected),
            (401, SendErrorKind::Unauthorized),
            (403, SendErrorKind::Unauthorized),
            (404, SendErrorKind::Unauthorized),
            (408, SendErrorKind::Retryable { retry_after: None }),
            (413, SendErrorKind::Rejected),
            (429, SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel }),
            (500, SendErrorKind::Unknown),
            (502, SendErrorKind::Unknown),
            (503, SendErrorKind::Retryable { retry_after: None }),
            (504, SendErrorKind::Unknown),
        ],
    }
}

fn made() -> Answer {
    Answer::json(200, &json!({ "ok": true, "result": { "message_id": 42, "chat": { "id": CHAT }, "date": 1 } }))
}

fn refused(status: u16, words: &str) -> Answer {
    Answer::json(status, &json!({ "ok": false, "error_code": status, "description": words }))
}

fn limited(seconds: u64) -> Answer {
    let description = format!("Too Many Requests: retry after {seconds}");
    let parameters = json!({ "retry_after": seconds });
    let body = json!({ "ok": false, "error_code": 429, "description": description, "parameters": parameters });
    Answer::json(429, &body)
}

fn migrated(to: i64) -> Answer {
    let description = "Bad Request: group chat was upgraded to a supergroup chat";
    let parameters = json!({ "migrate_to_chat_id": to });
    let body = json!({ "ok": false, "error_code": 400, "description": description, "parameters": parameters });
    Answer::json(400, &body)
}

// Telegram knows nothing by which a repetition could be recognised; the message at least stays the same.
contract_tests!(subject(), |seen: &Seen| seen.json().to_string());

async fn seen_with(options: Value, message: &Message, allow_mentions: bool) -> Seen {
    let change = |values: &mut Value, context: &mut ChannelContext| {
        context.allow_mentions = allow_mentions;
        for (name, value) in options.as_object().expect("options are an object") {
            values[name] = value.clone();
        }
    };
    subject().seen_with(message, change).await
}

async fn seen(message: &Message) -> Seen {
    subject().seen(message).await
}

fn urgent(format: Format) -> Message {
    let mut message = message("2 *x* < 3 @anna [y](https://y.example/?a&b)");
    message.title = Some("Sum <of>\n things".into());
    (message.priority, message.format) = (Priority::High, format);
    message
}

fn to(target: &str) -> Message {
    Message { target: Some(target.into()), ..message("hello") }
}

#[tokio::test]
async fn plain_text_is_sent_without_a_parser() {
    let seen = seen(&urgent(Format::Text)).await;
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", format!("/bot{TOKEN}/sendMessage").as_str()));
    assert_eq!(seen.header("content-type"), "application/json");
    let text = "⚠️ HIGH PRIORITY\nSum <of> things\n2 *x* < 3 @\u{200B}anna [y](https://y.example/?a&b)";
    let bold = |offset, length| json!({ "type": "bold", "offset": offset, "length": length });
    assert_eq!(seen.json(), json!({ "chat_id": CHAT, "text": text, "entities": [bold(3, 13), bold(17, 15)] }));
}

#[tokio::test]
async fn markdown_is_sent_as_html() {
    let seen = seen(&urgent(Format::Markdown)).await;
    let text = "⚠️ <b>HIGH PRIORITY</b>\n<b>Sum &lt;of&gt; things</b>\n\
                2 <i>x</i> &lt; 3 @\u{200B}anna <a href=\"https://y.example/?a&amp;b\">y</a>";
    assert_eq!(seen.json(), json!({ "chat_id": CHAT, "text": text, "parse_mode": "HTML" }));
}

#[tokio::test]
async fn names_reach_people_only_where_they_may() {
    for format in [Format::Text, Format::Markdown] {
        let loud = seen_with(json!({}), &urgent(format), true).await.json();
        assert!(loud["text"].as_str().unwrap().contains(" @anna "), "{loud}");
    }
}

#[tokio::test]
async fn every_request_fits_the_description_of_telegrams_api() {
    let Some(described) = Description::of(
        "telegram.json",
        "/paths/~1bot{token}~1sendMessage/post/requestBody/content/application~1json/schema",
    ) else {
        return;
    };
    described.refuses(&json!({ "chat_id": 1, "text": "x", "parse_mod": "misspelt" }));
    let linked = "see https://a.example/@b";
    for format in [Format::Text, Format::Markdown] {
        for priority in [Priority::Low, Priority::High] {
            for target in [None, Some("@alerts_of_ours".to_owned()), Some("-42:7".to_owned())] {
                let message = Message { target, priority, body: linked.into(), ..urgent(format) };
                let body = seen_with(json!({ "linkPreview": false }), &message, false).await.json();
                described.fits(&body);
            }
        }
    }
}

#[tokio::test]
async fn low_priority_makes_no_sound_and_a_preview_can_be_left_off() {
    let low = Message { priority: Priority::Low, ..message("hello") };
    assert_eq!(seen(&low).await.json()["disable_notification"], true);
    let normal = seen_with(json!({ "linkPreview": false }), &message("hello"), false).await.json();
    let none = json!({ "is_disabled": true });
    assert_eq!(normal, json!({ "chat_id": CHAT, "text": "hello", "link_preview_options": none }));
}

#[tokio::test]
async fn a_target_is_another_chat_and_perhaps_a_topic_of_it() {
    let own = json!({ "messageThreadId": 5 });
    for (target, chat, topic) in [
        (None, json!(CHAT), json!(5)),
        (Some("42"), json!(42), json!(null)),
        (Some("@alerts_of_ours"), json!("@alerts_of_ours"), json!(null)),
        (Some("-1001234567890:7"), json!(CHAT), json!(7)),
        (Some("-1001234567890"), json!(CHAT), json!(null)),
    ] {
        let message = Message { target: target.map(str::to_owned), ..message("hello") };
        let body = seen_with(own.clone(), &message, false).await.json();
        assert_eq!((&body["chat_id"], &body["message_thread_id"]), (&chat, &topic), "{target:?}");
    }
    let in_the_setting = seen_with(json!({ "chatId": "-42:9" }), &message("hello"), false).await.json();
    assert_eq!((&in_the_setting["chat_id"], &in_the_setting["message_thread_id"]), (&json!(-42), &json!(9)));
}

#[tokio::test]
async fn a_target_that_is_no_chat_is_never_asked_for() {
    for target in ["", "general", "42/../getMe", "@x", "42:", "42:0"] {
        let provider = Provider::answering([made()]).await;
        let error = subject().channel_to(&provider).await.send(&to(target)).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::Permanent, "{target}");
        assert!(provider.seen().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn the_length_is_that_of_what_people_see_in_utf_16() {
    let provider = Provider::answering([made()]).await;
    let channel = subject().channel_to(&provider).await;
    let bold = Message { format: Format::Markdown, ..message(&format!("**{}**", "😀".repeat(TEXT_MAX / 2))) };
    assert_eq!(channel.length(&bold), TEXT_MAX);
    assert!(channel.send(&bold).await.is_ok());
    let typed = message(&"<".repeat(TEXT_MAX));
    assert_eq!(channel.length(&typed), TEXT_MAX);
    let long = message(&"😀".repeat(TEXT_MAX / 2 + 1));
    assert_eq!(channel.length(&long), TEXT_MAX + 2);
    let error = channel.send(&long).await.unwrap_err();
    assert!(error.kind == SendErrorKind::Rejected && error.message.contains("4096 are"), "{error}");
    assert_eq!(provider.seen().len(), 1);
    let titled = Message { part: 0, ..urgent(Format::Text) };
    let head = "⚠️ HIGH PRIORITY\nSum <of> things\n";
    let second = Message { part: 1, ..titled.clone() };
    assert_eq!(channel.length(&titled) - channel.length(&second), Unit::Utf16.count(head));
}

#[tokio::test]
async fn a_group_that_moved_is_followed_at_once_and_from_then_on() {
    let (logs, guard) = captured();
    let provider = Provider::answering([migrated(-100_999), made()]).await;
    let channel = subject().channel_to(&provider).await;
    for _ in 0..2 {
        let receipt = channel.send(&message("hello")).await.expect("it went to the new number");
        assert_eq!(receipt.provider_id.as_deref(), Some("42"));
    }
    drop(guard);
    let chats: Vec<Value> = provider.seen().iter().map(|seen| seen.json()["chat_id"].clone()).collect();
    assert_eq!(chats, [json!(CHAT), json!(-100_999), json!(-100_999)]);
    let logs = logs.text();
    let told = logs.lines().filter(|line| line.contains("became a supergroup")).count();
    assert!(told == 1 && logs.contains("put -100999 into the channel's chatId"), "{logs}");
}

#[tokio::test]
async fn a_group_that_goes_on_moving_is_tried_again_later() {
    let provider = Provider::answering([migrated(-7)]).await;
    let error = subject().channel_to(&provider).await.send(&message("hello")).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Retryable { retry_after: None }, "{error}");
    assert_eq!(provider.seen().len(), 2);
}

#[tokio::test]
async fn a_limit_holds_for_the_chat_until_a_second_one_is_limited_too() {
    let provider = Provider::answering([limited(7)]).await;
    // Two channels of one bot, and the plugin alone, without what holds it back after the first answer.
    let own = async || {
        let config = serde_json::from_value(subject().values).expect("the settings are the plugin's");
        let context = context(&HttpClients::new(), Some(provider.url()));
        Telegram::initialize(config, context).await.expect("they are valid")
    };
    let (channel, other) = (own().await, own().await);
    let kind = |scope| SendErrorKind::RateLimited { retry_after: Some(Duration::from_secs(7)), scope };
    for (channel, message, scope) in [
        (&channel, message("hello"), Scope::Lane),
        (&other, message("hello"), Scope::Lane),
        (&other, to("42"), Scope::Channel),
    ] {
        let error = channel.send(&message).await.unwrap_err();
        assert_eq!(error.kind, kind(scope));
        assert_eq!((error.message.as_str(), error.code.as_deref()), ("Too Many Requests: retry after 7", Some("429")));
    }
}

#[tokio::test]
async fn missing_rights_in_a_named_target_do_not_stop_the_channel() {
    let answer = refused(400, "Bad Request: not enough rights to send text messages to the chat");
    let own = subject().refusal(&message("hello"), answer.clone()).await;
    assert_eq!((own.kind, own.code.as_deref()), (SendErrorKind::Unauthorized, Some("400")));
    assert!(own.message.contains("not enough rights") && own.message.contains("administrator"), "{own}");
    assert_eq!(subject().refusal(&to("42"), answer.clone()).await.kind, SendErrorKind::Permanent);
    assert_eq!(subject().refusal(&to(&CHAT.to_string()), answer).await.kind, SendErrorKind::Unauthorized);
    let unknown = subject().refusal(&to("42"), refused(401, "Unauthorized")).await;
    assert_eq!(unknown.kind, SendErrorKind::Unauthorized);
    assert!(unknown.message.contains("@BotFather"), "{unknown}");
}

#[tokio::test]
async fn the_error_table_is_kept() {
    for row in error_classes("telegram", 12).into_iter().flatten() {
        // Only an edit is answered so, and nothing is edited here.
        if row.class == "ok" {
            continue;
        }
        // What answers 503 has refused the request before it took it, so it is not among these.
        for status in row.statuses.iter().copied().filter(|status| *status != 503) {
            let words = row.code.split([',', '/', '+']).map(str::trim);
            for words in words.filter(|words| !words.starts_with("parameters.")) {
                let result = subject().outcome(&message("hello"), refused(status, &format!("Error: {words}"))).await;
                assert!(is_of_class(&result, &row.class), "{status} {words} {}: {result:?}", row.class);
            }
        }
    }
}

#[tokio::test]
async fn a_page_that_is_not_from_telegram_is_no_proof_of_a_message() {
    assert_eq!(subject().refusal(&message("hello"), Answer::page()).await.kind, SendErrorKind::Unknown);
}

#[tokio::test]
async fn an_answer_that_repeats_the_token_shows_none_of_it() {
    let secret = TOKEN.split_once(':').unwrap().1;
    for words in [TOKEN.to_owned(), format!("/bot123456789%3A{secret}/sendMessage")] {
        let error = subject().refusal(&message("hello"), refused(404, &format!("no {words}"))).await;
        assert!(error.message.contains("***") && !error.message.contains("S3CRET"), "{error}");
    }
}

#[tokio::test]
async fn health_asks_who_the_bot_is() {
    let me = json!({ "ok": true, "result": { "id": 123_456_789, "is_bot": true, "first_name": "Conductor" } });
    let provider = Provider::answering([Answer::json(200, &me)]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Up);
    let seen = provider.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", format!("/bot{TOKEN}/getMe").as_str()));

    let provider = Provider::answering([refused(401, "Unauthorized")]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert!(matches!(&health, Health::Down { reason } if reason.contains("token is wrong")), "{health:?}");

    let provider = Provider::answering([Answer::page()]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert!(matches!(&health, Health::Down { reason } if reason.contains("none of Telegram's")), "{health:?}");

    let provider = Provider::answering([limited(3)]).await;
    assert_eq!(subject().channel_to(&provider).await.health_check().await, Health::Unknown);

    let provider = Provider::answering([Answer::Hang]).await;
    let health = subject().channel_to(&provider).await.health_check().await;
    assert!(matches!(health, Health::Down { .. }), "{health:?}");
}

#[test]
fn faults_of_the_settings_show_no_value() {
    for token in
        ["", "T0P-S3CRET", "12:T0P S3CRET", "bot12:T0P-S3CRET", ":T0P-S3CRET", "1x:T0P-S3CRET", "12:", "12:T0P/x"]
    {
        let faults = faults(plugin("telegram"), json!({ "botToken": token, "chatId": "general" }));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("botToken: ") && faults[1].starts_with("chatId: "), "{faults:?}");
        assert!(!faults.concat().contains("T0P"), "{faults:?}");
    }
    for topic in [json!({ "chatId": "-42", "messageThreadId": 0 }), json!({ "chatId": "-42:7", "messageThreadId": 7 })]
    {
        let mut values = topic;
        values["botToken"] = TOKEN.into();
        let faults = faults(plugin("telegram"), values);
        assert!(faults.len() == 1 && faults[0].starts_with("messageThreadId: "), "{faults:?}");
    }
}
