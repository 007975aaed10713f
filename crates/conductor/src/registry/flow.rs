//! How a channel goes: written by the dispatcher, read by the API and the metrics.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use conductor_core::{Health, Timestamp};

/// The state of one channel that is worth showing.
#[derive(Debug, Default)]
pub struct Flow {
    queued: AtomicU64,
    oldest: AtomicI64,
    state: Mutex<State>,
}

/// What holds a channel up, if anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether the provider would probably take a message, as far as is known.
    pub health: Health,
    /// Since when it is so.
    pub since: Timestamp,
    /// Whether the circuit breaker lets attempts through.
    pub breaker: Breaker,
    /// Nothing is sent before this time, if it is set.
    pub paused_until: Option<Timestamp>,
}

/// A circuit breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Breaker {
    /// Attempts go through.
    #[default]
    Closed,
    /// None goes through.
    Open,
    /// One goes through, as a probe.
    HalfOpen,
}

impl Default for State {
    fn default() -> Self {
        Self { health: Health::Unknown, since: Timestamp::ZERO, breaker: Breaker::Closed, paused_until: None }
    }
}

impl Breaker {
    /// The word that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "halfOpen",
        }
    }
}

impl Flow {
    /// Deliveries that wait.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// When the oldest of them was accepted.
    pub fn oldest_queued_at(&self) -> Option<Timestamp> {
        let millis = self.oldest.load(Ordering::Relaxed);
        (millis > 0).then(|| Timestamp::from_millis(millis))
    }

    /// What holds it up.
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Tells how many wait, and since when.
    pub fn set_queue(&self, queued: u64, oldest: Option<Timestamp>) {
        self.queued.store(queued, Ordering::Relaxed);
        self.oldest.store(oldest.map_or(0, Timestamp::millis), Ordering::Relaxed);
    }

    /// Changes what holds it up.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}
