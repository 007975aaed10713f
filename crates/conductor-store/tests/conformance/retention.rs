//! What is old goes: as a whole, or only its content.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use conductor_core::retention::Pruned;
use conductor_core::store::{Filter, Idempotency, NewNotification, Transition};
use conductor_core::{FailureReason, Keep, Notification, NotificationId, Retention, Settlement, Status};

use crate::harness::{DAY, HOUR, OTHER_CHANNEL, OTHER_TENANT, SECOND, TENANT, World, fallback, first, id_at, start};

const MONTH: Duration = Duration::from_secs(30 * 86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn keep(whole: Option<Duration>, content: Option<Duration>) -> Arc<Retention> {
    Arc::new(Retention { others: Keep { whole, content }, tenants: HashMap::new() })
}

/// One round. How many were removed, and how many redacted.
async fn tidy(world: &World, retention: &Arc<Retention>) -> (usize, usize) {
    let mut all = (0, 0);
    for _ in 0..10_000 {
        let Pruned { removed, redacted, is_done } = world.store().prune(retention, world.now()).await.unwrap();
        all = (all.0 + removed, all.1 + redacted);
        if is_done {
            return all;
        }
    }
    panic!("a round comes to its end");
}

async fn is_there(world: &World, id: NotificationId) -> bool {
    world.store().notification(TENANT, id).await.unwrap().is_some()
}

/// A notification that has ended in each of the ways there are.
async fn ended(world: &World) -> Vec<NotificationId> {
    let sent = world.plain().await;
    world.attempt(first(sent), Settlement::Sent).await;
    let canceled = world.plain().await;
    world.cancel(canceled).await;
    let key = |draft: &mut conductor_core::Draft| draft.key = Some("door".into());
    let superseded = world.accept(key).await;
    let keyed = world.accept(key).await;
    world.attempt(first(keyed), Settlement::Sent).await;
    vec![sent, canceled, superseded, keyed, world.dead_letter().await]
}

pub(crate) async fn what_has_ended_long_ago_is_removed(mut world: World) {
    let old = ended(&world).await;
    world.clock.advance(DAY);
    let young = world.dead_letter().await;
    world.restart().await;
    world.clock.advance(MONTH - DAY - SECOND);
    let retention = keep(Some(MONTH), None);
    assert_eq!(tidy(&world, &retention).await, (0, 0), "it is not time yet");
    world.clock.advance(SECOND);
    assert_eq!(tidy(&world, &retention).await, (old.len(), 0));
    for id in old {
        assert!(!is_there(&world, id).await);
    }
    assert_eq!(world.list(Filter::default()).await, [(young, Status::Failed)]);
    assert_eq!(tidy(&world, &retention).await, (0, 0));
    assert_eq!(tidy(&world, &keep(None, None)).await, (0, 0), "for ever");
    world.clock.advance(DAY);
    assert_eq!(tidy(&world, &retention).await, (1, 0));
    assert_eq!(world.list(Filter::default()).await, []);
    let id = world.plain().await;
    world.restart().await;
    assert_eq!(world.arriving().await, [first(id)], "an empty store goes on");
}

pub(crate) async fn what_waits_or_is_held_stays_however_old_it_is(mut world: World) {
    let held = world.held().await;
    let far = world.now().plus(MONTH * 12);
    let scheduled = world.accept(|draft| (draft.send_at, draft.expires_at) = (Some(far), far.plus(DAY))).await;
    let retried = world.accept(|draft| draft.expires_at = far).await;
    world.attempt(first(retried), world.retry_in(HOUR)).await;
    let fallen = world.accept(|draft| draft.fallback = vec![fallback("slack", OTHER_CHANNEL, None)]).await;
    world.attempt(first(fallen), Settlement::Failed(FailureReason::Permanent)).await;
    let sent = world.plain().await;
    world.attempt(first(sent), Settlement::Sent).await;
    world.restart().await;
    world.clock.advance(MONTH * 6);
    assert_eq!(tidy(&world, &keep(Some(MONTH), Some(WEEK))).await, (1, 0));
    let mut left = vec![held, scheduled, retried, fallen];
    left.reverse();
    let listed: Vec<_> = world.list(Filter::default()).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed, left);
    assert_eq!(world.story(held).await.notification.message, "Test notification");
}

