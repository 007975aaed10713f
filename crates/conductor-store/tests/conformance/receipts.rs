//! What providers report later: the status follows from all that was reported, whatever came first.

use std::time::Duration;

use conductor_core::receipts::{Arrival, PartKey, Reception, Report, Reported, Reporter};
use conductor_core::store::Filter;
use conductor_core::{DeliveryKey, NotificationId, Settlement, Status, TenantId};

use crate::harness::*;

use Arrival::{Delivered, Undelivered};

fn part_of(delivery: DeliveryKey, part: u32, parts: u32, arrival: Arrival) -> Report {
    let (code, detail) = match arrival {
        Delivered => (None, None),
        Undelivered => (Some(format!("3000{part}")), Some("the phone is off".to_owned())),
    };
    Report { part: PartKey { delivery, part, parts }, arrival, code, detail, at: None }
}

fn whole(id: NotificationId, arrival: Arrival) -> Report {
    part_of(first(id), 0, 1, arrival)
}

fn by(tenant: TenantId, channel: &str) -> Reporter {
    Reporter { tenant, channel: channel.into() }
}

impl World {
    async fn report(&self, report: Report) -> Reported {
        self.store().report(&by(TENANT, "log"), report, self.now()).await.unwrap()
    }

    async fn sent(&self) -> NotificationId {
        let id = self.plain().await;
        self.attempt(first(id), Settlement::Sent).await;
        id
    }

    async fn reception(&self, id: NotificationId) -> Option<Reception> {
        self.story(id).await.deliveries.remove(0).receipt
    }
}

pub(crate) async fn a_report_moves_what_was_sent(mut w: World) {
    for (arrival, status) in [(Delivered, Status::Delivered), (Undelivered, Status::Undelivered)] {
        let id = w.sent().await;
        assert_eq!(w.reception(id).await, None);
        let mut report = whole(id, arrival);
        report.at = Some(w.now().minus(SECOND));
        assert_eq!(w.report(report.clone()).await, Reported::Changed(status));
        for _ in 0..2 {
            assert_eq!(w.status(id).await, status);
            let Report { code, detail, .. } = report.clone();
            let at = start().minus(SECOND);
            assert_eq!(w.reception(id).await, Some(Reception { arrival, at, code, detail }));
            w.crash().await;
        }
        let dead = w.list(Filter { dead_letters: true, ..Filter::default() }).await;
        assert_eq!(dead.iter().any(|(dead, _)| *dead == id), arrival == Undelivered);
    }
}

pub(crate) async fn the_same_report_again_changes_nothing(w: World) {
    for arrival in [Delivered, Undelivered] {
        let id = w.sent().await;
        w.report(whole(id, arrival)).await;
        let story = w.story(id).await;
        w.clock.advance(HOUR);
        assert_eq!(w.report(whole(id, arrival)).await, Reported::Unchanged);
        assert_eq!(w.story(id).await, story);
    }
}

pub(crate) async fn what_arrived_stays_delivered_whatever_comes_after(w: World) {
    for order in [[Delivered, Undelivered], [Undelivered, Delivered]] {
        let id = w.sent().await;
        for arrival in order {
            w.report(whole(id, arrival)).await;
        }
        assert_eq!(w.status(id).await, Status::Delivered);
        assert_eq!(w.reception(id).await.unwrap().code, None);
    }
}

pub(crate) async fn a_text_in_parts_is_delivered_when_all_are_and_undelivered_when_one_is_not(w: World) {
    let id = w.sent().await;
    let report = async |part, arrival| w.report(part_of(first(id), part, 3, arrival)).await;
    assert_eq!(report(2, Delivered).await, Reported::Unchanged);
    assert_eq!(report(2, Delivered).await, Reported::Unchanged, "the same part does not count twice");
    assert_eq!(report(0, Delivered).await, Reported::Unchanged);
    assert_eq!((w.status(id).await, w.reception(id).await), (Status::Sent, None));
    assert_eq!(report(1, Undelivered).await, Reported::Changed(Status::Undelivered));
    assert_eq!(w.reception(id).await.unwrap().code.as_deref(), Some("30001"));
    assert_eq!(report(1, Delivered).await, Reported::Changed(Status::Delivered));
    assert_eq!(w.status(id).await, Status::Delivered);
}

pub(crate) async fn a_report_that_comes_before_the_attempt_is_settled_counts(w: World) {
    for (arrival, status) in [(Delivered, Status::Delivered), (Undelivered, Status::Undelivered)] {
        let id = w.plain().await;
        let lease = w.lease(first(id)).await;
        assert_eq!(w.report(whole(id, arrival)).await, Reported::Unchanged);
        assert_eq!(w.status(id).await, Status::Sending);
        let finished = w.finished(&lease, Settlement::Sent);
        let settled = w.store().settle(lease, finished).await.unwrap();
        assert_eq!((settled.status, settled.next), (status, None));
        assert_eq!(w.status(id).await, status);
    }
}

