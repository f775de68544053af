//! Tables for people: columns as wide as their widest cell.

use std::fmt::Write;

/// Lays out rows of cells, the first of them the head; columns are two spaces apart. Columns whose cells are numbers
/// (`is_number`) are set to the right.
pub fn lay_out<const N: usize>(rows: &[[String; N]], is_number: [bool; N]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for ((cell, width), is_number) in row.iter().zip(widths).zip(is_number) {
            let _ =
                if is_number { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:width$}  ") };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}
