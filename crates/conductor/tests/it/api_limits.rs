//! What a tenant may ask for, what may wait, and how often an address may fail.

use http::Method;
use serde_json::{Value, json};

use crate::support::client::{Client, Reply, reply};
use crate::support::provider::DEADLINE;
use crate::support::receipts::{SMS_CHANNEL, sms_receipt};
use crate::support::server::{ADMIN_KEY, KEY_A, KEY_B, World};

fn limited(limits: &Value) -> World {
    let mut world = World::new();
    world.tenants[0]["rateLimit"] = limits.clone();
    world
}

/// One that waits until it is taken back.
fn later(message: &str) -> Value {
    json!({ "channel": "log", "message": message, "sendAt": "2999-01-01T00:00:00Z" })
}

fn statuses(batch: &Value) -> Vec<u64> {
    batch["results"].as_array().unwrap().iter().map(|result| result["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_tenant_asks_only_as_often_as_it_may() {
    let server = limited(&json!({ "requests": { "per": "1h", "limit": 2, "burst": 3 } })).start().await;
    let (a, b) = (Client::new(&server, Some(KEY_A)), Client::new(&server, Some(KEY_B)));
    for left in (0..3).rev() {
        let answer = a.get("/channels").await;
        assert_eq!(answer.header("ratelimit-policy"), Some("\"requests\";q=2;w=3600"));
        let told = answer.header("ratelimit").expect("what is left").to_owned();
        assert!(told.starts_with(&format!("\"requests\";r={left};t=")), "{told}");
        answer.expect(200);
    }
    let refused = a.get("/channels").await;
    assert_eq!(refused.problem(429)["type"], "/docs#problem-rate-limited");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1700..=1800).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"requests\";q=2;w=3600"));
    assert_eq!(refused.header("ratelimit"), Some(format!("\"requests\";r=0;t={seconds}").as_str()));
    let other = b.get("/channels").await;
    assert_eq!((other.header("ratelimit"), other.header("ratelimit-policy")), (None, None));
    other.expect(200);
}

#[tokio::test]
async fn each_notification_of_a_batch_counts_as_a_request_and_a_batch_is_never_too_large_for_a_rate() {
    let server = limited(&json!({ "requests": { "per": "1h", "limit": 10, "burst": 5 } })).start().await;
    let a = Client::new(&server, Some(KEY_A));
    let batch = |count: usize| json!({ "notifications": vec![later("m"); count] });
    assert_eq!(statuses(&a.post("/notifications/batch", &batch(2)).await.expect(207)), [202; 2]);
    let answer = a.get("/channels").await;
    assert!(answer.header("ratelimit").is_some_and(|told| told.starts_with("\"requests\";r=2;")));
    // There is room for one, so that all may come; the next has to wait until they are paid for.
    assert_eq!(statuses(&a.post("/notifications/batch", &batch(12)).await.expect(207)), [202; 12]);
    let refused = a.get("/channels").await;
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3_900..=3_960).contains(&seconds), "eleven six-minute intervals: {seconds}");
    refused.problem(429);
}

#[tokio::test]
async fn a_tenant_queues_only_as_much_as_it_may() {
    let server = limited(&json!({ "queued": 2 })).start().await;
    let (a, b) = (Client::new(&server, Some(KEY_A)), Client::new(&server, Some(KEY_B)));
    let later = later("later");
    let first = a.send(&later).await;
    a.send(&later).await;
    let refused = a.post("/notifications", &later).await;
    assert_eq!(refused.problem(429)["type"], "/docs#problem-queue-full");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("ratelimit-policy"), Some("\"queued\";q=2"));
    assert_eq!(refused.header("ratelimit"), Some("\"queued\";r=0;t=10"));
    b.send(&later).await;
    a.act(&format!("/notifications/{first}/cancel")).await.expect(200);
    let batch = a.post("/notifications/batch", &json!({ "notifications": [later, later] })).await.expect(207);
    assert_eq!(statuses(&batch), [202, 429]);
}

