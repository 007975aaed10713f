//! The schedule's promises, as tables and as properties.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

use conductor_core::{NotificationId, Rate, SendErrorKind};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const START: i64 = 1_705_314_600_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

/// A schedule whose channels are numbered; channel `n` belongs to tenant `n / 10`.
#[derive(Default)]
struct World {
    schedule: Schedule,
    next: u128,
    ordered: bool,
    max: u32,
    weights: HashMap<u128, u32>,
    rate: Option<Rate>,
}

impl World {
    fn new(max: u32) -> Self {
        Self { max, ..Self::default() }
    }

    fn queued(&mut self, channel: u128, lane: u64, priority: Priority, due: Timestamp) -> Queued {
        self.next += 1;
        Queued {
            key: DeliveryKey { notification: NotificationId::new(Uuid::from_u128(self.next)), ordinal: 0 },
            tenant: TenantId::new(Uuid::from_u128(channel / 10)),
            channel: ChannelId::new(Uuid::from_u128(channel)),
            lane,
            priority,
            due,
            tried: false,
            suspect: false,
            limited: None,
        }
    }

    fn insert(&mut self, queued: &Queued, now: Timestamp) {
        let gate = Gate::new(self.max, self.rate);
        let weight = *self.weights.get(&queued.tenant.uuid().as_u128()).unwrap_or(&1);
        let ordered = self.ordered;
        let place = self.schedule.channel_place(queued.tenant, queued.channel, || (gate, ordered, weight));
        self.schedule.insert(place, queued, Limited::default(), now);
    }

    fn add(&mut self, channel: u128, lane: u64, priority: Priority) -> u128 {
        let queued = self.queued(channel, lane, priority, at(0));
        self.insert(&queued, at(0));
        self.next
    }

    fn finish(&mut self, entry: Entry, now: Timestamp) {
        self.schedule.channel(entry.channel()).gate.leave(Ok(()), "", now, now, now);
        self.schedule.left(entry, Lane::Free, now);
    }

    /// Lets time pass until nothing happens any more. Gives how many have left.
    fn run_out(&mut self, mut now: Timestamp) -> usize {
        let mut left = 0;
        loop {
            self.schedule.ring(now);
            left += self.drain(now).len();
            match self.schedule.next_alarm() {
                Some(next) => now = now.max(next),
                None => return left,
            }
        }
    }

    fn drain(&mut self, now: Timestamp) -> Vec<Entry> {
        let mut all = Vec::new();
        while let Some(entry) = self.schedule.pick(now) {
            self.finish(entry, now);
            all.push(entry);
        }
        all
    }
}

fn number(entry: &Entry) -> u128 {
    entry.key.notification.uuid().as_u128()
}

#[test]
fn a_lane_goes_one_at_a_time_in_order_and_others_pass_it() {
    let mut world = World::new(10);
    for lane in [1, 1, 1, 2] {
        world.add(0, lane, Priority::Normal);
    }
    let first = world.schedule.pick(at(0)).unwrap();
    let other = world.schedule.pick(at(0)).unwrap();
    assert_eq!((number(&first), number(&other)), (1, 4));
    assert_eq!(world.schedule.pick(at(0)), None);
    world.finish(first, at(0));
    let second = world.schedule.pick(at(0)).unwrap();
    assert_eq!(number(&second), 2);
    world.finish(second, at(0));
    assert_eq!(number(&world.schedule.pick(at(0)).unwrap()), 3);
    assert_eq!(world.schedule.len(), 0);
}

#[test]
fn a_failing_head_is_passed_unless_the_channel_is_ordered() {
    for ordered in [false, true] {
        let mut world = World { ordered, ..World::new(10) };
        world.add(0, 1, Priority::Normal);
        world.add(0, 1, Priority::Normal);
        let head = world.schedule.pick(at(0)).unwrap();
        let retry = Queued { due: at(5_000), tried: true, ..world.queued(0, 1, Priority::Normal, at(0)) };
        let retry = Queued { key: head.key, ..retry };
        world.schedule.channel(head.channel()).gate.leave(Err(SendErrorKind::Unknown), "", at(0), at(0), at(0));
        if !ordered {
            world.schedule.left(head, Lane::Free, at(0));
        }
        world.insert(&retry, at(0));
        if ordered {
            world.schedule.left(head, Lane::Free, at(0));
        }
        let next = world.schedule.pick(at(0));
        assert_eq!(next.as_ref().map(number), if ordered { None } else { Some(2) });
        if let Some(next) = next {
            world.finish(next, at(0));
        }
        assert_eq!(world.schedule.next_alarm(), Some(at(5_000)));
        world.schedule.ring(at(5_000));
        let rest: Vec<_> = world.drain(at(5_000)).iter().map(number).collect();
        assert_eq!(rest, if ordered { vec![1, 2] } else { vec![1] });
    }
}

