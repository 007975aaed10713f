//! The load: connections that each send one request after the other, and the times that the answers took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The most that an answer's head may take.
const HEAD_MAX: usize = 8 * 1024;

/// What a run came to, or several.
#[derive(Default)]
pub(crate) struct Measured {
    /// How long each answer with 202 took, sorted.
    times: Vec<Duration>,
    took: Duration,
}

impl Measured {
    /// Answers that came within a time.
    pub(crate) fn of(mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort_unstable();
        Self { times, took }
    }

    /// Counts another run in.
    pub(crate) fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.times.sort_unstable();
        self.took += other.took;
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    /// How many came in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    /// The time within which this share of the answers came.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let index = (self.times.len() as f64 * share) as usize;
        self.times.get(index.min(self.times.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// One request as bytes. `{n}` in the body would change its length, so each connection sends a message of its own.
pub(crate) fn request(key: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /notifications HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends over so many connections for so long. `make` gives each connection its request.
pub(crate) async fn run(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    make: impl Fn(usize) -> Vec<u8>,
) -> Result<Measured> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    for index in 0..connections {
        senders.spawn(send(address, make(index), Arc::clone(&stop)));
    }
    let start = Instant::now();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    while let Some(sent) = senders.join_next().await {
        times.extend(sent??);
    }
    Ok(Measured::of(times, start.elapsed()))
}

async fn send(address: SocketAddr, request: Vec<u8>, stop: Arc<AtomicBool>) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(address).await?;
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let status = connection.ask(&request).await?;
        ensure!(status == 202, "the answer was {status}");
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Sends so many requests over so many connections.
pub(crate) async fn send_count(
    address: SocketAddr,
    connections: usize,
    count: u64,
    make: impl Fn(usize) -> Vec<u8>,
) -> Result<()> {
    let left = Arc::new(AtomicU64::new(count));
    let mut senders = JoinSet::new();
    for index in 0..connections {
        let (request, left) = (make(index), Arc::clone(&left));
        senders.spawn(async move {
            let mut connection = Connection::open(address).await?;
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let status = connection.ask(&request).await?;
                ensure!(status == 202, "the answer was {status}");
            }
            Ok(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    Ok(())
}

/// A kept connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(HEAD_MAX) })
    }

    /// Sends a request and reads its answer. Gives the status.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
            if let Some(head) = find(&self.buffer, b"\r\n\r\n") {
                let length = content_length(&self.buffer[..head])?;
                while self.buffer.len() < head + 4 + length {
                    ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the answer was cut off");
                }
                let status = self.buffer.get(9..12).and_then(|text| std::str::from_utf8(text).ok());
                return status.and_then(|text| text.parse().ok()).context("no status");
            }
            ensure!(self.buffer.len() < HEAD_MAX, "an answer's head without end");
        }
    }
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

pub(crate) fn content_length(head: &[u8]) -> Result<usize> {
    let head = std::str::from_utf8(head)?;
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value.trim())
    });
    Ok(line.map_or(Ok(0), str::parse)?)
}
