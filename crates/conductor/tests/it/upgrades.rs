//! Stores of other versions, as the real program meets them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::repository::{files, root};
use super::support::process::{Process, everything_in, run, serving};
use super::support::provider::Provider;
use super::support::server::{KEY_A, TENANT_A, World, answer, http};

/// The channels of the stores that are kept.
const CHANNELS: [&str; 2] = ["01943c2a-7c3e-7000-8000-0000000000c1", "01943c2a-7c3e-7000-8000-0000000000c2"];

fn migrations() -> Vec<String> {
    let found = files(&root().join("crates/conductor-store/migrations/sqlite"), ".sql");
    found.iter().map(|path| fs::read_to_string(path).expect("readable")).collect()
}

fn kept_stores() -> Vec<PathBuf> {
    let found = files(&root().join("crates/conductor-store/tests/fixtures"), ".db");
    assert!(found.len() >= 2, "{found:?}");
    found
}

fn world(provider: &Provider) -> World {
    let mut world = World::new();
    for (number, id) in CHANNELS.iter().enumerate() {
        world = world.webhook(TENANT_A, &format!("hook {number}"), &provider.url(), &json!({}));
        world.channels.last_mut().expect("it was added")["channelId"] = json!(id);
    }
    world.variables.push(("RETENTION".to_owned(), "forever".to_owned()));
    world
}

/// A folder with a copy of a store.
fn folder_with(store: &Path) -> TempDir {
    let directory = TempDir::new().expect("a folder");
    fs::copy(store, directory.path().join("conductor.db")).expect("copied");
    directory
}

/// A store as the first version made it: `number` of this program's migrations, and a notification that waits.
fn older(number: usize) -> TempDir {
    let directory = TempDir::new().expect("a folder");
    let store = Connection::open(directory.path().join("conductor.db")).expect("made");
    store.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL").expect("configured");
    store.pragma_update(None, "application_id", 0x434e_4452).expect("set");
    let table = "CREATE TABLE migration (number INTEGER NOT NULL PRIMARY KEY, checksum BLOB NOT NULL) STRICT";
    store.execute_batch(table).expect("made");
    for (number, sql) in migrations().iter().take(number).enumerate() {
        store.execute_batch(sql).expect("applied");
        let checksum = digest(&SHA256, sql.as_bytes());
        store
            .execute("INSERT INTO migration VALUES (?1, ?2)", (number as i64 + 1, checksum.as_ref()))
            .expect("written");
    }
    let id = |text: &str| format!("x'{}'", text.replace('-', ""));
    let (notification, tenant, channel) = (id(WAITING), id(TENANT_A), id(CHANNELS[0]));
    let sql = format!(
        "INSERT INTO notification (id, tenant, channel, channel_id, message, priority, format, accepted_at, expires_at) \
         VALUES ({notification}, {tenant}, 'webhook', {channel}, 'from an older version', 'normal', 'text', 1705314600000, \
         7258118400000); INSERT INTO pending (notification, ordinal, tenant, channel_id, lane, priority, due_at, expires_at, \
         attempts, failures, next_fallback, held, claimed, lost) VALUES ({notification}, 0, {tenant}, {channel}, 0, 'normal', \
         1705314600000, 7258118400000, 0, 0, 0, 0, 0, 0); INSERT INTO meta VALUES ('stopped_cleanly', 1)"
    );
    store.execute_batch(&sql).expect("filled");
    directory
}

/// The notification of [`older`].
const WAITING: &str = "018d0cd7-b340-7000-8000-000000000001";

async fn list(url: &str) -> Vec<Value> {
    let (status, told) = answer(http().get(format!("{url}/notifications?limit=100")).bearer_auth(KEY_A)).await;
    assert_eq!(status, 200, "{told}");
    told["data"].as_array().expect("a list").clone()
}

