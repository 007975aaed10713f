//! What time it is elsewhere: nearly every answer says so, and a clock that is wrong makes providers refuse tokens and
//! signatures.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use conductor_core::Timestamp;
use http::header::DATE;
use http::{HeaderMap, HeaderValue};

use super::answer::http_date;

/// The time that was told last, as it was told, and when that was.
#[derive(Default)]
pub(super) struct Heard(Mutex<Option<(HeaderValue, Instant)>>);

impl Heard {
    /// Takes note of an answer's time. Answers are many and readers few, so nothing is read here, and nobody waits.
    pub(super) fn note(&self, headers: &HeaderMap) {
        if let Some(date) = headers.get(DATE)
            && let Ok(mut heard) = self.0.try_lock()
        {
            *heard = Some((date.clone(), Instant::now()));
        }
    }

    /// What time it is by that.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let (told, at) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(http_date(told.to_str().ok()?)?.plus(at.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_that_an_answer_tells_goes_on() {
        let heard = Heard::default();
        assert_eq!(heard.now(), None);
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("yesterday"));
        heard.note(&headers);
        assert_eq!(heard.now(), None, "that is no time");
        headers.insert(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        heard.note(&headers);
        let told = Timestamp::from_millis(784_111_777_000);
        let now = heard.now().expect("it was told");
        assert!(now >= told && now.since(told) < Duration::from_secs(60), "{now}");
        heard.note(&HeaderMap::new());
        assert!(heard.now().is_some_and(|later| later >= now), "an answer without a time changes nothing");
    }
}
