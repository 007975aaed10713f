//! What people and time do to notifications: cancel, resolve, replay, expire, supersede.

use conductor_core::store::{Expired, Filter, Queued, Redirect, Transition};
use conductor_core::{DeliveryKey, FailureReason, Settlement, Status};

use crate::harness::*;

const DONE_CANCELED: Transition = Transition::Done(Status::Canceled);

fn redirect() -> Redirect {
    Redirect { channel: "slack".into(), channel_id: OTHER_CHANNEL, target: Some("#ops".into()) }
}

fn second(id: conductor_core::NotificationId) -> DeliveryKey {
    DeliveryKey { notification: id, ordinal: 1 }
}

pub(crate) async fn a_waiting_notification_is_taken_back(mut w: World) {
    let queued = w.plain().await;
    let scheduled = w.accept(|d| d.send_at = Some(d.accepted_at.plus(HOUR))).await;
    let retrying = w.plain().await;
    w.attempt(first(retrying), w.retry_in(SECOND)).await;
    let on_fallback = w.accept(|d| d.fallback = vec![fallback("slack", OTHER_CHANNEL, None)]).await;
    w.attempt(first(on_fallback), Settlement::Failed(FailureReason::Permanent)).await;
    for id in [queued, scheduled, retrying, on_fallback] {
        assert_eq!(w.cancel(id).await, DONE_CANCELED);
        assert_eq!(w.status(id).await, Status::Canceled);
        assert_eq!(w.cancel(id).await, Transition::WrongStatus(Status::Canceled));
    }
    assert_eq!(w.story(retrying).await.deliveries[0].attempts.len(), 1);
    w.clock.advance(HOUR);
    for id in [queued, scheduled, retrying, on_fallback] {
        assert!(w.is_gone(first(id)).await && w.is_gone(second(id)).await);
    }
    w.crash().await;
    assert_eq!(w.arriving().await, []);
}

pub(crate) async fn what_is_under_way_or_over_is_not_taken_back(w: World) {
    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    for transition in [w.cancel(id).await, w.resolve(id).await, w.replay(id).await] {
        assert_eq!(transition, Transition::WrongStatus(Status::Sending));
    }
    w.store().release(lease).await;
    assert_eq!(w.resolve(id).await, Transition::WrongStatus(Status::Queued));
    w.attempt(first(id), Settlement::Sent).await;
    for transition in [w.cancel(id).await, w.resolve(id).await, w.replay(id).await] {
        assert_eq!(transition, Transition::WrongStatus(Status::Sent));
    }
    let dead = w.dead_letter().await;
    assert_eq!(w.cancel(dead).await, Transition::WrongStatus(Status::Failed));
    assert_eq!(w.resolve(dead).await, Transition::WrongStatus(Status::Failed));
}

pub(crate) async fn a_held_notification_waits_for_a_person(mut w: World) {
    let id = w.held().await;
    w.arriving().await;
    assert_eq!(w.status(id).await, Status::Held);
    assert_eq!(w.story(id).await.deliveries[0].due_at, None);
    assert!(w.is_gone(first(id)).await);
    w.crash().await;
    assert_eq!(w.arriving().await, []);
    assert_eq!(w.status(id).await, Status::Held);
    assert_eq!(w.resolve(id).await, Transition::Done(Status::Sent));
    assert_eq!(w.status(id).await, Status::Sent);
    assert_eq!(w.resolve(id).await, Transition::WrongStatus(Status::Sent));
}

pub(crate) async fn a_held_notification_goes_on_when_it_is_replayed(w: World) {
    let id = w.plain().await;
    w.attempt(first(id), w.retry_in(SECOND)).await;
    w.clock.advance(SECOND);
    w.attempt(first(id), Settlement::Hold).await;
    w.arriving().await;
    w.clock.advance(2 * DAY);
    let expires_at = w.now().plus(HOUR);
    let transition = w.store().replay(TENANT, id, None, w.now(), expires_at).await.unwrap();
    assert_eq!(transition, Transition::Done(Status::Retrying));
    assert_eq!(w.status(id).await, Status::Retrying);
    w.store().arrived().await;
    assert_eq!(w.arriving().await, [first(id)]);
    let lease = w.lease(first(id)).await;
    assert_eq!((lease.attempt, lease.failures, lease.expires_at), (3, 0, expires_at));
}

