//! Backup and restore by the real program, beside a server under load, with the server, the backup and the restore killed
//! half-way. Nothing that was accepted before a backup began is missing in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::support::process::{Ended, Process, call, conductor, in_world, run};
use super::support::provider::{DEADLINE, Provider};
use super::support::server::{KEY_A, TENANT_A, World, answer, http};

/// How often it is tried to stop something half-way: it may be done before it is noticed that it has begun.
const TRIES: usize = 40;
/// Enough that copying takes a while.
const LARGE: usize = 60_000;
const MANY: usize = 300;

/// A call of the program with the folders of a world.
fn command(directory: &TempDir, world: &World, arguments: &[&str]) -> Command {
    let mut command = conductor(directory.path(), arguments);
    in_world(&mut command, directory.path(), world);
    command
}

async fn post(http: &reqwest::Client, url: &str, path: &str, body: &Value) -> Option<Value> {
    let answer = http.post(format!("{url}{path}")).bearer_auth(KEY_A).json(body).send().await.ok()?;
    let status = answer.status().as_u16();
    assert!([202, 207].contains(&status), "{status}");
    answer.json().await.ok()
}

/// Has many large notifications accepted that are to be sent much later. Gives their ids.
async fn accept_many(url: &str) -> Vec<String> {
    let (http, mut ids) = (http(), Vec::new());
    let one = json!({
        "channel": "webhook", "message": "x".repeat(LARGE), "sendAt": "2190-01-01T00:00:00Z",
        "expiresAt": "2200-01-01T00:00:00Z",
    });
    while ids.len() < MANY {
        let batch = json!({ "notifications": vec![&one; 150] });
        let told = post(&http, url, "/notifications/batch", &batch).await.expect("an answer");
        let results = told["results"].as_array().expect("results");
        ids.extend(results.iter().map(|result| result["id"].as_str().expect("accepted").to_owned()));
    }
    ids
}

