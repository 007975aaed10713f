//! Every test that needs the whole program, in one binary: it links once.

#![allow(clippy::unwrap_used, reason = "what a test needs may end it by unwrapping, as the test itself may")]

mod api_auth;
mod api_batch;
mod api_dead_letters;
mod api_document;
mod api_idempotency;
mod api_input;
mod api_isolation;
mod api_lists;
mod api_replays;
mod api_send;
mod api_wait;
mod bad_providers;
mod bulkheads;
mod channel_email;
mod channel_matrix;
mod channel_sms;
mod channel_telegram;
mod channel_whatsapp;
mod clients;
mod command_line;
mod content;
mod crash;
mod damage;
mod delivery;
mod disk;
mod docs;
mod examples;
mod fairness;
mod faults;
mod first_run;
mod loop_guard;
mod model;
mod packaging;
mod patience;
mod repository;
mod retention;
mod secrets;
mod signals;
mod start_faults;
mod stop;
mod support;
mod tidy;
