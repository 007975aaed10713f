//! More than there is room for, and providers that tell one to wait: what stays in the store keeps its place, and
//! nobody is held up by another's.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use conductor_core::{NotificationId, Scope, SendErrorKind};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const CAPACITY: Capacity = Capacity { shelf: 4, shelf_when_scarce: 2, lane: 2, all: 12 };
/// The most rows that one look into the store goes through, and finds.
const LOOK: usize = 5;
const FIND: usize = 3;

/// Lanes of channels.
type Lanes = HashSet<(ChannelId, u64)>;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_705_314_600_000 + millis)
}

fn number(key: DeliveryKey) -> u128 {
    key.notification.uuid().as_u128()
}

/// A store with what waits in it, a schedule, and what is on its way from the one to the other.
struct World {
    schedule: Schedule,
    ordered: bool,
    max: u32,
    stored: BTreeMap<DeliveryKey, Queued>,
    arriving: VecDeque<Queued>,
    under_way: Vec<Entry>,
    now: Timestamp,
    next: u128,
    /// How often the store was looked into.
    looks: usize,
    /// A channel was ordered and is so no more, or the other way round.
    reordered: bool,
}

impl World {
    fn new(ordered: bool, max: u32) -> Self {
        Self {
            schedule: Schedule::with_capacity(CAPACITY),
            ordered,
            max,
            stored: BTreeMap::new(),
            arriving: VecDeque::new(),
            under_way: Vec::new(),
            now: at(0),
            next: 0,
            looks: 0,
            reordered: false,
        }
    }

    /// One whose lanes may fill the shelf.
    fn with_long_lanes(ordered: bool, max: u32) -> Self {
        let capacity = Capacity { lane: CAPACITY.shelf, ..CAPACITY };
        Self { schedule: Schedule::with_capacity(capacity), ..Self::new(ordered, max) }
    }

    fn accept(&mut self, channel: u128, lane: u64, priority: Priority) -> DeliveryKey {
        self.next += 1;
        let key = DeliveryKey { notification: NotificationId::new(Uuid::from_u128(self.next)), ordinal: 0 };
        let (tenant, channel) = (TenantId::new(Uuid::from_u128(channel)), ChannelId::new(Uuid::from_u128(channel)));
        let queued =
            Queued { key, tenant, channel, lane, priority, due: self.now, tried: false, suspect: false, limited: None };
        self.stored.insert(key, queued);
        self.arriving.push_back(queued);
        key
    }

    fn take_in(&mut self, count: usize) {
        for _ in 0..count {
            let Some(queued) = self.arriving.pop_front() else { return };
            let (ordered, max) = (self.ordered, self.max);
            let describe = || (Gate::new(max, None), ordered, 1);
            let place = self.schedule.channel_place(queued.tenant, queued.channel, describe);
            self.schedule.arrive(place, &queued, self.now);
        }
    }

    /// As the store's `backlog` does it. Returns whether anything was to be filled.
    fn fill(&mut self) -> bool {
        let Some(hungry) = self.schedule.hungry() else { return false };
        self.looks += 1;
        let behind = self.stored.values().filter(|queued| Some(queued.key) > hungry.want.rest.after);
        let (mut found, mut looked_at, mut through) = (Vec::new(), 0, None);
        for queued in behind.take(LOOK) {
            if found.len() == FIND {
                break;
            }
            (looked_at, through) = (looked_at + 1, Some(queued.key));
            if queued.channel == hungry.channel && hungry.priority.is_none_or(|priority| priority == queued.priority) {
                found.push(*queued);
            }
        }
        let at_end = looked_at < LOOK && found.len() < FIND;
        self.schedule.feed(&hungry, &found, through.filter(|_| !at_end), self.now);
        true
    }

