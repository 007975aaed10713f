//! What is wrong with an input, told so that a person can mend it.

use std::fmt;

/// One fault: where it is, what it is, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place: a field's name in a request, a JSON pointer in a file.
    pub place: String,
    /// What was found and what was expected, as a sentence without a full stop.
    pub message: String,
    /// How to mend it, where the message does not say it already.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// All faults of one input. Checks add to it and go on, so that a person sees everything at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The most that are kept: an input with more faults than this says no more.
    pub const MAX: usize = 100;

    /// No faults yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault.
    pub fn add(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.push(Problem { place: place.into(), message: message.into(), help: None });
    }

    /// Adds a fault with the way to mend it.
    pub fn add_with_help(&mut self, place: impl Into<String>, message: impl Into<String>, help: impl Into<String>) {
        self.push(Problem { place: place.into(), message: message.into(), help: Some(help.into()) });
    }

    /// Adds a fault that is there already as a value.
    pub fn push(&mut self, problem: Problem) {
        if self.0.len() < Self::MAX {
            self.0.push(problem);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults in the order in which they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
