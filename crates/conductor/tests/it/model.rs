//! The model test: random operations and faults against the real dispatcher, store and registry, with a clock that the
//! test moves and a provider that answers as the test says, held against a simple model after every step.
//!
//! A failure prints its seed. `MODEL_SEED=<seed>` replays it; `MODEL_RUNS=<number>` makes so many runs with new seeds.

use std::time::{Duration, Instant};

mod expected;
mod life;
mod provider;
mod steps;
mod trial;

/// The seeds of a normal run begin here.
const FIRST_SEED: u64 = 1;
/// A normal run ends after so many seeds, or when its time is up.
const RUNS: u64 = 30;
const TIME: Duration = Duration::from_secs(12);

#[test]
fn random_operations_and_faults_agree_with_a_simple_model() {
    if let Some(seed) = variable("MODEL_SEED") {
        return replay(seed);
    }
    let long = variable("MODEL_RUNS");
    let first = if long.is_some() { fastrand::u64(..1 << 40) } else { FIRST_SEED };
    let began = Instant::now();
    for run in 0..long.unwrap_or(RUNS) {
        if long.is_none() && began.elapsed() > TIME {
            break;
        }
        replay(first + run);
    }
}

/// A number that the environment gives.
#[expect(clippy::disallowed_methods, reason = "how long a test runs is said in its environment")]
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs what a seed means. A failure is made shorter and told.
fn replay(seed: u64) {
    let all = steps::steps(seed);
    let Err(why) = trial::run(seed, &all, false) else { return };
    let (shortest, still) = steps::shrink(all, why.clone(), |part| trial::run(seed, part, true));
    let listed = |steps: &[steps::Step]| steps.iter().map(|step| format!("  {step:?}\n")).collect::<String>();
    panic!(
        "MODEL_SEED={seed} replays this failure.\n{why}\n\nThe shortest part of it that fails:\n{}{still}",
        listed(&shortest)
    );
}
