//! Aligned tables of text, and the escaping of their cells. Pure.

use std::fmt;

use unicode_width::UnicodeWidthStr as _;

/// The gap between two columns.
const GAP: usize = 2;

/// A column: its name and alignment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Column::Left(name) | Column::Right(name) => name,
        }
    }
}

/// A table; `Display` aligns its columns.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: &'static [Column],
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &'static [Column]) -> Table {
        Table { columns, widths: columns.iter().map(|column| column.name().width()).collect(), rows: Vec::new() }
    }

    /// The same with columns of at least these widths, for a table that is printed row by row.
    pub(crate) fn with_widths(mut self, widths: &[usize]) -> Table {
        for (width, &least) in self.widths.iter_mut().zip(widths) {
            *width = (*width).max(least);
        }
        self
    }

    pub(crate) fn push(&mut self, cells: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.width());
        }
        self.rows.push(cells);
    }

    /// One row alone, in the widths that there are.
    pub(crate) fn line(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let padding = self.widths.get(i).map_or(0, |width| width.saturating_sub(cell.width()));
            let is_right = matches!(self.columns.get(i), Some(Column::Right(_)));
            let (before, after) = if is_right { (padding, 0) } else { (0, padding) };
            let gap = if i + 1 < cells.len() { GAP } else { 0 };
            line.extend([" ".repeat(before).as_str(), cell, " ".repeat(after + gap).as_str()]);
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// The names of the columns.
    pub(crate) fn head(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| column.name().to_uppercase()).collect();
        self.line(&names)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.head())?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", self.line(row)))
    }
}

/// Text for people: control characters and invisible ones, which could forge a line or hide one, are escaped.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_invisible(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Characters of no width, and those that turn the direction of the text.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_is_seen() {
        let mut table = Table::new(&[Column::Left("sku"), Column::Right("held"), Column::Left("state")]);
        for (sku, held) in [("größe 7", "3"), ("靴", "1000")] {
            table.push(vec![sku.to_owned(), held.to_owned(), "x".to_owned()]);
        }
        assert_eq!(table.to_string(), "SKU      HELD  STATE\ngröße 7     3  x\n靴       1000  x\n");
    }

    #[test]
    fn nothing_that_is_not_seen_reaches_the_terminal() {
        assert_eq!(shown("a b/ü\"'\\"), "a b/ü\"'\\");
        assert_eq!(shown("a\n\u{1b}[31m\u{202e}\u{200b}\u{7f}"), "a\\n\\u{1b}[31m\\u{202e}\\u{200b}\\u{7f}");
    }
}