pub(crate) async fn the_age_counts_from_the_end_of_the_last_delivery(mut world: World) {
    let id = world.dead_letter().await;
    world.clock.advance(WEEK);
    world.replay(id).await;
    let second = conductor_core::DeliveryKey { notification: id, ordinal: 1 };
    world.attempt(second, Settlement::Sent).await;
    world.restart().await;
    let retention = keep(Some(MONTH), None);
    world.clock.advance(MONTH - WEEK);
    assert_eq!(tidy(&world, &retention).await, (0, 0));
    world.clock.advance(WEEK - SECOND);
    assert_eq!(tidy(&world, &retention).await, (0, 0));
    world.clock.advance(SECOND);
    assert_eq!(tidy(&world, &retention).await, (0, 0), "it was passed over a moment ago");
    world.clock.advance(DAY);
    assert_eq!(tidy(&world, &retention).await, (1, 0), "all is looked at again after a thirtieth of the time");
    assert!(!is_there(&world, id).await);
}

pub(crate) async fn content_goes_before_the_rest(mut world: World) {
    let id = world
        .accept(|draft| {
            draft.title = Some("The code".into());
            draft.target = Some("+431234567".into());
            draft.data.insert("code".into(), 1234.into());
            draft.metadata.insert("room".into(), "cellar".into());
            draft.fallback = vec![fallback("slack", OTHER_CHANNEL, Some("+437654321"))];
        })
        .await;
    world.attempt(first(id), Settlement::Failed(FailureReason::Permanent)).await;
    let second = conductor_core::DeliveryKey { notification: id, ordinal: 1 };
    world.attempt(second, Settlement::Sent).await;
    world.restart().await;
    let retention = keep(Some(MONTH), Some(WEEK));
    world.clock.advance(WEEK - SECOND);
    assert_eq!(tidy(&world, &retention).await, (0, 0));
    assert_eq!(world.story(id).await.redacted_at, None);
    world.clock.advance(SECOND);
    assert_eq!(tidy(&world, &retention).await, (0, 1));
    let redacted_at = Some(world.now());
    world.clock.advance(DAY);
    assert_eq!(tidy(&world, &retention).await, (0, 0), "once is enough");
    let story = world.story(id).await;
    let n = &story.notification;
    assert_eq!((n.message.as_str(), &n.title, &n.target), ("", &None, &None));
    assert_eq!((n.data.len(), n.metadata["room"].as_str()), (0, "cellar"));
    assert_eq!(n.fallback, [fallback("slack", OTHER_CHANNEL, None)]);
    assert_eq!((story.redacted_at, story.status()), (redacted_at, Status::Sent));
    assert_eq!(story.deliveries.len(), 2);
    for delivery in &story.deliveries {
        assert_eq!((&delivery.target, delivery.attempts.len()), (&None, 1));
        assert_eq!((&delivery.attempts[0].detail, delivery.attempts[0].code.as_deref()), (&None, Some("418")));
    }
    let page = world.store().notifications(TENANT, &Filter::default(), 9, None).await.unwrap();
    assert_eq!((page.items[0].redacted_at, page.items[0].notification.message.as_str()), (redacted_at, ""));
    let text = Filter { text: Some("code".into()), ..Filter::default() };
    assert_eq!(world.list(text).await, []);
    world.restart().await;
    assert_eq!(world.story(id).await, story);
    world.clock.advance(MONTH);
    assert_eq!(tidy(&world, &retention).await, (1, 0));
}

pub(crate) async fn a_redacted_dead_letter_is_not_replayed(mut world: World) {
    let (dead, sent) = (world.dead_letter().await, world.plain().await);
    world.attempt(first(sent), Settlement::Sent).await;
    world.restart().await;
    world.clock.advance(WEEK);
    assert_eq!(tidy(&world, &keep(None, Some(WEEK))).await, (0, 2));
    assert_eq!(world.replay(dead).await, Transition::Redacted(world.now()));
    assert_eq!(world.replay(sent).await, Transition::WrongStatus(Status::Sent));
    assert_eq!((world.status(dead).await, world.arriving().await), (Status::Failed, vec![]));
    assert_eq!(world.store().waiting(crate::harness::CHANNEL), 0);
}

pub(crate) async fn what_is_tried_again_in_time_stays(mut world: World) {
    let dead = world.dead_letter().await;
    world.restart().await;
    world.clock.advance(MONTH);
    world.replay(dead).await;
    assert_eq!(tidy(&world, &keep(Some(MONTH), Some(WEEK))).await, (0, 0));
    let second = conductor_core::DeliveryKey { notification: dead, ordinal: 1 };
    assert_eq!(world.lease(second).await.notification.message, "Test notification");
}

