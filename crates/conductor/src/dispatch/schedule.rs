//! What may go next: everything that waits, in memory, in the order in which it may leave. Pure: no clock, no I/O.
//!
//! Tenants take turns by weight; inside a tenant high priority goes first, but a lower one is never starved; channels
//! take turns; a lane's deliveries go one at a time, in the order of their acceptance, the more urgent first unless the
//! channel is ordered. A channel that may not send costs nothing until it may again: it is taken out of the turns.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};

use conductor_core::store::Queued;
use conductor_core::{ChannelId, DeliveryKey, Priority, TenantId, Timestamp};

use super::entry::{Entry, Limited, PlaceInLane, class_of};
use super::gate::{Admission, CLOCK_STEP, Gate};
use super::shelf::{Capacity, Room, Shelf, Want};

mod backlog;
mod pauses;
mod reshape;

/// Every so many picks of a tenant, normal goes before high; and every so many of those, low goes first.
const NORMAL_FIRST_EVERY: u32 = 8;
const LOW_FIRST_EVERY: u32 = 64;

/// Priorities as places in arrays: high first.
const CLASSES: usize = 3;
const CLASS_PRIORITIES: [Priority; CLASSES] = [Priority::High, Priority::Normal, Priority::Low];

/// Something that is to happen at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// A delivery becomes due.
    Due(Entry),
    /// A channel may send again.
    Channel(u32),
    /// A stopped channel is to be asked whether it works.
    Ask(u32),
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
    /// It stands in the list of those that have their share under way.
    crowded: bool,
    shelves: [Shelf; CLASSES],
    /// How many tasks know it by its place: attempts that are not settled, questions that are not answered.
    pub(crate) tasks: u32,
    /// Nobody knows it any more: its place is for another.
    vacant: bool,
}

#[derive(Default)]
struct LaneState {
    busy: bool,
    /// The places of those that waited here and are ready now: what stands behind them waits, ready or not.
    offered: BTreeSet<PlaceInLane>,
    /// The next alarm that is set for an ordered channel's first, if any. It may ring for nothing, but it is never late.
    alarm: Option<Timestamp>,
    /// What waits behind what is busy: the most urgent first, and of those the oldest. An ordered channel keeps all of
    /// a lane here, with the due times, and only the age counts.
    parked: BTreeMap<PlaceInLane, (Entry, Timestamp)>,
}

struct TenantTurn {
    weight: u32,
    /// Picks left in this turn.
    credit: u32,
    picks: u32,
    rings: [VecDeque<u32>; CLASSES],
    listed: bool,
}

/// Everything that waits, or as much of it as there is room for.
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
    capacity: Capacity,
    /// The shelves that may have to be filled.
    low: VecDeque<(u32, usize)>,
    /// Stopped channels that are to be asked now.
    to_ask: Vec<u32>,
    /// The most that one channel may have under way now.
    share: u32,
    /// Channels that have as much.
    crowded: Vec<u32>,
    /// Places that are for others.
    vacant: Vec<u32>,
}

#[cfg(test)]
impl Default for Schedule {
    fn default() -> Self {
        Self::with_capacity(Capacity::default())
    }
}

impl Schedule {
    /// An empty one that holds so much.
    pub(crate) fn with_capacity(capacity: Capacity) -> Self {
        Self {
            tenants: Vec::new(),
            tenant_places: HashMap::new(),
            channels: Vec::new(),
            channel_places: HashMap::new(),
            turns: VecDeque::new(),
            alarms: BinaryHeap::new(),
            seen: Timestamp::ZERO,
            waiting: 0,
            capacity,
            low: VecDeque::new(),
            to_ask: Vec::new(),
            share: u32::MAX,
            crowded: Vec::new(),
            vacant: Vec::new(),
        }
    }

    /// How many deliveries wait here.
    #[cfg(test)]
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
        let queue = ChannelQueue {
            id: channel,
            tenant: tenant_place,
            ordered,
            gate,
            ready: Default::default(),
            listed: [false; CLASSES],
            lanes: HashMap::new(),
            alarm: None,
            crowded: false,
            shelves: Default::default(),
            tasks: 0,
            vacant: false,
        };
        let place = match self.vacant.pop() {
            Some(place) => {
                self.channels[place as usize] = queue;
                place
            }
            None => {
                self.channels.push(queue);
                place_of(self.channels.len() - 1)
            }
        };
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

    /// Adds a delivery that waits, or waits again, whether there is room for it or not.
    pub(crate) fn insert(&mut self, place: u32, queued: &Queued, limited: Limited, now: Timestamp) {
        let Queued { lane, due, tried, .. } = *queued;
        let entry = Entry::new(place, queued, limited);
        self.count_in(&entry);
        // What its caller wants to be sent later holds nobody back; what has failed does, where the order counts.
        if self.channels[place as usize].ordered && (tried || due <= now) {
            self.park(entry, due);
            self.offer_ordered(place, lane, now);
        } else if due > now {
            self.count_later(&entry);
            self.alarms.push(Reverse((due, Alarm::Due(entry))));
        } else {
            self.make_ready(entry, false);
        }
    }

    /// A stopped channel is to be asked at this time whether it works.
    pub(crate) fn ask_at(&mut self, place: u32, at: Timestamp) {
        self.alarms.push(Reverse((at, Alarm::Ask(place))));
    }

