//! The ways in which files change: written, renamed, links put elsewhere, folders exchanged, variables set.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::super::support::process::Process;
use super::super::support::server::{KEY_A, KEY_B, TENANT_A, World, answer, http};
use super::{KEY_C, TENANT_C, beyond, version, with_tenant};

/// The world in which the first tenant has so many channels.
fn world(channels: usize) -> World {
    let mut world = World::new();
    for number in 0..channels {
        world.channels.push(json!({ "tenantId": TENANT_A, "channelType": "log", "channelName": format!("n{number}") }));
    }
    world
}

async fn channels(url: &str, key: &str) -> (u16, usize) {
    let (status, page) = answer(http().get(format!("{url}/channels")).bearer_auth(key)).await;
    (status, page["data"].as_array().map_or(0, Vec::len))
}

/// What a kubelet makes: files that are links into a folder that is a link.
fn projected(folder: &Path, version: &str, world: &World) {
    world.write(&folder.join(version));
    symlink(version, folder.join("..next")).expect("a link");
    fs::rename(folder.join("..next"), folder.join("..data")).expect("it is put in place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_be_written_renamed_or_linked_to_another() {
    let directory = TempDir::new().expect("a directory");
    let config = directory.path().join("config");
    fs::create_dir(&config).expect("a folder");
    projected(&config, "v0", &world(0));
    for name in ["tenants.json", "channels.json", "plugins.json"] {
        symlink(format!("..data/{name}"), config.join(name)).expect("a link");
    }
    let process = Process::start(&directory, &world(0));
    let url = process.url.clone();
    assert_eq!(channels(&url, KEY_A).await, (200, 1));
    // As a kubelet does it.
    projected(&config, "v1", &world(1));
    let mut now = beyond(&url, 1).await;
    assert_eq!(channels(&url, KEY_A).await, (200, 2));
    // As an editor does it that writes beside the place: the link becomes a file.
    world(2).write(&directory.path().join("beside"));
    fs::rename(directory.path().join("beside/channels.json"), config.join("channels.json")).expect("it is renamed");
    now = beyond(&url, now).await;
    assert_eq!(channels(&url, KEY_A).await, (200, 3));
    // As a shell does it.
    world(3).write(&directory.path().join("beside"));
    fs::copy(directory.path().join("beside/channels.json"), config.join("channels.json")).expect("it is written");
    now = beyond(&url, now).await;
    assert_eq!(channels(&url, KEY_A).await, (200, 4));
    // The folder itself is exchanged. Nothing happens in it, nor in the one that takes its place.
    world(4).write(&directory.path().join("another"));
    fs::rename(&config, directory.path().join("old")).expect("it is moved away");
    fs::rename(directory.path().join("another"), &config).expect("it is moved here");
    now = beyond(&url, now).await;
    assert_eq!(channels(&url, KEY_A).await, (200, 5));
    // And that one is still watched.
    world(5).write(&config);
    beyond(&url, now).await;
    assert_eq!(channels(&url, KEY_A).await, (200, 6));
    tokio::task::block_in_place(|| process.stop().with(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_which_the_system_says_nothing_is_found_by_looking() {
    let directory = TempDir::new().expect("a directory");
    for number in 0..2 {
        world(number).write(&directory.path().join(format!("far/v{number}")));
    }
    // The link lies in a folder that nobody watches.
    symlink("v0", directory.path().join("far/now")).expect("a link");
    symlink("far/now", directory.path().join("config")).expect("a link");
    let process = Process::start(&directory, &world(0));
    symlink("v1", directory.path().join("far/next")).expect("a link");
    fs::rename(directory.path().join("far/next"), directory.path().join("far/now")).expect("it is put in place");
    beyond(&process.url, 1).await;
    assert_eq!(channels(&process.url, KEY_A).await, (200, 2));
    tokio::task::block_in_place(|| process.stop().with(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_env_files_and_in_files_of_their_own_are_read_again() {
    let directory = TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let mut world = world(0);
    world.write(&path("config"));
    world.variables.retain(|(name, _)| name != "KEY_B");
    world.variables.push(("KEY_B_FILE".into(), path("key-b").display().to_string()));
    fs::write(path("key-b"), KEY_B).expect("a file");
    let process = Process::start(&directory, &world);
    let url = process.url.clone();
    assert_eq!(channels(&url, KEY_B).await, (200, 1));
    let other = "another-key-of-the-second-tenant-0123456789abcd";
    fs::write(path("key-b"), other).expect("a file");
    let mut now = beyond(&url, 1).await;
    assert_eq!((channels(&url, KEY_B).await.0, channels(&url, other).await.0), (403, 200));
    // A tenant whose key is not there yet is no reason to stop, and is there with it.
    with_tenant(&world, TENANT_C, "Third", KEY_C).write(&path("config"));
    tokio::task::block_in_place(|| process.logged("KEY_THIRD"));
    assert_eq!((version(&url).await, channels(&url, KEY_A).await.0), (now, 200));
    fs::write(path(".env"), format!("KEY_THIRD={KEY_C}\n")).expect("a file");
    now = beyond(&url, now).await;
    assert_eq!(channels(&url, KEY_C).await, (200, 1));
    // What the process was started with wins.
    fs::write(path(".env"), format!("KEY_THIRD={KEY_C}\nKEY_A={other}-and-more\nPORT=1\n")).expect("a file");
    let key = "the-operators-test-key-0123456789abcdef-0123456";
    let (status, told) = answer(http().post(format!("{url}/reload")).bearer_auth(key)).await;
    assert_eq!((status, version(&url).await, channels(&url, KEY_A).await.0), (200, now, 200));
    let warnings = told["warnings"].to_string();
    assert!(warnings.contains("PORT stands in a .env file") && warnings.contains("start the server again"), "{told:#}");
    tokio::task::block_in_place(|| process.stop().with(0));
}
