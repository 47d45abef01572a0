//! What the kernel shows of a command that is executed in a task is what it shows of the payload.

use super::*;
use nspawn_tests::filters::read::{of_process, outer};
use proto::capability::Capabilities;
use proto::task_spec::process::{LimitName, ProcessLimit, SyscallName, SyscallRule, User};

/// Fields of /proc/PID/status that hold for every payload.
const STATUS: [&str; 11] = [
    "Uid:",
    "Gid:",
    "Groups:",
    "NoNewPrivs:",
    "CapInh:",
    "CapPrm:",
    "CapEff:",
    "CapBnd:",
    "CapAmb:",
    "Seccomp:",
    "Seccomp_filters:",
];
const NAMESPACES: [&str; 8] = ["user", "mnt", "cgroup", "uts", "ipc", "pid", "net", "time"];

/// The payload's own process: the command, or the image's init.
fn payload_pid(rig: &Rig, client: &Client, task: &Handmade<'_>, kind: Kind) -> String {
    let leader = match client.ask(proto::wire::Verb::Status(task.key.clone())).unwrap() {
        Ok(Answer::Status(status)) => status.leader.unwrap().to_string(),
        other => panic!("{other:?}"),
    };
    if kind != Kind::ProcessTwo {
        return leader;
    }
    let children = rig.sh(&format!("cat /proc/{leader}/task/{leader}/children")).unwrap();
    children.split_whitespace().next().unwrap().to_owned()
}

/// Everything that must be equal, in words.
fn confinement(rig: &Rig, pid: &str, kind: Kind) -> String {
    let status = rig.sh(&format!("cat /proc/{pid}/status")).unwrap();
    // An init system blocks signals for itself.
    let find = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    let mut all: Vec<String> = STATUS.iter().map(|key| find(key)).collect();
    if kind != Kind::Boot {
        all.extend(["SigBlk:", "SigIgn:"].map(find));
    }
    for file in ["uid_map", "gid_map", "limits", "oom_score_adj"] {
        all.push(rig.sh(&format!("cat /proc/{pid}/{file}")).unwrap());
    }
    for name in NAMESPACES {
        all.push(rig.run(&["readlink", &format!("/proc/{pid}/ns/{name}")]).unwrap());
    }
    all.push(rig.run(&["readlink", &format!("/proc/{pid}/root")]).unwrap());
    all.join("\n")
}

/// Compares a command's process with the payload's.
fn compare(
    rig: &Rig,
    client: &Client,
    (kind, users): (Kind, Users),
    what: &str,
    change: impl FnOnce(&mut TaskSpec, &mut ExecSpec),
) {
    let mut spec = command(&Handmade::new(rig, "none").unwrap().key, &["sleep", "1000"]);
    let task = start(rig, client, (kind, users), |task| change(task, &mut spec));
    spec.key = task.key.clone();
    if kind == Kind::Boot {
        // An init system raises its own limits while it comes up.
        wait::true_within("the image's init", SOON, || {
            let ran = run(client, &task, &["systemctl", "is-system-running"]);
            Ok(["running", "degraded"].contains(&ran.stdout.trim()))
        })
        .unwrap();
        wait_no_leaf(rig, &task);
    }
    let session = open(client, &spec);
    let reference = payload_pid(rig, client, &task, kind);
    let leaf = leaves(rig, &task);
    assert_eq!(leaf.len(), 1, "{leaf:?}");
    let procs = format!("cat {}/{}/cgroup.procs", payload(&task), leaf[0]);
    let own = rig.sh(&procs).unwrap().trim().to_owned();
    let (wanted, found) = (confinement(rig, &reference, kind), confinement(rig, &own, kind));
    assert_eq!(found, wanted, "{what}: {kind:?} {users:?}");
    assert!(wanted.contains("Seccomp:\t2"), "{wanted}");
    let filters = |pid| of_process(outer(rig, pid).unwrap()).unwrap();
    assert!(filters(&own) == filters(&reference), "{what}: {kind:?} {users:?}: filters");
    // Only its streams are open.
    let open = rig.sh(&format!("ls /proc/{own}/fd")).unwrap();
    assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"], "{what}: {kind:?}");
    drop(session);
    wait_no_leaf(rig, &task);
    task.remove(client).unwrap();
}

#[test]
fn p19_a_command_is_confined_as_the_payload_is() {
    let (_guard, rig, client) = host();
    for kind in KINDS {
        compare(rig, &client, kind, "plain", |_, _| {});
    }
}

#[test]
fn p19_a_command_has_the_tasks_settings() {
    let (_guard, rig, client) = host();
    let named = |name| Capabilities::named(name).unwrap();
    for kind in [KINDS[0], KINDS[1], KINDS[3]] {
        compare(rig, &client, kind, "no_new_privs", |task, _| {
            task.isolation.no_new_privileges = true;
        });
        compare(rig, &client, kind, "capabilities", |task, _| {
            task.isolation.drop = named("sys_admin").with(named("chown"));
            task.isolation.add = named("sys_time");
        });
        compare(rig, &client, kind, "limits", |task, _| {
            let limit = |resource, soft, hard| ProcessLimit { resource, soft, hard };
            task.isolation.limits = vec![
                limit(LimitName::OpenFiles, Some(30), Some(40)),
                limit(LimitName::Core, Some(0), Some(0)),
                limit(LimitName::LockedMemory, None, None),
                limit(LimitName::Nice, Some(1), Some(2)),
            ];
        });
        compare(rig, &client, kind, "user", |task, command| {
            let user = Some(User::parse("1000:1001").unwrap());
            (task.process.user, command.user) = (user.clone(), user);
        });
        compare(rig, &client, kind, "rules", |task, _| {
            let name = SyscallName::new("@swap").unwrap();
            task.isolation.syscalls = vec![SyscallRule { allow: true, name }];
        });
    }
}
