//! What the next process finds.

use std::time::Duration;

use conductor_core::store::Claimed;
use conductor_core::{DeliveryKey, FailureReason, Outcome, Settlement, Status};

use crate::harness::*;

/// Crashes while a delivery that is suspect is under way.
async fn crash_while_sending(w: &mut World, key: DeliveryKey) {
    leased(w.claim_as(key, true).await);
    w.crash().await;
}

pub(crate) async fn a_restart_hands_over_all_that_waits_in_order(mut w: World) {
    let mut expected: Vec<_> = w.accept_many(2_500).await.into_iter().map(first).collect();
    expected.sort_unstable();
    w.crash().await;
    assert_eq!(w.arrivals(300).await.iter().map(queued_key).collect::<Vec<_>>(), expected);
    assert_eq!(w.arriving().await, []);
    w.restart().await;
    w.store().arrived().await;
    assert_eq!(w.arrivals(10_000_000).await.iter().map(queued_key).collect::<Vec<_>>(), expected);
}

pub(crate) async fn what_came_since_is_handed_over_after_what_was_left(mut w: World) {
    let mut expected: Vec<_> = w.accept_many(500).await.into_iter().map(first).collect();
    expected.sort_unstable();
    w.crash().await;
    let mut seen = w.store().arrivals(100).await.unwrap();
    for _ in 0..50 {
        expected.push(first(w.plain().await));
    }
    seen.extend(w.arrivals(100).await);
    assert_eq!(seen.iter().map(queued_key).collect::<Vec<_>>(), expected);
    assert!(seen[..500].iter().all(|queued| queued.suspect));
    assert!(seen[500..].iter().all(|queued| !queued.suspect), "these never saw a process die");
    assert_eq!(w.arriving().await, []);
    expected.push(first(w.plain().await));
    assert_eq!(w.arriving().await, expected[550..]);
}

pub(crate) async fn what_is_due_much_later_is_handed_over_when_its_time_comes_near(mut w: World) {
    let late = w.now().plus(2 * HOUR);
    assert!(w.store().look_ahead(w.now().plus(HOUR)));
    let tried = w.plain().await;
    w.attempt(first(tried), Settlement::RetryAt { due: late, counts: true, limited: None }).await;
    let near = w.plain().await;
    let far = w.accept(|d| (d.send_at, d.expires_at) = (Some(late), late.plus(HOUR))).await;
    for crash in [false, true] {
        if crash {
            w.crash().await;
        }
        assert!(w.store().look_ahead(w.now().plus(HOUR)));
        let handed_over: Vec<_> = w.arriving().await.into_iter().collect();
        assert!(handed_over.contains(&first(near)) && !handed_over.contains(&first(far)), "{handed_over:?}");
        assert!(!crash || handed_over.contains(&first(tried)), "one that was tried holds its place in its lane");
        assert!(w.store().look_ahead(late));
        assert_eq!(w.arriving().await.into_iter().collect::<Vec<_>>(), [first(far)]);
    }
}

pub(crate) async fn a_look_for_what_is_due_is_bounded_also_where_nothing_is(w: World) {
    assert!(w.store().look_ahead(w.now().plus(HOUR)));
    w.accept_many(9_000).await;
    let late = w.now().plus(2 * HOUR);
    let far = w.accept(|d| (d.send_at, d.expires_at) = (Some(late), late.plus(HOUR))).await;
    assert_eq!(w.arriving().await.len(), 9_000);
    assert!(w.store().look_ahead(late));
    let mut looks = 0;
    let found = loop {
        let found = w.store().arrivals(10).await.unwrap();
        looks += 1;
        if !found.is_empty() {
            break found;
        }
        tokio::time::timeout(10 * SECOND, w.store().arrived()).await.expect("it says that more follow");
    };
    assert_eq!(found.iter().map(queued_key).collect::<Vec<_>>(), [first(far)]);
    assert!(looks > 2, "{looks} looks went through all that waits");
    assert_eq!(w.arriving().await, []);
}

pub(crate) async fn nothing_that_ended_or_is_held_is_handed_over(mut w: World) {
    let sent = w.plain().await;
    w.attempt(first(sent), Settlement::Sent).await;
    w.held().await;
    w.dead_letter().await;
    let canceled = w.plain().await;
    w.cancel(canceled).await;
    w.crash().await;
    assert_eq!(w.arriving().await, []);
    w.restart().await;
    assert_eq!(w.arriving().await, []);
}

pub(crate) async fn after_a_stop_nothing_is_suspect(mut w: World) {
    let id = w.plain().await;
    let _under_way = w.lease(first(id)).await;
    w.restart().await;
    let arrivals = w.arrivals(10).await;
    assert_eq!(arrivals.len(), 1);
    assert!(!arrivals[0].suspect);
    assert_eq!(w.lease(first(id)).await.attempt, 1);
    assert!(w.story(id).await.deliveries[0].attempts.is_empty());
}

pub(crate) async fn after_a_crash_everything_is_suspect(mut w: World) {
    let under_way = w.plain().await;
    let _lease = w.lease(first(under_way)).await;
    let waiting = w.plain().await;
    w.crash().await;
    let arrivals = w.arrivals(10).await;
    assert_eq!(
        arrivals.iter().map(|q| (q.key, q.suspect)).collect::<Vec<_>>(),
        [(first(under_way), true), (first(waiting), true)]
    );
    assert_eq!(w.lease(first(under_way)).await.attempt, 1, "nothing is counted before it is known to be suspect");
}

