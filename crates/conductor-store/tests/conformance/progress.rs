//! A text in parts, and one whose markup was refused: the next attempt goes on where the last one came to.

use std::time::Duration;

use conductor_core::store::{Lease, Progress, Redirect, Transition};
use conductor_core::{DeliveryKey, FailureReason, NotificationId, Outcome, Scope, Settlement, Status, StoreError};

use crate::harness::*;

fn came_to(parts_sent: u32) -> Progress {
    Progress {
        parts_sent,
        cuts: u64::MAX - u64::from(parts_sent),
        plain: false,
        provider_id: Some("provider-part-0".into()),
    }
}

fn second(notification: NotificationId) -> DeliveryKey {
    DeliveryKey { notification, ordinal: 1 }
}

/// Leases a delivery of which two parts go out, one after the other.
async fn two_parts_sent(w: &World, key: DeliveryKey) -> Lease {
    let mut lease = w.lease(key).await;
    assert_eq!(lease.progress, Progress::default());
    for parts_sent in 1..=2 {
        assert_eq!(w.store().advance(&mut lease, came_to(parts_sent)).await, Ok(()));
        assert_eq!(lease.progress, came_to(parts_sent));
    }
    lease
}

pub(crate) async fn an_attempt_goes_on_with_the_part_that_failed(mut w: World) {
    let id = w.plain().await;
    let lease = two_parts_sent(&w, first(id)).await;
    let retry = w.finished(&lease, w.retry_in(Duration::ZERO));
    w.store().settle(lease, retry).await.unwrap();
    for crash in [true, false] {
        let lease = w.lease(first(id)).await;
        assert_eq!(lease.progress, came_to(2));
        w.store().release(lease).await;
        if crash { w.crash().await } else { w.restart().await }
    }
    let lease = w.lease(first(id)).await;
    let mut sent = w.finished(&lease, Settlement::Sent);
    sent.provider_id = None;
    w.store().settle(lease, sent).await.unwrap();
    assert_eq!(w.story(id).await.deliveries[0].provider_id.as_deref(), Some("provider-part-0"));
}

pub(crate) async fn a_process_that_dies_between_parts_has_written_how_far_it_came(mut w: World) {
    let id = w.plain().await;
    let _under_way = two_parts_sent(&w, first(id)).await;
    w.crash().await;
    assert_eq!(w.story(id).await.deliveries[0].provider_id.as_deref(), Some("provider-part-0"));
    let lease = w.lease(first(id)).await;
    assert_eq!((lease.attempt, lease.progress), (1, came_to(2)));
}

pub(crate) async fn a_released_attempt_keeps_the_parts_that_were_sent(w: World) {
    let id = w.plain().await;
    let lease = two_parts_sent(&w, first(id)).await;
    w.store().release(lease).await;
    let lease = w.lease(first(id)).await;
    assert_eq!((lease.attempt, lease.progress), (1, came_to(2)));
}

pub(crate) async fn progress_that_was_not_written_is_written_when_the_attempt_is_settled(mut w: World) {
    let id = w.plain().await;
    let mut lease = w.lease(first(id)).await;
    lease.progress = came_to(1);
    let retry = w.finished(&lease, w.retry_in(Duration::ZERO));
    w.store().settle(lease, retry).await.unwrap();
    w.crash().await;
    assert_eq!(w.lease(first(id)).await.progress, came_to(1));
}

pub(crate) async fn a_used_lease_advances_nothing(w: World) {
    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    let mut stale = forge(&lease);
    let retry = w.finished(&lease, w.retry_in(Duration::ZERO));
    w.store().settle(lease, retry).await.unwrap();
    assert_eq!(w.store().advance(&mut stale, came_to(1)).await, Err(StoreError::LeaseLost));
    assert_eq!(w.lease(first(id)).await.progress, Progress::default());
}

