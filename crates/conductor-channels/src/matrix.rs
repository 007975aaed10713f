//! Sends to a Matrix room as a user.
//!
//! <https://spec.matrix.org/latest/client-server-api/>

use std::time::{Duration, Instant};

use async_trait::async_trait;
use conductor_core::{
    Channel, Health, Limits, Message, Problems, Receipt, Secret, SendError, SendErrorKind, TextLimit, Unit,
};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::http::{Request, Response, below, check_url};
use crate::quota::Quota;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, token};
use rooms::{Aliases, Room};

mod answer;
mod rooms;
#[cfg(test)]
mod tests;
mod text;

/// The most bytes of a whole event.
/// <https://spec.matrix.org/latest/client-server-api/#size-limits>
const EVENT_MAX: usize = 65_536;
/// What the homeserver adds to a message: sender, room, hashes, signatures, the events before it.
const RESERVED: usize = 5_536;
/// The most bytes of a message, as JSON.
pub const CONTENT_MAX: usize = EVENT_MAX - RESERVED;

/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The `matrix` plugin.
pub struct Matrix {
    context: ChannelContext,
    base: Url,
    token: Secret,
    authorization: HeaderValue,
    room: Room,
    notice: bool,
    aliases: Aliases,
}

/// What a `matrix` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The homeserver's address, such as `https://matrix.example.org`.
    pub homeserver_url: String,
    /// The access token of the user who sends.
    #[schemars(with = "String")]
    pub access_token: Secret,
    /// The room that gets the messages: its id, `!…`, or its alias, `#name:server`.
    pub room_id: String,
    /// Whether messages are notices, which other bots leave unanswered and which most clients show without a sound.
    #[serde(default)]
    pub notice: bool,
}

impl ChannelPlugin for Matrix {
    const KIND: &'static str = "matrix";
    const ABOUT: &'static str = "Sends to a Matrix room as a user";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "HOMESERVER_URL",
            secret: false,
            required: true,
            about: "The homeserver's address, as a client's settings show it.",
            example: "https://matrix.example.org",
            classic: None,
        },
        Setting {
            name: "ACCESS_TOKEN",
            secret: true,
            required: true,
            about: "The access token of the user who sends.",
            example: "syt_example_access_token",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "ROOM_ID",
            secret: false,
            required: true,
            about: "The room that gets the messages: its id from the room's settings, or its alias.",
            example: "!abcdefghijklmnopqr:example.org",
            classic: Some(Classic::Id),
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Make a user for Conductor on your homeserver, and log in with its password by `POST \
         /_matrix/client/v3/login`: the answer's `access_token` is the token. A login of its own has a token of \
         its own, which nobody logs out by accident.",
        "Invite the user to the room. It joins by itself when it first sends. The room must not be encrypted: \
         messages would be shown there as unencrypted.",
        "The room's id stands in Element under **Room settings** → **Advanced** → **Internal room ID**.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: CONTENT_MAX, unit: Unit::Bytes }), rich: true };
    const MAX_CONCURRENCY: u32 = 4;
    const TARGET: Option<&'static str> = Some("ROOM_ID");
    /// A homeserver counts by user, and says in its answers how much.
    const QUOTA: Option<Quota<Config>> =
        Some(Quota::by(|config: &Config| vec![&config.homeserver_url, config.access_token.expose()]));
    /// By the transaction's id, as long as the access token stays the same.
    const DEDUPES: bool = true;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(reason) = homeserver(&config.homeserver_url) {
            let help = "for example https://matrix.example.org: Help & About in Element's settings shows it";
            problems.add_with_help("homeserverUrl", reason, help);
        }
        if let Err(reason) = token::header("Bearer", &config.access_token) {
            problems.add_with_help("accessToken", reason, "copy it from Help & About in Element's settings");
        }
        if Room::parse(&config.room_id).is_none() {
            let help = "for example !abcdefghijklmnopqr:example.org, from the room's settings (Advanced), or \
                        #alerts:example.org";
            problems.add_with_help("roomId", "is neither a room's id nor an alias", help);
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let homeserver = homeserver(&config.homeserver_url);
        let homeserver = homeserver.map_err(|reason| InitError(format!("homeserverUrl {reason}")))?;
        let authorization = token::header("Bearer", &config.access_token);
        let authorization = authorization.map_err(|reason| InitError(format!("accessToken {reason}")))?;
        let room = Room::parse(&config.room_id);
        let room = room.ok_or_else(|| InitError("roomId is neither a room's id nor an alias".into()))?;
        let base = context.base_url.clone().unwrap_or(homeserver);
        let (token, notice, aliases) = (config.access_token, config.notice, Aliases::default());
        Ok(Self { context, base, token, authorization, room, notice, aliases })
    }
}

#[async_trait]
impl Channel for Matrix {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let begun = Instant::now();
        let room = self.target(message)?;
        let content = self.content(message);
        let length = text::length(&content);
        if length > CONTENT_MAX {
            return Err(SendError::new(SendErrorKind::Rejected, too_long(length)));
        }
        let is_own = room == self.room;
        let id = self.id(&room, is_own, begun).await?;
        let mut response = self.put(&id, message.part_id(), &content, begun).await?;
        if answer::code(&response) == "M_FORBIDDEN" {
            self.join(&room, &id, is_own, begun).await?;
            response = self.put(&id, message.part_id(), &content, begun).await?;
        }
        if response.status.is_success() {
            return taken(&response);
        }
        if let (Room::Alias(alias), "M_FORBIDDEN" | "M_NOT_FOUND") = (&room, answer::code(&response).as_str()) {
            // It may lead to another room by now.
            self.aliases.forget(alias);
        }
        Err(self.error(&response, is_own))
    }

    fn length(&self, message: &Message) -> usize {
        text::length(&self.content(message))
    }

    async fn health_check(&self) -> Health {
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let url = below(&self.base, "/_matrix/client/v3/account/whoami");
        let error = match self.ask(Request::get(url).timeout(timeout)).await {
            Ok(response) if response.status.is_success() => return health(&response),
            Ok(response) => self.error(&response, true),
            Err(error) => error,
        };
        error.health()
    }
}

