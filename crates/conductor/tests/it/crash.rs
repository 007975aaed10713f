//! The worst night: the process is killed at random instants, again and again, under all kinds of load. Nothing that it
//! has said 202 to may be lost.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::support::process::Process;
use super::support::server::{KEY_A, TENANT_A, World, answer, http};
use load::{Cancel, ROLES, Said, send_until_gone};
use sink::{LIFE, MoodyProvider};
use verdict::{Verdict, expect_reason};

mod load;
mod sink;
mod verdict;

/// How often the process is killed; `CRASH_ROUNDS` sets another number.
const ROUNDS: usize = 25;
/// How long the last start may take to deliver everything; a second more for each round.
const DRAIN: Duration = Duration::from_secs(90);
/// So many of those that were taken are asked for, to see that the store says the same.
const ASKED_FOR: usize = 300;
const HOOK_PATH: &str = "/hook";

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says so in the environment")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|number| number.parse().ok())
}

/// The channels of all kinds, as the process with this number is to know them.
fn world(provider: &MoodyProvider, life: usize) -> World {
    let channels = [
        (load::HOOK, HOOK_PATH, false),
        (load::ORDERED, sink::ORDERED, true),
        (load::LIMITED, sink::LIMITED, false),
        (load::REFUSING, sink::REFUSING, false),
    ];
    let mut world = World::new();
    for (id, path, ordered) in channels {
        let options = json!({ "maxConcurrency": 16, "ordered": ordered, "headers": { LIFE: life.to_string() } });
        world = world.webhook(TENANT_A, path, &provider.url(path), &options);
        world.channels.last_mut().expect("it was added")["channelId"] = json!(id);
    }
    world
}

fn start(directory: &TempDir, provider: &MoodyProvider, life: usize) -> Process {
    let world = world(provider, life);
    world.write(&directory.path().join("config"));
    Process::start(directory, &world)
}

/// One process, killed at a random instant after it has accepted something. Gives what it has said.
async fn serve_until_killed(directory: &TempDir, provider: &MoodyProvider, life: usize, seed: u64) -> Vec<Said> {
    let process = start(directory, provider, life);
    let (began, mut begun) = watch::channel(false);
    let began = Arc::new(began);
    let (mut clients, http) = (JoinSet::new(), http());
    for client in 0..ROLES.len() {
        clients.spawn(send_until_gone((http.clone(), process.url.clone()), client, life, seed, Arc::clone(&began)));
    }
    // On a machine that is busy with other things the first answer may take its time.
    let first = tokio::time::timeout(DRAIN, begun.wait_for(|begun| *begun)).await;
    first.expect("something is accepted").expect("the clients are there");
    let mut chance = fastrand::Rng::with_seed(seed.wrapping_add(life as u64));
    let longest = if life.is_multiple_of(2) { 60 } else { 500 };
    tokio::time::sleep(Duration::from_millis(chance.u64(5..longest))).await;
    drop(process);
    let mut said: Vec<Said> = clients.join_all().await.into_iter().flatten().collect();
    said.sort_by_key(|said| said.accepted);
    said
}

/// Waits until nothing waits any more.
async fn drained(process: &Process, rounds: usize) {
    let (start, http) = (Instant::now(), http());
    loop {
        let channels = answer(http.get(format!("{}/channels", process.url)).bearer_auth(KEY_A)).await.1;
        let waiting = |channel: &Value| channel["queued"].as_u64().expect("a number");
        if channels["data"].as_array().expect("channels").iter().all(|channel| waiting(channel) == 0) {
            return;
        }
        let most = DRAIN + Duration::from_secs(rounds as u64);
        assert!(start.elapsed() < most, "something waits for ever: {channels:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn story(http: &reqwest::Client, process: &Process, id: &str) -> Value {
    answer(http.get(format!("{}/notifications/{id}", process.url)).bearer_auth(KEY_A)).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_the_process_is_killed() {
    let rounds = number("CRASH_ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).expect("a small number"));
    let seed = number("CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("the choices of this run are made again with CRASH_SEED={seed}");
    let provider = MoodyProvider::start(seed).await;
    let directory = TempDir::new().expect("a directory");
    let mut said = Vec::new();
    for life in 0..rounds {
        said.extend(serve_until_killed(&directory, &provider, life, seed).await);
    }
    let process = start(&directory, &provider, rounds);
    let began = Instant::now();
    drained(&process, rounds).await;
    let took = began.elapsed();

    let arrivals = provider.arrivals();
    let verdict = Verdict::new(&said, &arrivals);
    let (http, mut superseded) = (http(), Vec::new());
    for missing in verdict.not_taken() {
        let story = story(&http, &process, &missing.id).await;
        expect_reason(missing, &story);
        if story["status"] == "superseded" {
            superseded.push(missing);
        }
    }
    let mut taken = verdict.taken();
    fastrand::Rng::with_seed(seed).shuffle(&mut taken);
    for said in taken.iter().take(ASKED_FOR) {
        assert_eq!(story(&http, &process, &said.id).await["status"], "sent", "{said:?}");
    }
    verdict.expect_in_time();
    verdict.expect_order();
    verdict.expect_fallbacks();
    verdict.expect_last_word(&superseded);
    let doubles = verdict.doubles(rounds);

    let canceled = said.iter().filter(|said| matches!(said.cancel, Cancel::Granted(_))).count();
    let of = |status| arrivals.iter().filter(|arrival| arrival.status == status).count();
    let (failed, limited, superseded) = (of(500), of(429), superseded.len());
    assert!(said.len() > rounds * 10, "too little was sent to prove anything: {}", said.len());
    let lacks = canceled == 0 || failed == 0 || limited == 0 || superseded == 0;
    assert!(!lacks, "{canceled} taken back, {failed} times 500, {limited} times 429, {superseded} superseded");
    // Written past the test runner, which keeps to itself what a test that passes has printed.
    let told = writeln!(
        std::io::stderr(),
        "killed {rounds} times (CRASH_SEED={seed}): {} accepted, {canceled} taken back, {superseded} superseded, {failed} \
         times 500, {limited} times 429; none lost, order kept, {} sent more than once, at most {} by one kill with {} in \
         flight; all was delivered {took:?} after the last start",
        said.len(),
        doubles.all,
        doubles.most,
        doubles.in_flight,
    );
    told.expect("somebody reads it");
}