pub(crate) async fn a_held_notification_is_redirected(mut w: World) {
    let id = w.held().await;
    w.arriving().await;
    let transition = w.store().replay(TENANT, id, Some(redirect()), w.now(), w.now().plus(HOUR)).await.unwrap();
    assert_eq!(transition, Transition::Done(Status::Queued));
    assert_eq!(w.arriving().await, [second(id)]);
    w.crash().await;
    assert_eq!(w.arriving().await, [second(id)]);
    w.attempt(second(id), Settlement::Sent).await;
    let told: Vec<_> = w.story(id).await.deliveries.into_iter().map(|d| (d.channel, d.status)).collect();
    assert_eq!(told, [("log".into(), Status::Canceled), ("slack".into(), Status::Sent)]);
}

pub(crate) async fn a_held_notification_is_taken_back(w: World) {
    let id = w.held().await;
    assert_eq!(w.cancel(id).await, DONE_CANCELED);
    assert_eq!(w.status(id).await, Status::Canceled);
}

pub(crate) async fn a_dead_letter_is_replayed_as_a_new_delivery(w: World) {
    let id = w.dead_letter().await;
    let old = w.story(id).await.deliveries.remove(0);
    w.arriving().await;
    w.clock.advance(2 * DAY);
    let (due, expires_at) = (w.now().plus(SECOND), w.now().plus(HOUR));
    let transition = w.store().replay(TENANT, id, None, due, expires_at).await.unwrap();
    assert_eq!(transition, Transition::Done(Status::Queued));
    assert_eq!(w.replay(id).await, Transition::WrongStatus(Status::Scheduled));
    let arrivals = w.arrivals(10).await;
    let [Queued { key, channel, due: told, suspect: false, .. }] = arrivals[..] else { panic!("{arrivals:?}") };
    assert_eq!((key, channel, told), (second(id), CHANNEL, due));
    w.clock.advance(SECOND);
    assert_eq!(w.status(id).await, Status::Queued);
    let lease = w.lease(second(id)).await;
    assert_eq!((lease.attempt, lease.failures, lease.expires_at), (1, 0, expires_at));
    assert_eq!((lease.channel, &lease.target, &lease.redirected), (CHANNEL, &None, &None));
    let sent = w.finished(&lease, Settlement::Sent);
    w.store().settle(lease, sent).await.unwrap();
    assert_eq!(w.status(id).await, Status::Sent);
    let story = w.story(id).await;
    assert_eq!(story.deliveries.len(), 2);
    assert_eq!(story.deliveries[0], old, "what happened stays as it was");
    let dead = w.list(Filter { status: Some(Status::Failed), ..Filter::default() }).await;
    assert_eq!(dead, [], "it is no dead letter any more");
}

pub(crate) async fn a_dead_letter_is_redirected(w: World) {
    let id = w.accept(|d| d.target = Some("+49".into())).await;
    w.attempt(first(id), Settlement::Failed(FailureReason::Permanent)).await;
    let old_lane = w.arrivals(10).await[0].lane;
    let transition = w.store().replay(TENANT, id, Some(redirect()), w.now(), w.now().plus(DAY)).await.unwrap();
    assert_eq!(transition, Transition::Done(Status::Queued));
    let queued = w.arrivals(10).await[0];
    assert_eq!((queued.key, queued.channel), (second(id), OTHER_CHANNEL));
    assert_ne!(queued.lane, old_lane);
    let lease = w.lease(second(id)).await;
    assert_eq!(lease.channel, OTHER_CHANNEL);
    assert_eq!((lease.redirected.as_deref(), lease.target.as_deref()), (Some("slack"), Some("#ops")));
    let story = w.story(id).await;
    assert_eq!((story.deliveries[0].channel.as_str(), story.deliveries[0].target.as_deref()), ("log", Some("+49")));
    assert_eq!(story.deliveries[1].target.as_deref(), Some("#ops"));
}

pub(crate) async fn a_redirected_dead_letter_is_still_redirected_after_a_restart(mut w: World) {
    let id = w.accept(|d| d.target = Some("+49".into())).await;
    w.attempt(first(id), Settlement::Failed(FailureReason::Permanent)).await;
    let to_default = Redirect { target: None, ..redirect() };
    w.store().replay(TENANT, id, Some(to_default), w.now(), w.now().plus(DAY)).await.unwrap();
    w.restart().await;
    let lease = w.lease(second(id)).await;
    assert_eq!((lease.redirected.as_deref(), lease.target.as_deref()), (Some("slack"), None));
    let failed = w.finished(&lease, Settlement::Failed(FailureReason::Permanent));
    w.store().settle(lease, failed).await.unwrap();
    assert_eq!(w.replay(id).await, Transition::Done(Status::Queued));
    let lease = w.lease(DeliveryKey { notification: id, ordinal: 2 }).await;
    assert_eq!((lease.channel, lease.redirected.as_deref()), (OTHER_CHANNEL, Some("slack")));
    assert_eq!(lease.target, None, "a plain replay goes where the last one went");
}

