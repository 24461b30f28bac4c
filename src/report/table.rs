//! Tables in plain text that fit the width of a terminal.

/// Space between columns.
const GAP: &str = "  ";
/// No column is made narrower than this.
const NARROWEST: usize = 8;

/// On which side the text of a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<(String, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(header: &[(&str, Side)]) -> Self {
        let header = header.iter().map(|(name, side)| ((*name).to_owned(), *side)).collect();
        Self { header, rows: Vec::new() }
    }

    /// Adds a row, with a cell for every column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines. When they would be wider than `width` characters, the last columns are cut, and say so by
    /// a mark; without a width nothing is cut.
    #[must_use]
    pub fn lines(&self, width: Option<usize>) -> Vec<String> {
        let titles: Vec<String> = self.header.iter().map(|(name, _)| name.clone()).collect();
        let mut widths: Vec<usize> = titles.iter().map(|title| title.chars().count()).collect();
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(cell.chars().count());
            }
        }
        if let Some(width) = width {
            shrink(&mut widths, width);
        }
        std::iter::once(&titles).chain(&self.rows).map(|row| self.line(row, &widths)).collect()
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let cells = row.iter().zip(widths).zip(&self.header);
        let cells: Vec<String> = cells
            .map(|((cell, &width), (_, side))| {
                let cell = cut(cell, width);
                match side {
                    Side::Left => format!("{cell:<width$}"),
                    Side::Right => format!("{cell:>width$}"),
                }
            })
            .collect();
        cells.join(GAP).trim_end().to_owned()
    }
}

/// Takes what is too much from the last columns first.
fn shrink(widths: &mut [usize], width: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    let mut too_much = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
    for column in widths.iter_mut().rev() {
        let taken = too_much.min(column.saturating_sub(NARROWEST));
        *column -= taken;
        too_much -= taken;
    }
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let mut text: String = cell.chars().take(width.saturating_sub(1)).collect();
    text.push('\u{2026}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("ID", Side::Left), ("Size", Side::Right), ("Paths", Side::Left)]);
        table.row(vec!["a".to_owned(), "10".to_owned(), "/srv/data /home/somebody".to_owned()]);
        table
    }

    #[test]
    fn columns_line_up() {
        let expected = ["ID  Size  Paths", "a     10  /srv/data /home/somebody"];
        assert_eq!(table().lines(None), expected);
    }

    #[test]
    fn a_table_is_cut_to_the_width_and_shows_it() {
        let lines = table().lines(Some(22));
        assert_eq!(lines[1], "a     10  /srv/data /\u{2026}");
        assert!(lines.iter().all(|line| line.chars().count() <= 22), "{lines:?}");
    }
}
