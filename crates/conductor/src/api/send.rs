//! `POST /notifications` and `POST /notifications/batch`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conductor_core::notification::FALLBACK_MAX;
use conductor_core::store::{Accepted, BATCH_MAX, Idempotency};
use conductor_core::{Format, Notification, NotificationId, Priority, Problems, Status, Timestamp, TraceContext};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::task::coop::unconstrained;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::accept::room::{Full, Place};
use crate::accept::{self, SendRequest};
use crate::api::answers::{AcceptedAnswer, BatchAnswer, BatchResult};
use crate::api::body::{self, BATCH_MAX_BYTES, Headers, SINGLE_MAX_BYTES};
use crate::api::caller::Caller;
use crate::api::document::{BatchRefusal, SendRefusal};
use crate::api::error::{ApiError, ErrorKind};
use crate::api::observe::Traced;
use crate::api::prefer::{self, Wait};
use crate::api::reader::Reader;
use crate::api::words::{FormatWord, PriorityWord};
use crate::api::{Api, hops, idempotency, quota};
use crate::outcomes;
use crate::registry::Tenant;

/// About as many bytes an answer takes beside its message.
const ANSWER_BYTES: usize = 512;
/// About as many headers an answer has.
const ANSWER_HEADERS: usize = 12;
/// Says that the answer is that of an earlier request with the same `Idempotency-Key`.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replay");
/// The most fallbacks that are read; more than are allowed, so that the limit itself is what is told.
const FALLBACK_READ_MAX: usize = FALLBACK_MAX + 1;

/// A notification to send. `channel` or `channelId` has to be there.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(rename_all = "camelCase", example = json!({ "channel": "discord", "message": "Test notification",
    "priority": "high" }))]
#[expect(dead_code, reason = "describes the body for the document; the body itself is read field by field")]
pub(crate) struct NotificationRequest {
    /// A channel type that is configured for this tenant. Required unless `channelId` is given.
    #[schema(nullable = true, example = "discord")]
    channel: Option<String>,
    /// One channel of several of a type; without it, the tenant's first of that type.
    channel_id: Option<Uuid>,
    /// The text: not blank, at most 64 KiB of UTF-8.
    #[schema(min_length = 1, max_length = 65536, pattern = r"\S")]
    message: String,
    /// How urgent; `normal` where it is left out.
    priority: Option<PriorityWord>,
    /// Overrides the channel's default target; an address within the provider.
    #[schema(min_length = 1, max_length = 1024, pattern = r"\S")]
    target_id: Option<String>,
    /// Subject of a mail, heading elsewhere.
    #[schema(min_length = 1, max_length = 1024, pattern = r"\S")]
    title: Option<String>,
    /// How the text is written; `text` where it is left out.
    format: Option<FormatWord>,
    /// For plugins that carry it: push data, template parameters. At most 32 KiB of JSON.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
    /// Not before this time.
    #[schema(value_type = Option<String>, format = DateTime)]
    send_at: Option<Timestamp>,
    /// Given up after this time; the channel's `expiresAfter` where it is left out.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The caller's own labels: stored, returned, searched, sent in callbacks. At most 64.
    metadata: Option<std::collections::BTreeMap<String, String>>,
    /// While one with the same key, channel and target is queued, this one takes its place.
    #[schema(min_length = 1, max_length = 255, pattern = r"\S")]
    key: Option<String>,
    /// Tried in turn when the one before failed for good.
    #[schema(max_items = 8)]
    fallback: Option<Vec<RouteRequest>>,
}

/// Another way. `channel` or `channelId` has to be there.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(rename_all = "camelCase", example = json!({ "channel": "log" }))]
#[expect(dead_code, reason = "describes the body for the document; the body itself is read field by field")]
pub(crate) struct RouteRequest {
    /// A channel type that is configured for this tenant.
    channel: Option<String>,
    /// A channel.
    channel_id: Option<Uuid>,
    /// The target within the channel.
    #[schema(min_length = 1, max_length = 1024, pattern = r"\S")]
    target_id: Option<String>,
}

