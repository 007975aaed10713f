//! What the audit log says: one entry for each change, in the transaction that made it, and a chain that holds.

use std::collections::HashMap;
use std::sync::Arc;

use conductor_core::audit::{
    AuditEntry, AuditEvent, AuditFilter, AuditKind, AuditTidied, ChainCheck, Content, Details, GENESIS, seal,
};
use conductor_core::receipts::{Arrival, PartKey, Report, Reporter};
use conductor_core::replay::{ReplayItem, ReplayJob, ReplayStep};
use conductor_core::store::{Filter, Redirect, Transition};
use conductor_core::{
    Actor, DeliveryKey, FailureReason, Keep, Notification, NotificationId, ReplayId, Retention, Settlement, TenantId,
};
use tokio::task::JoinSet;

use crate::harness::*;

impl World {
    /// A tenant's whole log, or all of it, newest first, by pages of this size.
    pub(crate) async fn audited(
        &self,
        tenant: Option<TenantId>,
        filter: &AuditFilter,
        limit: usize,
    ) -> Vec<AuditEntry> {
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let page = self.store().audit(tenant, filter, limit, before).await.unwrap();
            assert!(page.items.len() <= limit);
            assert!(page.items.iter().all(|entry| tenant.is_none() || entry.tenant == tenant));
            all.extend(page.items);
            match page.next {
                None => return all,
                Some(next) => assert!(before.replace(next).is_none_or(|before| next < before), "a walk goes on"),
            }
        }
    }

    async fn log(&self) -> Vec<AuditEntry> {
        let mut all = self.audited(None, &AuditFilter::default(), 1_000).await;
        all.reverse();
        all
    }

    /// Every entry is there and follows the one before it. Returns how many there are.
    pub(crate) async fn chain_holds(&self) -> usize {
        let log = self.log().await;
        let mut check = ChainCheck::behind(0, GENESIS);
        for (index, entry) in log.iter().enumerate() {
            assert_eq!(check.next(entry, &log[index + 1..]), None);
        }
        log.len()
    }

    /// What a notification's entries say: kind, who did it, which delivery.
    async fn audited_of(&self, id: NotificationId) -> Vec<(String, String, Option<u8>)> {
        let filter = AuditFilter { notification: Some(id), ..AuditFilter::default() };
        let mut told: Vec<_> = self.audited(Some(TENANT), &filter, 3).await;
        told.reverse();
        told.into_iter().map(|entry| (entry.kind, entry.actor, entry.ordinal)).collect()
    }
}

type Told = [(AuditKind, Actor, u8)];

async fn expect(w: &World, id: NotificationId, expected: &Told) {
    let text = |(kind, actor, ordinal): &(AuditKind, Actor, u8)| (kind.to_string(), actor.to_string(), Some(*ordinal));
    assert_eq!(w.audited_of(id).await, expected.iter().map(text).collect::<Vec<_>>());
}

fn failed() -> Settlement {
    Settlement::Failed(FailureReason::Permanent)
}

fn redirect() -> Option<Redirect> {
    Some(Redirect { channel: "slack".into(), channel_id: OTHER_CHANNEL, target: Some("#ops".into()) })
}

use Actor::{Provider, Server, Tenant};
use AuditKind as Kind;

