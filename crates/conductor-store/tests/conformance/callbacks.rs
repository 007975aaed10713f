//! Callbacks: made with what they tell or not at all, and kept until they are settled.

use std::sync::Arc;
use std::time::Duration;

use conductor_core::audit::AuditFilter;
use conductor_core::callbacks::{
    Callback, CallbackAttempt, CallbackNext, ChannelNews, Event, EventSet, GIVEN_UP_KEPT, Subscription, Subscriptions,
};
use conductor_core::receipts::{Arrival, PartKey, Report, Reporter};
use conductor_core::store::{Redirect, Unsettled};
use conductor_core::{
    DeliveryKey, EndpointId, FailureReason, Keep, NotificationId, Retention, Settlement, StoreError, TenantId,
};
use serde_json::Value;

use crate::harness::*;

const URL: &str = "https://a.example/hooks";

fn endpoint_of(tenant: TenantId) -> EndpointId {
    EndpointId::derive(tenant, URL)
}

fn endpoint() -> EndpointId {
    endpoint_of(TENANT)
}

fn wish(tenant: TenantId, events: EventSet, fingerprint: u8) -> Subscriptions {
    let mut subscriptions = Subscriptions::default();
    subscriptions.add(tenant, Subscription { endpoint: endpoint_of(tenant), events, fingerprint: [fingerprint; 32] });
    subscriptions
}

impl World {
    async fn listen(&self) {
        self.store().subscribe(wish(TENANT, EventSet::all(), 1)).await.unwrap();
    }

    /// What waits for the tenant's endpoint, in the order in which it was made.
    async fn callbacks(&self) -> Vec<Callback> {
        let mut waiting = self.store().callbacks(endpoint(), 1_000).await.unwrap();
        let count = waiting.state.map_or(0, |state| state.waiting);
        assert_eq!(count, waiting.first.len() as u64, "what waits is counted");
        waiting.first.sort_by_key(|callback| callback.number);
        waiting.first
    }

    /// The events and the notifications of what waits.
    async fn told(&self) -> Vec<(Event, String)> {
        let body = |callback: Callback| {
            let body: Value = serde_json::from_str(&callback.body).unwrap();
            assert_eq!(body["type"], callback.event.as_str());
            assert_eq!(body["timestamp"], callback.created_at.to_string());
            (callback.event, body["data"]["id"].as_str().unwrap_or_default().to_owned())
        };
        self.callbacks().await.into_iter().map(body).collect()
    }

    async fn settle(&self, callback: &Callback, next: CallbackNext) {
        let ok = next == CallbackNext::Done;
        let code = Some(if ok { "204" } else { "500" }.to_owned());
        let detail = (!ok).then(|| "the answer was 500".to_owned());
        let attempt = CallbackAttempt { at: self.now(), ok, code, detail };
        self.store().settle_callback(callback, attempt, next, self.now()).await.unwrap();
    }

    async fn report_arrival(&self, id: NotificationId, arrival: Arrival) {
        let part = PartKey { delivery: first(id), part: 0, parts: 1 };
        let report = Report { part, arrival, code: Some("30003".into()), detail: Some("is off".into()), at: None };
        let reporter = Reporter { tenant: TENANT, channel: "log".into() };
        self.store().report(&reporter, report, self.now()).await.unwrap();
    }
}

