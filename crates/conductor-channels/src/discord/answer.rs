//! What Discord's answers mean.
//!
//! <https://discord.com/developers/docs/topics/opcodes-and-status-codes>

use std::time::Duration;

use conductor_core::{Scope, SendError, SendErrorKind, Timestamp};
use http::HeaderMap;
use serde_json::Value;

use crate::http::{Response, retry_after, tidy, wait};

/// The most faults of a form that are named in an error.
const FAULTS_MAX: usize = 5;
/// How deep a form's faults may lie.
const FAULT_DEPTH_MAX: usize = 8;

/// Who was answered. `own` says that the target was the channel's own, not one that the notification named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A bot.
    Bot { own: bool },
    /// A webhook, which is a single place.
    Webhook { own: bool },
}

/// The error that an answer other than a success stands for. What `token` holds is never shown.
pub(super) fn error(response: &Response, whose: Whose, token: &str, now: Timestamp) -> SendError {
    let body = response.json();
    let code = body.get("code").and_then(Value::as_i64).unwrap_or(0);
    let kind = match response.status.as_u16() {
        429 => limited(response, &body, code, whose, now),
        status => kind(status, code, whose).or_else(|| response.classify(now)).unwrap_or(SendErrorKind::Unknown),
    };
    let mut error = response.error(kind, &[token]);
    if let Some(words) = body.get("message").and_then(Value::as_str) {
        error.message = tidy(&format!("{words}{}", faults(&body)), &[token]);
    }
    if kind == SendErrorKind::Unauthorized {
        error.message = format!("Discord refused the channel: {}{}", error.message, advice(response, code, whose));
    }
    if code != 0 {
        error.code = Some(code.to_string());
    }
    error
}

/// What a status and Discord's own code mean, where that differs from what the status means everywhere.
fn kind(status: u16, code: i64, whose: Whose) -> Option<SendErrorKind> {
    const AGAIN: SendErrorKind = SendErrorKind::Retryable { retry_after: None };
    let (Whose::Bot { own } | Whose::Webhook { own }) = whose;
    Some(match (status, code) {
        // The webhook was deleted. Discord restricts who goes on asking for it, so the whole channel stops.
        (404, 10015) if matches!(whose, Whose::Webhook { .. }) => SendErrorKind::Unauthorized,
        (401, _) | (403, 40333) => SendErrorKind::Unauthorized,
        // A feature that Discord switched off for a while.
        (403, 40004 | 40006) => AGAIN,
        // The user takes no messages, or a filter blocked the text.
        (403, 50007 | 50278 | 200_000 | 240_000) => SendErrorKind::Permanent,
        // Missing access. Ten thousand of these in ten minutes get the whole address banned, so the channel stops;
        // but a target that one notification names must not stop the channel for all others.
        (403, _) if own => SendErrorKind::Unauthorized,
        (403, _) => SendErrorKind::Permanent,
        (502 | 503, _) => return None,
        // The message may have been made before the error came about.
        (500 | 504, _) => SendErrorKind::Unknown,
        _ => return None,
    })
}

/// <https://discord.com/developers/docs/topics/rate-limits>
fn limited(response: &Response, body: &Value, code: i64, whose: Whose, now: Timestamp) -> SendErrorKind {
    let told = body.get("retry_after").and_then(Value::as_f64).and_then(wait);
    let told = told.or_else(|| retry_after(&response.headers, now));
    let told = told.or_else(|| reset_after(&response.headers));
    let scope = response.headers.get("x-ratelimit-scope").and_then(|scope| scope.to_str().ok());
    let global = match body.get("global").and_then(Value::as_bool) {
        Some(global) => global || scope == Some("global") || response.headers.contains_key("x-ratelimit-global"),
        // Without Discord's body the answer comes from the proxy before it, which counts by address.
        None => true,
    };
    // 40062 is the limit of the whole service for this bot; the others are those of one place. A webhook is one place,
    // and only slow mode (20016) can be that of a single thread.
    let whole = matches!(whose, Whose::Webhook { .. }) && code != 20016;
    let scope = if global || whole || code == 40062 { Scope::Channel } else { Scope::Lane };
    SendErrorKind::RateLimited { retry_after: told, scope }
}

fn reset_after(headers: &HeaderMap) -> Option<Duration> {
    wait(headers.get("x-ratelimit-reset-after")?.to_str().ok()?.trim().parse().ok()?)
}

const fn advice(response: &Response, code: i64, whose: Whose) -> &'static str {
    match (response.status.as_u16(), code) {
        (_, 40333) => " (Discord's proxy blocks this server's address or its requests)",
        _ if matches!(whose, Whose::Webhook { .. }) => {
            " (the webhook was deleted, or its address is wrong: make a new one in the Discord channel's settings, \
             under Integrations)"
        }
        (401, _) => " (the bot token is wrong or was reset: take a new one from the Discord developer portal)",
        _ => " (invite the bot to the server and give it View Channel and Send Messages there)",
    }
}

/// The faults of a form, as `: content: Must be 2000 or fewer in length.`
fn faults(body: &Value) -> String {
    let mut found = Vec::new();
    if let Some(errors) = body.get("errors") {
        collect(errors, "", 0, &mut found);
    }
    found.iter().map(|fault| format!("; {fault}")).collect()
}

fn collect(errors: &Value, path: &str, depth: usize, found: &mut Vec<String>) {
    let Value::Object(members) = errors else { return };
    for (name, inner) in members {
        if found.len() >= FAULTS_MAX || depth >= FAULT_DEPTH_MAX {
            return;
        }
        if name == "_errors" {
            let messages = inner.as_array().into_iter().flatten().filter_map(|fault| fault.get("message")?.as_str());
            found.extend(messages.take(FAULTS_MAX - found.len()).map(|message| format!("{path}: {message}")));
        } else {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            collect(inner, &path, depth + 1, found);
        }
    }
}
