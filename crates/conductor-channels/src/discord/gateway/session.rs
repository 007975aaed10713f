//! One connection to the gateway, from its greeting to its end.

use std::pin::pin;
use std::time::Duration;

use conductor_core::Health;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_websockets::{CloseCode, Message};
use url::Url;

use super::{Gateway, told_to};
use crate::http::{WebSocket, tidy};

/// The gateway greets, and takes a session up, within this time.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// No frame takes longer to write; the other side does not read then.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// What the gateway asks for is kept within these bounds.
const BEAT_MIN: Duration = Duration::from_millis(20);
const BEAT_MAX: Duration = Duration::from_secs(10 * 60);

/// Ends a connection and keeps its session: 1000 and 1001 would end that too.
const GOING_TO_RESUME: u16 = 4000;
const GOING: u16 = 1000;

const DISPATCH: u8 = 0;
const HEARTBEAT: u8 = 1;
const IDENTIFY: u8 = 2;
const RESUME: u8 = 6;
const RECONNECT: u8 = 7;
const INVALID_SESSION: u8 = 9;
const HELLO: u8 = 10;
const HEARTBEAT_ACK: u8 = 11;

/// A session that outlives its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    id: String,
    sequence: Option<u64>,
    /// Where it is taken up again.
    pub(super) address: Url,
    /// How often that has failed in a row.
    pub(super) tries: u32,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: String,
    pub(super) next: Next,
    /// How long the session was up; zero if it never was.
    pub(super) lived: Duration,
}

impl End {
    /// No session came about.
    pub(super) fn failed(reason: String, next: Next) -> Self {
        Self { reason, next, lived: Duration::ZERO }
    }
}

/// What follows.
#[derive(Debug)]
pub(super) enum Next {
    /// The session is taken up again.
    Resume(Box<Held>),
    /// A new one begins, not before this time.
    Identify { after: Duration },
    /// The token was refused: it is tried again, rarely.
    Mend { after: Duration },
    /// Nothing: only a person can mend it.
    Never,
    /// Nothing: it was to stop.
    Stop,
}

/// What a close code lets us do.
/// <https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    Resume,
    Identify,
    Never(&'static str),
}

impl Closed {
    /// None: the connection broke off without one.
    pub(super) fn of(code: Option<u16>) -> Self {
        match code {
            Some(4004) => Self::Never("the bot token is wrong or was reset: put in a new one"),
            Some(4010 | 4011) => Self::Never("the bot is in too many servers for one connection"),
            Some(4012) => Self::Never("this version of the gateway's protocol is spoken no more: update Conductor"),
            Some(4013 | 4014) => Self::Never("the bot may not connect with these intents"),
            Some(4007 | 4009) => Self::Identify,
            _ => Self::Resume,
        }
    }
}

#[derive(Deserialize)]
struct Frame {
    op: u8,
    #[serde(default)]
    d: Value,
    #[serde(default)]
    s: Option<u64>,
    #[serde(default)]
    t: Option<String>,
}

/// One connection's state.
pub(super) struct Session<'a> {
    gateway: &'a Gateway,
    held: Option<Held>,
    /// Whether the last heartbeat of our own was answered.
    acknowledged: bool,
    ready_at: Option<Instant>,
}

/// Why a step could not be done; what follows is decided at one place.
enum Broken {
    /// The gateway said so, with a code or without.
    Closed(Option<u16>, String),
    /// Something else, and the session may go on.
    Lost(String),
    /// The session is gone.
    Invalid(String),
    Stop,
}

impl<'a> Session<'a> {
    /// A new session, or one that is taken up again.
    pub(super) fn new(gateway: &'a Gateway, held: Option<Held>) -> Self {
        Self { gateway, held, acknowledged: true, ready_at: None }
    }

