//! What Slack's answers mean.
//!
//! The Web API answers 200 also to what it refuses: `ok` says which it is, and `error` holds a word for the reason.

use conductor_core::{Receipt, Scope, SendError, SendErrorKind, Timestamp};
use serde_json::Value;

use super::is_ts;
use crate::http::{Response, retry_after, tidy};

/// The longest word that Slack gives for a reason, in bytes.
const WORD_MAX: usize = 100;
/// The most of the remarks beside a reason that are told.
const REMARKS_MAX: usize = 5;

/// What became of a message of the bot. `own` says that the target was the channel's own, not one that the
/// notification named.
pub(super) fn of_bot(response: &Response, own: bool, token: &str, now: Timestamp) -> Result<Receipt, SendError> {
    let body = read(response, own, token, now)?;
    // Stored and shown: whatever else stands there, from something between here and Slack, is not passed on.
    let channel = body.get("channel").and_then(Value::as_str).filter(|id| is_id(id));
    let ts = body.get("ts").and_then(Value::as_str).filter(|ts| is_ts(ts));
    Ok(Receipt { provider_id: channel.zip(ts).map(|(channel, ts)| format!("{channel}:{ts}")) })
}

/// Whether the bot's token is good.
pub(super) fn of_health(response: &Response, token: &str, now: Timestamp) -> Result<(), SendError> {
    read(response, true, token, now).map(drop)
}

/// The body of an answer that is a success.
fn read(response: &Response, own: bool, token: &str, now: Timestamp) -> Result<Value, SendError> {
    let body = response.json();
    if let Some(kind) = response.classify_in_doubt(now) {
        return Err(response.error(kind, &[token]));
    }
    match body.get("ok").and_then(Value::as_bool) {
        Some(true) => Ok(body),
        Some(false) => Err(refusal(response, &body, own, token, now)),
        None => {
            let text = "the answer was a success, but none of Slack's could be read in it: is baseUrl right, does a \
                        proxy stand between?";
            Err(SendError::new(SendErrorKind::Unknown, text).with_code(response.status.as_str()))
        }
    }
}

fn refusal(response: &Response, body: &Value, own: bool, token: &str, now: Timestamp) -> SendError {
    let code = body.get("error").and_then(Value::as_str).and_then(word).unwrap_or("without a reason");
    let mut kind = kind(code, own);
    if let SendErrorKind::RateLimited { retry_after: wait, .. } = &mut kind {
        *wait = retry_after(&response.headers, now);
    }
    let mut remarks: Vec<String> = ["needed", "provided"]
        .into_iter()
        .filter_map(|name| Some(format!("{name}: {}", body.get(name)?.as_str()?)))
        .collect();
    let messages = body.pointer("/response_metadata/messages").and_then(Value::as_array).into_iter().flatten();
    remarks.extend(messages.filter_map(Value::as_str).map(str::to_owned));
    remarks.truncate(REMARKS_MAX);
    let remarks: String = remarks.iter().map(|remark| format!("; {remark}")).collect();
    let message = tidy(&format!("Slack refused it: {code}{remarks}"), &[token]);
    SendError::new(kind, format!("{message}{}", advice(code))).with_code(code)
}

/// <https://docs.slack.dev/reference/methods/chat.postMessage#errors>
fn kind(code: &str, own: bool) -> SendErrorKind {
    match code {
        "invalid_auth"
        | "not_authed"
        | "account_inactive"
        | "token_revoked"
        | "token_expired"
        | "no_permission"
        | "missing_scope"
        | "org_login_required"
        | "ekm_access_denied"
        | "access_denied"
        | "enterprise_is_restricted"
        | "not_allowed_token_type"
        | "two_factor_setup_required" => SendErrorKind::Unauthorized,
        // The bot may not write in this one place. A target that one notification names must not stop the channel for
        // all others.
        "not_in_channel" => closed(own),
        code if code.starts_with("restricted_action") => closed(own),
        "channel_not_found"
        | "is_archived"
        | "user_not_found"
        | "user_disabled"
        | "cannot_dm_bot"
        | "messages_tab_disabled"
        | "message_limit_exceeded"
        | "accesslimited"
        | "team_access_not_granted" => SendErrorKind::Permanent,
        "ratelimited" | "rate_limited" => SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel },
        // Some part of the work may have been done.
        "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" => SendErrorKind::Unknown,
        // The workspace is being moved, which ends.
        "team_added_to_org" => SendErrorKind::Retryable { retry_after: None },
        _ => SendErrorKind::Rejected,
    }
}

const fn closed(own: bool) -> SendErrorKind {
    if own { SendErrorKind::Unauthorized } else { SendErrorKind::Permanent }
}

fn advice(code: &str) -> &'static str {
    match code {
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            " (the token is no longer good: take the Bot User OAuth Token from api.slack.com/apps)"
        }
        "missing_scope" => " (add the scope at api.slack.com/apps, then install the app once more)",
        "not_in_channel" => " (invite the bot into the channel: /invite @bot)",
        "channel_not_found" => " (there is no such channel, or it is private and the bot is not in it)",
        "no_service" | "no_active_hooks" | "no_team" | "invalid_token" => {
            " (the webhook was removed: make a new one at api.slack.com/apps)"
        }
        _ => "",
    }
}

/// What became of a message that went through an incoming webhook. It answers `ok`, or a word for the reason, as text.
pub(super) fn of_webhook(response: &Response, hidden: &[&str], now: Timestamp) -> Result<Receipt, SendError> {
    let text = std::str::from_utf8(&response.body).unwrap_or_default().trim();
    let reason = word(text);
    let kind = match (response.status.as_u16(), reason) {
        (200..=299, _) if response.complete && !matches!(text, "" | "ok") => {
            let text =
                "the answer was a success but none of Slack's: is the address right, does a proxy stand between?";
            return Err(SendError::new(SendErrorKind::Unknown, text).with_code(response.status.as_str()));
        }
        (500, Some("rollup_error")) => Some(SendErrorKind::Retryable { retry_after: None }),
        _ => response.classify_in_doubt(now),
    };
    let Some(kind) = kind else { return Ok(Receipt::default()) };
    let mut error = response.error(kind, hidden);
    if let Some(reason) = reason {
        error.message.push_str(advice(reason));
        error.code = Some(reason.to_owned());
    }
    Err(error)
}

/// A word as Slack writes them.
fn word(text: &str) -> Option<&str> {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    ((1..=WORD_MAX).contains(&text.len()) && text.bytes().all(letters)).then_some(text)
}

fn is_id(text: &str) -> bool {
    (2..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}
