//! What the process that owns the file knows beside it: leases, and what has not been handed over yet.
//!
//! None of it is needed after a restart. Every collection has a maximum; what does not fit is read from the file.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conductor_core::store::Queued;
use conductor_core::{ChannelId, DeliveryKey, Notification, NotificationId, TenantId, Timestamp};
use serde_json::Value;

use super::callbacks::Marks;
use super::expiry::Expiry;
use super::weights::Weights;

/// The most waiting deliveries that are kept for hand-over; more are found by a scan.
const ARRIVALS_MAX: usize = 50_000;
/// The most deliveries that a scan may miss while it reads without having to go back for them.
const DURING_MAX: usize = 10_000;
/// The most notifications that are kept so that their first attempt need not read them back, and their bytes in all.
const FRESH_MAX: usize = 20_000;
const FRESH_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The state under its lock. Held for moments only, never across I/O.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
    /// See [`Marks`].
    pub(crate) callbacks: Marks,
}

#[derive(Debug)]
pub(crate) struct State {
    /// The deliveries under way; true where that is written down, because it may kill the process.
    leased: HashMap<DeliveryKey, bool>,
    ending: HashSet<DeliveryKey>,
    fresh: HashMap<DeliveryKey, Fresh>,
    /// The keys of `fresh`, oldest first, and of some that have left it.
    fresh_order: VecDeque<DeliveryKey>,
    fresh_bytes: usize,
    arrivals: VecDeque<Queued>,
    scan: Option<Scan>,
    /// A process died with those up to this one, see [`Queued::suspect`].
    suspect_through: Option<DeliveryKey>,
    /// What arrived since the last read of the scan began, unless that is more than [`DURING_MAX`].
    during: Vec<Queued>,
    /// What is due later, and was never tried, is not handed over yet.
    horizon: Timestamp,
    /// Each channel that has rows in `pending`.
    waiting: HashMap<ChannelId, Waiting>,
    /// The least that came since a look for the oldest began, which may not have seen it.
    came: Option<NotificationId>,
    /// Accepted, but not in the table `feed` yet; oldest first.
    pub(crate) unfed: Vec<(TenantId, NotificationId)>,
    /// What each tenant has waiting.
    pub(crate) weights: Weights,
    pub(crate) expiry: Expiry,
}

/// A notification that is kept for its first attempt, and about how many bytes it takes.
#[derive(Debug)]
struct Fresh {
    notification: Arc<Notification>,
    bytes: usize,
}

/// What a channel has in `pending`.
#[derive(Debug)]
struct Waiting {
    count: u64,
    /// None of its rows is of a smaller notification.
    not_before: NotificationId,
}

/// What became of the wish to lease a delivery.
#[derive(Debug)]
pub(crate) enum Hold {
    /// It is leased, and its notification is still in memory.
    Fresh(Arc<Notification>),
    /// It is leased, if it stands in the file.
    Unread,
    /// It is being ended, which may yet fail.
    Ending,
    /// An attempt is under way.
    Taken,
}

/// A part of `pending` that has yet to be handed over: all behind a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Behind this one; none means from the beginning.
    pub(crate) after: Option<DeliveryKey>,
    /// A process died with those up to this one, see [`Queued::suspect`].
    pub(crate) suspect_through: Option<DeliveryKey>,
    /// Only those that are due after this time and were never tried; none means all.
    pub(crate) due_after: Option<Timestamp>,
    /// Only those that are due by this time or were tried before.
    pub(crate) due_by: Timestamp,
    /// The first in order of those that arrived since the last read began: it may not have seen them.
    missed: Option<DeliveryKey>,
}

impl Scan {
    /// Whether it will come by a delivery, if that lies behind its place.
    fn takes(&self, queued: &Queued) -> bool {
        self.due_after.is_none_or(|after| !queued.tried && queued.due > after)
    }

    /// Whether it hands over what it comes by, if that is not held.
    pub(crate) fn wants(&self, due: Timestamp, is_tried: bool) -> bool {
        if is_tried {
            self.due_after.is_none()
        } else {
            due <= self.due_by && self.due_after.is_none_or(|after| due > after)
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            leased: HashMap::new(),
            ending: HashSet::new(),
            fresh: HashMap::new(),
            fresh_order: VecDeque::new(),
            fresh_bytes: 0,
            arrivals: VecDeque::new(),
            scan: None,
            suspect_through: None,
            during: Vec::new(),
            horizon: Timestamp::MAX,
            waiting: HashMap::new(),
            came: None,
            unfed: Vec::new(),
            weights: Weights::default(),
            expiry: Expiry::default(),
        }
    }
}

