//! What the tests of the configuration share: two plugins and a directory with the three files.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use conductor_channels::{ChannelContext, ChannelPlugin, Classic, InitError, Plugin, Setting};
use conductor_core::{Channel, Limits, Message, Problems, Rate, Receipt, SendError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Configuration, Environment, Report, load};

pub(super) const TENANT: &str = "01943c2a-7c3e-7000-8000-123456789abc";
pub(super) const OTHER: &str = "01943c2a-7c3e-7000-8000-00000000000b";
pub(super) const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
pub(super) const OTHER_KEY: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f";

/// The plugins of the tests.
pub(super) static PLUGINS: &[Plugin] = &[Plugin::of::<Log>(), Plugin::of::<Parrot>(), Plugin::of::<Pager>()];

/// Repeats what it is told: it has a secret, settings that are none, and own options.
pub(super) struct Parrot;

/// What the parrot is told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape matters here")]
pub(super) struct ParrotConfig {
    token: String,
    channel_id: Option<String>,
    port: Option<u16>,
    /// Whether it cries.
    #[serde(default)]
    loud: bool,
    /// How it sounds.
    mood: Option<Mood>,
}

/// How it sounds.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Mood {
    /// Merry.
    Merry,
    /// Sad.
    Sad,
}

const fn setting(name: &'static str, secret: bool, required: bool, classic: Option<Classic>) -> Setting {
    Setting { name, secret, required, about: "for the tests", example: "tok_example", classic }
}

#[async_trait]
impl Channel for Parrot {
    async fn send(&self, _message: &Message) -> Result<Receipt, SendError> {
        Ok(Receipt::default())
    }
}

impl ChannelPlugin for Parrot {
    const KIND: &'static str = "parrot-talk";
    const ALIASES: &'static [&'static str] = &["parrot-bot"];
    const ABOUT: &'static str = "Repeats what it is told.";
    const SETTINGS: &'static [Setting] = &[
        setting("TOKEN", true, true, Some(Classic::Secret)),
        setting("CHANNEL_ID", false, false, Some(Classic::Id)),
        setting("PORT", false, false, None),
    ];
    const LIMITS: Limits = Limits::NONE;
    type Config = ParrotConfig;

    fn validate(config: &Self::Config, problems: &mut Problems) {
        if !config.token.starts_with("tok_") {
            // A careless plugin: it repeats the secret.
            problems.add_with_help("token", format!("{} does not begin with tok_", config.token), config.token.clone());
        }
        if config.loud && matches!(config.mood, Some(Mood::Sad)) {
            problems.add("mood", "a sad parrot is not loud");
        }
    }

    async fn initialize(_: Self::Config, _: ChannelContext) -> Result<Self, InitError> {
        Ok(Self)
    }
}

/// Takes no setting.
pub(super) struct Log;

/// Nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogConfig {}

#[async_trait]
impl Channel for Log {
    async fn send(&self, _message: &Message) -> Result<Receipt, SendError> {
        Ok(Receipt::default())
    }
}

impl ChannelPlugin for Log {
    const KIND: &'static str = "log";
    const ABOUT: &'static str = "Writes to the log.";
    const SETTINGS: &'static [Setting] = &[];
    const LIMITS: Limits = Limits::NONE;
    type Config = LogConfig;
    fn validate(_: &Self::Config, _: &mut Problems) {}
    async fn initialize(_: Self::Config, _: ChannelContext) -> Result<Self, InitError> {
        Ok(Self)
    }
}

/// Has an option of its own that is required, and a required setting that is no secret.
pub(super) struct Pager;

/// What the pager is told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape matters here")]
pub(super) struct PagerConfig {
    number: String,
    /// Where it beeps.
    region: String,
}

#[async_trait]
impl Channel for Pager {
    async fn send(&self, _message: &Message) -> Result<Receipt, SendError> {
        Ok(Receipt::default())
    }
}

impl ChannelPlugin for Pager {
    const KIND: &'static str = "pager";
    const ABOUT: &'static str = "Beeps.";
    const SETTINGS: &'static [Setting] = &[setting("NUMBER", false, true, None)];
    const RATE: Option<Rate> = Some(Rate {
        limit: NonZeroU32::new(2).expect("2 is not zero"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(2).expect("2 is not zero"),
    });
    const LIMITS: Limits = Limits::NONE;
    type Config = PagerConfig;
    fn validate(_: &Self::Config, _: &mut Problems) {}
    async fn initialize(_: Self::Config, _: ChannelContext) -> Result<Self, InitError> {
        Ok(Self)
    }
}

/// A configuration directory with good files, to be changed.
pub(super) struct Files {
    pub(super) directory: tempfile::TempDir,
    pub(super) variables: Vec<(String, String)>,
}

impl Files {
    /// One tenant with a key and one parrot with a token.
    pub(super) fn good() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new() };
        files
            .tenants(&format!(r#"[{{"id": "{TENANT}", "name": "Acme", "authKeyEnvVar": "KEY"}}]"#))
            .channels(&format!(r#"[{{"tenantId": "{TENANT}", "channelType": "parrot-talk"}}]"#))
            .plugins(r#"[{"name": "log"}, {"name": "parrot-talk"}, {"name": "pager"}]"#)
            .variable("KEY", KEY)
            .variable(&pattern("TOKEN"), "tok_secret")
    }

    pub(super) fn tenants(self, text: &str) -> Self {
        self.file("tenants.json", text)
    }

    pub(super) fn channels(self, text: &str) -> Self {
        self.file("channels.json", text)
    }

    /// One channel of the tenant and of the given type, with more members.
    pub(super) fn channel(self, kind: &str, more: &str) -> Self {
        self.channels(&format!(r#"[{{"tenantId": "{TENANT}", "channelType": "{kind}"{more}}}]"#))
    }

    pub(super) fn plugins(self, text: &str) -> Self {
        self.file("plugins.json", text)
    }

    pub(super) fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.path(name), text).unwrap();
        self
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sets a variable, or changes it.
    pub(super) fn variable(self, name: &str, value: &str) -> Self {
        let mut files = self.without(name);
        files.variables.push((name.to_owned(), value.to_owned()));
        files
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self
    }

    pub(super) fn load(&self) -> Result<(Configuration, Report), Report> {
        load(self.directory.path(), &Environment::from_pairs(self.variables.clone()), PLUGINS)
    }

    /// Loads what must be right.
    pub(super) fn accepted(&self) -> (Configuration, Report) {
        self.load().unwrap_or_else(|report| panic!("refused:\n{report}"))
    }

    /// Loads what must be wrong.
    pub(super) fn refused(&self) -> Report {
        match self.load() {
            Ok((_, report)) => panic!("accepted, with:\n{report}"),
            Err(report) => report,
        }
    }
}

/// The variable that holds the parrot's setting where the channel names none.
pub(super) fn pattern(setting: &str) -> String {
    format!("TENANT_{}_PARROT_TALK_{setting}", TENANT.replace('-', "_"))
}