pub(crate) async fn each_tenant_has_its_own_rule(mut world: World) {
    let mine = world.dead_letter().await;
    let theirs = world.accept(|draft| draft.tenant = OTHER_TENANT).await;
    world.attempt(first(theirs), Settlement::Sent).await;
    world.restart().await;
    world.clock.advance(MONTH);
    let rule = |whole, content| Keep { whole, content };
    let mut retention = Retention { others: rule(Some(MONTH), None), tenants: HashMap::new() };
    retention.tenants.insert(TENANT, rule(None, Some(WEEK)));
    assert_eq!(tidy(&world, &Arc::new(retention.clone())).await, (1, 1));
    assert_eq!(world.story(mine).await.notification.message, "");
    assert!(world.store().notification(OTHER_TENANT, theirs).await.unwrap().is_none());
    retention.tenants.insert(TENANT, rule(Some(MONTH), None));
    assert_eq!(tidy(&world, &Arc::new(retention)).await, (1, 0), "a new rule counts at once");
}

pub(crate) async fn a_clock_that_was_wrong_removes_nothing_too_early(mut world: World) {
    let ahead = start().plus(MONTH * 12);
    world.clock.set(ahead);
    let of_the_future = world.dead_letter().await;
    world.clock.set(conductor_core::Timestamp::from_millis(60_000));
    // The clock was not set yet; ids never go back.
    let unset = world.accept(|draft| draft.id = id_at(ahead, 77)).await;
    world.attempt(first(unset), Settlement::Sent).await;
    world.clock.set(start());
    let plain = world.accept(|draft| draft.id = id_at(ahead, 78)).await;
    world.attempt(first(plain), Settlement::Sent).await;
    world.restart().await;
    world.clock.set(start().plus(MONTH));
    let retention = keep(Some(MONTH), None);
    assert_eq!(tidy(&world, &retention).await, (1, 0));
    assert!(is_there(&world, of_the_future).await && is_there(&world, unset).await && !is_there(&world, plain).await);
    world.clock.set(ahead.plus(MONTH));
    assert_eq!(tidy(&world, &retention).await, (2, 0));
}

pub(crate) async fn a_request_whose_notification_is_gone_is_new_again(mut world: World) {
    let idempotency = Some(Idempotency { key: "once".into(), part: None, fingerprint: [7; 32] });
    let accept = async |world: &World| {
        let notification = Arc::new(Notification::new(world.draft()).unwrap());
        let id = notification.id;
        let new = NewNotification { notification, idempotency: idempotency.clone() };
        (id, world.store().accept(new).await.unwrap())
    };
    let (id, _) = accept(&world).await;
    world.cancel(id).await;
    world.restart().await;
    world.clock.advance(HOUR);
    assert_eq!(tidy(&world, &keep(Some(HOUR), None)).await, (1, 0));
    let (_, again) = accept(&world).await;
    assert_eq!(again, conductor_core::store::Accepted::New { superseded: None });
}

pub(crate) async fn a_list_is_read_while_what_is_old_is_removed(mut world: World) {
    for id in world.accept_many(600).await {
        world.cancel(id).await;
    }
    let kept = world.held().await;
    world.restart().await;
    world.clock.advance(MONTH);
    let retention = keep(Some(MONTH), None);
    let mut pages = Vec::new();
    loop {
        let listed = world.list(Filter::default()).await;
        assert_eq!(listed.first(), Some(&(kept, Status::Held)));
        pages.push(listed.len());
        if world.store().prune(&retention, world.now()).await.unwrap().is_done {
            break;
        }
    }
    assert!(pages.is_sorted_by(|a, b| a >= b) && pages.len() > 2, "{pages:?}");
    assert_eq!(world.list(Filter::default()).await, [(kept, Status::Held)]);
}

pub(crate) async fn a_crash_in_the_middle_of_a_round_leaves_a_good_store(mut world: World) {
    let old = world.accept_many(300).await;
    for id in &old {
        world.cancel(*id).await;
    }
    let held = world.held().await;
    world.restart().await;
    world.clock.advance(MONTH);
    let retention = keep(Some(MONTH), None);
    let mut removed = 0;
    for _ in 0..3 {
        removed += world.store().prune(&retention, world.now()).await.unwrap().removed;
    }
    assert!(removed > 0 && removed < old.len(), "{removed}");
    world.crash().await;
    let listed = world.list(Filter::default()).await;
    assert_eq!(listed.len(), old.len() - removed + 1);
    for (id, _) in listed {
        assert!(is_there(&world, id).await);
    }
    assert_eq!(tidy(&world, &retention).await, (old.len() - removed, 0));
    assert_eq!(world.list(Filter::default()).await, [(held, Status::Held)]);
    while !world.store().compact().await.unwrap().is_done {}
}
