//! The checks that every channel must pass.

use std::time::{Duration, Instant};

use conductor_core::{Format, Priority, Receipt, SendError, SendErrorKind};
use serde_json::{Value, json};

use super::{Answer, Provider, Subject, captured, context, faults, message};
use crate::Setting;
use crate::http::HttpClients;

/// Far more than any check should need; a check that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20);

async fn result(subject: &Subject, answer: Answer) -> Result<Receipt, SendError> {
    let provider = Provider::answering([answer]).await;
    let channel = subject.channel_to(&provider).await;
    tokio::time::timeout(LIMIT, channel.send(&message("hello"))).await.expect("a send ends")
}

async fn kind(subject: &Subject, answer: Answer) -> SendErrorKind {
    result(subject, answer).await.expect_err("an error was expected").kind
}

pub(crate) fn the_settings_are_the_schemas_and_their_examples_validate(subject: &Subject) {
    let schema = subject.plugin.schema();
    assert_eq!(schema["additionalProperties"], json!(false));
    let properties = schema["properties"].as_object().expect("an object's schema has properties");
    for (name, property) in properties {
        assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} has no description");
    }
    for setting in subject.plugin.settings {
        assert!(properties.contains_key(&setting.camel_case()), "{}", setting.name);
        assert!(setting.about.ends_with('.'), "{}: a sentence ends with a full stop", setting.name);
    }
    let with = |chosen: &dyn Fn(&Setting) -> bool| -> Value {
        let chosen = subject.plugin.settings.iter().filter(|setting| chosen(setting));
        chosen.map(|setting| (setting.camel_case(), Value::from(setting.example))).collect()
    };
    let none: Vec<String> = Vec::new();
    let ways = subject.plugin.ways;
    let in_a_way = |setting: &Setting| ways.iter().any(|way| way.contains(&setting.name));
    // A plugin with one way only is one whose way is empty.
    for way in if ways.is_empty() { &[&[] as &[&str]] } else { ways } {
        let of_way = |setting: &Setting| way.contains(&setting.name);
        assert_eq!(faults(subject.plugin, with(&|setting| of_way(setting) || !in_a_way(setting))), none);
        assert_eq!(faults(subject.plugin, with(&|setting| of_way(setting) || setting.required)), none);
        for missing in *way {
            let rest = with(&|setting| of_way(setting) && setting.name != *missing);
            assert_eq!(faults(subject.plugin, rest).len(), 1, "{missing} may be missing");
        }
    }
    if !ways.is_empty() {
        assert!(!faults(subject.plugin, with(&|_| true)).is_empty(), "all ways at once");
    }
    assert_eq!(faults(subject.plugin, subject.values.clone()), none);
    for required in subject.plugin.settings.iter().filter(|setting| setting.required) {
        let mut values = subject.values();
        values.remove(&required.camel_case());
        assert_eq!(faults(subject.plugin, values.into()).len(), 1, "{} may be missing", required.name);
    }
}

pub(crate) fn an_unknown_setting_is_told(subject: &Subject) {
    let mut values = subject.values();
    values.insert("colour".into(), json!("red"));
    let faults = faults(subject.plugin, values.into());
    assert!(faults.len() == 1 && faults[0].contains("colour"), "{faults:?}");
}

pub(crate) async fn a_success_gives_a_receipt(subject: &Subject) {
    let receipt = result(subject, subject.success.clone()).await.expect("the provider took it");
    assert_eq!(receipt.provider_id.as_deref(), subject.provider_id);
}

pub(crate) async fn every_status_has_its_meaning(subject: &Subject) {
    for (status, expected) in subject.statuses {
        assert_eq!(kind(subject, Answer::status(*status)).await, *expected, "{status}");
    }
    for status in [300, 301, 302, 303, 307, 308, 400, 418, 451, 499, 599] {
        let error = result(subject, Answer::status(status)).await.expect_err("no success");
        assert_eq!(error.code, Some(status.to_string()));
    }
}

