//! Connections that wait for the next message.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::smtp::Conversation;

/// The most connections that wait.
const IDLE_MAX: usize = 4;
/// How long one may wait. Servers close a silent connection after some minutes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many messages one carries: many servers end a connection after a hundred.
const MESSAGES_MAX: u32 = 50;

/// Some open connections of one channel.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Conversation>>);

impl Pool {
    /// The connection that was used last. Those that have waited too long are closed.
    pub(super) fn take(&self) -> Option<Conversation> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|conversation| conversation.used.elapsed() < IDLE_TIMEOUT);
        waiting.pop()
    }

    /// Takes one back that is between two messages.
    pub(super) fn put(&self, mut conversation: Conversation) {
        if conversation.carried >= MESSAGES_MAX {
            return;
        }
        conversation.used = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < IDLE_MAX {
            waiting.push(conversation);
        }
    }

    /// Takes them all.
    pub(super) fn drain(&self) -> Vec<Conversation> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
