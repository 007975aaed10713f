//! A channel that remembers what is done with it, and holds up what it sends until it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use conductor_channels::{ChannelContext, ChannelPlugin, InitError, PLUGINS, Plugin, Setting};
use conductor_core::{Channel, Limits, Message, Problems, Receipt, SendError, SendErrorKind};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::support::server::{TENANT_A, World};

/// The server's own plugins, and the spy.
static TABLE: &[Plugin] = &[PLUGINS[0], PLUGINS[1], Plugin::of::<Spy>()];

/// What was done with the channels of one tag, in the order in which it was done.
pub(super) struct Seen {
    events: Mutex<Vec<String>>,
    /// What is sent is held until this is cancelled.
    pub(super) released: CancellationToken,
}

impl Seen {
    /// So far.
    pub(super) fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    fn add(&self, event: String) {
        self.events.lock().unwrap().push(event);
    }
}

static SEEN: Mutex<Option<HashMap<String, Arc<Seen>>>> = Mutex::new(None);

/// What is seen of a tag, which each test has for itself.
pub(super) fn seen(tag: &str) -> Arc<Seen> {
    let mut all = SEEN.lock().unwrap();
    let new = || Arc::new(Seen { events: Mutex::default(), released: CancellationToken::new() });
    Arc::clone(all.get_or_insert_default().entry(tag.to_owned()).or_insert_with(new))
}

/// The first tenant's spy.
pub(super) fn world(tag: &str, life: &str) -> World {
    let mut world = World::new();
    world.table = TABLE;
    world.plugins = json!([{ "name": "log" }, { "name": "webhook" }, { "name": "spy" }]);
    world.channels.push(channel(tag, life));
    world
}

pub(super) fn channel(tag: &str, life: &str) -> Value {
    json!({ "tenantId": TENANT_A, "channelType": "spy", "channelName": "spy", "options": { "tag": tag, "life": life } })
}

/// The plugin.
pub(super) struct Spy {
    life: String,
    seen: Arc<Seen>,
}

/// What it is told.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Whose it is.
    tag: String,
    /// What it calls itself. One that cannot be made is called `broken`.
    life: String,
}

#[async_trait]
impl Channel for Spy {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        self.seen.add(format!("{} sends {}", self.life, message.body));
        self.seen.released.cancelled().await;
        self.seen.add(format!("{} sent {}", self.life, message.body));
        if message.body == "lost" && self.life == "old" {
            return Err(SendError::new(SendErrorKind::Unauthorized, "the old credentials are refused"));
        }
        Ok(Receipt::default())
    }

    fn open(&self) {
        self.seen.add(format!("{} opens", self.life));
    }

    async fn shutdown(&self) {
        self.seen.add(format!("{} shuts down", self.life));
    }
}

impl ChannelPlugin for Spy {
    const KIND: &'static str = "spy";
    const ABOUT: &'static str = "Remembers what is done with it";
    const SETTINGS: &'static [Setting] = &[];
    const LIMITS: Limits = Limits::NONE;
    type Config = Config;

    fn validate(_config: &Config, _problems: &mut Problems) {}

    async fn initialize(config: Config, _context: ChannelContext) -> Result<Self, InitError> {
        if config.life == "broken" {
            return Err(InitError("its life is broken".to_owned()));
        }
        let seen = seen(&config.tag);
        seen.add(format!("{} begins", config.life));
        Ok(Self { life: config.life, seen })
    }
}
