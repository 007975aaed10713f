//! Every test that needs the whole program, in one binary: it links once.

#![allow(clippy::unwrap_used, reason = "what a test needs may end it by unwrapping, as the test itself may")]

mod crash;
mod delivery;
mod docs;
mod examples;
mod packaging;
mod repository;
mod support;
mod tidy;
