//! What Twilio's answers mean.
//!
//! <https://www.twilio.com/docs/api/errors>

use conductor_core::{Receipt, Scope, SendError, SendErrorKind, Timestamp};
use serde_json::Value;

use crate::http::{Response, retry_after, tidy};

/// What a success says: the message's id. A page of text instead of JSON is not from Twilio but from something before
/// it, so it is no proof that there is a message.
pub(super) fn taken(response: &Response) -> Result<Receipt, SendError> {
    let body = response.json();
    if body.is_null() && response.complete && !response.body.is_empty() {
        let text = "the answer was a success but none of Twilio's: is baseUrl right, does a proxy stand between?";
        return Err(SendError::new(SendErrorKind::Unknown, text).with_code(response.status.as_str()));
    }
    // Stored and shown: whatever else stands there, from something between here and Twilio, is not passed on.
    let id = body.get("sid").and_then(Value::as_str).filter(|id| is_sid(id, &["SM", "MM"]));
    Ok(Receipt { provider_id: id.map(str::to_owned) })
}

/// Whether a text is one of Twilio's ids: two letters and 32 hexadecimal digits.
pub(super) fn is_sid(text: &str, prefixes: &[&str]) -> bool {
    let digits = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
    digits.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The error that an answer other than a success stands for.
pub(super) fn error(response: &Response, secrets: &[&str], now: Timestamp) -> SendError {
    let body = response.json();
    let code = body.get("code").and_then(Value::as_u64).unwrap_or(0);
    let status = response.status.as_u16();
    let limited =
        || SendErrorKind::RateLimited { retry_after: retry_after(&response.headers, now), scope: Scope::Channel };
    let kind = match kind(status, code) {
        Some(Meaning::Limited) => limited(),
        Some(Meaning::Is(kind)) => kind,
        None => response.classify(now).unwrap_or(SendErrorKind::Unknown),
    };
    let mut error = response.error(kind, secrets);
    if let Some(words) = body.get("message").and_then(Value::as_str) {
        error.message = tidy(words, secrets);
    }
    if kind == SendErrorKind::Unauthorized {
        error.message = format!("Twilio refused the channel: {}{}", error.message, advice(status, code));
    }
    if code != 0 {
        error.code = Some(code.to_string());
    }
    error
}

enum Meaning {
    Limited,
    Is(SendErrorKind),
}

/// What a status and Twilio's own code mean, where that differs from what the status means everywhere.
fn kind(status: u16, code: u64) -> Option<Meaning> {
    Some(Meaning::Is(match (status, code) {
        (_, 20003 | 20005 | 20404) => SendErrorKind::Unauthorized,
        // The sender: missing, not of this account, not able to send texts, an empty messaging service.
        (400, 21212 | 21601 | 21603 | 21606 | 21607 | 21659 | 21660 | 21661 | 21701 | 21703) => {
            SendErrorKind::Unauthorized
        }
        // As many messages wait in the number's queue as fit; the account has had its share of the day.
        (_, 21611 | 63038 | 20429) => return Some(Meaning::Limited),
        // The recipient: no number, none that takes texts, not allowed on a trial, opted out, in a region that is off.
        (
            400,
            21211 | 21214 | 21217 | 21219 | 21265 | 21266 | 21408 | 21421 | 21604 | 21608 | 21610 | 21612 | 21614,
        ) => SendErrorKind::Permanent,
        // The only path that is asked for names the account.
        (404, _) => SendErrorKind::Unauthorized,
        // The message may have been made before the error came about.
        (500 | 504, _) => SendErrorKind::Unknown,
        _ => return None,
    }))
}

const fn advice(status: u16, code: u64) -> &'static str {
    match (status, code) {
        (_, 20005) => " (the account is suspended or closed: the Twilio Console says why)",
        (404, _) => " (is ACCOUNT_SID right, and baseUrl?)",
        (401 | 403, _) => " (ACCOUNT_SID and AUTH_TOKEN have to be those of one account: see the Twilio Console)",
        _ => " (FROM has to be a number or messaging service of this account that can send texts there)",
    }
}

/// What a code of a receipt means, in our words: Twilio sends the number alone.
pub(super) const fn meaning(code: u32) -> Option<&'static str> {
    Some(match code {
        30001 => "Twilio's queue for the sender was full",
        30002 => "the Twilio account is suspended",
        30003 => "the phone is off or out of reach",
        30004 => "the recipient or the carrier blocks the message",
        30005 => "the number is unknown or no longer in service",
        30006 => "the number is a landline, or its carrier takes no texts",
        30007 => "the carrier filtered the message as unwanted",
        30008 => "the carrier gave no reason",
        30010 => "the message costs more than the allowed price",
        30017 => "the carrier's network is congested",
        30022 => "the sender goes faster than the carrier allows",
        30032 => "the toll-free sender is not verified",
        30034 => "the sender is not registered for A2P 10DLC",
        30036 => "the message waited longer than its validity period",
        _ => return None,
    })
}
