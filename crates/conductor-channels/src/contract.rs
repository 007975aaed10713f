//! What every channel must do, tried against a scripted provider on loopback.
//!
//! A plugin's tests describe it as a [`Subject`] and call [`contract_tests!`].

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use conductor_core::{
    Channel, ChannelId, DeliveryId, Format, ManualClock, Message, NotificationId, Priority, Problems, Receipt,
    SendError, SendErrorKind, TenantId, Timestamp,
};
use ipnet::IpNet;
use serde_json::{Map, Value};
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use url::Url;
use uuid::Uuid;

use crate::http::HttpClients;
use crate::{ChannelContext, Plugin};

pub(crate) mod checks;
pub(crate) mod provider;
pub(crate) mod published;
pub(crate) mod samples;
pub(crate) mod tls;

pub(crate) use checks::contract_tests;
pub(crate) use provider::{Answer, Provider, Seen};
pub(crate) use published::{Description, error_classes, is_of_class};

/// The time as the contract's clock tells it: Sunday, 06 Nov 1994 08:49:37 GMT.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(784_111_777_000)
}

/// One plugin under test.
pub(crate) struct Subject {
    pub(crate) plugin: &'static Plugin,
    /// Settings that validate, with `secrets` in them.
    pub(crate) values: Value,
    /// What the provider answers to a message that it takes.
    pub(crate) success: Answer,
    /// The id in that answer.
    pub(crate) provider_id: Option<&'static str>,
    /// Texts that must never be shown.
    pub(crate) secrets: &'static [&'static str],
    /// What a status without a telling body means.
    pub(crate) statuses: &'static [(u16, SendErrorKind)],
}

impl Subject {
    pub(crate) fn values(&self) -> Map<String, Value> {
        self.values.as_object().cloned().expect("settings are an object")
    }

    pub(crate) async fn channel(&self, context: ChannelContext) -> Arc<dyn Channel> {
        self.plugin.initialize(self.values(), context).await.expect("the contract's settings are valid")
    }

    /// A channel that speaks to `provider`, with a time limit of a second.
    pub(crate) async fn channel_to(&self, provider: &Provider) -> Arc<dyn Channel> {
        self.channel(context(&HttpClients::new(), Some(provider.url()))).await
    }

    /// The request by which a message was sent that the provider took.
    pub(crate) async fn seen(self, message: &Message) -> Seen {
        self.seen_with(message, |_, _| {}).await
    }

    /// The same with other settings, or in another context.
    pub(crate) async fn seen_with(
        mut self,
        message: &Message,
        change: impl FnOnce(&mut Value, &mut ChannelContext),
    ) -> Seen {
        let provider = Provider::answering([self.success.clone()]).await;
        let mut context = context(&HttpClients::new(), Some(provider.url()));
        change(&mut self.values, &mut context);
        let receipt = self.channel(context).await.send(message).await.expect("the provider took it");
        assert_eq!(receipt.provider_id.as_deref(), self.provider_id);
        provider.only()
    }

    /// What becomes of a message that the provider answers so.
    pub(crate) async fn outcome(&self, message: &Message, answer: Answer) -> Result<Receipt, SendError> {
        let provider = Provider::answering([answer]).await;
        self.channel_to(&provider).await.send(message).await
    }

    /// The error that such an answer is.
    pub(crate) async fn refusal(&self, message: &Message, answer: Answer) -> SendError {
        self.outcome(message, answer).await.expect_err("a refusal")
    }
}

/// A plugin of the table.
pub(crate) fn plugin(kind: &str) -> &'static Plugin {
    crate::plugin(crate::PLUGINS, kind).expect("the plugin stands in the table")
}

/// What a plugin says to these settings and options, as `place: message`.
pub(crate) fn faults(plugin: &Plugin, values: Value) -> Vec<String> {
    let Value::Object(values) = values else { panic!("settings are an object") };
    let mut problems = Problems::new();
    plugin.validate(values, &mut problems);
    problems.iter().map(ToString::to_string).collect()
}

pub(crate) fn loopback() -> Vec<IpNet> {
    vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]
}

pub(crate) fn context(http: &HttpClients, base_url: Option<Url>) -> ChannelContext {
    ChannelContext {
        tenant: TenantId::new(Uuid::from_u128(0x0194_3c2a_7c3e_7000_8000_1234_5678_9abc)),
        tenant_name: "Acme".into(),
        channel: ChannelId::new(Uuid::from_u128(0xc1)),
        channel_name: "alerts".into(),
        base_url,
        receipts_url: None,
        timeout: Duration::from_secs(1),
        rate: None,
        allow_mentions: false,
        http: http.client(&loopback()),
        clock: Arc::new(ManualClock::at(now())),
    }
}

pub(crate) fn message(text: &str) -> Message {
    let notification = NotificationId::new(Uuid::from_u128(0x0194_3c2a_7c3e_7000_8000_0000_0000_0001));
    Message {
        notification,
        delivery: DeliveryId::derive(notification, 0),
        ordinal: 0,
        attempt: 1,
        target: None,
        title: None,
        body: text.into(),
        format: Format::Text,
        priority: Priority::Normal,
        data: Map::new(),
        metadata: BTreeMap::new(),
        accepted_at: now(),
        expires_at: now().plus(Duration::from_secs(24 * 60 * 60)),
        key: None,
        part: 0,
        parts: 1,
        trace: None,
    }
}

/// All that was logged while the guard lived, on this thread.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps every log line of this thread, down to the finest level.
///
/// While only one subscriber lives, what another thread logs first is taken as wanted by nobody, for all threads. So a
/// second one, which wants nothing, lives as long as the tests.
pub(crate) fn captured() -> (Logs, DefaultGuard) {
    static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
    LazyLock::force(&SECOND);
    let logs = Logs::default();
    let writer = logs.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (logs, tracing::subscriber::set_default(subscriber))
}

/// One of the providers' own API descriptions, which stand beside the repository or in `CONDUCTOR_SPECS_DIR`. Where
/// they are missing the test is left out loudly; under `CI=true` it fails.
pub(crate) fn spec(name: &str) -> Option<Value> {
    let path = beside("CONDUCTOR_SPECS_DIR", "specs").join(name);
    match std::fs::read(&path) {
        Ok(text) => Some(serde_json::from_slice(&text).expect("a specification is JSON")),
        Err(error) => {
            left_out(&format!("{}: {error}", path.display()));
            None
        }
    }
}

/// A folder that stands beside the repository, or where the variable says.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where such folders stand")]
pub(crate) fn beside(variable: &str, name: &str) -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    std::env::var_os(variable).map_or_else(beside, PathBuf::from)
}

/// Says that something was not tried, and why: past the test runner, which keeps to itself what a test that passes has
/// printed. Under `CI=true` it is a failure.
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says so in the environment")]
pub(crate) fn left_out(why: &str) {
    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{why}");
    let told = writeln!(std::io::stderr(), "SKIPPED: {why}");
    told.expect("somebody reads it");
}
