//! Providers that answer badly: each costs its own channel only, and what was taken is not sent twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::support::provider::{DEADLINE, Provider};
use super::support::server::{KEY_A, KEY_B, TENANT_A, TENANT_B, TestServer, World};

/// How a provider answers on the wire.
#[derive(Debug, Clone, Copy)]
struct Manner {
    answer: &'static str,
    /// It pauses so long after each byte behind this place.
    pause: Duration,
    slow_from: usize,
}

impl Manner {
    const fn at_once(answer: &'static str) -> Self {
        Self { answer, pause: Duration::ZERO, slow_from: usize::MAX }
    }
}

/// A provider that speaks for itself, and hangs up after each answer. It remembers what it has read to the end.
#[derive(Debug, Clone)]
struct RawProvider {
    url: String,
    read: Arc<Mutex<HashMap<String, usize>>>,
}

impl RawProvider {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let read: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let shared = Arc::clone(&read);
        #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let read = Arc::clone(&shared);
                #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
                tokio::spawn(serve_one(connection, manner, read));
            }
        });
        Self { url, read }
    }

    /// How often the message with this id was read.
    fn times(&self, id: &str) -> usize {
        self.read.lock().unwrap().get(id).copied().unwrap_or(0)
    }
}

async fn serve_one(mut connection: TcpStream, manner: Manner, read: Arc<Mutex<HashMap<String, usize>>>) {
    let mut heard = Vec::new();
    let body = loop {
        let text = String::from_utf8_lossy(&heard);
        let length =
            text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        if let (Some((_, body)), Some(length)) = (text.split_once("\r\n\r\n"), length)
            && body.len() >= length
        {
            break serde_json::from_str::<Value>(body).expect("a JSON body");
        }
        if !matches!(connection.read_buf(&mut heard).await, Ok(1..)) {
            return;
        }
    };
    let id = body["data"]["id"].as_str().expect("an id").to_owned();
    *read.lock().unwrap().entry(id).or_default() += 1;
    for (place, byte) in manner.answer.bytes().enumerate() {
        if connection.write_all(&[byte]).await.is_err() {
            return;
        }
        if place >= manner.slow_from {
            tokio::time::sleep(manner.pause).await;
        }
    }
}

/// A server with one channel to the provider for the first tenant, and a good one for the second.
async fn between(bad: &str, good: &Provider) -> TestServer {
    let world = World::new().webhook(TENANT_A, "bad", bad, &json!({ "timeout": "2s" }));
    world.webhook(TENANT_B, "good", &good.url(), &json!({})).start().await
}

fn webhook(message: &str) -> Value {
    json!({ "channel": "webhook", "message": message, "targetId": message })
}

/// The neighbour's messages go out at once all the while.
async fn expect_no_delay(server: &TestServer) {
    for number in 0..10 {
        let start = Instant::now();
        let id = server.send(KEY_B, &webhook(&number.to_string())).await;
        server.wait_for(KEY_B, &id, "sent").await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

/// Waits for the first attempt's end. Gives it.
async fn first_attempt(server: &TestServer, id: &str) -> Value {
    let start = Instant::now();
    loop {
        let (_, story) = server.get(KEY_A, &format!("/notifications/{id}")).await;
        let attempt = &story["deliveries"][0]["attempts"][0];
        if attempt.is_object() {
            return attempt.clone();
        }
        assert!(start.elapsed() < DEADLINE, "no attempt ends: {story:#}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_one_byte_a_second_is_given_up_in_time_and_delays_nobody_else() {
    let manner =
        Manner { answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", pause: Duration::from_secs(1), slow_from: 0 };
    let (bad, good) = (RawProvider::start(manner).await, Provider::start().await);
    let server = between(&bad.url, &good).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(server.send(KEY_A, &webhook(&number.to_string())).await);
    }
    expect_no_delay(&server).await;
    let attempt = first_attempt(&server, &ids[0]).await;
    // It was written and may have been taken: nobody knows.
    assert_eq!(attempt["outcome"], "unknown", "{attempt:#}");
    let took = attempt["durationMs"].as_u64().unwrap();
    assert!((1_500..5_000).contains(&took), "{attempt:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_one_byte_a_second_after_a_good_status_is_sent_once() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nthis is said very slowly, byte by byte..";
    let slow_from = answer.find("this").unwrap();
    let manner = Manner { answer, pause: Duration::from_secs(1), slow_from };
    let (bad, good) = (RawProvider::start(manner).await, Provider::start().await);
    let server = between(&bad.url, &good).await;
    let id = server.send(KEY_A, &webhook("slow")).await;
    expect_no_delay(&server).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["attempts"].as_array().unwrap().len(), 1, "{story:#}");
    assert_eq!(bad.times(&id), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_up_after_its_answer_gets_each_message_once() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        // Not all of the body that was announced, none, and one whose end is the connection's.
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nok",
    ];
    for answer in answers {
        let (bad, good) = (RawProvider::start(Manner::at_once(answer)).await, Provider::start().await);
        let server = between(&bad.url, &good).await;
        let mut ids = Vec::new();
        for number in 0..30 {
            ids.push(server.send(KEY_A, &webhook(&(number % 5).to_string())).await);
        }
        for id in &ids {
            server.wait_for(KEY_A, id, "sent").await;
            assert_eq!(bad.times(id), 1, "after {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_found_is_told_and_tried_again_and_delays_nobody_else() {
    let good = Provider::start().await;
    let server = between("http://hooks.nowhere.invalid/hook", &good).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(server.send(KEY_A, &webhook(&number.to_string())).await);
    }
    expect_no_delay(&server).await;
    for id in &ids[..3] {
        let attempt = first_attempt(&server, id).await;
        assert_eq!(attempt["outcome"], "retryable", "{attempt:#}");
        let detail = attempt["detail"].as_str().unwrap();
        assert!(detail.starts_with("could not connect to http://hooks.nowhere.invalid: "), "{detail}");
    }
    let (_, story) = server.get(KEY_A, &format!("/notifications/{}", ids[0])).await;
    assert!(["retrying", "sending"].contains(&story["status"].as_str().unwrap()), "{story:#}");
}
