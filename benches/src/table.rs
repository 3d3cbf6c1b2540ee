//! A table for a terminal: words to the left, figures to the right.

use std::fmt;

/// A table, printed by its `Display`. What a row repeats of the words of the row above is left out.
#[derive(Debug)]
pub struct Table {
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads: first the columns of words, then those of figures.
    pub fn new<W: Into<String>, F: Into<String>>(
        words: impl IntoIterator<Item = W>,
        figures: impl IntoIterator<Item = F>,
    ) -> Self {
        let mut heads: Vec<String> = words.into_iter().map(Into::into).collect();
        let words = heads.len();
        heads.extend(figures.into_iter().map(Into::into));
        Self { words, rows: vec![heads] }
    }

    /// One more row.
    pub fn row<W: Into<String>>(
        &mut self,
        words: impl IntoIterator<Item = W>,
        figures: impl IntoIterator<Item = String>,
    ) {
        self.rows.push(words.into_iter().map(Into::into).chain(figures).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut above: &[String] = &[];
        for row in &self.rows {
            let mut same = true;
            for (column, cell) in row.iter().enumerate() {
                let width = width(column);
                same &= column < self.words && above.get(column) == Some(cell);
                if column > 0 {
                    write!(f, "  ")?;
                }
                match column < self.words {
                    true if same => write!(f, "{:width$}", "")?,
                    true => write!(f, "{cell:width$}")?,
                    false => write!(f, "{cell:>width$}")?,
                }
            }
            writeln!(f)?;
            above = row;
        }
        Ok(())
    }
}

/// A figure with about three digits, and thousands set apart.
pub fn figure(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
