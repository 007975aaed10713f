//! Callbacks, from a change of state to the receiver: what is posted, what is tried again, and what is left alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conductor_core::callbacks::SCHEDULE;
use conductor_core::{Clock as _, ManualClock, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::client::Client;
use crate::support::description::{DESCRIPTION, validator};
use crate::support::process::Process;
use crate::support::provider::{Answer, DEADLINE, Provider, Received};
use crate::support::server::{ADMIN_KEY, KEY_A, KEY_B, TENANT_A, TENANT_B, TestServer, World, answer, http};

mod libraries;
mod receivers;
mod reloads;

/// What signs the callbacks of these tests.
pub(crate) const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const FAILED: &[&str] = &["notification.failed"];

/// A world whose first tenant has these callbacks.
pub(crate) fn with_callbacks(mut world: World, callbacks: &[Value]) -> World {
    world.tenants[0]["callbacks"] = json!(callbacks);
    world.variables.push(("HOOK".into(), SECRET.into()));
    world
}

/// A callback to a receiver on this machine; none of `events` means all.
pub(crate) fn callback(url: &str, events: &[&str]) -> Value {
    json!({ "url": url, "secretEnvVar": "HOOK", "events": events, "allowNetworks": ["127.0.0.0/8"] })
}

/// A world with a receiver and a webhook channel whose provider refuses everything for good.
async fn failing(receiver: &Provider) -> World {
    let provider = Provider::start().await;
    provider.then(Answer::status(404));
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    with_callbacks(world, &[callback(&receiver.url(), FAILED)])
}

async fn fail(server: &TestServer) -> String {
    let id = server.send(KEY_A, &json!({ "channel": "webhook", "message": "SECRET WORDS" })).await;
    server.wait_for(KEY_A, &id, "failed").await;
    id
}

/// Asks for the tenant's only endpoint until it is as it should be.
async fn endpoint(server: &TestServer, is_good: impl Fn(&Value) -> bool) -> Value {
    let (client, start) = (Client::new(server, Some(KEY_A)), Instant::now());
    loop {
        let page = client.get("/callbacks").await.expect(200);
        if is_good(&page["data"][0]) {
            return page["data"][0].clone();
        }
        assert!(start.elapsed() < DEADLINE, "not in time: {page:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn of(received: &[Received], kind: &str) -> Vec<Value> {
    received.iter().map(Received::json).filter(|body| body["type"] == kind).collect()
}

/// Waits until one of each of these has been posted.
async fn all_of(receiver: &Provider, kinds: &[&str]) -> Vec<Received> {
    let start = Instant::now();
    loop {
        let received = receiver.received();
        if kinds.iter().all(|kind| !of(&received, kind).is_empty()) {
            return received;
        }
        let came: Vec<_> = received.iter().map(|request| request.json()["type"].clone()).collect();
        assert!(start.elapsed() < DEADLINE, "only {came:?} came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_change_of_state_is_posted_signed_and_as_it_is_described() {
    let (receiver, provider) = (Provider::start().await, Provider::start().await);
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({ "onUnknown": "hold" }));
    let server = with_callbacks(world, &[callback(&receiver.url(), &[])]).start().await;
    let hook = |more: Value| {
        let mut body = json!({ "channel": "webhook", "message": "SECRET WORDS", "metadata": { "order": "42" } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let sent = server.send(KEY_A, &hook(json!({ "targetId": "roof" }))).await;
    server.wait_for(KEY_A, &sent, "sent").await;
    provider.next(Answer { body: "no such person", ..Answer::status(404) });
    let failed = server.send(KEY_A, &hook(json!({}))).await;
    server.wait_for(KEY_A, &failed, "failed").await;
    let later = json!({ "sendAt": "2999-01-01T00:00:00Z", "expiresAt": "2999-02-01T00:00:00Z", "key": "door" });
    let superseded = server.send(KEY_A, &hook(later.clone())).await;
    let canceled = server.send(KEY_A, &hook(later)).await;
    server.post(KEY_A, &format!("/notifications/{canceled}/cancel"), &json!({})).await;
    let soon = Timestamp::from_millis(conductor::clock::SystemClock.now().millis() + 300);
    let tardy = soon.plus(Duration::from_secs(3_600)).to_string();
    provider.next(Answer::status(503).header("Retry-After", "7200"));
    let expired = server.send(KEY_A, &hook(json!({ "expiresAt": tardy }))).await;
    let kinds = ["notification.sent", "notification.failed", "notification.superseded", "notification.canceled"];
    let kinds = [&kinds[..], &["notification.expired"]].concat();
    let received = all_of(&receiver, &kinds).await;
    let judge = standardwebhooks::Webhook::new(SECRET).expect("a good secret");
    for request in &received {
        judge.verify(&request.body, &request.headers).expect("the published library accepts the signature");
        let body = request.json();
        let kind = body["type"].as_str().unwrap();
        let described = &DESCRIPTION["webhooks"][kind]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let faults: Vec<_> = validator(described).iter_errors(&body).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?} in {body:#}");
        assert!(!String::from_utf8_lossy(&request.body).contains("SECRET WORDS"), "no content leaves this way");
        assert_eq!((request.header("conductor-hops"), request.header("content-type")), ("1", "application/json"));
        assert_eq!((&body["data"]["tenantId"], &body["data"]["metadata"]["order"]), (&TENANT_A.into(), &"42".into()));
    }
    let about = [&sent, &failed, &superseded, &canceled, &expired];
    for (kind, id) in kinds.iter().zip(about) {
        let told = of(&received, kind);
        assert_eq!((told.len(), told[0]["data"]["id"].as_str()), (1, Some(id.as_str())), "{kind}");
    }
    let told = &of(&received, "notification.failed")[0]["data"]["delivery"];
    let attempt = &told["lastAttempt"];
    assert_eq!((&told["reason"], &attempt["code"]), (&json!("rejected"), &json!("404")));
    assert!(attempt["detail"].as_str().unwrap().contains("no such person"), "{attempt}");
    server.stop().await;
}

#[tokio::test]
async fn a_failed_callback_is_tried_again_with_the_same_id_and_the_same_bytes() {
    let (receiver, clock) =
        (Provider::start().await, Arc::new(ManualClock::at(Timestamp::from_millis(1_763_000_000_000))));
    receiver.next(Answer { body: "overloaded", ..Answer::status(500) });
    let mut world = failing(&receiver).await;
    world.clock = Arc::clone(&clock) as Arc<_>;
    let server = world.start().await;
    fail(&server).await;
    let failing = endpoint(&server, |endpoint| endpoint["status"] == "failing").await;
    assert_eq!((&failing["waiting"], &failing["lastAttempt"]["code"]), (&json!(1), &json!("500")));
    assert_eq!(failing["lastAttempt"]["detail"], "the answer was 500 Internal Server Error: overloaded");
    assert_eq!(failing["url"], receiver.url().trim_end_matches("/hook"), "the path may be a credential");
    clock.advance(SCHEDULE[0].mul_f64(1.21));
    let done = endpoint(&server, |endpoint| endpoint["delivered"] == 1).await;
    assert_eq!((&done["status"], &done["waiting"], &done["givenUp"]), (&json!("active"), &json!(0), &json!(0)));
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert_eq!(received[0].body, received[1].body);
    assert_ne!(received[0].header("webhook-timestamp"), received[1].header("webhook-timestamp"));
    server.stop().await;
}

#[tokio::test]
async fn after_the_last_attempt_a_callback_is_given_up_and_shown() {
    let (receiver, clock) =
        (Provider::start().await, Arc::new(ManualClock::at(Timestamp::from_millis(1_763_000_000_000))));
    receiver.then(Answer::status(500));
    let mut world = failing(&receiver).await;
    world.clock = Arc::clone(&clock) as Arc<_>;
    let server = world.start().await;
    let id = fail(&server).await;
    for wait in SCHEDULE {
        let now = clock.now().to_string();
        endpoint(&server, |endpoint| endpoint["lastAttempt"]["at"] == now).await;
        clock.advance(wait.mul_f64(1.21));
    }
    let over = endpoint(&server, |endpoint| endpoint["givenUp"] == 1).await;
    assert_eq!((receiver.received().len(), &over["waiting"]), (8, &json!(0)));
    let given_up = &over["lastGivenUp"][0];
    assert_eq!((&given_up["notificationId"], &given_up["attempts"]), (&json!(id), &json!(8)));
    assert_eq!(given_up["event"], "notification.failed");
    let (_, metrics) = server.get(ADMIN_KEY, "/metrics").await;
    let metrics = metrics.as_str().expect("text");
    for (outcome, count) in [("retried", 7), ("givenUp", 1)] {
        let line = format!(
            "conductor_callbacks_total{{tenant=\"{TENANT_A}\",event=\"notification.failed\",outcome=\"{outcome}\"}} {count}"
        );
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_until_it_is_enabled() {
    let receiver = Provider::start().await;
    receiver.next(Answer::status(410));
    let world = failing(&receiver).await;
    let server = world.clone().start().await;
    fail(&server).await;
    let disabled = endpoint(&server, |endpoint| endpoint["status"] == "disabled").await;
    assert!(disabled["disabledAt"].is_string() && disabled["lastGivenUp"][0]["code"] == "410", "{disabled:#}");
    fail(&server).await;
    let directory = server.stop().await;
    let server = world.start_in(directory).await;
    fail(&server).await;
    let disabled = endpoint(&server, |endpoint| endpoint["status"] == "disabled").await;
    assert_eq!((&disabled["waiting"], receiver.received().len()), (&json!(0), 1), "also after a restart");
    let path = format!("/callbacks/{}/enable", disabled["id"].as_str().unwrap());
    Client::new(&server, Some(KEY_B)).post(&path, &json!({})).await.problem(404);
    let client = Client::new(&server, Some(KEY_A));
    client.post("/callbacks/nothing/enable", &json!({})).await.problem(404);
    for _ in 0..2 {
        let enabled = client.post(&path, &json!({})).await.expect(200);
        assert_eq!((&enabled["status"], &enabled["disabledAt"]), (&json!("failing"), &Value::Null));
    }
    let id = fail(&server).await;
    let received = receiver.wait_for(2).await;
    assert_eq!(received[1].json()["data"]["id"], id);
    server.stop().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let receiver = Provider::start().await;
    receiver.next(Answer::status(503).header("Retry-After", "8"));
    let server = failing(&receiver).await.start().await;
    fail(&server).await;
    receiver.wait_for(1).await;
    endpoint(&server, |endpoint| endpoint["status"] == "failing").await;
    // It is left alone as a whole: what comes now waits too.
    fail(&server).await;
    let received = receiver.wait_for(3).await;
    let waits: Vec<Duration> = received[1..].iter().map(|request| request.at - received[0].at).collect();
    assert!(waits.iter().all(|wait| *wait >= Duration::from_millis(7_900)), "{waits:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_delays_neither_another_nor_a_notification() {
    let (hanging, good) = (Provider::start().await, Provider::start().await);
    let end = CancellationToken::new();
    hanging.then(Answer::status(200).held_until(&end));
    let mut world = failing(&hanging).await;
    world.tenants[0]["callbacks"] = json!([callback(&hanging.url(), FAILED), callback(&good.url(), FAILED)]);
    let server = world.start().await;
    let start = Instant::now();
    for _ in 0..30 {
        fail(&server).await;
    }
    good.wait_for(30).await;
    assert!(start.elapsed() < Duration::from_secs(14), "it waited for the other's time limit");
    assert_eq!((hanging.received().len(), hanging.most_under_way()), (1, 1), "whoever has never answered has one slot");
    end.cancel();
    hanging.then(Answer::status(200));
    hanging.wait_for(30).await;
    server.stop().await;
}

#[tokio::test]
async fn endpoints_that_have_never_answered_leave_half_of_the_slots_to_those_that_have() {
    let (hanging, good) = (Provider::start().await, Provider::start().await);
    let end = CancellationToken::new();
    hanging.then(Answer::status(200).held_until(&end));
    let mut world = with_callbacks(World::new(), &[callback(&good.url(), &["notification.sent"])]);
    // Few clients, so that there are descriptors for all slots.
    world.limits.connections = 100;
    let keys: Vec<String> =
        (0..5).map(|number| format!("{number}-key-of-a-tenant-that-hangs-0123456789abcdef")).collect();
    for (number, key) in keys.iter().enumerate() {
        let tenant = format!("01943c2a-7c3e-7000-8000-0000000001{number:02}");
        let endpoints: Vec<Value> = (0..16)
            .map(|path| callback(&format!("{}/{number}/{path}", hanging.url()), &["notification.sent"]))
            .collect();
        let variable = format!("KEY_{number}");
        world.channels.push(json!({ "tenantId": tenant, "channelType": "log" }));
        world
            .tenants
            .as_array_mut()
            .unwrap()
            .push(json!({ "id": tenant, "name": "Hangs", "authKeyEnvVar": variable, "callbacks": endpoints }));
        world.variables.push((variable, key.clone()));
    }
    let server = world.start().await;
    let log = json!({ "channel": "log", "message": "x" });
    server.send(KEY_A, &log).await;
    good.wait_for(1).await;
    endpoint(&server, |endpoint| endpoint["delivered"] == 1).await;
    for key in &keys {
        server.send(key, &log).await;
    }
    hanging.wait_for(64).await;
    let start = Instant::now();
    server.send(KEY_A, &log).await;
    good.wait_for(2).await;
    assert!(start.elapsed() < Duration::from_secs(10), "it waited for the others' time limit");
    assert_eq!(hanging.most_under_way(), 64, "half of the slots");
    end.cancel();
    hanging.then(Answer::status(200));
    hanging.wait_for(80).await;
    server.stop().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_private_address_is_not_contacted() {
    let (receiver, elsewhere) = (Provider::start().await, Provider::start().await);
    receiver.next(Answer::status(307).header("Location", elsewhere.url()));
    let server = failing(&receiver).await.start().await;
    fail(&server).await;
    let redirected = endpoint(&server, |endpoint| endpoint["status"] == "failing").await;
    let detail = redirected["lastAttempt"]["detail"].as_str().unwrap();
    assert!(detail.contains("redirects are not followed"), "{detail}");
    server.stop().await;
    for url in [receiver.url(), receiver.url().replace("127.0.0.1", "localhost")] {
        let mut world = failing(&receiver).await;
        world.tenants[0]["callbacks"] = json!([{ "url": url, "secretEnvVar": "HOOK" }]);
        let server = world.start().await;
        fail(&server).await;
        let refused = endpoint(&server, |endpoint| endpoint["status"] == "failing").await;
        let detail = refused["lastAttempt"]["detail"].as_str().unwrap();
        assert!(detail.contains("was not contacted") && detail.contains("allowNetworks"), "{detail}");
        server.stop().await;
    }
    assert_eq!((receiver.received().len(), elsewhere.received().len()), (1, 0));
}

#[tokio::test]
async fn a_channel_that_goes_down_and_comes_up_is_told_of_once_each() {
    let (receiver, provider) = (Provider::start().await, Provider::start().await);
    provider.then(Answer::status(500));
    let events = ["channel.down", "channel.up"];
    let world = World::new().webhook(TENANT_A, "alerts", &provider.url(), &json!({}));
    let world = with_callbacks(world, &[callback(&receiver.url(), &events)]);
    let server = world.clone().start().await;
    for _ in 0..4 {
        server.send(KEY_A, &json!({ "channel": "webhook", "message": "x" })).await;
    }
    let down = receiver.wait_for(1).await.remove(0).json();
    assert_eq!((&down["type"], &down["data"]["status"]), (&json!("channel.down"), &json!("down")));
    assert_eq!((&down["data"]["channelName"], &down["data"]["channel"]), (&json!("alerts"), &json!("webhook")));
    assert!(down["data"]["reason"].as_str().unwrap().contains("500"), "{down:#}");
    let described =
        &DESCRIPTION["webhooks"]["channel.down"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert!(validator(described).is_valid(&down), "{down:#}");
    // The next process finds it up, and says so: it knows what was told.
    let directory = server.stop().await;
    provider.then(Answer::status(200));
    let server = world.start_in(directory).await;
    let up = receiver.wait_for(2).await.remove(1).json();
    assert_eq!((&up["type"], &up["data"]["reason"]), (&json!("channel.up"), &Value::Null));
    server.stop().await;
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn what_was_kept_before_the_process_was_killed_is_sent_after_it() {
    let receiver = Provider::start().await;
    receiver.then(Answer::status(503));
    let world = failing(&receiver).await;
    let directory = TempDir::new().expect("a directory");
    world.write(&directory.path().join("config"));
    let process = Process::start(&directory, &world);
    let send = |process: &Process| {
        let request = http().post(format!("{}/notifications", process.url)).bearer_auth(KEY_A);
        answer(request.json(&json!({ "channel": "webhook", "message": "x" })))
    };
    for _ in 0..3 {
        assert_eq!(send(&process).await.0, 202);
    }
    let before = receiver.wait_for(3).await;
    drop(process);
    receiver.then(Answer::status(200));
    let seen = receiver.received().len();
    let process = Process::start(&directory, &world);
    let after = receiver.wait_for(seen + 3).await;
    let ids = |requests: &[Received]| {
        let ids = requests.iter().map(|request| request.header("webhook-id").to_owned());
        ids.collect::<BTreeSet<String>>()
    };
    assert_eq!((ids(&after[seen..]).len(), ids(&after[seen..])), (3, ids(&before)));
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_callback_is_lost_when_the_process_is_killed_at_any_instant() {
    let receiver = Provider::start().await;
    let world = failing(&receiver).await;
    let directory = TempDir::new().expect("a directory");
    world.write(&directory.path().join("config"));
    let accepted: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    for life in 0..5 {
        let process = Process::start(&directory, &world);
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (accepted, client, url) = (Arc::clone(&accepted), http(), format!("{}/notifications", process.url));
            clients.spawn(async move {
                loop {
                    let body = json!({ "channel": "webhook", "message": "x" });
                    let Ok(answer) = client.post(&url).bearer_auth(KEY_A).json(&body).send().await else { return };
                    let Ok(answer) = answer.json::<Value>().await else { return };
                    accepted.lock().unwrap().extend(answer["id"].as_str().map(str::to_owned));
                }
            });
        }
        let before = accepted.lock().unwrap().len();
        let start = Instant::now();
        while accepted.lock().unwrap().len() < before + 20 {
            assert!(start.elapsed() < DEADLINE, "nothing is accepted");
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20) * (life + 1))).await;
        }
        drop(process);
        clients.join_all().await;
    }
    let process = Process::start(&directory, &world);
    let accepted = accepted.lock().unwrap().clone();
    let start = Instant::now();
    loop {
        let received = receiver.received();
        let told: BTreeSet<String> =
            received.iter().map(|request| request.json()["data"]["id"].as_str().unwrap().to_owned()).collect();
        if accepted.is_subset(&told) {
            break;
        }
        let missing = accepted.difference(&told).count();
        assert!(start.elapsed() < DEADLINE * 3, "{missing} of {} were never told", accepted.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(accepted.len() >= 100, "only {} were accepted", accepted.len());
    drop(process);
}

#[tokio::test]
async fn a_tenant_sees_only_its_own_endpoints() {
    let receiver = Provider::start().await;
    let mut world = failing(&receiver).await;
    world.tenants[1]["callbacks"] = json!([callback(&format!("{}/b", receiver.url()), &["channel.up"])]);
    world.variables.push(("HOOK_NEXT".into(), "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=".into()));
    let server = world.start().await;
    let page = async |key| Client::new(&server, Some(key)).get("/callbacks").await.expect(200)["data"].clone();
    let (a, b) = (page(KEY_A).await, page(KEY_B).await);
    assert_eq!((a.as_array().unwrap().len(), b.as_array().unwrap().len()), (1, 1));
    assert_ne!(a[0]["id"], b[0]["id"]);
    assert_eq!((&a[0]["events"], &b[0]["events"]), (&json!(FAILED), &json!(["channel.up"])));
    assert_eq!(a[0]["publicKeys"], json!(["whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]));
    assert_eq!((&a[0]["status"], &a[0]["lastAttempt"], &a[0]["waiting"]), (&json!("active"), &Value::Null, &json!(0)));
    fail(&server).await;
    receiver.wait_for(1).await;
    assert_eq!(page(KEY_B).await, b, "{TENANT_B} was told nothing");
    server.stop().await;
}