    /// The stopped channels that are to be asked now.
    pub(crate) fn take_to_ask(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.to_ask)
    }

    /// A channel that sent nothing may send again.
    pub(crate) fn go_on(&mut self, place: u32) {
        self.list(place);
    }

    /// The most that one channel may have under way now.
    pub(crate) fn share(&self) -> u32 {
        self.share
    }

    /// Sets it. It is at least one.
    pub(crate) fn set_share(&mut self, share: u32) {
        let grows = share > self.share;
        self.share = share;
        if grows {
            for place in std::mem::take(&mut self.crowded) {
                self.channels[place as usize].crowded = false;
                self.list(place);
            }
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
                Alarm::Ask(place) => self.to_ask.push(place),
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
                    self.count_out(&entry);
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
        self.count_in(&entry);
        self.park(entry, Timestamp::ZERO);
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
            Alarm::Ask(_) | Alarm::Lane(..) => Some(Reverse((at.minus(back), alarm))),
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
            let is_crowded = admission == Admission::Now && channel.gate.under_way() >= self.share;
            if is_crowded && !channel.crowded {
                channel.crowded = true;
                self.crowded.push(place);
            }
            let picked = if admission == Admission::Now && !is_crowded { self.take(place, class) } else { None };
            let channel = &mut self.channels[place as usize];
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

    /// A delivery that waited for a time is due: it goes before those that came later, also within its lane, unless it
    /// was the one that had the channel wait.
    fn due(&mut self, entry: Entry, now: Timestamp) {
        self.count_due(&entry);
        let channel = &mut self.channels[entry.channel as usize];
        if channel.ordered {
            self.park(entry, Timestamp::ZERO);
            self.offer_ordered(entry.channel, entry.lane, now);
            return;
        }
        if channel.lanes.contains_key(&entry.lane) {
            self.park(entry, Timestamp::ZERO);
            self.offer(entry.channel, entry.lane);
        } else {
            self.make_ready(entry, entry.limited == Limited::default());
        }
    }

    /// Takes the first whose lane is free. Those whose lane is busy are parked there.
    fn take(&mut self, place: u32, class: usize) -> Option<Entry> {
        loop {
            let channel = &mut self.channels[place as usize];
            let entry = channel.ready[class].pop_front()?;
            if channel.ordered {
                return Some(entry);
            }
            let state = channel.lanes.entry(entry.lane).or_default();
            let offered = state.offered.iter().find(|offered| offered.2 == entry.key).copied();
            let here = offered.unwrap_or_else(|| entry.place_in_lane(false, self.seen));
            state.offered.remove(&here);
            let goes = !state.busy && state.offered.first().is_none_or(|first| here < *first);
            if goes {
                state.busy = true;
                return Some(entry);
            }
            self.park(entry, Timestamp::ZERO);
        }
    }

    /// Has a delivery wait in its lane. One that waits there already is the same.
    fn park(&mut self, entry: Entry, due: Timestamp) {
        let now = self.seen;
        let channel = &mut self.channels[entry.channel as usize];
        let place = entry.place_in_lane(channel.ordered, now);
        let state = channel.lanes.entry(entry.lane).or_default();
        // A hint may be early, never late: one that was taken back lets its lane go on also where its retry comes after.
        let due = state.parked.get(&place).map_or(due, |(_, before)| due.min(*before));
        if state.parked.insert(place, (entry, due)).is_some() {
            self.count_out(&entry);
        } else {
            self.count_behind(&entry);
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
        } else {
            self.offer(place, lane);
        }
    }

    /// Makes the first of a lane ready, unless that waits for one under way or for one that is before it.
    fn offer(&mut self, place: u32, lane: u64) {
        let channel = &mut self.channels[place as usize];
        let Some(state) = channel.lanes.get_mut(&lane).filter(|state| !state.busy) else { return };
        match (state.parked.first_entry(), state.offered.first()) {
            (None, None) => drop(channel.lanes.remove(&lane)),
            (Some(first), offered) if offered.is_none_or(|offered| first.key() < offered) => {
                let (here, (entry, _)) = first.remove_entry();
                state.offered.insert(here);
                self.shelf(&entry).count_first();
                self.make_ready(entry, entry.limited == Limited::default());
            }
            _ => {}
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
            self.shelf(&entry).count_first();
            self.make_ready(entry, false);
        }
    }
}

impl ChannelQueue {
    /// The shelf on which those of a class stand.
    fn shelf_of(&self, class: u8) -> usize {
        if self.ordered { 0 } else { usize::from(class) }
    }

    /// Whether a delivery is told of that waits in an ordered lane already: it may go sooner, or has been taken back.
    fn holds(&self, queued: &Queued) -> bool {
        let place = Entry::new(0, queued, Limited::default()).place_in_lane(true, Timestamp::ZERO);
        self.ordered && self.lanes.get(&queued.lane).is_some_and(|lane| lane.parked.contains_key(&place))
    }
}

fn place_of(index: usize) -> u32 {
    u32::try_from(index).expect("there are fewer than four thousand million channels")
}

#[cfg(test)]
#[path = "backlog_tests.rs"]
mod backlog_tests;
#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