/// Up to 1,000 notifications.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "notifications": [{ "channel": "log", "message": "one" }, { "channel": "log",
    "message": "two" }] }))]
#[expect(dead_code, reason = "describes the body for the document; the body itself is read field by field")]
pub(crate) struct BatchRequest {
    /// Each as `POST /notifications` takes it.
    #[schema(min_items = 1, max_items = 1000)]
    notifications: Vec<NotificationRequest>,
}

/// Send a notification
///
/// It is stored before the answer. Nothing is sent twice for one `Idempotency-Key`.
#[utoipa::path(
    post, path = "/notifications", tag = "Notifications", operation_id = "sendNotification",
    params(
        ("Idempotency-Key" = Option<String>, Header, nullable = false, pattern = r#"^([!#-~][!-~]{0,254}|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#,
            description = "1 to 255 visible characters, bare or quoted; kept for 24 hours. The same request again \
                gets the same answer."),
        ("Prefer" = Option<String>, Header, nullable = false,
            description = "`wait=N`: answer when the outcome is known, after N seconds at the latest (30 at most).",
            example = "wait=10"),
        ("Conductor-Hops" = Option<String>, Header, nullable = false, pattern = "^0+$",
            description = "Stands in what a webhook channel sends. 1 or more is refused: the request was caused by a \
                notification of Conductor itself."),
        ("traceparent" = Option<String>, Header, nullable = false,
            description = "Where the request belongs in a trace (W3C Trace Context): kept with the notification, and \
                passed on to webhooks. An invalid one is passed over.",
            example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ),
    request_body(content = NotificationRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "Sent: the provider has it. Only with `Prefer: wait`.", body = AcceptedAnswer<'static>,
            headers(("Location" = String, description = "Where the notification is."), ("Preference-Applied" = String,
                description = "`wait=N`"))),
        (status = 202, description = "Accepted: it is on disk.", body = AcceptedAnswer<'static>,
            headers(("Location" = String, description = "Where the notification is."), ("Idempotent-Replay" = String,
                description = "`true`: accepted by an earlier request.")),
            links(
                ("lookUp" = (operation_id = "getNotification", parameters(("id" = "$response.body#/id")),
                    description = "Look it up.")),
                ("takeBack" = (operation_id = "cancelNotification", parameters(("id" = "$response.body#/id")),
                    description = "Take it back.")),
                ("tryAgain" = (operation_id = "retryNotification", parameters(("id" = "$response.body#/id")),
                    description = "Try it again.")),
                ("takeAsSent" = (operation_id = "resolveNotification", parameters(("id" = "$response.body#/id")),
                    description = "Take it as sent.")),
            )),
        SendRefusal
    ),
    security(("tenantKey" = []))
)]
pub(crate) async fn send(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Traced(trace): Traced,
    Headers(headers): Headers,
    body: Body,
) -> Result<Response, ApiError> {
    hops::refuse_own(&headers)?;
    let raw = body::read(&headers, body, SINGLE_MAX_BYTES).await?;
    let idempotency = idempotency::of(&headers, "POST /notifications", &raw)?;
    let preference = Wait::of(&headers);
    drop(headers);
    let flight = enter(&api, &caller, idempotency.as_ref())?;
    let value = body::parse(&raw)?;
    drop(raw);
    let prepared = prepare(&api, &caller, value, trace);
    if idempotency.is_some() || preference.is_some() {
        return Box::pin(send_specially(&api, &caller, prepared, (idempotency, flight), preference)).await;
    }
    // As `keep` does. Most requests are so, and nothing else may take room in what each of them holds while it waits.
    let Ready { prepared, place: _place } = prepared.map_err(|refusal| *refusal)?;
    let notification = Arc::clone(&prepared.notification);
    match accept::keep(&api.app, prepared, None).await? {
        Accepted::New { .. } => Ok(answer_at_once(&caller, &notification)),
        Accepted::Replayed(_) | Accepted::Conflict => Err(key_reused()),
    }
}

