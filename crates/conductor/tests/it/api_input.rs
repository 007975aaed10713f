//! Whatever comes in, a clear answer goes out, and the server goes on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, Reply, reply};
use crate::support::server::{KEY_A, TestServer, World};

async fn raw(client: &Client, body: impl Into<Vec<u8>>) -> Reply {
    let request = client.request(Method::POST, "/notifications");
    reply(request.header("content-type", "application/json").body(body.into())).await
}

#[tokio::test]
async fn what_is_no_json_gets_its_place() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let refused = raw(&client, "{\n  \"channel\": \"log\",\n  \"message\": oops\n}").await;
    let problem = refused.problem(400);
    assert_eq!(problem["type"], "/docs#problem-malformed-json");
    assert_eq!((&problem["line"], &problem["column"]), (&json!(3), &json!(14)));
    let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
    let deep_field = [br#"{"channel":"log","message":"m","data":"#.to_vec(), b"{\"a\":".repeat(10_000)].concat();
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"   ".to_vec(),
        b"{".to_vec(),
        b"{\"channel\":\"log\",\"message\":\"\xff\xfe\"}".to_vec(),
        b"\x00\x01\x02".to_vec(),
        b"channel=log&message=m".to_vec(),
        b"{\"channel\":\"log\",\"message\":\"m\"}garbage".to_vec(),
        b"{\"channel\":\"log\",\"message\":\"a\nb\"}".to_vec(),
        b"{\"channel\":\"log\",\"message\":\"\\ud800\"}".to_vec(),
        deep,
        deep_field,
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let problem = raw(&client, body).await.problem(400);
        assert_eq!(problem["type"], "/docs#problem-malformed-json", "{shown}");
    }
    for body in ["[]", "\"text\"", "5", "null", "true"] {
        assert_eq!(raw(&client, body).await.problem(400)["details"][0]["field"], "body", "{body}");
    }
}

#[tokio::test]
async fn every_wrong_field_is_told_at_once() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "chanel": "log", "message": "", "priority": "urgent", "targetId": 5, "title": "a\u{0}b",
        "format": "html",
        "data": [], "sendAt": "tomorrow", "expiresAt": "2020-01-01T00:00:00Z", "metadata": { "a": 1 }, "key": "",
        "fallback": [{ "channel": "nowhere" }, 7, { "chanel": "log" }], "channelId": "x" });
    let refused = client.post("/notifications", &body).await;
    let problem = refused.problem(400);
    let mut fields = refused.fields();
    fields.sort_unstable();
    let expected = [
        "chanel",
        "channelId",
        "data",
        "expiresAt",
        "fallback.0.channel",
        "fallback.1",
        "fallback.2.chanel",
        "fallback.2.channel",
        "format",
        "key",
        "message",
        "metadata.a",
        "priority",
        "sendAt",
        "targetId",
        "title",
    ];
    assert_eq!(fields, expected, "{problem:#}");
    let told = problem["details"].to_string();
    for part in ["did you mean \\\"channel\\\"?", "allowed: low, normal, high", "allowed: text, markdown", "RFC 3339"] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
}

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({ "channel": "log", "message": "m" });
    body[field] = value;
    body
}

#[tokio::test]
async fn an_unknown_channel_gets_the_list_of_what_is_allowed() {
    let server = World::new().webhook(crate::support::server::TENANT_A, "hook", "https://example.invalid/", &json!({}));
    let server = server.start().await;
    let client = Client::new(&server, Some(KEY_A));
    for (channel, help) in [("discord", "allowed: log, webhook"), ("webhok", "did you mean \"webhook\"?")] {
        let refused = client.post("/notifications", &with("channel", channel.into())).await.problem(400);
        assert_eq!(refused["details"][0]["field"], "channel");
        let message = refused["details"][0]["message"].as_str().unwrap();
        assert!(message.contains(help), "{message}");
        assert!(refused["error"].as_str().unwrap().contains(help));
    }
    let missing = client.post("/notifications", &json!({ "message": "m" })).await;
    missing.problem(400);
    assert_eq!(missing.fields(), ["channel"]);
    let hook = client.get("/channels").await.expect(200)["data"][1]["channelId"].clone();
    let parted = client.post("/notifications", &with("channelId", hook.clone())).await;
    parted.problem(400);
    assert_eq!(parted.fields(), ["channelId"]);
    client.send(&json!({ "channelId": hook, "message": "m" })).await;
}

#[tokio::test]
async fn limits_are_kept_to_the_byte() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    for (field, max) in [("message", 65_536), ("title", 1024), ("targetId", 1024), ("key", 255)] {
        client.post("/notifications", &with(field, "x".repeat(max).into())).await.expect(202);
        let refused = client.post("/notifications", &with(field, "x".repeat(max + 1).into())).await;
        refused.problem(400);
        assert_eq!(refused.fields(), [field]);
    }
    let whole = |size: usize| {
        let frame = r#"{"channel":"log","message":"m"}"#;
        format!("{frame}{}", " ".repeat(size - frame.len()))
    };
    raw(&client, whole(256 * 1024)).await.expect(202);
    assert_eq!(raw(&client, whole(256 * 1024 + 1)).await.problem(413)["type"], "/docs#problem-too-large");
    raw(&client, whole(10 * 1024 * 1024)).await.problem(413);
    let frames = (0..160).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b' '; 65_536]))));
    let chunked = reqwest::Body::wrap(StreamBody::new(futures_util::stream::iter(frames)));
    let request = client.request(Method::POST, "/notifications").header("content-type", "application/json");
    reply(request.body(chunked)).await.problem(413);
}

#[tokio::test]
async fn only_json_is_taken() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = r#"{"channel":"log","message":"m"}"#;
    let send = |media: Option<&'static str>| {
        let request = client.request(Method::POST, "/notifications").body(body);
        reply(match media {
            Some(media) => request.header("content-type", media),
            None => request,
        })
    };
    for media in ["application/json", "application/json;charset=UTF-8", "application/problem+json"] {
        send(Some(media)).await.expect(202);
    }
    for media in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("nonsense")] {
        send(media).await.problem(415);
    }
}

#[tokio::test]
async fn unknown_places_and_methods_are_told() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    for path in ["/nowhere", "/notifications/", "/%ff%00", "/../etc/passwd", "/notifications/a/b/c"] {
        client.get(path).await.problem(404);
    }
    let refused = reply(client.request(Method::DELETE, "/notifications")).await;
    refused.problem(405);
    let allow = refused.header("allow").unwrap_or_default();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    let odd = Method::from_bytes(b"BREW").unwrap();
    reply(client.request(odd, "/health")).await.problem(405);
}

/// Sends bytes as they are and reads what comes back until the connection ends.
async fn bytes(server: &TestServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
    // The server may have refused before everything is written.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn heads_without_end_and_nonsense_are_refused_and_cost_nothing() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let many: String = (0..5_000).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "y".repeat(200_000));
    for head in [&many, &long] {
        let answer = bytes(&server, format!("GET /health HTTP/1.1\r\nHost: h\r\n{head}\r\n").as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    for nonsense in ["nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        let answer = bytes(&server, nonsense.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let broken = "POST /notifications HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 99\r\n";
    let broken = format!("{broken}Authorization: {KEY_A}\r\n\r\n{{\"channel\"");
    let answer = bytes(&server, broken.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let start = Instant::now();
    client.get("/health").await.expect(200);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(client.get("/notifications").await.expect(200)["data"], json!([]));
}