pub(crate) async fn each_change_is_told_once_and_in_order(w: World) {
    w.listen().await;
    let mut expected = Vec::new();
    let mut expect = |event, id: NotificationId| expected.push((event, id.to_string()));
    let sent = w.plain().await;
    w.attempt(first(sent), w.retry_in(Duration::ZERO)).await;
    w.attempt(first(sent), Settlement::Sent).await;
    expect(Event::NotificationSent, sent);
    w.report_arrival(sent, Arrival::Undelivered).await;
    expect(Event::NotificationUndelivered, sent);
    w.report_arrival(sent, Arrival::Delivered).await;
    w.report_arrival(sent, Arrival::Delivered).await;
    expect(Event::NotificationDelivered, sent);
    expect(Event::NotificationFailed, w.dead_letter().await);
    let canceled = w.plain().await;
    w.cancel(canceled).await;
    expect(Event::NotificationCanceled, canceled);
    let held = w.held().await;
    expect(Event::NotificationHeld, held);
    w.replay(held).await;
    w.attempt(first(held), Settlement::Hold).await;
    expect(Event::NotificationHeld, held);
    w.resolve(held).await;
    expect(Event::NotificationSent, held);
    let key = |draft: &mut conductor_core::Draft| draft.key = Some("door".into());
    let old = w.accept(key).await;
    let new = w.accept(key).await;
    expect(Event::NotificationSuperseded, old);
    w.clock.advance(DAY);
    w.store().expire(w.now()).await.unwrap();
    expect(Event::NotificationExpired, new);
    let told = w.told().await;
    assert_eq!(told, expected);
    let ids: std::collections::HashSet<_> = w.callbacks().await.iter().map(|callback| callback.id).collect();
    assert_eq!(ids.len(), told.len(), "each has an id of its own");
}

pub(crate) async fn a_notification_that_goes_on_is_not_told_of(w: World) {
    w.listen().await;
    let with_fallback = |draft: &mut conductor_core::Draft| {
        draft.fallback = vec![fallback("slack", OTHER_CHANNEL, Some("#ops"))];
    };
    let failed = w.accept(with_fallback).await;
    w.attempt(first(failed), Settlement::Failed(FailureReason::Permanent)).await;
    assert_eq!(w.told().await, [], "its fallback follows");
    let undelivered = w.accept(with_fallback).await;
    w.attempt(first(undelivered), Settlement::Sent).await;
    w.report_arrival(undelivered, Arrival::Undelivered).await;
    assert_eq!(w.told().await, [(Event::NotificationSent, undelivered.to_string())], "its fallback follows");
    let redirected = w.held().await;
    let redirect = Redirect { channel: "slack".into(), channel_id: OTHER_CHANNEL, target: None };
    w.store().replay(TENANT, redirected, Some(redirect), w.now(), w.now().plus(DAY)).await.unwrap();
    let second = DeliveryKey { ordinal: 1, ..first(failed) };
    w.attempt(second, Settlement::Failed(FailureReason::Rejected)).await;
    let told = w.told().await;
    assert_eq!(
        told[1..],
        [(Event::NotificationHeld, redirected.to_string()), (Event::NotificationFailed, failed.to_string())]
    );
    let body: Value = serde_json::from_str(&w.callbacks().await[2].body).unwrap();
    let data = &body["data"];
    assert_eq!((&data["channel"], &data["delivery"]["channel"]), (&"log".into(), &"slack".into()));
    assert_eq!((&data["delivery"]["targetId"], &data["delivery"]["reason"]), (&"#ops".into(), &"rejected".into()));
    assert_eq!(data["delivery"]["id"], second.id().to_string());
}

