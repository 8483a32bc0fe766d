//! A table, and its three looks: text for a terminal, Markdown, HTML.
//!
//! Cells are finished text; what they mean is decided in `tables`.

mod render;

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Title of the table.
    pub title: String,
    /// Columns, left to right.
    pub columns: Vec<Column>,
    /// Rows, as many cells as columns each.
    pub rows: Vec<Vec<String>>,
    /// Sentences that belong under it.
    pub notes: Vec<String>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading of the column, with the unit.
    pub name: String,
    /// Alignment of the column's cells.
    pub align: Align,
}

/// Alignment of a cell's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// A table with no rows. A heading that starts with `<` is one of words, standing left.
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| match column.strip_prefix('<') {
            Some(name) => Column {
                name: name.into(),
                align: Align::Left,
            },
            None => Column {
                name: (*column).into(),
                align: Align::Right,
            },
        });
        Self {
            title: title.into(),
            columns: columns.collect(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Drops a column whose cells are all empty.
    pub(crate) fn without_empty(mut self) -> Self {
        for at in (0..self.columns.len()).rev() {
            if self.rows.iter().all(|row| row[at].is_empty()) {
                self.columns.remove(at);
                for row in &mut self.rows {
                    row.remove(at);
                }
            }
        }
        self
    }
}