#[test]
fn a_lane_that_was_told_to_wait_keeps_its_order() {
    let mut world = World::new(10);
    for _ in 0..3 {
        world.add(0, 1, Priority::Normal);
    }
    let head = world.schedule.pick(at(0)).unwrap();
    assert_eq!(world.schedule.pick(at(0)), None);
    world.schedule.channel(head.channel()).gate.withdraw();
    world.schedule.left(head, Lane::FreeAt(at(900)), at(0));
    let retry = Queued { key: head.key, due: at(900), ..world.queued(0, 1, Priority::Normal, at(0)) };
    world.insert(&retry, at(0));
    world.schedule.ring(at(899));
    assert_eq!(world.schedule.pick(at(899)), None);
    world.schedule.ring(at(900));
    let order: Vec<_> = world.drain(at(900)).iter().map(number).collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn high_goes_first_but_normal_and_low_are_not_starved() {
    let mut world = World::new(1);
    let low = world.add(0, 1, Priority::Low);
    let normal = world.add(0, 2, Priority::Normal);
    for lane in 0..200 {
        world.add(0, 10 + lane, Priority::High);
    }
    let order: Vec<_> = world.drain(at(0)).iter().map(number).collect();
    assert_eq!(order[0], normal + 1);
    assert!(order.iter().position(|n| *n == normal).unwrap() < 10);
    assert!(order.iter().position(|n| *n == low).unwrap() < 70);
}

#[test]
fn tenants_take_turns_by_weight() {
    let mut world = World::new(1_000);
    world.weights = HashMap::from([(0, 1), (1, 3)]);
    for lane in 0..400 {
        world.add(0, lane, Priority::Normal);
        world.add(10, lane, Priority::Normal);
    }
    let picks: Vec<_> = (0..200).map(|_| world.schedule.pick(at(0)).unwrap()).collect();
    let of_second = picks.iter().filter(|entry| number(entry).is_multiple_of(2)).count();
    assert_eq!(of_second, 150);
}

#[test]
fn a_new_tenants_first_is_next_however_much_another_has_queued() {
    let mut world = World::new(1_000_000);
    for lane in 0..10_000 {
        world.add(0, lane, Priority::High);
    }
    for _ in 0..100 {
        world.schedule.pick(at(0)).unwrap();
    }
    let new = world.add(10, 0, Priority::Low);
    let soon: Vec<_> = (0..2).map(|_| number(&world.schedule.pick(at(0)).unwrap())).collect();
    assert!(soon.contains(&new));
}

#[test]
fn a_channel_that_is_full_leaves_the_others_their_turns() {
    let mut world = World::new(1);
    world.add(0, 1, Priority::High);
    world.add(0, 2, Priority::High);
    world.add(1, 1, Priority::Low);
    let first = world.schedule.pick(at(0)).unwrap();
    let second = world.schedule.pick(at(0)).unwrap();
    assert_eq!((number(&first), number(&second)), (1, 3));
    assert_eq!(world.schedule.pick(at(0)), None);
    world.finish(first, at(0));
    assert_eq!(number(&world.schedule.pick(at(0)).unwrap()), 2);
}

#[test]
fn a_paced_channel_wakes_by_itself() {
    let number_of = |n| NonZeroU32::new(n).unwrap();
    let rate = Rate { limit: number_of(1), per: Duration::from_millis(100), burst: number_of(1) };
    let mut world = World { rate: Some(rate), ..World::new(10) };
    for lane in 0..3 {
        world.add(0, lane, Priority::Normal);
    }
    let mut times = Vec::new();
    let mut now = at(0);
    loop {
        world.schedule.ring(now);
        times.extend(world.drain(now).iter().map(|_| now.since(at(0)).as_millis()));
        match world.schedule.next_alarm() {
            Some(next) if times.len() < 3 => now = next,
            _ => break,
        }
    }
    assert_eq!(times, [0, 100, 200]);
}

#[test]
fn a_clock_that_is_put_back_leaves_no_channel_and_no_lane_waiting() {
    let number_of = |n| NonZeroU32::new(n).unwrap();
    let rate = Rate { limit: number_of(1), per: Duration::from_secs(1), burst: number_of(1) };
    let mut world = World { rate: Some(rate), ..World::new(10) };
    let hour_earlier = |millis: i64| at(millis - 3_600_000);
    for lane in 0..2 {
        world.add(0, lane, Priority::Normal);
    }
    world.schedule.ring(at(0));
    assert_eq!(world.drain(at(0)).len(), 1);
    world.schedule.ring(hour_earlier(0));
    assert_eq!(world.drain(hour_earlier(0)).len(), 0);
    assert_eq!(world.schedule.next_alarm(), Some(hour_earlier(1_000)));
    world.schedule.ring(hour_earlier(1_000));
    assert_eq!(world.drain(hour_earlier(1_000)).len(), 1);

    let mut world = World::new(10);
    world.add(0, 1, Priority::Normal);
    world.add(0, 1, Priority::Normal);
    world.schedule.ring(at(0));
    let head = world.schedule.pick(at(0)).unwrap();
    world.schedule.channel(head.channel()).gate.withdraw();
    world.schedule.left(head, Lane::FreeAt(at(900)), at(0));
    world.schedule.ring(hour_earlier(0));
    assert!(world.drain(hour_earlier(0)).is_empty());
    world.schedule.ring(hour_earlier(900));
    assert_eq!(world.drain(hour_earlier(900)).len(), 1, "the lane was to wait for less than a second");
}

#[test]
fn needless_alarms_do_not_pile_up() {
    let number_of = |n| NonZeroU32::new(n).unwrap();
    let rate = Rate { limit: number_of(1), per: Duration::from_millis(100), burst: number_of(20) };
    let mut world = World { rate: Some(rate), ..World::new(20) };
    for lane in 0..2_000 {
        world.add(0, lane, Priority::Normal);
    }
    let mut now = at(0);
    for round in 0..20 {
        world.schedule.ring(now);
        let mut entries: Vec<_> = (0..11).map(|_| world.schedule.pick(now).unwrap()).collect();
        let straggler = entries.pop().unwrap();
        for entry in entries {
            let failed = Err(SendErrorKind::Retryable { retry_after: None });
            world.schedule.channel(entry.channel()).gate.leave(failed, "", now, now, now);
            world.schedule.left(entry, Lane::Free, now);
        }
        assert_eq!(world.schedule.pick(now), None, "the breaker is open, and an alarm is set for its end");
        world.finish(straggler, now);
        for _ in 0..40 {
            world.schedule.ring(now);
            world.drain(now);
            now = now.plus(Duration::from_millis(100));
        }
        assert!(world.schedule.len() > 0);
        assert!(world.schedule.alarms.len() <= 1, "{} alarms in round {round}", world.schedule.alarms.len());
        now = now.plus(Duration::from_secs(5));
    }
}

#[test]
fn what_is_to_be_sent_later_holds_nobody_back_and_keeps_its_order_when_it_is_due() {
    for ordered in [false, true] {
        let mut world = World { ordered, ..World::new(10) };
        let scheduled = world.queued(0, 1, Priority::Normal, at(60_000));
        world.insert(&scheduled, at(0));
        let now = world.add(0, 1, Priority::Normal);
        assert_eq!(world.drain(at(0)).iter().map(number).collect::<Vec<_>>(), [now]);
        // The next one fails and waits until long after the first is due.
        let failing = world.add(0, 1, Priority::Normal);
        let entry = world.schedule.pick(at(0)).unwrap();
        let retry = Queued { tried: true, key: entry.key, ..world.queued(0, 1, Priority::Normal, at(90_000)) };
        world.schedule.channel(entry.channel()).gate.withdraw();
        world.insert(&retry, at(0));
        world.schedule.left(entry, Lane::Free, at(0));
        assert!(world.drain(at(0)).is_empty());
        world.schedule.ring(at(60_000));
        let entry = world.schedule.pick(at(60_000)).expect("what is due goes");
        assert_eq!(entry.key, scheduled.key);
        // It fails too, and is due again before the other.
        let retry = Queued { tried: true, due: at(61_000), ..scheduled };
        world.schedule.channel(entry.channel()).gate.withdraw();
        world.insert(&retry, at(60_000));
        world.schedule.left(entry, Lane::Free, at(60_000));
        world.schedule.ring(at(61_000));
        assert_eq!(world.drain(at(61_000)).iter().map(|entry| entry.key).collect::<Vec<_>>(), [scheduled.key]);
        world.schedule.ring(at(90_000));
        assert_eq!(world.drain(at(90_000)).iter().map(number).collect::<Vec<_>>(), [failing]);
    }
}

#[test]
fn what_is_put_back_keeps_its_place() {
    for ordered in [false, true] {
        let mut world = World { ordered, ..World::new(10) };
        for _ in 0..3 {
            world.add(0, 1, Priority::Normal);
        }
        let head = world.schedule.pick(at(0)).unwrap();
        world.schedule.channel(head.channel()).gate.withdraw();
        world.schedule.put_back(head, at(0));
        assert_eq!(world.schedule.len(), 3);
        assert_eq!(world.drain(at(0)).iter().map(number).collect::<Vec<_>>(), [1, 2, 3]);
    }
}

#[test]
fn a_head_that_was_taken_back_lets_its_lane_go_on_though_its_retry_is_told_after_that() {
    let mut world = World { ordered: true, ..World::new(2) };
    world.add(0, 1, Priority::Normal);
    world.add(0, 1, Priority::Normal);
    let head = world.schedule.pick(at(0)).unwrap();
    let retry = Queued { key: head.key, tried: true, ..world.queued(0, 1, Priority::Normal, at(5_000)) };
    world.insert(&Queued { due: Timestamp::ZERO, ..retry }, at(0));
    world.insert(&retry, at(0));
    world.finish(head, at(0));
    assert_eq!(world.drain(at(0)).iter().map(number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(world.schedule.len(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Add { channel: u8, lane: u8, priority: u8, delay: u16 },
    Pick,
    Finish(u8),
    Retry(u8, u16),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..25u8, 0..3u8, 0..3u8, prop_oneof![3 => Just(0u16), 1 => 0..500u16])
            .prop_map(|(channel, lane, priority, delay)| Step::Add { channel, lane, priority, delay }),
        4 => Just(Step::Pick),
        3 => any::<u8>().prop_map(Step::Finish),
        1 => (any::<u8>(), 1..500u16).prop_map(|(which, delay)| Step::Retry(which, delay)),
        1 => (1..300u16).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever happens: nothing is lost or doubled, no lane has two under way, no channel has more under way than
    /// allowed, nothing leaves early, and an ordered lane leaves in order.
    #[test]
    fn nothing_is_lost_doubled_early_or_out_of_order(steps in steps(), ordered: bool, max in 1..4u32) {
        let mut world = World { ordered, ..World::new(max) };
        let mut waiting: HashMap<DeliveryKey, Queued> = HashMap::new();
        let mut under_way: Vec<(Entry, Queued)> = Vec::new();
        let mut last_ended: HashMap<(ChannelId, u64), DeliveryKey> = HashMap::new();
        // What is to be sent later has its place in the order from then on.
        let mut late = HashSet::new();
        let mut now = at(0);
        for step in steps {
            world.schedule.ring(now);
            match step {
                Step::Add { channel, lane, priority, delay } => {
                    let due = now.plus(Duration::from_millis(delay.into()));
                    let priority = Priority::ALL[usize::from(priority)];
                    let queued = world.queued(channel.into(), lane.into(), priority, due);
                    if delay > 0 {
                        late.insert(queued.key);
                    }
                    world.insert(&queued, now);
                    waiting.insert(queued.key, queued);
                }
                Step::Pick => if let Some(entry) = world.schedule.pick(now) {
                    let queued = waiting.remove(&entry.key).expect("it waited");
                    prop_assert!(queued.due <= now);
                    let same = |(_, other): &&(Entry, Queued)| other.channel == queued.channel;
                    prop_assert!(under_way.iter().filter(same).count() < max as usize);
                    prop_assert!(!under_way.iter().filter(same).any(|(_, other)| other.lane == queued.lane));
                    if ordered && !late.contains(&queued.key) {
                        let before = last_ended.get(&(queued.channel, queued.lane));
                        prop_assert!(before.is_none_or(|before| *before < queued.key));
                        let earlier = waiting.values().any(|other| {
                            (other.channel, other.lane) == (queued.channel, queued.lane)
                                && other.key < queued.key && !late.contains(&other.key)
                        });
                        prop_assert!(!earlier, "an earlier one of the lane still waits");
                    }
                    under_way.push((entry, queued));
                },
                Step::Finish(which) if !under_way.is_empty() => {
                    let (entry, queued) = under_way.swap_remove(usize::from(which) % under_way.len());
                    last_ended.insert((queued.channel, queued.lane), queued.key);
                    world.finish(entry, now);
                }
                Step::Retry(which, delay) if !under_way.is_empty() => {
                    let (entry, queued) = under_way.swap_remove(usize::from(which) % under_way.len());
                    world.schedule.channel(entry.channel()).gate.withdraw();
                    let due = now.plus(Duration::from_millis(delay.into()));
                    let queued = Queued { due, tried: true, ..queued };
                    world.insert(&queued, now);
                    world.schedule.left(entry, Lane::Free, now);
                    waiting.insert(queued.key, queued);
                }
                Step::Wait(millis) => now = now.plus(Duration::from_millis(millis.into())),
                Step::Finish(_) | Step::Retry(..) => {}
            }
            prop_assert_eq!(world.schedule.len(), waiting.len());
        }
        for (entry, _) in under_way {
            world.finish(entry, now);
        }
        let left = world.run_out(now);
        prop_assert_eq!(left, waiting.len());
    }
}
