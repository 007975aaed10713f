//! From accepted to ended, attempt by attempt.

use std::time::Duration;

use conductor_core::store::{
    Accepted, Claim, Claimed, FIRST_ATTEMPTS_KEPT, Filter, Finished, LAST_ATTEMPTS_KEPT, Settled,
};
use conductor_core::{DeliveryKey, Draft, FailureReason, Format, Outcome, Priority, Settlement, Status, StoreError};

use crate::harness::*;

pub(crate) async fn a_notification_goes_from_accepted_to_sent(w: World) {
    let id = w.plain().await;
    w.store().arrived().await;
    let arrivals = w.arrivals(10).await;
    assert_eq!(arrivals.len(), 1);
    let queued = arrivals[0];
    assert_eq!((queued.key, queued.tenant, queued.channel), (first(id), TENANT, CHANNEL));
    assert_eq!((queued.due, queued.priority, queued.suspect), (w.now(), Priority::Normal, false));
    assert_eq!(w.status(id).await, Status::Queued);

    let lease = w.lease(first(id)).await;
    assert_eq!((lease.attempt, lease.failures, lease.next_fallback), (1, 0, 0));
    assert_eq!((lease.channel, &lease.target, &lease.redirected), (CHANNEL, &None, &None));
    assert_eq!(lease.expires_at, w.now().plus(DAY));
    assert_eq!(w.status(id).await, Status::Sending);

    let finished = w.finished(&lease, Settlement::Sent);
    let settled = w.store().settle(lease, finished.clone()).await.unwrap();
    assert_eq!(settled, Settled { status: Status::Sent, next: None });
    assert_eq!(w.status(id).await, Status::Sent);
    let story = w.story(id).await;
    assert_eq!(story.deliveries.len(), 1);
    assert_eq!(story.deliveries[0].provider_id.as_deref(), Some("provider-1"));
    assert_eq!(story.deliveries[0].due_at, None);
    assert_eq!(story.deliveries[0].attempts, [finished.attempt.unwrap()]);
    assert!(w.is_gone(first(id)).await);
}

pub(crate) async fn a_hint_that_has_become_wrong_gives_no_lease(w: World) {
    assert!(w.is_gone(first(id_at(w.now(), 999))).await, "never heard of");
    let id = w.plain().await;
    assert!(w.is_gone(DeliveryKey { notification: id, ordinal: 1 }).await, "no such delivery");
    w.cancel(id).await;
    assert!(w.is_gone(first(id)).await, "canceled");
}

pub(crate) async fn all_fields_read_back_as_they_were_accepted(mut w: World) {
    let mut full = w.draft();
    full.channel = "matrix".into();
    full.target = Some("!räume:example.org".into());
    full.message = "Zeile 1\nZeile 2 'quoted' \"twice\" 🚀; DROP TABLE notification".into();
    full.title = Some("Überschrift".into());
    full.priority = Priority::High;
    full.format = Format::Markdown;
    full.data.insert("nested".into(), serde_json::json!({"list": [1, 2.5, null, true], "text": "ü"}));
    full.metadata.insert("room".into(), "Küche".into());
    full.key = Some("door".into());
    full.fallback = vec![fallback("slack", OTHER_CHANNEL, Some("#ops")), fallback("log", THIRD_CHANNEL, None)];
    full.trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok();
    assert!(full.trace.is_some());
    full.send_at = Some(w.now().plus(HOUR));
    full.expires_at = w.now().plus(2 * HOUR);
    let expected = new(full);
    let id = expected.notification.id;
    assert_eq!(w.store().accept(expected.clone()).await.unwrap(), Accepted::New { superseded: None });
    for round in ["at once", "after a crash"] {
        let story = w.story(id).await;
        assert_eq!(story.notification, *expected.notification, "{round}");
        assert_eq!(story.deliveries[0].channel, "matrix");
        assert_eq!(story.deliveries[0].target.as_deref(), Some("!räume:example.org"));
        let page = w.store().notifications(TENANT, &Filter::default(), 10, None).await.unwrap();
        assert_eq!(page.items[0].notification, *expected.notification);
        w.crash().await;
    }
    w.clock.advance(HOUR);
    assert_eq!(*w.lease(first(id)).await.notification, *expected.notification);
}

