//! Patterns of the policy file, matched against texts of a job. No text takes more time than the
//! product of both lengths.

/// Whether `text` as a whole is of the form `pattern`: `**` is any text, `*` any text without
/// `stop`, everything else itself. Takes time in proportion to both lengths.
pub(super) fn matches(pattern: &str, text: &str, stop: Option<u8>) -> bool {
    let text = text.as_bytes();
    // For each place in the text: whether the pattern read so far can end there.
    let mut ends: Vec<bool> = std::iter::once(true).chain(text.iter().map(|_| false)).collect();
    let mut pattern = pattern.as_bytes();
    loop {
        let stop = match pattern {
            [] => return ends.last() == Some(&true),
            [b'*', b'*', rest @ ..] => {
                pattern = rest;
                None
            }
            [b'*', rest @ ..] => {
                pattern = rest;
                stop
            }
            [byte, rest @ ..] => {
                let next = ends.iter().zip(text).map(|(end, b)| *end && b == byte);
                ends = std::iter::once(false).chain(next).collect();
                pattern = rest;
                continue;
            }
        };
        let mut open = false;
        let before = std::iter::once(None).chain(text.iter().map(Some));
        for (end, before) in ends.iter_mut().zip(before) {
            open = *end || (open && before.is_some_and(|byte| Some(*byte) != stop));
            *end = open;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_within_a_component_and_across() {
        let slash = Some(b'/');
        for (pattern, text, stop, expected) in [
            ("/dev/fuse", "/dev/fuse", slash, true),
            ("/dev/fuse", "/dev/fuse2", slash, false),
            ("/dev/*", "/dev/fuse", slash, true),
            ("/dev/*", "/dev/", slash, true),
            ("/dev/*", "/dev/dri/card0", slash, false),
            ("/dev/dri/card*", "/dev/dri/card10", slash, true),
            ("/dev/*/card*", "/dev/dri/card0", slash, true),
            ("/dev/**", "/dev/dri/card0", slash, true),
            ("/dev/**/c*0", "/dev/a/b/c10", slash, true),
            ("/dev/**/c*0", "/dev/a/b/c/0", slash, false),
            ("net.*", "net.ipv4.ip_forward", None, true),
            ("net.*", "net", None, false),
            ("*", "", None, true),
            ("", "a", None, false),
            ("a*b*c", "aXbYbZc", None, true),
            ("a*b*c", "aXcY", None, false),
        ] {
            assert_eq!(matches(pattern, text, stop), expected, "{pattern} {text}");
        }
    }

    /// Patterns of many stars take no more time than others.
    #[test]
    fn many_stars_are_cheap() {
        assert!(!matches(&"*a".repeat(2000), &"a".repeat(1999), None));
    }
}
