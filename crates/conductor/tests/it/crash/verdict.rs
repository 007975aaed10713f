//! What is held against what the clients were told and what the provider was sent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::{Cancel, Role, SECOND, Said};
use super::sink::{Arrival, REFUSING};

/// When something that was asked for so long after an answer of the provider's has been accepted, then what that answer
/// came to has been written: the store writes in the order in which it is asked. The time is for a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_millis(250);
/// What `Retry-After` asks for, less what the clock's whole milliseconds take away.
const PATIENCE: Duration = Duration::from_millis(998);

/// All that is known at the end.
pub(super) struct Verdict<'a> {
    said: &'a [Said],
    arrivals: &'a [Arrival],
    by_id: HashMap<&'a str, Vec<&'a Arrival>>,
}

/// How many were sent more than once because of a kill.
#[derive(Debug, Default)]
pub(super) struct Doubles {
    pub(super) all: usize,
    /// The most of one kill, and what was in flight at that kill.
    pub(super) most: usize,
    pub(super) in_flight: usize,
}

impl<'a> Verdict<'a> {
    pub(super) fn new(said: &'a [Said], arrivals: &'a [Arrival]) -> Self {
        let mut by_id: HashMap<&str, Vec<&Arrival>> = HashMap::new();
        for arrival in arrivals {
            by_id.entry(&arrival.id).or_default().push(arrival);
        }
        Self { said, arrivals, by_id }
    }

    fn of(&self, id: &str) -> &[&'a Arrival] {
        self.by_id.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    fn is_taken(&self, id: &str) -> bool {
        self.of(id).iter().any(|arrival| arrival.is_taken())
    }

    /// Those that the provider has not taken: what the store says of them has to explain it.
    pub(super) fn not_taken(&self) -> Vec<&'a Said> {
        self.said.iter().filter(|said| !self.is_taken(&said.id)).collect()
    }