    /// Keeps the connection until it ends.
    pub(super) async fn run(mut self, mut socket: WebSocket, stop: &mut watch::Receiver<bool>) -> End {
        let broken = self.keep(&mut socket, stop).await;
        let code = match &broken {
            Broken::Closed(..) => None,
            Broken::Stop => Some(GOING),
            Broken::Lost(_) | Broken::Invalid(_) => Some(GOING_TO_RESUME),
        };
        if let Some(code) = code.and_then(|code| CloseCode::try_from(code).ok()) {
            // Whether it arrives makes no difference to this side.
            let _ = timeout(CLOSE_MAX, socket.send(Message::close(Some(code), ""))).await;
        }
        self.end(broken)
    }

    fn end(self, broken: Broken) -> End {
        let lived = self.ready_at.map_or(Duration::ZERO, |ready| ready.elapsed());
        let lived = if self.ready_at.is_some() { lived.max(Duration::from_nanos(1)) } else { lived };
        let anew = Next::Identify { after: Duration::ZERO };
        let tries = if self.ready_at.is_some() { 0 } else { 1 };
        let held = self.held.map(|held| Held { tries: held.tries + tries, ..held });
        let held = held.filter(|held| held.tries < super::RESUMES_MAX);
        let (reason, next) = match broken {
            Broken::Stop => (String::new(), Next::Stop),
            Broken::Lost(reason) => (reason, held.map_or(anew, |held| Next::Resume(Box::new(held)))),
            Broken::Invalid(reason) => {
                let after = self.gateway.pace.invalid.mul_f64(1.0 + 4.0 * fastrand::f64());
                (reason, Next::Identify { after })
            }
            Broken::Closed(code, words) => {
                let named = code.map_or_else(|| "without a code".to_owned(), |code| format!("with {code}"));
                let words = if words.is_empty() { words } else { format!(": {words}") };
                let reason = format!("Discord's gateway closed the connection {named}{words}");
                match Closed::of(code) {
                    Closed::Resume => (reason, held.map_or(anew, |held| Next::Resume(Box::new(held)))),
                    Closed::Identify => (reason, anew),
                    Closed::Never(help) => (format!("{reason} ({help})"), Next::Never),
                }
            }
        };
        End { reason, next, lived }
    }

    /// Reads, and keeps the heart beating beside it: neither waits for the other.
    async fn keep(&mut self, socket: &mut WebSocket, stop: &mut watch::Receiver<bool>) -> Broken {
        let beat = tokio::select! {
            () = told_to(stop) => return Broken::Stop,
            hello = timeout(ANSWER_MAX, self.hello(socket)) => match hello {
                Ok(Ok(beat)) => beat,
                Ok(Err(broken)) => return broken,
                Err(_) => return Broken::Lost("Discord's gateway said no hello".to_owned()),
            },
        };
        if let Err(broken) = self.introduce(socket).await {
            return broken;
        }
        let begun = Instant::now();
        let mut next_beat = pin!(sleep_until(begun + beat.mul_f64(fastrand::f64())));
        let mut overdue = pin!(sleep_until(begun + ANSWER_MAX));
        loop {
            let step = tokio::select! {
                () = told_to(stop) => return Broken::Stop,
                () = &mut next_beat => {
                    next_beat.as_mut().reset(Instant::now() + beat);
                    self.beat(socket).await
                }
                () = &mut overdue, if self.ready_at.is_none() => {
                    return Broken::Lost("Discord's gateway did not say that the session is ready".to_owned());
                }
                read = self.read(socket) => match read {
                    Ok(frame) => self.handle(frame, socket).await,
                    Err(broken) => Err(broken),
                },
            };
            if let Err(broken) = step {
                return broken;
            }
        }
    }

    async fn hello(&mut self, socket: &mut WebSocket) -> Result<Duration, Broken> {
        loop {
            let frame = self.read(socket).await?;
            if frame.op == HELLO {
                let millis = frame.d["heartbeat_interval"].as_u64().unwrap_or(41_250);
                return Ok(Duration::from_millis(millis).clamp(BEAT_MIN, BEAT_MAX));
            }
        }
    }

