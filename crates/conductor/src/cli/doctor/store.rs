//! The store, from outside.

use std::time::Duration;

use conductor_core::Timestamp;
use conductor_store::{Inspection, OpenError, Soundness, inspect, look_through};

use super::super::amounts::{count, length, size, time};
use super::super::serve::mend;
use super::Finding;
use crate::config::settings::Settings;

/// The longest time for a look through every page.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// A log of that size is not written into the file any more: somebody holds it.
const LOG_ODD_BYTES: u64 = 256 * 1024 * 1024;
/// What has been due for so long is held up by something.
const DUE_ODD: Duration = Duration::from_secs(15 * 60);

/// What was found.
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    /// A process uses it.
    pub(super) is_owned: bool,
    /// When its newest notification was accepted.
    pub(super) newest: Option<Timestamp>,
}

pub(super) fn look(settings: &Settings, now: Timestamp) -> Looked {
    let data = &settings.data_dir;
    let inspection = match inspect(data, now) {
        Ok(Some(inspection)) => inspection,
        Ok(None) => {
            let none = Finding::good(format!("there is none in {} yet; the first start makes it", data.display()));
            return Looked { findings: vec![none], is_owned: false, newest: None };
        }
        Err(error) => return Looked { findings: vec![unusable(&error)], is_owned: false, newest: None },
    };
    let mut findings = vec![in_short(&inspection)];
    findings.push(match look_through(data, LOOK_MAX) {
        Ok(Soundness::Sound) => Finding::good("every page of it is sound"),
        Ok(Soundness::Damaged(what)) => Finding::bad(
            format!("it is damaged: {what}"),
            mend(&OpenError::Damaged(data.join("conductor.db"), String::new())),
        ),
        Ok(Soundness::Unfinished) => Finding::odd(
            format!("no damage was found within {}, but not all of it was looked at", length(LOOK_MAX)),
            "`conductor backup` reads all of it",
        ),
        Err(error) => unusable(&error),
    });
    findings.extend(what_waits(&inspection, now));
    if inspection.log_bytes > LOG_ODD_BYTES {
        findings.push(Finding::odd(
            format!("its log has grown to {}", size(inspection.log_bytes)),
            "a backup or another program has been reading the store for a long time; when it has ended, the log shrinks",
        ));
    }
    if !inspection.shrinks {
        findings.push(Finding::odd(
            "its file never gives empty room back: an early version made it",
            "let SQLite rewrite it, as \"How large the store becomes\" in docs/OPERATIONS.md says",
        ));
    }
    Looked { findings, is_owned: inspection.is_owned, newest: inspection.contents.newest }
}

fn unusable(error: &OpenError) -> Finding {
    Finding::bad(error.to_string(), mend(error))
}

fn in_short(inspection: &Inspection) -> Finding {
    let Inspection { contents, known, log_bytes, .. } = inspection;
    let owner = if inspection.is_owned { "in use by a server" } else { "in use by nobody" };
    let age = match known - contents.version {
        0 => String::new(),
        _ => "; an earlier version made it, and the next start brings it up to date".to_owned(),
    };
    Finding::good(format!("{} and {} of log, {owner}{age}", size(contents.bytes), size(*log_bytes)))
}

fn what_waits(inspection: &Inspection, now: Timestamp) -> Vec<Finding> {
    let contents = &inspection.contents;
    let mut findings = Vec::new();
    let waiting = count(contents.waiting, "delivery waits", "deliveries wait");
    let oldest = inspection.oldest_waiting.map(|oldest| format!(", the oldest since {}", time(oldest, now)));
    findings.push(Finding::good(format!("{waiting}{}", oldest.unwrap_or_default())));
    let due = inspection.longest_due.map(|due| now.since(due)).filter(|late| *late >= DUE_ODD);
    // Without a server nothing is sent: that is told elsewhere.
    if let Some(late) = due.filter(|_| inspection.is_owned) {
        findings.push(Finding::odd(
            format!("one of them has been due for {}", length(late)),
            "its channel is down, paused or slow: GET /channels tells which, and why",
        ));
    }
    if contents.held > 0 {
        findings.push(Finding::odd(
            format!("{} held: nobody knows whether they arrived", count(contents.held, "is", "are")),
            "look whether they did, then resolve or retry each (docs/API.md)",
        ));
    }
    if inspection.dead_letters > 0 {
        findings.push(Finding::odd(
            count(inspection.dead_letters, "dead letter", "dead letters"),
            "GET /notifications?status=failed tells why; POST /notifications/retry tries them again",
        ));
    }
    if inspection.disabled_endpoints > 0 {
        let endpoints = count(inspection.disabled_endpoints, "endpoint for callbacks", "endpoints for callbacks");
        findings.push(Finding::odd(
            format!("{endpoints} disabled: the receiver answered that it wants no more"),
            "GET /callbacks tells which; mend the receiver, then enable it (docs/API.md)",
        ));
    }
    findings
}
