//! Machine names: `<task>-<allocation id>` as long as that is one, else a shortened form.

use proto::limits;
use proto::name::{MachineName, TaskKey};

/// The machine's name. People find a task in machinectl by it, so it is the plain form whenever
/// that is valid; else the task's name is cut and cleaned, and a checksum of it keeps names of one
/// allocation apart.
#[must_use]
#[allow(clippy::expect_used, reason = "a UUID is a valid machine name")]
pub fn machine_name(key: &TaskKey) -> MachineName {
    let alloc = key.alloc.to_string();
    if let Ok(name) = MachineName::new(format!("{}-{alloc}", key.task)) {
        return name;
    }
    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let room = limits::MACHINE_NAME_MAX - alloc.len() - 1 - 9;
    let cleaned: String = key.task.as_str().chars().map(keep).take(room).collect();
    let sum = checksum(key.task.as_str());
    let short = format!("{}-{sum:08x}-{alloc}", cleaned.trim_matches('-'));
    // Letters, digits and inner dashes, at most 64: always valid, as the id alone is.
    MachineName::new(short.trim_start_matches('-'))
        .or_else(|_| MachineName::new(alloc))
        .expect("a UUID is a valid machine name")
}

/// FNV-1a: no protection, only a short sum (RFC 9923).
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::name::{AllocId, Instance, TaskName};

    fn key(task: &str) -> TaskKey {
        TaskKey {
            alloc: AllocId([7; 16]),
            task: TaskName::new(task).unwrap(),
            instance: Instance(1),
        }
    }

    #[test]
    fn the_plain_form_is_kept_where_it_is_valid() {
        let name = machine_name(&key("web.1"));
        assert_eq!(name.as_str(), "web.1-07070707-0707-0707-0707-070707070707");
        assert!(machine_name(&key("my_task")).as_str().starts_with("my-task-"));
        assert_ne!(machine_name(&key("my_task")), machine_name(&key("my task")));
    }

    proptest! {
        #[test]
        fn every_task_has_a_machine_name(task in "[^/\\p{Cc}]{1,40}") {
            if let Ok(task) = TaskName::new(task) {
                let key = TaskKey { alloc: AllocId([9; 16]), task, instance: Instance(1) };
                prop_assert!(machine_name(&key).as_str().ends_with("09090909-0909-0909-0909-090909090909"));
            }
        }
    }
}
