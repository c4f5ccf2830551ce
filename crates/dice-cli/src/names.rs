//! Names from files, shown where a person reads them.

/// Longer names are cut.
const LONGEST: usize = 80;

/// A name from a file on one line, never long: what does not print, or turns the direction of the text around it, as its code.
pub(crate) fn shown(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars().take(LONGEST) {
        match is_plain(c) {
            true => text.push(c),
            false => text.extend(c.escape_unicode()),
        }
    }
    if name.chars().nth(LONGEST).is_some() {
        text += "…";
    }
    text
}

/// Whether a character is what it looks like: no control character, no mark of direction, no line end, none without width.
fn is_plain(c: char) -> bool {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{61c}' | '\u{feff}');
    !turns && !c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_they_look_like() {
        assert_eq!(shown("a\nb\u{202e}"), "a\\u{a}b\\u{202e}");
        assert_eq!(shown(&"é".repeat(100)).chars().count(), 81);
    }
}
