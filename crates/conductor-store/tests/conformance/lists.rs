//! Pages of a tenant's notifications.

use conductor_core::store::Filter;
use conductor_core::{FailureReason, NotificationId, Settlement, Status};

use crate::harness::*;

async fn ids(w: &World, filter: Filter) -> Vec<NotificationId> {
    w.list(filter).await.into_iter().map(|(id, _)| id).collect()
}

fn reversed(mut ids: Vec<NotificationId>) -> Vec<NotificationId> {
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids
}

pub(crate) async fn the_newest_comes_first(w: World) {
    let mut expected = Vec::new();
    for _ in 0..10 {
        expected.push(w.plain().await);
        w.clock.advance(SECOND);
    }
    expected.reverse();
    let page = w.store().notifications(TENANT, &Filter::default(), 4, None).await.unwrap();
    let seen: Vec<_> = page.items.iter().map(|item| item.notification.id).collect();
    assert_eq!(seen, expected[..4]);
    assert_eq!(page.next, Some(expected[3]));
    let page = w.store().notifications(TENANT, &Filter::default(), 10, None).await.unwrap();
    assert_eq!((page.items.len(), page.next), (10, None), "no page follows a full last one");
    let page = w.store().notifications(TENANT, &Filter::default(), 10, Some(expected[9])).await.unwrap();
    assert_eq!((page.items.len(), page.next), (0, None));
}

