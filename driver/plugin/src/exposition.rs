//! Prometheus's text format: families with HELP and TYPE, samples with labels.
//!
//! For the plugin's endpoint and for `nomad-nspawnctl metrics`, so that both write the same names.
//! Every name begins with `nomad_nspawn_`; values of labels are escaped, names are our own.

use std::fmt::{Display, Write as _};

/// What all names begin with.
pub const PREFIX: &str = "nomad_nspawn_";

/// Type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Grows and shrinks.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

/// A page that is being written.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {PREFIX}{name} {help}"));
        self.line(format_args!("# TYPE {PREFIX}{name} {kind}"));
    }

    /// A sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut text = String::new();
        for (label, value) in labels {
            let comma = if text.is_empty() { "" } else { "," };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            text.push_str(&format!("{comma}{label}=\"{value}\""));
        }
        if text.is_empty() {
            self.line(format_args!("{PREFIX}{name} {value}"));
        } else {
            self.line(format_args!("{PREFIX}{name}{{{text}}} {value}"));
        }
    }

    /// A sample that is a number of things.
    pub fn count(&mut self, name: &str, labels: &[(&str, &str)], number: u64) {
        self.sample(name, labels, number);
    }

    /// The samples of one histogram: upper bounds in seconds with how many are not beyond them.
    pub fn histogram(
        &mut self,
        name: &str,
        label: (&str, &str),
        buckets: &[(f64, u64)],
        sum: f64,
        count: u64,
    ) {
        let bucket = format!("{name}_bucket");
        for (bound, number) in buckets {
            self.sample(&bucket, &[label, ("le", &bound.to_string())], number);
        }
        self.sample(&bucket, &[label, ("le", "+Inf")], count);
        self.sample(&format!("{name}_sum"), &[label], sum);
        self.sample(&format!("{name}_count"), &[label], count);
    }

    /// The version of this program and of systemd.
    pub fn build_info(&mut self, systemd: &str) {
        self.family("build_info", Kind::Gauge, "Versions of the driver and of systemd; always 1.");
        let version = env!("CARGO_PKG_VERSION");
        self.sample("build_info", &[("version", version), ("systemd", systemd)], 1);
    }

    /// Tasks by state.
    pub fn tasks(&mut self, states: &[(&str, usize)]) {
        let help = "Tasks of this node, by state; ended ones stay until Nomad removes them.";
        self.family("tasks", Kind::Gauge, help);
        for (state, number) in states {
            self.sample("tasks", &[("state", state)], number);
        }
    }

    /// Commands that run in tasks.
    pub fn sessions(&mut self, number: u64) {
        self.family("exec_sessions", Kind::Gauge, "Commands that run in tasks of this node.");
        self.count("exec_sessions", &[], number);
    }

    /// The page.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        writeln!(self.0, "{text}").ok();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// What promtool checks of a page: each family has one HELP and one TYPE before its samples,
    /// which are together; counters end in `_total`, histograms are cumulative up to `+Inf`, no
    /// sample comes twice. Returns the samples.
    pub(crate) fn check(text: &str) -> BTreeMap<String, f64> {
        let (mut samples, mut seen) = (BTreeMap::new(), BTreeSet::new());
        let (mut family, mut kind, mut last) = (String::new(), String::new(), 0.0);
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(seen.insert(name.to_owned()), "{name} twice");
                assert!(words.ends_with('.') && name.starts_with(PREFIX), "{line}");
                family = name.to_owned();
                continue;
            }
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, what) = declared.split_once(' ').unwrap();
                assert_eq!(name, family, "TYPE follows HELP");
                assert_eq!(what == "counter", name.ends_with("_total"), "{line}");
                kind = what.to_owned();
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let name = sample.split('{').next().unwrap();
            let rest = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} of {family}"));
            let suffixes: &[&str] =
                if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&rest), "{line}: {kind}");
            if rest == "_bucket" {
                let first = sample.contains("le=\"0.001\"");
                assert!(first || value >= last, "{line}: not cumulative");
                last = value;
            }
            if rest == "_count" {
                assert!((value - last).abs() < 0.5, "{line}: not as +Inf");
            }
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} twice");
        }
        samples
    }

    #[test]
    fn values_of_labels_are_escaped() {
        let mut page = Page::default();
        page.family("x", Kind::Gauge, "X.");
        page.sample("x", &[("a", "\"b\\\n"), ("c", "")], 7);
        let text = page.into_text();
        assert!(text.ends_with("nomad_nspawn_x{a=\"\\\"b\\\\\\n\",c=\"\"} 7\n"), "{text}");
        check(&text);
    }
}
