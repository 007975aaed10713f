//! Code fences as CommonMark has them. <https://spec.commonmark.org/0.31.2/#fenced-code-blocks>

use conductor_core::Format;

/// A longer row of marks is no fence: to close and open it in every part would leave little room for anything else.
pub(super) const MARKS_MAX: usize = 16;
/// The longest info string that is repeated, in bytes. It is a language's name, as a rule.
const INFO_MAX: usize = 64;
/// A line that is indented further is no fence.
const INDENT_MAX: usize = 3;

/// A fence that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fence {
    mark: char,
    marks: usize,
    info: String,
}

impl Fence {
    /// The fence that is open behind a text, given the one that is open before it.
    pub(super) fn after(open: Option<&Self>, text: &str, format: Format) -> Option<Self> {
        if format != Format::Markdown {
            return None;
        }
        let mut fence = open.cloned();
        for line in text.lines() {
            match &fence {
                None => fence = Self::opened_by(line),
                Some(open) if open.is_closed_by(line) => fence = None,
                Some(_) => {}
            }
        }
        fence
    }

    /// The fence that a line opens where none is open.
    pub(super) fn opened_by(line: &str) -> Option<Self> {
        let (mark, marks, behind) = marks(line)?;
        let info = behind.trim();
        if !(3..=MARKS_MAX).contains(&marks) || (mark == '`' && info.contains('`')) {
            return None;
        }
        let info = if info.len() <= INFO_MAX { info.to_owned() } else { String::new() };
        Some(Self { mark, marks, info })
    }

    pub(super) fn is_closed_by(&self, line: &str) -> bool {
        marks(line)
            .is_some_and(|(mark, marks, behind)| mark == self.mark && marks >= self.marks && behind.trim().is_empty())
    }

    /// Where the first line ends, if it closes this fence.
    pub(super) fn closed_by_first_line(&self, text: &str) -> Option<usize> {
        let line = text.lines().next()?;
        self.is_closed_by(line).then_some(line.len())
    }

    pub(super) fn opening(&self) -> String {
        format!("{}{}", self.closing(), self.info)
    }

    pub(super) fn closing(&self) -> String {
        String::from(self.mark).repeat(self.marks)
    }
}

/// The row of marks that a line begins with, and what is behind it.
fn marks(line: &str) -> Option<(char, usize, &str)> {
    let text = line.trim_start_matches(' ');
    if line.len() - text.len() > INDENT_MAX {
        return None;
    }
    let mark = text.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
    let behind = text.trim_start_matches(mark);
    Some((mark, text.len() - behind.len(), behind))
}