    /// Picks one and claims it. None: there is none, or it has no lease.
    fn pick(&mut self) -> Option<Queued> {
        let entry = self.schedule.pick(self.now)?;
        let is_under_way = self.under_way.iter().any(|other| other.key == entry.key);
        match self.stored.get(&entry.key).copied().filter(|_| !is_under_way) {
            Some(queued) if queued.due <= self.now => {
                self.under_way.push(entry);
                return Some(queued);
            }
            Some(queued) => self.schedule.insert(entry.channel(), &queued, entry.limited, self.now),
            None => {}
        }
        self.schedule.channel(entry.channel()).gate.withdraw();
        self.schedule.left(entry, Lane::Free, self.now);
        None
    }

    fn finish(&mut self, entry: Entry) {
        self.stored.remove(&entry.key);
        self.schedule.channel(entry.channel()).gate.leave(Ok(()), "", self.now, self.now, self.now);
        self.schedule.left(entry, Lane::Free, self.now);
    }

    fn fail(&mut self, entry: Entry, delay: u64) {
        let due = self.now.plus(Duration::from_millis(delay));
        let queued = self.stored.get_mut(&entry.key).expect("it waits");
        (queued.due, queued.tried) = (due, true);
        let queued = *queued;
        self.schedule.channel(entry.channel()).gate.withdraw();
        self.schedule.insert(entry.channel(), &queued, Limited::default(), self.now);
        self.schedule.left(entry, Lane::Free, self.now);
    }

    /// Picks as much as there is, while nothing that is under way comes back. Gives the lanes of which
    /// one is under way now, and those of which one could be: with enough places, each that has anything that is due.
    fn pick_all_without_an_end(&mut self) -> (Lanes, Lanes) {
        // Hints to what has ended meanwhile have had their time too.
        self.now = self.now.plus(Duration::from_secs(1));
        self.take_in(usize::MAX);
        for place in 0..self.schedule.channels.len() {
            let under_way = self.schedule.channels[place].gate.under_way();
            let mut gate = Gate::new(10_000, None);
            (0..under_way).for_each(|_| gate.enter(self.now));
            self.schedule.channels[place].gate = gate;
            self.schedule.go_on(place_of(place));
        }
        self.schedule.ring(self.now);
        let mut idle = 0;
        while idle < 2 {
            let filled = self.fill();
            let before = self.schedule.len();
            let picked = self.pick().is_some();
            idle = if filled || picked || self.schedule.len() != before { 0 } else { idle + 1 };
        }
        let lane_of = |queued: &Queued| (queued.channel, queued.lane);
        let under_way: Lanes = self.under_way.iter().map(|entry| lane_of(&self.stored[&entry.key])).collect();
        let due = self.stored.values().filter(|queued| queued.due <= self.now);
        (due.map(lane_of).chain(under_way.iter().copied()).collect(), under_way)
    }

    /// Lets all leave that will. Gives the order in which it left.
    fn run_out(&mut self) -> Vec<u128> {
        let mut left = Vec::new();
        for entry in std::mem::take(&mut self.under_way) {
            self.finish(entry);
        }
        loop {
            self.take_in(usize::MAX);
            self.schedule.ring(self.now);
            let filled = self.fill();
            let before = self.schedule.len();
            if let Some(queued) = self.pick() {
                left.push(number(queued.key));
                let entry = self.under_way.pop().expect("it was just picked");
                self.finish(entry);
            } else if !filled && self.schedule.len() == before {
                match self.schedule.next_alarm() {
                    Some(next) => self.now = self.now.max(next),
                    None => return left,
                }
            }
        }
    }
}

#[test]
fn a_channel_keeps_no_more_in_memory_than_it_has_room_for_and_all_of_it_leaves_in_order() {
    for (ordered, lanes, held) in [(false, 1, 2), (true, 1, 2), (false, 500, 4), (true, 500, 4)] {
        let mut world = World::new(ordered, 1);
        let all: Vec<_> = (0..1_000).map(|n| number(world.accept(7, n % lanes, Priority::Normal))).collect();
        world.take_in(usize::MAX);
        assert_eq!(world.schedule.len(), held, "{lanes} lanes");
        assert!(!world.fill(), "it is full");
        assert_eq!(world.run_out(), all, "{lanes} lanes");
    }
}

