//! Columns that line up, without a frame, so that they can be read, cut and grepped.

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&text| text.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; empty cells become `-`.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let filled = cells
            .into_iter()
            .map(|c| if c.is_empty() { "-".to_owned() } else { c });
        self.rows.push(filled.collect());
    }

    /// The text; `empty` when there is no row.
    pub(crate) fn render(&self, empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{empty}\n");
        }
        let mut widths = vec![0; self.head.len()];
        for line in std::iter::once(&self.head).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(visible(cell));
            }
        }
        std::iter::once(&self.head)
            .chain(&self.rows)
            .map(|line| one(line, &widths))
            .collect()
    }
}

fn one(line: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in line.iter().zip(widths) {
        text.push_str(cell);
        let missing = width.saturating_sub(visible(cell)) + 2;
        text.extend(std::iter::repeat_n(' ', missing));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Characters that take room: colour sequences take none.
fn visible(text: &str) -> usize {
    let (mut count, mut inside) = (0, false);
    for c in text.chars() {
        match (inside, c) {
            (false, '\x1b') => inside = true,
            (true, 'm') => inside = false,
            (false, _) => count += 1,
            (true, _) => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let mut table = Table::new(&["NAME", "STATE", "NOTE"]);
        table.row(vec!["a".into(), "\x1b[32m√\x1b[0m".into(), String::new()]);
        table.row(vec!["longer".into(), "xx".into(), "é".into()]);
        assert_eq!(
            table.render("none"),
            "NAME    STATE  NOTE\na       \x1b[32m√\x1b[0m      -\nlonger  xx     é\n"
        );
        assert_eq!(Table::new(&["A"]).render("nothing here"), "nothing here\n");
    }
}
