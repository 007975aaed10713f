//! A real homeserver: Synapse, whose room is read back. `CONDUCTOR_SYNAPSE` names a Python that has it; else it is
//! looked for in `target/synapse`, where the gate puts it.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::*;
use crate::contract::{context, left_out, loopback};
use crate::http::HttpClients;

/// Starting it takes seconds, and longer on a busy machine.
const START: Duration = Duration::from_secs(90);

struct Synapse {
    url: Url,
    child: Child,
    _folder: TempDir,
}

impl Drop for Synapse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says so in the environment")]
fn python() -> Option<PathBuf> {
    let built = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/synapse/bin/python");
    let python = std::env::var_os("CONDUCTOR_SYNAPSE").map_or_else(built, PathBuf::from);
    let has = Command::new(&python).args(["-c", "import synapse"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        left_out(&format!("Synapse was not tried: {} has no module synapse (CONTRIBUTING.md)", python.display()));
        return None;
    }
    Some(python)
}

/// Everything that it needs, and nothing that leaves this machine.
fn settings(folder: &str, port: u16) -> Value {
    json!({
        "server_name": "test.local",
        "listeners": [{
            "bind_addresses": ["127.0.0.1"], "port": port, "type": "http", "tls": false,
            "resources": [{ "names": ["client"], "compress": false }],
        }],
        "database": { "name": "sqlite3", "args": { "database": format!("{folder}/homeserver.db") } },
        "signing_key_path": format!("{folder}/signing.key"),
        "media_store_path": format!("{folder}/media"),
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "federation_domain_whitelist": [],
        "report_stats": false,
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "macaroon_secret_key": "of this test",
        "form_secret": "of this test",
        "rc_registration": { "per_second": 100, "burst_count": 100 },
        "rc_message": { "per_second": 0.5, "burst_count": 12 },
    })
}

impl Synapse {
    /// None where it cannot be had here, which is said.
    async fn start() -> Option<Self> {
        let python = python()?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.path().join("homeserver.yaml");
        std::fs::write(&config, settings(path, port).to_string()).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let command = || {
            let mut command = Command::new(&python);
            command.args(["-m", "synapse.app.homeserver", "-c"]).arg(&config).current_dir(path);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone().unwrap());
            command
        };
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        assert!(command().arg("--generate-keys").status().unwrap().success(), "{}", log());
        let mut child = command().spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < START, "{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let url = format!("http://127.0.0.1:{port}").parse().unwrap();
        Some(Self { url, child, _folder: folder })
    }

    /// What it answers to a request of another client.
    async fn ask(&self, token: &str, method: Method, segments: &[&str], body: Value) -> Value {
        let mut url = below(&self.url, "/_matrix/client/v3");
        url.path_segments_mut().unwrap().extend(segments);
        let mut request = Request::new(method.clone(), url);
        if method != Method::GET {
            request = request.json(&body);
        }
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        let response = HttpClients::new().client(&loopback()).send(request).await.unwrap();
        assert!(response.status.is_success(), "{method} {segments:?}: {}", String::from_utf8_lossy(&response.body));
        response.json()
    }

    /// A new user's access token.
    async fn user(&self, name: &str) -> String {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": format!("{name}-pass"), "auth": auth });
        let user = self.ask("", Method::POST, &["register"], body).await;
        user["access_token"].as_str().unwrap().to_owned()
    }

    /// A room of which the bot is no member yet.
    async fn room(&self, owner: &str, more: Value) -> String {
        let mut body = json!({ "preset": "private_chat" });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let room = self.ask(owner, Method::POST, &["createRoom"], body).await;
        room["room_id"].as_str().unwrap().to_owned()
    }

    async fn channel(&self, token: &str, room: &str) -> Matrix {
        let url = self.url.as_str();
        let config = json!({ "homeserverUrl": url, "accessToken": token, "roomId": room });
        let context = ChannelContext { timeout: Duration::from_secs(30), ..context(&HttpClients::new(), None) };
        Matrix::initialize(serde_json::from_value(config).unwrap(), context).await.unwrap()
    }

    /// The messages of a room, the newest first, as another member reads them.
    async fn messages(&self, reader: &str, room: &str) -> Vec<Value> {
        let url = below(&self.url, "/_matrix/client/v3/rooms");
        let mut url = url;
        url.path_segments_mut().unwrap().extend([room, "messages"]);
        url.set_query(Some("dir=b&limit=100"));
        let request = Request::get(url).header(AUTHORIZATION, format!("Bearer {reader}").parse().unwrap());
        let response = HttpClients::new().client(&loopback()).send(request).await.unwrap();
        let events = response.json()["chunk"].as_array().cloned().expect("events");
        events.into_iter().filter(|event| event["type"] == "m.room.message").collect()
    }
}

