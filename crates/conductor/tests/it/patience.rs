//! Providers that ask for patience: too fast, wrong credentials. Others go on, and so does the channel in its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use conductor_channels::{ChannelContext, ChannelPlugin, InitError, PLUGINS, Plugin, Setting};
use conductor_core::{Channel, Clock, Health, Message, Problems, Receipt, SendError, SendErrorKind};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::Shifted;
use super::support::provider::{Answer, DEADLINE, Provider};
use super::support::server::{KEY_A, TENANT_A, TestServer, World};

/// The plugin `guarded`: it sends while the door is open, and says whether it is.
struct Guarded;

static OPEN: AtomicBool = AtomicBool::new(false);
static TRIED: AtomicUsize = AtomicUsize::new(0);
static ASKED: AtomicUsize = AtomicUsize::new(0);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoConfig {}

impl ChannelPlugin for Guarded {
    const KIND: &'static str = "guarded";
    const ABOUT: &'static str = "Sends while it is let";
    const LIMITS: conductor_core::Limits = conductor_core::Limits::NONE;
    const SETTINGS: &'static [Setting] = &[];
    type Config = NoConfig;

    fn validate(_: &NoConfig, _: &mut Problems) {}

    async fn initialize(_: NoConfig, _: ChannelContext) -> Result<Self, InitError> {
        Ok(Self)
    }
}

#[async_trait]
impl Channel for Guarded {
    async fn send(&self, _: &Message) -> Result<Receipt, SendError> {
        TRIED.fetch_add(1, Ordering::SeqCst);
        if OPEN.load(Ordering::SeqCst) {
            return Ok(Receipt::default());
        }
        Err(SendError::new(SendErrorKind::Unauthorized, "the token is refused"))
    }

    async fn health_check(&self) -> Health {
        ASKED.fetch_add(1, Ordering::SeqCst);
        if OPEN.load(Ordering::SeqCst) {
            return Health::Up;
        }
        Health::Down { reason: "the token is refused".to_owned() }
    }
}

static GUARDED: &[Plugin] = &[PLUGINS[0], Plugin::of::<Guarded>()];

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_stopped_channel_goes_on_when_its_health_check_says_that_it_works() {
    let clock = Shifted::new();
    let mut world = World { table: GUARDED, clock: Arc::clone(&clock) as Arc<dyn Clock>, ..World::new() };
    world.plugins = json!([{ "name": "log" }, { "name": "guarded" }]);
    let options = json!({ "maxConcurrency": 1 });
    world
        .channels
        .push(json!({ "tenantId": TENANT_A, "channelType": "guarded", "channelName": "guarded", "options": options }));
    let server = world.start().await;
    let mut ids = Vec::new();
    for target in 0..5 {
        let body = json!({ "channel": "guarded", "message": "x", "targetId": target.to_string() });
        ids.push(server.send(KEY_A, &body).await);
    }
    server.wait_for(KEY_A, &ids[0], "retrying").await;
    let health = async || server.get(KEY_A, "/channels").await.1["data"][1]["health"].clone();
    assert_eq!((health().await["status"].clone(), TRIED.load(Ordering::SeqCst)), (json!("down"), 1));
    assert_eq!(ASKED.load(Ordering::SeqCst), 0, "not at once");
    clock.shift(61_000);
    until("it is asked after a minute", || ASKED.load(Ordering::SeqCst) == 1).await;
    OPEN.store(true, Ordering::SeqCst);
    clock.shift(61_000);
    let log = server.send(KEY_A, &json!({ "channel": "log", "message": "x" })).await;
    server.wait_for(KEY_A, &log, "sent").await;
    assert_eq!(health().await["reason"], "the token is refused", "the second question comes after two minutes");
    clock.shift(61_000);
    for id in &ids {
        server.wait_for(KEY_A, id, "sent").await;
    }
    assert_eq!((ASKED.load(Ordering::SeqCst), TRIED.load(Ordering::SeqCst)), (2, 6));
    assert_eq!(health().await["status"], "up");
}

/// What came to the provider, where the first and the second request were told to wait.
async fn limited_twice(options: &Value, targets: [&str; 3]) -> Vec<String> {
    let provider = Provider::start().await;
    let slow = Answer::status(200).after(Duration::from_millis(300));
    let limited = || Answer::status(429).header("retry-after", "1");
    provider.next(slow).next(limited()).next(limited());
    let server: TestServer = World::new().webhook(TENANT_A, "hook", &provider.url(), options).start().await;
    // While the first is under way, the others come in.
    server.send(KEY_A, &json!({ "channel": "webhook", "message": "first", "targetId": targets[0] })).await;
    provider.wait_for(1).await;
    for (message, target) in ["greedy", "one", "two"].into_iter().zip(targets) {
        server.send(KEY_A, &json!({ "channel": "webhook", "message": message, "targetId": target })).await;
    }
    let received = provider.wait_for(6).await;
    let pauses = received.windows(2).filter(|pair| pair[1].at - pair[0].at >= Duration::from_millis(990)).count();
    assert!(pauses >= 2, "each pause is kept");
    received[1..6].iter().map(|request| request.message()).collect()
}

#[tokio::test]
async fn one_that_is_rate_limited_again_makes_way_for_the_others_of_its_target() {
    let order = limited_twice(&json!({ "maxConcurrency": 1 }), ["x", "x", "x"]).await;
    assert_eq!(order, ["greedy", "greedy", "one", "two", "greedy"]);
}

#[tokio::test]
async fn one_that_is_rate_limited_stays_first_where_the_channel_is_ordered() {
    let order = limited_twice(&json!({ "maxConcurrency": 1, "ordered": true }), ["x", "x", "x"]).await;
    assert_eq!(order, ["greedy", "greedy", "greedy", "one", "two"]);
}

#[tokio::test]
async fn one_that_is_rate_limited_lets_other_targets_go_first() {
    // The second that is told to wait is another one.
    let order = limited_twice(&json!({ "maxConcurrency": 1 }), ["x", "y", "z"]).await;
    assert_eq!(order, ["greedy", "one", "two", "greedy", "one"]);
}
