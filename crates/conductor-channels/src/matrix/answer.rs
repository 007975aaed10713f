//! What a homeserver's answers mean.
//!
//! <https://spec.matrix.org/latest/client-server-api/#standard-error-response>

use std::time::Duration;

use conductor_core::{Scope, SendError, SendErrorKind, Timestamp};
use serde_json::Value;

use crate::http::{Response, retry_after, tidy, wait};

/// The code of an error; empty where there is none.
pub(super) fn code(response: &Response) -> String {
    if response.status.is_success() {
        return String::new();
    }
    response.json().get("errcode").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The error that an answer other than a success stands for. `own` says that the room was the channel's own, not one
/// that the notification named.
pub(super) fn error(response: &Response, own: bool, token: &str, now: Timestamp) -> SendError {
    let (body, code) = (response.json(), code(response));
    let kind = kind(response, &body, &code, own, now).or_else(|| response.classify(now));
    let kind = kind.unwrap_or(SendErrorKind::Unknown);
    let mut error = response.error(kind, &[token]);
    if let Some(words) = body.get("error").and_then(Value::as_str).filter(|_| !code.is_empty()) {
        error.message = tidy(words, &[token]);
    }
    if kind == SendErrorKind::Unauthorized {
        error.message = format!("the homeserver refused the channel: {}", error.message);
    }
    error.message.push_str(advice(response, &body, &code));
    if code.starts_with("M_") {
        error.code = Some(tidy(&code, &[token]));
    }
    error
}

/// What a code means, where that differs from what its status means everywhere.
fn kind(response: &Response, body: &Value, code: &str, own: bool, now: Timestamp) -> Option<SendErrorKind> {
    Some(match code {
        "M_UNKNOWN_TOKEN"
        | "M_MISSING_TOKEN"
        | "M_USER_DEACTIVATED"
        | "M_USER_LOCKED"
        | "M_USER_SUSPENDED"
        | "M_RESOURCE_LIMIT_EXCEEDED" => SendErrorKind::Unauthorized,
        "M_FORBIDDEN" if own => SendErrorKind::Unauthorized,
        // A room that one notification names must not stop the channel for all others.
        "M_FORBIDDEN" => SendErrorKind::Permanent,
        "M_NOT_FOUND" => SendErrorKind::Permanent,
        "M_UNRECOGNIZED" | "M_TOO_LARGE" => SendErrorKind::Rejected,
        // It counts by user, whatever the room.
        "M_LIMIT_EXCEEDED" => {
            let told = retry_after(&response.headers, now).or_else(|| retry_after_ms(body));
            SendErrorKind::RateLimited { retry_after: told, scope: Scope::Channel }
        }
        // A homeserver gives a code with each refusal, so this is another server, or a proxy that has lost it: no fault of
        // the message. A room that one notification names may be what the proxy stumbles over.
        "" if own && matches!(response.status.as_u16(), 404 | 405) => SendErrorKind::Unauthorized,
        _ => return None,
    })
}

/// Older homeservers say it so.
fn retry_after_ms(body: &Value) -> Option<Duration> {
    wait(body.get("retry_after_ms")?.as_f64()? / 1_000.0)
}

const ELSEWHERE: &str = " (is homeserverUrl the address of the homeserver itself?)";

fn advice(response: &Response, body: &Value, code: &str) -> &'static str {
    let is_soft = body.get("soft_logout").and_then(Value::as_bool).unwrap_or(false);
    match code {
        "M_UNKNOWN_TOKEN" if is_soft => " (the access token has run out: log in again and take the new one)",
        "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN" => {
            " (the access token is wrong or its device was logged out: log in again and take the new one)"
        }
        "M_FORBIDDEN" => " (invite the user to the room, and let it send messages there)",
        "M_UNRECOGNIZED" => ELSEWHERE,
        "" if matches!(response.status.as_u16(), 404 | 405) => ELSEWHERE,
        _ => "",
    }
}
