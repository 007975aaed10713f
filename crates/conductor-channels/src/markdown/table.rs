//! Tables as text.

use unicode_segmentation::UnicodeSegmentation;

/// The width up to which columns are filled with blanks, in characters as they are read.
const WIDTH_MAX: usize = 32;

/// The cells of a table as they come.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The first one is the head.
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn begin_row(&mut self) {
        self.rows.push(Vec::new());
    }

    pub(super) fn begin_cell(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            row.push(String::new());
        }
    }

    /// The cell that is being written.
    pub(super) fn cell(&mut self) -> Option<&mut String> {
        self.rows.last_mut()?.last_mut()
    }

    /// Forgets the empty cells at the row's end.
    pub(super) fn end_row(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            while row.last().is_some_and(String::is_empty) {
                row.pop();
            }
        }
    }

    /// The rows; the first one is the head.
    pub(super) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The lines of the table with its columns under one another, as far as they are not too wide.
    pub(super) fn columns(&self) -> Vec<String> {
        let widths = self.widths();
        let mut lines = Vec::with_capacity(self.rows.len() + 1);
        for (at, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                if column > 0 {
                    line.push_str(" | ");
                }
                line.push_str(cell);
                if column + 1 < row.len() {
                    let filling = widths[column].saturating_sub(width(cell));
                    line.extend(std::iter::repeat_n(' ', filling));
                }
            }
            lines.push(line);
            if at == 0 {
                let under: Vec<_> = widths.iter().take(row.len()).map(|width| "-".repeat((*width).max(1))).collect();
                lines.push(under.join("-|-"));
            }
        }
        lines
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for row in &self.rows {
            if widths.len() < row.len() {
                widths.resize(row.len(), 0);
            }
            for (column, cell) in row.iter().enumerate() {
                widths[column] = widths[column].max(width(cell).min(WIDTH_MAX));
            }
        }
        widths
    }
}

fn width(text: &str) -> usize {
    text.graphemes(true).take(WIDTH_MAX).count()
}
