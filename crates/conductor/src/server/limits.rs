//! How much of the server its clients may take, and for how long.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// The most connections at once, where the system gives enough descriptors.
const CONNECTIONS_MAX: usize = 20_000;
/// So many descriptors are left to everything that is no client, the store and the providers, or a quarter if that is
/// more, or half if there are few.
const RESERVED: u64 = 1_024;
/// Of these, so many are for the store, the log and the listeners, and so many for those who read the metrics.
const OWN: u64 = 64;
const METRICS_MAX: usize = 64;

/// What clients may take of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most connections at once; further ones wait in the system's queue.
    pub connections: usize,
    /// How long a client may take for a request's head.
    pub head: Duration,
    /// How long a connection may stay on which no request is under way and nothing is written: one that has sent
    /// nothing yet, one that is kept for later, one whose client does not read.
    pub idle: Duration,
    /// The same while all connections are taken and others wait.
    pub idle_in_a_crowd: Duration,
    /// How long a stop lets the requests end that have begun.
    pub last_requests: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            head: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            idle_in_a_crowd: Duration::from_secs(2),
            last_requests: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// The limits of a process that may have as many descriptors open as the system lets it. Raises the process's own
    /// limit to the highest that it may set.
    pub fn of_this_process() -> Self {
        Self::with_descriptors(raise_descriptors())
    }

    /// The same for the metrics' own listener, which few read.
    pub(crate) fn of_metrics(self) -> Self {
        Self { connections: self.connections.min(METRICS_MAX), ..self }
    }

    /// How many descriptors clients leave to the attempts under way, of those that this process may have open.
    pub(crate) fn left_for_attempts(&self) -> usize {
        self.left_of(getrlimit(Resource::Nofile).current)
    }

    fn left_of(&self, descriptors: Option<u64>) -> usize {
        let clients = u64::try_from(self.connections.saturating_add(METRICS_MAX)).unwrap_or(u64::MAX);
        let left = |all: u64| all.saturating_sub(clients).saturating_sub(OWN);
        descriptors.map_or(usize::MAX, |all| usize::try_from(left(all)).unwrap_or(usize::MAX))
    }

    /// With so many descriptors; none means without limit. A part of them stays free for the store and the providers,
    /// so that clients who take all connections stop no delivery.
    fn with_descriptors(descriptors: Option<u64>) -> Self {
        let free = |all: u64| all - (all / 4).max(RESERVED.min(all / 2));
        let connections = descriptors.map_or(CONNECTIONS_MAX, |all| usize::try_from(free(all)).unwrap_or(usize::MAX));
        Self { connections: connections.clamp(1, CONNECTIONS_MAX), ..Self::default() }
    }
}

/// Sets the limit of open descriptors as high as this process may. Returns it; none means without limit.
fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let highest = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it cannot be raised it stays what it is.
    let _ = setrlimit(Resource::Nofile, highest);
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_take_no_descriptors_that_clients_have_been_promised() {
        for all in [512, 1_024, 4_096, 20_000, 30_000, 1_000_000] {
            let limits = Limits::with_descriptors(Some(all));
            let left = limits.left_of(Some(all));
            assert!(left >= 64, "{left} of {all}");
            let together = limits.connections + limits.of_metrics().connections + left;
            assert_eq!(u64::try_from(together).unwrap() + OWN, all, "{all}");
        }
        assert_eq!(Limits::with_descriptors(None).left_of(None), usize::MAX);
        assert_eq!(Limits::with_descriptors(Some(64)).left_of(Some(64)), 0, "there are none to divide");
    }

    #[test]
    fn clients_never_take_all_descriptors() {
        let connections = |descriptors| Limits::with_descriptors(descriptors).connections;
        assert_eq!(connections(Some(0)), 1);
        assert_eq!(connections(Some(64)), 32);
        assert_eq!(connections(Some(1_024)), 512);
        assert_eq!(connections(Some(4_096)), 3_072);
        assert_eq!(connections(Some(20_000)), 15_000);
        assert_eq!(connections(Some(1_000_000)), CONNECTIONS_MAX);
        assert_eq!(connections(None), CONNECTIONS_MAX);
    }
}
