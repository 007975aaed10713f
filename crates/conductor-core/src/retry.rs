//! The one retry decision.

use std::time::Duration;

use crate::channel::{Receipt, Scope, SendError, SendErrorKind};
use crate::delivery::FailureReason;
use crate::time::Timestamp;

/// The waits between attempts before jitter; the last one repeats until the notification expires.
pub const BACKOFF: [Duration; 7] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(60 * 60),
];

/// How long a rate-limited channel waits where the provider did not say.
pub const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(5);

/// The shortest wait of a rate-limited channel: a provider that asks for none would be asked again without end.
pub const RATE_LIMIT_PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest wait that a provider may ask for; a longer one is taken as this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What to do with a delivery whose attempt may or may not have reached the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnknown {
    /// Try again: at worst it arrives twice.
    #[default]
    Retry,
    /// Wait for a person.
    Hold,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Done.
    Sent,
    /// Back to the queue.
    RetryAt {
        /// Not before.
        due: Timestamp,
        /// Whether the attempt counts towards the backoff.
        counts: bool,
        /// What else is to wait as long, because the provider said so.
        limited: Option<Scope>,
    },
    /// Back to the queue, to be sent at once as plain text. Does not count towards the backoff.
    StepDown,
    /// Waits for a person.
    Hold,
    /// A dead letter.
    Failed(FailureReason),
}

/// How one channel retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryPolicy {
    /// Whether the provider recognises a repeated message by its id and makes no second one.
    pub provider_dedupes: bool,
    /// What to do where it does not.
    pub on_unknown: OnUnknown,
}

impl RetryPolicy {
    /// Decides what follows from an attempt.
    ///
    /// `failures` is the number of earlier attempts that counted, `is_rich` says that the text went out with markup that
    /// can be left off, `jitter` is a random number in 0..1. A retry that would come after `expires_at` is not waited
    /// for: the delivery expires now.
    pub fn settle(
        &self,
        result: &Result<Receipt, SendError>,
        failures: u32,
        is_rich: bool,
        now: Timestamp,
        expires_at: Timestamp,
        jitter: f64,
    ) -> Settlement {
        let Err(error) = result else { return Settlement::Sent };
        let mut limited = None;
        let (due, counts) = match error.kind {
            SendErrorKind::Retryable { retry_after } => {
                let asked = retry_after.unwrap_or(Duration::ZERO).min(RETRY_AFTER_MAX);
                (now.plus(backoff(failures, jitter).max(asked)), true)
            }
            SendErrorKind::RateLimited { retry_after, scope } => {
                limited = Some(scope);
                (now.plus(rate_limit_pause(retry_after)), false)
            }
            SendErrorKind::Unauthorized => (now, false),
            SendErrorKind::Unknown if self.provider_dedupes || self.on_unknown == OnUnknown::Retry => {
                (now.plus(backoff(failures, jitter)), true)
            }
            SendErrorKind::Unknown => return Settlement::Hold,
            SendErrorKind::Rejected if is_rich && now < expires_at => return Settlement::StepDown,
            SendErrorKind::Rejected => return Settlement::Failed(FailureReason::Rejected),
            SendErrorKind::Permanent => return Settlement::Failed(FailureReason::Permanent),
        };
        if due >= expires_at {
            Settlement::Failed(FailureReason::Expired)
        } else {
            Settlement::RetryAt { due, counts, limited }
        }
    }
}

/// How long a rate-limited channel or lane is left alone.
pub fn rate_limit_pause(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or(RATE_LIMIT_PAUSE).clamp(RATE_LIMIT_PAUSE_MIN, RETRY_AFTER_MAX)
}

