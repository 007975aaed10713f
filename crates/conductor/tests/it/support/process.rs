//! The program in a process of its own, so that it can be killed, stopped by a signal, starved and weighed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::server::World;

/// A conductor in a process of its own, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    /// Starts it on a free port and waits until it serves.
    pub(crate) fn start(directory: &TempDir, world: &World) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_conductor")), directory.path(), world)
    }

    /// Starts it by a shell, after `preparation`.
    pub(crate) fn start_after(preparation: &str, directory: &TempDir, world: &World) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{preparation}; exec {}", env!("CARGO_BIN_EXE_conductor"))]);
        Self::start_by(shell, directory.path(), world)
    }

    /// Starts it by a command that becomes it, with `data` as its folder.
    pub(crate) fn start_by(mut command: Command, data: &Path, world: &World) -> Self {
        let mut child = command
            .current_dir(data)
            .envs(world.variables.iter().map(|(name, value)| (name, value)))
            .env("PORT", "0")
            .env("HOST", "127.0.0.1")
            .env("CONFIG_DIR", data.join("config"))
            .env("DATA_DIR", data)
            .env("LOG_LEVEL", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.map_while(Result::ok).find(|line| line.contains("serves on"));
        let line = line.expect("it says where it serves");
        let url = line.split_whitespace().last().expect("an address").to_owned();
        Self { child, url }
    }

    /// `host:port`
    pub(crate) fn address(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it holds now, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, Signal::TERM).expect("it runs");
    }

    /// Waits until it has ended by itself. None: it has not within this time.
    pub(crate) async fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return Some(status);
            }
            if start.elapsed() > time {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: no handler runs, nothing is flushed. One that has ended already cannot be killed.
        let _ = self.child.kill();
        self.child.wait().expect("it has ended");
    }
}
