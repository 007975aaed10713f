//! Where a reload is asked for, and what came of it.

use std::sync::Mutex;

use tokio::sync::{mpsc, oneshot};

use crate::registry::plan::{ReloadPlan, Version};

/// So many may wait for a reload at once. One reload answers all who wait.
pub const WAITING_MAX: usize = 64;

/// A configuration that was taken over, or that was found to be the one that is served already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The one that is served now.
    pub version: Version,
    /// What is different.
    pub plan: ReloadPlan,
    /// Whether anything of the three files, or of what they name, is another.
    pub is_new: bool,
    /// What can be used and was probably not meant so, as the start would tell it.
    pub warnings: Vec<Told>,
}

/// A configuration that cannot be used. The one before goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where the three files lie.
    pub folder: String,
    /// How much is wrong: `2 errors, 1 warning`.
    pub summary: String,
    /// Everything that is wrong, as the start would tell it.
    pub faults: Vec<Told>,
}

/// A fault as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// All that the start would print of it: what follows, and the line that it is about.
    pub text: String,
    /// Its file, line, column and JSON pointer, as far as they are known.
    pub place: Option<String>,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: Option<String>,
    /// How to mend it.
    pub help: Option<String>,
}

/// Why the configuration was read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A file has changed.
    Files,
    /// SIGHUP came.
    Signal,
    /// The operator has asked over the API.
    Operator,
}

impl Cause {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Signal => "signal",
            Self::Operator => "operator",
        }
    }
}

/// What came of a reload.
pub type Reloaded = Result<Accepted, Refused>;

/// Somebody who has asked for a reload.
#[derive(Debug)]
pub struct Asked {
    /// Why.
    pub cause: Cause,
    /// Where what comes of it is waited for.
    pub answer: oneshot::Sender<Reloaded>,
}

/// Where those who want a reload meet the one that does them.
#[derive(Debug)]
pub struct Reloads {
    ask: mpsc::Sender<Asked>,
    asked: Mutex<Option<mpsc::Receiver<Asked>>>,
}

impl Default for Reloads {
    fn default() -> Self {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        Self { ask, asked: Mutex::new(Some(asked)) }
    }
}

impl Reloads {
    /// Asks for a reload. None: too many wait already, or the server is stopping.
    pub fn ask(&self, cause: Cause) -> Option<oneshot::Receiver<Reloaded>> {
        let (answer, answered) = oneshot::channel();
        self.ask.try_send(Asked { cause, answer }).ok()?;
        Some(answered)
    }

    /// The place where they ask: for the one that does the reloads, once.
    pub fn take(&self) -> Option<mpsc::Receiver<Asked>> {
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}