    async fn introduce(&mut self, socket: &mut WebSocket) -> Result<(), Broken> {
        let token = self.gateway.token.expose();
        let frame = match &self.held {
            Some(held) => json!({
                "op": RESUME,
                "d": { "token": token, "session_id": held.id, "seq": held.sequence },
            }),
            None => {
                self.gateway.begins();
                json!({
                    "op": IDENTIFY,
                    "d": {
                        "token": token,
                        "intents": 0,
                        "properties": { "os": std::env::consts::OS, "browser": "conductor", "device": "conductor" },
                    },
                })
            }
        };
        write(socket, &frame).await
    }

    /// The time for a heartbeat of our own has come. One that has not been answered by now tells that the other side
    /// is gone, though the connection still stands.
    async fn beat(&mut self, socket: &mut WebSocket) -> Result<(), Broken> {
        if !self.acknowledged {
            return Err(Broken::Lost("Discord's gateway left a heartbeat unanswered".to_owned()));
        }
        self.acknowledged = false;
        self.heartbeat(socket).await
    }

    async fn heartbeat(&self, socket: &mut WebSocket) -> Result<(), Broken> {
        let sequence = self.held.as_ref().and_then(|held| held.sequence);
        write(socket, &json!({ "op": HEARTBEAT, "d": sequence })).await
    }

    async fn handle(&mut self, frame: Frame, socket: &mut WebSocket) -> Result<(), Broken> {
        if let (Some(held), Some(sequence)) = (&mut self.held, frame.s) {
            held.sequence = Some(sequence);
        }
        match (frame.op, frame.t.as_deref()) {
            (DISPATCH, Some("READY")) => {
                self.held = session(&frame, self.gateway);
                self.up();
                tracing::info!(target: "conductor::plugin::discord", "Discord bot connected");
            }
            (DISPATCH, Some("RESUMED")) => {
                self.up();
                tracing::info!(target: "conductor::plugin::discord", "Discord bot connected again");
            }
            (HEARTBEAT, _) => self.heartbeat(socket).await?,
            (HEARTBEAT_ACK, _) => self.acknowledged = true,
            (RECONNECT, _) => return Err(Broken::Lost("Discord's gateway asked for a new connection".to_owned())),
            (INVALID_SESSION, _) if frame.d.as_bool() == Some(true) => {
                return Err(Broken::Lost("Discord's gateway did not take the session up yet".to_owned()));
            }
            (INVALID_SESSION, _) => {
                return Err(Broken::Invalid("Discord's gateway calls the session invalid".to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    fn up(&mut self) {
        self.ready_at = Some(Instant::now());
        self.gateway.tell(Health::Up);
    }

    /// The next frame. Can be dropped at any point without losing one.
    async fn read(&self, socket: &mut WebSocket) -> Result<Frame, Broken> {
        loop {
            let message = match socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(Broken::Closed(None, error.to_string())),
                None => return Err(Broken::Closed(None, String::new())),
            };
            if let Some((code, words)) = message.as_close() {
                let code = (code != CloseCode::NO_STATUS_RECEIVED).then(|| code.into());
                return Err(Broken::Closed(code, tidy(words, &[self.gateway.token.expose()])));
            }
            if let Some(text) = message.as_text() {
                let frame = serde_json::from_str(text);
                return frame.map_err(|_| Broken::Lost("Discord's gateway sent what is no frame".to_owned()));
            }
        }
    }
}

/// The session that READY tells of; none where it does not say how to take it up.
fn session(frame: &Frame, gateway: &Gateway) -> Option<Held> {
    let id = frame.d["session_id"].as_str()?.to_owned();
    let address = Url::parse(frame.d["resume_gateway_url"].as_str()?).ok()?;
    let secure = address.scheme() == "wss" || gateway.base.scheme() != "https";
    secure.then_some(Held { id, sequence: frame.s, address, tries: 0 })
}

async fn write(socket: &mut WebSocket, frame: &Value) -> Result<(), Broken> {
    match timeout(WRITE_MAX, socket.send(Message::text(frame.to_string()))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Broken::Closed(None, error.to_string())),
        Err(_) => Err(Broken::Lost("Discord's gateway takes no frames".to_owned())),
    }
}
