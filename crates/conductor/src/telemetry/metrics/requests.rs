//! The requests that were answered, by method, route and status.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::family::{Family, Text};

/// The most routes that are told apart; the API has some twenty.
const ROUTES_MAX: usize = 100;
/// Stands for what is not told apart.
const OTHER: &str = "other";
const METHODS: [&str; 8] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", OTHER];
/// The statuses that are told apart, in ascending order.
const STATUSES: [&str; 21] = [
    "200", "202", "204", "207", "304", "400", "401", "403", "404", "405", "406", "408", "409", "413", "415", "422",
    "429", "431", "500", "502", "503",
];

/// For each method, the counts of each status, and last of any other.
type Counts = [[AtomicU64; STATUSES.len() + 1]; METHODS.len()];

/// Counts requests. One of a route that was seen before takes no lock.
#[derive(Debug, Default)]
pub(super) struct Requests {
    routes: ArcSwap<HashMap<Arc<str>, Arc<Counts>>>,
}

impl Requests {
    pub(super) fn count(&self, method: &str, route: &str, status: &str) {
        let known = self.routes.load();
        let counts = match known.get(route).or_else(|| known.get(OTHER).filter(|_| known.len() >= ROUTES_MAX)) {
            Some(counts) => Arc::clone(counts),
            None => self.add(if known.len() + 1 >= ROUTES_MAX { OTHER } else { route }),
        };
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let status = STATUSES.binary_search(&status).unwrap_or(STATUSES.len());
        counts[method][status].fetch_add(1, Ordering::Relaxed);
    }

    fn add(&self, route: &str) -> Arc<Counts> {
        let (route, counts): (Arc<str>, Arc<Counts>) = (route.into(), Arc::default());
        self.routes.rcu(|known| {
            let mut routes = HashMap::clone(known);
            routes.entry(Arc::clone(&route)).or_insert_with(|| Arc::clone(&counts));
            routes
        });
        self.routes.load().get(&route).cloned().unwrap_or(counts)
    }

    pub(super) fn family(&self) -> Family {
        let mut family = Family::counter("conductor_http_requests_total", "Requests answered, by route and status.");
        let known = self.routes.load();
        let mut routes: Vec<_> = known.iter().collect();
        routes.sort_unstable_by_key(|(route, _)| Arc::clone(route));
        for (route, counts) in routes {
            for (method, counts) in METHODS.iter().zip(counts.iter()) {
                for (status, count) in STATUSES.iter().chain([&OTHER]).zip(counts) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let route = Text::Shared(Arc::clone(route));
                        let labels = [("method", Text::Word(method)), ("route", route), ("status", Text::Word(status))];
                        family.add(labels, count);
                    }
                }
            }
        }
        family
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::family;

    #[test]
    fn nothing_that_a_caller_makes_up_becomes_a_series() {
        let requests = Requests::default();
        for number in 0..10_000 {
            requests.count(&format!("M{number}"), &format!("/{number}"), &number.to_string());
        }
        let text = family::text(&[requests.family()]);
        assert!(text.lines().count() <= 2 * ROUTES_MAX + 2, "{}", text.lines().count());
        let sum: u64 = text.lines().filter_map(|line| line.rsplit_once("} ")?.1.parse::<u64>().ok()).sum();
        assert_eq!(sum, 10_000);
    }

    #[test]
    fn the_statuses_can_be_searched() {
        assert!(STATUSES.is_sorted());
    }
}
