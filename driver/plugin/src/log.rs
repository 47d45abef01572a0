//! Log lines for the agent: one hclog JSON object a line on standard error.
//!
//! The agent crashes on `@` values that are not strings and takes lines of at most 64 KiB, so the
//! line is built here, field by field, and cut before it grows too long. A write that fails is
//! swallowed: after an agent crash nobody reads. Values of a job never come here; their types
//! print their length alone.

use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::text::cut;

/// Longest text of one field, in bytes, and longest line; both far below the agent's 64 KiB.
const TEXT_MAX: usize = 8 * 1024;
const LINE_MAX: usize = 60 * 1024;

/// Writes events of this program from DEBUG up, and warnings of its libraries. The agent filters
/// by its own level.
#[derive(Debug)]
struct Hclog;

impl Subscriber for Hclog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().starts_with(module_root());
        metadata.is_event() && *metadata.level() <= if own { Level::DEBUG } else { Level::WARN }
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        write(&line(level_name(*metadata.level()), metadata.target(), &fields, SystemTime::now()));
    }

    // Spans are not used; libraries' spans are not enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn module_root() -> &'static str {
    module_path!().split("::").next().unwrap_or_default()
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// Installs the subscriber and the panic hook. Once, at the start.
pub(crate) fn install() {
    tracing::subscriber::set_global_default(Hclog).ok();
    std::panic::set_hook(Box::new(|panic| {
        let mut fields = Fields {
            message: "the plugin hit a bug and may end; tasks go on without it".to_owned(),
            others: String::new(),
        };
        let what = panic
            .payload()
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.payload().downcast_ref::<String>().cloned())
            .unwrap_or_default();
        fields.text("panic", &what);
        if let Some(place) = panic.location() {
            fields.text("place", &place.to_string());
        }
        write(&line("error", module_root(), &fields, SystemTime::now()));
    }));
}

/// Writes bytes to standard error and ignores failure.
pub(crate) fn write(line: &str) {
    std::io::stderr().lock().write_all(line.as_bytes()).ok();
}

/// An event's fields as the inside of a JSON object.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: String,
}

impl Fields {
    fn key(&mut self, name: &str) {
        self.others.push(',');
        // `@` keys are the agent's own.
        quote(&mut self.others, name.trim_start_matches('@'));
        self.others.push(':');
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        quote(&mut self.others, cut(value, TEXT_MAX));
    }

    fn number(&mut self, name: &str, value: impl fmt::Display) {
        self.key(name);
        self.others.push_str(&value.to_string());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.text(field.name(), &text);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.text(field.name(), value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field.name(), value);
    }
}

fn line(level: &str, module: &str, fields: &Fields, now: SystemTime) -> String {
    let mut out = String::with_capacity(256);
    for (name, value) in [
        ("{\"@level\":", level),
        (",\"@message\":", cut(&fields.message, TEXT_MAX)),
        (",\"@module\":", module),
        (",\"@timestamp\":", &timestamp(now)),
    ] {
        out.push_str(name);
        quote(&mut out, value);
    }
    // Fields are whole or not there at all: a cut object is not JSON.
    if out.len() + fields.others.len() < LINE_MAX {
        out.push_str(&fields.others);
    }
    out.push_str("}\n");
    out
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// RFC 3339 in UTC with exactly six fractional digits, the only form that the agent parses.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z",
        since.subsec_micros()
    )
}

/// Days since 1970-01-01 as year, month, day (Howard Hinnant, chrono-compatible low-level date
/// algorithms; the year begins in March so that the leap day comes last).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_six_digits() {
        let at =
            |seconds, micros: u32| timestamp(UNIX_EPOCH + Duration::new(seconds, micros * 1000));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_400, 1), "2000-02-29T00:00:00.000001Z");
        assert_eq!(at(1_769_860_800, 999_999), "2026-01-31T12:00:00.999999Z");
        assert_eq!(at(4_107_542_399, 0), "2100-02-28T23:59:59.000000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
    }

    #[test]
    fn a_line_is_one_object_with_text_values() {
        let mut fields =
            Fields { message: "say \"hi\"\n\u{1b}[0m".to_owned(), others: String::new() };
        fields.text("@level", "é\\");
        fields.number("n", 3);
        let line = line("info", "driver::x", &fields, UNIX_EPOCH);
        assert_eq!(
            line,
            "{\"@level\":\"info\",\"@message\":\"say \\\"hi\\\"\\n\\u001b[0m\",\
             \"@module\":\"driver::x\",\"@timestamp\":\"1970-01-01T00:00:00.000000Z\",\
             \"level\":\"é\\\\\",\"n\":3}\n"
        );
    }

    /// The hook is the whole process's, so the panic is that of a second one: this test again.
    #[test]
    fn panics_are_one_line_for_the_agent() {
        const PANIC: &str = "NSPAWN_TEST_PANIC";
        if std::env::var_os(PANIC).is_some() {
            install();
            panic!("at the \"disco\"\nof {}", 7);
        }
        let name = "log::tests::panics_are_one_line_for_the_agent";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(PANIC, "1")
            .output()
            .unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("disco")).collect();
        let [line] = lines[..] else { panic!("{text}") };
        assert!(
            line.starts_with(r#"{"@level":"error","@message":"the plugin hit a bug"#),
            "{line}"
        );
        let panic = r#","panic":"at the \"disco\"\nof 7","place":""#;
        assert!(line.contains(panic) && line.ends_with("\"}"), "{line}");
    }

    #[test]
    fn lines_stay_below_the_agents_limit() {
        let mut fields = Fields { message: "é".repeat(100_000), others: String::new() };
        for _ in 0..20 {
            fields.text("x", &"\u{1}".repeat(100_000));
        }
        let line = line("info", "driver", &fields, UNIX_EPOCH);
        assert!(line.len() < 64 * 1024);
        assert!(line.ends_with("}\n"));
        assert_eq!(line.matches('\n').count(), 1);
    }
}
