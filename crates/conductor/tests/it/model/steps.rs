//! What can happen in a trial, drawn from a seed; and the shortest part of it that still fails.

use std::time::{Duration, Instant};

use conductor_core::{Priority, Scope};
use fastrand::Rng;

use super::expected::{Check, Model, Way};
use super::life::CHANNELS;
use super::provider::Answer;

/// How many steps a trial has.
const STEPS: usize = 60;
/// How long a failure is made shorter for.
const SHRINK_MAX: Duration = Duration::from_secs(60);

/// One thing that happens. A number that names something means one of those that exist, counted round.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Accept(Accept),
    Answer {
        of: usize,
        answer: Answer,
    },
    /// A caller takes back what is under way at the moment at which its answer comes.
    AnswerAndCancel {
        of: usize,
        answer: Answer,
    },
    Cancel {
        of: usize,
    },
    Replay {
        of: usize,
        redirect: Option<Way>,
    },
    Resolve {
        of: usize,
    },
    /// So many milliseconds pass.
    Time {
        millis: i64,
    },
    /// The clock is put forth by so much, or back.
    Jump {
        millis: i64,
    },
    /// The process ends while these answers come.
    Stop {
        answers: Vec<(usize, Answer)>,
    },
    Crash {
        answers: Vec<(usize, Answer)>,
        turns: u8,
    },
    /// The provider takes a channel's credentials again.
    Mend {
        channel: usize,
    },
}

/// A notification to be accepted.
#[derive(Debug, Clone)]
pub(crate) struct Accept {
    pub(crate) way: Way,
    pub(crate) priority: Priority,
    pub(crate) key: Option<u8>,
    pub(crate) fallback: Vec<Way>,
    /// Seconds from now.
    pub(crate) send_in: Option<u64>,
    /// Seconds from when it is due.
    pub(crate) life: u64,
}

/// The steps that a seed means.
pub(crate) fn steps(seed: u64) -> Vec<Step> {
    let rng = &mut Rng::with_seed(seed);
    // Some trials are about one channel only, so that its limits are reached.
    let only = rng.bool().then(|| rng.usize(..CHANNELS.len()));
    // In some the provider fails mostly, so that breakers open.
    let good = *rng.choice([1, 5, 8].iter()).expect("there are some");
    (0..STEPS).map(|_| step(rng, only, good)).collect()
}

fn step(rng: &mut Rng, only: Option<usize>, good: u32) -> Step {
    let of = rng.usize(..1_000);
    match rng.u32(..100) {
        0..38 => Step::Accept(accept(rng, only)),
        38..66 => Step::Answer { of, answer: answer(rng, good) },
        66..69 => Step::AnswerAndCancel { of, answer: answer(rng, good) },
        69..74 => Step::Cancel { of },
        74..78 => Step::Replay { of, redirect: rng.bool().then(|| way(rng, None, 0)) },
        78..80 => Step::Resolve { of },
        80..92 => Step::Time { millis: length(rng) },
        92 => Step::Jump { millis: length(rng) },
        93..95 => Step::Jump { millis: -length(rng) },
        95..97 => Step::Crash { answers: answers(rng, good), turns: rng.u8(..12) },
        97..99 => Step::Stop { answers: answers(rng, good) },
        _ => Step::Mend { channel: rng.usize(..CHANNELS.len()) },
    }
}

fn length(rng: &mut Rng) -> i64 {
    match rng.u32(..10) {
        0..2 => rng.i64(1..1_000),
        2..6 => rng.i64(1_000..10_000),
        6..9 => rng.i64(10_000..400_000),
        _ => rng.i64(400_000..8_000_000),
    }
}

fn way(rng: &mut Rng, only: Option<usize>, tenant: u8) -> Way {
    let of_tenant: Vec<_> = (0..CHANNELS.len()).filter(|channel| CHANNELS[*channel].tenant == tenant).collect();
    let channel = only.unwrap_or_else(|| of_tenant[rng.usize(..of_tenant.len())]);
    Way { channel, target: rng.bool().then(|| rng.u8(..2)) }
}

fn accept(rng: &mut Rng, only: Option<usize>) -> Accept {
    let tenant = only.map_or_else(|| rng.u8(..2), |channel| CHANNELS[channel].tenant);
    let fallbacks = if rng.u32(..4) == 0 { rng.usize(1..3) } else { 0 };
    Accept {
        way: way(rng, only, tenant),
        priority: Priority::ALL[rng.usize(..3)],
        key: (rng.u32(..5) == 0).then(|| rng.u8(..2)),
        fallback: (0..fallbacks).map(|_| way(rng, None, tenant)).collect(),
        send_in: (rng.u32(..5) == 0).then(|| rng.u64(1..2_000)),
        life: if rng.u32(..4) == 0 { rng.u64(1..120) } else { rng.u64(120..90_000) },
    }
}

fn answer(rng: &mut Rng, good: u32) -> Answer {
    if rng.u32(..10) < good {
        return Answer::Sent;
    }
    let seconds = rng.bool().then(|| rng.u64(..40));
    match rng.u32(..16) {
        0..6 => Answer::Retryable { seconds: seconds.filter(|_| rng.bool()) },
        6..9 => Answer::Limited { seconds, scope: if rng.bool() { Scope::Channel } else { Scope::Lane } },
        9 => Answer::Unauthorized,
        10 => Answer::Rejected,
        11..13 => Answer::Permanent,
        13..15 => Answer::Unknown,
        _ => Answer::Panic,
    }
}

fn answers(rng: &mut Rng, good: u32) -> Vec<(usize, Answer)> {
    (0..rng.usize(..4)).map(|_| (rng.usize(..1_000), answer(rng, good))).collect()
}

/// Leaves out what the failure does without.
pub(crate) fn shrink(mut steps: Vec<Step>, mut why: String, run: impl Fn(&[Step]) -> Check) -> (Vec<Step>, String) {
    let end = Instant::now() + SHRINK_MAX;
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < steps.len() && Instant::now() < end {
            let shorter = [&steps[..from], &steps[(from + size).min(steps.len())..]].concat();
            match run(&shorter) {
                Err(still) => (steps, why) = (shorter, still),
                Ok(()) => from += size,
            }
        }
        size /= 2;
    }
    (steps, why)
}

/// The way to another channel of the same tenant.
pub(crate) fn of_same_tenant(way: Way, as_of: Way) -> Way {
    let tenant = Model::of_tenant(as_of);
    let channels: Vec<_> = (0..CHANNELS.len()).filter(|channel| CHANNELS[*channel].tenant == tenant).collect();
    Way { channel: channels[way.channel % channels.len()], ..way }
}
