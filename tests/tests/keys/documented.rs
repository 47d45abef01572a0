//! docs/CONFIG.md against the tests of this directory: what it names exists.

use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../../docs/CONFIG.md");

/// The files that hold tests of keys.
const SOURCES: [&str; 14] = [
    include_str!("attached.rs"),
    include_str!("files.rs"),
    include_str!("image_root.rs"),
    include_str!("isolation.rs"),
    include_str!("later.rs"),
    include_str!("logs.rs"),
    include_str!("mounts.rs"),
    include_str!("network_names.rs"),
    include_str!("plugin.rs"),
    include_str!("private_users.rs"),
    include_str!("process.rs"),
    include_str!("resources.rs"),
    include_str!("roots.rs"),
    include_str!("start.rs"),
];

/// One row of a table of keys.
#[derive(Debug)]
pub(crate) struct Row {
    /// The key, with those of the blocks around it.
    pub(crate) key: String,
    /// The version that brought it, or `later`.
    pub(crate) since: String,
    /// The test's name.
    test: String,
}

/// The rows between a table's marks.
pub(crate) fn rows(table: &str) -> Vec<Row> {
    let (_, rest) = DOCUMENT.split_once(&format!("<!-- {table} -->")).unwrap();
    let (text, _) = rest.split_once(&format!("<!-- end of {table} -->")).unwrap();
    let row = |line: &str| {
        let line = line.strip_prefix("| `")?;
        let (key, rest) = line.split_once('`')?;
        let mut cells = rest.trim_end_matches(" |").rsplit(" | ");
        let (test, since) = (cells.next()?, cells.next()?);
        let test = test.trim_matches('`').to_owned();
        Some(Row { key: key.to_owned(), since: since.to_owned(), test })
    };
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    assert!(!rows.is_empty(), "{table}");
    rows
}

/// Names of the tests that are compiled here; one that is ignored is none.
fn tests() -> BTreeSet<&'static str> {
    let sources = SOURCES.iter();
    let parts = sources.flat_map(|source| source.split("#[test]\nfn ").skip(1));
    parts.filter_map(|part| part.split('(').next()).collect()
}

#[test]
fn every_test_that_the_document_names_exists() {
    let tests = tests();
    for table in ["plugin keys", "task keys"] {
        for row in rows(table) {
            assert!(tests.contains(row.test.as_str()), "{}: no test {}", row.key, row.test);
        }
    }
}

/// A test of a key that is gone, or has another name, helps nobody.
#[test]
fn every_test_of_a_key_is_named_in_the_document() {
    let keys: Vec<_> = ["plugin keys", "task keys"].into_iter().flat_map(rows).collect();
    for test in tests().into_iter().filter(|test| test.starts_with("key_")) {
        let named = keys.iter().any(|row| test.starts_with(row.test.as_str()));
        assert!(named, "{test} is the test of no key");
    }
}
