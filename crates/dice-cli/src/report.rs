//! Tables as text, Markdown, LaTeX and CSV, and how numbers are written.

use std::fmt::Write;

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for a terminal.
    Table,
    /// A Markdown table.
    Markdown,
    /// A LaTeX tabular (booktabs).
    Latex,
    /// Every metric, one row for each detector and set.
    Csv,
    /// Everything.
    Json,
}

/// A table: the first `left` columns are text, the others numbers.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) left: usize,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, header: &[&str], left: usize) -> Self {
        let header = header.iter().map(|name| (*name).to_owned()).collect();
        Self { title: title.into(), header, rows: Vec::new(), left }
    }

    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Table | Format::Json => self.text(),
            Format::Markdown => self.markdown(),
            Format::Latex => self.latex(),
            Format::Csv => self.csv(),
        }
    }

    fn text(&self) -> String {
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| self.cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let line = |cells: &[String]| {
            let mut line = String::new();
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                line += &if column < self.left { format!("{cell}{pad}") } else { format!("{pad}{cell}") };
                line += "  ";
            }
            line.trim_end().to_owned() + "\n"
        };
        let mut text = String::new();
        if !self.title.is_empty() {
            text += &format!("\x1b[1m{}\x1b[0m\n", self.title);
        }
        text += &line(&self.header);
        text += &format!("{}\n", "-".repeat(line(&self.header).trim_end().chars().count().max(8)));
        for row in &self.rows {
            text += &line(row);
        }
        text
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &String> {
        std::iter::once(&self.header[column]).chain(self.rows.iter().map(move |row| &row[column]))
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = if self.title.is_empty() { String::new() } else { format!("**{}**\n\n", self.title) };
        text += &line(&self.header);
        let rule: Vec<&str> =
            (0..self.header.len()).map(|column| if column < self.left { "---" } else { "---:" }).collect();
        text += &format!("| {} |\n", rule.join(" | "));
        for row in &self.rows {
            text += &line(row);
        }
        text
    }

    fn latex(&self) -> String {
        let escape = |cell: &String| {
            let mut out = String::new();
            for c in cell.chars() {
                match c {
                    '%' | '_' | '#' | '&' | '$' | '{' | '}' => {
                        out.push('\\');
                        out.push(c);
                    }
                    '\\' => out += "\\textbackslash{}",
                    '^' => out += "\\textasciicircum{}",
                    '~' => out += "\\textasciitilde{}",
                    '|' => out += "\\textbar{}",
                    '↓' => out += "$\\downarrow$",
                    '↑' => out += "$\\uparrow$",
                    '≥' => out += "$\\geq$",
                    other => out.push(other),
                }
            }
            out
        };
        let line = |cells: &[String]| format!("{} \\\\\n", cells.iter().map(escape).collect::<Vec<_>>().join(" & "));
        let columns = "l".repeat(self.left) + &"r".repeat(self.header.len() - self.left);
        let mut text = if self.title.is_empty() { String::new() } else { format!("% {}\n", self.title) };
        let _ = write!(text, "\\begin{{tabular}}{{{columns}}}\n\\toprule\n{}\\midrule\n", line(&self.header));
        for row in &self.rows {
            text += &line(row);
        }
        text + "\\bottomrule\n\\end{tabular}\n"
    }

    fn csv(&self) -> String {
        let quote = |cell: &String| {
            if cell.contains([',', '"', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
        };
        std::iter::once(&self.header)
            .chain(&self.rows)
            .map(|row| row.iter().map(quote).collect::<Vec<_>>().join(",") + "\n")
            .collect()
    }
}

/// A fraction as a percentage with two digits, without the sign.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

/// A whole number with separators: 50,000.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_in_every_format() {
        let mut table = Table::new("", &["detector", "FPR ↓"], 1);
        table.rows.push(vec!["dice(0.9) | energy".into(), "1.50".into()]);
        assert_eq!(
            table.render(Format::Table),
            "detector            FPR ↓\n-------------------------\ndice(0.9) | energy   1.50\n"
        );
        assert_eq!(
            table.render(Format::Markdown),
            "| detector | FPR ↓ |\n| --- | ---: |\n| dice(0.9) \\| energy | 1.50 |\n"
        );
        assert!(table.render(Format::Latex).contains("dice(0.9) \\textbar{} energy & 1.50 \\\\"));
        table.rows[0][0] = "a, \"b\"".into();
        assert_eq!(table.render(Format::Csv), "detector,FPR ↓\n\"a, \"\"b\"\"\",1.50\n");
        assert_eq!((count(7), count(1_234), count(1_000_000)), ("7".into(), "1,234".into(), "1,000,000".into()));
    }
}