pub(crate) async fn what_has_arrived_before_it_was_settled_was_sent_first(w: World) {
    w.listen().await;
    let with_fallback = async |fallbacks: usize, arrival| {
        let draft = |draft: &mut conductor_core::Draft| {
            draft.fallback = vec![fallback("slack", OTHER_CHANNEL, Some("#ops")); fallbacks];
        };
        let id = w.accept(draft).await;
        let lease = w.lease(first(id)).await;
        w.report_arrival(id, arrival).await;
        let finished = w.finished(&lease, Settlement::Sent);
        w.store().settle(lease, finished).await.unwrap();
        id
    };
    let delivered = with_fallback(0, Arrival::Delivered).await;
    let undelivered = with_fallback(0, Arrival::Undelivered).await;
    let goes_on = with_fallback(1, Arrival::Undelivered).await;
    let expected = [
        (Event::NotificationSent, delivered),
        (Event::NotificationDelivered, delivered),
        (Event::NotificationSent, undelivered),
        (Event::NotificationUndelivered, undelivered),
        (Event::NotificationSent, goes_on),
    ];
    assert_eq!(w.told().await, expected.map(|(event, id)| (event, id.to_string())));
    let bodies = w.callbacks().await.into_iter().map(|callback| serde_json::from_str(&callback.body).unwrap());
    let deliveries: Vec<Value> = bodies.map(|mut body: Value| body["data"]["delivery"].take()).collect();
    assert_eq!((&deliveries[0]["status"], &deliveries[0]["receipt"]), (&"sent".into(), &Value::Null));
    assert_eq!((&deliveries[1]["status"], &deliveries[1]["receipt"]["code"]), (&"delivered".into(), &"30003".into()));
    let filter = AuditFilter { notification: Some(undelivered), ..AuditFilter::default() };
    let audited = w.audited(Some(TENANT), &filter, 10).await;
    let entry = |place: usize| (audited[place].kind.as_str(), audited[place].actor.as_str());
    assert_eq!((entry(1), entry(0)), (("sent", "server"), ("undelivered", "provider")));
    assert!(audited[0].details.as_ref().is_some_and(|details| details.contains("30003")));
}

pub(crate) async fn who_disabled_and_enabled_an_endpoint_is_in_the_audit_log(w: World) {
    w.listen().await;
    assert_eq!(w.store().renewed_endpoints(), [endpoint()]);
    for _ in 0..3 {
        w.dead_letter().await;
    }
    let all = w.callbacks().await;
    w.settle(&all[0], CallbackNext::Disable).await;
    w.settle(&all[1], CallbackNext::Disable).await;
    assert_eq!(w.store().renewed_endpoints(), []);
    w.store().enable_endpoint(TENANT, endpoint()).await.unwrap();
    w.store().enable_endpoint(TENANT, endpoint()).await.unwrap();
    assert_eq!(w.store().renewed_endpoints(), [endpoint()]);
    w.settle(&all[2], CallbackNext::Disable).await;
    w.listen().await;
    assert_eq!(w.store().renewed_endpoints(), [], "nothing is configured otherwise");
    w.store().subscribe(wish(TENANT, EventSet::all(), 2)).await.unwrap();
    assert_eq!(w.store().renewed_endpoints(), [endpoint()]);
    let mut log = w.audited(Some(TENANT), &AuditFilter::default(), 100).await;
    log.reverse();
    log.retain(|entry| entry.kind.starts_with("endpoint"));
    let told: Vec<_> = log.iter().map(|entry| (entry.kind.as_str(), entry.actor.as_str())).collect();
    let disabled = ("endpointDisabled", "server");
    assert_eq!(told, [disabled, ("endpointEnabled", "tenant"), disabled, ("endpointEnabled", "operator")]);
    let details = format!("{{\"endpoint\":\"{}\"}}", endpoint());
    assert!(log.iter().all(|entry| entry.details.as_ref() == Some(&details)));
}

pub(crate) async fn a_callback_says_what_happened_and_not_what_was_written(w: World) {
    w.listen().await;
    let id = w
        .accept(|draft| {
            draft.message = "SECRET".into();
            draft.title = Some("SECRET".into());
            draft.data = serde_json::Map::from_iter([("a".to_owned(), Value::from("SECRET"))]);
            draft.target = Some("+4915112345678".into());
            draft.metadata = [("order".to_owned(), "42".to_owned())].into();
        })
        .await;
    w.attempt(first(id), Settlement::Failed(FailureReason::Permanent)).await;
    let callback = w.callbacks().await.remove(0);
    assert!(!callback.body.contains("SECRET"), "{}", callback.body);
    let body: Value = serde_json::from_str(&callback.body).unwrap();
    let expected = serde_json::json!({
        "type": "notification.failed", "timestamp": start(),
        "data": {
            "id": id, "tenantId": TENANT, "channel": "log", "channelId": CHANNEL, "targetId": "+4915112345678",
            "status": "failed", "priority": "normal", "key": null, "metadata": { "order": "42" }, "timestamp": start(),
            "delivery": {
                "id": first(id).id(), "channel": "log", "channelId": CHANNEL, "targetId": "+4915112345678",
                "status": "failed", "reason": "permanent", "providerId": null, "attempts": 1,
                "lastAttempt": { "number": 1, "at": start(), "durationMs": 212, "outcome": "permanent", "code": "418",
                    "detail": "as the provider says" },
                "receipt": null
            }
        }
    });
    assert_eq!(body, expected);
}

