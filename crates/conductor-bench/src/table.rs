//! The figures, one after the other, and the table that they make.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::load::{self, Connection, Measured, request};
use crate::process::{Process, configure, key};
use crate::sink::Sink;

/// So many tenants share the load.
const TENANTS: usize = 16;
/// So many different targets each tenant sends to.
const TARGETS: usize = 16;
/// What waits in the store when the cost of a backlog is measured.
const BACKLOGS: [u64; 2] = [100_000, 1_000_000];
/// What is compared takes turns in so many slices: a machine's pace changes from second to second.
const SLICES: u32 = 5;
/// The end-to-end latency is measured at this many a second.
const PACE: u64 = 1_000;

/// What can be measured alone.
const FIGURES: [&str; 6] = ["idle", "accept", "end-to-end", "latency", "backlog", "against"];
/// Names another build, which `against` compares with.
const AGAINST: &str = "BENCH_AGAINST";

fn body(index: usize) -> String {
    let text = "The washing machine has finished: programme Cotton 60, 1 h 52 min, 0.94 kWh. Please empty it.";
    let target = index % TARGETS;
    format!(
        r#"{{"channel":"webhook","message":"{text}","title":"Laundry","priority":"normal","targetId":"room-{target}"}}"#
    )
}

fn requests(index: usize) -> Vec<u8> {
    request(&key(index % TENANTS), &body(index))
}

fn show(name: &str, value: &str, wanted: &str) {
    println!("| {name:<58} | {value:>24} | {wanted:>10} |");
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

/// Measures what was asked for, everything if nothing was, and prints the table.
pub(crate) async fn run(program: &Path, time: Duration, only: &[String]) -> Result<()> {
    if let Some(unknown) = only.iter().find(|name| !FIGURES.contains(&name.as_str())) {
        bail!("there is no figure \"{unknown}\"; there are {}", FIGURES.join(", "));
    }
    show("figure", "measured", "wanted");
    show("---", "---", "---");
    for name in FIGURES.iter().filter(|name| only.is_empty() || only.iter().any(|wish| wish == *name)) {
        match *name {
            "idle" => idle(program).await?,
            "accept" => accept(program, time).await?,
            "end-to-end" => end_to_end(program, time).await?,
            "latency" => latency(program, time).await?,
            "against" => against(program, time).await?,
            _ => backlog(program, time).await?,
        }
    }
    Ok(())
}

/// A sink whose channels take nothing: what is accepted stays.
async fn closed() -> Result<(TempDir, Sink)> {
    let hardly = json!({ "rate": { "per": "24h", "limit": 1, "burst": 1 }, "expiresAfter": "30d" });
    configured(Sink::start(false).await?, &hardly)
}

/// A sink whose channels take everything.
async fn open() -> Result<(TempDir, Sink)> {
    configured(Sink::start(false).await?, &json!({}))
}

fn configured(sink: Sink, options: &Value) -> Result<(TempDir, Sink)> {
    let directory = TempDir::new()?;
    configure(&directory, TENANTS, sink.address, options)?;
    Ok((directory, sink))
}

async fn idle(program: &Path) -> Result<()> {
    let (directory, _sink) = closed().await?;
    let mut starts = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let server = Process::conductor(program, &directory)?;
        Connection::open(server.address).await?.ask(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        starts.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
        if starts.len() == 5 {
            starts.sort_unstable();
            show("start to the first answer, ms (median of 5)", &milliseconds(starts[2]), "50");
            show("resident memory at rest, MB", &format!("{:.1}", server.memory()?), "20");
        }
        server.stop()?;
    }
    Ok(())
}

async fn accept(program: &Path, time: Duration) -> Result<()> {
    for connections in [1, 16, 64, 256] {
        let bare = Process::bare()?;
        let (directory, _sink) = closed().await?;
        let server = Process::conductor(program, &directory)?;
        let (mut yardstick, mut measured) = (Measured::default(), Measured::default());
        for _ in 0..SLICES {
            yardstick.add(load::run(bare.address, connections, time / SLICES, requests).await?);
            measured.add(load::run(server.address, connections, time / SLICES, requests).await?);
        }
        let name = format!("{connections} connections: durable accepts a second (bare)");
        show(&name, &format!("{:.0} ({:.0})", measured.per_second(), yardstick.per_second()), "");
        let wanted = if connections == 64 { "0.36" } else { "" };
        show("    against the bare handler", &format!("{:.2}", measured.per_second() / yardstick.per_second()), wanted);
        let (p50, p99) = (measured.percentile(0.5), measured.percentile(0.99));
        let p99_ratio = p99.as_secs_f64() / yardstick.percentile(0.99).as_secs_f64();
        show("    p50, p99 in ms", &format!("{}, {}", milliseconds(p50), milliseconds(p99)), "");
        let wanted = if connections == 64 { "2" } else { "" };
        show("    p99 against the bare handler's", &format!("{p99_ratio:.2}"), wanted);
        if connections == 64 {
            show("    resident memory under load, MB", &format!("{:.1}", server.memory()?), "80");
        }
    }
    Ok(())
}

/// What a change costs: two builds take turns at accepting, and at accepting and sending.
async fn against(program: &Path, time: Duration) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a tool for developers, configured by its environment")]
    let Ok(other) = std::env::var(AGAINST) else { return Ok(()) };
    for (name, is_sent) in [("accepts", false), ("accepts while sending", true)] {
        let (mut servers, mut measured) = (Vec::new(), [Measured::default(), Measured::default()]);
        for program in [program, Path::new(&other)] {
            let (directory, sink) = if is_sent { open().await? } else { closed().await? };
            servers.push((Process::conductor(program, &directory)?, directory, sink));
        }
        for _ in 0..SLICES * 2 {
            for ((server, ..), measured) in servers.iter().zip(&mut measured) {
                measured.add(load::run(server.address, 64, time / SLICES, requests).await?);
            }
        }
        let mut costs = [0.0; 2];
        for ((cost, (server, ..)), measured) in costs.iter_mut().zip(&servers).zip(&measured) {
            *cost = server.cpu()? / measured.count() as f64 * 1e6;
        }
        let [this, that] = measured.map(|measured| measured.per_second());
        show(&format!("64 connections: {name} a second (the other build)"), &format!("{this:.0} ({that:.0})"), "");
        show("    against the other build", &format!("{:.3}", this / that), "");
        show("    processor time for each, µs (the other build)", &format!("{:.1} ({:.1})", costs[0], costs[1]), "");
    }
    Ok(())
}

