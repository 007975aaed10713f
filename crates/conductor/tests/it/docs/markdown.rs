//! What the tests need to know of a Markdown file: its code blocks, its links, its headings.

/// A fenced block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// What follows the opening fence: `json tenants.json`.
    pub(crate) info: String,
    pub(crate) text: String,
    /// The line of the opening fence, from 1.
    pub(crate) line: usize,
}

impl Block {
    /// The first word of the info string.
    pub(crate) fn language(&self) -> &str {
        self.info.split(' ').next().unwrap_or_default()
    }

    /// The rest of the info string.
    pub(crate) fn mark(&self) -> Option<&str> {
        self.info.split_once(' ').map(|(_, mark)| mark)
    }
}

/// The fenced blocks, without the indentation that they have in a list.
pub(crate) fn blocks(markdown: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for (index, line) in markdown.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => {
                let indent = line.len() - line.trim_start().len();
                open = Some((indent, Block { info: info.trim().to_owned(), text: String::new(), line: index + 1 }));
            }
            (Some(_), Some(_)) => found.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), None) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    found
}

/// Everything outside fenced blocks, with its line number.
fn prose(markdown: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, line) in markdown.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((index + 1, line));
        }
    }
    lines
}

/// The targets of inline links, with the line of each.
pub(crate) fn links(markdown: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in prose(markdown) {
        for part in text.split("](").skip(1) {
            found.extend(part.split_once(')').map(|(target, _)| (line, target.to_owned())));
        }
    }
    found
}

/// The anchors of the headings, made as GitHub makes them.
pub(crate) fn anchors(markdown: &str) -> Vec<String> {
    let headings = prose(markdown).into_iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn blocks_links_and_anchors_are_found() {
    let text = "# A `b` & {c}/d\n[x](y.md#z) [v](w)\n1. e\n\n   ```json tenants.json\n   {\n     [no](link)\n   ```\n";
    let block = Block { info: "json tenants.json".into(), text: "{\n  [no](link)\n".into(), line: 5 };
    assert_eq!(block.language(), "json");
    assert_eq!(block.mark(), Some("tenants.json"));
    assert_eq!(blocks(text), [block]);
    assert_eq!(links(text), [(2, "y.md#z".to_owned()), (2, "w".to_owned())]);
    assert_eq!(anchors(text), ["a-b--cd"]);
}
