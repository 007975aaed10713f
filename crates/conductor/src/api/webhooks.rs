//! What callbacks post, for the API's document. A test holds what is posted against it.

use conductor_core::callbacks::Event;
use serde_json::{Value, json};
use utoipa::Modify;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required, ResponseBuilder, Schema};

/// The schemas of the two kinds of bodies.
const NOTIFICATION: &str = "NotificationCallback";
const CHANNEL: &str = "ChannelCallback";

pub(crate) struct Webhooks;

impl Modify for Webhooks {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let data = "CalledBackNotification";
        for (name, schema) in [
            (NOTIFICATION, envelope(false, "What is posted when a notification comes to another state.", data)),
            (CHANNEL, envelope(true, "What is posted when a channel goes down or comes up.", "CalledBackChannel")),
            (data, notification()),
            ("CalledBackDelivery", delivery()),
            ("CalledBackAttempt", attempt()),
            ("CalledBackReceipt", receipt()),
            ("CalledBackChannel", channel()),
        ] {
            let schema: RefOr<Schema> = serde_json::from_value(schema).expect("these are schemas");
            components.schemas.insert(name.to_owned(), schema);
        }
        let mut paths = PathsBuilder::new();
        for event in Event::ALL {
            paths = paths.path(event.as_str(), PathItem::new(HttpMethod::Post, operation(*event)));
        }
        document.webhooks = Some(paths.build());
    }
}

fn operation(event: Event) -> OperationBuilder {
    let schema = if event.is_of_channel() { CHANNEL } else { NOTIFICATION };
    let content = ContentBuilder::new().schema(Some(RefOr::<Schema>::Ref(Ref::from_schema_name(schema)))).build();
    let body = RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True));
    let response = |about: &str| ResponseBuilder::new().description(about).build();
    OperationBuilder::new()
        .tag("Callbacks")
        .summary(Some(about(event)))
        .description(Some("POSTed to each of the tenant's `callbacks` that wants it, signed by Standard Webhooks."))
        .request_body(Some(body.build()))
        .response("2XX", response("It is taken."))
        .response("410", response("Nothing more is wanted: the endpoint is disabled."))
        .response("default", response("It is tried again. `Retry-After` is honoured."))
}

const fn about(event: Event) -> &'static str {
    match event {
        Event::NotificationSent => "The provider has it",
        Event::NotificationDelivered => "The provider reports that it arrived",
        Event::NotificationUndelivered => "The provider reports that it did not arrive, and no fallback follows",
        Event::NotificationFailed => "It was given up, and no fallback follows",
        Event::NotificationExpired => "It could not be sent before its time ran out",
        Event::NotificationCanceled => "It was taken back",
        Event::NotificationSuperseded => "A newer one with the same key took its place",
        Event::NotificationHeld => "Whether it was sent is unknown; it waits for a person",
        Event::ChannelDown => "A channel gets nothing out any more",
        Event::ChannelUp => "A channel works again",
    }
}

/// An object of which every member is there, though it may be null.
fn object(about: &str, members: &Value) -> Value {
    let names: Vec<&String> = members.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    json!({ "type": "object", "description": about, "properties": members, "required": names })
}

fn text(about: &str) -> Value {
    json!({ "type": "string", "description": about })
}

fn optional_text(about: &str) -> Value {
    json!({ "type": ["string", "null"], "description": about })
}

fn id(about: &str) -> Value {
    json!({ "type": "string", "format": "uuid", "description": about })
}

fn time(about: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": about })
}

fn word(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn optional(schema: &Value) -> Value {
    json!({ "oneOf": [{ "type": "null" }, schema] })
}

fn envelope(of_channel: bool, about: &str, data: &str) -> Value {
    let events = Event::ALL.iter().filter(|event| event.is_of_channel() == of_channel);
    let events: Vec<&str> = events.map(|event| event.as_str()).collect();
    let kind = json!({ "type": "string", "enum": events, "description": "What happened." });
    object(about, &json!({ "type": kind, "timestamp": time("When it happened."), "data": word(data) }))
}

fn notification() -> Value {
    let labels = json!({ "type": "object", "additionalProperties": { "type": "string" }, "description": "The caller's own labels." });
    object(
        "The notification, without message, title and data.",
        &json!({
            "id": id("Its id."), "tenantId": id("Whose it is."), "channel": text("The channel's type, as it was posted."),
            "channelId": id("The channel, as it was posted."), "targetId": optional_text("The target, as it was posted."),
            "status": word("Status"), "priority": word("Priority"), "key": optional_text("Its `key`."),
            "metadata": labels, "timestamp": time("When it was accepted."), "delivery": word("CalledBackDelivery"),
        }),
    )
}

fn delivery() -> Value {
    object(
        "The delivery that came to this status: one through a fallback is another than the first.",
        &json!({
            "id": id("Its id."), "channel": text("The channel's type."), "channelId": id("The channel."),
            "targetId": optional_text("The target within the channel; null means the channel's default."),
            "status": word("Status"), "reason": optional(&word("FailureReason")),
            "providerId": optional_text("The provider's id of the message."),
            "attempts": { "type": "integer", "minimum": 0, "description": "How many were made." },
            "lastAttempt": optional(&word("CalledBackAttempt")), "receipt": optional(&word("CalledBackReceipt")),
        }),
    )
}

fn attempt() -> Value {
    object(
        "The last attempt.",
        &json!({
            "number": { "type": "integer", "minimum": 1, "description": "Counts from 1." },
            "at": time("When it began."),
            "durationMs": { "type": "integer", "minimum": 0, "description": "How long it took, in milliseconds." },
            "outcome": word("Outcome"),
            "code": optional_text("The provider's own code."),
            "detail": optional_text("The provider's words."),
        }),
    )
}

fn receipt() -> Value {
    object(
        "What the provider reported later.",
        &json!({
            "status": word("Status"), "at": time("When it happened, or was reported."),
            "code": optional_text("The provider's own code."), "detail": optional_text("What it means."),
        }),
    )
}

fn channel() -> Value {
    object(
        "The channel.",
        &json!({
            "tenantId": id("Whose it is."), "channel": text("Its type."), "channelId": id("Its id."),
            "channelName": text("Its name."),
            "status": { "type": "string", "enum": ["up", "down"], "description": "Whether it works." },
            "reason": optional_text("Why it is down."), "since": time("Since when."),
        }),
    )
}
