//! What may go next: everything that waits, in memory, in the order in which it may leave. Pure: no clock, no I/O.
//!
//! Tenants take turns by weight; inside a tenant high priority goes first, but a lower one is never starved; channels
//! take turns; a lane's deliveries go one at a time, in the order of their acceptance, the more urgent first unless the
//! channel is ordered. A channel that may not send costs nothing until it may again: it is taken out of the turns.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use conductor_core::store::Queued;
use conductor_core::{ChannelId, DeliveryKey, NotificationId, Priority, TenantId, Timestamp};

use super::gate::{Admission, CLOCK_STEP, Gate};

/// Every so many picks of a tenant, normal goes before high; and every so many of those, low goes first.
const NORMAL_FIRST_EVERY: u32 = 8;
const LOW_FIRST_EVERY: u32 = 64;

/// Comes before every delivery.
const NONE: DeliveryKey = DeliveryKey { notification: NotificationId::from_bytes([0; 16]), ordinal: 0 };

/// Priorities as places in arrays: high first.
const CLASSES: usize = 3;

/// A delivery that waits. Kept small: there may be millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) key: DeliveryKey,
    pub(crate) suspect: bool,
    class: u8,
    channel: u32,
    lane: u64,
}

/// Something that is to happen at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// A delivery becomes due.
    Due(Entry),
    /// A channel may send again.
    Channel(u32),
    /// A lane may send again.
    Lane(u32, u64),
    /// An ordered lane's first becomes due.
    First(u32, u64),
}

/// How a delivery that left its gate goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The next of its lane may go.
    Free,
    /// The next of its lane may go at this time.
    FreeAt(Timestamp),
}

/// A channel's part of the schedule.
pub(crate) struct ChannelQueue {
    id: ChannelId,
    tenant: u32,
    ordered: bool,
    pub(crate) gate: Gate,
    ready: [VecDeque<Entry>; CLASSES],
    /// Which of the tenant's rings it stands in.
    listed: [bool; CLASSES],
    /// Lanes that are busy, or in which something is parked.
    lanes: HashMap<u64, LaneState>,
    /// The alarm that is set for it, if any.
    alarm: Option<Timestamp>,
}

#[derive(Default)]
struct LaneState {
    busy: bool,
    /// The next alarm that is set for an ordered channel's first, if any. It may ring for nothing, but it is never late.
    alarm: Option<Timestamp>,
    /// What waits behind what is busy: the most urgent first, and of those the oldest. An ordered channel keeps all of
    /// a lane here, with the due times, and only the age counts.
    parked: BTreeMap<(u8, DeliveryKey), (Entry, Timestamp)>,
    /// What was made ready from there and has not been taken yet, one of each priority: a second one would go before it.
    offered: [Option<DeliveryKey>; CLASSES],
}

struct TenantTurn {
    weight: u32,
    /// Picks left in this turn.
    credit: u32,
    picks: u32,
    rings: [VecDeque<u32>; CLASSES],
    listed: bool,
}

/// Everything that waits.
#[derive(Default)]
pub(crate) struct Schedule {
    tenants: Vec<TenantTurn>,
    tenant_places: HashMap<TenantId, u32>,
    channels: Vec<ChannelQueue>,
    channel_places: HashMap<ChannelId, u32>,
    turns: VecDeque<u32>,
    alarms: BinaryHeap<Reverse<(Timestamp, Alarm)>>,
    /// The latest time that it was told.
    seen: Timestamp,
    waiting: usize,
}

impl Entry {
    /// Where it stands among those that wait for its lane: by age alone where the channel is ordered.
    fn place_in_lane(&self, ordered: bool) -> (u8, DeliveryKey) {
        (if ordered { 0 } else { self.class }, self.key)
    }

    /// Its channel's place in the schedule.
    pub(crate) fn channel(&self) -> u32 {
        self.channel
    }
}