/// Accepted, sent, settled: as fast as it goes.
async fn end_to_end(program: &Path, time: Duration) -> Result<()> {
    let (directory, sink) = open().await?;
    let server = Process::conductor(program, &directory)?;
    let start = Instant::now();
    let accepted = load::run(server.address, 64, time, requests).await?.count() as u64;
    let at_end = sink.received();
    while sink.received() < accepted && start.elapsed() < time * 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = sink.received() as f64 / start.elapsed().as_secs_f64();
    show("accepted, sent and settled a second, 64 connections", &format!("{rate:.0}"), "12000");
    let behind = accepted.saturating_sub(at_end);
    show("    waiting when the load ended (of)", &format!("{behind} ({accepted})"), "");
    show("    resident memory, MB", &format!("{:.1}", server.memory()?), "80");
    Ok(())
}

/// Accept to sink, at a steady pace.
async fn latency(program: &Path, time: Duration) -> Result<()> {
    let (directory, mut sink) = configured(Sink::start(true).await?, &json!({}))?;
    let server = Process::conductor(program, &directory)?;
    let count = PACE * time.as_secs();
    let mut sent = vec![None; usize::try_from(count)?];
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(Connection::open(server.address).await?);
    }
    let start = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for (worker, mut connection) in connections.into_iter().enumerate() {
        workers.spawn(async move {
            let mut accepted = Vec::new();
            for number in (worker as u64..count).step_by(8) {
                tokio::time::sleep_until((start + Duration::from_micros(number * 1_000_000 / PACE)).into()).await;
                let body = format!(
                    r#"{{"channel":"webhook","message":"number {number}","targetId":"room-{}"}}"#,
                    number % 256
                );
                let tenant = usize::try_from(number)? % TENANTS;
                connection.ask(&request(&key(tenant), &body)).await?;
                accepted.push((number, Instant::now()));
            }
            anyhow::Ok(accepted)
        });
    }
    let mut arrived = Vec::new();
    while arrived.len() < sent.len() {
        let Some(message) = sink.next(Duration::from_secs(5)).await else { break };
        arrived.push(message);
    }
    while let Some(accepted) = workers.join_next().await {
        for (number, at) in accepted?? {
            sent[usize::try_from(number)?] = Some(at);
        }
    }
    let times: Vec<Duration> = arrived
        .iter()
        .filter_map(|(number, at)| Some(at.saturating_duration_since(sent[usize::try_from(*number).ok()?]?)))
        .collect();
    let all = Measured::of(times, time);
    let text = format!("{}, {}", milliseconds(all.percentile(0.5)), milliseconds(all.percentile(0.99)));
    show("202 to sink at 1,000 a second: p50, p99 in ms", &text, "1, 5");
    Ok(())
}

/// What a backlog costs: accepting, memory, the next start. A server without one takes turns with it.
async fn backlog(program: &Path, time: Duration) -> Result<()> {
    let (directory, _sink) = closed().await?;
    let mut server = Process::conductor(program, &directory)?;
    let mut waiting = 0;
    for backlog in BACKLOGS {
        load::send_count(server.address, 256, backlog.saturating_sub(waiting), requests).await?;
        waiting = waiting.max(backlog);
        let (nothing, _sink) = closed().await?;
        let beside = Process::conductor(program, &nothing)?;
        let (mut empty, mut full) = (Measured::default(), Measured::default());
        for _ in 0..SLICES {
            empty.add(load::run(beside.address, 64, time / SLICES, requests).await?);
            full.add(load::run(server.address, 64, time / SLICES, requests).await?);
        }
        drop(beside);
        waiting += full.count() as u64;
        show(
            &format!("accepting with {backlog} pending, against none"),
            &format!("{:.2}", full.per_second() / empty.per_second()),
            "0.9",
        );
        show("    resident memory, MB", &format!("{:.1}", server.memory()?), "120");
        server.stop()?;
        let start = Instant::now();
        server = Process::conductor(program, &directory)?;
        Connection::open(server.address).await?.ask(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        show(&format!("    start with {waiting} pending, ms"), &milliseconds(start.elapsed()), "1000");
    }
    Ok(())
}