impl Matrix {
    fn target(&self, message: &Message) -> Result<Room, SendError> {
        let Some(target) = &message.target else { return Ok(self.room.clone()) };
        Room::parse(target).ok_or_else(|| {
            let text = "the targetId is no Matrix room; expected a room's id, such as !abcdefghijklmnopqr:example.org, or \
                        an alias, such as #alerts:example.org";
            SendError::new(SendErrorKind::Permanent, text)
        })
    }

    fn content(&self, message: &Message) -> Value {
        text::content(message, self.notice, self.context.allow_mentions)
    }

    /// The room's id: an alias is looked up.
    async fn id(&self, room: &Room, is_own: bool, begun: Instant) -> Result<String, SendError> {
        let alias = match room {
            Room::Id(id) => return Ok(id.clone()),
            Room::Alias(alias) => alias,
        };
        if let Some(id) = self.aliases.known(alias, self.context.clock.now()) {
            return Ok(id);
        }
        let url = self.address(&["directory", "room", alias]);
        let response = self.ask_first(Request::get(url), begun).await?;
        if !response.status.is_success() {
            return Err(self.error(&response, is_own));
        }
        let body = response.json();
        let id = body.get("room_id").and_then(Value::as_str).and_then(Room::parse);
        let Some(Room::Id(id)) = id else {
            let text = "the homeserver answered with no room's id: is homeserverUrl right, does a proxy stand between?";
            let kind = SendErrorKind::Retryable { retry_after: None };
            return Err(SendError::new(kind, text).with_code(response.status.as_str()));
        };
        self.aliases.keep(alias, &id, self.context.clock.now());
        Ok(id)
    }

    /// Joins the room, which an invitation or the room's being public allows. Who has joined may do so again.
    async fn join(&self, room: &Room, id: &str, is_own: bool, begun: Instant) -> Result<(), SendError> {
        // An alias says through which servers the room can be reached.
        let name = match room {
            Room::Alias(alias) => alias,
            Room::Id(_) => id,
        };
        let request = Request::post(self.address(&["join", name])).json(&json!({}));
        let response = self.ask_first(request, begun).await?;
        if response.status.is_success() { Ok(()) } else { Err(self.error(&response, is_own)) }
    }

    async fn put(&self, room: &str, transaction: Uuid, content: &Value, begun: Instant) -> Result<Response, SendError> {
        let url = self.address(&["rooms", room, "send", "m.room.message", &transaction.to_string()]);
        self.ask(Request::new(Method::PUT, url).json(content).timeout(self.left(begun))).await
    }

    /// A request before the message: without an answer to it, nothing has been sent.
    async fn ask_first(&self, request: Request, begun: Instant) -> Result<Response, SendError> {
        self.ask(request.timeout(self.left(begun))).await.map_err(|mut error| {
            if error.kind == SendErrorKind::Unknown {
                error.kind = SendErrorKind::Retryable { retry_after: None };
            }
            error
        })
    }

    async fn ask(&self, request: Request) -> Result<Response, SendError> {
        Ok(self.context.http.send(request.header(AUTHORIZATION, self.authorization.clone())).await?)
    }

    fn left(&self, begun: Instant) -> Duration {
        self.context.request_timeout().saturating_sub(begun.elapsed())
    }

    /// An address of the API. A room's name may hold any character, so each is one segment whatever stands in it.
    fn address(&self, segments: &[&str]) -> Url {
        let mut url = below(&self.base, "/_matrix/client/v3");
        url.path_segments_mut().expect("only http and https are configured").extend(segments);
        url
    }

    fn error(&self, response: &Response, is_own: bool) -> SendError {
        answer::error(response, is_own, self.token.expose(), self.context.clock.now())
    }
}

/// What a success says: the event's id. A page of text instead of JSON is not from a homeserver but from something
/// before it, so it is no proof that there is a message.
fn taken(response: &Response) -> Result<Receipt, SendError> {
    let body = response.json();
    if body.is_null() && response.complete && !response.body.is_empty() {
        let text = "the answer was a success but none of Matrix's: is homeserverUrl right, does a proxy stand between?";
        return Err(SendError::new(SendErrorKind::Unknown, text).with_code(response.status.as_str()));
    }
    let id = body.get("event_id").and_then(Value::as_str).filter(|id| rooms::is_event(id));
    Ok(Receipt { provider_id: id.map(str::to_owned) })
}

fn health(response: &Response) -> Health {
    if response.json().get("user_id").is_some_and(Value::is_string) {
        return Health::Up;
    }
    Health::Down { reason: "there is an answer, but none of a homeserver: is homeserverUrl right?".into() }
}

fn too_long(length: usize) -> String {
    format!(
        "the message is {length} bytes long as Matrix counts, with its title, its mark and its HTML; {CONTENT_MAX} are \
         allowed"
    )
}

fn homeserver(text: &str) -> Result<Url, &'static str> {
    if text.trim().is_empty() {
        return Err("is empty; expected the homeserver's address");
    }
    let url = Url::parse(text).map_err(|_| "is no URL; expected one that begins with https:// or http://")?;
    check_url(&url)?;
    if url.query().is_some() || url.fragment().is_some() || url.path().contains("/_matrix") {
        return Err("is more than the homeserver's address; expected scheme and host alone");
    }
    Ok(url)
}