/// Full jitter: anything between nothing and the step that `failures` has reached.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let step = BACKOFF[usize::try_from(failures).map_or(BACKOFF.len() - 1, |n| n.min(BACKOFF.len() - 1))];
    step.mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_705_314_600_000;

    fn after(kind: SendErrorKind, failures: u32, jitter: f64) -> Settlement {
        let now = Timestamp::from_millis(NOW);
        let expires = now.plus(Duration::from_secs(86_400));
        RetryPolicy::default().settle(&Err(SendError::new(kind, "no")), failures, false, now, expires, jitter)
    }

    fn retry(millis: i64, counts: bool) -> Settlement {
        Settlement::RetryAt { due: Timestamp::from_millis(NOW + millis), counts, limited: None }
    }

    fn limited(millis: i64, scope: Scope) -> Settlement {
        Settlement::RetryAt { due: Timestamp::from_millis(NOW + millis), counts: false, limited: Some(scope) }
    }

    #[test]
    fn a_retryable_failure_waits_its_step_with_full_jitter() {
        let kind = SendErrorKind::Retryable { retry_after: None };
        assert_eq!(after(kind, 0, 1.0), retry(1_000, true));
        assert_eq!(after(kind, 1, 0.5), retry(2_500, true));
        assert_eq!(after(kind, 3, 0.0), retry(0, true));
        assert_eq!(after(kind, 6, 1.0), retry(3_600_000, true));
        assert_eq!(after(kind, 4_000_000_000, 1.0), retry(3_600_000, true));
    }

    #[test]
    fn jitter_never_shortens_what_the_provider_asked_for() {
        let asked = Some(Duration::from_secs(7));
        assert_eq!(after(SendErrorKind::Retryable { retry_after: asked }, 0, 0.0), retry(7_000, true));
        let kind = SendErrorKind::RateLimited { retry_after: asked, scope: Scope::Channel };
        assert_eq!(after(kind, 5, 0.0), limited(7_000, Scope::Channel));
    }

    #[test]
    fn a_rate_limited_send_uses_up_no_attempt() {
        let kind = SendErrorKind::RateLimited { retry_after: None, scope: Scope::Lane };
        assert_eq!(after(kind, 9, 1.0), limited(5_000, Scope::Lane));
        let at_once = SendErrorKind::RateLimited { retry_after: Some(Duration::ZERO), scope: Scope::Lane };
        assert_eq!(after(at_once, 0, 0.0), limited(1_000, Scope::Lane), "no provider is asked again without a pause");
    }

    #[test]
    fn refused_credentials_use_up_no_attempt() {
        assert_eq!(after(SendErrorKind::Unauthorized, 2, 0.7), retry(0, false));
    }

    #[test]
    fn permanent_and_rejected_fail_at_once() {
        assert_eq!(after(SendErrorKind::Permanent, 0, 0.5), Settlement::Failed(FailureReason::Permanent));
        assert_eq!(after(SendErrorKind::Rejected, 0, 0.5), Settlement::Failed(FailureReason::Rejected));
    }

    #[test]
    fn refused_markup_is_left_off_before_the_text_fails() {
        let now = Timestamp::from_millis(NOW);
        let refused = Err(SendError::new(SendErrorKind::Rejected, "no"));
        let settle = |is_rich, expires_at| RetryPolicy::default().settle(&refused, 3, is_rich, now, expires_at, 0.5);
        let later = now.plus(Duration::from_millis(1));
        assert_eq!(settle(true, later), Settlement::StepDown);
        assert_eq!(settle(false, later), Settlement::Failed(FailureReason::Rejected));
        assert_eq!(settle(true, now), Settlement::Failed(FailureReason::Rejected), "there is no time left");
    }

    #[test]
    fn an_unknown_outcome_is_held_only_where_the_channel_says_so_and_doubles_are_possible() {
        let now = Timestamp::from_millis(NOW);
        let expires = now.plus(Duration::from_secs(60));
        let lost = Err(SendError::new(SendErrorKind::Unknown, "no answer"));
        let settle = |provider_dedupes, on_unknown| {
            RetryPolicy { provider_dedupes, on_unknown }.settle(&lost, 0, true, now, expires, 1.0)
        };
        assert_eq!(settle(false, OnUnknown::Hold), Settlement::Hold);
        assert_eq!(settle(true, OnUnknown::Hold), retry(1_000, true));
        assert_eq!(settle(false, OnUnknown::Retry), retry(1_000, true));
    }

    proptest! {
        #[test]
        fn no_retry_is_due_before_it_was_asked_for_or_after_it_expired(
            failures: u32, jitter in 0.0..1.0f64, asked in proptest::option::of(0u64..1_000_000), life in 0u64..200_000
        ) {
            let now = Timestamp::from_millis(NOW);
            let expires = now.plus(Duration::from_secs(life));
            let asked = asked.map(Duration::from_secs);
            for kind in [
                SendErrorKind::Retryable { retry_after: asked },
                SendErrorKind::RateLimited { retry_after: asked, scope: Scope::Channel },
                SendErrorKind::Unknown,
            ] {
                let result = Err(SendError::new(kind, "no"));
                match RetryPolicy::default().settle(&result, failures, true, now, expires, jitter) {
                    Settlement::RetryAt { due, .. } => {
                        prop_assert!(due < expires);
                        prop_assert!(due >= now.plus(kind.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX)));
                    }
                    other => prop_assert_eq!(other, Settlement::Failed(FailureReason::Expired)),
                }
            }
        }
    }
}
