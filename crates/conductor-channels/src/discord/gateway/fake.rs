//! A Discord of one's own on loopback: the gateway and as much of the API as a bot asks for. What it says is true as far
//! as foreign clients (twilight-gateway, discord.py, discord.js) take it for Discord's.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_websockets::{CloseCode, Message, ServerBuilder, WebSocketStream};

/// What the gateway does with one connection. Each connection takes the next one; the last one counts for all others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// How many heartbeats are answered; none means all.
    pub(crate) acks: Option<u32>,
    /// What it does a moment after READY or RESUMED.
    pub(crate) then: Then,
    /// What it answers to RESUME.
    pub(crate) resume: OnResume,
    /// Closes so instead of READY.
    pub(crate) refuse: Option<(u16, &'static str)>,
    /// Answers the request for the WebSocket with this status.
    pub(crate) status: Option<u16>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Then {
    #[default]
    Stay,
    /// Op 7.
    Reconnect,
    /// Op 1: asks for a heartbeat.
    Ask,
    /// Op 9.
    Invalid(bool),
    Close(u16),
    /// Breaks the connection off.
    Drop,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OnResume {
    #[default]
    Resumed,
    Invalid,
}

/// What was seen, in its order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    /// A request of the API: method, path with query, and body.
    Asked(String, String, Value),
    /// A WebSocket: its path with query.
    Opened(String),
    Identify(Value),
    Resume(Value),
    Heartbeat(Value),
    /// The client closed, with a code or without.
    Closed(Option<u16>),
}

#[derive(Debug)]
struct State {
    token: String,
    /// Milliseconds.
    beat: u64,
    remaining: u64,
    /// Milliseconds.
    reset_after: u64,
    /// What `GET /gateway/bot` answers; none means well.
    gateway_status: Option<u16>,
    scripts: VecDeque<Script>,
    seen: Vec<Seen>,
    messages: u64,
    /// The messages that were made, by their nonce.
    nonces: HashMap<String, u64>,
    /// So many answers to messages get lost on their way.
    lost_answers: u32,
    live: usize,
}

/// The server. It goes when it is dropped.
#[derive(Clone)]
pub(crate) struct FakeDiscord {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _server: Arc<JoinSet<()>>,
}

impl FakeDiscord {
    /// Knows one bot. `beat` is the time between its heartbeats.
    pub(crate) async fn start(token: &str, beat: Duration) -> Self {
        Self::start_at("127.0.0.1:0", token, beat).await
    }

    pub(crate) async fn start_at(address: &str, token: &str, beat: Duration) -> Self {
        let listener = TcpListener::bind(address).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State {
            token: token.to_owned(),
            beat: u64::try_from(beat.as_millis()).expect("a short time"),
            remaining: 1000,
            reset_after: 3_600_000,
            nonces: HashMap::new(),
            lost_answers: 0,
            gateway_status: None,
            scripts: VecDeque::from([Script::default()]),
            seen: Vec::new(),
            messages: 0,
            live: 0,
        }));
        let mut server = JoinSet::new();
        server.spawn(accept(listener, address, Arc::clone(&state)));
        Self { address, state, _server: Arc::new(server) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn gateway_url(&self) -> String {
        format!("ws://{}/gateway", self.address)
    }

    /// The next connections go so, one after the other; the last script counts for all that follow.
    pub(crate) fn plays(&self, scripts: impl IntoIterator<Item = Script>) -> &Self {
        self.state().scripts = scripts.into_iter().collect();
        self
    }

    pub(crate) fn answers_gateway(&self, status: Option<u16>) -> &Self {
        self.state().gateway_status = status;
        self
    }

    pub(crate) fn leaves_sessions(&self, remaining: u64) -> &Self {
        self.state().remaining = remaining;
        self
    }

    pub(crate) fn remaining_sessions(&self) -> u64 {
        self.state().remaining
    }

    /// A day's sessions are there again after this.
    pub(crate) fn resets_in(&self, time: Duration) -> &Self {
        self.state().reset_after = u64::try_from(time.as_millis()).expect("a short time");
        self
    }

    /// The next messages are made, and nobody hears of it.
    pub(crate) fn loses_answers(&self, count: u32) -> &Self {
        self.state().lost_answers = count;
        self
    }

    /// How many messages there are.
    pub(crate) fn messages(&self) -> u64 {
        self.state().messages
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    pub(crate) fn count(&self, which: impl Fn(&Seen) -> bool) -> usize {
        self.state().seen.iter().filter(|seen| which(seen)).count()
    }

    pub(crate) fn identifies(&self) -> usize {
        self.count(|seen| matches!(seen, Seen::Identify(_)))
    }

    pub(crate) fn resumes(&self) -> usize {
        self.count(|seen| matches!(seen, Seen::Resume(_)))
    }

    /// How many WebSockets are open now.
    pub(crate) fn live(&self) -> usize {
        self.state().live
    }

    /// Waits until this is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = std::time::Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}: {:?}", self.seen());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn accept(listener: TcpListener, address: SocketAddr, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = hyper::service::service_fn(|request| answer(request, address, Arc::clone(&state)));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that goes away in the middle is a part of the tests.
            let _gone = connection.with_upgrades().await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(
    mut request: Request<Incoming>,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
) -> Result<Answer, Infallible> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    if request.headers().contains_key(SEC_WEBSOCKET_KEY) {
        return Ok(open(&mut request, &target, state));
    }
    let method = request.method().to_string();
    let token = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_lost = method == "POST" && {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lost = state.lost_answers > 0;
        state.lost_answers = state.lost_answers.saturating_sub(1);
        is_lost
    };
    let answer = answered(&method, &target, &body, token, address, &state);
    if is_lost { std::future::pending().await } else { Ok(answer) }
}

fn answered(
    method: &str,
    target: &str,
    body: &Value,
    token: Option<String>,
    address: SocketAddr,
    state: &Mutex<State>,
) -> Answer {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.seen.push(Seen::Asked(method.to_owned(), target.to_owned(), body.clone()));
    let known = token.is_some_and(|token| token == format!("Bot {}", state.token));
    if !known && !target.contains("/webhooks/") {
        return json(401, &json!({ "message": "401: Unauthorized", "code": 0 }));
    }
    let path = target.split('?').next().unwrap_or_default();
    match (method, path.trim_start_matches("/api/v10")) {
        ("GET", "/gateway/bot") => gateway(&state, address),
        ("GET", "/users/@me") => json(200, &user()),
        ("GET", "/oauth2/applications/@me" | "/applications/@me") => json(200, &application()),
        ("POST", path) if path.ends_with("/messages") => made(&mut state, path, body),
        _ => json(404, &json!({ "message": "404: Not Found", "code": 0 })),
    }
}

fn json(status: u16, body: &Value) -> Answer {
    let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    answer.body(Full::new(Bytes::from(body.to_string()))).expect("a good answer")
}

fn gateway(state: &State, address: SocketAddr) -> Answer {
    if let Some(status) = state.gateway_status {
        return json(status, &json!({ "message": format!("{status}: scripted"), "code": 0 }));
    }
    json(
        200,
        &json!({
            "url": format!("ws://{address}/gateway"),
            "shards": 1,
            "session_start_limit": {
                "total": 1000, "remaining": state.remaining, "reset_after": state.reset_after, "max_concurrency": 1,
            },
        }),
    )
}

fn user() -> Value {
    json!({
        "id": "1187654321098765400", "username": "conductor", "global_name": null, "discriminator": "0000",
        "avatar": null, "bot": true, "verified": true, "mfa_enabled": false, "flags": 0, "email": null,
        "locale": "en-US", "banner": null, "accent_color": null, "public_flags": 0,
    })
}

fn application() -> Value {
    json!({
        "id": "1187654321098765400", "name": "conductor", "icon": null, "description": "", "bot_public": false,
        "bot_require_code_grant": false, "verify_key": "00", "flags": 0, "team": null, "summary": "",
        "owner": user(), "rpc_origins": [], "hook": true,
    })
}

fn made(state: &mut State, path: &str, body: &Value) -> Answer {
    // A nonce that has to be the only one of its kind names the message that there is already.
    let nonce = body["nonce"].as_str().filter(|_| body["enforce_nonce"] == true).map(str::to_owned);
    let known = nonce.as_ref().and_then(|nonce| state.nonces.get(nonce).copied());
    let number = known.unwrap_or(state.messages + 1);
    state.messages = state.messages.max(number);
    state.nonces.extend(nonce.map(|nonce| (nonce, number)));
    let channel = path.split('/').nth(2).unwrap_or_default();
    json(
        200,
        &json!({
            "id": (1_187_654_321_098_766_000 + number).to_string(), "channel_id": channel,
            "content": body["content"], "author": user(), "timestamp": "2024-01-15T10:30:00.000000+00:00",
            "edited_timestamp": null, "tts": false, "mention_everyone": false, "mentions": [], "mention_roles": [],
            "attachments": [], "embeds": [], "pinned": false, "type": 0, "flags": 0, "components": [],
            "nonce": body["nonce"],
        }),
    )
}

/// Becomes a WebSocket.
fn open(request: &mut Request<Incoming>, target: &str, state: Arc<Mutex<State>>) -> Answer {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| key.as_bytes().to_vec()).unwrap_or_default();
    let script = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen.push(Seen::Opened(target.to_owned()));
        let last = state.scripts.front().cloned().unwrap_or_default();
        if state.scripts.len() > 1 { state.scripts.pop_front().unwrap_or_default() } else { last }
    };
    if let Some(status) = script.status {
        return json(status, &json!({ "message": "scripted" }));
    }
    let accepted = [&key[..], b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let accepted = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &accepted));
    let origin = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let upgrade = hyper::upgrade::on(request);
    #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = ServerBuilder::new().serve(TokioIo::new(upgraded));
        state.lock().unwrap_or_else(PoisonError::into_inner).live += 1;
        let mut connection = Connection { socket, script, state: Arc::clone(&state), origin, sequence: 0 };
        // A client that goes away in the middle is a part of the tests.
        let _gone = connection.serve().await;
        state.lock().unwrap_or_else(PoisonError::into_inner).live -= 1;
    });
    let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let answer = answer.header(CONNECTION, "Upgrade").header(UPGRADE, "websocket");
    answer.header(SEC_WEBSOCKET_ACCEPT, accepted).body(Full::default()).expect("a good answer")
}

