//! A strict reader of the HTML that a provider takes.

use super::super::Dialect;

/// What a fragment shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) text: String,
    /// The same without what is code.
    pub(super) outside_code: String,
}

fn tags(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::TelegramHtml => &["b", "i", "s", "u", "code", "pre", "a", "blockquote"],
        Dialect::PushoverHtml => &["b", "i", "a"],
        _ => &[
            "p",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "blockquote",
            "ul",
            "ol",
            "li",
            "em",
            "strong",
            "del",
            "code",
            "pre",
            "a",
            "br",
            "hr",
            "table",
            "thead",
            "tr",
            "th",
            "td",
        ],
    }
}

/// Reads a fragment; what is wrong with it is the error.
pub(super) fn read(dialect: Dialect, html: &str) -> Result<Shown, String> {
    let mut shown = Shown::default();
    let mut open: Vec<String> = Vec::new();
    let mut rest = html;
    while let Some(letter) = rest.chars().next() {
        let mut length = letter.len_utf8();
        let mut text = letter;
        match letter {
            '<' => {
                let end = rest.find('>').ok_or("a tag without an end")?;
                tag(dialect, &rest[1..end], &mut open, &mut shown)?;
                rest = &rest[end + 1..];
                continue;
            }
            '>' | '"' => return Err(format!("a bare {letter}")),
            '&' => {
                let entities = [("&amp;", '&'), ("&lt;", '<'), ("&gt;", '>'), ("&quot;", '"')];
                let entity = entities.iter().find(|(entity, _)| rest.starts_with(entity)).ok_or("a bare &")?;
                (length, text) = (entity.0.len(), entity.1);
            }
            '\0' => return Err("a NUL".to_owned()),
            _ => {}
        }
        shown.text.push(text);
        if !open.iter().any(|tag| tag == "code" || tag == "pre") {
            shown.outside_code.push(text);
        }
        rest = &rest[length..];
    }
    if open.is_empty() { Ok(shown) } else { Err(format!("open at the end: {open:?}")) }
}

fn tag(dialect: Dialect, tag: &str, open: &mut Vec<String>, shown: &mut Shown) -> Result<(), String> {
    if let Some(name) = tag.strip_prefix('/') {
        let last = open.pop();
        return if last.as_deref() == Some(name) { Ok(()) } else { Err(format!("</{name}> ends {last:?}")) };
    }
    let (name, attributes) = tag.split_once(' ').map_or((tag, None), |(name, more)| (name, Some(more)));
    if !tags(dialect).contains(&name) {
        return Err(format!("<{name}> is not allowed"));
    }
    if let Some(attribute) = attributes {
        let (key, value) = attribute.split_once("=\"").ok_or("an attribute without a value")?;
        let value =
            value.strip_suffix('"').filter(|value| !value.contains(['"', '<'])).ok_or("a value in no quotes")?;
        let allowed = match (name, key) {
            ("a", "href") => {
                let value = value.to_lowercase();
                ["http:", "https:", "mailto:", "tel:"].iter().any(|scheme| value.starts_with(scheme))
            }
            ("ol", "start") => value.parse::<u64>().is_ok(),
            ("code", "class") => value.starts_with("language-") && dialect != Dialect::EmailHtml,
            _ => false,
        };
        if !allowed {
            return Err(format!("<{tag}> is not allowed"));
        }
    } else if name == "a" {
        return Err("a link without a target".to_owned());
    }
    match name {
        "br" => {
            shown.text.push('\n');
            shown.outside_code.push('\n');
            return Ok(());
        }
        "hr" => return Ok(()),
        "a" | "b" | "i" | "s" | "em" | "strong" | "del" if open.iter().any(|tag| tag == name) => {
            return Err(format!("<{name}> in itself"));
        }
        "blockquote" if dialect == Dialect::TelegramHtml && open.iter().any(|tag| tag == name) => {
            return Err("a quote in a quote".to_owned());
        }
        _ => open.push(name.to_owned()),
    }
    Ok(())
}