pub(crate) async fn a_lease_is_given_once(w: World) {
    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    assert!(w.is_gone(first(id)).await);
    let twice = [Claim { key: first(id), suspect: false }; 2];
    assert!(w.store().claim(&twice, w.now()).await.unwrap().iter().all(|c| matches!(c, Claimed::Gone)));
    w.store().release(lease).await;
    let claimed = w.store().claim(&twice, w.now()).await.unwrap();
    assert!(matches!(claimed[..], [Claimed::Leased(_), Claimed::Gone]), "{claimed:?}");
}

pub(crate) async fn a_used_lease_settles_nothing(w: World) {
    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    let stale = forge(&lease);
    let retry = w.finished(&lease, w.retry_in(SECOND));
    w.store().settle(lease, retry).await.unwrap();
    let sent = w.finished(&stale, Settlement::Sent);
    assert!(is_lost(w.store(), forge(&stale), sent.clone()).await);
    assert_eq!(w.status(id).await, Status::Retrying);

    w.clock.advance(SECOND);
    w.store().release(w.lease(first(id)).await).await;
    assert!(is_lost(w.store(), stale, sent).await);
    assert_eq!(w.story(id).await.deliveries[0].attempts.len(), 1);
}

pub(crate) async fn a_released_lease_leaves_no_trace(w: World) {
    let id = w.plain().await;
    for _ in 0..3 {
        let lease = w.lease(first(id)).await;
        assert_eq!((lease.attempt, lease.failures), (1, 0));
        w.store().release(lease).await;
        assert_eq!(w.status(id).await, Status::Queued);
        assert!(w.story(id).await.deliveries[0].attempts.is_empty());
    }
}

pub(crate) async fn a_retry_waits_until_it_is_due(w: World) {
    let id = w.plain().await;
    let due = w.now().plus(5 * SECOND);
    let settled = w.attempt(first(id), w.retry_in(5 * SECOND)).await;
    let next = settled.next.unwrap();
    assert_eq!(settled.status, Status::Retrying);
    assert_eq!((next.key, next.due, next.suspect, next.tenant), (first(id), due, false, TENANT));
    assert_eq!(w.status(id).await, Status::Retrying);
    assert_eq!(w.story(id).await.deliveries[0].due_at, Some(due));
    w.clock.advance(5 * SECOND - std::time::Duration::from_millis(1));
    match w.claim(first(id)).await {
        Claimed::NotDue(queued) => assert_eq!(queued, next),
        other => panic!("{other:?}"),
    }
    w.clock.advance(SECOND);
    let lease = w.lease(first(id)).await;
    assert_eq!((lease.attempt, lease.failures), (2, 1));
    let settled = w.store().settle(forge(&lease), w.finished(&lease, Settlement::Sent)).await.unwrap();
    assert_eq!(settled.status, Status::Sent);
    let outcomes: Vec<_> = w.story(id).await.deliveries[0].attempts.iter().map(|a| (a.number, a.outcome)).collect();
    assert_eq!(outcomes, [(1, Outcome::Retryable), (2, Outcome::Sent)]);
}

pub(crate) async fn a_failure_that_does_not_count_uses_up_no_attempt(w: World) {
    let id = w.plain().await;
    for number in 1..=4 {
        let lease = w.lease(first(id)).await;
        assert_eq!((lease.attempt, lease.failures), (number, 0));
        let finished = w.finished(&lease, Settlement::RetryAt { due: w.now(), counts: false, limited: None });
        w.store().settle(lease, finished).await.unwrap();
    }
    w.attempt(first(id), w.retry_in(SECOND)).await;
    w.clock.advance(SECOND);
    assert_eq!(w.lease(first(id)).await.failures, 1);
    assert_eq!(w.story(id).await.deliveries[0].attempts.len(), 5);
}

pub(crate) async fn what_ends_without_an_attempt_has_none(w: World) {
    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    let settlement = Settlement::Failed(FailureReason::ChannelRemoved);
    let finished = Finished { attempt: None, ..w.finished(&lease, settlement) };
    assert_eq!(w.store().settle(lease, finished).await.unwrap().status, Status::Failed);
    assert_eq!(w.status(id).await, Status::Failed);
    assert!(w.story(id).await.deliveries[0].attempts.is_empty());

    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    let finished = Finished { attempt: None, ..w.finished(&lease, w.retry_in(SECOND)) };
    w.store().settle(lease, finished).await.unwrap();
    w.clock.advance(SECOND);
    assert_eq!(w.lease(first(id)).await.attempt, 1, "no attempt was made");
}

