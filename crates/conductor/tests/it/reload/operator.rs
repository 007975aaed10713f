//! The operator asks: by a command, by a signal, by a request.

use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::support::process::{Ended, Process, conductor, run, serving};
use super::super::support::provider::DEADLINE;
use super::super::support::server::{ADMIN_KEY, KEY_A, TENANT_A, World};
use super::{KEY_C, TENANT_C, with_tenant};

fn reload(process: &Process, directory: &Path, key: &str, arguments: &[&str]) -> Ended {
    let mut command = conductor(directory, &[&["reload"], arguments].concat());
    command.env("PORT", process.port()).env("CONDUCTOR_ADMIN_KEY", key);
    run(&mut command)
}

#[test]
fn the_command_tells_what_was_taken_over_or_what_is_wrong() {
    let directory = TempDir::new().expect("a directory");
    let (path, world) = (directory.path(), World::new());
    let process = Process::serve(&mut serving(path, &world));
    let start = Instant::now();
    // The server may have noticed by itself before it is asked: then there is nothing left to tell.
    let told = (0..).find_map(|number| {
        assert!(start.elapsed() < DEADLINE, "the server is always faster");
        let mut world = world.clone();
        let name = format!("number {number}");
        world.channels.push(json!({ "tenantId": TENANT_A, "channelType": "log", "channelName": name }));
        world.write(&path.join("config"));
        let told = reload(&process, path, ADMIN_KEY, &[]).with(0).out;
        told.contains("is in use").then_some((told, name))
    });
    let (told, name) = told.expect("there are enough numbers");
    assert!(told.contains(&format!("Added\n  channel  {name} (log, ")), "{told}");
    let again = reload(&process, path, ADMIN_KEY, &[]).with(0).out;
    assert!(again.starts_with("Nothing has changed: configuration "), "{again}");
    let json = reload(&process, path, ADMIN_KEY, &["--json"]).with(0).json();
    assert_eq!(json["changedAnything"], false);

    let mut bad = with_tenant(&world, TENANT_C, "Third", KEY_C);
    bad.channels[0]["channelNmae"] = json!("x");
    bad.write(&path.join("config"));
    let refused = reload(&process, path, ADMIN_KEY, &[]).with(2).err;
    let mut check = conductor(path, &["check"]);
    check.env("CONFIG_DIR", path.join("config")).env("DATA_DIR", path).envs(world.variables.iter().cloned());
    let check = run(&mut check).with(2).err;
    let faults = |text: &str| {
        text.split_once("\n\n")
            .and_then(|(_, rest)| rest.split_once("\n\nMend it"))
            .map(|(faults, _)| faults.to_owned())
    };
    let expected = faults(&check).expect("faults");
    assert!(expected.contains("channelNmae") && expected.contains("KEY_THIRD"), "{expected}");
    assert_eq!(faults(&refused), Some(expected), "{refused}");
    process.logged("The changed configuration cannot be used");
    let line = process.logged("KEY_THIRD");
    assert!(line.contains("[ERROR]"), "{line}");

    let wrong = reload(&process, path, KEY_A, &[]).with(1).err;
    assert!(wrong.contains("answered 403") && wrong.contains("CONDUCTOR_ADMIN_KEY"), "{wrong}");
    process.stop().with(0);
    let mut without = conductor(path, &["reload"]);
    assert!(run(&mut without).with(2).err.contains("CONDUCTOR_ADMIN_KEY is not set"));
}

#[test]
fn a_signal_has_the_configuration_read_again_and_stops_nothing() {
    let directory = TempDir::new().expect("a directory");
    let world = World::new();
    let mut process = Process::serve(&mut serving(directory.path(), &world));
    process.signal(Signal::HUP);
    let line = process.logged("The configuration was read again, and is as it was");
    assert!(line.contains("cause=signal"), "{line}");
    with_tenant(&world, TENANT_C, "Third", "").write(&directory.path().join("config"));
    process.signal(Signal::HUP);
    process.logged("KEY_THIRD");
    assert!(process.is_running());
    process.stop().with(0);
}

#[tokio::test]
async fn the_operators_key_is_taken_over_too_and_without_one_nobody_can_ask() {
    let world = World::new();
    let server = world.clone().start().await;
    let other = "another-operators-test-key-0123456789abcdef-012";
    let mut changed = world.clone();
    changed.variables.retain(|(name, _)| name != "CONDUCTOR_ADMIN_KEY");
    let without = changed.clone();
    changed.variables.push(("CONDUCTOR_ADMIN_KEY".into(), other.into()));
    let (status, told) = server.reload(&changed).await;
    assert_eq!(
        (status, &told["operatorKeyChanged"]),
        (200, &json!(true)),
        "variables alone are noticed by nobody else"
    );
    assert_eq!(server.post(ADMIN_KEY, "/reload", &Value::Null).await.0, 403);
    server.put(&without);
    assert_eq!(server.post(other, "/reload", &Value::Null).await.0, 200);
    for key in [other, KEY_A] {
        let (status, told) = server.post(key, "/reload", &Value::Null).await;
        assert_eq!(status, 403, "{told}");
        assert!(told["type"].as_str().is_some_and(|kind| kind.ends_with("no-operator-key")), "{told}");
    }
    server.stop().await;
}
