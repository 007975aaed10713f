//! Meta's status webhooks, and how they are signed.
//!
//! <https://developers.facebook.com/docs/whatsapp/cloud-api/guides/set-up-webhooks>

use conductor_core::receipts::{Arrival, ReceiptAnswer, ReceiptError, ReceiptMethod, ReceiptRequest, Report};
use conductor_core::{Secret, Timestamp};
use ring::hmac;
use serde_json::Value;
use url::form_urlencoded;

/// The header with the signature, in lower case.
const SIGNATURE: &str = "x-hub-signature-256";
/// The longest challenge that is repeated.
const CHALLENGE_MAX: usize = 256;

/// Checks a call and reads it. Statuses on the way there, and whatever else Meta tells, are no reports.
pub(super) fn read(
    request: &ReceiptRequest,
    app_secret: Option<&Secret>,
    verify_token: Option<&Secret>,
) -> Result<ReceiptAnswer, ReceiptError> {
    match request.method {
        ReceiptMethod::Get => {
            let reply = challenge(&request.query, verify_token.ok_or(ReceiptError::NotTaken)?)?;
            Ok(ReceiptAnswer { reports: Vec::new(), reply })
        }
        ReceiptMethod::Post => {
            let secret = app_secret.ok_or(ReceiptError::NotTaken)?;
            if !is_signed(secret.expose(), &request.body, request.header(SIGNATURE)) {
                return Err(ReceiptError::WrongSignature);
            }
            let body = serde_json::from_slice(&request.body).map_err(|_| ReceiptError::Malformed("it is not JSON"))?;
            Ok(ReceiptAnswer { reports: reports(&body), reply: String::new() })
        }
    }
}

/// What Meta wants to hear when it checks the address.
fn challenge(query: &str, verify_token: &Secret) -> Result<String, ReceiptError> {
    let value = |name: &str| {
        let found = form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name);
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    if value("hub.mode") != "subscribe" {
        return Err(ReceiptError::NotTaken);
    }
    if !is_same(verify_token.expose(), &value("hub.verify_token")) {
        return Err(ReceiptError::WrongSignature);
    }
    let challenge = value("hub.challenge");
    let is_fit = challenge.len() <= CHALLENGE_MAX && challenge.bytes().all(|byte| byte.is_ascii_graphic());
    if is_fit { Ok(challenge) } else { Err(ReceiptError::Malformed("hub.challenge is no short word")) }
}

/// Whether two texts are the same, in a time that says nothing of where they differ.
fn is_same(secret: &str, told: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, secret.as_bytes());
    hmac::verify(&key, told.as_bytes(), tag.as_ref()).is_ok()
}

/// Whether the exact bytes were signed with the app's secret.
fn is_signed(secret: &str, body: &[u8], header: &str) -> bool {
    let Some(signature) = header.strip_prefix("sha256=").and_then(bytes) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, body, &signature).is_ok()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| if let [high, low] = *pair { Some(digit(high)? << 4 | digit(low)?) } else { None }).collect()
}

fn reports(body: &Value) -> Vec<Report> {
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let changes = list(body, "entry").into_iter().flat_map(|entry| list(&entry, "changes"));
    let statuses = changes.flat_map(|change| list(&change["value"], "statuses"));
    statuses.filter_map(|status| report(&status)).collect()
}

fn report(status: &Value) -> Option<Report> {
    let text = |name: &str| status.get(name).and_then(Value::as_str);
    let part = text("biz_opaque_callback_data")?.parse().ok()?;
    let arrival = match text("status")? {
        "delivered" | "read" => Arrival::Delivered,
        "failed" => Arrival::Undelivered,
        _ => return None,
    };
    let seconds = text("timestamp").and_then(|seconds| seconds.parse::<u32>().ok());
    let at = seconds.map(|seconds| Timestamp::from_millis(i64::from(seconds) * 1000));
    let error = status.pointer("/errors/0");
    let code = error.and_then(|error| error.get("code")?.as_u64()).map(|code| code.to_string());
    let words = ["/error_data/details", "/message", "/title"];
    let detail = error.and_then(|error| words.iter().find_map(|place| error.pointer(place)?.as_str()));
    let detail = detail.map(|words| crate::http::tidy(words, &[]));
    Some(Report { part, arrival, code, detail, at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::spec;

    #[test]
    fn the_published_signature_fits_and_nothing_else_does() {
        let Some(vectors) = spec("signature_vectors.json") else { return };
        let vector = &vectors["x_hub_signature_256"]["vectors"][0];
        let text = |name: &str| vector[name].as_str().expect("a text");
        let (secret, body, header) = (text("secret"), text("body"), text("x-hub-signature-256"));
        assert!(is_signed(secret, body.as_bytes(), header));
        assert!(!is_signed("another", body.as_bytes(), header));
        assert!(!is_signed(secret, b"Hello, World", header));
        let bare = header.trim_start_matches("sha256=");
        for wrong in ["", "sha256=", "sha256=0", "sha256=zz", "sha256=\u{e4}", bare, &header[..header.len() - 2]] {
            assert!(!is_signed(secret, body.as_bytes(), wrong), "{wrong}");
        }
    }

    #[test]
    fn only_the_same_text_is_the_same() {
        assert!(is_same("token", "token"));
        for other in ["", "Token", "token ", "toke"] {
            assert!(!is_same("token", other), "{other}");
        }
    }
}
