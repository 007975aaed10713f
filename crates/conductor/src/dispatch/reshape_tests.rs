//! Channels that become ordered, or are so no more, while much waits.

use super::*;

impl World {
    /// One of the channels has the other order from now on.
    pub(super) fn reorder(&mut self, which: usize) {
        if let Some(which) = which.checked_rem(self.schedule.channels.len()) {
            self.reordered = true;
            let ordered = !self.schedule.channels[which].ordered;
            self.schedule.reorder(place_of(which), ordered);
        }
    }

    fn pick_and_fill(&mut self) -> Vec<u128> {
        let mut picked = Vec::new();
        for _ in 0..100 {
            self.fill();
            picked.extend(self.pick().map(|queued| number(queued.key)));
        }
        picked
    }
}

#[test]
fn those_behind_a_failing_head_go_when_their_channel_is_ordered_no_more() {
    let mut world = World::new(true, 9);
    let all: Vec<_> = (0..20).map(|_| number(world.accept(7, 1, Priority::Normal))).collect();
    world.take_in(usize::MAX);
    world.pick();
    let head = world.under_way.pop().expect("the head");
    world.fail(head, 3_600_000);
    assert_eq!(world.pick_and_fill(), []);
    world.reorder(0);
    assert_eq!(world.pick_and_fill(), all[1..2], "one of a lane at a time");
    assert_eq!(world.run_out(), [&all[2..], &all[..1]].concat());
    assert_eq!((world.schedule.len(), world.stored.len()), (0, 0));
}

#[test]
fn those_behind_a_failing_head_wait_when_their_channel_becomes_ordered() {
    let mut world = World::new(false, 9);
    let all: Vec<_> = (0..20).map(|n| number(world.accept(7, n % 2, Priority::Normal))).collect();
    world.take_in(usize::MAX);
    for number_of in &all[..2] {
        assert_eq!(world.pick().map(|queued| number(queued.key)), Some(*number_of));
    }
    let head = world.under_way.remove(0);
    world.fail(head, 3_600_000);
    world.reorder(0);
    assert_eq!(world.pick_and_fill(), [], "one lane has a failing head, the other is busy");
    let odd: Vec<_> = all.iter().skip(3).step_by(2).copied().collect();
    let entry = world.under_way.pop().expect("the other lane's first");
    world.finish(entry);
    assert_eq!(world.pick_and_fill(), odd[..1], "the other lane goes on");
    let left = world.run_out();
    let even: Vec<_> = left.iter().filter(|number| *number % 2 == all[0] % 2).copied().collect();
    assert_eq!(even, all.iter().step_by(2).copied().collect::<Vec<_>>(), "the head goes first");
    assert_eq!((left.len(), world.schedule.len(), world.stored.len()), (18, 0, 0));
}

#[test]
fn channels_that_come_and_go_leave_nothing_behind() {
    let mut world = World::new(false, 2);
    for round in 0..50 {
        for n in 0..20 {
            world.accept(7 + round, n % 3, Priority::Normal);
            world.accept(1, n % 3, Priority::Normal);
        }
        world.take_in(usize::MAX);
        world.pick();
        let head = world.under_way.pop().expect("one may go");
        world.fail(head, 50);
        world.schedule.forget(|id| id.uuid().as_u128() != 1);
        assert_eq!(world.run_out().len(), 40, "nothing is forgotten that waits");
        world.schedule.forget(|id| id.uuid().as_u128() != 1);
        assert_eq!((world.schedule.channel_places.len(), world.schedule.channels.len()), (1, 2));
    }
    assert_eq!(world.schedule.len(), 0);
}

#[test]
fn what_is_under_way_holds_its_lane_through_both_changes() {
    for ordered in [false, true] {
        let mut world = World::new(ordered, 9);
        let all: Vec<_> = (0..6).map(|n| number(world.accept(7, n % 2, Priority::Normal))).collect();
        world.take_in(usize::MAX);
        assert_eq!(world.pick().map(|queued| number(queued.key)), Some(all[0]));
        for _ in 0..2 {
            world.reorder(0);
        }
        assert_eq!(world.pick_and_fill(), all[1..2], "the other lane alone");
        world.reorder(0);
        assert_eq!(world.pick_and_fill(), []);
        assert_eq!(world.run_out().len(), 4);
    }
}