#[test]
fn a_long_lane_that_is_busy_leaves_room_for_the_others_of_its_channel() {
    for ordered in [false, true] {
        let mut world = World::new(ordered, 9);
        let long: Vec<_> = (0..10).map(|_| number(world.accept(7, 1, Priority::Normal))).collect();
        let other = world.accept(7, 2, Priority::Normal);
        world.take_in(usize::MAX);
        assert_eq!(world.pick().map(|queued| number(queued.key)), Some(long[0]));
        assert_eq!(world.pick().map(|queued| queued.key), Some(other), "it waits for nobody of another lane");
        let last = world.accept(7, 1, Priority::Normal);
        world.take_in(1);
        assert_eq!(world.run_out(), [&long[1..], &[number(last)]].concat(), "the long one goes on in order");
    }
}

#[test]
fn long_lanes_that_all_wait_leave_room_for_another_though_their_channels_shelf_was_full() {
    for ordered in [false, true] {
        let mut world = World::new(ordered, 99);
        for lane in 0..6 {
            for _ in 0..10 {
                world.accept(7, lane, Priority::Normal);
            }
        }
        let other = world.accept(7, 99, Priority::Normal);
        world.take_in(usize::MAX);
        let mut picked = Vec::new();
        for _ in 0..200 {
            picked.extend(world.pick().map(|queued| queued.key));
            world.fill();
        }
        assert_eq!(picked.len(), 7, "one of each lane");
        assert!(picked.contains(&other));
        assert!(world.schedule.len() <= 4 * CAPACITY.shelf + FIND, "{}", world.schedule.len());
        assert_eq!(world.run_out().len(), 61 - 7);
    }
}

#[test]
fn a_head_that_was_taken_back_lets_its_lane_go_on_though_the_lane_is_full() {
    let mut world = World::new(true, 9);
    for _ in 0..5 {
        world.accept(7, 1, Priority::Normal);
    }
    world.take_in(usize::MAX);
    world.pick().unwrap();
    let head = world.under_way.remove(0);
    world.fail(head, 60_000);
    let taken_back = world.stored.remove(&head.key).unwrap();
    world.arriving.push_back(Queued { due: Timestamp::ZERO, ..taken_back });
    world.take_in(1);
    assert_eq!(world.pick(), None, "it has ended");
    assert_eq!(world.pick().map(|queued| number(queued.key)), Some(2));
    assert_eq!(world.run_out(), [3, 4, 5]);
}

#[test]
fn scheduled_ones_of_a_lane_do_not_hold_up_what_may_go_now() {
    for ordered in [false, true] {
        let mut world = World::new(ordered, 9);
        for _ in 0..3 {
            let key = world.accept(7, 1, Priority::Normal);
            let due = world.now.plus(Duration::from_secs(60));
            world.arriving.back_mut().unwrap().due = due;
            world.stored.get_mut(&key).unwrap().due = due;
        }
        let now = world.accept(7, 1, Priority::Normal);
        world.take_in(usize::MAX);
        assert_eq!(world.pick().map(|queued| queued.key), Some(now));
    }
}

#[test]
fn what_a_lane_has_in_the_store_is_read_a_few_times_only() {
    let mut world = World::new(false, 1);
    for number in 0..600 {
        world.accept(7, number % 3, Priority::Normal);
    }
    world.take_in(usize::MAX);
    assert_eq!(world.run_out().len(), 600);
    assert!(world.looks <= 600, "{} looks for 600 deliveries", world.looks);
}

#[test]
fn what_comes_later_does_not_overtake_what_is_left_to_the_store() {
    let mut world = World::with_long_lanes(false, 1);
    for _ in 0..6 {
        world.accept(7, 1, Priority::Normal);
    }
    world.take_in(6);
    for _ in 0..3 {
        world.pick().unwrap();
        let entry = world.under_way.remove(0);
        world.finish(entry);
    }
    // There is room again, but the next ones are not taken in yet.
    world.accept(7, 1, Priority::Normal);
    world.take_in(1);
    assert_eq!(world.run_out(), [4, 5, 6, 7]);
}

