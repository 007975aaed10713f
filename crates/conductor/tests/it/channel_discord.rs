//! Discord through the whole server: a bot with its gateway connection, and a webhook.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::process::{Process, serving};
use super::support::provider::{Answer, Provider};
use super::support::server::{KEY_A, KEY_B, TENANT_A, TENANT_B, World};
use fake::{FakeDiscord, Script};

#[path = "../../../conductor-channels/src/discord/gateway/fake.rs"]
#[expect(dead_code, reason = "the plugin's own tests ask it for more")]
mod fake;

const TOKEN: &str = "T0P-S3CRET.bot.token";

/// Both tenants have a channel with the same bot, the first one two.
fn bots(discord: &FakeDiscord) -> World {
    let mut world = World::new();
    for (tenant, name, room) in [(TENANT_A, "alerts", "41"), (TENANT_A, "news", "42"), (TENANT_B, "alerts", "43")] {
        world.channels.push(json!({
            "tenantId": tenant, "channelType": "discord", "channelName": name, "env": { "botToken": "BOT" },
            "options": { "baseUrl": discord.url(), "allowNetworks": ["127.0.0.0/8"], "channelId": room },
        }));
    }
    world.variables.push(("BOT".into(), TOKEN.into()));
    world
}

#[tokio::test]
async fn one_bot_of_three_channels_is_online_once_and_sends_for_all() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_millis(100)).await;
    let server = bots(&discord).start().await;
    for (key, name) in [(KEY_A, "alerts"), (KEY_A, "news"), (KEY_B, "alerts")] {
        assert_eq!(server.wait_for_health(key, name, "up").await, Value::Null);
    }
    let id = server.send(KEY_B, &json!({ "channel": "discord", "message": "hello" })).await;
    let story = server.wait_for(KEY_B, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "1187654321098766001");
    assert_eq!(
        discord.count(|seen| matches!(seen, fake::Seen::Asked(_, path, _) if path.contains("/channels/43/"))),
        1
    );
    assert_eq!((discord.identifies(), discord.live()), (1, 1));
    server.stop().await;
    discord.until("a goodbye", |discord| discord.seen().contains(&fake::Seen::Closed(Some(1000)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_of_the_connection_and_a_zombie_is_resumed() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_millis(50)).await;
    discord.plays([Script { acks: Some(2), ..Script::default() }, Script::default()]);
    let directory = TempDir::new().expect("a temporary directory");
    let world = bots(&discord);
    tokio::task::block_in_place(|| {
        let process = Process::serve(&mut serving(directory.path(), &world));
        let line = process.logged("Discord bot connected");
        assert!(line.ends_with("Z] [INFO] [conductor:plugin:discord] Discord bot connected"), "{line}");
        process.logged("Discord bot connected again");
        let said = process.stop().with(0).text();
        assert!(!said.contains("T0P-S3CRET"), "{said}");
    });
    assert_eq!((discord.identifies(), discord.resumes()), (1, 1));
}

#[tokio::test]
async fn a_token_that_the_gateway_refuses_is_told_and_never_tried_again() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(10)).await;
    discord.plays([Script { refuse: Some((4004, "Authentication failed.")), ..Script::default() }]);
    let server = bots(&discord).start().await;
    let reason = server.wait_for_health(KEY_A, "alerts", "down").await;
    let reason = reason.as_str().expect("a reason");
    assert!(reason.contains("4004") && reason.contains("Authentication failed."), "{reason}");
    // The gateway never holds up what the API takes.
    let id = server.send(KEY_A, &json!({ "channel": "discord", "message": "hello" })).await;
    server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(server.wait_for_health(KEY_A, "alerts", "down").await, *reason);
    assert_eq!(discord.identifies(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_there_once() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(10)).await;
    discord.loses_answers(1);
    let mut world = bots(&discord);
    for channel in &mut world.channels {
        if channel["channelType"] == "discord" {
            channel["options"]["timeout"] = json!("1s");
        }
    }
    let server = world.start().await;
    let id = server.send(KEY_A, &json!({ "channel": "discord", "message": "hello" })).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    let attempts = story["deliveries"][0]["attempts"].as_array().expect("attempts");
    let outcomes: Vec<&str> = attempts.iter().filter_map(|attempt| attempt["outcome"].as_str()).collect();
    assert_eq!((outcomes, discord.messages()), (vec!["unknown", "sent"], 1));
    server.stop().await;
}

