//! Finding out that a file of the configuration has changed, by whatever way: written, renamed, a link that was put
//! elsewhere, a folder that was mounted or exchanged.
//!
//! The system's word is only a reason to look. What counts is what the files hold: they are looked at twice a second
//! anyway.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::bell::Bell;
use crate::config::Readings;

/// Files are looked at so often where the system says nothing.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After the system has said something, so long is waited for more of it.
const HUSH: Duration = Duration::from_millis(100);
/// Files that have changed count when they have stayed the same for so long: an editor may be at it.
const SETTLE: Duration = Duration::from_millis(200);
/// But so many looks are enough.
const SETTLE_LOOKS_MAX: u32 = 20;

/// Watches the files of one configuration.
pub(super) struct Watch {
    readings: Readings,
    bell: Bell,
    /// The bell was hung up just now: what happened before that has to be looked for.
    is_new: bool,
}

impl Watch {
    /// Watches the files that were read.
    pub(super) fn new(readings: Readings) -> Self {
        Self { bell: Bell::of(&readings.folders()), readings, is_new: true }
    }

    /// From now on what was read then is compared. None: what was read before.
    pub(super) fn follow(&mut self, readings: Option<Readings>) {
        *self = Self::new(readings.unwrap_or_else(|| self.readings.clone()));
    }

    /// Returns when the files hold something else than they did, and have for a while.
    pub(super) async fn changed(&mut self) {
        loop {
            if !std::mem::take(&mut self.is_new) && timeout(LOOK_EVERY, self.bell.rung()).await.is_ok() {
                sleep(HUSH).await;
                self.bell = Bell::of(&self.readings.folders());
            }
            if self.have_settled_otherwise().await {
                return;
            }
        }
    }

    async fn have_settled_otherwise(&self) -> bool {
        let mut seen = look(&self.readings).await;
        for _ in 0..SETTLE_LOOKS_MAX {
            if seen == self.readings {
                return false;
            }
            sleep(SETTLE).await;
            let now = look(&self.readings).await;
            if now == seen {
                break;
            }
            seen = now;
        }
        seen != self.readings
    }
}

async fn look(readings: &Readings) -> Readings {
    let before = readings.clone();
    // Reading files can take its time. What panics there has changed nothing.
    tokio::task::spawn_blocking(move || before.again()).await.unwrap_or_else(|_panic| readings.clone())
}