#[test]
fn an_urgent_one_does_not_wait_for_what_is_left_to_the_store() {
    let mut world = World::new(false, 1);
    for _ in 0..100 {
        world.accept(7, 1, Priority::Normal);
    }
    world.take_in(100);
    let urgent = world.accept(7, 1, Priority::High);
    world.take_in(1);
    assert_eq!(world.pick().map(|queued| queued.key), Some(urgent));
}

#[test]
fn a_backlog_of_one_channel_leaves_room_for_every_other() {
    let mut world = World::new(false, 1);
    for channel in 0..50 {
        for lane in 0..20 {
            world.accept(channel, lane, Priority::Normal);
        }
    }
    world.take_in(usize::MAX);
    assert!(world.schedule.len() <= CAPACITY.all + 50 * CAPACITY.shelf, "{}", world.schedule.len());
    let other = world.accept(99, 0, Priority::Low);
    world.take_in(1);
    let soon: HashSet<_> = (0..51).filter_map(|_| world.pick()).map(|queued| queued.key).collect();
    assert!(soon.contains(&other));
    assert_eq!(soon.len(), 51, "each has its turn");
}

#[test]
fn retries_that_wait_leave_room_for_what_is_new() {
    let mut world = World::new(false, 1);
    for lane in 0..30 {
        world.accept(7, lane, Priority::Normal);
    }
    world.take_in(usize::MAX);
    let mut tried = 0;
    while tried < 3 * CAPACITY.shelf {
        world.fill();
        if world.pick().is_some() {
            let entry = world.under_way.remove(0);
            world.fail(entry, 60_000);
            tried += 1;
        }
    }
    assert!(world.schedule.len() <= 4 * CAPACITY.shelf + FIND, "{}", world.schedule.len());
    assert_eq!(world.run_out().len(), 30);
}

/// Has the next delivery tried and told to wait for a second. Gives its number and for how long it waits.
fn limit_next(world: &mut World, scope: Scope, seconds: u32) -> (u128, u32) {
    world.schedule.ring(world.now);
    let queued = world.pick().expect("one may go");
    let entry = world.under_way.pop().unwrap();
    let pause = world.now.plus(Duration::from_secs(1));
    let gate = &mut world.schedule.channel(entry.channel()).gate;
    let limited = entry.limited.again(gate.others_pass() && scope == Scope::Channel);
    let told = SendErrorKind::RateLimited { retry_after: None, scope };
    gate.leave(Err(told), "", pause, world.now, world.now);
    let due = world.now.plus(Duration::from_secs(1) * limited.stretch());
    let stored = world.stored.get_mut(&entry.key).unwrap();
    (stored.due, stored.tried) = (due, true);
    let lane = if limited.makes_way() { Lane::Free } else { Lane::FreeAt(pause) };
    if !world.ordered {
        world.schedule.left(entry, lane, world.now);
    }
    world.schedule.insert(entry.channel(), &Queued { due, tried: true, ..queued }, limited, world.now);
    if world.ordered {
        world.schedule.left(entry, Lane::Free, world.now);
    }
    world.now = world.now.plus(Duration::from_secs(u64::from(seconds)));
    (number(queued.key), limited.stretch())
}

fn send_next(world: &mut World) -> Option<u128> {
    world.schedule.ring(world.now);
    let queued = world.pick()?;
    let entry = world.under_way.pop().unwrap();
    world.finish(entry);
    Some(number(queued.key))
}

#[test]
fn one_that_is_told_to_wait_goes_behind_the_others_of_its_channel() {
    let mut world = World::new(false, 1);
    for lane in 1..=3 {
        world.accept(7, lane, Priority::Normal);
    }
    world.take_in(3);
    assert_eq!(limit_next(&mut world, Scope::Channel, 1), (1, 1));
    let order: Vec<_> = std::iter::from_fn(|| send_next(&mut world)).collect();
    assert_eq!(order, [2, 3, 1]);
}

