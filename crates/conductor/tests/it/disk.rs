//! A disk that is full: nothing is promised that cannot be kept, and when there is room again all goes on by itself.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::process::Process;
use super::support::provider::{Answer, DEADLINE, Provider};
use super::support::server::{KEY_A, TENANT_A, World, answer, http};
use super::support::skip::skipped;

/// Mounts a small file system that this process alone sees, fills most of it, and becomes the program.
const SCRIPT: &str = "set -e; mkdir -p store; mount -t tmpfs -o size=8m tmpfs store; head -c 5000000 /dev/zero > \
                      store/filler; DATA_DIR=$PWD/store exec \"$0\"";

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
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", SCRIPT, env!("CARGO_BIN_EXE_conductor")]);
    let process = Process::start_by(command, directory.path(), &world);
    let root = PathBuf::from(format!("/proc/{}/root", process.id()));
    let store = root.join(directory.path().strip_prefix("/").unwrap()).join("store");
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