pub(crate) async fn a_replayed_dead_letter_goes_on_with_the_fallbacks_that_are_left(w: World) {
    let id = w.accept(|d| d.fallback = vec![fallback("slack", OTHER_CHANNEL, None)]).await;
    w.clock.advance(2 * DAY);
    w.store().expire(w.now()).await.unwrap();
    assert_eq!(w.replay(id).await, Transition::Done(Status::Queued));
    let next = w.attempt(second(id), Settlement::Failed(FailureReason::Permanent)).await.next.unwrap();
    assert_eq!((next.key.ordinal, next.channel), (2, OTHER_CHANNEL));
    let last = w.attempt(next.key, Settlement::Failed(FailureReason::Permanent)).await;
    assert_eq!(last.next, None);
    assert_eq!(w.replay(id).await, Transition::Done(Status::Queued));
    let again = w.attempt(DeliveryKey { notification: id, ordinal: 3 }, Settlement::Failed(FailureReason::Permanent));
    assert_eq!(again.await.next, None, "each fallback is tried once");
}

pub(crate) async fn only_dead_letters_and_held_ones_are_replayed(w: World) {
    let queued = w.plain().await;
    assert_eq!(w.replay(queued).await, Transition::WrongStatus(Status::Queued));
    w.cancel(queued).await;
    assert_eq!(w.replay(queued).await, Transition::WrongStatus(Status::Canceled));
    let sent = w.plain().await;
    w.attempt(first(sent), Settlement::Sent).await;
    let through = w.store().replay(TENANT, sent, Some(redirect()), w.now(), w.now().plus(DAY)).await.unwrap();
    assert_eq!(through, Transition::WrongStatus(Status::Sent));
    let expired = w.plain().await;
    w.attempt(first(expired), Settlement::Failed(FailureReason::Expired)).await;
    assert_eq!(w.replay(expired).await, Transition::Done(Status::Queued));
}

pub(crate) async fn another_tenant_finds_nothing(w: World) {
    let queued = w.plain().await;
    let (dead, held) = (w.dead_letter().await, w.held().await);
    let never = id_at(w.now(), 999_999);
    let (now, later) = (w.now(), w.now().plus(DAY));
    for (tenant, ids) in [(OTHER_TENANT, &[queued, dead, held][..]), (TENANT, &[never])] {
        for id in ids {
            assert_eq!(w.store().cancel(tenant, *id, now).await, Ok(Transition::NotFound));
            assert_eq!(w.store().resolve(tenant, *id, now).await, Ok(Transition::NotFound));
            assert_eq!(w.store().replay(tenant, *id, None, now, later).await, Ok(Transition::NotFound));
            assert_eq!(w.store().replay(tenant, *id, Some(redirect()), now, later).await, Ok(Transition::NotFound));
            assert_eq!(w.store().notification(tenant, *id).await, Ok(None));
        }
    }
    for status in [None, Some(Status::Queued), Some(Status::Failed), Some(Status::Held)] {
        assert_eq!(w.walk(OTHER_TENANT, Filter { status, ..Filter::default() }, 10).await, []);
    }
    assert_eq!(w.status(queued).await, Status::Queued);
    assert_eq!(w.status(dead).await, Status::Failed);
    assert_eq!(w.status(held).await, Status::Held);
}

pub(crate) async fn what_waits_too_long_expires(mut w: World) {
    let short = w.accept(|d| d.expires_at = d.accepted_at.plus(HOUR)).await;
    let retrying = w.accept(|d| d.expires_at = d.accepted_at.plus(HOUR)).await;
    w.attempt(first(retrying), w.retry_in(SECOND)).await;
    let long = w.plain().await;
    w.clock.advance(HOUR - SECOND);
    assert_eq!(w.store().expire(w.now()).await.unwrap(), []);
    w.clock.advance(SECOND);
    let expired = |id| Expired { key: first(id), tenant: TENANT, channel: CHANNEL };
    assert_eq!(w.store().expire(w.now()).await.unwrap(), [expired(short), expired(retrying)]);
    assert_eq!(w.store().expire(w.now()).await.unwrap(), []);
    for id in [short, retrying] {
        assert_eq!(w.status(id).await, Status::Expired);
        assert!(w.is_gone(first(id)).await);
    }
    assert_eq!(w.status(long).await, Status::Queued);
    w.crash().await;
    assert_eq!(w.arriving().await, [first(long)]);
}