pub(crate) async fn a_failure_goes_on_to_each_fallback_in_turn(mut w: World) {
    let id = w
        .accept(|d| {
            d.target = Some("+49".into());
            d.fallback = vec![fallback("slack", OTHER_CHANNEL, Some("#ops")), fallback("matrix", THIRD_CHANNEL, None)];
        })
        .await;
    let settled = w.attempt(first(id), Settlement::Failed(FailureReason::Rejected)).await;
    let next = settled.next.unwrap();
    assert_eq!(settled.status, Status::Failed);
    assert_eq!((next.key.ordinal, next.channel, next.due), (1, OTHER_CHANNEL, w.now()));
    assert_eq!(w.status(id).await, Status::Queued);
    w.crash().await;
    let lease = w.lease(next.key).await;
    assert_eq!((lease.channel, lease.attempt, lease.failures, lease.next_fallback), (OTHER_CHANNEL, 1, 0, 1));
    assert_eq!((lease.redirected.as_deref(), lease.target.as_deref()), (Some("slack"), Some("#ops")));
    let retry = w.finished(&lease, w.retry_in(SECOND));
    w.store().settle(lease, retry).await.unwrap();
    w.clock.advance(SECOND);
    let next = w.attempt(next.key, Settlement::Failed(FailureReason::ChannelRemoved)).await.next.unwrap();
    assert_eq!((next.key.ordinal, next.channel), (2, THIRD_CHANNEL));
    let lease = w.lease(next.key).await;
    assert_eq!((lease.redirected.as_deref(), lease.target.as_deref()), (Some("matrix"), None));
    let failed = w.finished(&lease, Settlement::Failed(FailureReason::Permanent));
    let settled = w.store().settle(lease, failed).await.unwrap();
    assert_eq!(settled, Settled { status: Status::Failed, next: None });
    let story = w.story(id).await;
    let told: Vec<_> = story
        .deliveries
        .iter()
        .map(|d| (d.channel.as_str(), d.target.as_deref(), d.status, d.attempts.len()))
        .collect();
    assert_eq!(
        told,
        [
            ("log", Some("+49"), Status::Failed, 1),
            ("slack", Some("#ops"), Status::Failed, 2),
            ("matrix", None, Status::Failed, 1),
        ]
    );
}

pub(crate) async fn what_expired_takes_no_fallback(w: World) {
    let with_fallback = |d: &mut Draft| d.fallback = vec![fallback("slack", OTHER_CHANNEL, None)];
    let id = w.accept(with_fallback).await;
    let lease = w.lease(first(id)).await;
    w.clock.advance(2 * DAY);
    let finished = w.finished(&lease, Settlement::Failed(FailureReason::Expired));
    let settled = w.store().settle(lease, finished).await.unwrap();
    assert_eq!(settled, Settled { status: Status::Expired, next: None });
    assert_eq!(w.status(id).await, Status::Expired);
    assert_eq!(w.story(id).await.deliveries.len(), 1);
    let early = w.accept(with_fallback).await;
    let settled = w.attempt(first(early), Settlement::Failed(FailureReason::Expired)).await;
    assert_eq!(settled.next.map(|next| next.channel), Some(OTHER_CHANNEL), "its time is left to the fallback");
}

pub(crate) async fn what_happened_to_a_delivery_is_told_in_its_story(mut w: World) {
    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    let limited = w.finished(&lease, Settlement::RetryAt { due: w.now(), counts: false, limited: None });
    w.store().settle(lease, limited.clone()).await.unwrap();
    w.clock.advance(SECOND);
    let lease = w.lease(first(id)).await;
    let mut bare = w.finished(&lease, Settlement::Failed(FailureReason::Permanent));
    bare.attempt = bare.attempt.map(|a| conductor_core::Attempt { code: None, detail: None, retry_after: None, ..a });
    w.store().settle(lease, bare.clone()).await.unwrap();
    w.restart().await;
    assert_eq!(w.story(id).await.deliveries[0].attempts, [limited.attempt.unwrap(), bare.attempt.unwrap()]);
}

