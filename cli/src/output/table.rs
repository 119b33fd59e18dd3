//! Tables as kubectl prints them: headers in upper case, columns separated by three spaces, no borders.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::color::Style;
use super::escape::single_line;
use super::text::Text;

/// A table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    /// A cell with any text; line ends are shown, so that it stays on one line. An empty text becomes `-`.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let line = single_line(&text.into());
        Self { text: if line.is_empty() { "-".to_owned() } else { line }, style: None }
    }

    /// A state, phase or outcome in its style.
    pub(crate) fn state(state: &str) -> Self {
        Self { style: Style::state(state), ..Self::new(state) }
    }

    /// The name of a node in its color.
    pub(crate) fn node(name: &str) -> Self {
        Self { style: Some(Style::node(name)), ..Self::new(name) }
    }

    /// The same cell, truncated to a width in columns of a terminal.
    #[must_use]
    pub(crate) fn truncated(mut self, width: usize) -> Self {
        if self.text.width() > width {
            let mut room = width.saturating_sub(1);
            let fits = |character: &char| {
                let columns = character.width().unwrap_or(0);
                let fits = columns <= room;
                room = room.saturating_sub(columns);
                fits
            };
            self.text = self.text.chars().take_while(fits).chain(['…']).collect();
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
    pub(crate) fn new(headers: &[&'static str]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text.
    pub(crate) fn text(&self) -> Text {
        let widths: Vec<usize> = (0..self.headers.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.text.width()).chain([self.headers[column].len()]).max().unwrap_or(0)
            })
            .collect();
        let headers: Vec<Cell> = self
            .headers
            .iter()
            .map(|header| Cell { text: (*header).to_owned(), style: Some(Style::Dim) })
            .collect();
        let mut text = Text::new();
        for row in std::iter::once(&headers).chain(&self.rows) {
            for (column, cell) in row.iter().enumerate() {
                text = match cell.style {
                    Some(style) => text.styled(style, &cell.text),
                    None => text.plain(&cell.text),
                };
                if column + 1 < row.len() {
                    let gap = widths.get(column).map_or(3, |widest| widest + 3 - cell.text.width());
                    text = text.plain(" ".repeat(gap));
                }
            }
            text = text.plain("\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::color::StdStream;
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec!["a".into(), "Running".into()]);
        table.row(vec!["long-name".into(), Cell::new("")]);
        assert_eq!(
            table.text().render(StdStream::Out),
            "NAME        STATE\na           Running\nlong-name   -\n"
        );
    }

    #[test]
    fn wide_and_combining_characters_count_their_columns() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec!["日本".into(), "x".into()]);
        table.row(vec!["e\u{301}e\u{301}".into(), "x".into()]);
        assert_eq!(table.text().render(StdStream::Out), "NAME   STATE\n日本   x\ne\u{301}e\u{301}     x\n");
        assert_eq!(Cell::new("日本語").truncated(5).text, "日本…");
        assert_eq!(Cell::new("日本語").truncated(6).text, "日本語");
    }

    #[test]
    fn a_cell_stays_on_one_line() {
        let mut table = Table::new(&["COMMAND"]);
        table.row(vec![Cell::new("a\nb\x1b[2J")]);
        table.row(vec![Cell::new("x".repeat(50)).truncated(10)]);
        assert_eq!(table.text().render(StdStream::Out), "COMMAND\na⏎b^[[2J\nxxxxxxxxx…\n");
    }
}