pub(crate) async fn retry_after_is_kept_in_both_forms(subject: &Subject) {
    for value in ["7", "Sun, 06 Nov 1994 08:49:44 GMT"] {
        for status in [429, 503] {
            let kind = kind(subject, Answer::status(status).with("retry-after", value)).await;
            assert_eq!(kind.retry_after(), Some(Duration::from_secs(7)), "{status} {value}");
            assert_eq!(matches!(kind, SendErrorKind::RateLimited { .. }), status == 429);
        }
    }
    assert_eq!(kind(subject, Answer::status(429).with("retry-after", "soon")).await.retry_after(), None);
}

pub(crate) async fn no_connection_is_worth_another_try(subject: &Subject) {
    let provider = Provider::answering([Answer::Close]).await;
    let channel = subject.channel_to(&provider).await;
    drop(provider);
    let error = channel.send(&message("hello")).await.expect_err("nobody listens");
    assert_eq!(error.kind, SendErrorKind::Retryable { retry_after: None }, "{error}");
    assert!(error.message.contains("could not connect"), "{error}");
}

pub(crate) async fn no_answer_is_an_unknown_outcome(subject: &Subject) {
    for answer in [Answer::Hang, Answer::Close] {
        let begun = Instant::now();
        assert_eq!(kind(subject, answer.clone()).await, SendErrorKind::Unknown, "{answer:?}");
        assert!(begun.elapsed() < LIMIT / 2, "{answer:?}");
    }
}

pub(crate) async fn a_status_counts_whatever_becomes_of_the_body(subject: &Subject) {
    const TEN_MEGABYTES: usize = 10_000_000;
    for answer in [
        Answer::Huge { status: 200, bytes: TEN_MEGABYTES },
        Answer::Trickle { status: 200 },
        Answer::BreakOff { status: 200 },
    ] {
        assert!(result(subject, answer.clone()).await.is_ok(), "{answer:?}");
    }
    for answer in [
        Answer::Huge { status: 400, bytes: TEN_MEGABYTES },
        Answer::Trickle { status: 400 },
        Answer::BreakOff { status: 400 },
    ] {
        let error = result(subject, answer.clone()).await.expect_err("400 is no success");
        assert_eq!(error.kind, SendErrorKind::Rejected, "{answer:?}");
        assert!(error.message.len() < 2_000, "{answer:?}");
    }
}

/// For a provider that says in the body of a 200 whether it took the message: one that cannot be read is no proof.
pub(crate) async fn a_success_that_cannot_be_read_is_no_proof(subject: &Subject) {
    for answer in [
        Answer::Huge { status: 200, bytes: 1_000_000 },
        Answer::Trickle { status: 200 },
        Answer::BreakOff { status: 200 },
        Answer::status(200),
        Answer::json(200, &json!({})),
    ] {
        assert_eq!(kind(subject, answer.clone()).await, SendErrorKind::Unknown, "{answer:?}");
    }
    for answer in [Answer::Trickle { status: 400 }, Answer::BreakOff { status: 400 }] {
        assert_eq!(kind(subject, answer.clone()).await, SendErrorKind::Rejected, "{answer:?}");
    }
}

pub(crate) async fn a_redirect_is_not_followed(subject: &Subject) {
    let elsewhere = Provider::answering([subject.success.clone()]).await;
    for status in [301, 302, 303, 307, 308] {
        let answer = Answer::status(status).with("location", elsewhere.url().as_str());
        assert_eq!(kind(subject, answer).await, SendErrorKind::Rejected, "{status}");
    }
    assert!(elsewhere.seen().is_empty());
}

pub(crate) async fn a_retry_is_the_same_to_the_provider(subject: &Subject, id: fn(&super::Seen) -> String) {
    let provider = Provider::answering([Answer::status(503), subject.success.clone()]).await;
    let channel = subject.channel_to(&provider).await;
    let mut message = message("hello");
    assert!(channel.send(&message).await.is_err());
    message.attempt = 2;
    assert!(channel.send(&message).await.is_ok());
    let ids: Vec<String> = provider.seen().iter().map(id).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1] && !ids[0].is_empty(), "{ids:?}");
}