pub(crate) async fn of_a_long_history_the_first_and_the_last_attempts_are_kept(mut w: World) {
    let kept = usize::try_from(FIRST_ATTEMPTS_KEPT + LAST_ATTEMPTS_KEPT).unwrap();
    let id = w.plain().await;
    for made in 1..=kept + 50 {
        w.attempt(first(id), w.retry_in(Duration::ZERO)).await;
        let story = w.story(id).await.deliveries.remove(0);
        assert_eq!(story.attempts.len(), made.min(kept));
        assert_eq!(usize::try_from(story.attempts_left_out).unwrap(), made.saturating_sub(kept));
    }
    w.attempt(first(id), Settlement::Failed(FailureReason::Permanent)).await;
    w.crash().await;
    let story = w.story(id).await.deliveries.remove(0);
    assert_eq!((story.status, story.attempts_left_out), (Status::Failed, 51));
    let numbers: Vec<u32> = story.attempts.iter().map(|attempt| attempt.number).collect();
    let last = FIRST_ATTEMPTS_KEPT + 51 + 1..=FIRST_ATTEMPTS_KEPT + LAST_ATTEMPTS_KEPT + 51;
    assert_eq!(numbers, (1..=FIRST_ATTEMPTS_KEPT).chain(last).collect::<Vec<_>>());
}

pub(crate) async fn the_status_follows_the_clock(w: World) {
    let id = w.accept(|d| d.send_at = Some(d.accepted_at.plus(HOUR))).await;
    assert_eq!(w.status(id).await, Status::Scheduled);
    assert_eq!(w.story(id).await.deliveries[0].due_at, Some(w.now().plus(HOUR)));
    assert!(matches!(w.claim(first(id)).await, Claimed::NotDue(queued) if queued.due == w.now().plus(HOUR)));
    w.clock.advance(HOUR);
    assert_eq!(w.status(id).await, Status::Queued);
    let lease = w.lease(first(id)).await;
    assert_eq!(w.status(id).await, Status::Sending);
    let retry = w.finished(&lease, w.retry_in(SECOND));
    w.store().settle(lease, retry).await.unwrap();
    assert_eq!(w.status(id).await, Status::Retrying);
    w.clock.advance(SECOND);
    assert_eq!(w.status(id).await, Status::Retrying);
    w.attempt(first(id), Settlement::Hold).await;
    assert_eq!(w.status(id).await, Status::Held);
    assert_eq!(w.resolve(id).await, conductor_core::store::Transition::Done(Status::Sent));
    assert_eq!(w.status(id).await, Status::Sent);
}

pub(crate) async fn a_claim_of_many_answers_each_in_order(mut w: World) {
    let ready = w.plain().await;
    let canceled = w.plain().await;
    w.cancel(canceled).await;
    let later = w.accept(|d| d.send_at = Some(d.accepted_at.plus(HOUR))).await;
    let old = w.plain().await;
    w.restart().await;
    let fresh = w.plain().await;
    let claims = [ready, canceled, fresh, later, old].map(|id| Claim { key: first(id), suspect: false });
    let claimed = w.store().claim(&claims, w.now()).await.unwrap();
    let [Claimed::Leased(a), Claimed::Gone, Claimed::Leased(b), Claimed::NotDue(c), Claimed::Leased(d)] = &claimed[..]
    else {
        panic!("{claimed:?}")
    };
    assert_eq!([a.key, b.key, c.key, d.key], [ready, fresh, later, old].map(first));
    assert_eq!(w.store().claim(&[], w.now()).await.unwrap().len(), 0);
}

pub(crate) async fn a_closed_store_says_so(w: World) {
    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    let finished = w.finished(&lease, Settlement::Sent);
    w.store().close().await;
    w.store().close().await;
    assert_eq!(w.store().accept(new(w.draft())).await, Err(StoreError::Closed));
    assert_eq!(w.store().ping().await, Err(StoreError::Closed));
    assert_eq!(w.store().notification(TENANT, id).await, Err(StoreError::Closed));
    let unsettled = w.store().settle(lease, finished).await.unwrap_err();
    assert_eq!((unsettled.lease.key, unsettled.error), (first(id), StoreError::Closed));
}
