//! What is counted, and its names.
//!
//! Filled by starts, by commands in tasks, by the helper's client and by ends of tasks; read by the
//! endpoint. Labels have
//! few values, all listed here: neither job nor allocation is one, because each value is a series
//! that a server keeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::error::{Code, Refusal};
use proto::plan::FilterSource;
use tokio::time::Instant;

use super::histogram::Histogram;
use crate::exposition::{Kind, Page};

/// Parts of a start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Reading job, host and image.
    Translate,
    /// Waiting for a place among the starts that run at once.
    Queue,
    /// The helper's part: from the first byte of the request to the payload's first instruction.
    Helper,
}

const STEPS: [&str; 3] = ["translate", "queue", "helper"];

/// How a start ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    /// The payload was executed.
    Started,
    /// Job, policy or host do not allow it.
    Refused,
    /// A step failed, or the helper was not there; Nomad may try again.
    Failed,
}

const STARTS: [&str; 3] = ["started", "refused", "failed"];

/// Parts of a command in a task.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// From its request to its execution.
    Setup,
    /// From there to its end, or that of who watches it.
    Run,
}

const PARTS: [&str; 2] = ["setup", "run"];

/// Where system call filters of starts are from; all but the first take longer.
const FILTERS: [&str; 6] = ["cache", "missing", "off", "rules", "untested", "confined"];

fn name_of(source: &FilterSource) -> &'static str {
    match source {
        FilterSource::Cache => "cache",
        FilterSource::Missing => "missing",
        FilterSource::Off => "off",
        FilterSource::Rules => "rules",
        FilterSource::Untested { .. } => "untested",
        FilterSource::Confined => "confined",
    }
}

/// Why the helper refused: the kinds of [`Code`] that are no matter of the protocol.
const REFUSALS: [(&str, Code); 4] = [
    ("policy", Code::Policy),
    ("invalid", Code::Invalid),
    ("busy", Code::Busy),
    ("failed", Code::Failed),
];

/// The verbs that the driver sends, but for the greeting.
const VERBS: [&str; 8] = ["part", "start", "signal", "kill", "status", "list", "remove", "exec"];

/// All figures of this process.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    starts: [AtomicU64; STARTS.len()],
    steps: [Histogram; STEPS.len()],
    refusals: [AtomicU64; REFUSALS.len()],
    requests: [Histogram; VERBS.len()],
    sessions: AtomicU64,
    parts: [Histogram; PARTS.len()],
    filters: [AtomicU64; FILTERS.len()],
    connects: AtomicU64,
    oom_kills: AtomicU64,
}

fn add(number: Option<&AtomicU64>) {
    if let Some(number) = number {
        number.fetch_add(1, Ordering::Relaxed);
    }
}

/// A command that runs in a task: counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    figures: &'a Figures,
    since: Instant,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.figures.sessions.fetch_sub(1, Ordering::Relaxed);
        self.figures.time_part(Part::Run, self.since.elapsed());
    }
}