pub(crate) async fn each_change_of_a_state_leaves_one_entry(w: World) {
    let sent = w.plain().await;
    let lease = w.lease(first(sent)).await;
    w.store().release(lease).await;
    w.attempt(first(sent), w.retry_in(SECOND)).await;
    w.clock.advance(SECOND);
    w.attempt(first(sent), Settlement::StepDown).await;
    w.attempt(first(sent), Settlement::Sent).await;
    let retrying = (Kind::Retrying, Server, 0);
    expect(&w, sent, &[(Kind::Accepted, Tenant, 0), retrying, retrying, (Kind::Sent, Server, 0)]).await;

    let canceled = w.plain().await;
    w.cancel(canceled).await;
    assert_eq!(w.cancel(canceled).await, Transition::WrongStatus(conductor_core::Status::Canceled));
    expect(&w, canceled, &[(Kind::Accepted, Tenant, 0), (Kind::Canceled, Tenant, 0)]).await;

    let key = |draft: &mut conductor_core::Draft| draft.key = Some("door".into());
    let superseded = w.accept(key).await;
    let newer = w.accept(key).await;
    expect(&w, superseded, &[(Kind::Accepted, Tenant, 0), (Kind::Superseded, Tenant, 0)]).await;
    expect(&w, newer, &[(Kind::Accepted, Tenant, 0)]).await;

    let resolved = w.held().await;
    w.resolve(resolved).await;
    let held = [(Kind::Accepted, Tenant, 0), (Kind::Held, Server, 0)];
    expect(&w, resolved, &[&held[..], &[(Kind::Resolved, Tenant, 0)]].concat()).await;
    let replayed = w.held().await;
    w.replay(replayed).await;
    expect(&w, replayed, &[&held[..], &[(Kind::Replayed, Tenant, 0)]].concat()).await;
    let redirected = w.held().await;
    w.store().replay(TENANT, redirected, redirect(), w.now(), w.now().plus(HOUR)).await.unwrap();
    let way = [(Kind::Redirected, Tenant, 0), (Kind::Replayed, Tenant, 1)];
    expect(&w, redirected, &[&held[..], &way].concat()).await;

    let dead = w.accept(|draft| draft.fallback = vec![fallback("slack", OTHER_CHANNEL, None)]).await;
    w.attempt(first(dead), failed()).await;
    w.attempt(DeliveryKey { notification: dead, ordinal: 1 }, failed()).await;
    w.replay(dead).await;
    let failures = [(Kind::Failed, Server, 0), (Kind::Fallback, Server, 1), (Kind::Failed, Server, 1)];
    let expected = [&[(Kind::Accepted, Tenant, 0)], &failures[..], &[(Kind::Replayed, Tenant, 2)]].concat();
    expect(&w, dead, &expected).await;

    let expired = w.plain().await;
    w.clock.advance(2 * DAY);
    while !w.store().expire(w.now()).await.unwrap().is_empty() {}
    expect(&w, expired, &[(Kind::Accepted, Tenant, 0), (Kind::Expired, Server, 0)]).await;
    w.chain_holds().await;
}

pub(crate) async fn a_report_and_a_bulk_retry_leave_their_entries(w: World) {
    let sent = w.plain().await;
    w.attempt(first(sent), Settlement::Sent).await;
    let by = Reporter { tenant: TENANT, channel: "log".into() };
    let part = PartKey { delivery: first(sent), part: 0, parts: 1 };
    let report = Report { part, arrival: Arrival::Undelivered, code: Some("30003".into()), detail: None, at: None };
    for _ in 0..2 {
        w.store().report(&by, report.clone(), w.now()).await.unwrap();
    }
    let until_now = [(Kind::Accepted, Tenant, 0), (Kind::Sent, Server, 0), (Kind::Undelivered, Provider, 0)];
    expect(&w, sent, &until_now).await;

    let id = ReplayId::new(id_at(w.now(), 1_000_000).uuid());
    let filter = Filter { dead_letters: true, ..Filter::default() };
    let job = w.store().begin_replay(ReplayJob::new(id, TENANT, w.now(), filter)).await.unwrap().unwrap();
    let items = vec![ReplayItem { notification: sent, expires_after: HOUR }];
    let step = ReplayStep { job: id, from: job.position, items, due: w.now(), to: sent, ends_at: None };
    w.store().step_replay(step).await.unwrap();
    expect(&w, sent, &[&until_now[..], &[(Kind::Replayed, Tenant, 1)]].concat()).await;
    for by in [Server, Tenant] {
        w.store().cancel_replay(TENANT, id, by, w.now()).await.unwrap();
    }
    let of_jobs = |entry: &&AuditEntry| entry.notification.is_none();
    let log = w.log().await;
    let of = |entry: &AuditEntry| (entry.kind.clone(), entry.actor.clone(), entry.tenant);
    let jobs: Vec<_> = log.iter().filter(of_jobs).map(of).collect();
    let expected = [("retriesBegun", "tenant"), ("retriesCanceled", "server")];
    assert_eq!(jobs, expected.map(|(kind, actor)| (kind.to_owned(), actor.to_owned(), Some(TENANT))));
}

