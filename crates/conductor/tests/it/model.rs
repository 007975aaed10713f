//! The model test: random operations and faults against the real dispatcher, store and registry, with a clock that the
//! test moves and a provider that answers as the test says, held against a simple model after every step.
//!
//! A failure prints its seed. `MODEL_SEED=<seed>` replays it; `MODEL_RUNS=<number>` makes so many runs with new seeds.

use std::time::{Duration, Instant};

use conductor_core::{Priority, Scope};

use expected::Way;
use provider::Answer;
use steps::{Accept, Step};

mod expected;
mod life;
mod provider;
mod steps;
mod trial;

/// The steps that a test writes down are taken with this seed and the next, see [`trial::run`].
const FIRST_SEED: u64 = 1;
/// A normal run ends after so many seeds, or when its time is up, but not with fewer than these.
const RUNS: u64 = 30;
const RUNS_MIN: u64 = 10;
const TIME: Duration = Duration::from_secs(12);

#[test]
fn random_operations_and_faults_agree_with_a_simple_model() {
    if let Some(seed) = variable("MODEL_SEED") {
        return replay(seed);
    }
    let long = variable("MODEL_RUNS");
    let first = fastrand::u64(..1 << 40);
    let (began, mut runs) = (Instant::now(), 0);
    while runs < long.unwrap_or(RUNS) && (long.is_some() || runs < RUNS_MIN || began.elapsed() < TIME) {
        replay(first + runs);
        runs += 1;
    }
    eprintln!("{runs} seeds agree, from MODEL_SEED={first} on, in {:?}", began.elapsed());
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
    let listed = |steps: &[Step]| steps.iter().map(|step| format!("  {step:?}\n")).collect::<String>();
    panic!(
        "MODEL_SEED={seed} replays this failure.\n{why}\n\nThe shortest part of it that fails:\n{}{still}",
        listed(&shortest)
    );
}

/// Runs these steps, and then heals all.
fn agrees(steps: &[Step]) {
    for seed in [FIRST_SEED, FIRST_SEED + 1] {
        if let Err(why) = trial::run(seed, steps, false) {
            panic!("{why}");
        }
    }
}

fn accept(channel: usize) -> Accept {
    let way = Way { channel, target: None };
    Accept { way, priority: Priority::Normal, key: None, fallback: Vec::new(), send_in: None, life: 80_000 }
}

/// The first under way fails, and would be tried again in ten minutes.
const LATER: Step = Step::Answer { of: 0, answer: Answer::Retryable { seconds: Some(600) } };
const ORDERED: usize = 1;

#[test]
fn many_that_were_taken_back_do_not_hold_up_the_next_of_their_lane() {
    let mut steps: Vec<_> = (0..20).map(|_| Step::Accept(accept(0))).collect();
    steps.extend((1..19).map(|of| Step::Cancel { of }));
    steps.push(Step::Answer { of: 0, answer: Answer::Sent });
    agrees(&steps);
}

#[test]
fn an_ordered_lane_goes_on_when_its_failing_head_is_canceled_or_superseded() {
    let head = || Step::Accept(Accept { key: Some(0), ..accept(ORDERED) });
    let behind = || Step::Accept(accept(ORDERED));
    agrees(&[head(), behind(), LATER, Step::Cancel { of: 0 }]);
    agrees(&[head(), behind(), LATER, head()]);
}

#[test]
fn a_rate_limited_lane_of_an_ordered_channel_waits_though_its_head_has_ended() {
    let limited = || Step::Answer { of: 0, answer: Answer::Limited { seconds: Some(60), scope: Scope::Lane } };
    let head = || Step::Accept(Accept { life: 30, fallback: vec![accept(0).way], ..accept(ORDERED) });
    let behind = || Step::Accept(accept(ORDERED));
    let rest = [Step::Time { millis: 59_000 }, Step::Time { millis: 1_000 }];
    agrees(&[&[head(), behind(), limited()], &rest[..]].concat());
    agrees(&[&[behind(), behind(), limited(), Step::Cancel { of: 0 }], &rest[..]].concat());
}

#[test]
fn one_that_is_superseded_while_its_fallback_waits_is_counted_out_of_the_fallbacks_channel() {
    let newer = || Step::Accept(Accept { key: Some(0), fallback: vec![accept(ORDERED).way], ..accept(0) });
    agrees(&[newer(), Step::Answer { of: 0, answer: Answer::Permanent }, LATER, newer()]);
}
