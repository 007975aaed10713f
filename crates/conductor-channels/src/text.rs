//! Cuts a text that is too long for one message into parts.

use conductor_core::Format;
use unicode_segmentation::UnicodeSegmentation;

use fence::Fence;

mod fence;
#[cfg(test)]
mod tests;

/// The most parts that a text is cut into. What is left then stays in the last one.
pub const PARTS_MAX: usize = 1_000;

/// The length in bytes that is tried first when it is looked for how much fits.
const FIRST_TRY: usize = 1_024;
/// A grapheme whose end is not found within so many bytes is cut at a code point.
const GRAPHEME_MAX: usize = 64;

/// Cuts `body` into parts that each fit: at a paragraph's end where one comes in the second half of what fits, else at
/// a line's, a sentence's, a word's end, else between two graphemes. `fits` is asked with the text of a part and the
/// number of that part, from 0; it is asked a few dozen times a part.
///
/// In markdown a code fence that is open at a cut is closed there and opened again in the next part. Otherwise nothing
/// is lost or doubled but white space at the cuts. Where not even one character fits, all that is left is the last part.
pub fn split(body: &str, format: Format, mut fits: impl FnMut(&str, u32) -> bool) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = body;
    let mut open: Option<Fence> = None;
    let mut guess = FIRST_TRY;
    while !rest.trim_end().is_empty() && parts.len() + 1 < PARTS_MAX {
        let part = u32::try_from(parts.len()).expect("the maximum is small");
        let mut fits = |end: usize| fits(&piece(open.as_ref(), &rest[..end], format), part);
        let most = longest(rest, guess, &mut fits);
        if most == 0 {
            if open.take().is_some() {
                // Not even one character goes between the fence's two lines: it is left off.
                continue;
            }
            break;
        }
        let cut =
            if most == rest.len() { Cut::at(rest, most) } else { best(rest, most, open.as_ref(), format, &mut fits) };
        guess = most;
        let content = &rest[..cut.end];
        if !content.trim().is_empty() {
            parts.push(piece(open.as_ref(), content, format));
            open = Fence::after(open.as_ref(), content, format);
        }
        rest = &rest[cut.next..];
        if let Some(closed) = open.as_ref().and_then(|fence| fence.closed_by_first_line(rest)) {
            open = None;
            rest = &rest[Cut::at(rest, closed).next..];
        }
    }
    if !rest.trim_end().is_empty() || parts.is_empty() {
        parts.push(piece(open.as_ref(), rest, format));
    }
    parts
}

/// The text with the code fence closed that is open at its end, if there is one.
pub fn closed(body: &str, format: Format) -> String {
    piece(None, body, format)
}

/// A part as it is sent: what lies between two cuts, in whole fences.
fn piece(open: Option<&Fence>, content: &str, format: Format) -> String {
    let content = content.trim_end();
    let mut text = String::with_capacity(content.len() + 64);
    if let Some(fence) = open {
        text.push_str(&fence.opening());
        text.push('\n');
    }
    text.push_str(content);
    if let Some(fence) = Fence::after(open, content, format) {
        text.push('\n');
        text.push_str(&fence.closing());
    }
    text
}

/// How much of the text's beginning fits, as near as bisection comes: what it returns was tried, or is 0.
fn longest(text: &str, guess: usize, fits: &mut impl FnMut(usize) -> bool) -> usize {
    let (mut fit, mut too_long) = (0_usize, text.len() + 1);
    let mut step = guess.max(1);
    loop {
        let middle = if too_long > text.len() { fit.saturating_add(step) } else { fit + (too_long - fit) / 2 };
        let mut end = text.floor_char_boundary(middle.min(text.len()));
        if end <= fit {
            end = text.ceil_char_boundary(fit + 1);
        }
        if end >= too_long {
            return fit;
        }
        if fits(end) {
            fit = end;
            step = step.saturating_mul(2);
        } else {
            too_long = end;
        }
        if fit == text.len() {
            return fit;
        }
    }
}

