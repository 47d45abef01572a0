//! Rules between the keys of a job, each with its own function: what excludes what.

use std::time::Duration;

use proto::limits;

use super::Problem;
use super::task::TaskKeys;
use super::words::{EphemeralMode, OwnershipWord, Persist, ReadyMode, VolatileWord};

/// All of them.
const RULES: &[fn(&TaskKeys, &mut Vec<Problem>)] =
    &[image, start_mode, ready, root, ownership, words, network, bounds];

/// Adds a problem for each rule that the keys break.
pub(crate) fn check(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    for rule in RULES {
        rule(keys, problems);
    }
}

fn image(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    // That it is missing or not a string has been reported.
    if problems.iter().any(|problem| problem.key() == "image") {
        return;
    }
    let image = keys.image.as_str();
    let problem = |rule: &str, remedy: &str| {
        let problem = Problem::new("image", rule).value(image);
        problem.remedy(if remedy.is_empty() {
            "e.g. image = \"/var/lib/machines/debian\" or image = \"debian\""
        } else {
            remedy
        })
    };
    if image.is_empty() {
        problems.push(problem("must not be empty", ""));
    } else if image.chars().any(char::is_control) {
        problems.push(problem("must not hold control characters", ""));
    } else if image.contains("://") {
        problems.push(problem(
            "this version of the nspawn driver cannot download images yet",
            "fetch it with an artifact block or machinectl, and name its path or name",
        ));
    } else if image.split('/').any(|part| part == "..") {
        problems.push(problem("must not hold .. components", ""));
    } else if image.bytes().all(|b| b == b'/') {
        let volatile = matches!(keys.volatile(), Some(VolatileWord::Yes | VolatileWord::State));
        let ephemeral = keys.ephemeral && keys.volatile().is_none() && !keys.read_only;
        if !volatile && !ephemeral {
            problems.push(problem(
                "the host's own root would be changed",
                "add ephemeral = true, or volatile = \"yes\" or \"state\"",
            ));
        }
    } else if image.bytes().all(|b| b == b'/' || b == b'.') {
        problems.push(problem("the agent's own directory is not an image", ""));
    }
}

fn start_mode(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    let boots = keys.boots();
    if boots && keys.process_two {
        problems.push(
            Problem::new("process_two", "excludes boot: init must be PID 1")
                .value(true)
                .remedy("set boot = false, or remove process_two"),
        );
    }
    if let Some(user) = keys.user.as_ref().filter(|_| boots) {
        problems.push(
            Problem::new("user", "excludes boot: init must run as root")
                .value(user)
                .remedy("set boot = false, or remove user"),
        );
    }
    if !boots && keys.logging.0.as_ref().is_some_and(|logging| logging.journal) {
        problems.push(
            Problem::new("logging.journal", "needs boot: a command has no journal of its own")
                .value(true)
                .remedy("remove journal; its output is the log"),
        );
    }
}

fn ready(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    let Some(ready) = &keys.ready.0 else { return };
    match ready.mode {
        ReadyMode::Notify if keys.process_two => problems.push(
            Problem::new("ready.mode", "notify excludes process_two: PID 1 must say READY=1")
                .remedy("remove process_two, or use mode = \"started\""),
        ),
        ReadyMode::Network if keys.private_network => problems.push(
            Problem::new("ready.mode", "network excludes private_network: loopback has no address")
                .remedy("remove private_network, or use mode = \"started\""),
        ),
        ReadyMode::Exec if ready.command.first().is_none_or(String::is_empty) => problems.push(
            Problem::new("ready.command", "mode = \"exec\" needs a command")
                .remedy("e.g. command = [\"/usr/bin/pg_isready\"]"),
        ),
        ReadyMode::Exec => check_words("ready.command", &ready.command, problems),
        _ if !ready.command.is_empty() => problems.push(
            Problem::new("ready.command", "has no effect without mode = \"exec\"")
                .remedy("add mode = \"exec\", or remove command"),
        ),
        ReadyMode::Started | ReadyMode::Notify | ReadyMode::Network => {}
    }
    let within = |low, high, value: Duration| (low..=high).contains(&value);
    let hour = Duration::from_secs(limits::READY_TIMEOUT_MAX_S.into());
    if !within(Duration::from_secs(1), hour, ready.timeout.0) {
        problems.push(
            Problem::new("ready.timeout", "must be 1s to 1h")
                .value(ready.timeout.0)
                .remedy("e.g. \"2m\""),
        );
    }
    // Each try costs the node a unit and a process of PID 1.
    if !within(Duration::from_secs(1), Duration::from_secs(600), ready.interval.0) {
        problems.push(
            Problem::new("ready.interval", "must be 1s to 10m")
                .value(ready.interval.0)
                .remedy("e.g. \"1s\""),
        );
    }
}

