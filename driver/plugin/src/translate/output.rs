//! Where the task's output goes, and the journal fields of its lines.

use nomad_proto::drivers::TaskConfig;
use proto::limits;
use proto::task_spec::Logs;
use proto::task_spec::output::{Label, LabelName, LabelValue};

use super::node::Node;
use crate::config::Problem;
use crate::config::plugin::{LABELS, glob};
use crate::config::task::TaskKeys;
use crate::config::words::LogDriver;

/// Where the two streams go.
pub(crate) fn logs(
    keys: &TaskKeys,
    task: &TaskConfig,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Logs {
    let logging = keys.logging.0.clone().unwrap_or_default();
    let driver = logging.driver.unwrap_or(node.config.log_driver());
    // Nomad collects nothing: by the job's logs block, or on the whole node.
    let discarded = |path: &str| path.is_empty() || path == "/dev/null";
    let collected = !(discarded(&task.stdout_path) && discarded(&task.stderr_path));
    if logging.journal && keys.boots() {
        if driver != LogDriver::Nomad || !collected {
            problems.push(
                Problem::new("logging.journal", "fills Nomad's log, and this task has none")
                    .value(true)
                    .remedy("use driver = \"nomad\" and no logs { disabled = true }; or remove it"),
            );
        }
        return Logs::Container { priority: logging.priority.number() };
    }
    if node.config.disable_log_collection
        && matches!(logging.driver, Some(LogDriver::Nomad | LogDriver::Both))
    {
        problems.push(
            Problem::new("logging.driver", "Nomad collects no logs on this node")
                .value(driver.word())
                .remedy("write journald or none"),
        );
    }
    match (driver, collected) {
        (LogDriver::Nomad, true) => Logs::Fifos,
        (LogDriver::Both, true) => Logs::Both,
        (LogDriver::Both, false) | (LogDriver::Journald, _) => Logs::Journal,
        (LogDriver::Nomad, false) | (LogDriver::None, _) => Logs::Discard,
    }
}

/// The job's labels and the operator's.
pub(crate) fn labels(
    keys: &TaskKeys,
    task: &TaskConfig,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Label> {
    let mut labels = Vec::new();
    for (name, value) in &keys.labels.0 {
        let key = format!("labels.{name}");
        match (LabelName::new(name), LabelValue::new(value)) {
            (Ok(name), Ok(value)) => labels.push(Label { name, value }),
            (Err(e), _) | (_, Err(e)) => {
                let problem = Problem::new(key, e.to_string()).value(value);
                problems.push(problem.remedy("e.g. labels { TEAM = \"search\" }"));
            }
        }
    }
    for label in LABELS {
        if !node.config.extra_labels.iter().any(|pattern| glob(pattern, label)) {
            continue;
        }
        let name = label.to_ascii_uppercase();
        if keys.labels.0.contains_key(&name) {
            problems.push(
                Problem::new(format!("labels.{name}"), "is set by this node's extra_labels")
                    .remedy("choose another name"),
            );
            continue;
        }
        let value = plain(of(task, label));
        if let (Ok(name), Ok(value)) = (LabelName::new(name), LabelValue::new(value)) {
            labels.push(Label { name, value });
        }
    }
    let bytes: usize = labels.iter().map(Label::bytes).sum();
    if labels.len() > limits::LABELS_MAX || bytes > limits::LABELS_BYTES_MAX {
        let reason = format!(
            "{} with {bytes} bytes, those of extra_labels included, but at most {} with {}: each \
             is added to every line of the task in the journal",
            labels.len(),
            limits::LABELS_MAX,
            limits::LABELS_BYTES_MAX
        );
        problems.push(Problem::new("labels", reason).remedy("leave some out"));
    }
    labels
}

fn of<'a>(task: &'a TaskConfig, label: &str) -> &'a str {
    match label {
        "job_name" => &task.job_name,
        "job_id" => &task.job_id,
        "task_group_name" => &task.task_group_name,
        "task_name" => &task.name,
        "namespace" => &task.namespace,
        "node_name" => &task.node_name,
        "node_id" => &task.node_id,
        _ => "",
    }
}

/// A name of Nomad's as a label's value: what a label cannot hold becomes `_`, at most 255 bytes.
fn plain(text: &str) -> String {
    let fits = |c: &char| LabelValue::new(c.to_string()).is_ok();
    let plain = text.chars().map(|c| if fits(&c) { c } else { '_' }).take(limits::VALUE_MAX);
    let label: String = plain.collect();
    // A word of it could become a separate field.
    if LabelValue::new(label.clone()).is_ok() { label } else { label.replace('=', "_") }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn any_name_of_nomads_is_a_label() {
        for (name, label) in [("shop é", "shop _"), ("a=b", "a=b"), ("a b=c", "a b_c")] {
            assert_eq!(plain(name), label);
        }
    }
}
