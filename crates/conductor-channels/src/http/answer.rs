//! What a provider answered: its status, its words and how long it wants to be left alone.

use std::time::Duration;

use bytes::Bytes;
use conductor_core::retry::RETRY_AFTER_MAX;
use conductor_core::{Scope, SendError, SendErrorKind, Timestamp};
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// The most of an answer's words that goes into an error, in characters.
pub const WORDS_MAX: usize = 300;

/// A provider's answer. Its body is cut at [`super::BODY_MAX`].
#[derive(Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as far as it was read.
    pub body: Bytes,
    /// Whether that is all of it: it was not too long, too slow or broken off.
    pub complete: bool,
}

/// Shows no header and no body: a provider may repeat there what it was sent.
impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}

impl Response {
    /// What the answer means where the provider's own rules say nothing else; none is success.
    pub fn classify(&self, now: Timestamp) -> Option<SendErrorKind> {
        classify(self.status, &self.headers, now)
    }

    /// [`Self::classify`] for a provider that may have taken the message although it answers with an error of its
    /// own. Only a 503 that names the time to come back says that nothing was done.
    pub fn classify_in_doubt(&self, now: Timestamp) -> Option<SendErrorKind> {
        let kind = self.classify(now)?;
        let refused = self.status == StatusCode::SERVICE_UNAVAILABLE && kind.retry_after().is_some();
        Some(if self.status.is_server_error() && !refused { SendErrorKind::Unknown } else { kind })
    }

    /// The body as JSON; [`Value::Null`] where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// An error in the provider's own words, as far as it gave some. What `secrets` holds is blotted out, because
    /// some servers repeat what they were sent.
    pub fn error(&self, kind: SendErrorKind, secrets: &[&str]) -> SendError {
        let mut message = format!("the answer was {}", self.status);
        if self.status.is_redirection() {
            message.push_str(": redirects are not followed; configure the address to which it leads");
        } else if let Some(words) = words(&self.body, secrets) {
            message.push_str(": ");
            message.push_str(&words);
        }
        SendError::new(kind, message).with_code(self.status.as_str())
    }
}

/// What a status means where the provider's own rules say nothing else; none is success.
pub fn classify(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<SendErrorKind> {
    let retry_after = || retry_after(headers, now);
    Some(match status.as_u16() {
        200..=299 => return None,
        401 | 403 => SendErrorKind::Unauthorized,
        404 | 410 => SendErrorKind::Permanent,
        429 => SendErrorKind::RateLimited { retry_after: retry_after(), scope: Scope::Channel },
        408 | 425 | 500..=599 => SendErrorKind::Retryable { retry_after: retry_after() },
        _ => SendErrorKind::Rejected,
    })
}

/// How long `Retry-After` asks to wait: seconds, also fractional ones, or an HTTP date. At most [`RETRY_AFTER_MAX`];
/// none where it is missing or makes no sense.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return wait(seconds);
    }
    let until = http_date(text)?;
    Some(until.since(now).min(RETRY_AFTER_MAX))
}

/// A wait of so many seconds, rounded up to a millisecond so that it is never too short, and at most
/// [`RETRY_AFTER_MAX`]. None where it is negative or no number.
pub fn wait(seconds: f64) -> Option<Duration> {
    if seconds.is_nan() || seconds < 0.0 {
        return None;
    }
    let millis = (seconds.min(RETRY_AFTER_MAX.as_secs_f64()) * 1000.0).ceil();
    Some(Duration::from_secs_f64(millis / 1000.0).min(RETRY_AFTER_MAX))
}

/// The three forms that RFC 9110 wants understood: that of RFC 5322, that of RFC 850 and that of C's `asctime`.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    if let Ok(time) = jiff::fmt::rfc2822::parse(text) {
        return Some(Timestamp::from_millis(time.timestamp().as_millisecond()));
    }
    let old = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let time = old.iter().find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp::from_millis(time.timestamp().as_millisecond()))
}

/// What an error's body says to a person: the usual member of a JSON object, else the text itself; nothing of a page
/// of HTML. One line, at most [`WORDS_MAX`] characters, without `secrets`.
pub fn words(body: &[u8], secrets: &[&str]) -> Option<String> {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(members)) => {
            let named = ["message", "error", "detail", "description", "title"];
            named.iter().find_map(|name| members.get(*name)?.as_str().map(str::to_owned))?
        }
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    if text.trim_start().starts_with('<') {
        return None;
    }
    Some(tidy(&text, secrets)).filter(|words| !words.is_empty())
}