/// Clients that send without end until the server is gone or they are told to stop.
struct Load {
    is_over: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    fn begin(url: &str) -> Self {
        let (is_over, accepted, mut clients) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), JoinSet::new());
        for client in 0..4 {
            let (http, url) = (http(), url.to_owned());
            let (is_over, accepted) = (Arc::clone(&is_over), Arc::clone(&accepted));
            clients.spawn(async move {
                let mut ids = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let body =
                        json!({ "channel": "webhook", "message": "x".repeat(2_000), "targetId": client.to_string() });
                    let Some(told) = post(&http, &url, "/notifications", &body).await else { break };
                    ids.push(told["id"].as_str().expect("an id").to_owned());
                    accepted.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                ids
            });
        }
        Self { is_over, accepted, clients }
    }

    /// Waits until so many have been accepted.
    async fn until(self, count: usize) -> Self {
        let began = Instant::now();
        while self.accepted.load(Ordering::Relaxed) < count {
            assert!(began.elapsed() < DEADLINE, "{:?} of {count} were accepted", self.accepted);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self
    }

    async fn end(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}

async fn story(http: &reqwest::Client, url: &str, id: &str) -> (u16, Value) {
    answer(http.get(format!("{url}/notifications/{id}")).bearer_auth(KEY_A)).await
}

async fn expect_all(url: &str, ids: &[String]) {
    assert!(ids.len() > 10, "too few to prove anything: {}", ids.len());
    let http = http();
    for id in ids {
        let (status, story) = story(&http, url, id).await;
        assert_eq!(status, 200, "{id} is missing: {story}");
    }
}

/// A signal takes a while to arrive.
fn until_stopped(process: &Process) {
    let began = Instant::now();
    let state = || fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    while !state().rsplit(')').next().unwrap_or_default().trim_start().starts_with(['T', 'Z']) {
        assert!(began.elapsed() < DEADLINE, "it does not stop: {}", state());
    }
}

/// Starts a command that writes `part`, and stops it in the middle of that by a signal.
fn half_way(part: &Path, command: impl Fn() -> Command, undo: impl Fn()) -> Process {
    for _ in 0..TRIES {
        let mut process = Process::spawn(&mut command());
        let began = Instant::now();
        while process.is_running() {
            if fs::metadata(part).is_ok_and(|part| part.len() > 1_000_000) {
                process.signal(Signal::STOP);
                until_stopped(&process);
                if part.exists() {
                    return process;
                }
                process.signal(Signal::CONT);
            }
            assert!(began.elapsed() < DEADLINE, "it hangs: {}", process.text());
        }
        process.ended().with(0);
        undo();
    }
    panic!("it is never seen half-way");
}

fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// A server whose store takes a while to copy, and a place for its backup.
struct Scene {
    directory: TempDir,
    elsewhere: TempDir,
    world: World,
    process: Process,
    /// What was accepted before anything else happens.
    before: Vec<String>,
    _provider: Provider,
}

impl Scene {
    async fn begin() -> Self {
        let provider = Provider::start().await;
        let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({}));
        world.write(&directory.path().join("config"));
        let process = Process::start(&directory, &world);
        let before = accept_many(&process.url).await;
        Self { directory, elsewhere, world, process, before, _provider: provider }
    }

    fn target(&self) -> PathBuf {
        self.elsewhere.path().join("conductor.db")
    }

    /// Backs up to a file of this name.
    fn backup(&self, target: &Path) -> Command {
        command(&self.directory, &self.world, &["backup", target.to_str().expect("UTF-8")])
    }

    fn backup_half_way(&self) -> Process {
        let target = self.target();
        half_way(&part_of(&target), || self.backup(&target), || fs::remove_file(&target).expect("it is there"))
    }

    /// Restores a backup into a folder of its own, and starts a server there that has to know all of these.
    async fn expect_in(&self, target: &Path, ids: &[String]) -> (TempDir, Process) {
        let place = TempDir::new().expect("a directory");
        self.world.write(&place.path().join("config"));
        let words = ["restore", target.to_str().expect("UTF-8")];
        let told = run(&mut command(&place, &self.world, &words)).with(0).out;
        for words in
            ["Restored ", "it is sound.", "What was accepted later is not in it", "Start the server: conductor"]
        {
            assert!(told.contains(words), "{words:?} not in {told}");
        }
        assert!(told.contains("deliveries wait: the next start sends them"), "{told}");
        let process = Process::start(&place, &self.world);
        expect_all(&process.url, ids).await;
        (place, process)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_beside_a_server_under_load_serves_all_that_was_accepted_before_it_began() {
    let scene = Scene::begin().await;
    let small = Load::begin(&scene.process.url).until(50).await.end().await;
    let load = Load::begin(&scene.process.url);
    let mut backup = scene.backup(&scene.target());
    let told = tokio::task::spawn_blocking(move || run(&mut backup).with(0)).await.unwrap();
    for words in ["Backed up to ", "MiB), and read from end to end: it is sound.", "notifications, the newest", ".env"]
    {
        assert!(told.out.contains(words), "{words:?} not in {}", told.out);
    }
    let during = load.accepted.load(Ordering::Relaxed);
    assert!(during > 5, "the server was held up: it accepted {during} meanwhile");
    load.end().await;
    let mode = fs::metadata(scene.target()).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode, fs::read_dir(scene.elsewhere.path()).unwrap().count()), (0o600, 1));
    let before = [scene.before.clone(), small.clone()].concat();
    let (_place, process) = scene.expect_in(&scene.target(), &before).await;
    // What waited in the backup is sent, and something new too.
    let http = http();
    let new = post(&http, &process.url, "/notifications", &json!({ "channel": "webhook", "message": "new" })).await;
    let new = new.expect("accepted")["id"].as_str().expect("an id").to_owned();
    for id in small.iter().chain([&new]) {
        let began = Instant::now();
        while story(&http, &process.url, id).await.1["status"] != "sent" {
            assert!(began.elapsed() < DEADLINE, "{id} is never sent");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    process.stop().with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_during_a_backup_spoils_neither_it_nor_itself() {
    let mut scene = Scene::begin().await;
    let load = Load::begin(&scene.process.url).until(5).await;
    let backup = scene.backup_half_way();
    // kill -9, with requests under way and the backup in the middle of the file.
    scene.process.signal(Signal::KILL);
    assert!(scene.process.ended_within(DEADLINE).await.is_some());
    scene.process = Process::start(&scene.directory, &scene.world);
    let accepted = load.end().await;
    let later = Load::begin(&scene.process.url).until(50).await.end().await;
    assert!(!scene.target().exists(), "it has its name before it is complete");
    backup.signal(Signal::CONT);
    let told = tokio::task::spawn_blocking(move || backup.ended().with(0)).await.unwrap();
    assert!(told.out.contains("it is sound"), "{}", told.out);
    expect_all(&scene.process.url, &[scene.before.clone(), accepted, later].concat()).await;
    scene.expect_in(&scene.target(), &scene.before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_for_good_leaves_a_store_that_is_backed_up_whole() {
    let scene = Scene::begin().await;
    let backup = scene.backup_half_way();
    scene.process.signal(Signal::KILL);
    backup.signal(Signal::CONT);
    backup.ended().with(0);
    // And one that begins when nobody is there any more.
    let second = scene.elsewhere.path().join("second.db");
    run(&mut scene.backup(&second)).with(0);
    for target in [scene.target(), second] {
        scene.expect_in(&target, &scene.before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_no_backup_and_the_next_one_takes_its_place() {
    let scene = Scene::begin().await;
    let target = scene.target();
    let backup = scene.backup_half_way();
    let busy = run(&mut scene.backup(&target)).with(1);
    assert!(busy.err.contains("another process is writing this copy") && busy.err.contains("help: "), "{}", busy.err);
    drop(backup);
    assert!(part_of(&target).exists() && !target.exists());
    let (status, _) = answer(http().get(format!("{}/readyz", scene.process.url))).await;
    assert_eq!(status, 200);
    run(&mut scene.backup(&target)).with(0);
    assert!(target.exists() && !part_of(&target).exists());
    scene.expect_in(&target, &scene.before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_leaves_no_store_and_is_done_again() {
    let scene = Scene::begin().await;
    run(&mut scene.backup(&scene.target())).with(0);
    let place = TempDir::new().unwrap();
    scene.world.write(&place.path().join("config"));
    let store = place.path().join("conductor.db");
    let restore = || command(&place, &scene.world, &["restore", scene.target().to_str().expect("UTF-8")]);
    let killed = half_way(&part_of(&store), restore, || fs::remove_file(&store).expect("it was restored"));
    let owned = run(&mut restore()).with(2);
    assert!(owned.err.contains("another conductor is using this store"), "{}", owned.err);
    drop(killed);
    assert!(!store.exists(), "half of a store");
    run(&mut restore()).with(0);
    assert!(store.exists() && !part_of(&store).exists());
    let process = Process::start(&place, &scene.world);
    expect_all(&process.url, &scene.before).await;
    process.stop().with(0);
}

/// A call that has to be refused with these words.
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let ended = run(command).with(code);
    for word in words.iter().chain(&["error: ", "help: "]) {
        assert!(ended.err.contains(word), "{word:?} not in {}", ended.err);
    }
    assert!(ended.out.is_empty(), "{}", ended.out);
}

#[test]
fn what_a_backup_must_not_do_is_refused_with_the_mend() {
    let folder = TempDir::new().unwrap();
    call(folder.path(), &["init"]).with(0);
    let command = |arguments: &[&str]| conductor(folder.path(), arguments);
    refused(&mut command(&["backup", "copy.db"]), 2, &["data/conductor.db: there is no such file", "--data-dir"]);
    Process::serve(&mut command(&[])).stop().with(0);
    let told = call(folder.path(), &["backup", "copy.db"]).with(0);
    assert!(told.out.contains("0 notifications\n"), "{}", told.out);
    refused(&mut command(&["backup", "copy.db"]), 2, &["copy.db: there is one already", "--force"]);
    call(folder.path(), &["backup", "--force", "copy.db"]).with(0);
    let before = fs::read(folder.path().join("data/conductor.db")).unwrap();
    refused(&mut command(&["backup", "--force", "data/conductor.db"]), 2, &["data/conductor.db: there is one already"]);
    assert_eq!(fs::read(folder.path().join("data/conductor.db")).unwrap(), before);
    refused(&mut command(&["backup", "nowhere/copy.db"]), 1, &["nowhere/copy.db", "No such file"]);
    refused(&mut command(&["backup", "/proc/copy.db"]), 1, &["/proc/copy.db"]);
    // In a folder each gets a name of its own.
    fs::create_dir(folder.path().join("backups")).unwrap();
    call(folder.path(), &["backup", "backups"]).with(0);
    let made: Vec<_> = fs::read_dir(folder.path().join("backups")).unwrap().flatten().collect();
    let name = made[0].file_name().into_string().unwrap();
    assert!(made.len() == 1 && name.starts_with("conductor-2") && name.ends_with("Z.db"), "{name}");
}

#[test]
fn what_a_restore_must_not_do_is_refused_with_the_mend() {
    let folder = TempDir::new().unwrap();
    call(folder.path(), &["init"]).with(0);
    let command = |arguments: &[&str]| conductor(folder.path(), arguments);
    let server = Process::serve(&mut command(&[]));
    call(folder.path(), &["backup", "copy.db"]).with(0);
    refused(&mut command(&["restore", "copy.db"]), 2, &["another conductor is using this store", "stop the server"]);
    server.stop().with(0);
    refused(
        &mut command(&["restore", "copy.db"]),
        2,
        &["data/conductor.db: there is one already", "move conductor.db away"],
    );
    refused(&mut command(&["restore", "none.db"]), 2, &["none.db: there is no such file"]);
    fs::write(folder.path().join("text.db"), "Dear diary".repeat(1_000)).unwrap();
    let elsewhere = |file: &str| command(&["restore", "--data-dir", "other", file]);
    refused(&mut elsewhere("text.db"), 2, &["text.db: the file is no store of Conductor's", "`conductor backup`"]);
    let whole = fs::read(folder.path().join("copy.db")).unwrap();
    fs::write(folder.path().join("half.db"), &whole[..whole.len() / 2]).unwrap();
    let ended = run(&mut elsewhere("half.db"));
    assert!(
        ended.code != Some(0) && ended.err.contains("half.db: ") && ended.err.contains("damaged"),
        "{}",
        ended.text()
    );
    assert!(!folder.path().join("other/conductor.db").exists());
    // The keys and the configuration stay as they are.
    let env = fs::read(folder.path().join("data/.env")).unwrap();
    fs::remove_file(folder.path().join("data/conductor.db")).unwrap();
    let told = call(folder.path(), &["restore", "copy.db"]).with(0);
    assert!(told.out.contains("Start the server: conductor"), "{}", told.out);
    assert_eq!(fs::read(folder.path().join("data/.env")).unwrap(), env);
    Process::serve(&mut command(&[])).stop().with(0);
}

/// A disk of so few bytes that no other process sees, in which the program runs.
fn on_a_small_disk(folder: &Path, script: &str) -> Option<Ended> {
    let mut command = super::support::process::bare("unshare", folder);
    let script = format!("mkdir -p small; mount -t tmpfs -o size=64k tmpfs small; {script}");
    let ended = run(command.args(["-rm", "sh", "-ec", &script, env!("CARGO_BIN_EXE_conductor")]));
    if ended.err.contains("unshare") || ended.err.contains("mount") {
        super::support::skip::skipped("this machine does not let its users mount a file system of their own");
        return None;
    }
    Some(ended)
}

#[test]
fn a_disk_with_too_little_room_is_told_before_anything_is_written() {
    let folder = TempDir::new().unwrap();
    call(folder.path(), &["init"]).with(0);
    Process::serve(&mut conductor(folder.path(), &[])).stop().with(0);
    call(folder.path(), &["backup", "copy.db"]).with(0);
    for script in
        ["\"$0\" backup small/copy.db; ls small", "\"$0\" restore --data-dir small copy.db || (ls small; exit 1)"]
    {
        let Some(ended) = on_a_small_disk(folder.path(), script) else { return };
        let ended = ended.with(1);
        assert!(ended.err.contains("too little room") && ended.err.contains("KiB are free"), "{}", ended.text());
        assert!(!ended.out.contains(".db"), "something was left: {}", ended.out);
    }
}
