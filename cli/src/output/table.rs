//! Tables as kubectl prints them: upper-case heads, columns apart by three spaces, nothing cut but at the screen's
//! end being the terminal's affair.

use super::color::Paint;
use super::escape::one_line;
use super::text::Text;

/// A table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    /// Text that may come from anywhere: shown on one line, with nothing that steers a terminal.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let line = one_line(&text.into());
        Self { text: if line.is_empty() { "-".to_owned() } else { line }, paint: None }
    }

    /// A state, in its colour.
    pub(crate) fn state(word: &str) -> Self {
        Self { paint: Paint::state(word), ..Self::new(word) }
    }

    /// A node's name, in its colour.
    pub(crate) fn node(name: &str) -> Self {
        Self { paint: Some(Paint::node(name)), ..Self::new(name) }
    }

    /// The same, cut to so many characters.
    #[must_use]
    pub(crate) fn at_most(mut self, characters: usize) -> Self {
        if self.text.chars().count() > characters {
            self.text = self.text.chars().take(characters.saturating_sub(1)).chain(['…']).collect();
        }
        self
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl Table {
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text.
    pub(crate) fn text(&self) -> Text {
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| width(&cell.text)).chain([self.heads[column].len()]).max().unwrap_or(0)
            })
            .collect();
        let heads: Vec<Cell> = self
            .heads
            .iter()
            .map(|head| Cell { text: (*head).to_owned(), paint: Some(Paint::Faint) })
            .collect();
        let mut text = Text::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            for (column, cell) in row.iter().enumerate() {
                text = match cell.paint {
                    Some(paint) => text.painted(paint, &cell.text),
                    None => text.then(&cell.text),
                };
                if column + 1 < row.len() {
                    let gap = widths.get(column).map_or(3, |wide| wide + 3 - width(&cell.text));
                    text = text.then(" ".repeat(gap));
                }
            }
            text = text.then("\n");
        }
        text
    }
}

/// Columns that a text takes on a terminal, as far as it is known without tables of characters: wide East Asian
/// characters take two.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match c as u32 {
            0x300..=0x36f => 0,
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff00..=0xff60
            | 0xffe0..=0xffe6
            | 0x1f300..=0x1faff
            | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::color::To;
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec!["a".into(), "Running".into()]);
        table.row(vec!["long-name".into(), Cell::new("")]);
        assert_eq!(table.text().render(To::Out), "NAME        STATE\na           Running\nlong-name   -\n");
    }

    #[test]
    fn a_cell_cannot_break_the_table() {
        let mut table = Table::new(&["COMMAND"]);
        table.row(vec![Cell::new("a\nb\x1b[2J")]);
        table.row(vec![Cell::new("x".repeat(50)).at_most(10)]);
        assert_eq!(table.text().render(To::Out), "COMMAND\na⏎b^[[2J\nxxxxxxxxx…\n");
    }
}
