//! The program in a process of its own: called as a person or a service manager calls it, killed, stopped by a signal,
//! starved and weighed.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::provider::DEADLINE;
use super::server::World;

/// A call of the program in `directory`, with nothing of the environment in which the tests run. It takes any free port
/// of this machine.
pub(crate) fn conductor(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = bare(env!("CARGO_BIN_EXE_conductor"), directory);
    command.args(arguments);
    command
}

/// A call of any program under the same conditions.
pub(crate) fn bare(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("PORT", "0").env("HOST", "127.0.0.1");
    command
}

/// A call that serves a world: its files stand in `config`, all else in the directory itself.
pub(crate) fn serving(directory: &Path, world: &World) -> Command {
    world.write(&directory.join("config"));
    let mut command = conductor(directory, &[]);
    in_world(&mut command, directory, world);
    command
}

/// Gives a call the variables and folders of a world.
pub(crate) fn in_world(command: &mut Command, directory: &Path, world: &World) {
    command.envs(world.variables.iter().map(|(name, value)| (name, value)));
    command.env("CONFIG_DIR", directory.join("config")).env("DATA_DIR", directory);
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Ended {
    /// The call itself, after a look at its exit code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// All that it printed.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Calls the program and waits until it has ended.
pub(crate) fn call(directory: &Path, arguments: &[&str]) -> Ended {
    run(&mut conductor(directory, arguments))
}

/// Runs a command to its end. One that does not end in time fails the test.
pub(crate) fn run(command: &mut Command) -> Ended {
    run_with_input(command, "")
}

/// The same with something to read.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Ended {
    let mut process = Process::spawn(command.stdin(Stdio::piped()));
    let mut stdin = process.child.stdin.take().expect("its input");
    // Who does not read his input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    process.ended()
}

/// A running program, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Where it serves; empty for what is no server.
    pub(crate) url: String,
    out: Collected,
    err: Collected,
    start: Instant,
}

/// What a stream has said so far.
#[derive(Debug)]
struct Collected {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(mut stream: impl Read + Send + 'static) -> Self {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let shared = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut part) {
                shared.lock().unwrap().extend(&part[..length]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }
}

impl Process {
    /// Starts a program and does not wait for anything.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let start = Instant::now();
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let out = Collected::from(child.stdout.take().expect("its output"));
        let err = Collected::from(child.stderr.take().expect("its errors"));
        Self { child, url: String::new(), out, err, start }
    }

    /// Serves a world whose files are written already, and says little.
    pub(crate) fn start(directory: &TempDir, world: &World) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_conductor")), directory.path(), world)
    }

    /// The same by a shell, after `preparation`.
    pub(crate) fn start_after(preparation: &str, directory: &TempDir, world: &World) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{preparation}; exec {}", env!("CARGO_BIN_EXE_conductor"))]);
        Self::start_by(shell, directory.path(), world)
    }

    /// The same by a command that becomes the program.
    pub(crate) fn start_by(mut command: Command, directory: &Path, world: &World) -> Self {
        in_world(&mut command, directory, world);
        Self::serve(command.current_dir(directory).env("PORT", "0").env("HOST", "127.0.0.1").env("LOG_LEVEL", "error"))
    }

    /// Starts a server and waits until it says that it serves.
    pub(crate) fn serve(command: &mut Command) -> Self {
        let mut process = Self::spawn(command.stdin(Stdio::null()));
        loop {
            let out = process.out();
            if let Some((url, _)) = out.split_once(" serves on ").and_then(|(_, rest)| rest.split_once('\n')) {
                process.url = url.to_owned();
                return process;
            }
            assert!(process.is_running(), "it has ended: {}", process.text());
            assert!(process.start.elapsed() < DEADLINE, "it does not serve: {}", process.text());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `host:port`
    pub(crate) fn address(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }

    pub(crate) fn port(&self) -> String {
        self.url.rsplit(':').next().expect("a port").to_owned()
    }

    /// The memory that it holds now, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// What it has printed so far.
    pub(crate) fn out(&self) -> String {
        self.out.text()
    }

    /// What it has logged so far.
    pub(crate) fn err(&self) -> String {
        self.err.text()
    }

    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.out(), self.err())
    }

    /// Waits until it has logged this. Gives the line.
    pub(crate) fn logged(&self, words: &str) -> String {
        let start = Instant::now();
        loop {
            let text = self.err();
            let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
            if let Some(line) = complete.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(start.elapsed() < DEADLINE, "{words:?} was never logged: {text}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, signal).expect("it runs");
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has ended by itself. None: it has not within this time.
    pub(crate) async fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return Some(status);
            }
            if start.elapsed() > time {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_none()
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(self) -> Ended {
        self.terminate();
        self.ended()
    }

    /// Waits until it has ended.
    pub(crate) fn ended(mut self) -> Ended {
        let since = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                break status;
            }
            assert!(since.elapsed() < DEADLINE, "it does not end: {}", self.text());
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = self.start.elapsed();
        for stream in [&mut self.out, &mut self.err] {
            stream.reader.take().map(JoinHandle::join).transpose().expect("all is read");
        }
        Ended { code: status.code(), out: self.out(), err: self.err(), took }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: no handler runs, nothing is flushed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every folder and file below a directory, with what is in the files.
pub(crate) fn everything_in(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                found.insert(path.clone(), Vec::new());
                folders.push(path);
            } else {
                let content = std::fs::read(&path).expect("a file");
                found.insert(path, content);
            }
        }
    }
    found
}