fn numbered(number: u128, text: &str) -> Message {
    let notification = conductor_core::NotificationId::new(Uuid::from_u128(number));
    Message { notification, delivery: conductor_core::DeliveryId::derive(notification, 0), ..message(text) }
}

#[tokio::test]
async fn synapse_delivers_what_was_sent_and_a_repetition_once() {
    let Some(synapse) = Synapse::start().await else { return };
    let (alice, bot) = (synapse.user("alice").await, synapse.user("bot").await);
    let invited = json!({ "invite": ["@bot:test.local"], "room_alias_name": "alerts/é#1" });
    let room = synapse.room(&alice, invited).await;
    let channel = synapse.channel(&bot, "#alerts/é#1:test.local").await;
    assert_eq!(channel.health_check().await, Health::Up);

    let first =
        Message { format: Format::Markdown, title: Some("Pump".into()), ..numbered(1, "It is **off** 😀 @room") };
    let receipt = channel.send(&first).await.expect("the bot was invited, so it joins");
    let again = channel.send(&Message { attempt: 2, ..first.clone() }).await.unwrap();
    assert_eq!(receipt, again);
    // As after a restart: nothing is remembered here.
    let restarted = synapse.channel(&bot, &room).await;
    assert_eq!(receipt, restarted.send(&Message { attempt: 3, ..first.clone() }).await.unwrap());
    let messages = synapse.messages(&alice, &room).await;
    assert_eq!(messages.len(), 1, "{messages:#?}");
    assert_eq!(messages[0]["event_id"].as_str().map(str::to_owned), receipt.provider_id);
    assert_eq!(messages[0]["sender"], "@bot:test.local");
    assert_eq!(messages[0]["content"], channel.content(&first));

    let room_for_envelope = text::length(&channel.content(&numbered(2, "")));
    let longest = numbered(2, &"x".repeat(CONTENT_MAX - room_for_envelope));
    assert_eq!(channel.length(&longest), CONTENT_MAX);
    channel.send(&longest).await.expect("what the homeserver adds has its room");

    refusals(&synapse, &alice, &bot, &channel).await;
    limits(&channel).await;
}

async fn refusals(synapse: &Synapse, alice: &str, bot: &str, channel: &Matrix) {
    let private = synapse.room(alice, json!({})).await;
    for (target, kind, code) in [
        (private.as_str(), SendErrorKind::Permanent, "M_FORBIDDEN"),
        ("#nothing:test.local", SendErrorKind::Permanent, "M_NOT_FOUND"),
    ] {
        let sent = Message { target: Some(target.into()), ..message("hello") };
        let error = channel.send(&sent).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_deref()), (kind, Some(code)), "{error}");
    }
    let silent = json!({ "invite": ["@bot:test.local"], "power_level_content_override": { "events_default": 50 } });
    let silent = synapse.room(alice, silent).await;
    let error = synapse.channel(bot, &silent).await.send(&message("hello")).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_deref()), (SendErrorKind::Unauthorized, Some("M_FORBIDDEN")), "{error}");
    let stranger = synapse.channel("syt_wr0ng", &silent).await;
    let error = stranger.send(&message("hello")).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_deref()), (SendErrorKind::Unauthorized, Some("M_UNKNOWN_TOKEN")), "{error}");
    assert!(matches!(stranger.health_check().await, Health::Down { .. }));
}

async fn limits(channel: &Matrix) {
    for number in 0..50 {
        let Err(error) = channel.send(&numbered(100 + number, "again")).await else { continue };
        let wait = error.kind.retry_after().expect("it says how long");
        assert!(matches!(error.kind, SendErrorKind::RateLimited { .. }) && wait > Duration::ZERO, "{error}");
        return;
    }
    panic!("no limit came");
}
