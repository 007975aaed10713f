//! Many reloads while many send: nobody notices but those who are meant to.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use conductor_core::ChannelId;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::support::process::Process;
use super::super::support::provider::DEADLINE;
use super::super::support::server::{ADMIN_KEY, KEY_A, TENANT_A, World, answer, http};
use super::{KEY_C, TENANT_C, with_tenant};

/// So many reloads, unless `RELOADS` says another number.
const RELOADS: usize = 100;
/// So many send at once.
const CLIENTS: usize = 4;
/// What the server's memory may grow by, in KiB, however many reloads there are. What is new in it: the first ones.
const GROWTH_MAX: u64 = 16 * 1024;

type Counts = Arc<Mutex<HashMap<String, usize>>>;

/// A provider that counts how often each message came.
async fn sink() -> (String, Counts) {
    async fn take(State(counts): State<Counts>, body: Bytes) {
        let body: Value = serde_json::from_slice(&body).expect("a JSON body");
        let message = body["data"]["message"].as_str().expect("a message").to_owned();
        *counts.lock().unwrap().entry(message).or_default() += 1;
    }
    let counts = Counts::default();
    let router = Router::new().fallback(take).with_state(Arc::clone(&counts));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, counts)
}

/// One channel stays as it is, one gets another connection each time, one has another pace, some come and go, and
/// every second time there is a tenant more.
fn world(url: &str, number: usize) -> World {
    let timeout = format!("{}s", 20 + number % 10);
    let mut world = World::new().webhook(TENANT_A, "steady", url, &json!({}));
    world = world.webhook(TENANT_A, "restless", url, &json!({ "timeout": timeout }));
    world = world.webhook(TENANT_A, "paced", url, &json!({ "maxConcurrency": 1 + number % 4 }));
    let name = format!("passing {number}");
    world.channels.push(json!({ "tenantId": TENANT_A, "channelType": "log", "channelName": name }));
    if number.is_multiple_of(2) { with_tenant(&world, TENANT_C, "Third", KEY_C) } else { world }
}

/// Puts the files in their place whole.
fn put(directory: &Path, world: &World) {
    world.write(&directory.join("beside"));
    for name in ["plugins.json", "channels.json", "tenants.json"] {
        let place = directory.join("config").join(name);
        fs::rename(directory.join("beside").join(name), place).expect("it is put in place");
    }
}

/// Sends as long as it is to go on. Gives the texts that were accepted.
async fn client(url: String, number: usize, goes_on: Arc<AtomicBool>, accepted: Arc<AtomicUsize>) -> Vec<String> {
    let (http, tenant) = (http(), TENANT_A.parse().expect("a tenant's id"));
    let channels = ["steady", "restless", "paced"].map(|name| ChannelId::derive(tenant, "webhook", name).to_string());
    let mut texts = Vec::new();
    for round in 0.. {
        if !goes_on.load(Ordering::SeqCst) {
            break;
        }
        let (text, channel) = (format!("{number}-{round}"), &channels[round % channels.len()]);
        let target = format!("target {}", round % 50);
        let body = json!({ "channelId": channel, "message": text, "targetId": target });
        let request = http.post(format!("{url}/notifications")).bearer_auth(KEY_A).json(&body);
        let (status, answer) = answer(request).await;
        assert_eq!(status, 202, "{answer}");
        accepted.fetch_add(1, Ordering::SeqCst);
        texts.push(text);
    }
    texts
}

#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
fn reloads() -> usize {
    std::env::var("RELOADS").ok().map_or(RELOADS, |text| text.parse().expect("RELOADS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_fail_no_request_lose_nothing_double_nothing_and_keep_no_memory() {
    let (url, counts) = sink().await;
    let directory = TempDir::new().expect("a directory");
    world(&url, 0).write(&directory.path().join("config"));
    let process = Process::start(&directory, &with_tenant(&world(&url, 0), TENANT_C, "Third", KEY_C));
    let (goes_on, accepted) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(process.url.clone(), number, Arc::clone(&goes_on), Arc::clone(&accepted)));
    }
    let (reloads, http) = (reloads(), http());
    let mut resident = 0;
    for number in 1..=reloads {
        let before = accepted.load(Ordering::SeqCst);
        put(directory.path(), &world(&url, number));
        let request = http.post(format!("{}/reload", process.url)).bearer_auth(ADMIN_KEY);
        let (status, told) = answer(request).await;
        assert_eq!(status, 200, "{told:#}");
        let known = format!("passing {number}");
        let (_, page) = answer(http.get(format!("{}/channels", process.url)).bearer_auth(KEY_A)).await;
        assert!(page.to_string().contains(&known), "{known} is not there: {page:#}");
        // None without something under way.
        let start = Instant::now();
        while accepted.load(Ordering::SeqCst) < before + CLIENTS {
            assert!(start.elapsed() < DEADLINE, "nothing is accepted any more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if number == reloads / 4 {
            resident = process.resident();
        }
    }
    let grown = process.resident().saturating_sub(resident);
    goes_on.store(false, Ordering::SeqCst);
    let texts: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    let start = Instant::now();
    while counts.lock().unwrap().len() < texts.len() {
        assert!(start.elapsed() < DEADLINE * 3, "{} of {} came", counts.lock().unwrap().len(), texts.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::task::block_in_place(|| process.stop().with(0));
    let counts = counts.lock().unwrap();
    let wrong: Vec<_> = texts.iter().filter(|text| counts.get(*text) != Some(&1)).collect();
    assert!(wrong.is_empty() && counts.len() == texts.len(), "not sent once: {wrong:?}");
    assert!(grown < GROWTH_MAX, "{reloads} reloads beside {} notifications took {grown} KiB", texts.len());
}
