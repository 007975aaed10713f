//! Bulk retries: as many dead letters as an outage leaves, at a rate, asked for, canceled and killed on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor::clock::SystemClock;
use conductor::ids::IdGenerator;
use conductor_core::store::{Accepted, BATCH_MAX, Filter, NewNotification};
use conductor_core::{ChannelId, Clock as _, Draft, Format, Notification, NotificationId, Priority, Store as _};
use conductor_core::{ReplayId, Status, Timestamp};
use conductor_store::SqliteStore;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Client, Reply};
use crate::support::process::Process;
use crate::support::provider::{Answer, DEADLINE, Provider};
use crate::support::server::{ADMIN_KEY, KEY_A, KEY_B, TENANT_A, TestServer, World, answer, http};

/// How long the largest job may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// Ten minutes old, so that nothing is accepted after it by a clock that was put back.
const AGE: Duration = Duration::from_secs(600);

fn draft(id: NotificationId, accepted_at: Timestamp) -> Draft {
    let tenant = TENANT_A.parse().expect("a tenant's id");
    Draft {
        id,
        tenant,
        channel: "log".into(),
        channel_id: ChannelId::derive(tenant, "log", "log a"),
        target: None,
        message: "left by an outage".into(),
        title: None,
        priority: Priority::Normal,
        format: Format::Text,
        data: serde_json::Map::new(),
        metadata: BTreeMap::new(),
        key: None,
        fallback: Vec::new(),
        accepted_at,
        send_at: None,
        expires_at: accepted_at.plus(Duration::from_secs(1)),
        trace: None,
    }
}

/// A directory with a store in which so many of the first tenant's notifications have expired.
async fn left_by_an_outage(count: usize) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    let store = SqliteStore::open(directory.path(), Arc::new(SystemClock)).expect("a new store");
    let ids = IdGenerator::default();
    let accepted_at = SystemClock.now().minus(AGE);
    let all: Vec<_> = (0..count).map(|_| draft(ids.next(accepted_at), accepted_at)).collect();
    for part in all.chunks(BATCH_MAX) {
        let accepts = part.iter().map(|draft| {
            let notification = Arc::new(Notification::new(draft.clone()).expect("it is valid"));
            store.accept(NewNotification { notification, idempotency: None })
        });
        for accepted in join_all(accepts).await {
            assert_eq!(accepted, Ok(Accepted::New { superseded: None }));
        }
        assert_eq!(store.expire(SystemClock.now()).await.expect("they expire").len(), part.len());
    }
    store.close().await;
    directory
}

async fn count(client: &Client, filter: &Value) -> u64 {
    let mut body = filter.clone();
    body["dryRun"] = json!(true);
    let counted = client.post("/notifications/retry", &body).await.expect(200);
    assert_eq!(counted["more"], false);
    counted["matched"].as_u64().expect("a number")
}

async fn begin(client: &Client, body: &Value) -> Reply {
    client.post_with("/notifications/retry", &[("prefer", "wait=0")], body).await
}

/// The same, until it is done.
async fn patient(client: &Client, body: &Value) -> Value {
    client.post_with("/notifications/retry", &[("prefer", "wait=30")], body).await.expect(200)
}

fn retried(job: &Value) -> u64 {
    job["retried"].as_u64().expect("a number")
}