pub(crate) async fn what_is_under_way_or_held_does_not_expire(w: World) {
    let held = w.held().await;
    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    w.clock.advance(2 * DAY);
    assert_eq!(w.store().expire(w.now()).await.unwrap(), []);
    assert_eq!(w.status(held).await, Status::Held);
    w.store().release(lease).await;
    assert_eq!(w.store().expire(w.now()).await.unwrap().len(), 1);
}

pub(crate) async fn many_under_way_do_not_keep_others_from_expiring(w: World) {
    let mut ids = w.accept_many(conductor_core::store::BATCH_MAX + 5).await;
    ids.sort_unstable();
    let last = ids.split_off(ids.len() - 5);
    for id in &ids {
        w.lease(first(*id)).await;
    }
    w.clock.advance(2 * DAY);
    let expired: Vec<_> = w.store().expire(w.now()).await.unwrap().iter().map(|e| e.key.notification).collect();
    assert_eq!(expired, last);
}

fn door(d: &mut conductor_core::Draft) {
    d.key = Some("door".into());
}

pub(crate) async fn a_newer_one_with_the_same_key_takes_the_place(mut w: World) {
    let (one, none) = w.accept_superseding(door).await;
    assert_eq!(none, None);
    w.arriving().await;
    let (two, place) = w.accept_superseding(door).await;
    assert_eq!(place, Some(one));
    assert_eq!(w.status(one).await, Status::Superseded);
    assert_eq!(w.status(two).await, Status::Queued);
    assert!(w.is_gone(first(one)).await);
    w.crash().await;
    let scheduled = |d: &mut conductor_core::Draft| {
        door(d);
        d.send_at = Some(d.accepted_at.plus(HOUR));
    };
    let (three, place) = w.accept_superseding(scheduled).await;
    assert_eq!(place, Some(two), "also after a crash");
    let (four, place) = w.accept_superseding(door).await;
    assert_eq!(place, Some(three), "also what is scheduled");
    assert_eq!(w.replay(two).await, Transition::WrongStatus(Status::Superseded));
    w.restart().await;
    assert_eq!(w.arriving().await, [first(four)]);
}

pub(crate) async fn a_key_belongs_to_a_channel_a_target_and_a_tenant(w: World) {
    type Change = fn(&mut conductor_core::Draft);
    let changes: [Change; 5] = [
        |_| {},
        |d| d.channel_id = OTHER_CHANNEL,
        |d| d.target = Some("kitchen".into()),
        |d| d.tenant = OTHER_TENANT,
        |d| d.key = Some("window".into()),
    ];
    for change in changes {
        let (_, place) = w
            .accept_superseding(|d| {
                door(d);
                change(d);
            })
            .await;
        assert_eq!(place, None);
    }
    w.accept(|_| {}).await;
    assert_eq!(w.arriving().await.len(), 6);
}

pub(crate) async fn what_is_under_way_is_not_superseded(w: World) {
    let (one, _) = w.accept_superseding(door).await;
    let lease = w.lease(first(one)).await;
    let (two, place) = w.accept_superseding(door).await;
    assert_eq!(place, None);
    let sent = w.finished(&lease, Settlement::Sent);
    w.store().settle(lease, sent).await.unwrap();
    let (_, place) = w.accept_superseding(door).await;
    assert_eq!(place, Some(two), "the end of the first leaves the key with the second");
}

pub(crate) async fn a_key_is_free_after_the_end(mut w: World) {
    for settlement in [Settlement::Sent, Settlement::Failed(FailureReason::Permanent)] {
        let (id, place) = w.accept_superseding(door).await;
        assert_eq!(place, None);
        w.attempt(first(id), settlement).await;
    }
    let (id, place) = w.accept_superseding(door).await;
    assert_eq!(place, None);
    w.cancel(id).await;
    let (id, place) = w.accept_superseding(door).await;
    assert_eq!(place, None);
    w.attempt(first(id), Settlement::Hold).await;
    w.resolve(id).await;
    w.accept_superseding(door).await;
    w.clock.advance(2 * DAY);
    assert_eq!(w.store().expire(w.now()).await.unwrap().len(), 1);
    w.crash().await;
    assert_eq!(w.accept_superseding(door).await.1, None);
}