pub(crate) async fn nobody_else_is_told_and_nothing_that_was_not_asked_for(w: World) {
    let failures: EventSet = [Event::NotificationFailed].into_iter().collect();
    let mut subscriptions = wish(TENANT, failures, 1);
    let other = Subscription { endpoint: endpoint_of(OTHER_TENANT), events: EventSet::all(), fingerprint: [1; 32] };
    subscriptions.add(OTHER_TENANT, other);
    w.store().subscribe(subscriptions).await.unwrap();
    let sent = w.plain().await;
    w.attempt(first(sent), Settlement::Sent).await;
    let failed = w.dead_letter().await;
    assert_eq!(w.told().await, [(Event::NotificationFailed, failed.to_string())]);
    let others = w.store().callbacks(endpoint_of(OTHER_TENANT), 10).await.unwrap();
    assert_eq!((others.first, others.state.unwrap().waiting), (Vec::new(), 0));
    let states = w.store().endpoints(TENANT).await.unwrap();
    assert_eq!(states.iter().map(|state| state.endpoint).collect::<Vec<_>>(), [endpoint()]);
}

pub(crate) async fn what_did_not_happen_is_not_told(w: World) {
    w.listen().await;
    let id = w.plain().await;
    let lease = w.lease(first(id)).await;
    let (forged, finished) = (forge(&lease), w.finished(&lease, Settlement::Sent));
    w.store().settle(lease, finished.clone()).await.unwrap();
    let again: Unsettled = w.store().settle(forged, finished).await.unwrap_err();
    assert_eq!(again.error, StoreError::LeaseLost);
    w.cancel(id).await;
    assert_eq!(w.told().await, [(Event::NotificationSent, id.to_string())]);
}

pub(crate) async fn what_waits_survives_a_crash_and_is_found_by_whoever_asks(mut w: World) {
    w.listen().await;
    assert_eq!(w.store().arrived_callbacks(), []);
    let failed = w.dead_letter().await;
    w.store().callback_arrived().await;
    assert_eq!(w.store().arrived_callbacks(), [endpoint()]);
    assert_eq!(w.store().arrived_callbacks(), [], "it is told once");
    let before = w.callbacks().await;
    for _ in 0..2 {
        w.crash().await;
        w.listen().await;
        assert_eq!(w.store().arrived_callbacks(), [endpoint()]);
        assert_eq!(w.callbacks().await, before);
        assert_eq!(w.told().await, [(Event::NotificationFailed, failed.to_string())]);
    }
}

pub(crate) async fn a_settled_callback_is_done_or_waits_or_is_given_up(w: World) {
    w.listen().await;
    for _ in 0..3 {
        w.dead_letter().await;
    }
    let all = w.callbacks().await;
    w.settle(&all[0], CallbackNext::Done).await;
    w.settle(&all[0], CallbackNext::Done).await;
    let due = w.now().plus(HOUR);
    w.settle(&all[1], CallbackNext::Again(due)).await;
    w.settle(&all[2], CallbackNext::GiveUp).await;
    let left = w.callbacks().await;
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].id, left[0].attempts, left[0].due), (all[1].id, 1, due));
    assert_eq!((&left[0].body, left[0].created_at), (&all[1].body, all[1].created_at));
    let state = w.store().endpoints(TENANT).await.unwrap().remove(0);
    assert_eq!((state.waiting, state.given_up, state.dropped), (1, 1, 0));
    let last = state.last.unwrap();
    assert_eq!((last.ok, last.code.as_deref()), (false, Some("500")));
    let given_up = w.store().given_up(endpoint()).await.unwrap();
    assert_eq!((given_up.len(), given_up[0].id, given_up[0].attempts), (1, all[2].id, 1));
    assert_eq!(given_up[0].detail.as_deref(), Some("the answer was 500"));
}

