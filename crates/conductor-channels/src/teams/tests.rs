use conductor_core::{Priority, Scope};

use super::*;
use crate::contract::{
    Answer, Description, Provider, Seen, Subject, contract_tests, error_classes, faults, is_of_class, message, plugin,
};

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
    subject().seen(message).await
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
    // It closes its schemas itself, each where it stands.
    let open = json!({ "unevaluatedProperties": true });
    let Some(described) = Description::with("teams.json", "/components/schemas/TeamsMessage", &open) else { return };
    let mut misspelt = seen(&message("hello")).await.json();
    misspelt["attachments"][0]["content"]["body"][0]["wrop"] = true.into();
    described.refuses(&misspelt);
    for format in [Format::Text, Format::Markdown] {
        for message in [message("hello"), urgent(format)] {
            let body = seen(&message).await.json();
            described.fits(&body);
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
    for row in error_classes("teams", 8).into_iter().flatten() {
        for status in &row.statuses {
            let body = if *status == 200 { CONNECTOR_LIMIT } else { "" };
            let result = subject().outcome(&message("hello"), Answer::text(*status, body)).await;
            assert!(is_of_class(&result, &row.class), "{status} {}: {result:?}", row.class);
        }
    }
}

const CONNECTOR_LIMIT: &str = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 \
                               with ContextId tcid=0,server=example";

#[tokio::test]
async fn a_failure_inside_a_success_of_an_old_connector_is_one() {
    let wait = Some(Duration::from_secs(7));
    let limited =
        subject().refusal(&message("hello"), Answer::text(200, CONNECTOR_LIMIT).with("retry-after", "7")).await;
    assert_eq!(limited.kind, SendErrorKind::RateLimited { retry_after: wait, scope: Scope::Channel });
    for (instead, kind) in
        [("413", SendErrorKind::Rejected), ("5", SendErrorKind::Unknown), ("", SendErrorKind::Unknown)]
    {
        let error =
            subject().refusal(&message("hello"), Answer::text(200, CONNECTOR_LIMIT.replace("429", instead))).await;
        assert_eq!(error.kind, kind, "{instead}");
    }
    let provider = Provider::answering([Answer::text(200, "1")]).await;
    assert!(subject().channel_to(&provider).await.send(&message("hello")).await.is_ok());
}

#[tokio::test]
async fn the_workflows_own_words_are_told() {
    let body =
        json!({ "error": { "code": "DirectApiAuthorizationRequired", "message": "The request must be signed." } });
    let error = subject().refusal(&message("hello"), Answer::json(401, &body)).await;
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
