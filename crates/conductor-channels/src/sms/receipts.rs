//! Twilio's status callbacks, and how they are signed.
//!
//! <https://www.twilio.com/docs/usage/security#validating-requests>

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conductor_core::receipts::{Arrival, ReceiptAnswer, ReceiptError, ReceiptMethod, ReceiptRequest, Report};
use ring::{digest, hmac};
use url::form_urlencoded;

use super::answer::meaning;

/// The query's member that names the part of a delivery.
pub(super) const DELIVERY: &str = "delivery";
/// The header with the signature, in lower case.
const SIGNATURE: &str = "x-twilio-signature";
/// The query's member that holds a JSON body's SHA-256.
const BODY_SHA256: &str = "bodySHA256";

/// Checks a status callback and reads it. Statuses on the way there, and messages of somebody else, are no reports.
pub(super) fn read(request: &ReceiptRequest, token: &str) -> Result<ReceiptAnswer, ReceiptError> {
    let url = request.url.as_deref().filter(|_| request.method == ReceiptMethod::Post);
    let url = url.ok_or(ReceiptError::NotTaken)?;
    if !is_signed(token, url, &request.query, &request.body, request.header(SIGNATURE)) {
        return Err(ReceiptError::WrongSignature);
    }
    let report = report(&request.query, &request.body);
    Ok(ReceiptAnswer { reports: report.into_iter().collect(), reply: String::new() })
}

fn report(query: &str, body: &[u8]) -> Option<Report> {
    let part = value(query.as_bytes(), DELIVERY)?.parse().ok()?;
    let arrival = match value(body, "MessageStatus")?.as_str() {
        "delivered" | "read" => Arrival::Delivered,
        "undelivered" | "failed" | "canceled" => Arrival::Undelivered,
        _ => return None,
    };
    let number = value(body, "ErrorCode").and_then(|code| code.parse::<u32>().ok());
    let code = number.filter(|code| *code != 0 && arrival == Arrival::Undelivered);
    let detail = code.and_then(meaning).map(str::to_owned);
    Some(Report { part, arrival, code: code.map(|code| code.to_string()), detail, at: None })
}

fn value(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// Whether a request was signed with the account's token. Twilio signs the address with the port or without it, as it
/// stood in the configuration of whoever asked for the callback.
fn is_signed(token: &str, url: &str, query: &str, body: &[u8], signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
    let fields = match value(query.as_bytes(), BODY_SHA256) {
        Some(told) if !told.eq_ignore_ascii_case(&hex(digest::digest(&digest::SHA256, body).as_ref())) => return false,
        Some(_) => String::new(),
        None => sorted(body),
    };
    spellings(url).iter().any(|url| hmac::verify(&key, format!("{url}{fields}").as_bytes(), &signature).is_ok())
}

/// The fields in the order of their names, each name directly before its value. Equal pairs count once.
fn sorted(body: &[u8]) -> String {
    let fields: BTreeSet<_> = form_urlencoded::parse(body).collect();
    fields.into_iter().flat_map(|(name, value)| [name, value]).collect()
}

/// The address as it is, and with its scheme's own port added or left out.
fn spellings(url: &str) -> Vec<String> {
    let mut all = vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else { return all };
    let port = if scheme == "https" { ":443" } else { ":80" };
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    match host.strip_suffix(port) {
        Some(bare) => all.push(format!("{scheme}://{bare}{path}")),
        None if host.rfind(':') <= host.rfind(']') => all.push(format!("{scheme}://{host}{port}{path}")),
        None => {}
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::spec;
    use serde_json::Value;

    fn form(pairs: &Value) -> Vec<u8> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let pairs = pairs.as_array().expect("pairs").iter().map(|pair| (text(&pair[0]), text(&pair[1])));
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish().into_bytes()
    }

    #[test]
    fn the_published_signatures_fit_and_nothing_else_does() {
        let Some(vectors) = spec("signature_vectors.json") else { return };
        let vectors = &vectors["twilio_x_twilio_signature"];
        let token = vectors["auth_token"].as_str().expect("a token");
        let all = vectors["vectors"].as_array().expect("vectors");
        assert_eq!(all.len(), 6);
        for vector in all {
            let url = vector["url"].as_str().expect("a URL");
            let body = match (&vector["params"], &vector["json_body"]) {
                (Value::Null, Value::String(json)) => json.clone().into_bytes(),
                (Value::Null, _) => form(&all[0]["params"]),
                (params, _) => form(params),
            };
            let signature = vector["signature"].as_str().expect("a signature");
            let query = url.split_once('?').map_or("", |(_, query)| query);
            assert!(is_signed(token, url, query, &body, signature), "{vector}");
            assert!(!is_signed("12346", url, query, &body, signature), "{vector}");
            assert!(!is_signed(token, &url.replace("foo", "fop"), query, &body, signature), "{vector}");
            let mut other = body.clone();
            other.extend_from_slice(b"&More=1");
            assert!(!is_signed(token, url, query, &other, signature), "{vector}");
            for wrong in ["", "no base64!", "AAAA"] {
                assert!(!is_signed(token, url, query, &body, wrong), "{wrong}");
            }
        }
    }

    #[test]
    fn an_address_is_spelt_with_and_without_its_own_port() {
        for (url, other) in [
            ("https://a.example/x?y", Some("https://a.example:443/x?y")),
            ("https://a.example:443/x", Some("https://a.example/x")),
            ("http://a.example?y", Some("http://a.example:80?y")),
            ("http://[::1]/x", Some("http://[::1]:80/x")),
            ("http://[::1]:81/x", None),
            ("http://a.example:8080/x", None),
        ] {
            assert_eq!(spellings(url).get(1).map(String::as_str), other, "{url}");
        }
    }

    #[test]
    fn only_what_is_final_is_reported() {
        let query = "delivery=11111111-1111-1111-1111-111111111111.0.1.2";
        let of = |body: &str| report(query, body.as_bytes());
        for status in ["queued", "accepted", "scheduled", "sending", "sent", "partially_delivered", "new"] {
            assert_eq!(of(&format!("MessageStatus={status}")), None, "{status}");
        }
        for status in ["delivered", "read"] {
            assert_eq!(of(&format!("MessageStatus={status}")).map(|report| report.arrival), Some(Arrival::Delivered));
        }
        for status in ["undelivered", "failed", "canceled"] {
            let report = of(&format!("MessageSid=SM1&MessageStatus={status}&ErrorCode=30003")).expect("a report");
            assert_eq!((report.arrival, report.code.as_deref()), (Arrival::Undelivered, Some("30003")));
            assert_eq!(report.detail.as_deref(), Some("the phone is off or out of reach"));
            assert_eq!((report.part.part, report.part.parts), (1, 2));
        }
        for bad in ["", "delivery=", "delivery=SM1", "other=1"] {
            assert_eq!(report(bad, b"MessageStatus=delivered"), None, "{bad}");
        }
    }
}
