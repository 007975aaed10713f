//! Measures a release build of Conductor against a bare axum handler, on the same machine in the same run.
//!
//! `cargo build --release && cargo run --release -p conductor-bench` prints the table; behind the path of a server,
//! `… -p conductor-bench -- target/release/conductor accept latency` prints these figures alone. Everything stays on
//! loopback.

mod load;
mod process;
mod sink;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long each figure is measured; `BENCH_SECONDS` sets another time.
const SECONDS: u64 = 5;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some("bare") {
        return runtime.block_on(bare());
    }
    #[expect(clippy::disallowed_methods, reason = "a tool for developers, configured by its environment")]
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let only: Vec<String> = std::env::args().skip(2).collect();
    runtime.block_on(table::run(&conductor()?, Duration::from_secs(seconds), &only))
}

/// The server under test lies beside this program, unless an argument names another.
fn conductor() -> Result<PathBuf> {
    if let Some(path) = std::env::args().nth(1) {
        return Ok(std::fs::canonicalize(path)?);
    }
    let here = std::env::current_exe()?;
    let path = here.parent().context("a program lies in a folder")?.join("conductor");
    anyhow::ensure!(path.exists(), "{}: build it first: cargo build --release", path.display());
    Ok(path)
}

/// The yardstick: reads the same request, parses it, answers 202.
async fn bare() -> Result<()> {
    let handler = |body: Bytes| async move {
        match serde_json::from_slice::<serde_json::Value>(&body) {
            Ok(value) if value.get("message").is_some() => (StatusCode::ACCEPTED, axum::Json(value)).into_response(),
            _ => StatusCode::BAD_REQUEST.into_response(),
        }
    };
    use axum::response::IntoResponse as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("serves on http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/notifications", post(handler))).await?;
    Ok(())
}