#[test]
fn one_that_is_told_to_wait_once_keeps_its_place_in_its_lane_and_then_makes_way() {
    for scope in [Scope::Channel, Scope::Lane] {
        let mut world = World::with_long_lanes(false, 1);
        for _ in 0..3 {
            world.accept(7, 1, Priority::Normal);
        }
        world.take_in(3);
        assert_eq!(limit_next(&mut world, scope, 1), (1, 1));
        assert_eq!(limit_next(&mut world, scope, 1), (1, 1), "its lane keeps its order");
        let order: Vec<_> = std::iter::from_fn(|| send_next(&mut world)).collect();
        assert_eq!(order, [2, 3, 1], "{scope:?}");
    }
}

#[test]
fn an_ordered_lane_keeps_its_head_however_often_that_is_told_to_wait() {
    let mut world = World::new(true, 1);
    for lane in [1, 1, 2] {
        world.accept(7, lane, Priority::Normal);
    }
    world.take_in(3);
    assert_eq!(limit_next(&mut world, Scope::Channel, 1).0, 1);
    assert_eq!(send_next(&mut world), Some(3), "another lane goes first");
    for _ in 0..4 {
        assert_eq!(limit_next(&mut world, Scope::Channel, 5).0, 1);
    }
    let order: Vec<_> = std::iter::from_fn(|| send_next(&mut world)).collect();
    assert_eq!(order, [1, 2]);
}

#[test]
fn one_that_is_told_to_wait_again_and_again_waits_longer_only_where_others_pass() {
    for others in [false, true] {
        let mut world = World::new(false, 1);
        world.accept(7, 1, Priority::Normal);
        world.take_in(1);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let other = others.then(|| number(world.accept(7, 2, Priority::Normal)));
            world.take_in(1);
            waits.push(limit_next(&mut world, Scope::Channel, 100).1);
            if others {
                assert_eq!(send_next(&mut world), other);
            }
        }
        assert_eq!(waits, if others { [1, 1, 2, 4, 8, 16] } else { [1; 6] });
    }
}

#[test]
fn a_channel_that_has_its_share_under_way_leaves_the_rest_to_those_that_have_nothing() {
    let mut world = World::new(false, 100);
    for channel in [1, 2] {
        for lane in 0..10 {
            world.accept(channel, lane, Priority::Normal);
        }
        world.take_in(usize::MAX);
        while world.pick().is_some() {}
    }
    assert_eq!(world.under_way.len(), 8);
    while world.fill() {}
    world.accept(3, 1, Priority::Low);
    world.accept(3, 2, Priority::Low);
    world.take_in(2);
    world.schedule.set_share(1);
    assert_eq!(world.pick().map(|queued| queued.channel.uuid().as_u128()), Some(3));
    assert_eq!(world.pick(), None, "the others have more than their share");
    world.schedule.set_share(5);
    let more: Vec<_> = std::iter::from_fn(|| world.pick()).map(|queued| queued.channel.uuid().as_u128()).collect();
    assert_eq!(more.iter().filter(|channel| **channel == 3).count(), 1);
    assert_eq!(more.iter().filter(|channel| **channel == 2).count(), 1);
    for entry in std::mem::take(&mut world.under_way) {
        world.finish(entry);
    }
    assert!(world.pick().is_some(), "what has come back makes room");
}

#[derive(Debug, Clone)]
enum Step {
    Accept { channel: u8, lane: u8, priority: u8, count: u8 },
    TakeIn(u8),
    Fill,
    Pick,
    Finish(u8),
    Fail(u8, u16),
    End(u8),
    Wait(u16),
    Reorder(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let accept = (0..3u8, 0..2u8, 0..3u8, 1..8u8).prop_map(|(channel, lane, priority, count)| Step::Accept {
        channel,
        lane,
        priority,
        count,
    });
    let step = prop_oneof![
        3 => accept,
        3 => (1..12u8).prop_map(Step::TakeIn),
        3 => Just(Step::Fill),
        5 => Just(Step::Pick),
        5 => any::<u8>().prop_map(Step::Finish),
        1 => (any::<u8>(), 1..300u16).prop_map(|(which, delay)| Step::Fail(which, delay)),
        1 => any::<u8>().prop_map(Step::End),
        1 => (1..300u16).prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Reorder),
    ];
    proptest::collection::vec(step, 1..300)
}

