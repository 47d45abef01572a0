//! Paths of a job: sources on the host, and the lists that join paths by colons.
//!
//! Only the form is checked here. Which directory of the host may be seen is the helper's to
//! decide.

use proto::path::{Absolute, Component, Relative};
use proto::task_spec::files::Source;

use crate::config::Problem;

/// Reads an absolute path; a problem names the key.
pub(crate) fn absolute(key: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Absolute> {
    Absolute::parse(text)
        .map_err(|e| {
            let rule = if text.starts_with('/') {
                e.to_string()
            } else {
                "must be an absolute path".to_owned()
            };
            problems.push(
                Problem::new(key, rule).value(text).remedy("write the path from / on, without .."),
            );
        })
        .ok()
}

/// Reads a source on the host: absolute, or below the task's own directory.
pub(crate) fn source(key: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Source> {
    if text.starts_with('/') {
        return absolute(key, text, problems).map(Source::Host);
    }
    let mut refuse = |rule: &str, remedy: &str| {
        problems.push(Problem::new(key, rule).value(text).remedy(remedy));
        None
    };
    if text.is_empty() {
        return refuse(
            "the source must not be empty",
            "name a path, or use tmpfs for a throw-away directory",
        );
    }
    if text.starts_with('+') {
        return refuse("sources inside the image are not supported", "name a path of the host");
    }
    match below(text) {
        Ok(path) => match path.components().first().map(Component::as_str) {
            // Nomad keeps its own secrets of the task in `private`.
            None | Some("private") => refuse(
                "the task's whole directory and its private part are not for the task",
                "name a directory in it, e.g. local/data",
            ),
            Some(_) => Some(Source::Task(path)),
        },
        Err(rule) => refuse(
            &format!("a relative source is below the task's directory: {rule}"),
            "e.g. local/data; the directory that tasks share is /alloc inside already",
        ),
    }
}

/// A path below some directory; `.` components are dropped.
pub(crate) fn below(text: &str) -> Result<Relative, String> {
    let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".");
    let parts: Result<Vec<_>, _> = parts.map(Component::new).collect();
    parts.and_then(Relative::new).map_err(|e| e.to_string())
}

/// Splits at colons; `\:` is a colon of the text and `\\` a backslash, as systemd-nspawn reads it.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped = (character == '\\')
            .then(|| characters.next_if(|next| matches!(next, ':' | '\\')))
            .flatten();
        match (character, escaped) {
            (':', _) => parts.push(String::new()),
            (plain, escaped) => {
                if let Some(last) = parts.last_mut() {
                    last.push(escaped.unwrap_or(plain));
                }
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn colons_part_and_escapes_hold() {
        for (text, parts) in [
            ("", &[""][..]),
            ("/a", &["/a"]),
            ("/a:/b", &["/a", "/b"]),
            ("/a::/b", &["/a", "", "/b"]),
            (r"/a\:b:/c", &["/a:b", "/c"]),
            (r"/a\\:b", &[r"/a\", "b"]),
            (r"/a\x\", &[r"/a\x\"]),
        ] {
            assert_eq!(split(text), parts, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_back(parts in proptest::collection::vec("[a:\\\\é]{0,4}", 1..5)) {
            let escape = |part: &String| part.replace('\\', "\\\\").replace(':', "\\:");
            let text = parts.iter().map(escape).collect::<Vec<_>>().join(":");
            prop_assert_eq!(split(&text), parts);
        }
    }

    #[test]
    fn sources_are_absolute_or_the_tasks() {
        let read = |text: &str| {
            let mut problems = Vec::new();
            source("bind", text, &mut problems).ok_or(problems)
        };
        let host = Source::Host(Absolute::parse("/srv/x").unwrap());
        assert_eq!(read("/srv//x/"), Ok(host));
        assert_eq!(read("./local/x"), Ok(Source::Task(below("local/x").unwrap())));
        for bad in [
            "",
            "+/etc",
            ".",
            "./",
            "private",
            "private/x",
            "../x",
            "local/../x",
            "a\nb",
            "/a/../b",
        ] {
            assert_eq!(read(bad).unwrap_err().len(), 1, "{bad:?}");
        }
    }
}
