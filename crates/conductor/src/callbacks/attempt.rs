//! One attempt of a callback, from the request to what is written of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use conductor_channels::http::{HttpError, Request, Response, retry_after, words};
use conductor_channels::webhook::signed;
use conductor_core::callbacks::{Callback, CallbackAttempt, CallbackNext, next_attempt};
use conductor_core::{EndpointId, StoreError, Timestamp};
use futures_util::FutureExt as _;
use http::StatusCode;

use crate::app::App;
use crate::registry::endpoint::Endpoint;

/// The time that a receiver has to answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// What the store could not write is tried again after so long, and twice as long each further time.
const SETTLE_AGAIN_FIRST: Duration = Duration::from_millis(50);
const SETTLE_AGAIN_MAX: Duration = Duration::from_secs(5);

/// An attempt that has ended.
pub(super) struct Done {
    pub(super) endpoint: EndpointId,
    pub(super) number: i64,
    /// The receiver took it.
    pub(super) ok: bool,
    /// How long it wants to be left alone.
    pub(super) asked: Option<Duration>,
}

/// What a receiver's answer, or the lack of one, says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// It wants nothing more.
    Gone,
    /// Not this time.
    Failed(Option<Duration>),
}

/// Posts a callback once and writes what came of it.
pub(super) async fn make(app: &App, endpoint: Arc<Endpoint>, callback: Callback) -> Done {
    let began = app.clock.now();
    let request = Request::post(endpoint.url.clone()).timeout(TIMEOUT);
    let body = callback.body.clone().into_bytes();
    let request = signed(request, &endpoint.keys, &callback.id.to_string(), began.seconds(), body);
    // A fault in here must not end the one loop that sends all callbacks.
    let answer = AssertUnwindSafe(endpoint.http.send(request)).catch_unwind().await;
    let now = app.clock.now();
    let (verdict, code, detail) = judge(answer.ok().as_ref(), &endpoint, now);
    let asked = if let Verdict::Failed(asked) = verdict { asked } else { None };
    let next = match verdict {
        Verdict::Taken => CallbackNext::Done,
        Verdict::Gone => CallbackNext::Disable,
        Verdict::Failed(asked) => next_attempt(callback.attempts + 1, callback.created_at, now, asked, fastrand::f64())
            .map_or(CallbackNext::GiveUp, CallbackNext::Again),
    };
    let ok = next == CallbackNext::Done;
    let attempt = CallbackAttempt { at: began, ok, code, detail };
    tell(&endpoint, &callback, &attempt, next);
    app.metrics.callbacks.attempted(endpoint.tenant, callback.event, next);
    settle(app, &callback, &attempt, next, now).await;
    Done { endpoint: endpoint.id, number: callback.number, ok, asked }
}

/// Reads what came back. None: this program has failed.
fn judge(
    answer: Option<&Result<Response, HttpError>>,
    endpoint: &Endpoint,
    now: Timestamp,
) -> (Verdict, Option<String>, Option<String>) {
    let response = match answer {
        Some(Ok(response)) => response,
        Some(Err(error)) => return (Verdict::Failed(None), None, Some(error.to_string())),
        None => return (Verdict::Failed(None), None, Some("the request failed unexpectedly".to_owned())),
    };
    let status = response.status;
    let code = Some(status.as_str().to_owned());
    if status.is_success() {
        return (Verdict::Taken, code, None);
    }
    if status == StatusCode::GONE {
        return (Verdict::Gone, code, Some("the receiver wants no more (410 Gone)".to_owned()));
    }
    let hidden: Vec<&str> = endpoint.hidden.iter().map(String::as_str).collect();
    let mut detail = format!("the answer was {status}");
    if status.is_redirection() {
        detail.push_str(": redirects are not followed; configure the address to which it leads");
    } else if let Some(words) = words(&response.body, &hidden) {
        detail = format!("{detail}: {words}");
    }
    (Verdict::Failed(retry_after(&response.headers, now)), code, Some(detail))
}

/// The one line that tells of an attempt. The rest of the address may be a credential.
fn tell(endpoint: &Endpoint, callback: &Callback, attempt: &CallbackAttempt, next: CallbackNext) {
    let (place, number, detail) = (endpoint.place(), callback.attempts + 1, attempt.detail.as_deref());
    match next {
        CallbackNext::Done => tracing::debug!(
            callback.id = %callback.id, tenant.id = %endpoint.tenant, endpoint.id = %endpoint.id, place,
            event = %callback.event, attempt = number, "Callback sent",
        ),
        CallbackNext::Again(due) => tracing::warn!(
            callback.id = %callback.id, tenant.id = %endpoint.tenant, endpoint.id = %endpoint.id, place,
            event = %callback.event, attempt = number, detail, next = %due, "Callback not sent; it is tried again",
        ),
        CallbackNext::GiveUp => tracing::warn!(
            callback.id = %callback.id, tenant.id = %endpoint.tenant, endpoint.id = %endpoint.id, place,
            event = %callback.event, attempt = number, detail, "Callback given up",
        ),
        CallbackNext::Disable => tracing::error!(
            callback.id = %callback.id, tenant.id = %endpoint.tenant, endpoint.id = %endpoint.id, place,
            event = %callback.event,
            "The receiver answered 410 Gone: this endpoint is disabled, and what waits for it is thrown away. It is \
             enabled by POST /callbacks/{{id}}/enable, or by another URL, secret or list of events",
        ),
    }
}

/// Writes what became of it, however often the store has to be asked. Where the server stops first, the callback is sent
/// again after the next start.
async fn settle(app: &App, callback: &Callback, attempt: &CallbackAttempt, next: CallbackNext, at: Timestamp) {
    let mut wait = SETTLE_AGAIN_FIRST;
    loop {
        match app.store.settle_callback(callback, attempt.clone(), next, at).await {
            Ok(()) | Err(StoreError::Closed | StoreError::LeaseLost) => return,
            Err(error @ (StoreError::Full | StoreError::Failed(_))) => tracing::warn!(
                callback.id = %callback.id, %error, "A callback's outcome could not be written; it is tried again",
            ),
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(SETTLE_AGAIN_MAX);
    }
}