/// Accepts what came with an idempotency key, or from somebody who would like to know the outcome.
async fn send_specially(
    api: &Api,
    caller: &Caller,
    prepared: Result<Ready<'_>, Box<ApiError>>,
    (idempotency, flight): (Option<Idempotency>, Option<accept::Flight<'_>>),
    preference: Option<Wait>,
) -> Result<Response, ApiError> {
    let kept = keep(api, caller, prepared, idempotency, preference.is_some()).await?;
    // The same request may come again while this one waits for the outcome.
    drop(flight);
    let is_replay = kept.is_replay;
    let mut response = match preference {
        Some(preference) => answer_with_outcome(api, caller, kept, preference).await?,
        None => answer_at_once(caller, &kept.notification),
    };
    if is_replay {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A notification that is on disk.
struct Kept<'a> {
    notification: Arc<Notification>,
    /// Whether an earlier request brought it.
    is_replay: bool,
    wait: Option<outcomes::Wait<'a>>,
}

async fn keep<'a>(
    api: &'a Api,
    caller: &Caller,
    prepared: Result<Ready<'_>, Box<ApiError>>,
    idempotency: Option<Idempotency>,
    waits: bool,
) -> Result<Kept<'a>, ApiError> {
    let accepted = match prepared {
        Ok(Ready { prepared, place: _place }) => {
            let notification = Arc::clone(&prepared.notification);
            // Whoever waits has to begin before the dispatcher can know of the notification.
            let wait = waits.then(|| api.app.outcomes.wait(notification.id));
            let accepted = accept::keep(&api.app, prepared, idempotency).await?;
            if matches!(accepted, Accepted::New { .. }) {
                return Ok(Kept { notification, is_replay: false, wait });
            }
            accepted
        }
        // What was right once is answered as it was then, also when its channel or its time has gone since.
        Err(refusal) => match idempotency {
            None => return Err(*refusal),
            Some(known) => api.app.store.earlier(caller.tenant.id, &known).await?.ok_or(*refusal)?,
        },
    };
    match accepted {
        Accepted::Replayed(earlier) => {
            let wait = waits.then(|| api.app.outcomes.wait(earlier.id));
            Ok(Kept { notification: Arc::new(*earlier), is_replay: true, wait })
        }
        Accepted::New { .. } | Accepted::Conflict => Err(key_reused()),
    }
}

/// The answer to somebody who would like to know the outcome, as soon as it is known or the time is over.
async fn answer_with_outcome(
    api: &Api,
    caller: &Caller,
    kept: Kept<'_>,
    preference: Wait,
) -> Result<Response, ApiError> {
    let Kept { notification, is_replay, wait } = kept;
    let known = if is_replay { ended(api, caller, notification.id).await? } else { None };
    let outcome = match (known, wait) {
        (None, Some(mut wait)) => await_outcome(api, preference, &mut wait).await,
        (known, _) => known,
    };
    let mut response = outcome_answer(api, caller, &notification, outcome).await;
    response.headers_mut().insert(prefer::APPLIED, preference.applied());
    Ok(response)
}

/// None: the time is over, or the server stops and lets nobody wait any longer.
async fn await_outcome(api: &Api, preference: Wait, wait: &mut outcomes::Wait<'_>) -> Option<Status> {
    tokio::select! {
        outcome = tokio::time::timeout(preference.duration(), wait.outcome()) => outcome.ok(),
        () = api.app.stop.cancelled() => None,
    }
}

/// The answer to somebody who does not wait for the outcome.
fn answer_at_once(caller: &Caller, notification: &Notification) -> Response {
    let at_first = if notification.first_due() > notification.accepted_at { Status::Scheduled } else { Status::Queued };
    accepted_answer(caller, notification, StatusCode::ACCEPTED, at_first)
}

