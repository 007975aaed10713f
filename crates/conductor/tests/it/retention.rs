//! What has ended long ago goes, through the whole server.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conductor_core::{ManualClock, Timestamp};
use serde_json::{Value, json};

use crate::support::provider::{Answer, DEADLINE, Provider};
use crate::support::server::{ADMIN_KEY, KEY_A, KEY_B, TENANT_A, TENANT_B, TestServer, World};

const HOUR: Duration = Duration::from_secs(3_600);

/// Two tenants with rules of their own: A's notifications lose their content, B's go.
fn world(clock: &Arc<ManualClock>) -> World {
    let mut world = World::new();
    world.tenants = json!([
        { "id": TENANT_A, "name": "Tenant A", "authKeyEnvVar": "KEY_A", "retention": "forever", "redactAfter": "1h" },
        { "id": TENANT_B, "name": "Tenant B", "authKeyEnvVar": "KEY_B", "retention": "1h" },
    ]);
    world.clock = Arc::clone(clock) as Arc<_>;
    world
}

/// Asks until the answer is as it should be.
async fn until(server: &TestServer, key: &str, path: &str, is_good: impl Fn(u16, &Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let (status, answer) = server.get(key, path).await;
        if is_good(status, &answer) {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "not in time: {status} {answer:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_old_goes_as_each_tenant_has_it() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_763_000_000_000)));
    let provider = Provider::start().await;
    provider.then(Answer { body: "unknown person", ..Answer::status(404) });
    let world = world(&clock).webhook(TENANT_A, "hook", &provider.url(), &json!({}));
    let server = world.clone().start().await;
    let dead = json!({
        "channel": "webhook", "message": "the code is 1234", "title": "Code", "targetId": "+431234567",
        "metadata": { "room": "attic" }, "data": { "code": 1234 },
    });
    let dead = server.send(KEY_A, &dead).await;
    server.wait_for(KEY_A, &dead, "failed").await;
    let gone = server.send(KEY_B, &json!({ "channel": "log", "message": "gone soon" })).await;
    server.wait_for(KEY_B, &gone, "sent").await;
    let far = json!({ "channel": "log", "message": "m", "sendAt": "2999-01-01T00:00:00Z", "expiresAt": "2999-02-01T00:00:00Z" });
    let waits = server.send(KEY_B, &far).await;

    let directory = server.stop().await;
    clock.advance(HOUR * 2);
    let server = world.start_in(directory).await;
    until(&server, KEY_B, &format!("/notifications/{gone}"), |status, _| status == 404).await;
    let (_, list) = server.get(KEY_B, "/notifications").await;
    assert_eq!((list["data"].as_array().unwrap().len(), &list["data"][0]["id"]), (1, &json!(waits)));

    let story = until(&server, KEY_A, &format!("/notifications/{dead}"), |_, story| story["message"] == "").await;
    assert_eq!(story["redactedAt"], "2025-11-13T04:13:20.000Z");
    assert_eq!((&story["title"], &story["targetId"], &story["data"]), (&json!(null), &json!(null), &json!(null)));
    assert_eq!((&story["status"], &story["metadata"]), (&json!("failed"), &json!({ "room": "attic" })));
    let delivery = &story["deliveries"][0];
    assert_eq!((&delivery["targetId"], &delivery["attempts"][0]["detail"]), (&json!(null), &json!(null)));
    assert_eq!(delivery["attempts"][0]["code"], "404");
    let (status, refused) = server.post(KEY_A, &format!("/notifications/{dead}/retry"), &json!({})).await;
    assert_eq!((status, &refused["type"]), (409, &json!("/docs#problem-redacted")));
    assert_eq!(refused["redactedAt"], story["redactedAt"]);
    let (status, many) = server.post(KEY_A, "/notifications/retry", &json!({})).await;
    assert_eq!((status, &many["matched"], &many["retried"], &many["skipped"]), (200, &json!(1), &json!(0), &json!(1)));
    let (_, metrics) = server.get(ADMIN_KEY, "/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("conductor_notifications_removed_total 1\n"), "{metrics}");
    assert!(metrics.contains("conductor_notifications_redacted_total 1\n"), "{metrics}");
}

/// What this test's thread has logged, on which its servers run.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody has panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Waits until this was logged.
    async fn has(&self, words: &str) {
        let start = Instant::now();
        while !String::from_utf8_lossy(&self.0.lock().unwrap()).contains(words) {
            assert!(start.elapsed() < DEADLINE, "{words:?} was never logged");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_wakes_up_a_year_later_waits_before_it_removes_anything() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // With a second one that lives, what another test logs first is not taken as wanted by nobody.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _logged = tracing::subscriber::set_default(subscriber);
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_763_000_000_000)));
    let world = world(&clock);
    let server = world.clone().start().await;
    let id = server.send(KEY_B, &json!({ "channel": "log", "message": "m" })).await;
    server.wait_for(KEY_B, &id, "sent").await;
    let directory = server.stop().await;
    clock.advance(HOUR * 24 * 365);
    let server = world.clone().start_in(directory).await;
    log.has("no old notification is removed").await;
    // The first round of the next start takes its time for granted, because this notification is of that year.
    let witness = server.send(KEY_B, &json!({ "channel": "log", "message": "m" })).await;
    server.wait_for(KEY_B, &witness, "sent").await;
    assert_eq!(server.get(KEY_B, &format!("/notifications/{id}")).await.0, 200);
    let directory = server.stop().await;
    let server = world.start_in(directory).await;
    until(&server, KEY_B, &format!("/notifications/{id}"), |status, _| status == 404).await;
    assert_eq!(server.get(KEY_B, &format!("/notifications/{witness}")).await.0, 200);
}