pub(crate) async fn refused_markup_is_due_again_at_once_as_plain_text(mut w: World) {
    let id = w.plain().await;
    let lease = two_parts_sent(&w, first(id)).await;
    let refused = w.finished(&lease, Settlement::StepDown);
    let settled = w.store().settle(lease, refused).await.unwrap();
    let next = settled.next.unwrap();
    assert_eq!((settled.status, next.key, next.due), (Status::Retrying, first(id), w.now()));
    let delivery = w.story(id).await.deliveries.remove(0);
    let outcomes: Vec<_> = delivery.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!((delivery.status, outcomes), (Status::Retrying, vec![Outcome::Rejected]));
    w.crash().await;
    let lease = w.lease(first(id)).await;
    assert_eq!((lease.attempt, lease.failures), (2, 0));
    assert_eq!(lease.progress, Progress { plain: true, ..came_to(2) });
}

pub(crate) async fn a_fallback_begins_with_the_first_part_and_its_markup(w: World) {
    let id = w.accept(|d| d.fallback = vec![fallback("slack", OTHER_CHANNEL, None)]).await;
    let lease = two_parts_sent(&w, first(id)).await;
    let refused = w.finished(&lease, Settlement::StepDown);
    w.store().settle(lease, refused).await.unwrap();
    w.attempt(first(id), Settlement::Failed(FailureReason::Rejected)).await;
    let lease = w.lease(second(id)).await;
    assert_eq!((lease.channel, lease.progress), (OTHER_CHANNEL, Progress::default()));
}

pub(crate) async fn a_replayed_dead_letter_begins_with_the_first_part(mut w: World) {
    let id = w.plain().await;
    let lease = two_parts_sent(&w, first(id)).await;
    let mut failed = w.finished(&lease, Settlement::Failed(FailureReason::Permanent));
    failed.provider_id = None;
    w.store().settle(lease, failed).await.unwrap();
    let dead = w.story(id).await.deliveries.remove(0);
    assert_eq!(dead.provider_id.as_deref(), Some("provider-part-0"), "a part of it is out");
    w.replay(id).await;
    w.crash().await;
    assert_eq!(w.lease(second(id)).await.progress, Progress::default());
}

pub(crate) async fn a_held_one_goes_on_with_its_part_unless_it_takes_another_channel(mut w: World) {
    for redirected in [false, true] {
        let id = w.plain().await;
        let lease = two_parts_sent(&w, first(id)).await;
        let held = w.finished(&lease, Settlement::Hold);
        w.store().settle(lease, held).await.unwrap();
        let redirect =
            redirected.then(|| Redirect { channel: "slack".into(), channel_id: OTHER_CHANNEL, target: None });
        let expires_at = w.now().plus(HOUR);
        let transition = w.store().replay(TENANT, id, redirect, w.now(), expires_at).await.unwrap();
        assert!(matches!(transition, Transition::Done(_)), "{transition:?}");
        w.crash().await;
        let (key, progress) = if redirected { (second(id), Progress::default()) } else { (first(id), came_to(2)) };
        assert_eq!(w.lease(key).await.progress, progress);
    }
}

pub(crate) async fn a_pause_that_a_provider_asked_for_is_told_after_a_restart(mut w: World) {
    for scope in [Scope::Channel, Scope::Lane] {
        let id = w.plain().await;
        let due = w.now().plus(HOUR);
        w.attempt(first(id), Settlement::RetryAt { due, counts: false, limited: Some(scope) }).await;
        w.crash().await;
        let found = w.arrivals(100).await;
        let queued = found.iter().find(|queued| queued.key == first(id)).unwrap();
        assert_eq!((queued.limited, queued.due), (Some(scope), due));
        w.clock.advance(HOUR);
        w.attempt(first(id), w.retry_in(HOUR)).await;
        w.crash().await;
        let found = w.arrivals(100).await;
        assert_eq!(
            found.iter().find(|queued| queued.key == first(id)).unwrap().limited,
            None,
            "the next one is its own"
        );
    }
}
