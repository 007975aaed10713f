//! A changed configuration is taken over while the server runs, or refused as a whole.

mod accounts;
mod files;
mod flight;
mod limits;
mod load;
mod operator;
mod spy;
mod tenants;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::provider::DEADLINE;
use super::support::server::{ADMIN_KEY, KEY_A, KEY_B, TENANT_A, TestServer, World, answer, http};

const TENANT_C: &str = "01943c2a-7c3e-7000-8000-00000000000c";
const KEY_C: &str = "c-test-key-of-the-third-tenant-0123456789abcdef01";

/// The world with one more tenant, who has a `log` channel.
fn with_tenant(world: &World, id: &str, name: &str, key: &str) -> World {
    let mut world = world.clone();
    let variable = format!("KEY_{}", name.to_uppercase());
    let tenant = json!({ "id": id, "name": name, "authKeyEnvVar": variable });
    world.tenants.as_array_mut().expect("a list").push(tenant);
    world.channels.push(json!({ "tenantId": id, "channelType": "log", "channelName": format!("log of {name}") }));
    world.variables.push((variable, key.to_owned()));
    world
}

/// The number of the configuration in use, as anybody may ask.
async fn version(url: &str) -> u64 {
    let (_, health) = answer(http().get(format!("{url}/health"))).await;
    health["configuration"]["version"].as_u64().unwrap_or_else(|| panic!("{health}"))
}

/// Waits until another configuration than this is in use. Gives its number.
async fn beyond(url: &str, before: u64) -> u64 {
    let start = Instant::now();
    loop {
        let now = version(url).await;
        if now > before {
            return now;
        }
        assert!(start.elapsed() < DEADLINE, "configuration {before} stays in use");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Has worlds taken over, each another one, until one is by this request and not because the server has noticed before.
async fn taken_over(server: &TestServer, world_of: impl Fn(usize) -> World) -> Value {
    let start = Instant::now();
    for number in 0.. {
        let (status, answer) = server.reload(&world_of(number)).await;
        assert_eq!(status, 200, "{answer:#}");
        if answer["changedAnything"] == true {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "the server is always faster");
    }
    unreachable!("there are enough numbers")
}

async fn metric(server: &TestServer, name: &str) -> f64 {
    let (_, text) = server.get(ADMIN_KEY, "/metrics").await;
    let text = text.as_str().expect("text").to_owned();
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name) && !line.starts_with('#'));
    let value = line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| panic!("no {name} in {text}"));
    value.parse().expect("a number")
}

#[tokio::test]
async fn a_new_tenant_is_served_within_a_second_and_a_removed_one_is_refused() {
    let world = World::new();
    let server = world.clone().start().await;
    let hello = json!({ "channel": "log", "message": "hello" });
    let mut fastest = DEADLINE;
    // Asked seldom: who tries a wrong key too often is told to wait.
    let pause = Duration::from_millis(100);
    for round in 0..3 {
        assert_eq!(server.post(KEY_C, "/notifications", &hello).await.0, 403);
        server.put(&with_tenant(&world, TENANT_C, &format!("T{round}"), KEY_C));
        let start = Instant::now();
        while server.post(KEY_C, "/notifications", &hello).await.0 != 202 {
            assert!(start.elapsed() < DEADLINE, "the new tenant is never known");
            tokio::time::sleep(pause).await;
        }
        fastest = fastest.min(start.elapsed());
        server.put(&world);
        let start = Instant::now();
        while server.post(KEY_C, "/notifications", &hello).await.0 != 403 {
            assert!(start.elapsed() < DEADLINE, "the removed tenant is still served");
            tokio::time::sleep(pause).await;
        }
        assert_eq!(server.post(KEY_A, "/notifications", &hello).await.0, 202);
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_is_added_changed_and_removed_is_told() {
    let world = World::new();
    let server = world.clone().start().await;
    let before = with_tenant(&world, TENANT_C, "Third", KEY_C);
    server.reload(&before).await;
    let told = taken_over(&server, |number| {
        let mut after = world.clone();
        after.tenants[1]["weight"] = json!(number + 2);
        after.channels[1]["options"] = json!({ "expiresAfter": format!("{}m", number + 1) });
        after
            .channels
            .push(json!({ "tenantId": TENANT_A, "channelType": "log", "channelName": format!("new {number}") }));
        after
    })
    .await;
    let names = |of: &Value, member: &str, name: &str| -> Vec<String> {
        let list = of[member].as_array().expect("a list");
        list.iter().map(|item| item[name].as_str().expect("a name").to_owned()).collect()
    };
    let added = names(&told["added"], "channels", "channelName");
    assert!(matches!(&added[..], [name] if name.starts_with("new ")), "{told:#}");
    assert_eq!(names(&told["changed"], "channels", "channelName"), ["log b"]);
    assert_eq!(names(&told["changed"], "tenants", "tenantName"), ["Tenant B"]);
    let number = told["configuration"]["version"].as_u64().expect("a number");
    assert_eq!(version(&server.url("")).await, number);
    assert_eq!(metric(&server, "conductor_config_version").await as u64, number);
    assert_eq!(metric(&server, "conductor_config_last_reload_successful").await, 1.0);
    let (status, unchanged) = server.post(ADMIN_KEY, "/reload", &Value::Null).await;
    assert_eq!((status, &unchanged["changedAnything"]), (200, &json!(false)));
    assert_eq!(unchanged["configuration"], told["configuration"]);
    server.stop().await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_in_the_words_of_the_start_and_the_old_one_goes_on() {
    let world = World::new();
    let server = world.clone().start().await;
    let hash = |health: &Value| health["configuration"].clone();
    let before = hash(&server.get("", "/health").await.1);
    let mut bad = with_tenant(&world, TENANT_C, "Third", KEY_C);
    bad.channels[0]["channelType"] = json!("lgo");
    bad.variables.retain(|(name, _)| name != "KEY_B");
    let (status, refused) = server.reload(&bad).await;
    assert_eq!(status, 422, "{refused:#}");
    let config = server.directory().join("config");
    let environment = conductor::config::Environment::from_pairs(bad.variables.clone());
    let report = conductor::config::load(&config, &environment, bad.table).err().expect("it is bad");
    let told: Vec<_> =
        refused["details"].as_array().expect("faults").iter().map(|fault| fault["message"].as_str().unwrap()).collect();
    let expected: Vec<_> = report.faults().iter().map(ToString::to_string).collect();
    assert!(expected.len() >= 2, "{expected:?}");
    assert_eq!(told, expected);
    assert_eq!(refused["summary"], report.summary());

    let hello = json!({ "channel": "log", "message": "hello" });
    for (key, status) in [(KEY_A, 202), (KEY_B, 202), (KEY_C, 403)] {
        assert_eq!(server.post(key, "/notifications", &hello).await.0, status);
    }
    assert_eq!(hash(&server.get("", "/health").await.1), before);
    assert_eq!(metric(&server, "conductor_config_last_reload_successful").await, 0.0);
    let (status, mended) = server.reload(&world).await;
    assert_eq!((status, &mended["configuration"]), (200, &before));
    assert_eq!(metric(&server, "conductor_config_last_reload_successful").await, 1.0);
    server.stop().await;
}
