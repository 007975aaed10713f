//! The words and the error's shape, for the API's document.

use std::borrow::Cow;

use conductor_core::callbacks::Event;
use conductor_core::{AuditKind, FailureReason, Format, Outcome, Priority, Status};
use serde_json::Value;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::api::error::ErrorKind;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $public:literal, $about:literal, $words:expr;)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let words: Vec<&'static str> = $words;
                let object = ObjectBuilder::new().schema_type(Type::String).description(Some($about));
                object.enum_values(Some(words)).into()
            }
        }
        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($public)
            }
        }
    )+};
}

words! {
    /// `priority`
    PriorityWord = "Priority", "How urgent: `high` goes first and is marked where people see it.",
        Priority::ALL.iter().map(|word| word.as_str()).collect();
    /// `format`
    FormatWord = "Format", "How the text is written: `markdown` is turned into the provider's own dialect.",
        Format::ALL.iter().map(|word| word.as_str()).collect();
    /// `status`
    StatusWord = "Status", "Where a notification or a delivery stands. `held` waits for a person; `failed`, `expired` \
        and `undelivered` are dead letters.", Status::ALL.iter().map(|word| word.as_str()).collect();
    /// The `status` of what a bulk retry tries again
    RetriedWord = "RetriedStatus", "What can be tried again.", retried().map(|word| word.as_str()).collect();
    /// `reason`
    ReasonWord = "FailureReason", "Why a delivery was given up.",
        FailureReason::ALL.iter().map(|word| word.as_str()).collect();
    /// `outcome`
    OutcomeWord = "Outcome", "What an attempt came to.", Outcome::ALL.iter().map(|word| word.as_str()).collect();
    /// `health.status`
    HealthWord = "ChannelHealth", "Whether a channel would probably take a message now.", vec!["up", "down", "unknown"];
    /// `breaker`
    BreakerWord = "Breaker", "The circuit breaker: `open` lets nothing through, `halfOpen` one attempt as a probe.",
        vec!["closed", "open", "halfOpen"];
    /// An audit entry's `kind`
    AuditWord = "AuditKind", "What happened.", AuditKind::ALL.iter().map(|word| word.as_str()).collect();
    /// A callback's `event`
    EventWord = "Event", "What a callback tells.", Event::ALL.iter().map(|event| event.as_str()).collect();
    /// An endpoint's `status`
    EndpointWord = "CallbackStatus", "How an endpoint goes.", vec!["active", "failing", "disabled"];
    /// A bulk retry's `status`
    ReplayWord = "BulkRetryStatus", "Whether a bulk retry goes on.", vec!["running", "done", "canceled"];
}

/// Where a notification has to stand so that it can be tried again.
pub(crate) fn retried() -> impl Iterator<Item = Status> {
    Status::ALL.iter().copied().filter(|status| status.is_dead_letter() || *status == Status::Held)
}

/// One fault in a request.
pub(crate) struct DetailWord;

impl PartialSchema for DetailWord {
    fn schema() -> RefOr<Schema> {
        let text = |about: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(about)).build();
        ObjectBuilder::new()
            .description(Some("One fault in a request."))
            .property("field", text("The field, parameter or header."))
            .property("message", text("What is wrong with it and how to mend it."))
            .required("field")
            .required("message")
            .into()
    }
}

impl ToSchema for DetailWord {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Detail")
    }
}

/// An error, `application/problem+json`.
pub(crate) struct ProblemBody;

impl PartialSchema for ProblemBody {
    fn schema() -> RefOr<Schema> {
        let text = |about: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(about)).build();
        let kinds = ErrorKind::ALL.iter().map(|kind| kind.uri());
        let kind = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::Custom("uri-reference".to_owned())))
            .description(Some("What kind of error it is: stable, for programs."))
            .enum_values(Some(kinds.collect::<Vec<_>>()));
        let status = ObjectBuilder::new().schema_type(Type::Integer).description(Some("The HTTP status."));
        let details = ArrayBuilder::new()
            .items(RefOr::<Schema>::Ref(Ref::from_schema_name("Detail")))
            .description(Some("Each fault, where there are some."));
        ObjectBuilder::new()
            .description(Some("An error as RFC 9457 describes it."))
            .property("type", kind)
            .property("title", text("The kind in words."))
            .property("status", status)
            .property("detail", text("What happened and what to do, as a sentence."))
            .property("error", text("The same sentence."))
            .property("details", details)
            .required("type")
            .required("title")
            .required("status")
            .required("detail")
            .required("error")
            .examples(ErrorKind::ALL.iter().map(|kind| problem_example(*kind)))
            .into()
    }
}

impl ToSchema for ProblemBody {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Problem")
    }
}

/// What an error of this kind looks like.
pub(crate) fn problem_example(kind: ErrorKind) -> Value {
    let mut example = serde_json::json!({
        "type": kind.uri(), "title": kind.title(), "status": kind.status().as_u16(),
        "detail": kind.about(), "error": kind.about()
    });
    if kind == ErrorKind::Invalid {
        let message = "is \"urgent\"; allowed: low, normal, high";
        let error = format!("The request is not valid: priority {message}.");
        example["detail"] = Value::from(error.clone());
        example["error"] = Value::from(error);
        example["details"] = serde_json::json!([{ "field": "priority", "message": message }]);
    }
    example
}
