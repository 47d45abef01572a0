//! A package's life on a node: installed, replaced while tasks run, removed, purged.

use crate::node::{
    HELPER, LIMIT, NAME, SOCKET, assert_agent_starts, bare, bring, configure_agent, difference,
    failures, files, install, job, property, run_example, running, sh,
};
use crate::{PACKAGE, Scratch, before};
use nspawn_tests::{Alloc, Output, Rig, Suite, World, outer};
use std::io::{Read as _, Write as _};
use std::process::Child;
use std::time::Instant;

/// Tasks that run during an upgrade.
const RUNNING: usize = 20;
/// Tasks that end during it, each with an exit code of its own.
const ENDING: usize = 5;

#[test]
fn trixie_installs_upgrades_and_removes() {
    whole_life(Suite::Trixie);
}

#[test]
fn bookworm_installs_upgrades_and_removes() {
    whole_life(Suite::Bookworm);
}

fn whole_life(suite: Suite) {
    let scratch = Scratch::new(&format!("life-{}", suite.name()));
    let old = before(&scratch.0);
    let rig = bare(suite, true);
    let (old, new) = (bring(&rig, &old), bring(&rig, &PACKAGE));
    let begun = Instant::now();
    let step = |what: &str| {
        outer::tell(&format!("{}: {what}: {} s", suite.name(), begun.elapsed().as_secs()));
    };
    let (clean, world) = (files(&rig), World::snapshot(&rig).unwrap());
    a_fresh_installation(&rig, &old);
    step("installed");
    let tasks = an_upgrade_with_tasks(&rig, &new);
    step("upgraded");
    a_downgrade(&rig, &old, &new, &tasks);
    step("downgraded and upgraded again");
    a_removal_with_tasks(&rig, &clean, &world);
    step("removed and purged");
    without_tasks(&rig, &new, &clean);
    step("installed again, and purged");
    rig.down().unwrap();
}

