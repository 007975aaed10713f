//! Conductor, the server: configuration, API, dispatcher and command line. `ARCHITECTURE.md` says who may import whom.

pub mod accept;
pub mod api;
pub mod app;
pub mod callbacks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod export;
pub mod ids;
pub mod janitor;
pub mod outcomes;
pub mod readings;
pub mod refusals;
pub mod registry;
pub mod reload;
pub mod replays;
pub mod server;
pub mod telemetry;