    /// Those that it has taken.
    pub(super) fn taken(&self) -> Vec<&'a Said> {
        self.said.iter().filter(|said| self.is_taken(&said.id)).collect()
    }

    /// Nothing came too early, nor after it had been taken back or said to have been sent.
    pub(super) fn expect_in_time(&self) {
        let after = |arrival: &Arrival, said: &Said, at: Instant| {
            arrival.life > said.life || arrival.life == said.life && arrival.at >= at
        };
        for said in self.said {
            for arrival in self.of(&said.id) {
                assert!(arrival.life >= said.life, "{} came before it was accepted", said.id);
                let early = said.not_before.is_some_and(|at| arrival.at < at);
                assert!(!early, "{} was sent before its time", said.id);
                if let Cancel::Granted(at) = said.cancel {
                    assert!(!after(arrival, said, at), "{} was sent after it had been taken back", said.id);
                }
                if let Some(at) = said.told_sent {
                    assert!(!after(arrival, said, at), "{} was sent after it was said to have been", said.id);
                }
            }
        }
        self.expect_patience();
    }

    fn expect_patience(&self) {
        for arrivals in self.by_id.values() {
            for pair in arrivals.windows(2) {
                let [first, second] = pair else { unreachable!("windows of two") };
                if first.status == 429 && first.life == second.life {
                    let waited = second.at - first.at;
                    assert!(waited >= PATIENCE, "{} came again after {waited:?}", first.id);
                }
            }
        }
    }

    /// In a lane whose order matters, nothing came before all that were accepted before it had been taken.
    pub(super) fn expect_order(&self) {
        let mut lanes: HashMap<usize, Vec<&Said>> = HashMap::new();
        for said in self.said.iter().filter(|said| said.role == Role::InOrder) {
            lanes.entry(said.client).or_default().push(said);
        }
        assert!(lanes.len() > 2 && lanes.values().all(|lane| lane.len() > 10), "too little was sent in order");
        for (client, lane) in lanes {
            let target = client.to_string();
            let mut waiting = lane.iter().filter(|said| said.cancel == Cancel::No).peekable();
            let mut taken: HashMap<&str, bool> = lane.iter().map(|said| (&*said.id, false)).collect();
            let places: HashMap<&str, usize> = lane.iter().enumerate().map(|(at, said)| (&*said.id, at)).collect();
            for arrival in self.arrivals.iter().filter(|arrival| arrival.target == target) {
                // What was accepted, but not said to be, has a place that nobody knows.
                let Some(place) = places.get(&*arrival.id) else { continue };
                while waiting.next_if(|said| taken[&*said.id]).is_some() {}
                if let Some(first) = waiting.peek() {
                    let overtaken = places[&*first.id] < *place;
                    assert!(!overtaken, "{arrival:?} came before {first:?} had been taken");
                }
                if arrival.is_taken() {
                    taken.insert(&arrival.id, true);
                }
            }
        }
    }

    /// Whoever was refused for good went the second way, and only then.
    pub(super) fn expect_fallbacks(&self) {
        let falling: Vec<&Said> = self.said.iter().filter(|said| said.falls_back).collect();
        assert!(falling.len() > 10, "too few had a second way");
        for said in falling {
            let arrivals = self.of(&said.id);
            let first = arrivals.iter().position(|arrival| arrival.path == REFUSING).expect("the first way was tried");
            let second =
                arrivals.iter().position(|arrival| arrival.target == SECOND).expect("the second way was tried");
            assert!(first < second, "{} went the second way first", said.id);
        }
    }

    /// One that was superseded did not come any more after its successor had been accepted.
    pub(super) fn expect_last_word(&self, superseded: &[&Said]) {
        for old in superseded {
            let later = self.said.iter().filter(|said| said.key == old.key && said.key.is_some());
            let Some(next) = later.filter(|said| said.accepted > old.accepted).min_by_key(|said| said.accepted) else {
                continue;
            };
            let late = |arrival: &&&Arrival| {
                arrival.life > next.life || arrival.life == next.life && arrival.at >= next.accepted
            };
            let late = self.of(&old.id).iter().find(late);
            assert!(late.is_none(), "{late:?} came after {next:?} had taken its place");
        }
    }

    /// Only what was in flight at a kill was sent again, under the same id.
    pub(super) fn doubles(&self, kills: usize) -> Doubles {
        // What was asked for last, and accepted: all that was written before stands.
        let mut proven: Vec<Option<Instant>> = vec![None; kills + 1];
        for said in self.said {
            let latest = &mut proven[said.life];
            *latest = (*latest).max(Some(said.asked));
        }
        let in_flight = |arrival: &Arrival| match (arrival.answered, proven[arrival.life]) {
            (Some(answered), Some(proven)) => proven < answered + SETTLED_WITHIN,
            _ => true,
        };
        let mut flying = vec![0; kills + 1];
        for arrival in self.arrivals.iter().filter(|arrival| arrival.is_taken() && in_flight(arrival)) {
            flying[arrival.life] += 1;
        }
        let mut doubled = vec![0; kills + 1];
        for arrivals in self.by_id.values() {
            let mut taken: HashMap<&str, &Arrival> = HashMap::new();
            let mut names: HashMap<(&str, &str), &str> = HashMap::new();
            for arrival in arrivals {
                let name = *names.entry((&arrival.path, &arrival.target)).or_insert(&arrival.delivery);
                assert_eq!(name, arrival.delivery, "a double with another id");
                if let Some(earlier) = taken.get(&*arrival.delivery) {
                    assert!(earlier.life < arrival.life, "{arrival:?} was sent again without a kill");
                    assert!(in_flight(earlier), "{earlier:?} had been settled, and was sent again: {arrival:?}");
                    doubled[earlier.life] += 1;
                }
                if arrival.is_taken() {
                    taken.insert(&arrival.delivery, arrival);
                }
            }
        }
        let most = (0..kills).max_by_key(|life| doubled[*life]).unwrap_or(0);
        for (life, doubled) in doubled.iter().enumerate() {
            assert!(*doubled <= flying[life], "kill {life}: {doubled} doubles of {} in flight", flying[life]);
        }
        Doubles { all: doubled.iter().sum(), most: doubled[most], in_flight: flying[most] }
    }
}

/// What the store says of one that the provider has not taken: it has to be a reason.
pub(super) fn expect_reason(said: &Said, story: &Value) {
    let status = story["status"].as_str().unwrap_or_default();
    let is_explained = match said.role {
        _ if said.cancel != Cancel::No => status == "canceled",
        Role::Keyed => status == "superseded",
        Role::Falling if !said.falls_back => status == "failed",
        _ => false,
    };
    assert!(is_explained, "lost: {said:?}\n{story:#}");
}
