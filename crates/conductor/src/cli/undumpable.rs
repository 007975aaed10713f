//! What the program holds in memory stays there: no core dump, no look from another process of the same user.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Asks the system for it. Where it cannot be had, the program goes on without.
pub(super) fn keep_memory() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    // The limit alone does not count where dumps go to a program (`core_pattern` with a pipe).
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