pub(crate) async fn the_last_that_were_given_up_are_remembered(w: World) {
    w.listen().await;
    for _ in 0..GIVEN_UP_KEPT + 3 {
        w.clock.advance(SECOND);
        w.dead_letter().await;
        let callback = w.callbacks().await.remove(0);
        w.settle(&callback, CallbackNext::GiveUp).await;
    }
    let kept = w.store().given_up(endpoint()).await.unwrap();
    assert_eq!((kept.len(), kept[0].at), (GIVEN_UP_KEPT, w.now()), "the newest come first");
    assert!(kept.is_sorted_by(|a, b| a.at >= b.at));
}

pub(crate) async fn an_endpoint_that_wants_no_more_gets_no_more(mut w: World) {
    w.listen().await;
    w.dead_letter().await;
    w.dead_letter().await;
    let all = w.callbacks().await;
    w.settle(&all[0], CallbackNext::Disable).await;
    w.dead_letter().await;
    assert_eq!(w.callbacks().await.len(), 1, "nothing more is kept for it");
    w.crash().await;
    w.listen().await;
    w.dead_letter().await;
    assert_eq!(w.callbacks().await.len(), 1, "also after a restart");
    let all = w.store().all_endpoints().await.unwrap();
    assert_eq!((all.len(), all[0].disabled_at, all[0].waiting), (1, Some(start()), 1));
    assert_eq!(w.store().clear_callbacks(endpoint()).await, Ok(1));
    assert_eq!(w.store().clear_callbacks(endpoint()).await, Ok(0));
    let state = w.store().endpoints(TENANT).await.unwrap().remove(0);
    assert_eq!((state.waiting, state.dropped, state.given_up), (0, 1, 1));
    // With another configuration, or when somebody says so, it is told again.
    assert_eq!(w.store().enable_endpoint(OTHER_TENANT, endpoint()).await, Ok(false));
    w.store().subscribe(wish(TENANT, EventSet::all(), 2)).await.unwrap();
    w.dead_letter().await;
    let again = w.callbacks().await;
    assert_eq!(again.len(), 1);
    w.settle(&again[0], CallbackNext::Disable).await;
    assert_eq!(w.store().enable_endpoint(TENANT, endpoint()).await, Ok(true));
    assert_eq!(w.store().enable_endpoint(TENANT, endpoint()).await, Ok(false));
    w.dead_letter().await;
    assert_eq!(w.callbacks().await.len(), 1);
}

pub(crate) async fn what_waits_too_long_is_thrown_away_when_told(w: World) {
    w.listen().await;
    w.dead_letter().await;
    w.dead_letter().await;
    w.clock.advance(SECOND);
    let young = w.dead_letter().await;
    assert_eq!(w.store().endpoints(TENANT).await.unwrap()[0].oldest, Some(start()));
    assert_eq!(w.store().drop_old_callbacks(endpoint(), w.now()).await, Ok(0), "each is to have one attempt");
    for callback in w.callbacks().await {
        w.settle(&callback, CallbackNext::Again(w.now())).await;
    }
    assert_eq!(w.store().drop_old_callbacks(endpoint(), start()).await, Ok(0));
    assert_eq!(w.store().drop_old_callbacks(endpoint(), w.now()).await, Ok(2));
    assert_eq!(w.told().await, [(Event::NotificationFailed, young.to_string())]);
    let state = w.store().endpoints(TENANT).await.unwrap().remove(0);
    assert_eq!((state.waiting, state.dropped, state.oldest), (1, 2, Some(w.now())));
}

