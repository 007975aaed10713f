//! Slow, broken and hostile clients: each gets a 4xx or is let go, and costs the others nothing.

use std::time::{Duration, Instant};

use conductor::server::limits::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::support::process::Process;
use super::support::provider::DEADLINE;
use super::support::server::{KEY_A, TestServer, World, answer, http};
use super::support::skip::skipped;
use super::support::wire::{PATIENCE, Wire, statuses};

/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(300);
/// The median answer after an attack may take this many times what it took before it, and a little for chance.
const SLOWER_MAX: u32 = 5;
const CHANCE: Duration = Duration::from_millis(10);
/// What an attack may leave behind in the process's memory, in KiB.
const GROWTH_MAX: u64 = 96 * 1024;
/// So many connections may do nothing, and what they may take of the process's memory together, in KiB.
const IDLE: usize = 10_000;
const IDLE_GROWTH_MAX: u64 = 200 * 1024;

async fn impatient() -> TestServer {
    let limits = Limits { head: SHORT, idle: SHORT, ..Limits::default() };
    World { limits, ..World::new() }.start().await
}

fn post(body: &str) -> String {
    let head = format!(
        "POST /notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY_A}\r\nContent-Type: application/json\r\n"
    );
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

const LOG: &str = r#"{"channel":"log","message":"x"}"#;

/// The median time of an answer, each on a connection of its own.
async fn latency(url: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..41 {
        let start = Instant::now();
        let (status, body) = answer(
            http()
                .post(format!("{url}/notifications"))
                .bearer_auth(KEY_A)
                .header("content-type", "application/json")
                .body(LOG),
        )
        .await;
        assert_eq!(status, 202, "{body}");
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

fn expect_as_fast(before: Duration, after: Duration) {
    assert!(after <= before * SLOWER_MAX + CHANCE, "an answer took {before:?} before and {after:?} after");
}

#[tokio::test]
async fn a_head_that_trickles_in_is_given_up() {
    let server = impatient().await;
    let mut wire = Wire::open(&server.address().to_string()).await;
    let start = Instant::now();
    assert!(wire.say(b"POST /notifications HTTP/1.1\r\nX-Slow: ").await);
    while start.elapsed() < PATIENCE && wire.say(b"a").await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() < PATIENCE, "it was still listened to");
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let server = impatient().await;
    let http2 = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat();
    for said in [&b""[..], b"P", b"PRI * HT", &http2, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut wire = Wire::open(&server.address().to_string()).await;
        assert!(wire.say(said).await);
        let (_, closed) = wire.hear().await;
        assert!(closed, "it stays open after {:?}", String::from_utf8_lossy(said));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_let_go() {
    let server = impatient().await;
    let mut wire = Wire::open(&server.address().to_string()).await;
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let start = Instant::now();
    let mut gone = false;
    while !gone && start.elapsed() < PATIENCE {
        let said = tokio::time::timeout(Duration::from_millis(50), wire.say(requests.as_bytes())).await;
        gone = said == Ok(false);
    }
    assert!(gone, "it is still waited for");
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up() {
    let server = World::new().start().await;
    let mut wire = Wire::open(&server.address().to_string()).await;
    assert!(wire.say(post(LOG).trim_end_matches('}').as_bytes()).await);
    let start = Instant::now();
    let heard = tokio::time::timeout(Duration::from_secs(45), async {
        loop {
            let (heard, closed) = wire.hear().await;
            if closed {
                return heard;
            }
        }
    });
    let heard = heard.await.expect("it gives up");
    assert_eq!(statuses(&heard), [408], "after {:?}: {}", start.elapsed(), String::from_utf8_lossy(&heard));
}

#[tokio::test]
async fn a_client_that_has_finished_speaking_gets_its_answer() {
    let server = World::new().start().await;
    for prefer in ["", "Prefer: wait=10\r\n"] {
        let mut wire = Wire::open(&server.address().to_string()).await;
        let request = post(LOG).replacen("Host:", &format!("{prefer}Host:"), 1);
        assert!(wire.say(request.as_bytes()).await);
        tokio::io::AsyncWriteExt::shutdown(&mut wire.0).await.unwrap();
        let (heard, closed) = wire.hear().await;
        assert!(closed);
        assert_eq!(statuses(&heard), [if prefer.is_empty() { 202 } else { 200 }]);
    }
}

#[tokio::test]
async fn requests_in_one_breath_are_answered_in_their_order() {
    let server = World::new().start().await;
    let mut wire = Wire::open(&server.address().to_string()).await;
    let all =
        ["GET /health HTTP/1.1\r\nHost: x\r\n\r\n", &post(LOG), "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
    let last = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(wire.say((all + last).as_bytes()).await);
    let (heard, closed) = wire.hear().await;
    assert!(closed);
    assert_eq!(statuses(&heard), [200, 202, 404, 200]);
}

#[tokio::test]
async fn old_and_new_versions_of_http_are_spoken() {
    let server = World::new().start().await;
    let mut wire = Wire::open(&server.address().to_string()).await;
    assert!(wire.say(post(LOG).replace("HTTP/1.1", "HTTP/1.0").replace("Host: x\r\n", "").as_bytes()).await);
    let (heard, closed) = wire.hear().await;
    assert!(closed, "HTTP/1.0 keeps no connection");
    assert_eq!(statuses(&heard), [202]);
    #[expect(clippy::disallowed_methods, reason = "the tests speak to their own server")]
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let answer =
        http2.post(server.url("/notifications")).bearer_auth(KEY_A).json(&json!({ "channel": "log", "message": "x" }));
    let answer = answer.send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_2, 202));
    let long = http2.get(server.url("/health")).header("x-long", "x".repeat(64 * 1024)).send().await;
    assert!(long.is_err() || long.unwrap().status() == 431);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on_or_not_to() {
    let server = World::new().start().await;
    let mut wire = Wire::open(&server.address().to_string()).await;
    let request = post(LOG).replacen("Host:", "Expect: 100-continue\r\nHost:", 1);
    let (head, body) = request.split_at(request.len() - LOG.len());
    assert!(wire.say(head.as_bytes()).await);
    assert!(wire.hear_until("100 Continue", 1).await.contains("100 Continue"));
    assert!(wire.say(body.as_bytes()).await);
    assert!(wire.hear_until("\r\n\r\n", 1).await.contains(" 202 "));
    let mut wire = Wire::open(&server.address().to_string()).await;
    assert!(wire.say(head.replace(KEY_A, "wrong").as_bytes()).await);
    let heard = wire.hear_until("\r\n\r\n", 1).await;
    assert!(heard.contains(" 403 ") && !heard.contains("100 Continue"), "{heard}");
}

/// Requests that no server should take, by what is wrong with them.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let with = |field: &str| post(LOG).replacen("Host:", &format!("{field}\r\nHost:"), 1).into_bytes();
    let chunked = |body: &str| {
        let head = post("").replacen("Content-Length: 0", "Transfer-Encoding: chunked", 1);
        (head + body).into_bytes()
    };
    vec![
        ("200 header fields", with("X-A: b\r\n".repeat(200).trim_end())),
        ("a long field", with(&format!("X-Long: {}", "x".repeat(64 * 1024)))),
        ("a long request line", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100 * 1024)).into_bytes()),
        ("invalid UTF-8 in the path", b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a null byte in the path", b"GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a null byte in a field", with("X-Null: a\0b")),
        (
            "invalid UTF-8 in the key",
            b"GET /channels HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: \xff\xfe\r\n\r\n".to_vec(),
        ),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n".to_vec()),
        ("a version that is none", b"GET / HTTP/9.9\r\n\r\n".to_vec()),
        ("an unknown method", b"BREW /notifications HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec()),
        ("a length that is no number", post(LOG).replace("Content-Length: ", "Content-Length: x").into_bytes()),
        ("a negative length", post(LOG).replace("Content-Length: ", "Content-Length: -").into_bytes()),
        ("a length beyond all numbers", with("Content-Length: 99999999999999999999999")),
        ("two lengths", with("Content-Length: 5")),
        ("a length and chunks", with("Transfer-Encoding: chunked")),
        ("an unknown coding", with("Transfer-Encoding: xchunked")),
        ("a coding after chunks", with("Transfer-Encoding: chunked, identity")),
        ("a coding with a tab", with("Transfer-Encoding:\tchunked")),
        ("a space before the colon", with("Transfer-Encoding : chunked")),
        ("a folded field", with("X-Fold: a\r\n b")),
        ("a chunk that is no number", chunked("zz\r\nhello\r\n0\r\n\r\n")),
        ("a chunk beyond all numbers", chunked("fffffffffffffffff\r\nx\r\n0\r\n\r\n")),
        ("a chunk without its end", chunked("5\r\nhelloX\r\n0\r\n\r\n")),
    ]
}

#[tokio::test]
async fn a_broken_request_gets_a_4xx_or_nothing_and_no_second_request_is_smuggled_in() {
    let limits = Limits { head: Duration::from_secs(1), idle: Duration::from_secs(1), ..Limits::default() };
    let server = World { limits, ..World::new() }.start().await;
    for (what, request) in broken() {
        let mut wire = Wire::open(&server.address().to_string()).await;
        // Whoever reads past the end of the broken request finds another one.
        wire.say(&[request, b"GET /health HTTP/1.1\r\nHost: smuggled\r\n\r\n".to_vec()].concat()).await;
        let (heard, closed) = wire.hear().await;
        assert!(closed, "{what}: the connection stays open");
        let statuses = statuses(&heard);
        assert!(statuses.len() <= 1, "{what}: {statuses:?}");
        assert!(statuses.iter().all(|status| (400..500).contains(status)), "{what}: {statuses:?}");
        if what.starts_with("200 header") || what.starts_with("a long field") {
            assert_eq!(statuses, [431], "{what}");
        }
    }
    let (_, list) = server.get(KEY_A, "/notifications").await;
    assert_eq!(list["data"], json!([]), "nothing of it was taken for a notification");
    assert_eq!(server.get(KEY_A, "/health").await.0, 200);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Opens streams and resets each at once, until the server has enough of it.
async fn reset_rapidly(address: String, streams: u32) {
    let mut wire = Wire::open(&address).await;
    let mut said = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat();
    // GET http://x/openapi.json
    let head = [&[0x82, 0x86, 0x41, 1, b'x', 0x44, 13][..], b"/openapi.json"].concat();
    for number in 0..streams {
        let stream = 2 * number + 1;
        said.extend(frame(1, 0x5, stream, &head));
        said.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
        if said.len() > 16 * 1024 && !wire.say(&std::mem::take(&mut said)).await {
            return;
        }
    }
    wire.say(&said).await;
}

/// Breaks off in the middle of a request, or of the answer.
async fn break_off(address: String, number: usize) {
    let mut wire = Wire::open(&address).await;
    let request = match number % 3 {
        0 => post(LOG),
        1 => post(LOG).replacen("Host:", "Prefer: wait=20\r\nHost:", 1).replace("\"log\"", "\"nowhere\""),
        _ => "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20),
    };
    let end = if number.is_multiple_of(2) { request.len() } else { number * 7 % request.len() };
    wire.say(&request.as_bytes()[..end]).await;
    if number.is_multiple_of(5) {
        wire.hear_until("HTTP", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_storm_of_broken_clients_the_server_is_as_fast_and_as_small_as_before() {
    let directory = TempDir::new().unwrap();
    let world = World::new();
    world.write(&directory.path().join("config"));
    let process = Process::start(&directory, &world);
    let before = latency(&process.url).await;
    let resident = process.resident();
    let mut storm = JoinSet::new();
    for number in 0..300 {
        storm.spawn(break_off(process.address(), number));
    }
    for _ in 0..8 {
        storm.spawn(reset_rapidly(process.address(), 5_000));
    }
    for (_, request) in broken() {
        let address = process.address();
        storm.spawn(async move {
            for _ in 0..5 {
                Wire::open(&address).await.say(&request).await;
            }
        });
    }
    for _ in 0..8 {
        let address = process.address();
        storm.spawn(async move {
            // A body of chunks without end.
            let mut wire = Wire::open(&address).await;
            let head = post("").replacen("Content-Length: 0", "Transfer-Encoding: chunked", 1);
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(64 * 1024));
            let mut goes_on = wire.say(head.as_bytes()).await;
            for _ in 0..1_000 {
                goes_on = goes_on && wire.say(chunk.as_bytes()).await;
            }
            assert!(!goes_on, "a body of 64 MiB was read to its end");
        });
    }
    let all = tokio::time::timeout(DEADLINE * 3, async {
        while let Some(ended) = storm.join_next().await {
            ended.unwrap();
        }
    });
    all.await.expect("the storm ends");
    expect_as_fast(before, latency(&process.url).await);
    let grown = process.resident().saturating_sub(resident);
    assert!(grown < GROWTH_MAX, "{resident} KiB before, {grown} KiB more after");
}

/// Raises the number of files that this process may have open. Gives how many idle connections that allows, of those
/// that are wanted, on both sides: the server's own limit is as high, and it keeps a part for itself.
fn idle_connections() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let most = getrlimit(Resource::Nofile).current.map_or(IDLE, |most| usize::try_from(most).unwrap_or(IDLE));
    let possible = IDLE.min(most.saturating_sub(1_024 + 200));
    if possible < IDLE {
        skipped(&format!("with {most} open files, {possible} idle connections are tried, not {IDLE}"));
    }
    possible
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_slow_nobody_down() {
    let possible = idle_connections();
    let directory = TempDir::new().unwrap();
    let world = World::new();
    world.write(&directory.path().join("config"));
    let process = Process::start(&directory, &world);
    let before = latency(&process.url).await;
    let resident = process.resident();
    let mut idle = Vec::new();
    for number in 0..possible {
        let mut wire = Wire::open(&process.address()).await;
        if number % 2 == 0 {
            assert!(wire.say(b"GET /health HTTP/1.1\r\nHost: x\r\n").await);
        }
        idle.push(wire);
    }
    expect_as_fast(before, latency(&process.url).await);
    let grown = process.resident().saturating_sub(resident);
    assert!(grown < IDLE_GROWTH_MAX, "{resident} KiB before, {grown} KiB more with {possible} connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_descriptors_idle_clients_make_room_for_those_who_ask() {
    let directory = TempDir::new().unwrap();
    let world = World::new();
    world.write(&directory.path().join("config"));
    let process = Process::start_after("ulimit -n 64", &directory, &world);
    let before = latency(&process.url).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(Wire::open(&process.address()).await);
    }
    let start = Instant::now();
    let sent = http()
        .post(format!("{}/notifications", process.url))
        .bearer_auth(KEY_A)
        .json(&json!({ "channel": "log", "message": "x" }));
    let (status, accepted) =
        tokio::time::timeout(DEADLINE * 2, answer(sent.header("prefer", "wait=10"))).await.expect("an answer");
    assert_eq!(status, 200, "accepted, sent and read back: {accepted}");
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    drop(idle);
    let gone = latency(&process.url).await;
    expect_as_fast(before, gone);
}
