//! Strings that are shortened before they are shown.
//!
//! Trusts nothing of its input and never cuts inside a character.

/// The beginning of a text, of whole characters and at most so many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_kept_whole_or_left_out() {
        for (text, most, kept) in
            [("", 0, ""), ("abc", 9, "abc"), ("abc", 2, "ab"), ("é", 1, ""), ("aéb", 3, "aé")]
        {
            assert_eq!(cut(text, most), kept, "{text} {most}");
        }
    }
}