pub(crate) async fn what_did_not_arrive_goes_on_to_its_fallback_once(mut w: World) {
    for early in [false, true] {
        let id = w.accept(|d| d.fallback = vec![fallback("slack", OTHER_CHANNEL, Some("#ops"))]).await;
        let next = DeliveryKey { ordinal: 1, ..first(id) };
        if early {
            let lease = w.lease(first(id)).await;
            w.report(whole(id, Undelivered)).await;
            let finished = w.finished(&lease, Settlement::Sent);
            let settled = w.store().settle(lease, finished).await.unwrap();
            assert_eq!(settled.next.map(|next| (next.key, next.channel)), Some((next, OTHER_CHANNEL)));
        } else {
            w.attempt(first(id), Settlement::Sent).await;
            w.arriving().await;
            assert_eq!(w.report(whole(id, Undelivered)).await, Reported::Changed(Status::Undelivered));
            assert_eq!(w.arriving().await, [next]);
        }
        w.report(whole(id, Undelivered)).await;
        assert_eq!(w.store().waiting(OTHER_CHANNEL), 1);
        w.crash().await;
        let statuses: Vec<_> = w.story(id).await.deliveries.iter().map(|delivery| delivery.status).collect();
        assert_eq!(statuses, [Status::Undelivered, Status::Queued]);
        let lease = w.lease(next).await;
        assert_eq!((lease.channel, lease.target.as_deref()), (OTHER_CHANNEL, Some("#ops")));
        let sent = w.finished(&lease, Settlement::Sent);
        w.store().settle(lease, sent).await.unwrap();
        assert_eq!(w.report(whole(id, Delivered)).await, Reported::Changed(Status::Delivered));
        assert_eq!(w.status(id).await, Status::Sent, "the fallback's own");
    }
}

pub(crate) async fn a_fallback_that_would_come_too_late_is_not_queued(w: World) {
    let id = w.accept(|d| d.fallback = vec![fallback("slack", OTHER_CHANNEL, None)]).await;
    w.attempt(first(id), Settlement::Sent).await;
    w.clock.advance(DAY);
    assert_eq!(w.report(whole(id, Undelivered)).await, Reported::Changed(Status::Undelivered));
    assert_eq!((w.status(id).await, w.store().waiting(OTHER_CHANNEL)), (Status::Undelivered, 0));
}

pub(crate) async fn an_undelivered_one_can_be_tried_again(w: World) {
    let id = w.sent().await;
    w.report(whole(id, Undelivered)).await;
    w.replay(id).await;
    let again = DeliveryKey { ordinal: 1, ..first(id) };
    assert_eq!(w.report(whole(id, Undelivered)).await, Reported::Unchanged);
    w.attempt(again, Settlement::Sent).await;
    assert_eq!(w.report(part_of(again, 0, 1, Delivered)).await, Reported::Changed(Status::Delivered));
    let statuses: Vec<_> = w.story(id).await.deliveries.iter().map(|delivery| delivery.status).collect();
    assert_eq!(statuses, [Status::Undelivered, Status::Delivered]);
}

pub(crate) async fn nobody_reports_on_what_is_not_theirs(w: World) {
    let id = w.sent().await;
    let story = w.story(id).await;
    for reporter in [by(OTHER_TENANT, "log"), by(TENANT, "slack")] {
        let reported = w.store().report(&reporter, whole(id, Undelivered), w.now()).await;
        assert_eq!(reported, Ok(Reported::Unknown), "{reporter:?}");
    }
    let no_such = DeliveryKey { ordinal: 1, ..first(id) };
    assert_eq!(w.report(part_of(no_such, 0, 1, Undelivered)).await, Reported::Unknown);
    assert_eq!(w.report(whole(id_at(start(), 4711), Undelivered)).await, Reported::Unknown);
    assert_eq!(w.story(id).await, story);
}

pub(crate) async fn what_was_never_sent_is_not_moved_by_a_report(w: World) {
    let canceled = w.plain().await;
    w.cancel(canceled).await;
    let dead = w.dead_letter().await;
    for (id, status) in [(canceled, Status::Canceled), (dead, Status::Failed)] {
        assert_eq!(w.report(whole(id, Delivered)).await, Reported::Unchanged);
        assert_eq!(w.status(id).await, status);
    }
}

pub(crate) async fn a_late_report_keeps_no_words_where_the_content_is_gone(mut w: World) {
    use conductor_core::{Keep, Retention};
    let id = w.sent().await;
    w.restart().await;
    w.clock.advance(2 * HOUR);
    let others = Keep { whole: None, content: Some(Duration::from_secs(3_600)) };
    let retention = std::sync::Arc::new(Retention { others, ..Retention::default() });
    while !w.store().prune(&retention, w.now()).await.unwrap().is_done {}
    assert!(w.story(id).await.redacted_at.is_some());
    w.report(whole(id, Undelivered)).await;
    let reception = w.reception(id).await.unwrap();
    assert_eq!((reception.code.as_deref(), reception.detail), (Some("30000"), None));
}