async fn until_sent(url: &str, id: &str) {
    let began = std::time::Instant::now();
    loop {
        let (_, story) = answer(http().get(format!("{url}/notifications/{id}")).bearer_auth(KEY_A)).await;
        if story["status"] == "sent" {
            return;
        }
        assert!(began.elapsed() < super::support::provider::DEADLINE, "never sent: {story:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many migrations a store has.
fn version_of(directory: &TempDir) -> usize {
    let store = Connection::open(directory.path().join("conductor.db")).expect("opened");
    let count: i64 = store.query_row("SELECT count(*) FROM migration", [], |row| row.get(0)).expect("counted");
    usize::try_from(count).expect("a small number")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_store_that_is_kept_is_served_and_what_waits_in_it_is_sent() {
    for store in kept_stores() {
        let provider = Provider::start().await;
        let (directory, world) = (folder_with(&store), world(&provider));
        world.write(&directory.path().join("config"));
        let process = Process::start(&directory, &world);
        let all = list(&process.url).await;
        let stays =
            ["scheduled", "held", "sent", "delivered", "undelivered", "failed", "expired", "canceled", "superseded"];
        let seen: BTreeSet<&str> = all.iter().filter_map(|one| one["status"].as_str()).collect();
        assert!(stays.iter().all(|status| seen.contains(status)), "{}: {seen:?}", store.display());
        let waiting: Vec<&Value> = all.iter().filter(|one| !stays.contains(&one["status"].as_str().unwrap())).collect();
        for one in &waiting {
            until_sent(&process.url, one["id"].as_str().expect("an id")).await;
        }
        let messages: BTreeSet<String> = provider.received().iter().map(|request| request.message()).collect();
        for words in
            ["queued with *everything*", "retrying", "redirected", "on its second way", "took the process with it"]
        {
            assert!(messages.contains(words), "{}: {words} is not in {messages:?}", store.display());
        }
        for words in ["held", "scheduled", "sent", "failed", "canceled", "expired", "superseded"] {
            assert!(!messages.contains(words), "{}: {words} was sent", store.display());
        }
        process.stop().with(0);
        assert_eq!(version_of(&directory), migrations().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_each_older_version_is_brought_up_to_this_one() {
    for number in 1..migrations().len() {
        let provider = Provider::start().await;
        let (directory, world) = (older(number), world(&provider));
        let process = Process::serve(&mut serving(directory.path(), &world));
        process.logged("The store's tables were brought up to date");
        until_sent(&process.url, WAITING).await;
        assert_eq!(provider.received()[0].message(), "from an older version");
        process.stop().with(0);
        assert_eq!(version_of(&directory), migrations().len());
        // The next start has nothing to do.
        let process = Process::serve(&mut serving(directory.path(), &world));
        let ended = process.stop().with(0);
        assert!(!ended.err.contains("brought up to date"), "{}", ended.err);
    }
}

/// A start, or another command, that has to be refused, and to leave the store as it is.
fn refused(directory: &TempDir, world: &World, arguments: &[&str], words: &[&str]) {
    world.write(&directory.path().join("config"));
    let before = everything_in(directory.path());
    let mut command = serving(directory.path(), world);
    let ended = run(command.args(arguments)).with(2);
    for word in words.iter().chain(&["error: ", "help: ", "conductor.db"]) {
        assert!(ended.err.contains(word), "{word:?} not in {}", ended.err);
    }
    assert!(!ended.out.contains("serves on"), "{}", ended.out);
    let mut after = everything_in(directory.path());
    after.retain(|path, _| before.contains_key(path) || !path.ends_with("conductor.lock"));
    assert!(after == before, "something was changed: {:?}", after.keys().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_version_is_refused_with_words_and_left_as_it_is() {
    let provider = Provider::start().await;
    let (directory, world) = (older(migrations().len()), world(&provider));
    let next = migrations().len() + 1;
    let store = Connection::open(directory.path().join("conductor.db")).unwrap();
    store.execute_batch("CREATE TABLE of_the_future (x); PRAGMA journal_mode = DELETE").unwrap();
    store.execute("INSERT INTO migration VALUES (?1, x'00')", [next as i64]).unwrap();
    drop(store);
    let found = format!("the store has version {next}; this program knows versions up to {}", next - 1);
    refused(&directory, &world, &[], &[&found, "use the newer program", "start the newer version of Conductor again"]);
    let target = directory.path().join("copy").display().to_string();
    refused(&directory, &world, &["backup", &target], &[&found]);
    // Also where a first start would make a configuration.
    fs::remove_dir_all(directory.path().join("config")).unwrap();
    let mut command = serving(directory.path(), &world);
    fs::remove_dir_all(directory.path().join("config")).unwrap();
    let ended = run(&mut command).with(2);
    assert!(ended.err.contains(&found) && !directory.path().join("config").exists(), "{}", ended.text());
    assert!(provider.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_migrations_are_not_this_programs_is_refused_and_left_as_it_is() {
    let provider = Provider::start().await;
    let (directory, world) = (older(2), world(&provider));
    let store = Connection::open(directory.path().join("conductor.db")).unwrap();
    store
        .execute_batch("UPDATE migration SET checksum = x'00' WHERE number = 2; PRAGMA journal_mode = DELETE")
        .unwrap();
    drop(store);
    let words = ["migration 2 of the store is not the one of this program", "start the build of Conductor again"];
    refused(&directory, &world, &[], &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_leaves_the_store_as_it_was_and_is_tried_again() {
    let provider = Provider::start().await;
    let (directory, world) = (older(1), world(&provider));
    let path = directory.path().join("conductor.db");
    let contents = || {
        let store = Connection::open(&path).unwrap();
        let mut statement = store.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?));
        statement.query_map([], row).unwrap().collect::<Result<Vec<_>, _>>().unwrap()
    };
    // Something stands in the way of the fourth, when the second and the third have been applied.
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE replay_job (theirs)").unwrap();
    let before = contents();
    let ended = run(&mut serving(directory.path(), &world)).with(2);
    for words in
        ["migration 4 could not be applied, and nothing was changed", "replay_job", "help: go on with the version"]
    {
        assert!(ended.err.contains(words), "{words:?} not in {}", ended.err);
    }
    assert_eq!((contents(), version_of(&directory)), (before, 1));
    Connection::open(&path).unwrap().execute_batch("DROP TABLE replay_job").unwrap();
    let process = Process::serve(&mut serving(directory.path(), &world));
    until_sent(&process.url, WAITING).await;
    process.stop().with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_start_at_once_on_an_old_store_one_brings_it_up_to_date_and_the_other_is_refused() {
    let provider = Provider::start().await;
    let world = world(&provider);
    for _ in 0..3 {
        let directory = older(1);
        world.write(&directory.path().join("config"));
        let mut both = [serving(directory.path(), &world), serving(directory.path(), &world)]
            .map(|mut command| Process::spawn(&mut command));
        let began = std::time::Instant::now();
        let serves = |process: &Process| process.out().contains(" serves on ");
        let loser = loop {
            let ended = both.iter_mut().position(|process| !process.is_running());
            if let Some(ended) = ended
                && serves(&both[1 - ended])
            {
                break ended;
            }
            assert!(began.elapsed() < super::support::provider::DEADLINE, "{} {}", both[0].text(), both[1].text());
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let [first, second] = both;
        let (winner, loser) = if loser == 0 { (second, first) } else { (first, second) };
        let refused = loser.ended().with(2);
        assert!(refused.err.contains("another conductor is using this store"), "{}", refused.err);
        assert!(!refused.err.contains("brought up to date"), "{}", refused.err);
        winner.logged("The store's tables were brought up to date");
        winner.stop().with(0);
        assert_eq!(version_of(&directory), migrations().len());
    }
    assert!(!provider.received().is_empty());
}
