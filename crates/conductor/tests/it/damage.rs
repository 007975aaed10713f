//! A store that is damaged: the start is refused with the mend, and a server that finds out promises nothing more.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::support::process::{Process, run, serving};
use super::support::provider::Provider;
use super::support::server::{KEY_A, TENANT_A, World, answer, http};

const PAGE: usize = 4_096;

fn database(directory: &TempDir) -> PathBuf {
    directory.path().join("conductor.db")
}

/// Overwrites the page on which a text stands.
fn overwrite_page_with(path: &Path, text: &str) {
    let content = fs::read(path).expect("readable");
    let place = content.windows(text.len()).position(|part| part == text.as_bytes()).expect("it stands there");
    let file = fs::File::options().write(true).open(path).expect("one's own file");
    file.write_all_at(&[0xa5; PAGE], (place / PAGE * PAGE) as u64).expect("written");
}

/// Accepts so many, to be sent later.
async fn accept(url: &str, count: usize, size: usize) -> Vec<String> {
    let (http, mut ids) = (http(), Vec::new());
    let later = conductor_core::Timestamp::from_millis(4_000_000_000_000).to_string();
    for number in 0..count {
        let message = format!("message {number:05} {}", "x".repeat(size));
        let body = json!({
            "channel": "webhook", "message": message, "sendAt": later, "expiresAt": "2200-01-01T00:00:00Z",
        });
        let (status, told) = answer(http.post(format!("{url}/notifications")).bearer_auth(KEY_A).json(&body)).await;
        assert_eq!(status, 202, "{told}");
        ids.push(told["id"].as_str().expect("an id").to_owned());
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_damaged_store_is_refused_with_the_file_and_the_mend() {
    let directory = TempDir::new().unwrap();
    let world = World::new().webhook(TENANT_A, "hook", "http://127.0.0.1:1/", &json!({}));
    world.write(&directory.path().join("config"));
    let process = Process::start(&directory, &world);
    accept(&process.url, 40, 400).await;
    // Killed: all is in the log.
    drop(process);
    let log = directory.path().join("conductor.db-wal");
    let killed = [fs::read(database(&directory)).unwrap(), fs::read(&log).unwrap()];
    let refused = |words: &[&str]| {
        let ended = run(&mut serving(directory.path(), &world)).with(2);
        for word in words.iter().chain(&["conductor.db: the store is damaged", "last backup", ".recover", "DATA_DIR"]) {
            assert!(ended.err.contains(word), "{word:?} not in:\n{}", ended.err);
        }
        assert!(!ended.text().contains("serves on") && !ended.text().contains("panicked"), "{}", ended.text());
    };
    fs::write(&log, vec![0xa5; killed[1].len()]).unwrap();
    refused(&["conductor.db-wal", "has no valid header"]);
    fs::write(&log, &killed[1]).unwrap();
    Process::start(&directory, &world).stop().with(0);
    let sound = fs::read(database(&directory)).unwrap();
    overwrite_page_with(&database(&directory), "message 00007");
    refused(&[]);
    fs::write(database(&directory), &sound[..sound.len() / 2]).unwrap();
    refused(&[]);
    fs::write(database(&directory), &sound).unwrap();
    Process::start(&directory, &world).stop().with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_is_met_while_it_serves_ends_all_promises_and_is_told() {
    let provider = Provider::start().await;
    let directory = TempDir::new().unwrap();
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    world.write(&directory.path().join("config"));
    let process = Process::start(&directory, &world);
    let ids = accept(&process.url, 100, 400).await;
    process.stop().with(0);
    let process = Process::start(&directory, &world);
    overwrite_page_with(&database(&directory), "message 00050");
    let get = async |path: &str| answer(http().get(format!("{}{path}", process.url)).bearer_auth(KEY_A)).await;
    assert_eq!(get("/readyz").await.0, 200, "nobody has read it yet");
    let (status, told) = get(&format!("/notifications/{}", ids[50])).await;
    assert_eq!(status, 503, "{told}");
    process.logged("The store's file is damaged");
    assert_eq!(get("/readyz").await.0, 503);
    let body = json!({ "channel": "webhook", "message": "x" });
    let post = http().post(format!("{}/notifications", process.url)).bearer_auth(KEY_A).json(&body);
    let (status, told) = answer(post).await;
    assert_eq!(status, 503, "{told}");
    assert_eq!(get("/health").await.0, 200);
    assert_eq!(get("/livez").await.0, 200, "a new start would not mend it");
    let (status, story) = get(&format!("/notifications/{}", ids[99])).await;
    assert_eq!((status, &story["status"]), (200, &json!("scheduled")), "what is sound can be read");
    process.stop().with(0);
    let ended = run(&mut serving(directory.path(), &world)).with(2);
    assert!(ended.err.contains("the store is damaged"), "{}", ended.err);
}