impl Schedule {
    /// How many deliveries wait here.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// The place of a channel; `describe` is asked once for what a new one is like.
    pub(crate) fn channel_place(
        &mut self,
        tenant: TenantId,
        channel: ChannelId,
        describe: impl FnOnce() -> (Gate, bool, u32),
    ) -> u32 {
        if let Some(place) = self.channel_places.get(&channel) {
            return *place;
        }
        let (gate, ordered, weight) = describe();
        let tenant_place = *self.tenant_places.entry(tenant).or_insert_with(|| {
            let weight = weight.max(1);
            self.tenants.push(TenantTurn {
                weight,
                credit: weight,
                picks: 0,
                rings: Default::default(),
                listed: false,
            });
            place_of(self.tenants.len() - 1)
        });
        self.channels.push(ChannelQueue {
            id: channel,
            tenant: tenant_place,
            ordered,
            gate,
            ready: Default::default(),
            listed: [false; CLASSES],
            lanes: HashMap::new(),
            alarm: None,
        });
        let place = place_of(self.channels.len() - 1);
        self.channel_places.insert(channel, place);
        place
    }

    /// A channel by its place.
    pub(crate) fn channel(&mut self, place: u32) -> &mut ChannelQueue {
        &mut self.channels[place as usize]
    }

    /// The id of the channel at a place.
    pub(crate) fn channel_id(&self, place: u32) -> ChannelId {
        self.channels[place as usize].id
    }

