//! What Apple's answers mean.
//!
//! <https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns>

use conductor_core::{Scope, SendError, SendErrorKind, Timestamp};
use serde_json::Value;

use crate::http::{Response, retry_after, tidy};

/// Apple's word for what is wrong.
pub(super) fn reason(response: &Response) -> Option<String> {
    response.json().get("reason").and_then(Value::as_str).map(str::to_owned)
}

/// The error that an answer other than a success stands for.
pub(super) fn error(response: &Response, token: &str, now: Timestamp) -> SendError {
    let reason = reason(response);
    let word = reason.as_deref().unwrap_or_default();
    let kind = kind(response, word, now);
    let mut error = response.error(kind, &[token]);
    if !word.is_empty() {
        let word = tidy(word, &[token]);
        error.message = format!("Apple answered {word}{}", advice(&word));
        error.code = Some(word);
    }
    error
}

fn kind(response: &Response, reason: &str, now: Timestamp) -> SendErrorKind {
    const AGAIN: SendErrorKind = SendErrorKind::Retryable { retry_after: None };
    match (response.status.as_u16(), reason) {
        (400, "BadDeviceToken" | "DeviceTokenNotForTopic") => SendErrorKind::Permanent,
        (400, "IdleTimeout") => AGAIN,
        (400 | 404, _) => SendErrorKind::Rejected,
        (429, _) => {
            // What is too fast is what goes to this one device.
            let scope = if reason == "TooManyRequests" { Scope::Lane } else { Scope::Channel };
            SendErrorKind::RateLimited { retry_after: retry_after(&response.headers, now), scope }
        }
        // Apple may have taken the notification before the error came about.
        (500 | 504, _) => SendErrorKind::Unknown,
        _ => response.classify(now).unwrap_or(SendErrorKind::Unknown),
    }
}

fn advice(reason: &str) -> &'static str {
    match reason {
        "BadDeviceToken" => " (no such device; a device token of an app that Xcode has installed needs the sandbox)",
        "DeviceTokenNotForTopic" => " (the device token belongs to another app than the channel's topic)",
        "Unregistered" | "ExpiredToken" => " (the app is no longer on the device: forget this device token)",
        "ExpiredProviderToken" => " (the token was signed just now: is this server's clock right?)",
        "InvalidProviderToken" | "MissingProviderToken" | "UnrelatedKeyIdInToken" => {
            " (the key, its id and the team's id do not belong together, or the key was revoked)"
        }
        "BadEnvironmentKeyIdInToken" => " (the key is for the other of production and sandbox)",
        "TopicDisallowed" | "BadTopic" => " (is the topic the app's bundle id, and is the key allowed for it?)",
        _ => "",
    }
}
