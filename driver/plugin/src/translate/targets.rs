//! The paths inside a task that something is mounted on, each claimed by one key.
//!
//! Which of them a task may have at all is the one rule of [`proto::target`], which the helper applies
//! again.

use std::collections::HashMap;

use proto::target::Target;

use super::paths::absolute;
use crate::config::Problem;

/// The places inside that are mounted upon: each once, and none of the task's own mounts.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    taken: HashMap<Target, String>,
}

impl Targets {
    /// Reads a target and claims it for a key.
    pub(crate) fn take(
        &mut self,
        key: &str,
        text: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Target> {
        let path = absolute(key, text, problems)?;
        let problem = |rule: String| Problem::new(key, rule).value(text);
        let target = match Target::new(path) {
            Ok(target) => target,
            Err(refused) => {
                problems.push(problem(refused.rule.to_owned()).remedy("choose another place"));
                return None;
            }
        };
        if let Some(other) = self.taken.insert(target.clone(), key.to_owned()) {
            problems.push(
                problem(format!("{other} is mounted at the same place")).remedy("leave one out"),
            );
            return None;
        }
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_once() {
        let (mut targets, mut problems) = (Targets::default(), Vec::new());
        for good in ["/srv", "/alloc/x", "/dev/x", "/run/x", "/procx"] {
            assert!(targets.take("bind", good, &mut problems).is_some(), "{good}: {problems:?}");
        }
        for bad in
            ["/srv/", "/", "/proc", "/run/host/x", "/sys/fs", "/dev", "/alloc/", "x", "", "/a/.."]
        {
            problems.clear();
            assert!(targets.take("tmpfs", bad, &mut problems).is_none(), "{bad}");
            assert_eq!(problems.len(), 1, "{bad}");
        }
    }
}
