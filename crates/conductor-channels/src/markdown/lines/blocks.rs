//! Code and tables.

use super::{Line, Writer};
use crate::markdown::BREAK;
use crate::markdown::escape::{self, Escape};
use crate::markdown::style::{self, Block, Code};
use crate::markdown::table::Table;

impl Writer {
    /// Code in a line.
    pub(super) fn code(&mut self, code: &str) {
        let in_label = self.link.is_some() && self.style.link == style::Link::Angle;
        let style = match self.style.code {
            Code::Backtick if code.contains('`') || code.trim().is_empty() => Code::Text,
            _ if self.table.is_some() || in_label => Code::Text,
            style => style,
        };
        if style == Code::Text {
            return self.text(code);
        }
        self.begin();
        self.part(true);
        if let Some(link) = &mut self.link {
            link.label.push_str(code);
        }
        match style {
            Code::Tag => {
                self.out.push_str("<code>");
                escape::code(&mut self.out, code, self.rendering);
                self.out.push_str("</code>");
            }
            _ => {
                let fence = "`".repeat(if style == Code::Backtick { 1 } else { longest_run(code) + 1 });
                let blanks = code.starts_with(' ') && code.ends_with(' ') && !code.trim().is_empty();
                let padding = if blanks || code.starts_with('`') || code.ends_with('`') { " " } else { "" };
                self.out.extend([&fence, padding]);
                escape::code(&mut self.out, code, self.rendering);
                self.out.extend([padding, &fence]);
            }
        }
        self.line = Line::ClosedMarks;
    }

    pub(super) fn end_code_block(&mut self) {
        let code = self.verbatim.take().unwrap_or_default();
        let language = self.language.take();
        self.code_block(&code, language.as_deref());
    }

    fn code_block(&mut self, code: &str, language: Option<&str>) {
        let code = code.strip_suffix('\n').unwrap_or(code);
        match self.style.block {
            Block::Text => {
                let typed = Escape { rendering: self.rendering, line_start: true, typed: true };
                self.each_line(code, |writer, line| typed.push(&mut writer.out, line));
            }
            Block::Tag => {
                self.begin();
                let (start, end) = match language {
                    Some(language) => (format!("<pre><code class=\"language-{language}\">"), "</code></pre>"),
                    None => ("<pre>".to_owned(), "</pre>"),
                };
                self.out.push_str(&start);
                escape::code(&mut self.out, code, self.rendering);
                self.out.push_str(end);
            }
            Block::Fence => self.fenced(code, "```", None),
            Block::FenceWithLanguage => self.fenced(code, "```", language),
            Block::LongFence => self.fenced(code, &"`".repeat((longest_run(code) + 1).max(3)), language),
        }
        self.line = Line::Before;
    }

    fn fenced(&mut self, code: &str, fence: &str, language: Option<&str>) {
        self.begin();
        self.out.push_str(fence);
        self.out.push_str(language.unwrap_or_default());
        self.line = Line::Before;
        // Where a fence cannot be longer, it must not come in the code.
        let unfenced = match self.style.block {
            Block::LongFence => code.to_owned(),
            _ => code.replace("```", &format!("``{BREAK}`")),
        };
        let rendering = self.rendering;
        self.wanted = 1;
        self.each_line(&unfenced, |writer, line| escape::code(&mut writer.out, line, rendering));
        self.wanted = 1;
        self.begin();
        self.out.push_str(fence);
    }

    /// Writes lines, each with the signs of all containers.
    fn each_line(&mut self, text: &str, mut write: impl FnMut(&mut Self, &str)) {
        for line in text.split('\n') {
            self.begin();
            write(self, line);
            self.line = Line::Before;
            self.wanted = if self.style.lines_are_paragraphs { 2 } else { 1 };
        }
    }

    pub(super) fn table(&mut self, table: &Table) {
        match self.style.table {
            style::Table::Columns => {
                let lines = table.columns().join("\n");
                self.each_line(&lines, |writer, line| writer.out.push_str(line));
            }
            style::Table::Code => self.code_block(&table.columns().join("\n"), None),
            style::Table::Cells => {
                for row in table.rows() {
                    self.row(row, " | ");
                }
            }
            style::Table::Pipes => self.pipes(table),
        }
        self.line = Line::Before;
    }

    fn pipes(&mut self, table: &Table) {
        let columns = table.rows().iter().map(Vec::len).max().unwrap_or_default();
        for (at, row) in table.rows().iter().enumerate() {
            self.begin();
            self.out.push_str("| ");
            self.row(row, " | ");
            if at == 0 {
                self.out.push_str(&" | ".repeat(columns.saturating_sub(row.len())));
            }
            self.out.push_str(" |");
            self.line = Line::Before;
            if at == 0 {
                self.begin();
                self.out.push('|');
                self.out.push_str(&" --- |".repeat(columns));
                self.line = Line::Before;
            }
        }
    }

    fn row(&mut self, row: &[String], between: &str) {
        self.begin();
        let typed = Escape { rendering: self.rendering, line_start: false, typed: true };
        for (column, cell) in row.iter().enumerate() {
            if column > 0 {
                self.out.push_str(between);
            }
            typed.push(&mut self.out, cell);
        }
        if self.style.table == style::Table::Cells {
            self.line = Line::Before;
            self.wanted = 2;
        }
    }
}

/// The length of the longest run of backticks.
fn longest_run(code: &str) -> usize {
    let (mut longest, mut run) = (0_usize, 0_usize);
    for letter in code.chars() {
        run = if letter == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}