impl World {
    /// Whether nothing that should have gone before this one still waits, in memory or in the store.
    fn is_in_order(&self, picked: &Queued) -> bool {
        let of_lane = |other: &&Queued| {
            (other.channel, other.lane) == (picked.channel, picked.lane)
                && other.key != picked.key
                && (self.ordered || (other.priority == picked.priority && !other.tried && !picked.tried))
        };
        self.reordered || !self.stored.values().filter(of_lane).any(|other| other.key < picked.key)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// However much there is and whatever becomes of it: memory stays bounded, a lane's order holds across what is in
    /// memory and what is only in the store, and all leaves in the end.
    #[test]
    fn a_backlog_keeps_its_order_its_bounds_and_all_that_is_in_it(
        steps in steps(), ordered: bool, max in 1..4u32
    ) {
        let mut world = World::new(ordered, max);
        for step in steps {
            world.schedule.ring(world.now);
            match step {
                Step::Accept { channel, lane, priority, count } => for _ in 0..count {
                    world.accept(channel.into(), lane.into(), Priority::ALL[usize::from(priority)]);
                },
                Step::TakeIn(count) => world.take_in(count.into()),
                Step::Fill => drop(world.fill()),
                Step::Pick => if let Some(picked) = world.pick() {
                    prop_assert!(world.is_in_order(&picked), "{picked:?} has overtaken another");
                    let same = world.under_way.iter().map(|entry| world.stored[&entry.key]);
                    let same = same.filter(|other| (other.channel, other.lane) == (picked.channel, picked.lane));
                    prop_assert_eq!(same.count(), 1, "a lane has one under way");
                },
                Step::Finish(which) if !world.under_way.is_empty() => {
                    let entry = world.under_way.swap_remove(usize::from(which) % world.under_way.len());
                    world.finish(entry);
                }
                Step::Fail(which, delay) if !world.under_way.is_empty() => {
                    let entry = world.under_way.swap_remove(usize::from(which) % world.under_way.len());
                    world.fail(entry, delay.into());
                }
                // Canceled, expired, superseded: the schedule is not told.
                Step::End(which) => {
                    let waits = |key: &&DeliveryKey| world.under_way.iter().all(|entry| entry.key != **key);
                    let keys: Vec<_> = world.stored.keys().filter(waits).copied().collect();
                    if !keys.is_empty() {
                        world.stored.remove(&keys[usize::from(which) % keys.len()]);
                    }
                }
                Step::Wait(millis) => world.now = world.now.plus(Duration::from_millis(millis.into())),
                // Rarely: most runs are to be of one order.
                Step::Reorder(which) if which % 8 == 0 => world.reorder(usize::from(which / 8)),
                Step::Finish(_) | Step::Fail(..) | Step::Reorder(_) => {}
            }
            let most = 9 * (4 * CAPACITY.shelf + FIND + 3);
            prop_assert!(world.schedule.len() <= most, "{} are held", world.schedule.len());
            let held: HashMap<_, _> = world.schedule.channels.iter().map(|channel| (channel.id, channel)).collect();
            let counted: usize = held.values().flat_map(|channel| &channel.shelves).map(Shelf::held).sum();
            prop_assert_eq!(counted, world.schedule.len());
        }
        let (may_go, picked) = world.pick_all_without_an_end();
        prop_assert_eq!(may_go, picked, "each lane has its first under way, whatever the others do");
        world.run_out();
        prop_assert_eq!(world.stored.len(), 0, "all has left");
        prop_assert_eq!(world.schedule.len(), 0);
    }
}

#[path = "reshape_tests.rs"]
mod reshape_tests;