    /// Adds a delivery that waits.
    pub(crate) fn insert(&mut self, place: u32, queued: &Queued, now: Timestamp) {
        let class = match queued.priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        };
        let Queued { key, suspect, lane, due, tried, .. } = *queued;
        let entry = Entry { key, suspect, class, channel: place, lane };
        self.waiting += 1;
        // What its caller wants to be sent later holds nobody back; what has failed does, where the order counts.
        if self.channels[place as usize].ordered && (tried || due <= now) {
            let state = self.channels[place as usize].lanes.entry(lane).or_default();
            if state.parked.insert(entry.place_in_lane(true), (entry, due)).is_some() {
                self.waiting -= 1;
            }
            self.offer_ordered(place, lane, now);
        } else if due > now {
            self.alarms.push(Reverse((due, Alarm::Due(entry))));
        } else {
            self.make_ready(entry, false);
        }
    }

    /// When something happens next by itself.
    pub(crate) fn next_alarm(&self) -> Option<Timestamp> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    /// Lets happen what is due by now.
    pub(crate) fn ring(&mut self, now: Timestamp) {
        self.follow(now);
        while let Some(Reverse((at, alarm))) = self.alarms.peek().copied() {
            if at > now {
                return;
            }
            self.alarms.pop();
            match alarm {
                Alarm::Due(entry) => self.due(entry, now),
                Alarm::Channel(place) => {
                    self.channels[place as usize].alarm = None;
                    self.list(place);
                }
                Alarm::First(place, lane) => {
                    if let Some(state) = self.channels[place as usize].lanes.get_mut(&lane) {
                        state.alarm = None;
                    }
                    self.offer_ordered(place, lane, now);
                }
                Alarm::Lane(place, lane) => self.free_lane(place, lane, now),
            }
        }
    }

    /// Takes the next delivery that may go now, and has its gate count it.
    pub(crate) fn pick(&mut self, now: Timestamp) -> Option<Entry> {
        while let Some(turn) = self.turns.front().copied() {
            match self.pick_of_tenant(turn, now) {
                Some(entry) => {
                    let tenant = &mut self.tenants[turn as usize];
                    tenant.credit -= 1;
                    if tenant.credit == 0 {
                        tenant.credit = tenant.weight;
                        self.turns.rotate_left(1);
                    }
                    self.waiting -= 1;
                    return Some(entry);
                }
                None => {
                    let tenant = &mut self.tenants[turn as usize];
                    tenant.listed = false;
                    tenant.credit = tenant.weight;
                    self.turns.pop_front();
                }
            }
        }
        None
    }

    /// A picked delivery has come back from its attempt, or had no lease. Its gate has been told already.
    pub(crate) fn left(&mut self, entry: Entry, lane: Lane, now: Timestamp) {
        match lane {
            Lane::Free => self.free_lane(entry.channel, entry.lane, now),
            Lane::FreeAt(at) => self.alarms.push(Reverse((at, Alarm::Lane(entry.channel, entry.lane)))),
        }
        self.list(entry.channel);
    }

    /// A pick came to nothing for a reason that passes: as if it had not been taken. Its gate has been told already.
    pub(crate) fn put_back(&mut self, entry: Entry, now: Timestamp) {
        self.waiting += 1;
        let channel = &mut self.channels[entry.channel as usize];
        let place = entry.place_in_lane(channel.ordered);
        let state = channel.lanes.entry(entry.lane).or_default();
        state.parked.insert(place, (entry, Timestamp::ZERO));
        self.left(entry, Lane::Free, now);
    }

    /// Where the clock was put back, channels and lanes that are to wait for a while do not wait for longer. What is
    /// due at a time stays due at that time.
    fn follow(&mut self, now: Timestamp) {
        let back = self.seen.since(now);
        if back < CLOCK_STEP {
            self.seen = self.seen.max(now);
            return;
        }
        self.seen = now;
        let alarms = std::mem::take(&mut self.alarms).into_iter().filter_map(|Reverse((at, alarm))| match alarm {
            Alarm::Channel(_) => None,
            Alarm::Lane(..) => Some(Reverse((at.minus(back), alarm))),
            Alarm::First(..) | Alarm::Due(_) => Some(Reverse((at, alarm))),
        });
        self.alarms = alarms.collect();
        for index in 0..self.channels.len() {
            self.channels[index].alarm = None;
            self.channels[index].gate.follow(now);
            self.list(place_of(index));
        }
    }

    fn pick_of_tenant(&mut self, turn: u32, now: Timestamp) -> Option<Entry> {
        let tenant = &mut self.tenants[turn as usize];
        tenant.picks = tenant.picks.wrapping_add(1);
        let order = if tenant.picks.is_multiple_of(LOW_FIRST_EVERY) {
            [2, 1, 0]
        } else if tenant.picks.is_multiple_of(NORMAL_FIRST_EVERY) {
            [1, 0, 2]
        } else {
            [0, 1, 2]
        };
        order.into_iter().find_map(|class| self.pick_of_ring(turn, class, now))
    }

    fn pick_of_ring(&mut self, turn: u32, class: usize, now: Timestamp) -> Option<Entry> {
        loop {
            let place = *self.tenants[turn as usize].rings[class].front()?;
            let channel = &mut self.channels[place as usize];
            let admission = if channel.ready[class].is_empty() { Admission::Closed } else { channel.gate.admits(now) };
            if let Admission::At(at) = admission
                && channel.alarm.is_none_or(|alarm| at < alarm)
            {
                channel.alarm = Some(at);
                self.alarms.push(Reverse((at, Alarm::Channel(place))));
            }
            let picked = if admission == Admission::Now { channel.take(class) } else { None };
            let ring = &mut self.tenants[turn as usize].rings[class];
            if let Some(entry) = picked {
                channel.gate.enter(now);
                ring.rotate_left(1);
                return Some(entry);
            }
            channel.listed[class] = false;
            ring.pop_front();
        }
    }

    /// A delivery that waited for a time is due: it goes before those that came later, also within its lane.
    fn due(&mut self, entry: Entry, now: Timestamp) {
        let channel = &mut self.channels[entry.channel as usize];
        if channel.ordered {
            let state = channel.lanes.entry(entry.lane).or_default();
            state.parked.insert(entry.place_in_lane(true), (entry, Timestamp::ZERO));
            self.offer_ordered(entry.channel, entry.lane, now);
            return;
        }
        let state = channel.lanes.entry(entry.lane).or_default();
        state.parked.insert(entry.place_in_lane(false), (entry, Timestamp::ZERO));
        if !state.busy {
            self.free_lane(entry.channel, entry.lane, now);
        }
    }

    /// A delivery waits for its turn only.
    fn make_ready(&mut self, entry: Entry, before_others: bool) {
        let queue = &mut self.channels[entry.channel as usize].ready[usize::from(entry.class)];
        if before_others {
            queue.push_front(entry);
        } else {
            queue.push_back(entry);
        }
        self.list(entry.channel);
    }

    /// Puts a channel back into its tenant's rings, and the tenant into the turns, if anything is ready.
    fn list(&mut self, place: u32) {
        let channel = &mut self.channels[place as usize];
        let turn = channel.tenant;
        let tenant = &mut self.tenants[turn as usize];
        for class in 0..CLASSES {
            if !channel.listed[class] && !channel.ready[class].is_empty() {
                channel.listed[class] = true;
                tenant.rings[class].push_back(place);
            }
        }
        if !tenant.listed && tenant.rings.iter().any(|ring| !ring.is_empty()) {
            tenant.listed = true;
            self.turns.push_back(turn);
        }
    }

    /// The next of a lane may go.
    fn free_lane(&mut self, place: u32, lane: u64, now: Timestamp) {
        let channel = &mut self.channels[place as usize];
        let Some(state) = channel.lanes.get_mut(&lane) else { return };
        state.busy = false;
        if channel.ordered {
            self.offer_ordered(place, lane, now);
            return;
        }
        let Some(first) = state.parked.first_entry() else {
            if state.offered == [None; CLASSES] {
                channel.lanes.remove(&lane);
            }
            return;
        };
        let offered = &mut state.offered[usize::from(first.key().0)];
        if offered.is_none() {
            let (entry, _) = first.remove();
            *offered = Some(entry.key);
            self.make_ready(entry, true);
        }
    }

    /// Makes an ordered lane's first ready if it is due, or sets an alarm for it.
    fn offer_ordered(&mut self, place: u32, lane: u64, now: Timestamp) {
        let channel = &mut self.channels[place as usize];
        let Some(state) = channel.lanes.get_mut(&lane).filter(|state| !state.busy) else { return };
        let Some((_, (entry, due))) = state.parked.first_key_value() else {
            channel.lanes.remove(&lane);
            return;
        };
        let (entry, due) = (*entry, *due);
        if due > now {
            if state.alarm.is_none_or(|set| due < set) {
                state.alarm = Some(due);
                self.alarms.push(Reverse((due, Alarm::First(place, lane))));
            }
        } else {
            state.parked.pop_first();
            state.busy = true;
            self.make_ready(entry, false);
        }
    }
}

impl ChannelQueue {
    /// Takes the first whose lane is free. Those whose lane is busy are parked there.
    fn take(&mut self, class: usize) -> Option<Entry> {
        while let Some(entry) = self.ready[class].pop_front() {
            if self.ordered {
                return Some(entry);
            }
            let state = self.lanes.entry(entry.lane).or_default();
            state.offered[class].take_if(|offered| *offered == entry.key);
            if !state.busy && state.parked.is_empty() {
                state.busy = true;
                return Some(entry);
            }
            let place = entry.place_in_lane(false);
            state.parked.insert(place, (entry, Timestamp::ZERO));
            if state.busy {
                continue;
            }
            // One of the same priority that waits there has waited longer.
            let first = state.parked.range((entry.class, NONE)..).next().map_or(place, |(place, _)| *place);
            if let Some((entry, _)) = state.parked.remove(&first) {
                state.busy = true;
                return Some(entry);
            }
        }
        None
    }
}

fn place_of(index: usize) -> u32 {
    u32::try_from(index).expect("there are fewer than four thousand million channels")
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