struct Connection {
    socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    script: Script,
    state: Arc<Mutex<State>>,
    origin: String,
    sequence: u64,
}

impl Connection {
    /// None: the connection is over.
    async fn serve(&mut self) -> Option<()> {
        let beat = self.see(None).beat;
        self.say(&json!({ "op": 10, "d": { "heartbeat_interval": beat }, "s": null, "t": null })).await?;
        loop {
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                _ => {
                    drop(self.see(Some(Seen::Closed(None))));
                    return None;
                }
            };
            if let Some((code, _)) = message.as_close() {
                drop(self.see(Some(Seen::Closed(Some(code.into())))));
                return None;
            }
            let Some(frame) = message.as_text() else { continue };
            let frame: Value = serde_json::from_str(frame).ok()?;
            match frame["op"].as_u64() {
                Some(1) => self.beat(&frame["d"]).await?,
                Some(2) => self.identify(&frame["d"]).await?,
                Some(6) => self.resume(&frame["d"]).await?,
                Some(3) => {}
                _ => return self.close(4001, "Unknown opcode.").await,
            }
        }
    }

    fn see(&self, seen: Option<Seen>) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen.extend(seen);
        state
    }

    async fn beat(&mut self, sequence: &Value) -> Option<()> {
        drop(self.see(Some(Seen::Heartbeat(sequence.clone()))));
        match &mut self.script.acks {
            Some(0) => return Some(()),
            Some(left) => *left -= 1,
            None => {}
        }
        self.say(&json!({ "op": 11, "d": null, "s": null, "t": null })).await
    }

    async fn identify(&mut self, asked: &Value) -> Option<()> {
        let known = {
            let mut state = self.see(Some(Seen::Identify(asked.clone())));
            state.remaining = state.remaining.saturating_sub(1);
            asked["token"].as_str().map(|token| token.trim_start_matches("Bot ")) == Some(state.token.as_str())
        };
        if let Some((code, words)) = self.script.refuse {
            return self.close(code, words).await;
        }
        if !known {
            return self.close(4004, "Authentication failed.").await;
        }
        let ready = json!({
            "v": 10, "user": user(), "guilds": [], "session_id": "a-session", "session_type": "normal",
            "resume_gateway_url": format!("ws://{}/resume", self.origin), "shard": [0, 1],
            "application": { "id": "1187654321098765400", "flags": 0 }, "private_channels": [], "relationships": [],
            "user_settings": {}, "presences": [], "guild_join_requests": [], "_trace": ["[]"],
        });
        self.dispatch("READY", &ready).await?;
        self.then().await
    }

    async fn resume(&mut self, asked: &Value) -> Option<()> {
        drop(self.see(Some(Seen::Resume(asked.clone()))));
        if let Some((code, words)) = self.script.refuse {
            return self.close(code, words).await;
        }
        if self.script.resume == OnResume::Invalid {
            return self.say(&json!({ "op": 9, "d": false, "s": null, "t": null })).await;
        }
        self.sequence = asked["seq"].as_u64().unwrap_or(0);
        self.dispatch("RESUMED", &json!({ "_trace": ["[]"] })).await?;
        self.then().await
    }

    async fn then(&mut self) -> Option<()> {
        match self.script.then {
            Then::Stay => Some(()),
            Then::Reconnect => self.say(&json!({ "op": 7, "d": null, "s": null, "t": null })).await,
            Then::Ask => self.say(&json!({ "op": 1, "d": null, "s": null, "t": null })).await,
            Then::Invalid(resumable) => self.say(&json!({ "op": 9, "d": resumable, "s": null, "t": null })).await,
            Then::Close(code) => self.close(code, "scripted").await,
            Then::Drop => None,
        }
    }

    async fn dispatch(&mut self, name: &str, data: &Value) -> Option<()> {
        self.sequence += 1;
        self.say(&json!({ "op": 0, "t": name, "s": self.sequence, "d": data })).await
    }

    async fn say(&mut self, frame: &Value) -> Option<()> {
        self.socket.send(Message::text(frame.to_string())).await.ok()
    }

    async fn close(&mut self, code: u16, words: &str) -> Option<()> {
        let code = CloseCode::try_from(code).ok()?;
        self.socket.send(Message::close(Some(code), words)).await.ok()?;
        // The other side's goodbye, so that nothing that was said is lost.
        while let Some(Ok(_)) = self.socket.next().await {}
        None
    }
}
