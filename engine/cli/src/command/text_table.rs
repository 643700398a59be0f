//! Tables in text output.

use comfy_table::{CellAlignment, Table, presets};

/// A table without borders. `right` has the indices of the columns that are aligned right.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    right: &[usize],
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A column of a table with one row for each `T`.
pub(super) struct Column<T> {
    header: &'static str,
    is_number: bool,
    value: fn(&T) -> String,
}

impl<T> Column<T> {
    /// A column of text.
    pub(super) const fn text(header: &'static str, value: fn(&T) -> String) -> Column<T> {
        Column {
            header,
            is_number: false,
            value,
        }
    }

    /// A column of numbers: aligned right.
    pub(super) const fn number(header: &'static str, value: fn(&T) -> String) -> Column<T> {
        Column {
            header,
            is_number: true,
            value,
        }
    }

    /// The table of these columns.
    pub(super) fn table<const N: usize>(columns: &[Column<T>; N], rows: impl Iterator<Item = T>) -> String {
        let header = columns.each_ref().map(|column| column.header);
        let numbers = columns.iter().enumerate().filter(|(_, column)| column.is_number);
        let right: Vec<usize> = numbers.map(|(i, _)| i).collect();
        let rows = rows.map(|row| columns.each_ref().map(|column| (column.value)(&row)));
        table(header, rows, &right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_columns_are_aligned_right() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["b".to_owned(), "1,000".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "COUNT"], rows.into_iter(), &[1]),
            " NAME  COUNT\n a         1\n b     1,000\n"
        );
    }
}