/// By apt, as README has it; then four lines, an example and the doctor.
fn a_fresh_installation(rig: &Rig, package: &str) {
    let printed = sh(rig, &format!("apt-get install --yes {package}"));
    for words in ["agent-package.hcl to the Nomad agent's configuration", "nomad-nspawnctl doctor"]
    {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    for unit in [SOCKET, HELPER] {
        assert_eq!(property(rig, unit, "UnitFileState"), "enabled", "{unit}");
        assert_eq!(property(rig, unit, "ActiveState"), "active", "{unit}");
    }
    assert_eq!(rig.run(&["stat", "-c", "%U %a", "/var/lib/nomad-nspawn"]).unwrap(), "root 700");
    let import = "tar --create --file /run/i.tar --directory /usr bin/true; \
                  nomad-nspawnctl images import /run/i.tar --name packaged; \
                  nomad-nspawnctl images rm packaged; rm /run/i.tar";
    assert!(sh(rig, import).contains("packaged is image "));
    configure_agent(rig);
    run_example(rig);
    assert!(failures(rig).is_empty(), "{:?}", failures(rig));
    let units = "nomad-nspawn-helper.service nomad-nspawn-helper.socket machine-nspawn.slice";
    let verified = rig.sh(&format!("systemd-analyze verify {units} 2>&1")).unwrap();
    // Systemd 252 does not know one directive (tests/tests/units.rs has the score).
    let ours =
        |line: &&str| line.contains("nspawn") && !line.contains("FileDescriptorStorePreserve");
    assert_eq!(verified.lines().find(ours), None);
}

/// What runs while packages come and go.
struct Tasks {
    allocs: Vec<Alloc>,
    units: Vec<String>,
}

impl Tasks {
    fn assert_run(&self, rig: &Rig) {
        let now = running(rig);
        let gone: Vec<_> = self.units.iter().filter(|unit| !now.contains(unit)).collect();
        assert!(gone.is_empty(), "{gone:?}\n{}", rig.journal_tail(30));
        for alloc in &self.allocs {
            assert_eq!(alloc.get().unwrap()["ClientStatus"], "running", "{}", alloc.id);
        }
    }
}

/// A command in a task that ends with 7 when it gets a line.
fn session(rig: &Rig, alloc: &Alloc) -> Child {
    let script = "echo up; read line; echo got $line; exit 7";
    let words = ["nomad", "alloc", "exec", "-t=false", "-task", "t", &alloc.id];
    let mut child = rig.spawn(&[words.as_slice(), &["/bin/sh", "-c", script]].concat()).unwrap();
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    assert_eq!(&up, b"up\n");
    child
}

fn end_session(mut session: Child) {
    session.stdin.take().unwrap().write_all(b"line\n").unwrap();
    let out = session.wait_with_output().unwrap();
    let out = Output { status: out.status, stdout: out.stdout, stderr: out.stderr };
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!((out.code(), out.text().as_str()), (7, "got line\n"), "{err}");
}

fn an_upgrade_with_tasks(rig: &Rig, package: &str) -> Tasks {
    let service = job(rig, "running", "service", RUNNING, "exec sleep 100000");
    let script = "while [ ! -e /alloc/data/go ]; do sleep 0.05; done; exit $(cat /alloc/data/go)";
    let ending = job(rig, "ending", "batch", ENDING, script);
    let allocs = service.wait_allocs(RUNNING).unwrap();
    let ends = ending.wait_allocs(ENDING).unwrap();
    for alloc in allocs.iter().chain(&ends) {
        alloc.wait_running().unwrap();
    }
    let tasks = Tasks { units: units_of(rig, &allocs), allocs };
    assert_eq!(tasks.units.len(), RUNNING);
    let sessions: Vec<Child> = tasks.allocs.iter().take(3).map(|it| session(rig, it)).collect();
    let stored = property(rig, HELPER, "NFileDescriptorStore");
    let (helper, socket) = (rig.main_pid(HELPER).unwrap(), property(rig, SOCKET, "InvocationID"));

    // The first of them ends before dpkg has begun, the last while it runs scripts.
    let mut go = String::new();
    for (index, alloc) in ends.iter().enumerate() {
        let file = format!("/var/lib/nomad/alloc/{}/alloc/data/go", alloc.id);
        go.push_str(&format!("sleep 0.3; echo {} > {file}.new; mv {file}.new {file};", 41 + index));
    }
    let printed = sh(rig, &format!("({go}) & dpkg --install {package}; wait"));
    assert!(
        printed.contains("the agent's plugin is replaced when the agent is restarted"),
        "{printed}"
    );

    assert_ne!(rig.main_pid(HELPER).unwrap(), helper, "the helper was not restarted");
    assert_eq!(property(rig, SOCKET, "InvocationID"), socket, "the socket was restarted");
    for (index, alloc) in ends.iter().enumerate() {
        alloc.wait_done(LIMIT).unwrap();
        let code = i64::try_from(41 + index).unwrap();
        assert_eq!(alloc.task("t").unwrap().exit(), Some((code, 0)), "{}", alloc.id);
    }
    sessions.into_iter().for_each(end_session);
    ending.purge().unwrap();
    tasks.assert_run(rig);
    // The ended ones are out of it.
    let kept: usize = property(rig, HELPER, "NFileDescriptorStore").parse().unwrap();
    assert!(kept > RUNNING && kept <= stored.parse().unwrap(), "{kept} of {stored}");
    end_session(session(rig, &tasks.allocs[0]));
    run_example(rig);
    tasks
}

/// The units of allocations.
fn units_of(rig: &Rig, allocs: &[Alloc]) -> Vec<String> {
    let ids: Vec<String> = allocs.iter().map(|alloc| alloc.id.replace('-', "")).collect();
    running(rig).into_iter().filter(|unit| ids.iter().any(|id| unit.contains(id))).collect()
}

fn a_downgrade(rig: &Rig, old: &str, new: &str, tasks: &Tasks) {
    for package in [old, new] {
        install(rig, package);
        assert_eq!(property(rig, HELPER, "ActiveState"), "active");
        tasks.assert_run(rig);
        rig.agent_restart().unwrap();
        rig.wait_driver("nspawn").unwrap();
        run_example(rig);
    }
    tasks.assert_run(rig);
}

fn a_removal_with_tasks(rig: &Rig, clean: &[String], world: &World) {
    // Links: ours in two forms, and one that is another driver's.
    sh(
        rig,
        "cd /opt/nomad/plugins; ln -s /usr/lib/nomad/plugins/nspawn nspawn; \
         ln -s ../../../usr/lib/nomad/plugins/nspawn relative; ln -s /bin/true other",
    );
    let printed = sh(rig, &format!("dpkg --remove {NAME}"));
    assert!(printed.contains(&format!("stopping {RUNNING} running tasks")), "{printed}");
    assert!(running(rig).is_empty());
    assert_eq!(rig.sh("ls /opt/nomad/plugins").unwrap(), "other");
    sh(rig, "rm /opt/nomad/plugins/other");
    let kept = ["+/etc/nomad-nspawn", "+/etc/nomad-nspawn/policy.toml"];
    assert_eq!(difference(clean, &files(rig)), kept);
    assert_agent_starts(rig);
    sh(rig, &format!("dpkg --purge {NAME}"));
    assert_eq!(difference(clean, &files(rig)), Vec::<String>::new());
    assert!(rig.sh("getent passwd nomad-nspawn").is_ok(), "the account stays");
    for job in rig.jobs().unwrap() {
        job.stop_wait(LIMIT).unwrap();
    }
    // Nomad's own mounts of secrets: it leaves those of an allocation that it cannot restore, for want
    // of its driver.
    let theirs = "awk '$5 ~ \"^/var/lib/nomad/alloc/\" { print $5 }' /proc/self/mountinfo";
    sh(rig, &format!("{theirs} | sort -r | xargs -r umount"));
    assert_same(rig, world);
}

/// Nothing of ours is in the host: processes, mounts, units, cgroups, locks, links, rules.
fn assert_same(rig: &Rig, before: &World) {
    before.assert_same(rig).unwrap();
    let routes =
        rig.sh("ip route show type unreachable; ip -6 route show type unreachable").unwrap();
    assert!(!routes.contains("4278198272"), "{routes}");
}

fn without_tasks(rig: &Rig, package: &str, clean: &[String]) {
    let printed = install(rig, package);
    // The agent is configured already.
    assert!(!printed.contains("agent-package.hcl"), "{printed}");
    rig.agent_restart().unwrap();
    rig.wait_driver("nspawn").unwrap();
    run_example(rig);
    let printed = sh(rig, &format!("dpkg --purge {NAME}"));
    assert!(!printed.contains("running tasks"), "{printed}");
    assert_eq!(difference(clean, &files(rig)), Vec::<String>::new());
    assert_agent_starts(rig);
}
