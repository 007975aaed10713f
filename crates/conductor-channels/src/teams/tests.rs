use conductor_core::{Priority, Scope};

use super::*;
use crate::contract::{Answer, Provider, Seen, Subject, contract_tests, faults, is_of_class, message, plugin, spec};

const WEBHOOK: &str = "https://prod-1.example.com/workflows/T0P-S3CRET-ID/triggers/manual/paths/invoke\
                       ?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sig=T0P-S3CRET-SIG";

fn subject() -> Subject {
    Subject {
        plugin: plugin("teams"),
        values: json!({ "webhookUrl": WEBHOOK }),
        success: Answer::status(202),
        provider_id: None,
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
            (502, SendErrorKind::Unknown),
            (503, SendErrorKind::Unknown),
            (504, SendErrorKind::Unknown),
        ],
    }
}

contract_tests!(subject(), |seen: &Seen| seen.header("x-ms-client-tracking-id").to_owned());

async fn seen(message: &Message) -> Seen {
    let provider = Provider::answering([Answer::status(202)]).await;
    let receipt = subject().channel_to(&provider).await.send(message).await;
    assert_eq!(receipt, Ok(Receipt::default()));
    provider.only()
}

async fn refusal(answer: Answer) -> SendError {
    let provider = Provider::answering([answer]).await;
    subject().channel_to(&provider).await.send(&message("hello")).await.expect_err("a refusal")
}

fn text_answer(status: u16, text: &str) -> Answer {
    Answer::Reply { status, headers: Vec::new(), body: text.into() }
}

fn urgent(format: Format) -> Message {
    let mut message = message("first **b**\nsecond");
    message.title = Some("Sum *of*\n things".into());
    (message.priority, message.format) = (Priority::High, format);
    message
}

#[tokio::test]
async fn a_workflow_gets_a_card() {
    let message = urgent(Format::Text);
    let seen = seen(&message).await;
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.path, WEBHOOK.strip_prefix("https://prod-1.example.com").unwrap());
    assert_eq!(seen.header("x-ms-client-tracking-id"), message.delivery.to_string());
    let body = seen.json();
    let card = &body["attachments"][0]["content"];
    assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
    let texts: Vec<&str> = card["body"].as_array().unwrap().iter().filter_map(|block| block["text"].as_str()).collect();
    let expected = ["⚠️ HIGH PRIORITY", r"Sum \*of\* things", "first \\*\\*b\\*\\*\n\nsecond"];
    assert_eq!(texts, expected);
    assert!(card["body"].as_array().unwrap().iter().all(|block| block["wrap"] == true));
}

#[tokio::test]
async fn markdown_becomes_what_a_card_takes() {
    let body = seen(&urgent(Format::Markdown)).await.json();
    assert_eq!(body["attachments"][0]["content"]["body"][2]["text"], "first **b**\n\nsecond");
}

#[tokio::test]
async fn every_request_fits_the_description_of_adaptive_cards() {
    let Some(spec) = spec("teams.json") else { return };
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/components/schemas/TeamsMessage",
        "components": spec["components"],
    });
    let schema = jsonschema::validator_for(&schema).expect("the description is a schema");
    let mut misspelt = seen(&message("hello")).await.json();
    misspelt["attachments"][0]["content"]["body"][0]["wrop"] = true.into();
    assert!(!schema.is_valid(&misspelt));
    for format in [Format::Text, Format::Markdown] {
        for message in [message("hello"), urgent(format)] {
            let body = seen(&message).await.json();
            let faults: Vec<String> = schema.iter_errors(&body).map(|fault| fault.to_string()).collect();
            assert!(faults.is_empty(), "{faults:?}");
        }
    }
}

#[tokio::test]
async fn the_length_is_that_of_the_whole_request_and_only_the_first_part_has_a_head() {
    let provider = Provider::answering([Answer::status(202)]).await;
    let channel = subject().channel_to(&provider).await;
    for format in [Format::Text, Format::Markdown] {
        for part in [0, 1] {
            let message = Message { part, parts: 2, body: "ä€\n\"quoted\" *b*".into(), ..urgent(format) };
            let seen = seen(&message).await;
            assert_eq!(channel.length(&message), seen.body.len());
            let blocks = seen.json()["attachments"][0]["content"]["body"].as_array().unwrap().len();
            assert_eq!(blocks, if part == 0 { 3 } else { 1 });
        }
    }
}

#[tokio::test]
async fn a_target_is_never_asked_for() {
    let provider = Provider::answering([Answer::status(202)]).await;
    let message = Message { target: Some("general".into()), ..message("hello") };
    let error = subject().channel_to(&provider).await.send(&message).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::Permanent);
    assert!(provider.seen().is_empty());
}

#[tokio::test]
async fn the_error_table_is_kept() {
    let Some(table) = spec("error_classes.json") else { return };
    let rows = table["providers"]["teams"].as_array().expect("the table has Teams");
    assert!(rows.len() >= 8, "{}", rows.len());
    for row in rows {
        let class = row["class"].as_str().expect("a class");
        let text = row["status"].as_str().map_or_else(|| row["status"].to_string(), str::to_owned);
        let statuses = text.replace("5xx", "500, 502, 503");
        for status in statuses.split(", ").map(|status| status.parse().expect("a status")) {
            let body = if status == 200 { CONNECTOR_LIMIT } else { "" };
            let provider = Provider::answering([text_answer(status, body)]).await;
            let result = subject().channel_to(&provider).await.send(&message("hello")).await;
            assert!(is_of_class(&result, class), "{status} {class}: {result:?}");
        }
    }
}

const CONNECTOR_LIMIT: &str = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 \
                               with ContextId tcid=0,server=example";

#[tokio::test]
async fn a_failure_inside_a_success_of_an_old_connector_is_one() {
    let wait = Some(Duration::from_secs(7));
    let limited = refusal(text_answer(200, CONNECTOR_LIMIT).with("retry-after", "7")).await;
    assert_eq!(limited.kind, SendErrorKind::RateLimited { retry_after: wait, scope: Scope::Channel });
    for (instead, kind) in
        [("413", SendErrorKind::Rejected), ("5", SendErrorKind::Unknown), ("", SendErrorKind::Unknown)]
    {
        let error = refusal(text_answer(200, &CONNECTOR_LIMIT.replace("429", instead))).await;
        assert_eq!(error.kind, kind, "{instead}");
    }
    let provider = Provider::answering([text_answer(200, "1")]).await;
    assert!(subject().channel_to(&provider).await.send(&message("hello")).await.is_ok());
}

#[tokio::test]
async fn the_workflows_own_words_are_told() {
    let body =
        json!({ "error": { "code": "DirectApiAuthorizationRequired", "message": "The request must be signed." } });
    let error = refusal(Answer::json(401, &body)).await;
    assert_eq!(
        (error.kind, error.code.as_deref()),
        (SendErrorKind::Unauthorized, Some("DirectApiAuthorizationRequired"))
    );
    assert!(error.message.starts_with("The request must be signed. (the address is wrong or"), "{error}");
}

#[test]
fn faults_of_the_settings_show_no_value() {
    for url in ["", "T0P-S3CRET", "https://example.com", "https://example.com/T0P S3CRET"] {
        let faults = faults(plugin("teams"), json!({ "webhookUrl": url }));
        assert!(faults.len() == 1 && faults[0].starts_with("webhookUrl: "), "{faults:?}");
        assert!(!faults.concat().contains("T0P"), "{faults:?}");
    }
}