fn root(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    let overlay = keys.ephemeral && !keys.read_only && keys.volatile().is_none();
    if keys.ephemeral_mode != EphemeralMode::Auto && !keys.ephemeral {
        problems.push(
            Problem::new("ephemeral_mode", "has no effect without ephemeral")
                .value(keys.ephemeral_mode.word())
                .remedy("add ephemeral = true, or remove ephemeral_mode"),
        );
    }
    if keys.persist == Persist::Alloc {
        let problem =
            |rule: &str, remedy: &str| Problem::new("persist", rule).value("alloc").remedy(remedy);
        if !overlay {
            problems.push(problem(
                "keeps the changes of an ephemeral root, which this task does not have",
                "use ephemeral = true without read_only and volatile, or remove persist",
            ));
        } else if keys.ephemeral_mode == EphemeralMode::Tmpfs {
            problems.push(problem(
                "excludes ephemeral_mode = \"tmpfs\": memory keeps nothing",
                "remove one of them",
            ));
        }
    }
}

fn ownership(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    if !keys.user_namespacing || keys.private_users_ownership != OwnershipWord::Chown {
        return;
    }
    let mut excluded = |by: &str| {
        problems.push(
            Problem::new(
                "private_users_ownership",
                format!("excludes {by}: the owners are rewritten on disk"),
            )
            .value("chown")
            .remedy("write map, which changes nothing on disk"),
        );
    };
    // The older driver refused any volatile, also "no".
    if keys.volatile.is_some() {
        excluded("volatile");
    }
    if keys.read_only {
        excluded("read_only");
    }
}

fn check_words(key: &str, words: &[String], problems: &mut Vec<Problem>) {
    if words.len() > limits::ARGUMENTS_MAX {
        problems.push(
            Problem::new(key, format!("at most {} words fit", limits::ARGUMENTS_MAX))
                .remedy("put the script into a template and run that"),
        );
    }
    for (index, word) in words.iter().enumerate() {
        if word.contains('\0') || word.len() > limits::ARGUMENT_MAX {
            problems.push(
                Problem::new(
                    format!("{key}[{index}]"),
                    format!("must be without NUL and at most {} bytes", limits::ARGUMENT_MAX),
                )
                .remedy("put it into a template and name the file"),
            );
        }
    }
}

fn words(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    check_words("command", &keys.command, problems);
    if !keys.boots() && keys.command.first().is_some_and(String::is_empty) {
        problems.push(
            Problem::new("command", "its first word is empty")
                .remedy("name the program, or remove command for the image's shell"),
        );
    }
    if !keys.args.is_empty() && !keys.command.is_empty() {
        problems.push(Problem::new("args", "excludes command").remedy("remove one of them"));
    }
}

fn network(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    if keys.private_network && !keys.network_veth {
        problems.push(
            Problem::new("private_network", "excludes network_veth = false, the host's network")
                .value(true)
                .remedy("remove one of them"),
        );
    }
    if !keys.ports.is_empty() && !keys.port_map.0.is_empty() {
        problems.push(
            Problem::new("port_map", "excludes ports")
                .remedy("remove port_map, which is deprecated"),
        );
    }
    for (label, port) in &keys.port_map.0 {
        if !(1..=65_535).contains(port) {
            problems.push(
                Problem::new(format!("port_map.{label}"), "must be 1 to 65535")
                    .value(port)
                    .remedy("write the port inside that the program listens on"),
            );
        }
    }
}

fn bounds(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    let mut within = |key: &str, value: i64, low: i64, high: i64| {
        if !(low..=high).contains(&value) {
            problems.push(
                Problem::new(key, format!("must be {low} to {high}"))
                    .value(value)
                    .remedy("write a number of that range, or remove the key"),
            );
        }
    };
    let most = i64::try_from(*limits::TASKS_LIMIT.end()).unwrap_or(i64::MAX);
    within("pids_limit", keys.pids_limit.unwrap_or(1), 1, most);
    within("oom_score_adj", keys.oom_score_adj, -1000, 1000);
    within("io_weight", keys.io_weight.unwrap_or(1), 1, 10_000);
    within("cpu_boost", keys.cpu_boost.unwrap_or(2), 2, 100);
    let rule = match keys.ready.0.as_ref().map_or(ReadyMode::Started, |ready| ready.mode) {
        ReadyMode::Notify | ReadyMode::Network => return,
        ReadyMode::Started => "ends when the task is ready, and this one is at once",
        ReadyMode::Exec => "ends when the task has started: it does not wait for ready.command",
    };
    if let Some(boost) = keys.cpu_boost {
        problems.push(
            Problem::new("cpu_boost", rule)
                .value(boost)
                .remedy("add ready { mode = \"notify\" } or \"network\", or remove the key"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::Value;
    use crate::msgpack::tests::encode;

    #[test]
    fn all_problems_come_at_once() {
        let mut bytes = Vec::new();
        let keys = [
            ("image", Value::from("")),
            ("process_two", true.into()),
            ("command", Value::List(vec!["a\0b".into()])),
        ];
        encode(&Value::Map(keys.map(|(key, value)| (key.to_owned(), value)).into()), &mut bytes);
        let mut problems = Vec::new();
        check(&TaskKeys::decode(&bytes, &mut problems), &mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