pub(crate) async fn nothing_shows_a_secret(subject: &Subject) {
    let (logs, guard) = captured();
    let mut said = String::new();
    let mut answers: Vec<Answer> = [200, 302, 400, 401, 403, 404, 410, 413, 429, 500, 503]
        .into_iter()
        .flat_map(|status| [Answer::Echo { status }, Answer::EchoJson { status }, Answer::status(status)])
        .collect();
    answers.extend([Answer::Hang, Answer::Close, Answer::Slam, Answer::BreakOff { status: 500 }]);
    for answer in answers {
        let provider = Provider::answering([answer]).await;
        let channel = subject.channel_to(&provider).await;
        let mut message = message("hello");
        (message.priority, message.format) = (Priority::High, Format::Markdown);
        let result = channel.send(&message).await;
        said.push_str(&format!(
            "{result:?}\n{}\n",
            result.as_ref().map_or_else(ToString::to_string, |_| String::new())
        ));
        said.push_str(&format!("{:?}\n", channel.health_check().await));
        channel.shutdown().await;
    }
    let refused = context(&HttpClients::new(), Some("http://10.0.0.1/".parse().expect("a URL")));
    said.push_str(&format!("{:?}\n", subject.channel(refused).await.send(&message("hello")).await));
    drop(guard);
    let logs = logs.text();
    assert!(said.contains("***") && !logs.is_empty(), "nothing was repeated, so nothing was tried");
    for secret in subject.secrets {
        assert!(!said.contains(secret), "{secret} stands in an error: {said}");
        assert!(!logs.contains(secret), "{secret} stands in the log: {logs}");
    }
}

pub(crate) async fn an_address_that_is_not_allowed_is_refused(subject: &Subject) {
    let provider = Provider::on_localhost([subject.success.clone()]).await;
    let clients = HttpClients::new();
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}/", provider.port()).parse().expect("a URL");
        let mut context = context(&clients, Some(url));
        context.http = clients.client(&[]);
        let error = subject.channel(context).await.send(&message("hello")).await.expect_err("refused");
        assert_eq!(error.kind, SendErrorKind::Permanent, "{host}: {error}");
        assert!(error.message.contains("\"allowNetworks\": ["), "{host}: {error}");
    }
    assert!(provider.seen().is_empty());
}

pub(crate) async fn shutdown_returns(subject: &Subject) {
    let provider = Provider::answering([subject.success.clone()]).await;
    let channel = subject.channel_to(&provider).await;
    assert!(channel.send(&message("hello")).await.is_ok());
    tokio::time::timeout(LIMIT, channel.shutdown()).await.expect("shutdown returns");
}

/// Runs all checks on a [`Subject`], as a test each. `$id` takes from a request what the provider knows a repetition by.
/// A third word names the check of a success in the place of [`a_status_counts_whatever_becomes_of_the_body`].
macro_rules! contract_tests {
    ($subject:expr, $id:expr) => {
        $crate::contract::contract_tests!($subject, $id, a_status_counts_whatever_becomes_of_the_body);
    };
    ($subject:expr, $id:expr, $success:ident) => {
        mod contract {
            use super::*;
            use $crate::contract::checks;

            #[test]
            fn the_settings_are_the_schemas_and_their_examples_validate() {
                checks::the_settings_are_the_schemas_and_their_examples_validate(&$subject);
            }
            #[test]
            fn an_unknown_setting_is_told() {
                checks::an_unknown_setting_is_told(&$subject);
            }
            #[tokio::test]
            async fn a_retry_is_the_same_to_the_provider() {
                checks::a_retry_is_the_same_to_the_provider(&$subject, $id).await;
            }
            $crate::contract::checks::each!($subject =>
                a_success_gives_a_receipt,
                every_status_has_its_meaning,
                retry_after_is_kept_in_both_forms,
                no_connection_is_worth_another_try,
                no_answer_is_an_unknown_outcome,
                $success,
                a_redirect_is_not_followed,
                nothing_shows_a_secret,
                an_address_that_is_not_allowed_is_refused,
                shutdown_returns
            );
        }
    };
}
pub(crate) use contract_tests;

macro_rules! each {
    ($subject:expr => $($name:ident),+) => {
        $(#[tokio::test]
        async fn $name() {
            checks::$name(&$subject).await;
        })+
    };
}
pub(crate) use each;