fn accepted_answer(caller: &Caller, notification: &Notification, code: StatusCode, status: Status) -> Response {
    let mut body = Vec::with_capacity(ANSWER_BYTES + notification.message.len());
    let answer = AcceptedAnswer::new(&caller.tenant, notification, status);
    serde_json::to_writer(&mut body, &answer).expect("the answer has only text keys");
    let mut headers = HeaderMap::with_capacity(ANSWER_HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let location = HeaderValue::from_str(&location(notification.id)).expect("an id is visible ASCII");
    headers.insert(header::LOCATION, location);
    let mut response = Response::new(Body::from(body));
    (*response.status_mut(), *response.headers_mut()) = (code, headers);
    response
}

fn location(id: NotificationId) -> String {
    format!("/notifications/{id}")
}

/// The status of a notification that needs no waiting for.
async fn ended(api: &Api, caller: &Caller, id: NotificationId) -> Result<Option<Status>, ApiError> {
    let story = api.app.store.notification(caller.tenant.id, id).await?;
    let status = story.map(|story| story.status());
    Ok(status.filter(|status| status.has_ended() || *status == Status::Held))
}

/// The answer to somebody who waited. `outcome` is none where the time ran out first.
async fn outcome_answer(api: &Api, caller: &Caller, notification: &Notification, outcome: Option<Status>) -> Response {
    match outcome {
        Some(status @ (Status::Sent | Status::Delivered)) => {
            return accepted_answer(caller, notification, StatusCode::OK, status);
        }
        // Canceled, superseded and held are no failure to send: the status says what it is.
        Some(status) if !status.is_dead_letter() => {
            return accepted_answer(caller, notification, StatusCode::ACCEPTED, status);
        }
        _ => {}
    }
    // It is accepted whatever reading it back comes to, so that no error may say otherwise.
    let story = api.app.store.notification(caller.tenant.id, notification.id).await.ok().flatten();
    let Some(failed) = outcome else {
        let status = story.map_or(Status::Queued, |story| story.status());
        return accepted_answer(caller, notification, StatusCode::ACCEPTED, status);
    };
    let reported = story.as_ref().and_then(|story| story.deliveries.last()?.receipt.as_ref()?.detail.clone());
    let last = story.and_then(|story| story.deliveries.into_iter().rev().find_map(|mut d| d.attempts.pop()));
    let words = last.as_ref().and_then(|attempt| attempt.detail.clone());
    let reason = words.or(reported).unwrap_or_else(|| format!("it ended as {failed}"));
    let error = format!("The notification could not be sent: {}.", reason.trim_end_matches('.'));
    let mut refusal = ApiError::new(ErrorKind::NotSent, error)
        .with_header(header::LOCATION, &location(notification.id))
        .with_member("id", notification.id.to_string())
        .with_member("notificationStatus", failed.as_str());
    if let Some(attempt) = last {
        refusal = refusal.with_member("outcome", attempt.outcome.as_str());
        if let Some(code) = attempt.code {
            refusal = refusal.with_member("code", code);
        }
    }
    refusal.into_response()
}

fn enter<'a>(
    api: &'a Api,
    caller: &Caller,
    idempotency: Option<&Idempotency>,
) -> Result<Option<accept::Flight<'a>>, ApiError> {
    let Some(idempotency) = idempotency else { return Ok(None) };
    let flight = api.in_flight.enter(caller.tenant.id, &idempotency.key);
    flight.map(Some).ok_or_else(|| {
        let error = "A request with this Idempotency-Key is being accepted at this moment. Try again in a second.";
        ApiError::new(ErrorKind::InFlight, error).retry_after(1)
    })
}

fn key_reused() -> ApiError {
    let error = "This Idempotency-Key came with another request before. Take a new key for a new request.";
    ApiError::new(ErrorKind::KeyReused, error)
}

/// A notification that keeps all limits, with its place among those that wait.
struct Ready<'a> {
    prepared: accept::Prepared,
    place: Option<Place<'a>>,
}