pub(crate) async fn what_is_configured_no_more_is_thrown_away_when_told(w: World) {
    w.listen().await;
    w.dead_letter().await;
    let under_way = w.callbacks().await.remove(0);
    assert_eq!(w.store().clear_callbacks(endpoint()).await, Ok(0), "it is to be told");
    w.store().subscribe(Subscriptions::default()).await.unwrap();
    w.dead_letter().await;
    assert_eq!(w.store().all_endpoints().await.unwrap().len(), 1);
    assert_eq!(w.callbacks().await.len(), 1, "nothing was added");
    assert_eq!(w.store().clear_callbacks(endpoint()).await, Ok(1));
    assert_eq!(w.store().clear_callbacks(endpoint()).await, Ok(0));
    assert_eq!(w.store().endpoints(TENANT).await, Ok(Vec::new()));
    // An attempt that was under way all the time changes nothing of what came since.
    w.listen().await;
    w.clock.advance(SECOND);
    w.dead_letter().await;
    assert_eq!(w.callbacks().await[0].number, under_way.number);
    w.settle(&under_way, CallbackNext::Done).await;
    assert_eq!(w.callbacks().await.len(), 1);
}

pub(crate) async fn a_channel_is_told_of_and_what_was_told_is_remembered(mut w: World) {
    w.listen().await;
    let news = |down: Option<&str>| ChannelNews {
        tenant: TENANT,
        channel: CHANNEL,
        kind: "log".into(),
        name: "alerts".into(),
        down: down.map(str::to_owned),
        since: start(),
    };
    w.store().tell_of_channel(news(Some("no answer")), w.now()).await.unwrap();
    w.crash().await;
    w.listen().await;
    assert_eq!(w.store().channels_down().await, Ok(vec![CHANNEL]));
    w.clock.advance(SECOND);
    w.store().tell_of_channel(news(None), w.now()).await.unwrap();
    assert_eq!(w.store().channels_down().await, Ok(Vec::new()));
    let events: Vec<Event> = w.callbacks().await.iter().map(|callback| callback.event).collect();
    assert_eq!(events, [Event::ChannelDown, Event::ChannelUp]);
    let body: Value = serde_json::from_str(&w.callbacks().await[0].body).unwrap();
    let data = serde_json::json!({ "tenantId": TENANT, "channel": "log", "channelId": CHANNEL, "channelName": "alerts",
        "status": "down", "reason": "no answer", "since": start() });
    assert_eq!(body["data"], data);
    w.store().tell_of_channel(news(Some("again")), w.now()).await.unwrap();
    w.store().forget_channel(CHANNEL).await.unwrap();
    assert_eq!(w.store().channels_down().await, Ok(Vec::new()));
}

pub(crate) async fn what_is_forgotten_is_forgotten_in_callbacks_too(mut w: World) {
    w.listen().await;
    let id = w.accept(|draft| draft.target = Some("+4915112345678".into())).await;
    w.attempt(first(id), Settlement::Failed(FailureReason::Permanent)).await;
    let before = w.callbacks().await.remove(0);
    assert!(before.body.contains("+49151") && before.body.contains("as the provider says"));
    w.clock.advance(DAY);
    w.restart().await;
    let keep = Keep { whole: None, content: Some(HOUR) };
    let retention = Arc::new(Retention { others: keep, ..Retention::default() });
    for _ in 0..100 {
        if w.store().prune(&retention, w.now()).await.unwrap().is_done {
            break;
        }
    }
    let after = w.callbacks().await.remove(0);
    assert!(!after.body.contains("+49151") && !after.body.contains("as the provider says"), "{}", after.body);
    let body: Value = serde_json::from_str(&after.body).unwrap();
    assert_eq!((&body["data"]["id"], &body["data"]["targetId"]), (&id.to_string().into(), &Value::Null));
    assert_eq!((after.id, after.due), (before.id, before.due));
}