/// Asks until the job is as it should be. Gives it as it is then.
async fn until(client: &Client, place: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let job = client.get(place).await.expect(200);
        if is_so(&job) {
            return job;
        }
        assert!(start.elapsed() < LONG, "never: {job:#}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn place(reply: &Reply) -> String {
    reply.expect(202);
    reply.header("location").expect("where to ask").to_owned()
}

/// The value of one of the operator's metrics, all its labels together.
async fn metric(server: &TestServer, name: &str) -> f64 {
    let text = Client::new(server, Some(ADMIN_KEY)).get("/metrics").await;
    let text = String::from_utf8(text.body).expect("text");
    let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a value")).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_outage_has_left_is_retried_at_a_rate_through_another_channel() {
    const ALL: u64 = 12_000;
    let directory = left_by_an_outage(ALL as usize).await;
    let mut world = World::new();
    let other = json!({ "tenantId": TENANT_A, "channelType": "log", "channelName": "other" });
    world.channels.push(other);
    let server = world.start_in(directory).await;
    let client = Client::new(&server, Some(KEY_A));
    let other = ChannelId::derive(TENANT_A.parse().unwrap(), "log", "other").to_string();
    assert_eq!(count(&client, &json!({})).await, ALL);
    assert_eq!(count(&client, &json!({ "status": "failed" })).await, 0);
    let begun = Instant::now();
    let reply = begin(&client, &json!({ "rate": 6_000, "redirect": { "channelId": other } })).await;
    let place = place(&reply);
    let first = reply.json();
    assert_eq!((&first["status"], &first["finishedAt"]), (&json!("running"), &Value::Null));
    // How far it has come by then is the machine's choice; a slow rate, elsewhere, shows it on the way for certain.
    until(&client, &place, |job| retried(job) > 0).await;
    let fresh = client.send(&json!({ "channel": "log", "message": "new" })).await;
    client.until(&fresh, "sent").await;
    let done = until(&client, &place, |job| job["status"] == "done").await;
    assert_eq!((retried(&done), &done["matched"], &done["skipped"]), (ALL, &json!(ALL), &json!(0)));
    let time = |name: &str| Timestamp::parse(done[name].as_str().expect("a time")).unwrap();
    assert!(time("dueAt").since(time("createdAt")) >= Duration::from_millis(1_990), "{done}");
    assert_eq!(client.get("/notifications/retry").await.expect(200)["data"], json!([done]));
    let start = Instant::now();
    while metric(&server, "conductor_deliveries_sent_total").await < (ALL + 1) as f64 {
        assert!(start.elapsed() < LONG, "{}", metric(&server, "conductor_deliveries_sent_total").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_990), "not faster than was asked for");
    assert_eq!(metric(&server, "conductor_deliveries_sent_total").await, (ALL + 1) as f64, "each once");
    assert_eq!(count(&client, &json!({})).await, 0);
    let sent = client.get("/notifications?status=sent&limit=2").await.expect(200);
    let story = client.get(&format!("/notifications/{}", sent["data"][1]["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(story["deliveries"][1]["channelId"], other);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_bulk_retry_leaves_what_it_has_not_queued() {
    let server = World::new().start_in(left_by_an_outage(300).await).await;
    let client = Client::new(&server, Some(KEY_A));
    let place = place(&begin(&client, &json!({ "rate": 20 })).await);
    // What is due in ten seconds is queued ahead, and no more.
    until(&client, &place, |job| retried(job) >= 200).await;
    let stranger = Client::new(&server, Some(KEY_B));
    stranger.act(&format!("{place}/cancel")).await.problem(404);
    stranger.get(&place).await.problem(404);
    assert_eq!(stranger.get("/notifications/retry").await.expect(200)["data"], json!([]));
    let canceled = client.act(&format!("{place}/cancel")).await.expect(200);
    assert_eq!(canceled["status"], "canceled");
    assert!((200..300).contains(&retried(&canceled)), "{canceled}");
    let left = 300 - retried(&canceled);
    assert_eq!(count(&client, &json!({})).await, left);
    let rest = patient(&client, &json!({})).await;
    assert_eq!((&rest["status"], retried(&rest)), (&json!("done"), left));
    assert_eq!(client.get(&place).await.expect(200), canceled, "the canceled one took none of them");
    assert_eq!(client.act(&format!("{place}/cancel")).await.expect(200), canceled);
    for unknown in ["no-uuid", "01943c2a-7c3e-7000-8000-00000000ffff"] {
        client.get(&format!("/notifications/retry/{unknown}")).await.problem(404);
        client.act(&format!("/notifications/retry/{unknown}/cancel")).await.problem(404);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_retry_ends_where_its_tenant_was_removed() {
    let mut world = World::new();
    let server = world.clone().start_in(left_by_an_outage(300).await).await;
    let job = begin(&Client::new(&server, Some(KEY_A)), &json!({ "rate": 20 })).await.json();
    let id: ReplayId = job["id"].as_str().expect("an id").parse().expect("an id");
    let directory = server.stop().await;
    world.tenants.as_array_mut().expect("a list").retain(|tenant| tenant["id"] != TENANT_A);
    world.channels.retain(|channel| channel["tenantId"] != TENANT_A);
    let server = world.start_in(directory).await;
    let store = &server.server.app().store;
    let start = Instant::now();
    while !store.running_replays(None, 1).await.expect("a list").is_empty() {
        assert!(start.elapsed() < DEADLINE, "it never ends");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let job = store.replay_job(TENANT_A.parse().expect("an id"), id).await.expect("a read").expect("a job");
    assert!(job.canceled && job.ended_at.is_some(), "{job:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_retry_ends_where_the_channel_that_it_goes_through_was_removed() {
    let mut world = World::new();
    world.channels.push(json!({ "tenantId": TENANT_A, "channelType": "log", "channelName": "other" }));
    let server = world.clone().start_in(left_by_an_outage(300).await).await;
    let other = ChannelId::derive(TENANT_A.parse().unwrap(), "log", "other").to_string();
    let client = Client::new(&server, Some(KEY_A));
    let place = place(&begin(&client, &json!({ "rate": 20, "redirect": { "channelId": other } })).await);
    until(&client, &place, |job| retried(job) >= 200).await;
    let directory = server.stop().await;
    world.channels.pop();
    let server = world.start_in(directory).await;
    let client = Client::new(&server, Some(KEY_A));
    let ended = until(&client, &place, |job| job["status"] != "running").await;
    assert_eq!(ended["status"], "canceled");
    assert!(retried(&ended) < 300, "{ended}");
    let log = client.get("/audit?kind=retriesCanceled").await.expect(200);
    assert_eq!(log["data"][0]["actor"], "server");
    // What it has not queued can go another way.
    let left = 300 - retried(&ended);
    assert_eq!(count(&client, &json!({ "status": "expired" })).await, left);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_again_is_left_for_another_call() {
    const ALL: usize = 1_100;
    let provider = Provider::start().await;
    provider.then(Answer::status(404));
    let world = World::new().webhook(TENANT_A, "refusing", &provider.url(), &json!({}));
    let server = world.start_in(left_by_an_outage(ALL).await).await;
    let client = Client::new(&server, Some(KEY_A));
    // Slow enough that the first have failed before the last are queued: they are dead letters of another kind then.
    let wish = json!({ "rate": { "per": "1s", "limit": 100 }, "redirect": { "channel": "webhook" } });
    let place = place(&begin(&client, &wish).await);
    let done = until(&client, &place, |job| job["status"] == "done").await;
    assert!(provider.received().len() > 100, "some had failed again");
    assert_eq!(retried(&done), ALL as u64);
    provider.wait_for(ALL).await;
    let start = Instant::now();
    while count(&client, &json!({ "status": "failed" })).await < ALL as u64 {
        assert!(start.elapsed() < DEADLINE, "they do not fail");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(provider.received().len(), ALL);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_does_not_keep_up_gets_ten_thousand_ahead() {
    let provider = Provider::start().await;
    let slow = json!({ "rate": { "per": "1h", "limit": 1 } });
    let world = World::new().webhook(TENANT_A, "slow", &provider.url(), &slow);
    let server = world.start_in(left_by_an_outage(10_100).await).await;
    let client = Client::new(&server, Some(KEY_A));
    let place = place(&begin(&client, &json!({ "redirect": { "channel": "webhook" } })).await);
    until(&client, &place, |job| retried(job) == 10_000).await;
    // Meanwhile others are retried: the first job waits.
    let other = patient(&client, &json!({ "redirect": { "channel": "log" } })).await;
    assert_eq!(retried(&other), 100);
    let channel = ChannelId::derive(TENANT_A.parse().unwrap(), "webhook", "slow");
    assert!(server.server.app().store.waiting(channel) <= 10_000);
    let job = client.act(&format!("{place}/cancel")).await.expect(200);
    assert_eq!((&job["status"], retried(&job)), (&json!("canceled"), 10_000));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_retry_leaves_room_in_the_tenants_quota() {
    let provider = Provider::start().await;
    let slow = json!({ "rate": { "per": "1h", "limit": 1 } });
    let mut world = World::new().webhook(TENANT_A, "slow", &provider.url(), &slow);
    world.tenants[0]["rateLimit"] = json!({ "queued": 20 });
    let server = world.start_in(left_by_an_outage(50).await).await;
    let client = Client::new(&server, Some(KEY_A));
    let place = place(&begin(&client, &json!({ "redirect": { "channel": "webhook" } })).await);
    until(&client, &place, |job| retried(job) == 11).await;
    provider.wait_for(1).await;
    for _ in 0..10 {
        client.send(&json!({ "channel": "webhook", "message": "new" })).await;
    }
    let refused = client.post("/notifications", &json!({ "channel": "webhook", "message": "new" })).await;
    refused.problem(429);
    let job = client.get(&place).await.expect(200);
    assert_eq!((&job["status"], retried(&job)), (&json!("running"), 11), "it waits, and half of the room stays free");
    server.stop().await;
}

/// What each of the tenant's notifications has gone through, by the store itself.
async fn deliveries(directory: &TempDir) -> BTreeMap<usize, usize> {
    let store = SqliteStore::open(directory.path(), Arc::new(SystemClock)).expect("the store");
    let tenant = TENANT_A.parse().expect("a tenant's id");
    let (mut found, mut before) = (BTreeMap::new(), None);
    loop {
        let page = store.notifications(tenant, &Filter::default(), BATCH_MAX, before).await.expect("a page");
        for item in &page.items {
            let story = store.notification(tenant, item.notification.id).await.expect("a story").expect("it is there");
            assert_eq!(story.deliveries[0].status, Status::Expired);
            *found.entry(story.deliveries.len()).or_default() += 1;
        }
        before = page.next;
        if before.is_none() {
            store.close().await;
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_retried_once_however_often_the_process_is_killed() {
    const ALL: u64 = 1_500;
    let directory = left_by_an_outage(ALL as usize).await;
    let world = World::new();
    world.write(&directory.path().join("config"));
    let ask = async |process: &Process, place: &str| {
        answer(http().get(format!("{}{place}", process.url)).bearer_auth(KEY_A)).await.1
    };
    let mut process = Process::start(&directory, &world);
    let url = format!("{}/notifications/retry", process.url);
    let begun = http().post(url).bearer_auth(KEY_A).header("prefer", "wait=0").json(&json!({ "rate": 100 }));
    let (status, job) = answer(begun).await;
    assert_eq!(status, 202, "{job}");
    let place = format!("/notifications/retry/{}", job["id"].as_str().expect("an id"));
    let mut seen = 0;
    let mut kills = 0;
    let start = Instant::now();
    let done = loop {
        let job = ask(&process, &place).await;
        if job["status"] == "done" {
            break job;
        }
        assert!(start.elapsed() < DEADLINE * 2, "{job}");
        if retried(&job) > seen && kills < 6 {
            seen = retried(&job);
            kills += 1;
            drop(process);
            process = Process::start(&directory, &world);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert!(kills >= 1, "it was killed on the way");
    assert_eq!((retried(&done), &done["skipped"]), (ALL, &json!(0)));
    drop(process);
    assert_eq!(deliveries(&directory).await, BTreeMap::from([(2, ALL as usize)]));
}
