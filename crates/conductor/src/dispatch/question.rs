//! Asking a stopped channel whether it works again: rarely, in a task of its own, and for a limited time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use conductor_core::{Health, Timestamp};
use futures_util::FutureExt as _;

use super::{Dispatcher, Event, report};
use crate::registry::LiveChannel;

/// No answer is waited for longer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

impl Dispatcher {
    /// Asks the channel at this place. The answer comes as an event.
    pub(super) fn ask(&mut self, place: u32, now: Timestamp) {
        let id = self.schedule.channel_id(place);
        if !self.schedule.channel(place).gate.is_stopped() {
            return;
        }
        let found = self.registry.channel(id).map(Arc::clone);
        let Some((channel, in_use)) = found.and_then(|channel| channel.enter().map(|in_use| (channel, in_use))) else {
            return self.answered(place, &Health::Unknown, now);
        };
        self.schedule.channel(place).tasks += 1;
        let events = self.events.clone();
        let stop = self.app.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                health = health_of(&channel) => drop(events.send(Event::Answered { place, health })),
            }
            drop(in_use);
        });
    }

    /// A stopped channel was asked: it goes on if it works, else it is asked again later.
    pub(super) fn answered(&mut self, place: u32, health: &Health, now: Timestamp) {
        let id = self.schedule.channel_id(place);
        let gate = &mut self.schedule.channel(place).gate;
        if !gate.is_stopped() {
            return;
        }
        if *health == Health::Up {
            gate.go_on(now);
            self.schedule.go_on(place);
            return self.tell(place);
        }
        let after = gate.next_ask();
        self.schedule.ask_at(place, now.plus(after));
        if let Some(channel) = self.registry.channel(id) {
            report::still_stopped(channel, health, after);
        }
    }
}

/// What the plugin says, or nothing if it fails or takes too long.
async fn health_of(channel: &LiveChannel) -> Health {
    let asking = async { tokio::time::timeout(ANSWER_MAX, channel.channel.health_check()).await };
    match AssertUnwindSafe(asking).catch_unwind().await {
        Ok(Ok(health)) => health,
        Ok(Err(_)) | Err(_) => Health::Unknown,
    }
}
