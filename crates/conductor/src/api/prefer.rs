//! The header `Prefer` (RFC 7240), of which `wait` is understood.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header::HeaderName};

/// The header's name.
pub(crate) const HEADER: &str = "prefer";
/// The name of the header that says which preference was kept.
pub(crate) const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The longest wait; a longer one is taken as this.
pub(crate) const WAIT_MAX_SECONDS: u64 = 30;

/// How long the caller wishes to wait for the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait(u64);

impl Wait {
    /// Reads `wait=N` in seconds. Other preferences, and a `wait` that is no number, are passed over, as the RFC asks.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(HEADER).iter().filter_map(|line| line.to_str().ok());
        let seconds = lines.flat_map(split_list).find_map(wait)?;
        Some(Self(seconds.min(WAIT_MAX_SECONDS)))
    }

    /// The time to wait.
    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// What `Preference-Applied` says.
    pub(crate) fn applied(self) -> HeaderValue {
        HeaderValue::from_str(&format!("wait={}", self.0)).expect("a number is visible ASCII")
    }
}

/// Splits at the commas that stand outside quotes.
fn split_list(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |letter| {
        match letter {
            _ if std::mem::take(&mut escaped) => {}
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
}

fn wait(preference: &str) -> Option<u64> {
    let first = preference.split(';').next()?;
    let (name, value) = first.split_once('=')?;
    let value = value.trim();
    let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // A number too large for the type is only a very long wait.
    (name.trim().eq_ignore_ascii_case("wait") && digits).then(|| value.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<u64> {
        let entry = |line: &&str| (HEADER.parse().unwrap(), HeaderValue::from_str(line).unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(entry) {
            let name: HeaderName = name;
            headers.append(name, value);
        }
        Wait::of(&headers).map(|wait| wait.0)
    }

    #[test]
    fn wait_is_found_among_other_preferences() {
        for (lines, wait) in [
            (&["wait=10"][..], Some(10)),
            (&["respond-async, Wait = 5; note=\"x\""], Some(5)),
            (&["foo=\"a,wait=1\\\",\", wait=\"7\""], Some(7)),
            (&["handling=lenient", "wait=3"], Some(3)),
            (&["wait=4, wait=9"], Some(4)),
            (&["wait=99999999999999999999999"], Some(30)),
            (&["wait=0"], Some(0)),
            (&["wait=-1"], None),
            (&["wait=soon, return=minimal"], None),
            (&["wait"], None),
            (&[], None),
        ] {
            assert_eq!(read(lines), wait, "{lines:?}");
        }
    }
}