fn prepare<'a>(
    api: &'a Api,
    caller: &Caller,
    value: Value,
    trace: Option<TraceContext>,
) -> Result<Ready<'a>, Box<ApiError>> {
    let (request, problems) = read(value)?;
    let request = SendRequest { trace, ..request };
    let tenant = &*caller.tenant;
    let prepared = accept::prepare(&api.app, tenant, request, problems).map_err(ApiError::invalid)?;
    let bytes = prepared.notification.bytes();
    let place = api.rooms.take(tenant, &*api.app.store, bytes).map_err(|full| no_room(tenant, bytes, full))?;
    Ok(Ready { prepared, place })
}

/// Takes a notification's fields, and what is wrong with them so far.
pub(super) fn read(value: Value) -> Result<(SendRequest, Problems), ApiError> {
    let mut problems = Problems::new();
    let Some(mut reader) = Reader::new(value, "body", String::new(), &mut problems) else {
        return Err(ApiError::invalid(problems));
    };
    let request = read_request(&mut reader);
    reader.finish();
    Ok((request, problems))
}

fn no_room(tenant: &Tenant, bytes: u64, full: Full) -> ApiError {
    let max = tenant.bytes.unwrap_or_default();
    match full {
        Full::Notifications => quota::queue_full(tenant.queued.unwrap_or_default()),
        Full::Bytes(left) => quota::bytes_full(max, left),
        Full::TooLarge => {
            let error = format!(
                "The notification takes {bytes} bytes, which is more than all that this tenant may have waiting ({max})."
            );
            ApiError::new(ErrorKind::TooLarge, error)
        }
    }
}

fn read_request(reader: &mut Reader<'_>) -> SendRequest {
    SendRequest {
        route: reader.route(),
        message: reader.required_text("message").unwrap_or_default(),
        priority: reader.word("priority", Priority::ALL, Priority::as_str).unwrap_or_default(),
        title: reader.text("title"),
        format: reader.word("format", Format::ALL, Format::as_str).unwrap_or_default(),
        data: reader.object("data"),
        send_at: reader.time("sendAt"),
        expires_at: reader.time("expiresAt"),
        metadata: reader.texts("metadata"),
        key: reader.text("key"),
        fallback: reader.nested_list("fallback", FALLBACK_READ_MAX, |route| route.route()),
        trace: None,
    }
}