#[tokio::test]
async fn a_gateway_that_is_down_stops_neither_the_start_nor_the_sends_and_comes_back() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(10)).await;
    discord.answers_gateway(Some(503));
    let server = bots(&discord).start().await;
    let id = server.send(KEY_A, &json!({ "channel": "discord", "message": "hello" })).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let reason = server.wait_for_health(KEY_A, "news", "down").await;
    assert!(reason.as_str().is_some_and(|reason| reason.contains("503")), "{reason}");
    discord.answers_gateway(None);
    server.wait_for_health(KEY_A, "news", "up").await;
    server.stop().await;
}

#[tokio::test]
async fn a_reload_that_changes_its_neighbours_or_itself_leaves_a_bot_connected() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(10)).await;
    let world = bots(&discord);
    let server = world.clone().start().await;
    for (key, name) in [(KEY_A, "alerts"), (KEY_A, "news"), (KEY_B, "alerts")] {
        server.wait_for_health(key, name, "up").await;
    }
    let first = world.channels.len() - 3;
    let changes: [&dyn Fn(&mut World); 5] = [
        // A neighbour of another type, a tenant's share: not a word of any bot.
        &|world| world.channels[0]["options"] = json!({ "expiresAfter": "1h" }),
        &|world| world.tenants[0]["weight"] = json!(7),
        // One of the bot's channels has another pace, another name, another room; and one goes.
        &|world| world.channels[first]["options"]["maxConcurrency"] = json!(2),
        &|world| {
            world.channels[first]["channelName"] = json!("renamed");
            world.channels[first + 1]["options"]["channelId"] = json!("44");
        },
        &|world| drop(world.channels.remove(first)),
    ];
    let mut changed = world.clone();
    for change in changes {
        change(&mut changed);
        let (status, told) = server.reload(&changed).await;
        assert_eq!(status, 200, "{told:#}");
        server.wait_for_health(KEY_B, "alerts", "up").await;
        let id = server.send(KEY_B, &json!({ "channel": "discord", "message": "hello" })).await;
        server.wait_for(KEY_B, &id, "sent").await;
    }
    // What was left behind is shut down by now, as others of its bot are not.
    assert_eq!((discord.identifies(), discord.resumes(), discord.live()), (1, 0, 1));
    let without = World { plugins: world.plugins.clone(), ..World::new() };
    assert_eq!(server.reload(&without).await.0, 200);
    discord.until("a goodbye", |discord| discord.seen().contains(&fake::Seen::Closed(Some(1000)))).await;
    assert_eq!(discord.identifies(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_bot_with_a_mended_token_comes_online_without_a_restart() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_secs(10)).await;
    let mut wrong = bots(&discord);
    let token = wrong.variables.last_mut().expect("the token");
    token.1 = "an.old.token".to_owned();
    let server = wrong.start().await;
    server.wait_for_health(KEY_A, "alerts", "down").await;
    assert_eq!(server.reload(&bots(&discord)).await.0, 200);
    for (key, name) in [(KEY_A, "alerts"), (KEY_A, "news"), (KEY_B, "alerts")] {
        server.wait_for_health(key, name, "up").await;
    }
    server.stop().await;
}

fn webhook(provider: &Provider) -> World {
    let mut world = World::new();
    let options = json!({ "baseUrl": provider.url(), "allowNetworks": ["127.0.0.0/8"] });
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "discord-webhook", "channelName": "room", "providerSecretEnvVar": "HOOK",
        "options": options,
    }));
    world.variables.push(("HOOK".into(), "https://discord.com/api/webhooks/77/T0P-S3CRET".into()));
    world.plugins = json!([{ "name": "log" }, { "name": "discord-webhook" }]);
    world
}

#[tokio::test]
async fn a_webhook_takes_a_notification_and_one_that_is_gone_stops_its_channel() {
    let provider = Provider::start().await;
    provider.next(Answer { body: r#"{"id":"334385199974967042"}"#, ..Answer::status(200) });
    let gone = r#"{"message":"Unknown Webhook","code":10015}"#;
    provider.then(Answer { body: gone, ..Answer::status(404) });
    let server = webhook(&provider).start().await;
    let body = json!({ "channel": "discord-webhook", "message": "hello", "title": "Pump", "priority": "high" });
    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(story["deliveries"][0]["providerId"], "334385199974967042");
    let sent = provider.received()[0].json();
    assert_eq!(sent["content"], "⚠️ **HIGH PRIORITY**\n**Pump**\nhello");

    let id = server.send(KEY_A, &body).await;
    let story = server.wait_for(KEY_A, &id, "retrying").await;
    assert_eq!(story["deliveries"][0]["attempts"][0]["outcome"], "unauthorized");
    let reason = server.wait_for_health(KEY_A, "room", "down").await;
    assert!(reason.as_str().is_some_and(|reason| reason.contains("Unknown Webhook")), "{reason}");
    assert!(!story.to_string().contains("T0P-S3CRET"), "{story}");
    server.stop().await;
}