#[tokio::test]
async fn a_tenant_has_only_so_many_bytes_waiting_also_after_a_restart() {
    let world = limited(&json!({ "bytes": 1_000 }));
    let server = world.clone().start().await;
    let a = Client::new(&server, Some(KEY_A));
    let [of_400, of_300] = [400, 300].map(|length| later(&"x".repeat(length)));
    let first = a.send(&of_400).await;
    a.send(&of_400).await;
    let refused = a.post("/notifications", &of_300).await;
    assert_eq!(refused.problem(429)["type"], "/docs#problem-queue-full");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"bytes\";q=1000;qu=\"content-bytes\""));
    assert_eq!(refused.header("ratelimit"), Some("\"bytes\";r=200;t=10"));
    let whole = a.post("/notifications", &later(&"x".repeat(1_001))).await;
    assert!(whole.problem(413)["error"].as_str().unwrap().contains("1001 bytes"));
    Client::new(&server, Some(KEY_B)).send(&later(&"x".repeat(5_000))).await;

    let server = world.start_in(server.stop().await).await;
    let a = Client::new(&server, Some(KEY_A));
    a.post("/notifications", &of_300).await.problem(429);
    // What has room is taken, in the order of the batch.
    let mixed = json!({ "notifications": [of_300, later("small"), of_300] });
    assert_eq!(statuses(&a.post("/notifications/batch", &mixed).await.expect(207)), [429, 202, 429]);
    a.act(&format!("/notifications/{first}/cancel")).await.expect(200);
    assert_eq!(statuses(&a.post("/notifications/batch", &mixed).await.expect(207)), [202, 202, 429]);
    // What has been sent takes no room.
    for _ in 0..5 {
        let now = json!({ "channel": "log", "message": "y".repeat(250) });
        a.post_with("/notifications", &[("prefer", "wait=20")], &now).await.expect(200);
    }
}

#[tokio::test]
async fn requests_that_come_together_do_not_share_the_last_place() {
    let server = limited(&json!({ "queued": 10, "bytes": 60 })).start().await;
    let a = Client::new(&server, Some(KEY_A));
    let notification = later("123456");
    let sends = (0..40).map(|_| a.post("/notifications", &notification));
    let answers = futures_util::future::join_all(sends).await;
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    assert_eq!(answers.iter().filter(|answer| answer.status == 429).count(), 40 - accepted);
    assert!((1..=10).contains(&accepted), "{accepted}");
    // What was refused in the crowd finds its place afterwards, and no more than that.
    for _ in accepted..10 {
        a.send(&notification).await;
    }
    a.post("/notifications", &notification).await.problem(429);
}

/// Asks with a wrong key, as a proxy that speaks for `address`.
async fn fail(client: &Client, address: &str) -> Reply {
    reply(client.request(Method::GET, "/channels").header("x-forwarded-for", address)).await
}

async fn fail_until_it_is_too_much(client: &Client, address: &str) -> usize {
    let start = std::time::Instant::now();
    for count in 0.. {
        let answer = fail(client, address).await;
        if answer.status == 429 {
            return count;
        }
        answer.problem(403);
        assert!(start.elapsed() < DEADLINE, "{count} wrong keys are not too many");
    }
    unreachable!("it counts for ever")
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_told_so_and_a_right_key_from_it_is_let_in() {
    let server = World::new().start().await;
    let wrong = Client::new(&server, Some("wrong"));
    let plain = fail_until_it_is_too_much(&wrong, "203.0.113.1").await;
    assert!(plain >= 30, "{plain}");
    // Nobody is believed who says whom he speaks for.
    let refused = fail(&wrong, "203.0.113.2").await;
    assert_eq!(refused.problem(429)["type"], "/docs#problem-too-many-failures");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"failed-authentications\";q=30;w=60"));
    assert_eq!(refused.header("ratelimit"), Some(format!("\"failed-authentications\";r=0;t={seconds}").as_str()));
    wrong.get("/metrics").await.problem(429);
    for _ in 0..50 {
        Client::new(&server, Some(KEY_A)).get("/channels").await.expect(200);
    }
    assert_eq!(Client::new(&server, Some(ADMIN_KEY)).get("/metrics").await.status, 200);
    // No key is no guess.
    Client::new(&server, None).get("/channels").await.problem(401);
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    let again = fail(&wrong, "203.0.113.1").await.status;
    assert_eq!(again, 403, "after `Retry-After` one is answered as what it is");
}

#[tokio::test]
async fn a_trusted_proxys_clients_are_told_apart() {
    let mut world = World::new();
    world.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let server = world.start().await;
    let wrong = Client::new(&server, Some("wrong"));
    fail_until_it_is_too_much(&wrong, "203.0.113.1").await;
    fail(&wrong, "198.51.100.99, 203.0.113.1").await.problem(429);
    fail(&wrong, "203.0.113.2").await.problem(403);
    fail(&wrong, "203.0.113.1, 203.0.113.3").await.problem(403);
    let forwarded = wrong.request(Method::GET, "/channels").header("forwarded", "for=203.0.113.1;proto=https");
    reply(forwarded).await.problem(429);
}

#[tokio::test]
async fn a_wrong_signature_of_a_receipt_is_a_failure_too() {
    let server = World::new().with_receipts("http://127.0.0.1:9").start().await;
    let stranger = Client::new(&server, None);
    let start = std::time::Instant::now();
    let path = format!("/receipts/{SMS_CHANNEL}");
    while stranger.act(&path).await.status != 429 {
        assert!(start.elapsed() < DEADLINE, "wrong signatures are never too many");
    }
    let told = reply(sms_receipt(&server, "a=b", &[("MessageStatus", "sent")])).await;
    assert_eq!(told.status, 200, "a right one is let in");
}
