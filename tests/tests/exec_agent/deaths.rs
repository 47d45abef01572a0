//! A part of the product is killed while commands run: the plugin's, the agent's and the worker's death
//! ends them, the helper's does not, and nothing is left.

use crate::terminal::Terminal;
use crate::{HELPER, RIG, Service, alone, busybox, finish, host, wait_for_nothing_left};
use nspawn_tests::{Alloc, wait};
use std::io::{Read as _, Write as _};
use std::process::Child;
use std::time::Duration;

/// A session with a terminal and twenty without, all of which run.
fn sessions(service: &Service, sleep: &str) -> (Terminal, Vec<Child>) {
    let script = format!("echo up; ({sleep}) & {sleep}");
    let words = ["/bin/sh", "-c", script.as_str()];
    let terminal = Terminal::start(service, &words);
    terminal.wait_for("up\r\n");
    let mut children: Vec<_> = (0..20).map(|_| service.spawn(&words)).collect();
    for child in &mut children {
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    }
    (terminal, children)
}

fn end_of(children: Vec<Child>) {
    for mut child in children {
        child.kill().ok();
        child.wait().unwrap();
    }
}

/// The task itself goes on.
fn assert_runs(alloc: &Alloc) {
    let status = alloc.get().unwrap();
    assert_eq!(status["ClientStatus"], "running", "{status}");
}

#[test]
fn the_plugins_death_ends_its_sessions() {
    let host = alone();
    let service = Service::start("plugin-dies", busybox());
    let (_terminal, children) = sessions(&service, "sleep 81732");
    host.run(&["pkill", "-KILL", "-f", "^/opt/nomad/plugins/"]).unwrap();
    wait_for_nothing_left("sleep 81732");
    end_of(children);
    host.wait_driver("nspawn").unwrap();
    wait::true_within("commands to be executed again", Duration::from_secs(120), || {
        Ok(service.sh("true").code() == 0)
    })
    .unwrap();
    assert_runs(&service.alloc);
    service.purge();
}

#[test]
fn the_agents_death_ends_its_sessions() {
    let host = alone();
    let service = Service::start("agent-dies", busybox());
    let (_terminal, children) = sessions(&service, "sleep 81733");
    host.agent_kill9().unwrap();
    wait_for_nothing_left("sleep 81733");
    end_of(children);
    host.agent_start().unwrap();
    host.wait_driver("nspawn").unwrap();
    assert_eq!(service.sh("true").code(), 0);
    service.purge();
}

#[test]
fn the_workers_death_ends_its_session() {
    let host = alone();
    let service = Service::start("worker-dies", busybox());
    let (mut terminal, children) = sessions(&service, "sleep 81734");
    // One that has ended meanwhile makes it fail, after it has killed the others.
    host.exec(&["systemctl", "kill", "--signal=KILL", "nomad-nspawn-enter-*"]).unwrap();
    wait_for_nothing_left("sleep 81734");
    assert_ne!(terminal.finish().1, 0);
    for child in children {
        let out = finish(child, b"");
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.code() != 0 && error.contains("it was killed"), "{error}");
    }
    assert_eq!(service.sh("true").code(), 0);
    service.purge();
}

/// Nomad's agent reports nothing of it; the driver misses the program's signs of life, of which the
/// first comes after 10 s and the next never.
#[test]
fn the_death_of_a_users_program_ends_its_idle_session() {
    let host = host();
    let service = Service::start("program-dies", busybox());
    let mut child = service.spawn(&["/bin/sh", "-c", "echo up; sleep 81735"]);
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    std::thread::sleep(Duration::from_secs(12));
    host.run(&["pkill", "-KILL", "-f", "^nomad alloc exec .*sleep 81735"]).unwrap();
    end_of(vec![child]);
    let ended = wait::true_within("the end of the session", Duration::from_secs(75), || {
        Ok(crate::processes("sleep 81735").is_empty())
    });
    ended.unwrap_or_else(|error| panic!("{error:#}: {}", crate::processes("sleep 81735")));
    wait::true_within("the end of its cgroup", crate::SOON, || {
        Ok(crate::leaves_of(&service.alloc.id).is_empty())
    })
    .unwrap();
    assert_runs(&service.alloc);
    service.purge();
}

#[test]
fn the_helpers_death_ends_no_session() {
    let host = alone();
    let service = Service::start("helper-dies", busybox());
    let mut child = service.spawn(&["/bin/sh", "-c", "echo up; read line; echo got $line; exit 9"]);
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let mut terminal = Terminal::start(&service, &["/bin/sh"]);
    terminal.send(b"echo $((40 + 1))\n");
    terminal.wait_for("41");
    host.run(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", HELPER]).unwrap();
    terminal.send(b"echo $((40 + 2))\n");
    terminal.wait_for("42");
    child.stdin.as_mut().unwrap().write_all(b"it\n").unwrap();
    let out = finish(child, b"");
    assert_eq!((out.text().as_str(), out.code()), ("got it\n", 9));
    // The next process of the helper executes further ones, and ends the old one's.
    assert_eq!(service.sh("exit 3").code(), 3);
    terminal.send(b"exit 4\n");
    assert_eq!(terminal.finish().1, 4);
    wait::true_within("no cgroup", crate::SOON, || Ok(crate::leaves().is_empty())).unwrap();
    assert!(RIG.exists("/run/nomad-nspawn/helper.sock"));
    service.purge();
}