pub(crate) async fn what_kills_the_process_is_counted_and_slowed_down(mut w: World) {
    let (id, innocent) = (w.plain().await, w.plain().await);
    let key = first(id);
    w.crash().await;
    for lost in 1..=3 {
        crash_while_sending(&mut w, key).await;
        let story = w.story(id).await;
        let attempts = &story.deliveries[0].attempts;
        assert_eq!(attempts.len(), lost);
        assert_eq!(attempts[lost - 1].outcome, Outcome::Unknown);
        assert!(attempts[lost - 1].detail.as_deref().unwrap().starts_with("the server stopped"));
        assert_eq!(story.status(), Status::Retrying);
        assert_eq!(story.deliveries[0].due_at, Some(w.now()), "three are due again at once");
    }
    let mut waits = Vec::new();
    for _ in 0..16 {
        crash_while_sending(&mut w, key).await;
        let due = w.story(id).await.deliveries[0].due_at.unwrap();
        match w.claim_as(key, true).await {
            Claimed::NotDue(queued) => assert!(queued.suspect && queued.due == due),
            other => panic!("{other:?}"),
        }
        waits.push(due.since(w.now()));
        w.clock.set(due);
    }
    assert_eq!(waits[0], SECOND);
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(waits[4] > waits[2] && waits.iter().all(|wait| *wait <= HOUR));
    assert_eq!(waits[15], HOUR);
    let lease = leased(w.claim_as(key, true).await);
    assert_eq!((lease.attempt, lease.failures), (20, 19));
    let numbers: Vec<_> = w.story(id).await.deliveries[0].attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (1..=19).collect::<Vec<_>>());
    assert!(w.story(innocent).await.deliveries[0].attempts.is_empty());
}

pub(crate) async fn a_settled_retry_starts_the_count_again(mut w: World) {
    let id = w.plain().await;
    w.crash().await;
    for _ in 0..3 {
        crash_while_sending(&mut w, first(id)).await;
    }
    let lease = leased(w.claim_as(first(id), true).await);
    let retry = w.finished(&lease, w.retry_in(Duration::ZERO));
    w.store().settle(lease, retry).await.unwrap();
    w.crash().await;
    assert_eq!(w.story(id).await.deliveries[0].attempts.len(), 4, "that attempt came to its end");
    crash_while_sending(&mut w, first(id)).await;
    let delivery = w.story(id).await.deliveries.remove(0);
    assert_eq!((delivery.attempts.len(), delivery.due_at), (5, Some(w.now())));
}

pub(crate) async fn a_released_suspect_is_not_blamed(mut w: World) {
    let id = w.plain().await;
    w.crash().await;
    w.store().release(leased(w.claim_as(first(id), true).await)).await;
    w.crash().await;
    assert!(w.story(id).await.deliveries[0].attempts.is_empty());
    assert_eq!(w.lease(first(id)).await.attempt, 1);
}

pub(crate) async fn a_suspect_that_is_not_due_is_not_blamed(mut w: World) {
    let id = w.accept(|d| d.send_at = Some(d.accepted_at.plus(HOUR))).await;
    w.crash().await;
    assert!(matches!(w.claim_as(first(id), true).await, Claimed::NotDue(_)));
    w.crash().await;
    assert!(w.story(id).await.deliveries[0].attempts.is_empty());
    assert_eq!(w.story(id).await.deliveries[0].due_at, Some(w.now().plus(HOUR)));
}

pub(crate) async fn a_held_suspect_is_not_blamed(mut w: World) {
    let id = w.held().await;
    w.crash().await;
    assert!(matches!(w.claim_as(first(id), true).await, Claimed::Gone));
    w.crash().await;
    assert_eq!(w.story(id).await.deliveries[0].attempts.len(), 1);
    assert_eq!(w.status(id).await, Status::Held);
}

pub(crate) async fn a_stop_after_a_crash_ends_the_suspicion(mut w: World) {
    let (under_way, waiting) = (w.plain().await, w.plain().await);
    w.crash().await;
    leased(w.claim_as(first(under_way), true).await);
    w.restart().await;
    assert!(w.arrivals(10).await.iter().all(|queued| !queued.suspect));
    for id in [under_way, waiting] {
        assert!(w.story(id).await.deliveries[0].attempts.is_empty());
        w.lease(first(id)).await;
    }
}

pub(crate) async fn fallbacks_and_retries_survive_a_crash(mut w: World) {
    let retried = w.plain().await;
    w.attempt(first(retried), w.retry_in(HOUR)).await;
    let failed = w.accept(|d| d.fallback = vec![fallback("slack", OTHER_CHANNEL, None)]).await;
    let next = w.attempt(first(failed), Settlement::Failed(FailureReason::Permanent)).await.next.unwrap();
    w.crash().await;
    let arrivals = w.arrivals(10).await;
    let seen: Vec<_> = arrivals.iter().map(|q| (q.key, q.channel, q.lane, q.due)).collect();
    let due = w.now().plus(HOUR);
    assert_eq!(seen[0], (first(retried), CHANNEL, seen[0].2, due));
    assert_eq!(seen[1..], [(next.key, OTHER_CHANNEL, next.lane, next.due)]);
    w.clock.advance(HOUR);
    let lease = w.lease(first(retried)).await;
    assert_eq!((lease.attempt, lease.failures), (2, 1));
}

pub(crate) async fn a_crash_at_the_very_start_leaves_a_good_store(mut w: World) {
    w.crash().await;
    w.crash().await;
    assert_eq!(w.arriving().await, []);
    assert_eq!(w.store().ping().await, Ok(()));
    let id = w.plain().await;
    assert_eq!(w.status(id).await, Status::Queued);
}
