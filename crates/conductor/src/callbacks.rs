//! Sends the callbacks that the store has kept, on their own schedule and beside the notifications: nothing here waits
//! for a delivery, and no delivery waits for anything here.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::app::App;

mod attempt;
mod channels;
mod housekeeping;
mod place;
mod post;

/// The most callbacks of the whole server under way at once.
const SLOTS_MAX: usize = 128;
/// They take this part of the descriptors that are left for attempts.
const DESCRIPTORS_PART: usize = 8;

/// How many callbacks may be under way at once, of so many descriptors that are left for attempts of all kinds.
pub fn slots(descriptors: usize) -> usize {
    (descriptors / DESCRIPTORS_PART).clamp(2, SLOTS_MAX)
}

/// Works until `stop`, and until what is under way then has ended. At most `slots` callbacks are under way at once.
pub async fn run(app: Arc<App>, slots: usize, stop: CancellationToken) {
    tokio::join!(post::run(&app, slots, &stop), channels::run(&app, &stop), housekeeping::run(&app, &stop));
}
