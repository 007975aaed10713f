//! How fast Discord lets one bot, or one webhook, send: learned from its answers, so that a limit is seldom hit.
//!
//! Create Message has one bucket for each Discord channel, so a bucket is known by the place that it is for, and the
//! opaque name that Discord gives it is not needed.
//!
//! <https://discord.com/developers/docs/topics/rate-limits>

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use conductor_core::{Scope, SendError, SendErrorKind};
use http::HeaderMap;
use tokio::time::Instant;

use crate::http::wait;

/// What all requests of one bot share, in a second.
pub(super) const REQUESTS_MAX: usize = 50;
const SECOND: Duration = Duration::from_secs(1);
/// The most places whose limits are remembered.
const PLACES_MAX: usize = 10_000;
/// Two answers that name the end of one window differ by less than this.
const SLACK: Duration = Duration::from_millis(500);

/// What is known of the limits of one bot or one webhook.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the last requests went out, the oldest first.
    recent: VecDeque<Instant>,
    /// Nothing goes out before this.
    paused_until: Option<Instant>,
    places: HashMap<u64, Place>,
}

/// The limits of one place.
#[derive(Debug, Default)]
struct Place {
    /// Nothing goes there before this: a 429 said so.
    paused_until: Option<Instant>,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    limit: u32,
    left: u32,
    ends: Instant,
}

impl Budget {
    /// Takes room for one request to `place`; else the error that says how long there is none. Nothing was sent then.
    pub(super) fn take(&self, place: u64, now: Instant) -> Result<(), SendError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { recent, paused_until, places } = &mut *state;
        if let Some(wait) = left_of(paused_until, now) {
            return Err(too_fast(wait, Scope::Channel));
        }
        while recent.front().is_some_and(|sent| now.duration_since(*sent) >= SECOND) {
            recent.pop_front();
        }
        if let Some(oldest) = recent.front().filter(|_| recent.len() >= REQUESTS_MAX) {
            return Err(too_fast(SECOND.saturating_sub(now.duration_since(*oldest)), Scope::Channel));
        }
        if let Some(place) = places.get_mut(&place) {
            if let Some(wait) = left_of(&mut place.paused_until, now) {
                return Err(too_fast(wait, Scope::Lane));
            }
            match &mut place.window {
                Some(window) if window.ends <= now => place.window = None,
                Some(window) if window.left == 0 => {
                    return Err(too_fast(window.ends.duration_since(now), Scope::Lane));
                }
                Some(window) => window.left -= 1,
                None => {}
            }
        }
        recent.push_back(now);
        Ok(())
    }

    /// Learns from an answer's headers. A request under way counts as sent, whether or not Discord had counted it when
    /// it answered another.
    pub(super) fn learn(&self, place: u64, headers: &HeaderMap, now: Instant) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
        let count = |name: &str| number(name).filter(|count| (0.0..=1e6).contains(count)).map(|count| count as u32);
        let (limit, left) = (count("x-ratelimit-limit"), count("x-ratelimit-remaining"));
        let (Some(limit), Some(left)) = (limit, left) else { return };
        let Some(ends) = number("x-ratelimit-reset-after").and_then(wait).map(|after| now + after) else { return };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = &mut state.place(place, now).window;
        match window {
            Some(known) if known.limit == limit && ends < known.ends + SLACK => known.left = known.left.min(left),
            _ => *window = Some(Window { limit, left, ends }),
        }
    }

    /// Keeps what a 429 said, so that the others who share this budget need not be told as well.
    pub(super) fn limited(&self, place: u64, kind: SendErrorKind, now: Instant) {
        let SendErrorKind::RateLimited { retry_after: Some(wait), scope } = kind else { return };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let paused_until = match scope {
            Scope::Channel => &mut state.paused_until,
            Scope::Lane => &mut state.place(place, now).paused_until,
        };
        *paused_until = (*paused_until).max(Some(now + wait));
    }
}

impl State {
    fn place(&mut self, place: u64, now: Instant) -> &mut Place {
        if self.places.len() >= PLACES_MAX && !self.places.contains_key(&place) {
            let is_on = |until: Option<Instant>| until.is_some_and(|until| until > now);
            self.places
                .retain(|_, known| is_on(known.paused_until) || is_on(known.window.as_ref().map(|window| window.ends)));
            if self.places.len() >= PLACES_MAX {
                self.places.clear();
            }
        }
        self.places.entry(place).or_default()
    }
}

