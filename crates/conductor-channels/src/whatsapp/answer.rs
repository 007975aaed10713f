//! What Meta's answers mean.
//!
//! <https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes>

use std::time::Duration;

use conductor_core::{Receipt, Scope, SendError, SendErrorKind, Timestamp};
use serde_json::Value;

use crate::http::{Response, retry_after, tidy};

/// How long a pair of numbers rests where Meta does not say: one message in six seconds is the rule.
const PAIR_PAUSE: Duration = Duration::from_secs(6);
/// How long the channel rests when the app's calls of the hour are used up and Meta does not say.
const HOURLY_PAUSE: Duration = Duration::from_secs(60);
/// The longest id that is kept.
const ID_MAX: usize = 256;

/// What a success says: the message's id. A page of text instead of JSON is not from Meta but from something before it,
/// so it is no proof that there is a message.
pub(super) fn taken(response: &Response) -> Result<Receipt, SendError> {
    let body = response.json();
    if body.is_null() && response.complete && !response.body.is_empty() {
        let text = "the answer was a success but none of Meta's: is baseUrl right, does a proxy stand between?";
        return Err(SendError::new(SendErrorKind::Unknown, text).with_code(response.status.as_str()));
    }
    // Stored and shown: whatever else stands there, from something between here and Meta, is not passed on.
    let is_id =
        |id: &&str| id.starts_with("wamid.") && id.len() <= ID_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = body.pointer("/messages/0/id").and_then(Value::as_str).filter(is_id);
    Ok(Receipt { provider_id: id.map(str::to_owned) })
}

/// The error that an answer other than a success stands for. Meta's code decides; the status only where there is none.
pub(super) fn error(response: &Response, token: &str, now: Timestamp) -> SendError {
    let body = response.json();
    let told = &body["error"];
    let code = told.get("code").and_then(Value::as_u64);
    let status = response.status.as_u16();
    let asked = retry_after(&response.headers, now);
    let kind = code.and_then(|code| kind(code, asked)).unwrap_or_else(|| match status {
        // The message may have been made before the error came about.
        500 | 504 => SendErrorKind::Unknown,
        _ => response.classify(now).unwrap_or(SendErrorKind::Unknown),
    });
    let mut error = response.error(kind, &[token]);
    if let Some(words) = told.get("message").and_then(Value::as_str) {
        let details = told.pointer("/error_data/details").and_then(Value::as_str);
        let details = details.filter(|details| !words.contains(details)).map(|details| format!("; {details}"));
        error.message = tidy(&format!("{words}{}", details.unwrap_or_default()), &[token]);
    }
    if code == Some(131_047) {
        error.message.push_str(
            " (the person has not written within 24 hours: send an approved template, as data.template says)",
        );
    }
    if kind == SendErrorKind::Unauthorized {
        error.message = format!("Meta refused the channel: {}{}", error.message, advice(code));
    }
    if let Some(code) = code {
        error.code = Some(code.to_string());
    }
    error
}

/// What Meta's own code means.
fn kind(code: u64, asked: Option<Duration>) -> Option<SendErrorKind> {
    let limited = |scope, pause: Option<Duration>| SendErrorKind::RateLimited { retry_after: asked.or(pause), scope };
    Some(match code {
        0 | 3 | 10 | 190 | 200..=299 | 131_005 => SendErrorKind::Unauthorized,
        // The account is locked or owes money, the number is not registered.
        368 | 130_497 | 131_031 | 131_042 | 131_045 | 133_010 => SendErrorKind::Unauthorized,
        4 | 80_007 => limited(Scope::Channel, Some(HOURLY_PAUSE)),
        130_429 | 131_048 => limited(Scope::Channel, None),
        131_056 => limited(Scope::Lane, Some(PAIR_PAUSE)),
        // The recipient cannot be reached or wants no more; Meta keeps the message back for this person.
        130_472 | 131_021 | 131_026 | 131_030 | 131_049 | 131_050 => SendErrorKind::Permanent,
        // Not the content but the moment: the same text without its markup would be refused too.
        131_047 => SendErrorKind::Permanent,
        33 | 100 | 131_008 | 131_009 | 131_051..=131_053 => SendErrorKind::Rejected,
        132_000 | 132_001 | 132_005 | 132_007 | 132_012 | 132_015 | 132_016 | 132_068 | 132_069 => {
            SendErrorKind::Rejected
        }
        // The message may have been made before the error came about.
        1 | 131_000 | 131_016 | 133_004 => SendErrorKind::Unknown,
        2 | 131_057 => SendErrorKind::Retryable { retry_after: asked },
        _ => return None,
    })
}

const fn advice(code: Option<u64>) -> &'static str {
    match code {
        Some(0 | 190) => " (the access token is wrong or has expired: make a permanent one for a system user)",
        Some(131_031 | 368 | 130_497) => {
            " (the WhatsApp account is locked or restricted: Meta's Business Manager says why)"
        }
        Some(131_042) => " (Meta's Business Manager shows the trouble with the payment)",
        Some(131_045 | 133_010) => " (register the phone number for the Cloud API)",
        _ => " (the token needs the permission whatsapp_business_messaging for this number)",
    }
}
