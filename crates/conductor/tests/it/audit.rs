//! The audit log of a whole server: who sees what, what is refused, and that tampering shows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_core::{ManualClock, Timestamp};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::process::{Ended, conductor, run};
use crate::support::provider::{Answer, DEADLINE, Provider};
use crate::support::server::{ADMIN_KEY, KEY_A, KEY_B, TENANT_A, TENANT_B, World};

/// The kinds of these entries, oldest first.
fn kinds(page: &Value) -> Vec<String> {
    let entries = page["data"].as_array().expect("a list").iter().rev();
    entries.map(|entry| entry["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// Asks until there is an entry of this kind. Gives it.
async fn entry_of(client: &Client, kind: &str) -> Value {
    let start = Instant::now();
    loop {
        let page = client.get(&format!("/audit?kind={kind}")).await.expect(200);
        if let Some(entry) = page["data"].get(0) {
            return entry.clone();
        }
        assert!(start.elapsed() < DEADLINE, "no entry in time: {kind}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `conductor audit …` on the data of this folder.
fn audit(folder: &Path, arguments: &[&str]) -> Ended {
    let folder = folder.to_str().expect("a path that is text");
    run(&mut conductor(Path::new(folder), &[&["audit"], arguments, &["--data-dir", folder]].concat()))
}

#[tokio::test]
async fn a_tenant_reads_its_own_entries_and_the_operator_all() {
    let provider = Provider::start().await;
    provider.then(Answer::status(404));
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let [a, b, operator] = [KEY_A, KEY_B, ADMIN_KEY].map(|key| Client::new(&server, Some(key)));
    let id = a.send(&json!({ "channel": "webhook", "message": "the code is 1234", "targetId": "+431234567" })).await;
    a.until(&id, "failed").await;
    let other = b.send(&json!({ "channel": "log", "message": "theirs" })).await;
    b.until(&other, "sent").await;
    let page = a.get("/audit").await.expect(200);
    assert_eq!(kinds(&page), ["accepted", "failed"]);
    let [failed, accepted] = [&page["data"][0], &page["data"][1]];
    assert_eq!(
        (&accepted["actor"], &accepted["tenantId"], &accepted["notificationId"]),
        (&json!("tenant"), &json!(TENANT_A), &json!(id))
    );
    assert_eq!(accepted["details"], json!({ "channel": "webhook" }));
    assert_eq!(failed["details"], json!({ "attempt": 1, "outcome": "rejected", "code": "404", "reason": "rejected" }));
    assert!(!page.to_string().contains("1234"), "neither the text nor the target: {page}");
    let story = a.get(&format!("/notifications/{id}")).await.expect(200);
    assert_eq!(failed["deliveryId"], story["deliveries"][0]["id"]);

    let all = operator.get("/audit").await.expect(200);
    assert_eq!(kinds(&all)[0], "started");
    let tenants: Vec<_> = all["data"].as_array().unwrap().iter().map(|entry| entry["tenantId"].clone()).collect();
    assert!([json!(TENANT_A), json!(TENANT_B), Value::Null].iter().all(|tenant| tenants.contains(tenant)));

    let first = a.get("/audit?limit=1&notification=".to_owned().as_str()).await;
    let link = first.header("link").expect("there is more").to_owned();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    assert!(next.starts_with("/audit?limit=1&cursor="), "{next}");
    assert_eq!(kinds(&a.get(next).await.expect(200)), ["accepted"]);
    assert_eq!(kinds(&a.get(&format!("/audit?notification={id}&kind=failed")).await.expect(200)), ["failed"]);
    assert_eq!(b.get(&format!("/audit?notification={id}")).await.expect(200)["data"], json!([]));
    let cursor = first.json()["next"].as_str().unwrap().to_owned();
    assert_eq!(
        kinds(&b.get(&format!("/audit?cursor={cursor}")).await.expect(200)),
        [""; 0],
        "a cursor shows nothing else"
    );
    assert_eq!(kinds(&a.get("/audit?to=2000-01-01T00:00:00Z").await.expect(200)), [""; 0]);
    let wrong = a.get("/audit?kind=acepted&limit=0&cursor=x&notification=y&form=z").await;
    assert_eq!(wrong.fields(), ["kind", "notification", "limit", "cursor", "form"]);
}

#[tokio::test]
async fn without_an_operators_key_nobody_reads_what_is_not_theirs() {
    let mut world = World::new();
    world.variables.retain(|(name, _)| name != "CONDUCTOR_ADMIN_KEY");
    let server = world.start().await;
    Client::new(&server, None).get("/audit").await.problem(401);
    Client::new(&server, Some(ADMIN_KEY)).get("/audit").await.problem(403);
    assert_eq!(Client::new(&server, Some(KEY_A)).get("/audit").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn refused_keys_are_counted_with_their_addresses_and_never_told() {
    let server = World::new().start().await;
    for _ in 0..3 {
        Client::new(&server, Some("a-key-that-was-guessed")).get("/channels").await.problem(403);
    }
    Client::new(&server, Some(KEY_A)).get("/metrics").await.problem(403);
    Client::new(&server, None).get("/channels").await.problem(401);
    let operator = Client::new(&server, Some(ADMIN_KEY));
    let entry = entry_of(&operator, "keysRefused").await;
    assert_eq!(entry["details"], json!({ "missing": 1, "wrong": 4 }));
    assert_eq!(entry["content"], json!({ "addresses": { "127.0.0.1": 5 } }));
    assert_eq!((&entry["actor"], &entry["tenantId"]), (&json!("unknown"), &Value::Null));
    assert_eq!(Client::new(&server, Some(KEY_A)).get("/audit").await.expect(200)["data"], json!([]));
    // What comes last is written by the stop.
    Client::new(&server, Some("another-guess")).get("/audit").await.problem(403);
    let folder = server.stop().await;
    let exported = audit(folder.path(), &["export"]).with(0).out;
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).expect("JSON Lines")).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["started", "keysRefused", "keysRefused", "stopped"]);
    for key in ["guess", KEY_A, ADMIN_KEY] {
        assert!(!exported.contains(key), "{exported}");
    }
    let file = std::fs::read(folder.path().join("conductor.db")).unwrap();
    assert!(!file.windows(5).any(|bytes| bytes == b"guess"), "nor anywhere in the store");
}

/// A store that a server has left, with some entries. Entry 1 says that it started; each notification has two.
async fn store() -> TempDir {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    for number in 0..6 {
        let id = client.send(&json!({ "channel": "log", "message": format!("number {number}") })).await;
        client.until(&id, "sent").await;
    }
    Client::new(&server, None).get("/channels").await.problem(401);
    server.stop().await
}

#[tokio::test]
async fn the_log_is_proved_and_exported_while_the_server_runs_and_afterwards() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let id = client.send(&json!({ "channel": "log", "message": "m" })).await;
    client.until(&id, "sent").await;
    let folder = server.directory().to_owned();
    let told = tokio::task::spawn_blocking(move || audit(&folder, &["verify"]).with(0).out).await.unwrap();
    assert!(told.starts_with("✅ The audit log is whole: 3 entries.\nHead: 3:"), "{told}");
    let head = told.trim().rsplit("Head: ").next().unwrap().to_owned();
    let folder = server.stop().await;
    let export = |arguments: &[&str]| audit(folder.path(), &[&["export"], arguments].concat()).with(0).out;
    let all: Vec<Value> = export(&[]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<_> = all.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3, 4], "oldest first");
    assert!(head.ends_with(all[2]["hash"].as_str().unwrap()));
    assert_eq!(export(&["--tenant", TENANT_A]).lines().count(), 2);
    assert_eq!(export(&["--tenant", TENANT_B]), "");
    assert_eq!(export(&["--kind", "sent"]).lines().count(), 1);
    assert_eq!(export(&["--notification", &id, "--from", "2020-01-01T00:00:00Z"]).lines().count(), 2);
    assert_eq!(export(&["--from", "2999-01-01T00:00:00Z"]), "");
    assert_eq!(export(&["--to", "2020-01-01T00:00:00Z"]), "");
    audit(folder.path(), &["verify", "--head", &head]).with(0);
    for wrong in [["verify", "--head", "3:abc"], ["export", "--kind", "acepted"], ["export", "--from", "today"]] {
        let refused = audit(folder.path(), &wrong).with(2).err;
        assert!(refused.contains("help:"), "{refused}");
    }
    let empty = TempDir::new().unwrap();
    assert!(audit(empty.path(), &["verify"]).with(2).err.contains("there is no store"));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "and none was made");
}

#[tokio::test]
async fn a_log_of_one_entry_is_proved() {
    let server = World::new().start().await;
    let folder = server.directory().to_owned();
    let told = tokio::task::spawn_blocking(move || audit(&folder, &["verify"]).with(0).out).await.unwrap();
    assert!(told.starts_with("✅ The audit log is whole: 1 entry.\nHead: 1:"), "{told}");
    server.stop().await;
}

#[tokio::test]
async fn old_entries_go_and_the_rest_is_still_proved() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_763_000_000_000)));
    let mut world = World::new();
    (world.clock, world.audit_kept) = (Arc::clone(&clock) as Arc<_>, Some(Duration::from_secs(3_600)));
    let server = world.clone().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let many = vec![json!({ "channel": "log", "message": "m" }); 300];
    let sent = client.post("/notifications/batch", &json!({ "notifications": many })).await.expect(207);
    let last = sent["results"][299]["id"].as_str().unwrap().to_owned();
    client.until(&last, "sent").await;
    let folder = server.stop().await;
    clock.advance(Duration::from_secs(7_200));
    let server = world.start_in(folder).await;
    let operator = Client::new(&server, Some(ADMIN_KEY));
    while entry_of(&operator, "entriesRemoved").await["details"]["through"] != 511 {}
    let folder = server.stop().await;
    let told = audit(folder.path(), &["verify", "--head", &format!("7:{}", "0".repeat(64))]).with(0).out;
    assert!(told.contains("entries, from 512 on; those before it were old"), "{told}");
    assert!(told.contains("Entry 7, which was noted, was removed as old since then"), "{told}");
    let exported = audit(folder.path(), &["export"]).with(0).out;
    assert!(exported.starts_with("{\"seq\":512,"), "{exported}");
}

