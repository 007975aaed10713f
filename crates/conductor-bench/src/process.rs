//! A server in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The tenants are numbered; each has this many characters of key.
const KEY: &str = "bench-key-0123456789abcdef0123456789abcdef";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The unit in which Linux tells programs their processor time (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A running server; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// The key of a tenant.
pub(crate) fn key(tenant: usize) -> String {
    format!("{KEY}-{tenant}")
}

/// Writes the configuration of so many tenants with a webhook channel each to `sink`.
pub(crate) fn configure(directory: &TempDir, tenants: usize, sink: SocketAddr, options: &Value) -> Result<()> {
    let id = |tenant: usize| format!("01943c2a-7c3e-7000-8000-{tenant:012x}");
    let tenant = |n| json!({ "id": id(n), "name": format!("Tenant {n}"), "authKeyEnvVar": format!("KEY_{n}") });
    let channel = |n| {
        let mut all = json!({ "allowNetworks": ["127.0.0.0/8"], "maxConcurrency": 64 });
        for (name, value) in options.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        json!({ "tenantId": id(n), "channelType": "webhook", "options": all,
                "providerIdEnvVar": "SINK", "providerSecretEnvVar": "SINK_SECRET" })
    };
    let files = [
        ("tenants.json", Value::from((0..tenants).map(tenant).collect::<Vec<_>>())),
        ("channels.json", Value::from((0..tenants).map(channel).collect::<Vec<_>>())),
        ("plugins.json", json!([{ "name": "webhook" }])),
    ];
    for (name, value) in files {
        std::fs::write(directory.path().join(name), value.to_string())?;
    }
    let mut variables = format!("SINK=http://{sink}/\nSINK_SECRET={SECRET}\n");
    for n in 0..tenants {
        variables.push_str(&format!("KEY_{n}={}\n", key(n)));
    }
    std::fs::write(directory.path().join(".env"), variables)?;
    Ok(())
}

impl Process {
    /// Starts Conductor on a configured directory.
    pub(crate) fn conductor(program: &Path, directory: &TempDir) -> Result<Self> {
        let mut command = Command::new(program);
        command.current_dir(directory.path()).env("PORT", "0").env("HOST", "127.0.0.1").env("LOG_LEVEL", "error");
        command.env("CONFIG_DIR", directory.path()).env("DATA_DIR", directory.path());
        Self::start(command)
    }

    /// Starts the bare handler.
    pub(crate) fn bare() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare");
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let line = output.lines().map_while(Result::ok).find(|line| line.contains("serves on"));
        let url = line.as_deref().and_then(|line| line.split_whitespace().last()).context("it did not start")?;
        let address = url.trim_start_matches("http://").replace("localhost", "127.0.0.1").parse()?;
        Ok(Self { child, address })
    }

    /// Resident memory now, in MB.
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS")).context("no VmRSS")?;
        let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kilobytes / 1024.0)
    }

    /// The processor time that it has taken so far, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit(')').next().context("no fields")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }

    /// Stops it as an operator would, and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        let stopped = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(stopped.success(), "it could not be stopped");
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