impl Memory {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Leases a delivery, unless an attempt is under way or it is being ended.
    pub(crate) fn lease(&mut self, key: DeliveryKey) -> Hold {
        if self.leased.contains_key(&key) {
            return Hold::Taken;
        }
        if self.ending.contains(&key) {
            return Hold::Ending;
        }
        self.leased.insert(key, false);
        self.forget_fresh(key).map_or(Hold::Unread, Hold::Fresh)
    }

    pub(crate) fn is_leased(&self, key: DeliveryKey) -> bool {
        self.leased.contains_key(&key)
    }

    /// This lease is written down too.
    pub(crate) fn mark(&mut self, key: DeliveryKey) {
        self.leased.entry(key).and_modify(|marked| *marked = true);
    }

    pub(crate) fn is_marked(&self, key: DeliveryKey) -> bool {
        self.leased.get(&key).copied().unwrap_or(false)
    }

    pub(crate) fn unlease(&mut self, key: DeliveryKey) {
        self.leased.remove(&key);
    }

    /// From now until [`State::ended`] nobody can lease this delivery. False if somebody has.
    pub(crate) fn begin_ending(&mut self, key: DeliveryKey) -> bool {
        !self.leased.contains_key(&key) && {
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
    pub(crate) fn count_in(&mut self, channel: ChannelId, notification: NotificationId) {
        let waiting = self.waiting.entry(channel).or_insert(Waiting { count: 0, not_before: notification });
        waiting.count += 1;
        waiting.not_before = waiting.not_before.min(notification);
        self.came = Some(self.came.map_or(notification, |came| came.min(notification)));
    }

    /// A look for the oldest row of these channels begins: those that have any, and before what there is none.
    pub(crate) fn seek_oldest(&mut self, channels: &[ChannelId]) -> Vec<(ChannelId, NotificationId)> {
        self.came = None;
        let place = |channel: &ChannelId| Some((*channel, self.waiting.get(channel)?.not_before));
        channels.iter().filter_map(place).collect()
    }

    /// That look has ended: before these there was nothing of each channel.
    pub(crate) fn found_oldest(&mut self, found: impl Iterator<Item = (ChannelId, NotificationId)>) {
        for (channel, not_before) in found {
            if let Some(waiting) = self.waiting.get_mut(&channel) {
                waiting.not_before = self.came.map_or(not_before, |came| came.min(not_before));
            }
        }
    }

    /// A channel has one row less in `pending`.
    pub(crate) fn count_out(&mut self, channel: ChannelId) {
        if let Some(waiting) = self.waiting.get_mut(&channel) {
            waiting.count -= 1;
            if waiting.count == 0 {
                self.waiting.remove(&channel);
            }
        }
    }

    pub(crate) fn waiting(&self, channel: ChannelId) -> u64 {
        self.waiting.get(&channel).map_or(0, |waiting| waiting.count)
    }

    /// Nothing that was to be ended was.
    pub(crate) fn nothing_ended(&mut self) {
        self.ending.clear();
    }

    /// A delivery waits to be handed over, with its notification if that is worth keeping in memory. While there is a
    /// scan, what lies behind its place is left to it, so that nothing overtakes what has waited longer.
    pub(crate) fn arrive(&mut self, queued: Queued, notification: Option<&Arc<Notification>>) {
        let key = queued.key;
        // A reader may have found it before it was known here. Whoever has leased it hands it over again, if it has to be.
        if self.leased.contains_key(&key) || (!queued.tried && queued.due > self.horizon) {
            return;
        }
        let is_full = self.arrivals.len() >= ARRIVALS_MAX;
        match &mut self.scan {
            Some(scan) if Some(key) > scan.after && scan.takes(&queued) => {
                scan.missed = Some(scan.missed.map_or(key, |missed| missed.min(key)));
                self.during.extend((self.during.len() <= DURING_MAX).then_some(queued));
            }
            Some(scan) if is_full => {
                scan.due_after = None;
                scan.missed = Some(scan.missed.map_or(key, |missed| missed.min(key)));
                scan.after = scan.after.min(previous(key));
            }
            None if is_full => {
                let due_by = self.horizon;
                let (suspect_through, due_after, missed) = (None, None, None);
                self.scan = Some(Scan { after: previous(key), suspect_through, due_after, due_by, missed });
            }
            _ => self.arrivals.push_back(queued),
        }
        if let Some(notification) = notification {
            self.keep_fresh(key, notification);
        }
    }

    /// A delivery that waited for its next attempt has been taken back. It is handed over once more, as due: where the
    /// order counts, others wait behind it, and the claim that comes to nothing lets them pass.
    pub(crate) fn take_back(&mut self, queued: Queued) {
        if queued.tried {
            self.arrive(Queued { due: Timestamp::ZERO, ..queued }, None);
        }
    }

    /// Keeps a notification for its first attempt. The oldest make room: they belong to whom nothing is sent now.
    fn keep_fresh(&mut self, key: DeliveryKey, notification: &Arc<Notification>) {
        let bytes = size(notification);
        let is_full = |state: &Self| state.fresh.len() >= FRESH_MAX || state.fresh_bytes + bytes > FRESH_MAX_BYTES;
        while (is_full(self) || self.fresh_order.len() >= 2 * FRESH_MAX)
            && let Some(oldest) = self.fresh_order.pop_front()
        {
            self.forget_fresh(oldest);
        }
        self.fresh_bytes += bytes;
        self.fresh_order.push_back(key);
        self.fresh.insert(key, Fresh { notification: Arc::clone(notification), bytes });
    }

    pub(crate) fn take_arrivals(&mut self, limit: usize) -> Vec<Queued> {
        let count = self.arrivals.len().min(limit);
        self.arrivals.drain(..count).collect()
    }

    /// Hands over all of `pending` by a scan; a process died with those up to `suspect_through`.
    pub(crate) fn begin_scan(&mut self, suspect_through: Option<DeliveryKey>) {
        let due_by = self.horizon;
        self.suspect_through = suspect_through;
        self.scan = Some(Scan { after: None, suspect_through, due_after: None, due_by, missed: None });
    }

    /// From now on only what is due by `until`, or was tried before, is handed over. What lies between an earlier such
    /// time and this one is found by a scan. False while another scan is under way: then nothing has changed.
    pub(crate) fn look_ahead(&mut self, until: Timestamp) -> bool {
        let before = std::mem::replace(&mut self.horizon, until);
        match &mut self.scan {
            Some(scan) if until <= before => scan.due_by = scan.due_by.min(until),
            Some(_) => {
                self.horizon = before;
                return false;
            }
            None if until > before => {
                let (after, suspect_through, missed) = (None, None, None);
                self.scan = Some(Scan { after, suspect_through, due_after: Some(before), due_by: until, missed });
            }
            None => {}
        }
        true
    }

    /// A read of what lies behind the place of the scan begins, if there is a scan.
    pub(crate) fn begin_read(&mut self) -> Option<Scan> {
        self.during.clear();
        let scan = self.scan.as_mut()?;
        scan.missed = None;
        Some(*scan)
    }

    /// The read that began as `from` saw everything up to `last`, or to the end. The scan goes back to what it missed.
    pub(crate) fn end_read(&mut self, from: Scan, last: Option<DeliveryKey>, at_end: bool) {
        let Some(scan) = self.scan.as_mut().filter(|scan| scan.after == from.after) else { return };
        match scan.missed {
            None if at_end => self.scan = None,
            // All that was there before is handed over, so what came since may follow: under load no scan would end.
            Some(_) if at_end && self.during.len() <= DURING_MAX => {
                self.scan = None;
                self.arrivals.extend(self.during.drain(..));
            }
            None => scan.after = last,
            Some(missed) => scan.after = last.or(from.after).min(previous(missed)),
        }
    }

    /// A process died with those up to this one.
    pub(crate) fn suspect_through(&self) -> Option<DeliveryKey> {
        self.suspect_through
    }

    pub(crate) fn has_arrivals(&self) -> bool {
        !self.arrivals.is_empty() || self.scan.is_some()
    }

    fn forget_fresh(&mut self, key: DeliveryKey) -> Option<Arc<Notification>> {
        let Fresh { notification, bytes } = self.fresh.remove(&key)?;
        self.fresh_bytes -= bytes;
        Some(notification)
    }
}

/// About how many bytes a notification takes in memory.
fn size(notification: &Notification) -> usize {
    let n = notification;
    let texts = [&n.target, &n.title, &n.key].into_iter().flatten();
    let metadata = n.metadata.iter().map(|(name, value)| name.len() + value.len() + 2 * size_of::<String>());
    let fallback = n.fallback.iter().map(|fallback| {
        size_of_val(fallback) + fallback.channel.len() + fallback.target_id.as_ref().map_or(0, String::len)
    });
    size_of::<Notification>()
        + n.channel.len()
        + n.message.len()
        + texts.map(String::len).chain(metadata).chain(fallback).sum::<usize>()
        + n.data.iter().map(|(name, value)| size_of_entry(name, value)).sum::<usize>()
}

fn size_of_entry(name: &String, value: &Value) -> usize {
    size_of_val(name) + name.len() + size_of_value(value)
}

fn size_of_value(value: &Value) -> usize {
    let within: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size_of_value).sum(),
        Value::Object(values) => values.iter().map(|(name, value)| size_of_entry(name, value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + within
}

/// The greatest key that is smaller than this one; none if there is none.
fn previous(key: DeliveryKey) -> Option<DeliveryKey> {
    if let Some(ordinal) = key.ordinal.checked_sub(1) {
        return Some(DeliveryKey { ordinal, ..key });
    }
    let smaller = key.notification.uuid().as_u128().checked_sub(1)?;
    Some(DeliveryKey { notification: NotificationId::from_bytes(smaller.to_be_bytes()), ordinal: u8::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_core::Priority;

    fn key(number: u8) -> DeliveryKey {
        DeliveryKey { notification: NotificationId::from_bytes([number; 16]), ordinal: 0 }
    }

    fn queued(number: u8) -> Queued {
        Queued {
            key: key(number),
            tenant: TenantId::from_bytes([1; 16]),
            channel: ChannelId::from_bytes([2; 16]),
            lane: 0,
            priority: Priority::Normal,
            due: Timestamp::ZERO,
            tried: false,
            suspect: false,
            limited: None,
        }
    }

    fn full() -> State {
        State { arrivals: std::iter::repeat_n(queued(10), ARRIVALS_MAX).collect(), ..State::default() }
    }

    #[test]
    fn what_does_not_fit_is_left_to_a_scan_that_begins_just_before_it() {
        let mut state = full();
        state.arrive(queued(20), None);
        state.arrive(queued(30), None);
        assert_eq!(state.arrivals.len(), ARRIVALS_MAX);
        let scan = state.begin_read().unwrap();
        assert!(scan.after < Some(key(20)) && scan.after > Some(key(19)));
        state.take_arrivals(1);
        state.arrive(queued(40), None);
        assert_eq!(state.arrivals.len(), ARRIVALS_MAX - 1, "it does not overtake those that wait for the scan");
        state.arrive(queued(5), None);
        assert_eq!(state.arrivals.len(), ARRIVALS_MAX, "the scan would not come by this one");
        state.arrive(queued(4), None);
        assert!(state.begin_read().unwrap().after < Some(key(4)), "the scan is set back");
    }

    #[test]
    fn what_arrives_while_a_scan_reads_its_last_part_follows_it() {
        let mut state = State::default();
        state.begin_scan(None);
        let from = state.begin_read().unwrap();
        state.arrive(queued(7), None);
        state.arrive(queued(3), None);
        state.end_read(from, Some(key(9)), false);
        let from = state.begin_read().unwrap();
        assert!(from.after < Some(key(3)) && from.after > Some(key(2)), "there may be more in between");
        state.arrive(queued(8), None);
        state.end_read(from, Some(key(7)), true);
        assert_eq!(state.begin_read(), None);
        assert_eq!(state.take_arrivals(9), [queued(8)]);
    }

    #[test]
    fn a_scan_goes_back_where_more_arrived_than_can_be_kept() {
        let mut state = State::default();
        state.begin_scan(None);
        let from = state.begin_read().unwrap();
        for _ in 0..=DURING_MAX + 1 {
            state.arrive(queued(5), None);
        }
        state.end_read(from, Some(key(9)), true);
        assert!(state.begin_read().unwrap().after < Some(key(5)));
    }

    #[test]
    fn a_scan_that_was_set_back_while_it_read_stays_there() {
        let mut state = full();
        state.arrive(queued(50), None);
        let from = state.begin_read().unwrap();
        state.arrive(queued(20), None);
        state.end_read(from, Some(key(60)), true);
        assert!(state.begin_read().unwrap().after < Some(key(20)));
    }

    #[test]
    fn the_key_just_before_another_leaves_no_gap() {
        let zero = DeliveryKey { notification: NotificationId::from_bytes([0; 16]), ordinal: 0 };
        assert_eq!(previous(zero), None);
        let second = DeliveryKey { ordinal: 1, ..key(9) };
        assert_eq!(previous(second), Some(key(9)));
        let before = previous(key(9)).unwrap();
        assert_eq!(before.ordinal, u8::MAX);
        assert_eq!(before.notification.uuid().as_u128() + 1, key(9).notification.uuid().as_u128());
    }

    fn draft(id: u64, message_bytes: usize) -> conductor_core::Draft {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&id.to_be_bytes());
        conductor_core::Draft {
            id: NotificationId::from_bytes(bytes),
            tenant: TenantId::from_bytes([1; 16]),
            channel: "log".to_owned(),
            channel_id: ChannelId::from_bytes([2; 16]),
            target: None,
            message: "x".repeat(message_bytes),
            title: None,
            priority: Priority::Normal,
            format: conductor_core::Format::Text,
            data: serde_json::Map::new(),
            metadata: std::collections::BTreeMap::new(),
            key: None,
            fallback: Vec::new(),
            accepted_at: Timestamp::ZERO,
            send_at: None,
            expires_at: Timestamp::MAX,
            trace: None,
        }
    }

    #[test]
    fn what_is_kept_is_bounded_wherever_a_notification_has_its_bytes() {
        const EACH: usize = 30_000;
        let long = || "x".repeat(EACH);
        let fillings: [fn(&mut conductor_core::Draft, String); 5] = [
            |draft, long| draft.title = Some(long),
            |draft, long| draft.target = Some(long),
            |draft, long| draft.metadata.extend([("name".to_owned(), long)]),
            |draft, long| draft.data.extend([("name".to_owned(), serde_json::json!({ "deep": [long] }))]),
            // Each of them takes much more room than its two characters of JSON.
            |draft, long| draft.data.extend([("name".to_owned(), vec![0; long.len() / 2].into())]),
        ];
        for (which, fill) in fillings.into_iter().enumerate() {
            let mut state = State::default();
            for id in 1..=1_000 {
                let mut draft = draft(id, 1);
                fill(&mut draft, long());
                let notification = Arc::new(Notification::from_stored(draft));
                let key = DeliveryKey { notification: notification.id, ordinal: 0 };
                state.arrive(Queued { key, ..queued(0) }, Some(&notification));
            }
            assert!(state.fresh.len() <= FRESH_MAX_BYTES / EACH, "{which}: {}", state.fresh.len());
            assert!(state.fresh.len() > 10, "{which}: {}", state.fresh.len());
            let keys: Vec<DeliveryKey> = state.fresh.keys().copied().collect();
            keys.into_iter().for_each(|key| drop(state.forget_fresh(key)));
            assert_eq!(state.fresh_bytes, 0, "{which}");
        }
    }

    #[test]
    fn the_oldest_make_room_for_a_notification_that_is_sent_at_once() {
        let mut state = State::default();
        let notification = |id: u64| {
            let bytes = if id.is_multiple_of(2) { 10 } else { 1_000 };
            Arc::new(Notification::from_stored(draft(id, bytes)))
        };
        let stuck = u64::try_from(3 * FRESH_MAX).unwrap();
        for id in 1..=stuck {
            let notification = notification(id);
            let key = DeliveryKey { notification: notification.id, ordinal: 0 };
            state.arrive(Queued { key, ..queued(0) }, Some(&notification));
            // Every other one is sent at once.
            if id.is_multiple_of(2) {
                assert!(matches!(state.lease(key), Hold::Fresh(_)), "{id}");
                state.unlease(key);
            }
            state.take_arrivals(9);
        }
        assert!(state.fresh.len() <= FRESH_MAX && state.fresh_bytes <= FRESH_MAX_BYTES);
        assert!(state.fresh_order.len() <= 2 * FRESH_MAX);
        assert_eq!(state.fresh_bytes, state.fresh.values().map(|kept| kept.bytes).sum::<usize>());
    }

    #[test]
    fn what_is_due_later_is_handed_over_when_its_time_comes_near() {
        let at = Timestamp::from_millis;
        let due = |number, millis, tried| Queued { due: at(millis), tried, ..queued(number) };
        let mut state = State::default();
        assert!(state.look_ahead(at(100)));
        state.arrive(due(1, 100, false), None);
        state.arrive(due(2, 101, false), None);
        state.arrive(due(3, 999, true), None);
        let keys = |state: &mut State| state.take_arrivals(9).iter().map(|queued| queued.key).collect::<Vec<_>>();
        assert_eq!(keys(&mut state), [key(1), key(3)]);
        assert!(state.look_ahead(at(200)));
        let scan = state.begin_read().unwrap();
        assert_eq!((scan.due_after, scan.due_by), (Some(at(100)), at(200)));
        assert!(!state.look_ahead(at(300)), "one after the other");
        state.arrive(due(4, 50, false), None);
        assert_eq!(keys(&mut state), [key(4)], "the scan would not take this one");
        state.arrive(due(5, 150, false), None);
        assert_eq!(keys(&mut state), []);
        state.end_read(scan, Some(key(2)), true);
        assert_eq!(keys(&mut state), [key(5)], "it came while the scan read");
        assert!(!state.has_arrivals());
        assert!(state.look_ahead(at(300)));
    }
}