/// What somebody does to the file, and what is told of it.
const TAMPERING: &[(&str, &[&str])] = &[
    ("UPDATE audit SET at = at + 1 WHERE seq = 5", &["entry 5 was changed"]),
    ("UPDATE audit SET details = NULL WHERE seq IN (3, 9)", &["entry 3 was changed", "entry 9 was changed"]),
    ("UPDATE audit SET tenant = zeroblob(16) WHERE seq = 2", &["entry 2 was changed"]),
    ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 4", &["entry 4 was changed"]),
    ("UPDATE audit SET seal = NULL WHERE seq = 6", &["entry 6 was changed"]),
    ("UPDATE audit SET kind = 'canceled' WHERE seq = (SELECT max(seq) FROM audit)", &["entry 15 was changed"]),
    ("DELETE FROM audit WHERE seq = 7", &["entry 7 was removed"]),
    ("DELETE FROM audit WHERE seq IN (1, 8, 9)", &["entry 1 was removed", "the entries 8 to 9 were removed"]),
    (
        "DELETE FROM audit WHERE seq = 7; UPDATE audit SET seq = seq - 1 WHERE seq > 7; \
         UPDATE audit_state SET head_seq = head_seq - 1",
        &["entry 7 was removed"],
    ),
    ("DELETE FROM audit WHERE seq > 12", &["the entries 13 to 15 were removed"]),
    ("DELETE FROM audit", &["the entries 1 to 15 were removed"]),
    (
        "INSERT INTO audit SELECT seq + 1, at, kind, actor, tenant, notification, ordinal, channel_id, details, seal, hash \
         FROM audit WHERE seq = 15",
        &["entry 16 was inserted"],
    ),
    (
        "UPDATE audit SET seq = -seq - 1 WHERE seq >= 6; UPDATE audit SET seq = -seq WHERE seq < 0; \
         INSERT INTO audit SELECT 6, at, 'sent', actor, tenant, notification, ordinal, channel_id, details, seal, hash \
         FROM audit WHERE seq = 3; UPDATE audit_state SET head_seq = head_seq + 1",
        &["entry 6 was inserted"],
    ),
    (
        "UPDATE audit SET seq = -3 WHERE seq = 9; UPDATE audit SET seq = 9 WHERE seq = 3; \
         UPDATE audit SET seq = 3 WHERE seq = -3",
        &["entry 3 was changed", "entry 9 was changed"],
    ),
    ("UPDATE audit_state SET head_hash = zeroblob(32)", &["entry 15 is the last, but not"]),
    ("DELETE FROM audit_state", &["the table audit_state was changed"]),
    (
        "UPDATE audit_state SET removed_through = 3, removed_hash = (SELECT hash FROM audit WHERE seq = 3); \
         DELETE FROM audit WHERE seq <= 3",
        &["the entries 1 to 3 were removed, and no entry says"],
    ),
    ("UPDATE audit_content SET content = '{\"addresses\":{}}'", &["the content of entry 14 was changed"]),
    (
        "UPDATE notification SET message = 'something else' WHERE message = 'number 2'",
        &["does not say what was accepted with entry 6"],
    ),
    ("UPDATE notification SET salt = NULL WHERE message = 'number 0'", &["accepted with entry 2"]),
    // What cannot even be read.
    (
        "UPDATE audit SET details = CAST(x'7bff7d' AS TEXT) WHERE seq = 5; \
         UPDATE audit SET tenant = x'00' WHERE seq = 8; UPDATE audit SET ordinal = 300 WHERE seq = 10",
        &["entry 5 was changed", "entry 8 was changed", "entry 10 was changed"],
    ),
    (
        "UPDATE notification SET message = CAST(x'ff' AS TEXT) WHERE message = 'number 2'",
        &["does not say what was accepted with entry 6"],
    ),
    ("UPDATE audit_content SET content = CAST(x'ff' AS TEXT)", &["the content of entry 14 was changed"]),
    (
        "INSERT INTO audit SELECT seq - 3, at, kind, actor, tenant, notification, ordinal, channel_id, details, seal, hash \
         FROM audit WHERE seq IN (2, 3)",
        &["entry -1 was inserted", "entry 0 was inserted"],
    ),
];