impl Figures {
    /// A command is executed now, that long after its request.
    pub(crate) fn begin_session(&self, setup: Duration) -> Session<'_> {
        self.time_part(Part::Setup, setup);
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Session { figures: self, since: Instant::now() }
    }

    fn time_part(&self, part: Part, duration: Duration) {
        if let Some(histogram) = self.parts.get(part as usize) {
            histogram.observe(duration);
        }
    }

    /// A task has been started with system call filters from there.
    pub(crate) fn count_filters(&self, source: &FilterSource) {
        let place = FILTERS.iter().position(|known| *known == name_of(source));
        add(place.and_then(|place| self.filters.get(place)));
    }

    /// A start has ended so.
    pub(crate) fn count_start(&self, how: Start) {
        add(self.starts.get(how as usize));
    }

    /// A part of a start took so long.
    pub(crate) fn time_step(&self, step: Step, duration: Duration) {
        if let Some(histogram) = self.steps.get(step as usize) {
            histogram.observe(duration);
        }
    }

    /// The helper answered a request, after so long.
    pub(crate) fn time_request(&self, verb: &str, duration: Duration) {
        let place = VERBS.iter().position(|known| *known == verb);
        if let Some(histogram) = place.and_then(|place| self.requests.get(place)) {
            histogram.observe(duration);
        }
    }

    /// The helper refused.
    pub(crate) fn count_refusal(&self, refusal: &Refusal) {
        let place = REFUSALS.iter().position(|(_, code)| *code == refusal.code);
        add(place.and_then(|place| self.refusals.get(place)));
    }

    /// A helper process has been met that was not met before.
    pub(crate) fn count_helper(&self) {
        add(Some(&self.connects));
    }

    /// A task ended, and the kernel had killed in it for want of memory.
    pub(crate) fn count_oom_kill(&self) {
        add(Some(&self.oom_kills));
    }

    /// All of it in Prometheus's text format; `tasks` are those that run and those that have ended.
    pub(crate) fn page(&self, systemd: &str, tasks: [usize; 2]) -> String {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let mut page = Page::default();
        page.build_info(systemd);
        page.tasks(&[("running", tasks[0]), ("ended", tasks[1])]);
        page.family("starts_total", Kind::Counter, "Starts of tasks, by how they ended.");
        for (result, number) in STARTS.iter().zip(&self.starts) {
            page.count("starts_total", &[("result", result)], read(number));
        }
        let help = "Time of a start's parts: reading job, host and image; waiting for a place \
                    among the starts that run at once; the helper, up to the payload's first \
                    instruction.";
        page.family("start_seconds", Kind::Histogram, help);
        for (step, histogram) in STEPS.iter().zip(&self.steps) {
            histogram.read().write(&mut page, "start_seconds", ("step", step));
        }
        page.family(
            "refusals_total",
            Kind::Counter,
            "Requests that the helper refused: by policy, as invalid for this host, because \
             something was in use, or because a step failed.",
        );
        for ((rule, _), number) in REFUSALS.iter().zip(&self.refusals) {
            page.count("refusals_total", &[("rule", rule)], read(number));
        }
        let help = "Time from a request to the helper to its answer.";
        page.family("helper_request_seconds", Kind::Histogram, help);
        for (verb, histogram) in VERBS.iter().zip(&self.requests) {
            histogram.read().write(&mut page, "helper_request_seconds", ("verb", verb));
        }
        page.sessions(read(&self.sessions));
        let help = "Time of a command in a task: from its request to its execution; from there to \
                    its end.";
        page.family("exec_seconds", Kind::Histogram, help);
        for (phase, histogram) in PARTS.iter().zip(&self.parts) {
            histogram.read().write(&mut page, "exec_seconds", ("phase", phase));
        }
        let help = "Starts by where their system call filters are from: the cache, or \
                    systemd-nspawn and why.";
        page.family("seccomp_cache_total", Kind::Counter, help);
        for (result, number) in FILTERS.iter().zip(&self.filters) {
            page.count("seccomp_cache_total", &[("result", result)], read(number));
        }
        let help = "Helper processes that took the place of another one since the plugin's start.";
        page.family("helper_reconnects_total", Kind::Counter, help);
        page.count("helper_reconnects_total", &[], read(&self.connects).saturating_sub(1));
        let help = "Ended tasks in which the kernel had killed for want of memory.";
        page.family("oom_kills_total", Kind::Counter, help);
        page.count("oom_kills_total", &[], read(&self.oom_kills));
        page.into_text()
    }
}

