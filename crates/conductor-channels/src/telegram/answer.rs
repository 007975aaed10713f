//! What Telegram's answers mean.
//!
//! <https://core.telegram.org/bots/api#making-requests>

use std::time::Duration;

use conductor_core::{Scope, SendError, SendErrorKind, Timestamp};
use serde_json::Value;

use crate::http::{Response, retry_after, tidy, wait};

/// The number that a group has since it became a supergroup.
pub(super) fn moved_to(response: &Response) -> Option<i64> {
    if response.status.is_success() {
        return None;
    }
    response.json().get("parameters")?.get("migrate_to_chat_id")?.as_i64()
}

/// The error that an answer other than a success stands for. `own` says that the chat was the channel's own, not one
/// that the notification named.
pub(super) fn error(response: &Response, own: bool, token: &str, now: Timestamp) -> SendError {
    // Without the number before it the secret is one still.
    let secrets = [token, token.split_once(':').map_or("", |(_, secret)| secret)];
    let body = response.json();
    let words = body.get("description").and_then(Value::as_str);
    let kind = match response.status.as_u16() {
        429 => limited(response, &body, now),
        status => kind(status, words, own).or_else(|| response.classify(now)).unwrap_or(SendErrorKind::Unknown),
    };
    let mut error = response.error(kind, &secrets);
    if let Some(words) = words {
        error.message = tidy(words, &secrets);
    }
    if kind == SendErrorKind::Unauthorized {
        error.message = format!("Telegram refused the channel: {}{}", error.message, advice(response));
    }
    error
}

/// What an answer means where that differs from what its status means everywhere. `words` are Telegram's, which has no
/// codes: its description is all by which an unknown chat can be told from a text that it cannot read.
fn kind(status: u16, words: Option<&str>, own: bool) -> Option<SendErrorKind> {
    const AGAIN: SendErrorKind = SendErrorKind::Retryable { retry_after: None };
    Some(match (status, words) {
        // Telegram knows no such bot: the token is wrong. An unknown chat is a 400.
        (401 | 404, _) | (409, _) => SendErrorKind::Unauthorized,
        (400, Some(words)) => {
            let words = words.to_ascii_lowercase();
            let says = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
            if says(MOVED) {
                AGAIN
            } else if says(NO_RECIPIENT) {
                SendErrorKind::Permanent
            } else if says(NO_RIGHTS) && own {
                SendErrorKind::Unauthorized
            } else if says(NO_RIGHTS) {
                // A chat that one notification names must not stop the channel for all others.
                SendErrorKind::Permanent
            } else {
                SendErrorKind::Rejected
            }
        }
        // Blocked, kicked, gone: it is this chat's matter and not the bot's.
        (403, Some(_)) => SendErrorKind::Permanent,
        // It refuses before it has taken anything.
        (503, _) => return None,
        // The message may have been made before the error came about.
        (500..=599, _) => SendErrorKind::Unknown,
        _ => return None,
    })
}

/// Followed once in the same attempt; this is for a group that goes on moving.
const MOVED: &[&str] = &["migrated to a supergroup", "upgraded to a supergroup"];
const NO_RECIPIENT: &[&str] = &[
    "chat not found",
    "user not found",
    "peer_id_invalid",
    "group is deactivated",
    "member not found",
    "message thread not found",
    "topic_deleted",
    "topic_closed",
];
const NO_RIGHTS: &[&str] =
    &["not enough rights", "have no rights to send", "need administrator rights", "chat_write_forbidden"];

/// <https://core.telegram.org/bots/api#responseparameters>
fn limited(response: &Response, body: &Value, now: Timestamp) -> SendErrorKind {
    let told = body.get("parameters").and_then(|parameters| parameters.get("retry_after")?.as_f64()).and_then(wait);
    let told: Option<Duration> = told.or_else(|| retry_after(&response.headers, now));
    // Without Telegram's body the answer comes from a proxy before it, which counts by address.
    let scope = if body.get("error_code").is_some() { Scope::Lane } else { Scope::Channel };
    SendErrorKind::RateLimited { retry_after: told, scope }
}

fn advice(response: &Response) -> &'static str {
    match response.status.as_u16() {
        401 | 404 => " (the bot token is wrong or was revoked: take the one that @BotFather shows at /token)",
        400 => " (make the bot an administrator of the chat, or allow members to send messages there)",
        _ => "",
    }
}
