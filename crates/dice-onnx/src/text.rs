//! Words from files, in messages.

/// A name from a file, safe to print: control characters escaped, never long.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 200;
    let mut text: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        text += "...";
    }
    format!("`{text}`")
}
