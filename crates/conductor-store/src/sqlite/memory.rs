//! What the process that owns the file knows beside it: leases, and what has not been handed over yet.
//!
//! None of it is needed after a restart. Every collection has a maximum; what does not fit is read from the file.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conductor_core::store::Queued;
use conductor_core::{ChannelId, DeliveryKey, Notification, NotificationId, TenantId};

/// The most waiting deliveries that are kept for hand-over; more are found by a scan.
const ARRIVALS_MAX: usize = 50_000;
/// The most notifications that are kept so that their first attempt need not read them back, and their bytes in all.
const FRESH_MAX: usize = 20_000;
const FRESH_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The state under its lock. Held for moments only, never across I/O.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<State>);

#[derive(Debug, Default)]
pub(crate) struct State {
    leased: HashSet<DeliveryKey>,
    ending: HashSet<DeliveryKey>,
    fresh: HashMap<DeliveryKey, Arc<Notification>>,
    fresh_bytes: usize,
    arrivals: VecDeque<Queued>,
    scan: Option<Scan>,
    /// How many rows of `pending` each channel has.
    waiting: HashMap<ChannelId, u64>,
    /// Accepted, but not in the table `feed` yet; oldest first.
    pub(crate) unfed: Vec<(TenantId, NotificationId)>,
}

/// A part of `pending` that has yet to be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Behind this one; none means from the beginning.
    pub(crate) after: Option<DeliveryKey>,
    /// Whether a process died with these, see [`Queued::suspect`].
    pub(crate) suspect: bool,
}

impl Memory {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Leases a delivery, unless an attempt is under way or it is being ended. Gives its notification where that is
    /// still in memory.
    pub(crate) fn lease(&mut self, key: DeliveryKey) -> Option<Option<Arc<Notification>>> {
        if self.ending.contains(&key) || !self.leased.insert(key) {
            return None;
        }
        Some(self.forget_fresh(key))
    }

    pub(crate) fn is_leased(&self, key: DeliveryKey) -> bool {
        self.leased.contains(&key)
    }

    pub(crate) fn unlease(&mut self, key: DeliveryKey) -> bool {
        self.leased.remove(&key)
    }

    /// From now until [`State::ended`] nobody can lease this delivery. False if somebody has.
    pub(crate) fn begin_ending(&mut self, key: DeliveryKey) -> bool {
        !self.leased.contains(&key) && {
            self.ending.insert(key);
            true
        }
    }

    /// The end of a delivery was written, or given up.
    pub(crate) fn ended(&mut self, key: DeliveryKey, written: bool) {
        self.ending.remove(&key);
        if written {
            self.forget_fresh(key);
        }
    }

    /// A channel has one more row in `pending`.
    pub(crate) fn count_in(&mut self, channel: ChannelId) {
        *self.waiting.entry(channel).or_default() += 1;
    }

    /// A channel has one row less in `pending`.
    pub(crate) fn count_out(&mut self, channel: ChannelId) {
        if let Some(count) = self.waiting.get_mut(&channel) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&channel);
            }
        }
    }

    pub(crate) fn waiting(&self, channel: ChannelId) -> u64 {
        self.waiting.get(&channel).copied().unwrap_or(0)
    }

    /// Nothing that was to be ended was.
    pub(crate) fn nothing_ended(&mut self) {
        self.ending.clear();
    }

    /// A delivery waits to be handed over, with its notification if that is worth keeping in memory.
    pub(crate) fn arrive(&mut self, queued: Queued, notification: Option<&Arc<Notification>>) {
        if self.arrivals.len() >= ARRIVALS_MAX {
            let just_before = previous(queued.key);
            let after = self.scan.map_or(just_before, |scan| scan.after.min(just_before));
            let suspect = self.scan.is_some_and(|scan| scan.suspect);
            self.scan = Some(Scan { after, suspect });
            return;
        }
        self.arrivals.push_back(queued);
        if let Some(notification) = notification {
            let bytes = notification.message.len();
            if self.fresh.len() < FRESH_MAX && self.fresh_bytes + bytes <= FRESH_MAX_BYTES {
                self.fresh_bytes += bytes;
                self.fresh.insert(queued.key, Arc::clone(notification));
            }
        }
    }

    pub(crate) fn take_arrivals(&mut self, limit: usize) -> Vec<Queued> {
        let count = self.arrivals.len().min(limit);
        self.arrivals.drain(..count).collect()
    }

    pub(crate) fn scan(&self) -> Option<Scan> {
        self.scan
    }

    /// Begins to hand over all of `pending`.
    pub(crate) fn begin_scan(&mut self, suspect: bool) {
        self.scan = Some(Scan { after: None, suspect });
    }

    /// The scan has come as far as `after`; none: to the end. Nothing changes if it was set back meanwhile.
    pub(crate) fn scanned(&mut self, from: Scan, after: Option<DeliveryKey>) {
        if self.scan == Some(from) {
            self.scan = after.map(|after| Scan { after: Some(after), ..from });
        }
    }

    pub(crate) fn has_arrivals(&self) -> bool {
        !self.arrivals.is_empty() || self.scan.is_some()
    }

    fn forget_fresh(&mut self, key: DeliveryKey) -> Option<Arc<Notification>> {
        let notification = self.fresh.remove(&key)?;
        self.fresh_bytes -= notification.message.len();
        Some(notification)
    }
}

/// The greatest key that is smaller than this one; none if there is none.
fn previous(key: DeliveryKey) -> Option<DeliveryKey> {
    if let Some(ordinal) = key.ordinal.checked_sub(1) {
        return Some(DeliveryKey { ordinal, ..key });
    }
    let smaller = key.notification.uuid().as_u128().checked_sub(1)?;
    Some(DeliveryKey { notification: NotificationId::from_bytes(smaller.to_be_bytes()), ordinal: u8::MAX })
}
