//! How a channel goes: written by the dispatcher, read by the API and the metrics.

use std::sync::Mutex;

use conductor_core::{Health, Timestamp};

/// The state of one channel that is worth showing.
#[derive(Debug, Default)]
pub struct Flow {
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
    /// What holds it up.
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Changes what holds it up.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}