/// How much of a pause is left; one that is over is forgotten.
fn left_of(paused_until: &mut Option<Instant>, now: Instant) -> Option<Duration> {
    let wait = paused_until.map(|until| until.saturating_duration_since(now)).filter(|wait| !wait.is_zero());
    if wait.is_none() {
        *paused_until = None;
    }
    wait
}

fn too_fast(wait: Duration, scope: Scope) -> SendError {
    let whose = match scope {
        Scope::Channel => "this bot or webhook",
        Scope::Lane => "this place",
    };
    // Up to the next millisecond, so that the wait is never too short.
    let wait = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1));
    let message = format!("not asked: Discord's limit for {whose} is used up for another {wait:?}");
    SendError::new(SendErrorKind::RateLimited { retry_after: Some(wait), scope }, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn headers(limit: &str, left: &str, after: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("limit", limit), ("remaining", left), ("reset-after", after), ("bucket", "abcd1234")] {
            let name = http::HeaderName::try_from(format!("x-ratelimit-{name}")).unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    fn wait_of(result: Result<(), SendError>) -> (Duration, Scope) {
        match result.expect_err("no room").kind {
            SendErrorKind::RateLimited { retry_after: Some(wait), scope } => (wait, scope),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_window_that_is_used_up_holds_its_place_alone_until_it_ends() {
        let (budget, start) = (Budget::default(), Instant::now());
        budget.take(1, start).unwrap();
        budget.learn(1, &headers("5", "2", "1.5"), start);
        budget.take(1, start).unwrap();
        budget.take(1, start).unwrap();
        assert_eq!(wait_of(budget.take(1, start + 500 * MS)), (1001 * MS, Scope::Lane));
        budget.take(2, start + 500 * MS).unwrap();
        budget.take(1, start + 1500 * MS).unwrap();
    }

    #[test]
    fn an_answer_that_was_overtaken_gives_no_room_back() {
        let (budget, start) = (Budget::default(), Instant::now());
        budget.learn(1, &headers("5", "1", "2"), start);
        budget.learn(1, &headers("5", "3", "2"), start + 10 * MS);
        budget.take(1, start + 20 * MS).unwrap();
        assert_eq!(wait_of(budget.take(1, start + 20 * MS)).1, Scope::Lane);
        budget.learn(1, &headers("5", "4", "2"), start + 2000 * MS);
        budget.take(1, start + 2010 * MS).unwrap();
    }

    #[test]
    fn fifty_a_second_are_the_most_wherever_they_go() {
        let (budget, start) = (Budget::default(), Instant::now());
        for place in 0..REQUESTS_MAX {
            budget.take(place as u64, start + 2 * MS * u32::try_from(place).unwrap()).unwrap();
        }
        assert_eq!(wait_of(budget.take(99, start + 400 * MS)), (601 * MS, Scope::Channel));
        budget.take(99, start + 1000 * MS).unwrap();
        assert_eq!(wait_of(budget.take(99, start + 1000 * MS)).1, Scope::Channel);
    }

    #[test]
    fn a_429_holds_back_what_it_named_and_the_longest_one_counts() {
        let (budget, start) = (Budget::default(), Instant::now());
        let told =
            |seconds, scope| SendErrorKind::RateLimited { retry_after: Some(Duration::from_secs(seconds)), scope };
        budget.limited(1, told(3, Scope::Lane), start);
        budget.limited(1, told(1, Scope::Lane), start);
        assert_eq!(wait_of(budget.take(1, start)), (3001 * MS, Scope::Lane));
        budget.take(2, start).unwrap();
        budget.limited(1, told(2, Scope::Channel), start);
        assert_eq!(wait_of(budget.take(2, start)), (2001 * MS, Scope::Channel));
        budget.take(2, start + 2000 * MS).unwrap();
        assert_eq!(wait_of(budget.take(1, start + 2000 * MS)), (1001 * MS, Scope::Lane));
    }

    #[test]
    fn headers_that_make_no_sense_are_not_learned_from() {
        let (budget, start) = (Budget::default(), Instant::now());
        for bad in [("x", "0", "9"), ("5", "-1", "9"), ("5", "0", "NaN"), ("5", "0", "-1")] {
            budget.learn(1, &headers(bad.0, bad.1, bad.2), start);
            budget.take(1, start).unwrap();
        }
    }

    #[test]
    fn the_places_that_are_remembered_are_bounded() {
        let (budget, start) = (Budget::default(), Instant::now());
        for place in 0..2 * PLACES_MAX as u64 {
            budget.learn(place, &headers("5", "0", "9"), start);
        }
        assert!(budget.0.lock().unwrap().places.len() <= PLACES_MAX);
    }
}
