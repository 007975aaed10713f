//! What Google's answers mean.
//!
//! <https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode>

use std::time::Duration;

use conductor_core::{Scope, SendError, SendErrorKind, Timestamp};
use serde_json::Value;

use super::body::Target;
use crate::http::{Response, retry_after, tidy};

/// How long a quota is left alone where Google does not say it.
/// <https://firebase.google.com/docs/cloud-messaging/scale-fcm#handling_retries>
const QUOTA_PAUSE: Duration = Duration::from_secs(60);
/// The least time before another try.
const PAUSE: Duration = Duration::from_secs(10);
/// The most details and violations that are looked at.
const DETAILS_MAX: usize = 16;

/// Whether the access token has run out or was taken back, so that another will do.
pub(super) fn is_stale_token(response: &Response) -> bool {
    response.status.as_u16() == 401 && code(&response.json()).is_none_or(|code| code == "UNAUTHENTICATED")
}

/// The error that an answer other than a success stands for.
pub(super) fn error(response: &Response, target: &Target, token: &str, now: Timestamp) -> SendError {
    let body = response.json();
    let code = code(&body);
    let kind = kind(response, &body, code, target, now);
    let mut error = response.error(kind, &[token]);
    if let Some(words) = body.pointer("/error/message").and_then(Value::as_str) {
        error.message = tidy(words, &[token]);
    }
    if let Some(code) = code {
        error.code = Some(tidy(code, &[token]));
        error.message.push_str(advice(code));
    }
    error
}

/// Messaging's own code, or that of all Google's services.
fn code(body: &Value) -> Option<&str> {
    let own = details(body).find_map(|detail| detail.get("errorCode")?.as_str());
    own.or_else(|| body.pointer("/error/status")?.as_str())
}

fn details(body: &Value) -> impl Iterator<Item = &Value> {
    body.pointer("/error/details").and_then(Value::as_array).into_iter().flatten().take(DETAILS_MAX)
}

/// The members `name` of what `list` of all details names.
fn violations<'a>(body: &'a Value, list: &'static str, name: &'static str) -> impl Iterator<Item = &'a str> {
    let lists = details(body).filter_map(move |detail| detail.get(list)?.as_array());
    lists.flatten().take(DETAILS_MAX).filter_map(move |violation| violation.get(name)?.as_str())
}

fn kind(response: &Response, body: &Value, code: Option<&str>, target: &Target, now: Timestamp) -> SendErrorKind {
    let asked = retry_after(&response.headers, now);
    match (response.status.as_u16(), code) {
        // The field that is wrong is the target itself.
        (400, _) if violations(body, "fieldViolations", "field").any(|field| field == target.field()) => {
            SendErrorKind::Permanent
        }
        // Google has no code for it, but says it in these words.
        (400, _) if matches!(target, Target::Device(_)) && says(body, NO_TOKEN) => SendErrorKind::Permanent,
        (403, Some("SENDER_ID_MISMATCH")) | (404, Some("UNREGISTERED")) => SendErrorKind::Permanent,
        // Without messaging's own code it is the project that is not found.
        (404, _) => SendErrorKind::Unauthorized,
        (429, code) => {
            let retry_after = asked.or(code.map(|_| QUOTA_PAUSE));
            let own = violations(body, "quotaViolations", "subject").chain(violations(body, "violations", "subject"));
            let is_lane = own.into_iter().any(|subject| subject.ends_with(target.text()));
            let scope = if is_lane { Scope::Lane } else { Scope::Channel };
            SendErrorKind::RateLimited { retry_after, scope }
        }
        // Google may have taken the message before the error came about.
        (500 | 504, _) => SendErrorKind::Unknown,
        (503, Some(_)) => SendErrorKind::Retryable { retry_after: Some(asked.unwrap_or(PAUSE)) },
        _ => response.classify(now).unwrap_or(SendErrorKind::Unknown),
    }
}

/// What Google says of a registration token that is none.
const NO_TOKEN: &str = "registration token is not a valid FCM registration token";

fn says(body: &Value, words: &str) -> bool {
    body.pointer("/error/message").and_then(Value::as_str).is_some_and(|message| message.contains(words))
}

fn advice(code: &str) -> &'static str {
    match code {
        "UNREGISTERED" => " (the app is no longer on the device: forget this token)",
        "SENDER_ID_MISMATCH" => " (the token belongs to an app of another Firebase project)",
        "THIRD_PARTY_AUTH_ERROR" => " (the APNs key or the web push key in the Firebase console is missing or wrong)",
        "PERMISSION_DENIED" => {
            " (turn on the Firebase Cloud Messaging API, and give the service account the role Firebase Cloud Messaging \
             API Admin)"
        }
        "NOT_FOUND" => " (is the service account of the right project?)",
        _ => "",
    }
}