impl super::histogram::Reading {
    fn write(&self, page: &mut Page, name: &str, label: (&str, &str)) {
        page.histogram(name, label, &self.buckets, self.sum, self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::tests::check;

    #[test]
    fn everything_that_is_counted_shows_under_its_name() {
        let figures = Figures::default();
        figures.count_start(Start::Started);
        figures.count_start(Start::Refused);
        figures.count_start(Start::Failed);
        figures.count_start(Start::Failed);
        figures.time_step(Step::Helper, Duration::from_millis(57));
        figures.time_request("status", Duration::from_millis(2));
        figures.time_request("no such verb", Duration::from_millis(2));
        figures.count_refusal(&Refusal::new(Code::Policy, "decide", "x", "y"));
        figures.count_refusal(&Refusal::new(Code::Epoch, "decode", "x", "y"));
        figures.count_helper();
        figures.count_helper();
        figures.count_oom_kill();
        for source in [
            FilterSource::Cache,
            FilterSource::Missing,
            FilterSource::Off,
            FilterSource::Rules,
            FilterSource::Untested { version: 262 },
            FilterSource::Confined,
        ] {
            figures.count_filters(&source);
        }
        drop(figures.begin_session(Duration::from_millis(3)));
        let session = figures.begin_session(Duration::from_millis(30));
        let text = figures.page("257.1 \"x\"\n", [3, 1]);
        let samples = check(&text);
        for (sample, value) in [
            ("nomad_nspawn_starts_total{result=\"started\"}", 1.0),
            ("nomad_nspawn_starts_total{result=\"failed\"}", 2.0),
            ("nomad_nspawn_start_seconds_bucket{step=\"helper\",le=\"0.05\"}", 0.0),
            ("nomad_nspawn_start_seconds_bucket{step=\"helper\",le=\"0.1\"}", 1.0),
            ("nomad_nspawn_start_seconds_bucket{step=\"helper\",le=\"+Inf\"}", 1.0),
            ("nomad_nspawn_start_seconds_sum{step=\"helper\"}", 0.057),
            ("nomad_nspawn_start_seconds_count{step=\"queue\"}", 0.0),
            ("nomad_nspawn_helper_request_seconds_count{verb=\"status\"}", 1.0),
            ("nomad_nspawn_refusals_total{rule=\"policy\"}", 1.0),
            ("nomad_nspawn_helper_reconnects_total", 1.0),
            ("nomad_nspawn_oom_kills_total", 1.0),
            ("nomad_nspawn_exec_sessions", 1.0),
            ("nomad_nspawn_exec_seconds_count{phase=\"setup\"}", 2.0),
            ("nomad_nspawn_exec_seconds_bucket{phase=\"setup\",le=\"0.005\"}", 1.0),
            ("nomad_nspawn_exec_seconds_count{phase=\"run\"}", 1.0),
            ("nomad_nspawn_tasks{state=\"running\"}", 3.0),
            ("nomad_nspawn_tasks{state=\"ended\"}", 1.0),
        ] {
            assert_eq!(samples.get(sample), Some(&value), "{sample} in\n{text}");
        }
        for result in FILTERS {
            let sample = format!("nomad_nspawn_seccomp_cache_total{{result=\"{result}\"}}");
            assert_eq!(samples.get(&sample), Some(&1.0), "{sample} in\n{text}");
        }
        drop(session);
        let samples = check(&figures.page("257", [3, 1]));
        assert_eq!(samples.get("nomad_nspawn_exec_sessions"), Some(&0.0));
        assert_eq!(samples.get("nomad_nspawn_exec_seconds_count{phase=\"run\"}"), Some(&2.0));
    }

    /// A panel of a name that is not written shows nothing, and nobody sees why.
    #[test]
    fn the_example_dashboard_asks_for_nothing_else() {
        let dashboard = include_str!("../../../../example/grafana/nomad-nspawn.json");
        let samples = check(&Figures::default().page("257", [0, 0]));
        let names: Vec<_> = samples.keys().filter_map(|name| name.split('{').next()).collect();
        let word = |c: char| c.is_ascii_lowercase() || c == '_';
        let asked: Vec<_> = dashboard
            .match_indices("nomad_nspawn_")
            .filter_map(|(at, _)| dashboard.get(at..)?.split(|c| !word(c)).next())
            .collect();
        assert!(asked.len() > 8, "{asked:?}");
        for name in asked {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn every_verb_of_the_protocol_has_its_series() {
        use proto::wire::{Hello, Verb};
        let known = |verb: &Verb| VERBS.contains(&verb.name());
        assert!(known(&Verb::List(None)));
        assert!(!known(&Verb::Hello(Hello { oldest: 0, newest: 0 })), "the greeting has none");
    }
}