/// Send many notifications
///
/// Each is accepted or refused on its own; the results stand in the order of the request.
#[utoipa::path(
    post, path = "/notifications/batch", tag = "Notifications", operation_id = "sendBatch",
    params(
        ("Idempotency-Key" = Option<String>, Header, nullable = false, pattern = r#"^([!#-~][!-~]{0,254}|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#,
            description = "1 to 255 visible characters, bare or quoted; kept for 24 hours for each notification of \
                the batch."),
        ("Conductor-Hops" = Option<String>, Header, nullable = false, pattern = "^0+$",
            description = "Stands in what a webhook channel sends. 1 or more is refused: the request was caused by a \
                notification of Conductor itself."),
        ("traceparent" = Option<String>, Header, nullable = false,
            description = "Where the request belongs in a trace (W3C Trace Context): kept with the notification, and \
                passed on to webhooks. An invalid one is passed over.",
            example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ),
    request_body(content = BatchRequest, content_type = "application/json"),
    responses(
        (status = 207, description = "What became of each.", body = BatchAnswer,
            headers(("Idempotent-Replay" = String, description = "`true`: all were accepted by an earlier request.")),
            example = json!({ "results": [{ "status": 202, "id": "01943c2a-7c3e-7000-8000-0000000000d1" },
                { "status": 400, "error": "The request is not valid: message is required.",
                    "details": [{ "field": "message", "message": "is required" }] }] })),
        BatchRefusal
    ),
    security(("tenantKey" = []))
)]
pub(crate) async fn send_batch(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Traced(trace): Traced,
    Headers(headers): Headers,
    body: Body,
) -> Result<Response, ApiError> {
    hops::refuse_own(&headers)?;
    let raw = body::read(&headers, body, BATCH_MAX_BYTES).await?;
    let idempotency = idempotency::of(&headers, "POST /notifications/batch", &raw)?;
    let flight = enter(&api, &caller, idempotency.as_ref())?;
    let items = read_batch(body::parse(&raw)?)?;
    drop((headers, raw));
    // A batch is a way to save connections, not to send more: each notification counts as a request of its own.
    caller.charge(items.len() - 1);
    if let Some(known) = &idempotency
        && api.app.store.earlier(caller.tenant.id, known).await? == Some(Accepted::Conflict)
    {
        return Err(key_reused());
    }
    let prepared: Vec<_> = items.into_iter().map(|item| prepare(&api, &caller, item, trace)).collect();
    // All at once, so that the store writes them with one commit. Unconstrained, because a future that tokio makes
    // yield is polled again after those behind it, and the batch has to reach the store in its order.
    let results = unconstrained(join_all(prepared.into_iter().enumerate().map(|(index, prepared)| {
        let part = idempotency.as_ref().map(|whole| idempotency::of_item(whole, index));
        keep_item(&api, &caller, prepared, part)
    })));
    let (results, replayed): (Vec<_>, Vec<_>) = results.await.into_iter().unzip();
    drop(flight);
    let mut response = (StatusCode::MULTI_STATUS, Json(BatchAnswer { results })).into_response();
    if replayed.iter().all(|replayed| *replayed) {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// What became of an item, and whether it had been accepted before.
async fn keep_item(
    api: &Api,
    caller: &Caller,
    prepared: Result<Ready<'_>, Box<ApiError>>,
    idempotency: Option<Idempotency>,
) -> (BatchResult, bool) {
    match keep(api, caller, prepared, idempotency, false).await {
        Ok(kept) => (BatchResult::accepted(kept.notification.id), kept.is_replay),
        Err(error) => (error.into(), false),
    }
}

pub(super) fn read_batch(value: Value) -> Result<Vec<Value>, ApiError> {
    let mut problems = Problems::new();
    let mut items = Vec::new();
    if let Some(mut reader) = Reader::new(value, "body", String::new(), &mut problems) {
        match reader.value("notifications") {
            None => reader.problem("notifications", "is required"),
            Some(Value::Array(list)) if (1..=BATCH_MAX).contains(&list.len()) => items = list,
            Some(Value::Array(list)) => {
                reader.problem("notifications", format!("has {} entries; expected 1 to {BATCH_MAX}", list.len()));
            }
            Some(other) => reader.wrong("notifications", &other, "a list of notifications"),
        }
        reader.finish();
    }
    if problems.is_empty() { Ok(items) } else { Err(ApiError::invalid(problems)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use utoipa::PartialSchema;

    #[test]
    fn the_document_names_exactly_the_fields_that_are_read() {
        let mut problems = Problems::new();
        let mut reader = Reader::new(json!({}), "body", String::new(), &mut problems).unwrap();
        read_request(&mut reader);
        let mut read = reader.finish();
        let schema = serde_json::to_value(NotificationRequest::schema()).unwrap();
        let mut told: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        read.sort_unstable();
        told.sort_unstable();
        assert_eq!(read, told);
    }

    #[test]
    fn what_a_request_holds_while_it_waits_fits_a_small_block() {
        fn size<A, B, C, D, E, F>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
            size_of::<F>()
        }
        // With what axum adds, some 300 bytes: above 1 KiB the allocator takes its slow way, for every request.
        assert!(size(send) <= 700, "{} bytes", size(send));
    }

    #[test]
    fn a_batch_is_a_list_of_one_to_a_thousand() {
        let of = |count: usize| read_batch(json!({ "notifications": vec![json!({}); count] }));
        assert_eq!(of(1).unwrap().len(), 1);
        assert_eq!(of(BATCH_MAX).unwrap().len(), BATCH_MAX);
        for bad in [of(0), of(BATCH_MAX + 1), read_batch(json!([])), read_batch(json!({ "notification": [{}] }))] {
            assert_eq!(bad.unwrap_err().status(), StatusCode::BAD_REQUEST);
        }
    }
}
