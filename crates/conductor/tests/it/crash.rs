//! The worst night: the process is killed at random instants, again and again, under load. Nothing that it has said
//! 202 to may be lost.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor::clock::SystemClock;
use conductor_core::Clock as _;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::support::process::Process;
use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, TENANT_A, World, answer, http};

/// How often the process is killed; `CRASH_ROUNDS` sets another number.
const ROUNDS: usize = 25;
/// So many clients send at once.
const CLIENTS: usize = 6;
/// How long the last start may take to deliver everything.
const DRAIN: Duration = Duration::from_secs(60);

/// What a client was told.
struct Said {
    id: String,
    /// It is not to be sent before this time.
    not_before: Option<Instant>,
    cancel: Cancel,
}

/// What became of the wish to take it back.
#[derive(Clone, Copy, PartialEq)]
enum Cancel {
    /// There was none, or it came too late.
    No,
    /// It was granted, at this time.
    Granted(Instant),
    /// The process was killed before it answered.
    Unanswered,
}

/// Sends until the process is gone: at once, later, and some to take them back. Gives those that it has said 202 to.
async fn send_until_gone(url: String, client: usize, round: usize, began: Arc<watch::Sender<bool>>) -> Vec<Said> {
    let http = http();
    let mut accepted = Vec::new();
    for number in 0.. {
        let mut body = json!({ "channel": "webhook", "message": format!("{round}/{client}/{number}"), "targetId": client.to_string() });
        let mut not_before = None;
        if number % 4 == 1 {
            let delay = Duration::from_millis(fastrand::u64(50..2_000));
            body["sendAt"] = json!(SystemClock.now().plus(delay));
            // The clock of the other side is read in whole milliseconds.
            not_before = Some(Instant::now() + delay - Duration::from_millis(2));
        }
        let sent = http.post(format!("{url}/notifications")).bearer_auth(KEY_A).json(&body).send().await;
        let Ok(sent) = sent else { break };
        if sent.status() != 202 {
            break;
        }
        began.send_replace(true);
        let location = sent.headers().get("location").and_then(|place| place.to_str().ok());
        let id = location.and_then(|place| place.rsplit('/').next()).expect("an id").to_owned();
        let mut cancel = Cancel::No;
        if number % 8 == 1 || number % 8 == 2 {
            let canceled = http.post(format!("{url}/notifications/{id}/cancel")).bearer_auth(KEY_A).send().await;
            cancel = match canceled.map(|answer| answer.status().as_u16()) {
                Ok(200) => Cancel::Granted(Instant::now()),
                Ok(409) => Cancel::No,
                Ok(other) => panic!("{other} to a cancel"),
                Err(_) => Cancel::Unanswered,
            };
        }
        accepted.push(Said { id, not_before, cancel });
    }
    accepted
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says so in the environment")]
fn rounds() -> usize {
    std::env::var("CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}

/// One process, killed at a random instant after it has accepted something. Gives what it has said.
async fn serve_until_killed(directory: &TempDir, world: &World, round: usize) -> Vec<Said> {
    let process = Process::start(directory, world);
    let (began, mut begun) = watch::channel(false);
    let began = Arc::new(began);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(send_until_gone(process.url.clone(), client, round, Arc::clone(&began)));
    }
    // On a machine that is busy with other things the first answer may take its time.
    let first = tokio::time::timeout(DRAIN, begun.wait_for(|begun| *begun)).await;
    first.expect("something is accepted").expect("the clients are there");
    tokio::time::sleep(Duration::from_millis(fastrand::u64(5..250))).await;
    drop(process);
    clients.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_the_process_is_killed() {
    let rounds = rounds();
    let provider = Provider::start().await;
    provider.then(Answer::status(200).after(Duration::from_millis(1)));
    let directory = TempDir::new().expect("a directory");
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({ "maxConcurrency": 16 }));
    world.write(&directory.path().join("config"));
    let mut accepted = Vec::new();
    for round in 0..rounds {
        accepted.extend(serve_until_killed(&directory, &world, round).await);
        if round % 3 == 0 {
            // Some rounds fail, so that retries and rate limits are among what is killed.
            provider.next(Answer::status(500)).next(Answer::status(429).header("retry-after", "1"));
        }
    }
    let process = Process::start(&directory, &world);
    let start = Instant::now();
    let missing = loop {
        let arrived: HashSet<String> = provider
            .received()
            .iter()
            .map(|request| request.json()["data"]["id"].as_str().unwrap().to_owned())
            .collect();
        let expected = accepted.iter().filter(|said| said.cancel == Cancel::No).map(|said| &said.id);
        let missing: Vec<&String> = expected.filter(|id| !arrived.contains(*id)).collect();
        if missing.is_empty() || start.elapsed() > DRAIN {
            break missing.into_iter().cloned().collect::<Vec<_>>();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for id in &missing {
        let story = answer(http().get(format!("{}/notifications/{id}", process.url)).bearer_auth(KEY_A)).await.1;
        assert!(matches!(story["status"].as_str(), Some("failed" | "expired")), "lost: {story:#}");
    }
    let received = provider.received();
    let mut ids: HashMap<String, Vec<String>> = HashMap::new();
    let mut times: HashMap<String, Vec<Instant>> = HashMap::new();
    for request in received {
        let id = request.json()["data"]["id"].as_str().unwrap().to_owned();
        times.entry(id.clone()).or_default().push(request.at);
        ids.entry(id).or_default().push(request.header("webhook-id").to_owned());
    }
    for said in &accepted {
        let sent = times.get(&said.id).map(Vec::as_slice).unwrap_or_default();
        let early = said.not_before.is_some_and(|at| sent.iter().any(|sent| *sent < at));
        assert!(!early, "{} was sent before its time", said.id);
        if let Cancel::Granted(at) = said.cancel {
            assert!(sent.iter().all(|sent| *sent < at), "{} was sent after it had been taken back", said.id);
        }
    }
    let canceled = accepted.iter().filter(|said| matches!(said.cancel, Cancel::Granted(_))).count();
    assert!(canceled > 0, "nothing was taken back: the test proves less than it says");
    let doubles = ids.values().filter(|sent| sent.len() > 1).count();
    assert!(ids.values().all(|sent| sent.iter().all(|id| *id == sent[0])), "a double with another id");
    assert!(accepted.len() > rounds, "too little was sent to prove anything: {}", accepted.len());
    // Written past the test runner, which keeps to itself what a test that passes has printed.
    let told = writeln!(
        std::io::stderr(),
        "killed {rounds} times: {} accepted, {canceled} taken back, none lost, {doubles} sent more than once",
        accepted.len()
    );
    told.expect("somebody reads it");
}
