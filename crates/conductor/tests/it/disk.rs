//! A disk that is full, fails or may not be written: nothing is promised that cannot be kept, and when it can be written
//! again all goes on by itself.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::support::process::{Process, bare, run};
use super::support::provider::{Answer, DEADLINE, Provider};
use super::support::server::{KEY_A, TENANT_A, World, answer, http};
use super::support::skip::skipped;

/// Mounts a small file system that this process alone sees, fills most of it, and becomes the program.
const SCRIPT: &str = "set -e; mkdir -p store; mount -t tmpfs -o size=16m tmpfs store; head -c 13000000 /dev/zero > \
                      store/filler; DATA_DIR=$PWD/store exec \"$0\"";

/// The same with a store that is there already and may only be read. Nothing has it open, so that the system allows that.
const READ_ONLY: &str = "set -e; mkdir -p store; mount -t tmpfs -o size=8m tmpfs store; cp conductor.db store/; mount -o \
                         remount,ro store; DATA_DIR=$PWD/store exec \"$0\"";

/// Whether this machine lets an ordinary user mount something in a namespace of his own.
fn can_mount() -> bool {
    let tried = Command::new("unshare").args(["-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
    tried.is_ok_and(|tried| tried.status.success())
}

async fn post(url: &str, number: usize, size: usize) -> (u16, Value) {
    let body = json!({ "channel": "webhook", "message": "x".repeat(size), "targetId": number.to_string() });
    answer(http().post(format!("{url}/notifications")).bearer_auth(KEY_A).json(&body)).await
}

/// Writes until nothing more fits.
fn fill(file: &Path) {
    let mut file = std::fs::File::options().create(true).append(true).open(file).expect("a file");
    while file.write_all(&[0; 4_096]).is_ok() {}
}

/// Starts the program on a small file system of its own. Gives where its store is reached from here, too.
fn start_on_a_small_disk(directory: &TempDir, world: &World) -> (Process, PathBuf) {
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", SCRIPT, env!("CARGO_BIN_EXE_conductor")]);
    let process = Process::start_by(command, directory.path(), world);
    let root = PathBuf::from(format!("/proc/{}/root", process.id()));
    let store = root.join(directory.path().strip_prefix("/").unwrap()).join("store");
    (process, store)
}

async fn ready(url: &str) -> u16 {
    answer(http().get(format!("{url}/readyz"))).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_when_there_is_room_again_nothing_is_missing() {
    if !can_mount() {
        skipped("this machine does not let its users mount a file system of their own");
        return;
    }
    let provider = Provider::start().await;
    provider.then(Answer::status(200).after(Duration::from_millis(1_500)));
    let directory = TempDir::new().unwrap();
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({ "maxConcurrency": 1 }));
    world.write(&directory.path().join("config"));
    let (process, store) = start_on_a_small_disk(&directory, &world);
    let mut accepted = Vec::new();
    let mut refused = 0;
    // Small things still fit when large ones do not, so that it takes a while until nothing fits any more.
    while ready(&process.url).await == 200 {
        let (status, told) = post(&process.url, accepted.len(), if refused == 0 { 40_000 } else { 100 }).await;
        match status {
            202 => accepted.push(told["id"].as_str().unwrap().to_owned()),
            503 => {
                refused += 1;
                fill(&store.join("more filler"));
            }
            _ => panic!("{status}: {told}"),
        }
        assert!(accepted.len() + refused < 3_000, "the disk is never full");
    }
    assert!(accepted.len() > 10);
    assert_eq!(answer(http().get(format!("{}/health", process.url))).await.0, 200);
    // What was under way when it became full has been sent by now, and cannot be written down.
    let sent = provider.wait_for(1).await.len();
    assert!(accepted.len() > sent + 10, "{} accepted, {sent} sent: too few wait", accepted.len());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(post(&process.url, 0, 40_000).await.0, 503);
    }
    // Now and then a little room is found, for as many outcomes; the rest is not sent before it can be written down.
    assert!(provider.received().len() + 5 < accepted.len(), "what cannot be written down is not sent");

    std::fs::remove_file(store.join("filler")).expect("its file system can be reached");
    let start = Instant::now();
    while ready(&process.url).await != 200 {
        assert!(start.elapsed() < DEADLINE, "it goes on by itself");
    }
    let (status, told) = post(&process.url, accepted.len(), 40_000).await;
    assert_eq!(status, 202, "{told}");
    accepted.push(told["id"].as_str().unwrap().to_owned());
    provider.then(Answer::status(200));
    for id in &accepted {
        let start = Instant::now();
        loop {
            let (_, story) = answer(http().get(format!("{}/notifications/{id}", process.url)).bearer_auth(KEY_A)).await;
            if story["status"] == "sent" {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "accepted and not sent: {}", story["status"]);
        }
    }
    assert_eq!(provider.received().len(), accepted.len(), "each was sent once: the process has not ended meanwhile");
}

/// What the clients of [`Load`] were told, counted while they ask.
#[derive(Default)]
struct Told {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    is_over: AtomicBool,
}

/// Clients that ask without end, whatever they are told.
struct Load {
    told: Arc<Told>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    fn begin(url: &str) -> Self {
        let (told, mut clients) = (Arc::new(Told::default()), JoinSet::new());
        for client in 0..6 {
            let (url, told, http) = (format!("{url}/notifications"), Arc::clone(&told), http());
            clients.spawn(async move {
                let mut accepted = Vec::new();
                let body = json!({ "channel": "webhook", "message": "x".repeat(500), "targetId": client.to_string() });
                while !told.is_over.load(Ordering::Relaxed) {
                    let (status, body) = answer(http.post(&url).bearer_auth(KEY_A).json(&body)).await;
                    let count = match status {
                        202 => &told.accepted,
                        503 => &told.refused,
                        _ => panic!("{status}: {body}"),
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    if status == 202 {
                        accepted.push(body["id"].as_str().expect("an id").to_owned());
                    }
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
                accepted
            });
        }
        Self { told, clients }
    }

    /// Waits until so many more were accepted, or refused.
    async fn until_more(&self, of: impl Fn(&Told) -> &AtomicUsize, more: usize) {
        let start = Instant::now();
        let before = of(&self.told).load(Ordering::Relaxed);
        while of(&self.told).load(Ordering::Relaxed) < before + more {
            let (accepted, refused) = (&self.told.accepted, &self.told.refused);
            assert!(start.elapsed() < DEADLINE, "{accepted:?} accepted, {refused:?} refused, and it stays like that");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it. Everything that was accepted has to arrive, and is not sent twice.
    async fn expect_all(self, provider: &Provider) {
        self.told.is_over.store(true, Ordering::Relaxed);
        let accepted: Vec<String> = self.clients.join_all().await.into_iter().flatten().collect();
        let start = Instant::now();
        loop {
            let received = provider.received();
            let arrived: HashSet<String> =
                received.iter().map(|request| request.json()["data"]["id"].as_str().unwrap().to_owned()).collect();
            let missing = accepted.iter().filter(|id| !arrived.contains(*id)).count();
            if missing == 0 {
                assert_eq!(received.len(), arrived.len(), "each was sent once: the process has not ended meanwhile");
                assert_eq!(arrived.len(), accepted.len(), "what was refused is not sent");
                return;
            }
            assert!(start.elapsed() < DEADLINE * 2, "{missing} of {} are missing", accepted.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn until_ready(url: &str, status: u16) {
    let start = Instant::now();
    while ready(url).await != status {
        assert!(start.elapsed() < DEADLINE, "/readyz is never {status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_under_load_again_and_again_costs_nothing_that_was_accepted() {
    if !can_mount() {
        skipped("this machine does not let its users mount a file system of their own");
        return;
    }
    let provider = Provider::start().await;
    let directory = TempDir::new().unwrap();
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    world.write(&directory.path().join("config"));
    let (process, store) = start_on_a_small_disk(&directory, &world);
    // The log alone takes eight of its sixteen megabytes.
    std::fs::remove_file(store.join("filler")).expect("its file system can be reached");
    let load = Load::begin(&process.url);
    for _ in 0..3 {
        load.until_more(|told| &told.accepted, 60).await;
        let refused = load.told.refused.load(Ordering::Relaxed);
        let start = Instant::now();
        // The store finds room in its own file for a while, and makes some.
        while load.told.refused.load(Ordering::Relaxed) < refused + 60 || ready(&process.url).await != 503 {
            fill(&store.join("more filler"));
            assert!(start.elapsed() < DEADLINE, "the disk is never full");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::fs::remove_file(store.join("more filler")).expect("its file system can be reached");
        until_ready(&process.url, 200).await;
    }
    load.until_more(|told| &told.accepted, 20).await;
    load.expect_all(&provider).await;
}

/// Lets a process write no file at all, or as before.
fn let_write(process: &Process, may: bool) {
    let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    let current = if may { maximum } else { Some(0) };
    prlimit(Some(id), Resource::Fsize, Rlimit { current, maximum }).expect("one's own process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_more_writes_under_load_costs_nothing_that_was_accepted() {
    let provider = Provider::start().await;
    let directory = TempDir::new().unwrap();
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    world.write(&directory.path().join("config"));
    // Every write fails, as on a disk that the system has made read-only because of its errors. The system asks with a
    // signal first whether the process wants to end of it.
    let process = Process::start_after("trap '' XFSZ", &directory, &world);
    let load = Load::begin(&process.url);
    for _ in 0..3 {
        load.until_more(|told| &told.accepted, 60).await;
        let_write(&process, false);
        load.until_more(|told| &told.refused, 60).await;
        until_ready(&process.url, 503).await;
        assert_eq!(answer(http().get(format!("{}/livez", process.url))).await.0, 200, "a new start would not mend it");
        let_write(&process, true);
        until_ready(&process.url, 200).await;
    }
    load.until_more(|told| &told.accepted, 20).await;
    load.expect_all(&provider).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_a_read_only_disk_is_refused_at_the_start_and_left_as_it_is() {
    if !can_mount() {
        skipped("this machine does not let its users mount a file system of their own");
        return;
    }
    let directory = TempDir::new().unwrap();
    let world = World::new();
    world.write(&directory.path().join("config"));
    let process = Process::start(&directory, &world);
    assert_eq!(ready(&process.url).await, 200);
    process.stop().with(0);
    let mut command = bare("unshare", directory.path());
    command.args(["-rm", "sh", "-c", READ_ONLY, env!("CARGO_BIN_EXE_conductor")]);
    command.envs(world.variables.iter().map(|(name, value)| (name, value)));
    let ended = run(command.env("CONFIG_DIR", directory.path().join("config"))).with(2);
    for words in ["the server cannot start", "store", "ead-only file system", "help: "] {
        assert!(ended.err.contains(words), "{words:?} not in {}", ended.err);
    }
    assert!(!ended.out.contains("serves on"), "{}", ended.out);
}
