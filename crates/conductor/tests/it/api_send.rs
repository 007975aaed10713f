//! `POST /notifications` and what is read back.

use http::Method;
use serde_json::json;

use crate::support::client::{Client, reply};
use crate::support::provider::{Answer, Provider};
use crate::support::server::{KEY_A, TENANT_A, World};

/// The members of an object in the order in which they are written.
fn members(body: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(body).expect("UTF-8");
    let (mut names, mut depth, mut quoted, mut word) = (Vec::new(), 0, false, String::new());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quoted => {
                letters.next();
            }
            '"' => {
                quoted = !quoted;
                if quoted {
                    word.clear();
                } else if depth == 1 && letters.peek() == Some(&':') {
                    names.push(word.clone());
                }
            }
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            other => word.push(other),
        }
    }
    names
}

#[tokio::test]
async fn the_originals_request_gets_the_originals_answer() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "log", "message": "Test notification", "priority": "high" });
    let answer = client.post("/notifications", &body).await;
    let accepted = answer.expect(202);
    let expected = [
        "success",
        "id",
        "tenantId",
        "tenantName",
        "channel",
        "channelId",
        "message",
        "priority",
        "timestamp",
        "status",
    ];
    assert_eq!(members(&answer.body), expected);
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(id.parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
    assert_eq!(answer.header("location"), Some(format!("/notifications/{id}").as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let timestamp = accepted["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    let channel = &client.get("/channels").await.expect(200)["data"][0]["channelId"];
    let expected = json!({ "success": true, "id": id, "tenantId": TENANT_A, "tenantName": "Tenant A", "channel": "log",
        "channelId": channel, "message": "Test notification", "priority": "high", "timestamp": timestamp,
        "status": "queued" });
    assert_eq!(accepted, expected);
}

#[tokio::test]
async fn a_notification_reads_back_as_the_contract_shows_it() {
    let provider = Provider::start().await;
    provider.next(Answer::status(429).header("retry-after", "1"));
    let server = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({})).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let id = client.send(&json!({ "channel": "webhook", "message": "slow down", "priority": "high" })).await;
    client.until(&id, "sent").await;
    let answer = client.get(&format!("/notifications/{id}")).await;
    let expected = [
        "id",
        "tenantId",
        "channel",
        "channelId",
        "targetId",
        "message",
        "title",
        "priority",
        "metadata",
        "timestamp",
        "status",
        "expiresAt",
        "deliveries",
    ];
    assert_eq!(members(&answer.body), expected);
    let story = answer.expect(200);
    assert_eq!((&story["targetId"], &story["title"], &story["metadata"]), (&json!(null), &json!(null), &json!({})));
    let delivery = &story["deliveries"][0];
    let names = members(delivery.to_string().as_bytes()).len();
    assert_eq!(names, 8, "{delivery}");
    assert_eq!(delivery["dueAt"], json!(null));
    let limited = &delivery["attempts"][0];
    assert_eq!((&limited["number"], &limited["outcome"]), (&json!(1), &json!("rateLimited")), "{limited}");
    assert_eq!((&limited["code"], &limited["retryAfterMs"]), (&json!("429"), &json!(1000)));
    assert!(limited["durationMs"].is_u64() && limited["at"].is_string());
    let sent = &delivery["attempts"][1];
    assert_eq!((&sent["number"], &sent["outcome"]), (&json!(2), &json!("sent")), "{sent}");
    assert!(sent.get("retryAfterMs").is_none());
}

#[tokio::test]
async fn every_field_is_kept() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let channel = client.get("/channels").await.expect(200)["data"][0]["channelId"].clone();
    let body = json!({ "channel": "log", "channelId": channel, "message": "späť 🎉", "priority": "low",
        "targetId": "room",
        "title": "Title", "format": "markdown", "data": { "a": [1, 2.5, null] },
            "sendAt": "2998-01-01T00:00:00.500+01:00",
        "expiresAt": "2999-01-01T00:00:00Z", "metadata": { "room": "kitchen" }, "key": "door",
        "fallback": [{ "channel": "log", "targetId": "other" }] });
    let accepted = client.post("/notifications", &body).await.expect(202);
    assert_eq!(accepted["status"], "scheduled");
    let story = client.get(&format!("/notifications/{}", accepted["id"].as_str().unwrap())).await.expect(200);
    for same in
        ["channel", "channelId", "message", "priority", "targetId", "title", "format", "data", "metadata", "key"]
    {
        assert_eq!(story[same], body[same], "{same}");
    }
    assert_eq!(story["sendAt"], "2997-12-31T23:00:00.500Z");
    assert_eq!(story["expiresAt"], "2999-01-01T00:00:00.000Z");
    assert_eq!(story["fallback"], json!([{ "channel": "log", "channelId": channel, "targetId": "other" }]));
    assert_eq!(story["deliveries"][0]["dueAt"], story["sendAt"]);
}

#[tokio::test]
async fn null_means_left_out() {
    let server = World::new().start().await;
    let body = json!({ "channel": "log", "message": "m", "targetId": null, "title": null, "data": null,
        "metadata": null,
        "fallback": null, "sendAt": null, "priority": null });
    let accepted = Client::new(&server, Some(KEY_A)).post("/notifications", &body).await.expect(202);
    assert_eq!(accepted["priority"], "normal");
}

#[tokio::test]
async fn a_newer_one_with_the_same_key_takes_its_place() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = |message| json!({ "channel": "log", "message": message, "key": "k", "sendAt": "2999-01-01T00:00:00Z" });
    let first = client.send(&body("one")).await;
    let second = client.send(&body("two")).await;
    client.until(&first, "superseded").await;
    client.until(&second, "scheduled").await;
}

#[tokio::test]
async fn an_expiry_is_the_channels_where_none_is_given() {
    let provider = Provider::start().await;
    let server =
        World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({ "expiresAfter": "1h" })).start().await;
    let client = Client::new(&server, Some(KEY_A));
    let body = json!({ "channel": "webhook", "message": "m", "sendAt": "2999-01-01T00:00:00Z" });
    let id = client.send(&body).await;
    let story = client.get(&format!("/notifications/{id}")).await.expect(200);
    assert_eq!(story["expiresAt"], "2999-01-01T01:00:00.000Z");
}

#[tokio::test]
async fn every_answer_names_its_request_and_says_how_to_treat_it() {
    let server = World::new().start().await;
    let client = Client::new(&server, Some(KEY_A));
    for path in ["/health", "/nowhere", "/channels", "/docs", "/openapi.json", "/metrics"] {
        let answer = client.get(path).await;
        assert!(answer.header("x-request-id").is_some_and(|id| id.parse::<uuid::Uuid>().is_ok()), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(answer.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
        assert!(answer.header("cache-control").is_some());
    }
    let named = reply(client.request(Method::GET, "/health").header("x-request-id", "mine-1")).await;
    assert_eq!(named.header("x-request-id"), Some("mine-1"));
}

#[tokio::test]
async fn the_server_says_what_it_is_and_whether_it_works() {
    let server = World::new().start().await;
    let client = Client::new(&server, None);
    let welcome = client.get("/").await.expect(200);
    assert_eq!((&welcome["name"], &welcome["docs"]), (&json!("conductor"), &json!("/docs")));
    for path in ["/health", "/livez", "/readyz"] {
        let health = client.get(path).await.expect(200);
        assert_eq!(health["status"], "ok", "{path}");
        assert!(health["timestamp"].is_string());
    }
    let head = reply(client.request(Method::HEAD, "/health")).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
}
