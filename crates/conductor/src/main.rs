//! The program.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Every TLS connection asks for the process's cryptography; it fails only where it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    conductor::cli::main(std::env::args_os(), conductor_channels::PLUGINS)
}
