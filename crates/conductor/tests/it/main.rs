//! Every test that needs the whole program, in one binary: it links once.

mod crash;
mod delivery;
mod docs;
mod examples;
mod packaging;
mod repository;
mod support;
mod tidy;
