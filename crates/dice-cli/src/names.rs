//! Names from files, shown where a person reads or copies them.

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

/// A sentence that may hold names from files: each of its words as by [`shown`].
pub(crate) fn shown_words(sentence: &str) -> String {
    sentence.split([' ', '\n']).map(shown).collect::<Vec<_>>().join(" ")
}

/// Text that may hold names from files, with what does not print or turns the direction of the text around it as its code.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c.to_string() } else { c.escape_unicode().to_string() }).collect()
}

/// Whether a character is what it looks like: no control character, no mark of direction, no line end, none without width, and none
/// that Unicode says is no character, which XML does not take.
pub(crate) fn is_plain(c: char) -> bool {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{61c}' | '\u{feff}');
    let none = u32::from(c) & 0xfffe == 0xfffe || matches!(c, '\u{fdd0}'..='\u{fdef}');
    !turns && !none && !c.is_control()
}

/// A word for a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@#".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Files that a detector records, as words for a shell; `None` where a name is none that one should copy unseen.
pub(crate) fn recorded_files(record: &str) -> Option<String> {
    let words: Vec<&str> = record.split(' ').collect();
    let fine = |word: &&str| !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain);
    words.iter().all(fine).then(|| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        for (word, expected) in [
            ("test.npy", "test.npy"),
            ("svhn=a/b.npy#x", "svhn=a/b.npy#x"),
            ("dice(0.9) | energy", "'dice(0.9) | energy'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
        assert_eq!(recorded_files("a.npy b;c.npy").as_deref(), Some("a.npy 'b;c.npy'"));
        for record in ["", "a -o", "a\nb", "\u{202e}a"] {
            assert_eq!(recorded_files(record), None, "{record:?}");
        }
    }

    #[test]
    fn names_are_what_they_look_like() {
        assert_eq!(shown("a\nb\u{202e}\u{ffff}"), "a\\u{a}b\\u{202e}\\u{ffff}");
        assert_eq!(shown(&"é".repeat(100)).chars().count(), 81);
    }
}
