//! The rows of docs/CONFIG.md, made from the tables of keys, and the test that compares both.

use super::field::Field;
use super::table::{Flag, Key, Table};

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Path of the key: `mount.source` is a key of each block `mount`.
    pub(crate) name: String,
    /// Its type, in the words of the documentation.
    pub(crate) kind: String,
    /// Its default in HCL, or `required`, `unset`, `empty`, `none`.
    pub(crate) default: String,
    /// Its description.
    pub(crate) doc: String,
    /// Whether a later version honours it.
    pub(crate) later: bool,
}

impl Row {
    /// Adds the key's row and those of the keys inside it.
    pub(crate) fn add<T: Field>(key: &Key, at: &str, later: bool, rows: &mut Vec<Self>) {
        let name = key.path(at);
        let later = later || key.flag == Flag::Later;
        let default = match (key.default, key.flag) {
            (Some(default), _) => format!("`{default}`"),
            (None, Flag::Required) => "required".to_owned(),
            (None, _) => T::UNSET.to_owned(),
        };
        let doc = key.doc.trim().to_owned();
        rows.push(Self { name: name.clone(), kind: T::kind(), default, doc, later });
        T::rows(&name, later, rows);
    }

    /// The keys of a table that a later version honours, in its order.
    pub(crate) fn unsupported<T: Table>() -> Vec<String> {
        let mut rows = Vec::new();
        T::rows("", false, &mut rows);
        let later = rows.into_iter().filter(|row| row.later && !row.name.contains('.'));
        later.map(|row| row.name).collect()
    }

    /// The row as it stands in docs/CONFIG.md.
    fn line(&self, prefix: &str) -> String {
        let Self { name, kind, default, doc, later } = self;
        let test = match (later, name.split_once('.')) {
            (true, _) => "`later_keys_are_refused`".to_owned(),
            (false, Some((block, _))) => format!("`{prefix}{block}`"),
            (false, None) => format!("`{prefix}{name}`"),
        };
        let since = if *later { "later" } else { "0.1" };
        format!("| `{name}` | {kind} | {default} | {doc} | {since} | {test} |\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plugin::PluginConfig;
    use crate::config::task::TaskKeys;
    use std::collections::HashSet;

    const HEAD: &str = "| key | type | default | meaning and rules | since | test |\n\
                        |---|---|---|---|---|---|\n";

    fn rows<T: Table>() -> Vec<Row> {
        let mut rows = Vec::new();
        T::rows("", false, &mut rows);
        rows
    }

    /// The document with the tables as the code has them between their marks.
    fn renew(text: &str) -> String {
        let mut text = text.to_owned();
        for (mark, prefix, rows) in [
            ("plugin keys", "plugin_key_", rows::<PluginConfig>()),
            ("task keys", "key_", rows::<TaskKeys>()),
        ] {
            let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->"));
            let (before, rest) = text.split_once(&begin).expect("mark of the table's begin");
            let (_, after) = rest.split_once(&end).expect("mark of the table's end");
            let table: String = rows.iter().map(|row| row.line(prefix)).collect();
            text = format!("{before}{begin}{HEAD}{table}{end}{after}");
        }
        text
    }

    /// `UPDATE_CONFIG_MD=1 cargo test -p nomad-driver-nspawn config_md` renews the tables.
    #[test]
    fn config_md_has_one_row_for_each_key() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIG.md");
        let text = std::fs::read_to_string(path).unwrap();
        let renewed = renew(&text);
        if std::env::var_os("UPDATE_CONFIG_MD").is_some() {
            std::fs::write(path, &renewed).unwrap();
        }
        let text = std::fs::read_to_string(path).unwrap();
        for line in renewed.lines() {
            let times = text.lines().filter(|l| *l == line).count();
            assert!(
                !line.starts_with("| `") || times == 1,
                "docs/CONFIG.md has {times} times: {line}"
            );
        }
        assert_eq!(text, renewed, "docs/CONFIG.md differs from the tables of keys");
    }

    #[test]
    fn every_key_is_described_once() {
        for rows in [rows::<PluginConfig>(), rows::<TaskKeys>()] {
            let names: HashSet<_> = rows.iter().map(|row| &row.name).collect();
            assert_eq!(names.len(), rows.len());
            for row in &rows {
                assert!(row.doc.ends_with('.') && !row.doc.contains('|'), "{row:?}");
                assert!(row.doc.chars().next().is_some_and(char::is_uppercase), "{row:?}");
            }
        }
    }
}
