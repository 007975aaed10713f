//! Spans: what the server did for one request or one attempt, for the trace that the operator keeps elsewhere. Where
//! nothing is exported, none is made.

use std::borrow::Cow;
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use conductor_core::{Clock, Timestamp, TraceContext};
use tokio::sync::mpsc;

/// Makes spans, if anybody wants them.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Active>>);

struct Active {
    sampler: Sampler,
    clock: Arc<dyn Clock>,
    ended: mpsc::Sender<Ended>,
    dropped: Arc<AtomicU64>,
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Active({:?})", self.sampler)
    }
}

/// Which traces are recorded, as `OTEL_TRACES_SAMPLER` says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whether a caller that keeps a trace has decided already.
    pub parent_decides: bool,
    /// The share of the other traces, 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { parent_decides: true, ratio: 1.0 }
    }
}

impl Sampler {
    fn takes(self, trace: NonZeroU128, parent: Option<TraceContext>) -> bool {
        if self.parent_decides
            && let Some(parent) = parent
        {
            return parent.sampled;
        }
        // The last 56 bits are those that are random in every trace, so that all who are asked decide alike.
        const RANDOM: u64 = 1 << 56;
        let random = trace.get() % u128::from(RANDOM);
        random < u128::from((self.ratio * RANDOM as f64) as u64)
    }
}

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It answers a caller.
    Server,
    /// It calls a provider.
    Client,
}

/// What began and has not ended.
#[derive(Debug)]
pub struct Span {
    context: TraceContext,
    parent: Option<NonZeroU64>,
    name: Cow<'static, str>,
    side: Side,
    start: Timestamp,
    began: Instant,
    attributes: Vec<(&'static str, Attribute)>,
    failed: bool,
    tracer: Arc<Active>,
}

/// What a span or a metric says of itself. Never a message, a target or a secret.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Attribute {
    fn from(word: &'static str) -> Self {
        Self::Text(Cow::Borrowed(word))
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u32> for Attribute {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Where it stands.
    pub context: TraceContext,
    /// The span that caused it.
    pub parent: Option<NonZeroU64>,
    /// What it was.
    pub name: Cow<'static, str>,
    /// Which side of a call.
    pub side: Side,
    /// When it began, in nanoseconds since 1970.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// What it says of itself.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Whether it failed.
    pub failed: bool,
}

impl Tracer {
    /// Makes no spans, which costs nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Makes spans and gives those that have ended to `ended`. What does not fit there is counted in `dropped`.
    pub fn new(sampler: Sampler, clock: Arc<dyn Clock>, ended: mpsc::Sender<Ended>, dropped: Arc<AtomicU64>) -> Self {
        Self(Some(Arc::new(Active { sampler, clock, ended, dropped })))
    }

    /// Begins a span below `parent`, or a trace of its own. None where none is made. `name` has few values.
    pub fn begin(
        &self,
        side: Side,
        parent: Option<TraceContext>,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Option<Span> {
        let tracer = self.0.as_ref()?;
        let trace = parent.map_or_else(new_trace, |parent| parent.trace);
        let sampled = tracer.sampler.takes(trace, parent);
        Some(Span {
            context: TraceContext { trace, span: new_span(), sampled },
            parent: parent.map(|parent| parent.span),
            name: if sampled { name() } else { Cow::Borrowed("") },
            side,
            start: tracer.clock.now(),
            began: Instant::now(),
            attributes: Vec::new(),
            failed: false,
            tracer: Arc::clone(tracer),
        })
    }
}

fn new_trace() -> NonZeroU128 {
    let random = u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..));
    NonZeroU128::new(random).unwrap_or(NonZeroU128::MIN)
}

fn new_span() -> NonZeroU64 {
    NonZeroU64::new(fastrand::u64(..)).unwrap_or(NonZeroU64::MIN)
}

impl Span {
    /// Where what it causes belongs.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Adds what it says of itself. `value` is asked only where the span is recorded.
    pub fn set<A: Into<Attribute>>(&mut self, name: &'static str, value: impl FnOnce() -> A) {
        if self.context.sampled {
            self.attributes.push((name, value().into()));
        }
    }

    /// It has failed.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// It has ended.
    pub fn end(self) {
        let Self { context, parent, name, side, start, began, attributes, failed, tracer } = self;
        if !context.sampled {
            return;
        }
        let start = u64::try_from(start.millis()).unwrap_or(0).saturating_mul(1_000_000);
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let end = start.saturating_add(took);
        let ended = Ended { context, parent, name, side, start, end, attributes, failed };
        if tracer.ended.try_send(ended).is_err() {
            tracer.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_core::ManualClock;

    fn tracer(sampler: Sampler, room: usize) -> (Tracer, mpsc::Receiver<Ended>, Arc<AtomicU64>) {
        let (sender, receiver) = mpsc::channel(room);
        let dropped = Arc::new(AtomicU64::new(0));
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(7)));
        (Tracer::new(sampler, clock, sender, Arc::clone(&dropped)), receiver, dropped)
    }

    fn parent(sampled: bool) -> TraceContext {
        TraceContext { trace: NonZeroU128::MAX, span: NonZeroU64::MAX, sampled }
    }

    #[test]
    fn a_tracer_that_is_off_makes_nothing() {
        assert!(Tracer::off().begin(Side::Server, Some(parent(true)), || unreachable!()).is_none());
    }

    #[test]
    fn a_span_stands_below_its_parent_and_a_root_begins_a_trace() {
        let (tracer, mut ended, _) = tracer(Sampler::default(), 9);
        let mut span = tracer.begin(Side::Client, Some(parent(true)), || "attempt".into()).unwrap();
        span.set("n", || 3);
        span.fail();
        span.end();
        let ended = ended.try_recv().unwrap();
        assert_eq!((ended.context.trace, ended.parent), (NonZeroU128::MAX, Some(NonZeroU64::MAX)));
        assert_ne!(ended.context.span, NonZeroU64::MAX);
        assert_eq!((ended.start, ended.failed), (7_000_000, true));
        assert!(ended.end >= ended.start);
        assert_eq!(ended.attributes, [("n", Attribute::Number(3))]);
        let [one, other] = [(); 2].map(|()| tracer.begin(Side::Server, None, || "x".into()).unwrap());
        assert_ne!(one.context().trace, other.context().trace);
    }

    #[test]
    fn the_caller_decides_what_is_recorded_unless_the_sampler_does() {
        let (tracer, mut ended, _) = tracer(Sampler::default(), 9);
        let mut span = tracer.begin(Side::Server, Some(parent(false)), || unreachable!()).unwrap();
        span.set("n", || -> u32 { unreachable!() });
        assert!(!span.context().sampled);
        span.end();
        assert!(ended.try_recv().is_err());
        let always = Sampler { parent_decides: false, ratio: 1.0 };
        assert!(always.takes(NonZeroU128::MAX, Some(parent(false))));
        let never = Sampler { parent_decides: true, ratio: 0.0 };
        assert!(!never.takes(NonZeroU128::MIN, None) && never.takes(NonZeroU128::MIN, Some(parent(true))));
        let tenth = Sampler { parent_decides: false, ratio: 0.1 };
        let taken = (0..10_000).filter(|_| tenth.takes(new_trace(), None)).count();
        assert!((700..1_300).contains(&taken), "{taken}");
    }

    #[test]
    fn what_nobody_fetches_is_dropped_and_counted() {
        let (tracer, _ended, dropped) = tracer(Sampler::default(), 2);
        (0..5).for_each(|_| tracer.begin(Side::Server, None, || "x".into()).unwrap().end());
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }
}
