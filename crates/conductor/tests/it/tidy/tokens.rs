//! Rust source as words and signs: just enough to find paths, modules and functions without comments and strings
//! getting in the way.

/// A word or a sign, with the line where it stands (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// The words and signs of a file. Comments are left out; a string or character literal becomes the one token `""`.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1, tokens: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let first = self.rest.chars().next().unwrap_or(' ');
        if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.skip(block_comment(self.rest));
        } else if let Some(length) = string(self.rest) {
            self.push("\"\"", length);
        } else if let Some(length) = character(self.rest) {
            self.push("\"\"", length);
        } else if is_word(first) {
            let length = self.rest.find(|letter| !is_word(letter)).unwrap_or(self.rest.len());
            let word = self.rest[..length].to_owned();
            self.push(&word, length);
        } else if self.rest.starts_with("::") {
            self.push("::", 2);
        } else {
            self.push(&first.to_string(), first.len_utf8());
        }
    }

    fn push(&mut self, text: &str, length: usize) {
        self.tokens.push(Token { text: text.to_owned(), line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a string literal at the start of the text, with its prefix (`b`, `c`, `r`, `r#` …).
fn string(text: &str) -> Option<usize> {
    let prefix = text.find(|letter| !matches!(letter, 'b' | 'c' | 'r'))?;
    if prefix > 2 {
        return None;
    }
    let raw = text[..prefix].ends_with('r');
    let hashes = if raw { text[prefix..].len() - text[prefix..].trim_start_matches('#').len() } else { 0 };
    let body = text[prefix + hashes..].strip_prefix('"')?;
    let start = prefix + hashes + 1;
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(start + body.find(&end).map_or(body.len(), |at| at + end.len()));
    }
    let mut escaped = false;
    for (at, letter) in body.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(start + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The length of a character literal at the start of the text; none for a lifetime.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix("b'").or_else(|| text.strip_prefix('\''))?;
    let start = text.len() - body.len();
    if let Some(escape) = body.strip_prefix('\\') {
        // The character after the backslash may itself be a quotation mark.
        let after = escape.chars().next()?.len_utf8();
        return Some(start + 1 + after + escape[after..].find('\'')? + 1);
    }
    let letter = body.chars().next()?.len_utf8();
    body[letter..].starts_with('\'').then_some(start + letter + 1)
}

#[test]
fn comments_and_literals_hide_what_is_in_them() {
    let source = "a /* b /* c */ d */ e // f\n\"g\\\"h\" r#\"i\"j\"# 'k' '\\'' b'l' &'m n crate::o";
    let found: Vec<_> = tokens(source).into_iter().map(|token| (token.text, token.line)).collect();
    let words: Vec<_> = found.iter().map(|(text, line)| (text.as_str(), *line)).collect();
    assert_eq!(
        words,
        [
            ("a", 1),
            ("e", 1),
            ("\"\"", 2),
            ("\"\"", 2),
            ("\"\"", 2),
            ("\"\"", 2),
            ("\"\"", 2),
            ("&", 2),
            ("'", 2),
            ("m", 2),
            ("n", 2),
            ("crate", 2),
            ("::", 2),
            ("o", 2),
        ]
    );
}
