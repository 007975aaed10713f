//! What the fake says is worth nothing unless others take it for Discord's word: three foreign clients connect, resume
//! and send. discord.py and discord.js come from their registries, into a folder of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use twilight_gateway::{ConfigBuilder, EventTypeFlags, Intents, Shard, ShardId, StreamExt as _};

use super::fake::{FakeDiscord, Script, Seen, Then};
use crate::contract::left_out;

const TOKEN: &str = "T0P-S3CRET.bot.token";
const DISCORD_PY: &str = "discord.py==2.7.1";
const DISCORD_JS: &str = "discord.js@14.28.1";
/// What is to take longer is ended.
const RUN_MAX: &str = "30";
const INSTALL_MAX: &str = "60";

/// Tells its client to come back, once.
async fn discord() -> FakeDiscord {
    let discord = FakeDiscord::start(TOKEN, Duration::from_millis(300)).await;
    discord.plays([Script { then: Then::Reconnect, ..Script::default() }, Script::default()]);
    discord
}

#[tokio::test]
async fn twilight_takes_the_fake_for_discord() {
    let discord = discord().await;
    let config = ConfigBuilder::new(TOKEN.to_owned(), Intents::empty()).proxy_url(discord.gateway_url()).build();
    let mut shard = Shard::with_config(ShardId::ONE, config);
    let mut kinds = Vec::new();
    let reading = async {
        while !kinds.iter().any(|kind: &String| kind == "Resumed") {
            let event = shard.next_event(EventTypeFlags::all()).await.expect("it goes on");
            kinds.push(format!("{:?}", event.expect("a good event").kind()));
        }
        while discord.count(|seen| matches!(seen, Seen::Heartbeat(_))) == 0 {
            let next = shard.next_event(EventTypeFlags::all());
            let _ = tokio::time::timeout(Duration::from_millis(50), next).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("in time");
    assert!(kinds.contains(&"Ready".to_owned()), "{kinds:?}");
    assert_eq!((discord.identifies(), discord.resumes()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn discord_py_takes_the_fake_for_discord() {
    let folder = tempfile::tempdir().expect("a folder");
    let python = folder.path().join("bin/python");
    let made = installs("python3", &["-m", "venv", shown(folder.path())])
        && installs(shown(&python), &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", DISCORD_PY]);
    if !made {
        return left_out(&format!("{DISCORD_PY} cannot be installed"));
    }
    let discord = discord().await;
    let script = script("bot.py");
    let call = [shown(&python), shown(&script), &discord.url(), &discord.gateway_url(), TOKEN];
    is_taken_in(&discord, &tokio::task::block_in_place(|| run(&call)));
}

#[tokio::test(flavor = "multi_thread")]
async fn discord_js_takes_the_fake_for_discord() {
    let folder = tempfile::tempdir().expect("a folder");
    let quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
    let call = [&["install", "--prefix", shown(folder.path())], &quiet[..], &[DISCORD_JS]].concat();
    if !installs("npm", &call) {
        return left_out(&format!("{DISCORD_JS} cannot be installed"));
    }
    let discord = discord().await;
    let script = script("bot.mjs");
    let call = ["node", shown(&script), &discord.url(), shown(folder.path()), TOKEN];
    is_taken_in(&discord, &tokio::task::block_in_place(|| run(&call)));
}

fn is_taken_in(discord: &FakeDiscord, said: &str) {
    for word in ["ready", "resumed", "sent 1187654321098766001"] {
        assert!(said.lines().any(|line| line == word), "no {word:?}: {said}\n{:?}", discord.seen());
    }
    assert_eq!((discord.identifies(), discord.resumes()), (1, 1));
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/discord/gateway/foreign").join(name)
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a test's paths are texts")
}

fn installs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new("timeout");
    command.arg(INSTALL_MAX).arg(program).args(arguments).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

/// What a call has said when it has ended, or was ended.
fn run(call: &[&str]) -> String {
    let output = Command::new("timeout").arg(RUN_MAX).args(call).stdin(Stdio::null()).output();
    let output = output.expect("timeout can be called");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