pub(crate) async fn a_page_of_long_messages_is_short(w: World) {
    let mut expected = Vec::new();
    for _ in 0..40 {
        expected.push(w.accept(|d| d.message = "x".repeat(60_000)).await);
    }
    let (mut walked, mut before) = (Vec::new(), None);
    loop {
        let page = w.store().notifications(TENANT, &Filter::default(), 1_000, before).await.unwrap();
        assert!(page.items.len() < 20, "{} long messages in one page", page.items.len());
        walked.extend(page.items.iter().map(|item| item.notification.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(walked, reversed(expected));
}

pub(crate) async fn a_walk_sees_each_once_while_more_are_accepted(w: World) {
    let old = reversed(w.accept_many(3_000).await);
    let mut walked = Vec::new();
    let mut before = None;
    loop {
        let page = w.store().notifications(TENANT, &Filter::default(), 100, before).await.unwrap();
        walked.extend(page.items.iter().map(|item| item.notification.id));
        // Enough of them for the engine to write its index in between.
        w.accept_many(200).await;
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(walked, old);
}

pub(crate) async fn filters_have_to_fit_all(w: World) {
    let a = w.accept(|d| d.channel = "slack".into()).await;
    w.clock.advance(SECOND);
    let b = w.accept(|d| d.channel_id = OTHER_CHANNEL).await;
    let middle = w.now();
    w.clock.advance(SECOND);
    let c = w.accept(|d| (d.channel, d.channel_id) = ("slack".into(), OTHER_CHANNEL)).await;
    w.attempt(first(c), Settlement::Sent).await;
    let all = Filter::default;
    let slack = || Filter { channel: Some("slack".into()), ..all() };
    let cases = [
        (slack(), vec![c, a]),
        (Filter { channel_id: Some(OTHER_CHANNEL), ..all() }, vec![c, b]),
        (Filter { channel_id: Some(OTHER_CHANNEL), ..slack() }, vec![c]),
        (Filter { status: Some(Status::Queued), ..slack() }, vec![a]),
        (Filter { from: Some(middle), ..all() }, vec![c, b]),
        (Filter { to: Some(middle), ..all() }, vec![a]),
        (Filter { from: Some(middle), to: Some(middle.plus(SECOND)), ..all() }, vec![b]),
        (Filter { from: Some(w.now().plus(SECOND)), ..all() }, vec![]),
        (Filter { to: Some(start()), ..all() }, vec![]),
        (Filter { channel: Some("Slack".into()), ..all() }, vec![]),
        (Filter { channel: Some("nothing".into()), ..all() }, vec![]),
    ];
    for (filter, expected) in cases {
        assert_eq!(ids(&w, filter.clone()).await, expected, "{filter:?}");
    }
}

pub(crate) async fn each_status_is_found(mut w: World) {
    let queued = w.plain().await;
    let scheduled = w.accept(|d| d.send_at = Some(d.accepted_at.plus(HOUR))).await;
    let retrying = w.plain().await;
    w.attempt(first(retrying), w.retry_in(HOUR)).await;
    let held = w.held().await;
    let failed = w.dead_letter().await;
    let sent = w.plain().await;
    w.attempt(first(sent), Settlement::Sent).await;
    let canceled = w.plain().await;
    w.cancel(canceled).await;
    let expired = w.plain().await;
    w.attempt(first(expired), Settlement::Failed(FailureReason::Expired)).await;
    let (superseded, _) = w.accept_superseding(|d| d.key = Some("k".into())).await;
    let newer = w.accept(|d| d.key = Some("k".into())).await;
    w.cancel(newer).await;
    for round in ["before", "after a crash"] {
        let sending = w.lease(first(queued)).await;
        let expected = [
            (Status::Scheduled, vec![scheduled]),
            (Status::Queued, vec![]),
            (Status::Sending, vec![queued]),
            (Status::Retrying, vec![retrying]),
            (Status::Held, vec![held]),
            (Status::Sent, vec![sent]),
            (Status::Delivered, vec![]),
            (Status::Undelivered, vec![]),
            (Status::Failed, vec![failed]),
            (Status::Expired, vec![expired]),
            (Status::Canceled, vec![newer, canceled]),
            (Status::Superseded, vec![superseded]),
        ];
        for (status, expected) in expected {
            let found = w.list(Filter { status: Some(status), ..Filter::default() }).await;
            let expected: Vec<_> = expected.into_iter().map(|id| (id, status)).collect();
            assert_eq!(found, expected, "{round}");
        }
        w.store().release(sending).await;
        w.crash().await;
    }
}

pub(crate) async fn a_rare_match_behind_many_is_found_though_pages_are_empty(w: World) {
    let rare = w.accept(|d| d.message = "the needle".into()).await;
    w.accept_many(25_000).await;
    let needle = Filter { text: Some("needle".into()), ..Filter::default() };
    let page = w.store().notifications(TENANT, &needle, 10, None).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_some(), "looking is bounded");
    assert_eq!(ids(&w, needle).await, [rare]);
}

pub(crate) async fn the_fed_and_the_unfed_part_are_one_list(w: World) {
    let theirs = w.accept(|d| d.tenant = OTHER_TENANT).await;
    let mut all = w.accept_many(5_000).await;
    for _ in 0..50 {
        all.push(w.plain().await);
    }
    assert_eq!(w.walk(TENANT, Filter::default(), 999).await.len(), all.len());
    let walked: Vec<_> = w.walk(TENANT, Filter::default(), 77).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(walked, reversed(all));
    assert_eq!(w.walk(OTHER_TENANT, Filter::default(), 77).await, [(theirs, Status::Queued)]);
}

pub(crate) async fn a_list_is_the_same_after_a_crash_and_after_a_stop(mut w: World) {
    let mut all = w.accept_many(4_500).await;
    for _ in 0..10 {
        all.push(w.plain().await);
        w.crash().await;
        all.push(w.plain().await);
        w.restart().await;
    }
    assert_eq!(ids(&w, Filter::default()).await, reversed(all));
}

pub(crate) async fn a_straggler_is_listed(mut w: World) {
    let early = w.draft();
    let earlier = id_at(conductor_core::Timestamp::from_millis(start().millis() - 5), 7);
    w.clock.advance(SECOND);
    let mut all = w.accept_many(5_000).await;
    w.restart().await;
    all.push(w.plain().await);
    // Their ids are older than what the engine has put in order already.
    all.push(early.id);
    w.store().accept(new(early)).await.unwrap();
    all.push(w.accept(|d| d.id = earlier).await);
    let all = reversed(all);
    assert_eq!(ids(&w, Filter::default()).await, all);
    w.crash().await;
    assert_eq!(ids(&w, Filter::default()).await, all);
    assert!(w.arriving().await.contains(&first(earlier)));
}

pub(crate) async fn a_tenant_sees_its_own(w: World) {
    let mine = w.plain().await;
    let theirs = w.accept(|d| d.tenant = OTHER_TENANT).await;
    w.attempt(first(theirs), Settlement::Failed(FailureReason::Permanent)).await;
    w.attempt(first(mine), Settlement::Failed(FailureReason::Permanent)).await;
    for status in [None, Some(Status::Failed)] {
        let filter = Filter { status, ..Filter::default() };
        assert_eq!(w.walk(TENANT, filter.clone(), 10).await, [(mine, Status::Failed)]);
        assert_eq!(w.walk(OTHER_TENANT, filter, 10).await, [(theirs, Status::Failed)]);
    }
}

pub(crate) async fn text_is_found_in_either_case(w: World) {
    let message = w.accept(|d| d.message = "Die TÜR ist offen: 100% _sicher_".into()).await;
    let title = w.accept(|d| d.title = Some("Tür".into())).await;
    let metadata = w.accept(|d| drop(d.metadata.insert("door".into(), "HAUSTÜR".into()))).await;
    let name = w.accept(|d| drop(d.metadata.insert("tür".into(), "x".into()))).await;
    let find = async |text: &str| ids(&w, Filter { text: Some(text.into()), ..Filter::default() }).await;
    assert_eq!(find("tür").await, [metadata, title, message], "but not in the name of a label");
    assert_eq!(find("TÜR IST").await, [message]);
    assert_eq!(find("0% _S").await, [message]);
    assert_eq!(find("%").await, [message], "no character is a wildcard");
    assert_eq!(find("nothing like it").await, []);
    assert!(!find("").await.is_empty() && find("").await.contains(&name));
}
