//! A letter's two forms of a text in markdown.

use crate::markdown::{Dialect, render};

/// The text for mail programs that show no HTML.
pub(super) fn plain(markdown: &str) -> String {
    render(markdown, Dialect::Plain)
}

/// The text as a page.
pub(super) fn page(markdown: &str) -> String {
    let fragment = render(markdown, Dialect::EmailHtml);
    format!("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body>\n{fragment}\n</body></html>\n")
}
