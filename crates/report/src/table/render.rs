//! The three looks of a table.

use std::fmt::Write;

use super::{Align, Table};
use crate::page::escape;

// Writing to a String cannot fail, so results of `write!` are dropped here.
impl Table {
    /// Columns of equal width, for a terminal.
    pub fn text(&self) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells
                .max()
                .unwrap_or(0)
                .max(self.columns[at].name.chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let mut out = String::new();
            for ((cell, width), column) in cells.iter().zip(&widths).zip(&self.columns) {
                let _ = match column.align {
                    Align::Left => write!(out, "{cell:<width$}  "),
                    Align::Right => write!(out, "{cell:>width$}  "),
                };
            }
            out.truncate(out.trim_end().len());
            out + "\n"
        };
        let mut out = format!("{}\n", self.title);
        out += &line(self.columns.iter().map(|c| c.name.as_str()).collect());
        for row in &self.rows {
            out += &line(row.iter().map(String::as_str).collect());
        }
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        out
    }

    /// A Markdown table under a bold title.
    pub fn markdown(&self) -> String {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = format!("**{}**\n\n", self.title);
        out += &line(self.columns.iter().map(|c| cell(&c.name)).collect());
        let rule = |align: Align| match align {
            Align::Left => "---".to_string(),
            Align::Right => "---:".to_string(),
        };
        out += &line(self.columns.iter().map(|c| rule(c.align)).collect());
        for row in &self.rows {
            out += &line(row.iter().map(|text| cell(text)).collect());
        }
        for note in &self.notes {
            let _ = write!(out, "\n{note}\n");
        }
        out
    }

    /// An HTML table that is XML too.
    pub fn html(&self) -> String {
        let class = |align: Align| match align {
            Align::Left => "",
            Align::Right => " class=\"n\"",
        };
        let mut out = format!(
            "<table><caption>{}</caption>\n<thead><tr>",
            escape(&self.title)
        );
        for column in &self.columns {
            let (class, name) = (class(column.align), escape(&column.name));
            let _ = write!(out, "<th scope=\"col\"{class}>{name}</th>");
        }
        out += "</tr></thead>\n<tbody>\n";
        for row in &self.rows {
            out += "<tr>";
            for (cell, column) in row.iter().zip(&self.columns) {
                let _ = write!(out, "<td{}>{}</td>", class(column.align), escape(cell));
            }
            out += "</tr>\n";
        }
        out += "</tbody></table>\n";
        for note in &self.notes {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(note));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("A < B", &["<name", "s", "<remark"]);
        table
            .rows
            .push(vec!["a|b".into(), "12.5".into(), "".into()]);
        table.rows.push(vec!["c".into(), "3".into(), "".into()]);
        table.notes.push("5 > 3.".into());
        table
    }

    #[test]
    fn text_is_aligned() {
        let expected = "A < B\nname     s  remark\na|b   12.5\nc        3\n5 > 3.\n";
        assert_eq!(table().text(), expected);
    }

    #[test]
    fn markdown_escapes_bars() {
        let expected =
            "**A < B**\n\n| name | s |\n| --- | ---: |\n| a\\|b | 12.5 |\n| c | 3 |\n\n5 > 3.\n";
        assert_eq!(table().without_empty().markdown(), expected);
    }

    #[test]
    fn html_escapes_and_aligns() {
        let html = table().html();
        assert!(html.contains("<caption>A &lt; B</caption>"), "{html}");
        assert!(html.contains("<td class=\"n\">12.5</td>"), "{html}");
        assert!(html.contains("5 &gt; 3."), "{html}");
    }
}
