//! Pauses that were asked for in an earlier life of the process.

use conductor_core::Scope;
use conductor_core::retry::RETRY_AFTER_MAX;

use super::*;

impl Schedule {
    /// Where a delivery that has come waits because its provider said so, its channel or its lane waits as long. An
    /// ordered lane does so anyway: it waits for its head.
    pub(crate) fn keep_pause(&mut self, place: u32, queued: &Queued, now: Timestamp) {
        // The clock may have been put back in between.
        let until = queued.due.min(now.plus(RETRY_AFTER_MAX));
        let channel = &mut self.channels[place as usize];
        match queued.limited {
            Some(Scope::Channel) if until > now => channel.gate.pause_until(until),
            Some(Scope::Lane) if until > now && !channel.ordered => {
                let lane = channel.lanes.entry(queued.lane).or_default();
                // One that is busy has an attempt under way, or waits already.
                if !std::mem::replace(&mut lane.busy, true) {
                    self.alarms.push(Reverse((until, Alarm::Lane(place, queued.lane))));
                }
            }
            _ => {}
        }
    }
}