/// A place to cut: what ends before it, and where the next part begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    end: usize,
    next: usize,
}

impl Cut {
    /// The white space behind a cut goes, but for the blanks that indent the next line.
    fn at(text: &str, end: usize) -> Self {
        let behind = &text[end..];
        let white = &behind[..behind.len() - behind.trim_start().len()];
        let next =
            if white.len() == behind.len() { white.len() } else { white.rfind('\n').map_or(white.len(), |at| at + 1) };
        Self { end, next: end + next }
    }
}

/// The last places of each kind up to a point.
#[derive(Default)]
struct Places {
    paragraph: Option<Cut>,
    line: Option<Cut>,
    sentence: Option<Cut>,
    word: Option<Cut>,
}

impl Places {
    fn up_to(text: &str, most: usize) -> Self {
        let mut places = Self::default();
        let mut before = ' ';
        let mut looked_at = 0;
        for (at, letter) in text.char_indices().take_while(|(at, _)| *at <= most) {
            let last = std::mem::replace(&mut before, letter);
            if at == 0 || at < looked_at {
                continue;
            }
            if letter.is_whitespace() && !last.is_whitespace() {
                let cut = Cut::at(text, at);
                looked_at = cut.next;
                places.add(text, cut, last);
            } else if matches!(last, '。' | '！' | '？') {
                places.sentence = Some(Cut { end: at, next: at });
            }
        }
        places
    }

    fn add(&mut self, text: &str, cut: Cut, last: char) {
        match text[cut.end..cut.next].bytes().filter(|byte| *byte == b'\n').count() {
            // In the middle of a line this is no fence, at the beginning of a part it would be one.
            0 if text[cut.next..].starts_with("```") || text[cut.next..].starts_with("~~~") => {}
            0 if matches!(last, '.' | '!' | '?' | '…' | ':' | ';') => self.sentence = Some(cut),
            0 => self.word = Some(cut),
            1 => self.line = Some(cut),
            _ => self.paragraph = Some(cut),
        }
    }

    /// From the best to the worst.
    fn ranked(&self, most: usize) -> impl Iterator<Item = Cut> {
        let all = [self.paragraph, self.line, self.sentence, self.word];
        let in_second_half = all.into_iter().flatten().filter(move |cut| cut.end >= most / 2);
        // None there: the latest of them, however short that makes the part.
        in_second_half.chain(all.into_iter().flatten().max_by_key(|cut| cut.end))
    }
}

/// The best place for a cut at `most` or before.
fn best(text: &str, most: usize, open: Option<&Fence>, format: Format, fits: &mut impl FnMut(usize) -> bool) -> Cut {
    let grapheme = || {
        let window = &text[..text.floor_char_boundary((most + GRAPHEME_MAX).min(text.len()))];
        let starts = window.grapheme_indices(true).map(|(at, _)| at);
        starts.take_while(|at| *at <= most).last().filter(|at| *at > 0).map(|at| Cut { end: at, next: at })
    };
    let places = Places::up_to(text, most);
    let ranked = places.ranked(most).chain(std::iter::once_with(grapheme).flatten());
    for cut in ranked.map(|cut| beside_fence(text, cut, open, format)) {
        if fits(cut.end) {
            return cut;
        }
    }
    Cut { end: most, next: most }
}

/// Moves a cut that would go through a fence's line, or leave its opening line alone at the end, before that line.
fn beside_fence(text: &str, cut: Cut, open: Option<&Fence>, format: Format) -> Cut {
    let start = text[..cut.end].rfind('\n').map_or(0, |at| at + 1);
    if text[..start].trim().is_empty() {
        return cut;
    }
    let line = text[start..].lines().next().unwrap_or_default();
    let is_through = cut.end < start + line.trim_end().len();
    let moves = match Fence::after(open, &text[..start], format) {
        None => format == Format::Markdown && Fence::opened_by(line).is_some(),
        Some(fence) => is_through && fence.is_closed_by(line),
    };
    if moves { Cut { end: start - 1, next: start } } else { cut }
}
