//! What Mattermost's answers mean.
//!
//! <https://developers.mattermost.com/api-documentation/#/#errors>

use std::time::Duration;

use conductor_core::{Receipt, SendError, SendErrorKind, Timestamp};
use serde_json::Value;

use super::is_id;
use crate::http::{Response, wait};

/// The longest id of an error that is told, in bytes.
const ERROR_ID_MAX: usize = 120;

/// What became of a bot's post. `own` says that the target was the channel's own, not one that the notification named.
pub(super) fn of_bot(response: &Response, own: bool, secrets: &[&str], now: Timestamp) -> Result<Receipt, SendError> {
    if !response.status.is_success() {
        return Err(error(response, own, secrets, now));
    }
    let body = response.json();
    if body.is_null() && response.complete && !response.body.is_empty() {
        return Err(not_mattermosts(response));
    }
    let id = body.get("id").and_then(Value::as_str).filter(|id| is_id(id));
    Ok(Receipt { provider_id: id.map(str::to_owned) })
}

/// What became of a message that went through an incoming webhook, which answers `ok`.
pub(super) fn of_webhook(
    response: &Response,
    own: bool,
    hidden: &[&str],
    now: Timestamp,
) -> Result<Receipt, SendError> {
    if !response.status.is_success() {
        return Err(error(response, own, hidden, now));
    }
    if response.complete && !matches!(response.body.trim_ascii(), b"" | b"ok") {
        return Err(not_mattermosts(response));
    }
    Ok(Receipt::default())
}

fn not_mattermosts(response: &Response) -> SendError {
    let text = "the answer was a success but none of Mattermost's: is the address right, does a proxy stand between?";
    SendError::new(SendErrorKind::Unknown, text).with_code(response.status.as_str())
}

/// The error that an answer other than a success stands for.
pub(super) fn error(response: &Response, own: bool, secrets: &[&str], now: Timestamp) -> SendError {
    let body = response.json();
    let id = body.get("id").and_then(Value::as_str).filter(|id| is_error_id(id));
    let mut error = response.error(kind(response, id, own, now), secrets);
    error.message.push_str(advice(response.status.as_u16(), error.kind));
    if let Some(id) = id {
        error.code = Some(id.to_owned());
    }
    error
}

fn kind(response: &Response, id: Option<&str>, own: bool, now: Timestamp) -> SendErrorKind {
    match (response.status.as_u16(), id) {
        // The webhook's address is the credential, and there is no webhook of that address.
        (_, Some("web.incoming_webhook.invalid.app_error")) => SendErrorKind::Unauthorized,
        // A target that one notification names must not stop the channel for all others.
        (403, _) if !own => SendErrorKind::Permanent,
        // The server's owner has switched off what is needed.
        (501, _) => SendErrorKind::Unauthorized,
        _ => match response.classify_in_doubt(now) {
            Some(SendErrorKind::RateLimited { retry_after: None, scope }) => {
                SendErrorKind::RateLimited { retry_after: reset(response), scope }
            }
            kind => kind.unwrap_or(SendErrorKind::Unknown),
        },
    }
}

/// The seconds until the server counts anew.
fn reset(response: &Response) -> Option<Duration> {
    wait(response.headers.get("x-ratelimit-reset")?.to_str().ok()?.trim().parse().ok()?)
}

const fn advice(status: u16, kind: SendErrorKind) -> &'static str {
    match (status, kind) {
        (401, _) => " (the token is wrong or was revoked: make a new one at Integrations, Bot Accounts)",
        (403, SendErrorKind::Unauthorized) => " (add the bot to the team and to the channel)",
        (501, _) => " (the server's owner has to switch this on: System Console, Integrations)",
        (400, SendErrorKind::Unauthorized) => " (the webhook was removed: make a new one)",
        _ => "",
    }
}

fn is_error_id(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=ERROR_ID_MAX).contains(&text.len()) && text.bytes().all(letter)
}