pub(crate) async fn an_entry_says_who_what_and_why(w: World) {
    let id =
        w.accept(|draft| (draft.priority, draft.target) = (conductor_core::Priority::High, Some("+43".into()))).await;
    w.clock.advance(SECOND);
    w.attempt(first(id), failed()).await;
    let log = w.log().await;
    let [accepted, failed] = log.as_slice() else { panic!("{log:?}") };
    assert_eq!((accepted.tenant, accepted.channel, accepted.at), (Some(TENANT), Some(CHANNEL), start()));
    assert_eq!(accepted.details.as_deref(), Some(r#"{"channel":"log","priority":"high"}"#));
    assert!(accepted.seal.is_some() && accepted.content.is_none(), "its content is the notification's");
    let details = r#"{"attempt":1,"outcome":"permanent","code":"418","reason":"permanent"}"#;
    assert_eq!((failed.details.as_deref(), failed.at), (Some(details), start().plus(SECOND)));
    let text = format!("{log:?}");
    assert!(!text.contains("+43") && !text.contains("as the provider says"), "no address and no words: {text}");
}

pub(crate) async fn a_process_that_died_during_an_attempt_leaves_an_entry(mut w: World) {
    let id = w.plain().await;
    w.crash().await;
    leased(w.claim_as(first(id), true).await);
    w.crash().await;
    expect(&w, id, &[(Kind::Accepted, Tenant, 0), (Kind::Lost, Server, 0)]).await;
    w.restart().await;
    expect(&w, id, &[(Kind::Accepted, Tenant, 0), (Kind::Lost, Server, 0)]).await;
}

pub(crate) async fn the_chain_goes_on_after_crashes_stops_and_what_could_not_be_written(mut w: World) {
    let mut count = 0;
    for round in 0..4 {
        let taken = w.plain().await;
        // Of these, one cannot be written, because there cannot be two of one id.
        let mut drafts: Vec<_> = (0..50).map(|_| w.draft()).collect();
        drafts[20].id = taken;
        let mut accepts = JoinSet::new();
        for draft in drafts {
            let store = Arc::clone(w.store());
            accepts.spawn(async move { store.accept(new(draft)).await });
        }
        let refused = accepts.join_all().await.iter().filter(|accepted| accepted.is_err()).count();
        assert_eq!(refused, 1);
        count += 50;
        assert_eq!(w.chain_holds().await, count);
        if round % 2 == 0 {
            w.crash().await;
        } else {
            w.restart().await;
        }
        assert_eq!(w.chain_holds().await, count);
    }
}

pub(crate) async fn a_tenant_lists_its_own_entries_and_the_operator_all(mut w: World) {
    let of_other = |draft: &mut conductor_core::Draft| draft.tenant = OTHER_TENANT;
    let rare = w.accept(of_other).await;
    w.accept_many(1_500).await;
    w.restart().await;
    let recent = w.accept(of_other).await;
    w.clock.advance(HOUR);
    let late = w.plain().await;
    let ids = |entries: Vec<AuditEntry>| entries.into_iter().filter_map(|entry| entry.notification).collect::<Vec<_>>();
    let everything = AuditFilter::default();
    for limit in [1, 7, 1_000] {
        assert_eq!(ids(w.audited(Some(OTHER_TENANT), &everything, limit).await), [recent, rare]);
    }
    assert_eq!(w.audited(Some(TENANT), &everything, 100).await.len(), 1_501);
    assert_eq!(w.audited(None, &everything, 100).await.len(), 1_503);
    assert_eq!(w.audited(Some(TenantId::from_bytes([9; 16])), &everything, 100).await, []);
    let only = async |filter: AuditFilter| ids(w.audited(Some(TENANT), &filter, 10).await);
    assert_eq!(only(AuditFilter { from: Some(w.now()), ..AuditFilter::default() }).await, [late]);
    assert_eq!(only(AuditFilter { to: Some(w.now()), ..AuditFilter::default() }).await.len(), 1_500);
    assert_eq!(only(AuditFilter { to: Some(start()), ..AuditFilter::default() }).await, []);
    assert_eq!(only(AuditFilter { notification: Some(rare), ..AuditFilter::default() }).await, []);
    assert_eq!(only(AuditFilter { notification: Some(late), ..AuditFilter::default() }).await, [late]);
    w.cancel(late).await;
    assert_eq!(only(AuditFilter { kind: Some(Kind::Canceled), ..AuditFilter::default() }).await, [late]);
}

pub(crate) async fn what_is_recorded_stands_in_the_log_with_its_content_until_that_is_too_old(mut w: World) {
    let content = serde_json::Map::from_iter([("address".to_owned(), "203.0.113.9".into())]);
    let event = |tenant, content| AuditEvent {
        tenant,
        content: Content::Here(content),
        ..AuditEvent::of_server(Kind::KeysRefused, Actor::Unknown, Details::new().number("count", 3))
    };
    w.store().record(event(None, content.clone())).await.unwrap();
    w.store().record(event(Some(OTHER_TENANT), content)).await.unwrap();
    let keep = |days: u32| Keep { whole: Some(DAY * 365), content: Some(DAY * days) };
    let tenants = HashMap::from([(OTHER_TENANT, keep(7))]);
    let retention = Arc::new(Retention { others: keep(2), tenants });
    let contents = |log: &[AuditEntry]| log.iter().map(|entry| entry.content.is_some()).collect::<Vec<_>>();
    for (days, expected) in [(0, [true, true]), (1, [true, true]), (2, [false, true]), (7, [false, false])] {
        w.clock.set(start().plus(DAY * days));
        let done = w.store().tidy_audit(None, &retention, w.now()).await.unwrap();
        assert!(done.is_done && done.removed == 0);
        let log = w.log().await;
        assert_eq!(contents(&log), expected, "day {days}");
        assert!(log.iter().all(|entry| entry.seal.is_some() && entry.details.as_deref() == Some(r#"{"count":3}"#)));
        w.chain_holds().await;
    }
    let found = &w.log().await[0];
    assert_ne!(found.seal, Some(seal(&[0; 16], r#"{"address":"203.0.113.9"}"#)), "nobody can guess what it was");
    w.crash().await;
    assert_eq!(w.chain_holds().await, 2);
}

pub(crate) async fn the_oldest_entries_go_and_the_others_can_still_be_proved(mut w: World) {
    w.accept_many(1_000).await;
    w.restart().await;
    w.clock.advance(DAY);
    w.accept_many(1_000).await;
    let before = w.log().await;
    let retention = Arc::new(Retention::default());
    let tidy = async |keep_from| {
        let mut removed = 0;
        loop {
            let done: AuditTidied = w.store().tidy_audit(Some(keep_from), &retention, w.now()).await.unwrap();
            removed += done.removed;
            if done.is_done {
                return removed;
            }
        }
    };
    assert_eq!(tidy(start()).await, 0, "nothing is that old");
    let removed = tidy(start().plus(HOUR)).await;
    assert!((700..=1_000).contains(&removed), "whole blocks: {removed}");
    assert_eq!(tidy(start().plus(HOUR)).await, 0);
    let log = w.log().await;
    let cut = usize::try_from(removed).unwrap();
    let kept = log.len() - (before.len() - cut);
    assert!((1..=3).contains(&kept), "entries say what was removed: {kept}");
    assert_eq!(log[..before.len() - cut], before[cut..]);
    let last = log.last().unwrap();
    assert_eq!((last.kind.as_str(), last.tenant), ("entriesRemoved", None));
    let mut check = ChainCheck::behind(removed, before[cut - 1].hash);
    assert!(log.iter().all(|entry| check.next(entry, &[]).is_none()));
    assert_eq!(w.audited(Some(TENANT), &AuditFilter::default(), 300).await.len(), 2_000 - cut);
    assert_eq!(tidy(w.now().plus(DAY)).await % 256, 0, "the end stays however old it is");
    assert!(!w.log().await.is_empty());
}

pub(crate) async fn a_clock_that_goes_wrong_removes_no_entry_too_early(w: World) {
    w.accept_many(300).await;
    // It was not set when the device started.
    w.clock.set(conductor_core::Timestamp::from_millis(5_000));
    w.accept_many(300).await;
    w.clock.set(start().plus(DAY * 4_000));
    w.accept_many(300).await;
    w.clock.set(start().plus(DAY));
    w.accept_many(300).await;
    let retention = Arc::new(Retention::default());
    let removed = async |keep_from| {
        let mut all = 0;
        for _ in 0..10 {
            all += w.store().tidy_audit(Some(keep_from), &retention, w.now()).await.unwrap().removed;
        }
        all
    };
    assert_eq!(removed(start()).await, 0);
    assert_eq!(removed(start().plus(HOUR)).await, 255, "whose time can be believed and is old enough");
    w.clock.advance(DAY);
    assert_eq!(
        removed(start().plus(DAY + HOUR)).await,
        1_023 - 255,
        "what follows them is old enough, so they are too"
    );
}

pub(crate) async fn what_was_accepted_can_be_proved_until_it_is_redacted(mut w: World) {
    let id = w.accept(|draft| draft.title = Some("Door".into())).await;
    w.attempt(first(id), Settlement::Sent).await;
    let accepted = w.log().await.remove(0);
    let notification: Notification = w.story(id).await.notification;
    assert_eq!(accepted.notification, Some(notification.id));
    let retention = Arc::new(Retention { others: Keep { whole: None, content: Some(DAY) }, ..Retention::default() });
    w.clock.advance(2 * DAY);
    // What is not in the lists' index yet is not looked at.
    w.restart().await;
    let mut redacted = 0;
    for _ in 0..100 {
        redacted += w.store().prune(&retention, w.now()).await.unwrap().redacted;
    }
    assert_eq!(redacted, 1);
    assert_eq!(w.log().await[0], accepted, "its entry stays as it was");
    assert_eq!(w.log().await.last().unwrap().details.as_deref(), Some(r#"{"removed":0,"redacted":1}"#));
    w.chain_holds().await;
}