/// One line of at most [`WORDS_MAX`] characters without control characters and without `secrets`.
pub fn tidy(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "***");
    }
    let mut line = String::new();
    for word in text.split(|letter: char| letter.is_whitespace() || letter.is_control()).filter(|word| !word.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(WORDS_MAX) {
        Some((cut, _)) => {
            line.truncate(cut);
            line.push('…');
            line
        }
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn asked(value: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        retry_after(&headers, Timestamp::from_millis(784_111_777_000))
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked(" 0 "), Some(Duration::ZERO));
        assert_eq!(asked("1.5"), Some(Duration::from_millis(1_500)));
        assert_eq!(asked("0.0641"), Some(Duration::from_millis(65)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(asked("Sunday, 06-Nov-94 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(asked("Sun Nov  6 08:50:37 1994"), Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_date_that_has_passed_asks_for_no_wait() {
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
    }

    #[test]
    fn a_wait_is_bounded() {
        for value in ["1e300", "inf", "99999999999999999999", "Thu, 31 Dec 9998 23:59:59 GMT"] {
            assert_eq!(asked(value), Some(RETRY_AFTER_MAX), "{value}");
        }
    }

    #[test]
    fn nonsense_asks_for_nothing() {
        for value in ["", "-1", "NaN", "soon", "12 seconds", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(asked(value), None, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), Timestamp::ZERO), None);
    }

    #[test]
    fn a_status_means_what_the_table_says() {
        let retryable = SendErrorKind::Retryable { retry_after: None };
        let limited = SendErrorKind::RateLimited { retry_after: None, scope: Scope::Channel };
        for (statuses, expected) in [
            (&[200, 201, 202, 204, 299][..], None),
            (&[300, 301, 302, 303, 304, 307, 308], Some(SendErrorKind::Rejected)),
            (&[400, 405, 409, 413, 415, 422, 451], Some(SendErrorKind::Rejected)),
            (&[401, 403], Some(SendErrorKind::Unauthorized)),
            (&[404, 410], Some(SendErrorKind::Permanent)),
            (&[408, 425, 500, 501, 502, 503, 504, 524, 599], Some(retryable)),
            (&[429], Some(limited)),
            (&[600, 999], Some(SendErrorKind::Rejected)),
        ] {
            for status in statuses {
                let status = StatusCode::from_u16(*status).unwrap();
                assert_eq!(classify(status, &HeaderMap::new(), Timestamp::ZERO), expected, "{status}");
            }
        }
    }

    #[test]
    fn a_server_error_leaves_doubt_unless_it_names_a_time() {
        let answer = |status: u16, wait: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(wait.map(|wait| (RETRY_AFTER, HeaderValue::from_static(wait))));
            let status = StatusCode::from_u16(status).unwrap();
            Response { status, headers, body: Bytes::new(), complete: true }.classify_in_doubt(Timestamp::ZERO)
        };
        let wait = Some(Duration::from_secs(7));
        assert_eq!(answer(503, Some("7")), Some(SendErrorKind::Retryable { retry_after: wait }));
        for (status, wait) in [(503, None), (500, None), (500, Some("7")), (502, None), (599, None)] {
            assert_eq!(answer(status, wait), Some(SendErrorKind::Unknown), "{status} {wait:?}");
        }
        assert_eq!(answer(408, None), Some(SendErrorKind::Retryable { retry_after: None }));
        assert_eq!(answer(400, None), Some(SendErrorKind::Rejected));
        assert_eq!(answer(202, None), None);
    }

    #[test]
    fn words_are_one_short_line_without_secrets() {
        assert_eq!(words(br#"{"code":1,"message":"no\n such\u0007 room"}"#, &[]).unwrap(), "no such room");
        assert_eq!(words(b"plain  text\r\n", &[]).unwrap(), "plain text");
        assert_eq!(words(b"Cannot POST /hook/s3cret", &["s3cret"]).unwrap(), "Cannot POST /hook/***");
        assert_eq!(words(b"<!doctype html><title>502</title>", &[]), None);
        assert_eq!(words(b"", &[]), None);
        assert_eq!(words(br#"{"ok":false}"#, &[]), None);
        assert_eq!(words("ä".repeat(5_000).as_bytes(), &[]).unwrap().chars().count(), WORDS_MAX + 1);
        assert!(words(&[0xff, 0xfe, b'x'], &[]).is_some());
    }
}
