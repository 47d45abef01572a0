//! Each task names the entry that holds its filters, whoever has installed them: a command that is
//! executed in it needs them later.

use super::*;
use nspawn_tests::filters::read::of_entry;

/// Where a launcher leaves entry and options of a task's filters.
fn options_file(running: &Running<'_>) -> String {
    let unit = running.unit();
    let id = unit.trim_start_matches("nomad-nspawn-").trim_end_matches(".service");
    format!("/run/nomad-nspawn/options-{id}")
}

/// The entry that a task names.
pub(super) fn entry_of(running: &Running<'_>) -> String {
    let text = running.rig().read_file(&options_file(running)).unwrap();
    let text = String::from_utf8(text).unwrap();
    text.split_once(' ').unwrap().0.to_owned()
}

/// The filters of the entry that a task names, as soon as they are there.
fn named(running: &Running<'_>) -> Filters {
    let entry = format!("{CACHE}/{}", entry_of(running));
    let look = || Ok(running.rig().read_file(&entry).ok());
    let text = wait::until("the task's entry", SOON, look).unwrap();
    of_entry(&String::from_utf8(text).unwrap()).unwrap()
}

fn configs() -> [Value; 5] {
    [
        json!({}),
        json!({ "syscall_filter": ["~@mount"] }),
        json!({ "syscall_filter": ["~clone3", "bpf"] }),
        json!({ "cap_drop": ["sys_ptrace"] }),
        json!({ "private_network": false, "capability": ["sys_module"] }),
    ]
}

#[test]
fn every_task_names_the_entry_with_its_filters() {
    let (_alone, stand) = host();
    stand.rig.sh(&format!("rm -rf {CACHE}/*")).unwrap();
    let tasks = configs().map(|config| (start(stand, &config), config));
    for (task, config) in &tasks {
        assert!(named(task) == filters_of_task(task), "{config}");
    }
    // Emptied while they run: the next helper has them made again, with the same options.
    stand.rig.sh(&format!("rm -rf {CACHE}/* && systemctl restart nomad-nspawn-helper")).unwrap();
    for (task, config) in &tasks {
        assert!(named(task) == filters_of_task(task), "{config}: made again");
    }
    for (task, _) in tasks {
        let file = options_file(&task);
        task.destroy().unwrap();
        assert!(!stand.rig.exists(&file), "{file}");
    }
}

/// The switch is for starts.
#[test]
fn sets_are_made_for_commands_though_starts_do_not_use_them() {
    let (_alone, stand) = host();
    stand.rig.set_policy(format!("{POLICY}[seccomp]\ncache = false\n")).unwrap();
    stand.rig.sh(&format!("rm -rf {CACHE}/*")).unwrap();
    let slow = start(stand, &json!({}));
    assert!(!is_fast(&slow) && named(&slow) == filters_of_task(&slow));
    slow.destroy().unwrap();
}
