//! A letter's two forms of a text in markdown.

/// The text for mail programs that show no HTML.
pub(super) fn plain(markdown: &str) -> String {
    markdown.to_owned()
}

/// The text as a page.
pub(super) fn page(markdown: &str) -> String {
    let fragment = format!("<pre>{}</pre>", markdown.replace('&', "&amp;").replace('<', "&lt;"));
    format!("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body>\n{fragment}\n</body></html>\n")
}
