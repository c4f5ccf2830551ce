//! Tables in LaTeX, for a document that has booktabs and nothing else: any name typesets, in pdfTeX as in XeTeX and LuaTeX.

use std::fmt::Write;

use crate::names::{is_plain, visible};

/// Shows characters that pdfTeX knows only by further packages: the other engines by themselves, pdfTeX by their codes.
const BEYOND: &str = "\\providecommand{\\dicebeyond}[2]{\\ifdefined\\Umathchar#1\\else\\texttt{#2}\\fi}\n";

/// A `tabular`: the first `left` columns are text, the others numbers.
pub(crate) fn tabular(title: &str, header: &[String], rows: &[Vec<String>], left: usize) -> String {
    let columns = "l".repeat(left) + &"r".repeat(header.len() - left);
    let mut body = format!("\\begin{{tabular}}{{{columns}}}\n\\toprule\n{}\\midrule\n", line(header));
    rows.iter().for_each(|row| body += &line(row));
    body += "\\bottomrule\n\\end{tabular}\n";
    let mut text = String::new();
    if !title.is_empty() {
        let _ = writeln!(text, "% {}", title.replace(|c| !is_plain(c), " "));
    }
    if body.contains("\\dicebeyond") {
        text += BEYOND;
    }
    text + &body
}

fn line(cells: &[String]) -> String {
    format!("{} \\\\\n", cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join(" & "))
}

/// Text that stands in a cell as it is.
fn escaped(cell: &str) -> String {
    let mut out = String::new();
    let mut before = None;
    for run in visible(cell).chars().collect::<Vec<_>>().chunk_by(|a, b| is_beyond(*a) && is_beyond(*b)) {
        match run {
            [first, ..] if is_beyond(*first) => {
                let codes: Vec<String> = run.iter().map(|c| format!("U+{:04X}", u32::from(*c))).collect();
                let _ = write!(out, "\\dicebeyond{{{}}}{{{}}}", run.iter().collect::<String>(), codes.join(" "));
            }
            _ => run.iter().for_each(|c| {
                escape(*c, before, &mut out);
                before = Some(*c);
            }),
        }
    }
    out
}

/// One character, behind another of its cell.
fn escape(c: char, before: Option<char>, out: &mut String) {
    match c {
        '%' | '_' | '#' | '&' | '$' | '{' | '}' => {
            out.push('\\');
            out.push(c);
        }
        '\\' => *out += "\\textbackslash{}",
        '^' => *out += "\\textasciicircum{}",
        '~' => *out += "\\textasciitilde{}",
        '|' => *out += "\\textbar{}",
        '<' => *out += "\\textless{}",
        '>' => *out += "\\textgreater{}",
        // Behind a mark of its own it would be another.
        '`' => *out += "{`}",
        '"' => *out += "{\\ttfamily\\char34}",
        '↓' => *out += "$\\downarrow$",
        '↑' => *out += "$\\uparrow$",
        '≥' => *out += "$\\geq$",
        '≠' => *out += "$\\neq$",
        // An option or a star of the line's end before it.
        '[' | '*' if before.is_none() => {
            let _ = write!(out, "{{{c}}}");
        }
        // Two of them are a dash.
        '-' if before == Some('-') => *out += "{}-",
        other => out.push(other),
    }
}

/// Whether a plain LaTeX document in pdfTeX does not know a character: those of its default encoding are Latin with accents, and punctuation.
fn is_beyond(c: char) -> bool {
    let known = match c {
        ..='\u{7e}' | '↓' | '↑' | '≥' | '≠' => true,
        '\u{a1}'..='\u{17f}' => !"«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ\u{ad}".contains(c),
        '–' | '—' | '‘' | '’' | '“' | '”' | '†' | '‡' | '•' | '…' => true,
        _ => false,
    };
    !known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_cells_as_they_are() {
        for (name, expected) in [
            ("dice(0.9) | energy", "dice(0.9) \\textbar{} energy"),
            ("a_b & 5 % #1 $x$ {y}", "a\\_b \\& 5 \\% \\#1 \\$x\\$ \\{y\\}"),
            ("\\x^2~<b>", "\\textbackslash{}x\\textasciicircum{}2\\textasciitilde{}\\textless{}b\\textgreater{}"),
            ("[0, 1]", "{[}0, 1]"),
            ("*", "{*}"),
            ("a---b", "a-{}-{}-b"),
            ("é", "é"),
            ("a漢字b", "a\\dicebeyond{漢字}{U+6F22 U+5B57}b"),
            ("a\n\u{202e}b", "a\\textbackslash{}u\\{a\\}\\textbackslash{}u\\{202e\\}b"),
        ] {
            assert_eq!(escaped(name), expected);
        }
    }

    #[test]
    fn a_table_names_its_command_where_it_takes_it() {
        let table = |name: &str| tabular("a\nb", &["x".into(), name.into()], &[], 1);
        assert_eq!(
            table("y"),
            "% a b\n\\begin{tabular}{lr}\n\\toprule\nx & y \\\\\n\\midrule\n\\bottomrule\n\\end{tabular}\n"
        );
        assert!(table("漢").contains("\n\\providecommand{\\dicebeyond}[2]"));
    }
}
