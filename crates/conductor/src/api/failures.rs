//! How many authentications from one address may fail: so many that a mistake is told plainly, and no more than a log or
//! an audit can bear.
//!
//! Only what fails is counted and refused. A right key is let in from every address at every time, so that nobody
//! locks out those who share his address. A key drawn at random is not found by trying, however often.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::registry::limit::step;

/// So many may fail at once, and one more in each [`INTERVAL`].
pub(crate) const BURST: u64 = 30;
/// The time until one more may fail.
const INTERVAL: Duration = Duration::from_secs(2);
/// The time in which [`BURST`] become free.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// So many counters there are, however many addresses. Those that meet in one share it.
const COUNTERS: usize = 16_384;
/// That refusals have been told of, in a counter beside its time.
const TOLD: u64 = 1 << 63;

/// Counts failed authentications by address, in memory that never grows.
pub(crate) struct Failures {
    /// When each is free again, in milliseconds since `began`.
    counters: Box<[AtomicU64]>,
    /// Drawn at random for each process, so that nobody chooses whose counter he shares.
    hasher: RandomState,
    began: Instant,
}

/// What becomes of a failed authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is answered as what it is.
    Plain,
    /// There were too many from this address; this time from now on there are not.
    Excess {
        /// The time.
        wait: Duration,
        /// Whether none before was, since the address was free of all its failures.
        is_first: bool,
    },
}

impl Failures {
    pub(crate) fn new() -> Self {
        let counters = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        Self { counters, hasher: RandomState::new(), began: Instant::now() }
    }

    /// Counts a failure. Costs the same whoever fails and however many have.
    pub(crate) fn count(&self, address: IpAddr) -> Failure {
        self.count_at(address, self.began.elapsed())
    }

    fn count_at(&self, address: IpAddr, elapsed: Duration) -> Failure {
        let counter = &self.counters[self.place(address)];
        let (now, interval) = (millis(elapsed), millis(INTERVAL));
        let change = |found: u64| match step(found & !TOLD, now, interval, BURST) {
            // Whoever goes on and on is told of once, not each time that one of his failures is answered plainly.
            Ok(free_at) => free_at & !TOLD | if found & !TOLD > now { found & TOLD } else { 0 },
            Err(_) => found | TOLD,
        };
        let before = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |found| Some(change(found)));
        let before = before.unwrap_or_else(|found| found);
        match step(before & !TOLD, now, interval, BURST) {
            Ok(_) => Failure::Plain,
            Err(wait) => Failure::Excess { wait: Duration::from_millis(wait), is_first: before & TOLD == 0 },
        }
    }

    /// Where an address is counted. Who has one of IPv6 has a whole network of them.
    fn place(&self, address: IpAddr) -> usize {
        let address = match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address => address,
        };
        usize::try_from(self.hasher.hash_one(address) % COUNTERS as u64).unwrap_or_default()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_told_plainly_so_often_and_then_refused_until_time_has_passed() {
        let failures = Failures::new();
        let at = |seconds: u64| failures.count_at(ip("192.0.2.1"), Duration::from_secs(seconds));
        assert!((0..BURST).all(|_| at(0) == Failure::Plain));
        let excess = |seconds, is_first| Failure::Excess { wait: Duration::from_secs(seconds), is_first };
        assert_eq!([at(0), at(0), at(1)], [excess(2, true), excess(2, false), excess(1, false)]);
        assert_eq!([at(2), at(2)], [Failure::Plain, excess(2, false)]);
        assert!((0..BURST).all(|_| at(1_000) == Failure::Plain));
        assert_eq!(at(1_000), excess(2, true));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let failures = Failures::new();
        assert_eq!(failures.place(ip("2001:db8:1:2::1")), failures.place(ip("2001:db8:1:2:ffff::")));
        assert_eq!(failures.place(ip("::ffff:192.0.2.1")), failures.place(ip("192.0.2.1")));
        let others = (0..100u16).map(|part| IpAddr::from([0x2001, 0xdb8, 1, part, 0, 0, 0, 1]));
        let places: std::collections::BTreeSet<_> = others.map(|address| failures.place(address)).collect();
        assert!(places.len() > 90, "{places:?}");
    }

    #[test]
    fn a_million_addresses_take_no_more_memory_than_one() {
        let failures = Failures::new();
        for number in 0..1_000_000u32 {
            failures.count_at(IpAddr::from(number.to_be_bytes()), Duration::from_secs(u64::from(number) / 1_000));
        }
        assert_eq!(failures.counters.len(), COUNTERS);
    }
}