#[tokio::test]
async fn whatever_somebody_does_to_the_file_is_named() {
    let folder = store().await;
    let good = std::fs::read(folder.path().join("conductor.db")).unwrap();
    let whole = audit(folder.path(), &["verify"]).with(0).out;
    assert!(whole.contains("15 entries"), "{whole}");
    for (tampering, named) in TAMPERING {
        std::fs::write(folder.path().join("conductor.db"), &good).unwrap();
        let file = Connection::open(folder.path().join("conductor.db")).unwrap();
        let refused = file.execute_batch(tampering);
        if tampering.starts_with("UPDATE audit SET")
            || tampering.starts_with("DELETE FROM audit W")
            || *tampering == "DELETE FROM audit"
        {
            assert!(refused.unwrap_err().to_string().contains("only appended to"), "{tampering}");
            file.execute_batch("ROLLBACK").ok();
            file.execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_removed").unwrap();
            file.execute_batch(tampering).unwrap();
        }
        file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(file);
        let told = audit(folder.path(), &["verify"]).with(1).out;
        for named in *named {
            assert!(told.contains(named), "{tampering}\n{told}");
        }
        assert!(!told.contains("Head:"), "{told}");
    }
}

#[tokio::test]
async fn a_log_that_was_cut_or_written_anew_as_a_whole_shows_by_the_head_that_was_noted() {
    let folder = store().await;
    let verify = |arguments: &[&str]| audit(folder.path(), &[&["verify"], arguments].concat());
    let whole = verify(&[]).with(0).out;
    let noted = whole.trim().rsplit("Head: ").next().unwrap().to_owned();
    verify(&["--head", &noted]).with(0);
    let file = Connection::open(folder.path().join("conductor.db")).unwrap();
    let cut = "DROP TRIGGER audit_is_not_removed; DELETE FROM audit WHERE seq > 12; DELETE FROM audit_content; \
               UPDATE audit_state SET head_seq = 12, head_hash = (SELECT hash FROM audit WHERE seq = 12)";
    file.execute_batch(cut).unwrap();
    drop(file);
    verify(&[]).with(0);
    assert!(verify(&["--head", &noted]).with(1).out.contains("entry 15 was noted and is missing: the log was cut"));
    // The server goes on behind the cut, with another entry 15.
    let world = World::new();
    let server = world.start_in(folder).await;
    let client = Client::new(&server, Some(KEY_A));
    for _ in 0..2 {
        let id = client.send(&json!({ "channel": "log", "message": "m" })).await;
        client.until(&id, "sent").await;
    }
    let folder = server.stop().await;
    audit(folder.path(), &["verify"]).with(0);
    let told = audit(folder.path(), &["verify", "--head", &noted]).with(1).out;
    assert!(told.contains("entry 15 is not the one that was noted"), "{told}");
}

#[tokio::test]
async fn a_server_that_starts_on_a_cut_log_says_so_for_ever() {
    let folder = store().await;
    let file = Connection::open(folder.path().join("conductor.db")).unwrap();
    file.execute_batch("DROP TRIGGER audit_is_not_removed; DELETE FROM audit WHERE seq > 12").unwrap();
    drop(file);
    let server = World::new().start_in(folder).await;
    let entry = entry_of(&Client::new(&server, Some(ADMIN_KEY)), "chainBroken").await;
    assert_eq!((&entry["seq"], &entry["details"]), (&json!(16), &json!({ "head": 15, "last": 12 })));
    let folder = server.stop().await;
    let told = audit(folder.path(), &["verify"]).with(1).out;
    assert!(told.contains("the entries 13 to 15 were removed"), "{told}");
    assert!(told.contains("entry 16 says that entries were removed from the log's end"), "{told}");
}
