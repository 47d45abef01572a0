//! The cases of Nomad's own driver tests, in the three kinds of container, with and without user
//! namespace, on 252 and 257. Those with a terminal are run under a real one.

use crate::terminal::Terminal;
use crate::{Service, host, kinds, parts};
use serde_json::json;
use std::time::{Duration, Instant};

fn without_terminal(service: &Service) {
    let sh = |script: &str| parts(&service.sh(script));
    let text = |out: &str, err: &str, code| (out.to_owned(), err.to_owned(), code);
    assert_eq!(sh("echo out; echo err >&2; exit 43"), text("out\n", "err\n", 43));
    let three = "for i in 1 2 3; do echo $i; sleep 1; done";
    assert_eq!(sh(three), text("1\n2\n3\n", "", 0));
    let (out, err, code) = sh("stty size");
    assert!(out.is_empty() && code == 1, "{out} {code}");
    assert!(err.contains("standard input") && err.contains("Inappropriate ioctl"), "{err}");
    let head = service.exec(&["/bin/sh", "-c", "head -n1"], b"hello\nmore\n");
    assert_eq!(parts(&head), text("hello\n", "", 0));
    assert_eq!(sh("kill -TERM $$").2, 143);
    // Its own cgroup, as Nomad's case wants it where there is cgroup v2.
    let (cgroup, ..) = sh("cat /proc/self/cgroup");
    assert!(cgroup.trim().ends_with(".scope") && cgroup.contains("nomad-exec-"), "{cgroup}");
    // A file is the task's and not the host's, and another command sees it.
    let (path, ..) = sh("mktemp");
    let path = path.trim();
    assert!(path.starts_with("/tmp/") && !crate::RIG.exists(path), "{path}");
    assert_eq!(sh(&format!("test -f {path}")).2, 0);
    // What stays behind holds nothing up.
    let begun = Instant::now();
    assert_eq!(sh("sleep 15 & echo main; exit 5"), text("main\n", "", 5));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

fn with_terminal(service: &Service) {
    let sh = |script: &str| Terminal::start(service, &["/bin/sh", "-c", script]);
    let mut both = sh("echo out; echo err >&2; exit 43");
    let (text, code) = both.finish();
    assert_eq!((text.as_str(), code), ("out\r\nerr\r\n", 43));
    // The last size counts.
    let mut sized = sh("sleep 2; stty size");
    sized.resize(50, 40);
    std::thread::sleep(Duration::from_millis(300));
    sized.resize(100, 100);
    assert_eq!(sized.finish(), ("100 100\r\n".to_owned(), 0));
    // Echo and output.
    let mut head = sh("echo up; head -n1");
    head.wait_for("up\r\n");
    head.send(b"hello\n");
    assert_eq!(head.finish(), ("up\r\nhello\r\nhello\r\n".to_owned(), 0));
    // The session ends with its leader, without what it left behind.
    let mut left = sh("(( sleep 5; echo from background ) & ); echo from main; exec sleep 1");
    let begun = Instant::now();
    assert_eq!(left.finish(), ("from main\r\n".to_owned(), 0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn d42_every_case_holds_in_every_container() {
    let _host = host();
    for users in [true, false] {
        for (name, mut config) in kinds() {
            println!("{name}, user namespace: {users}");
            config["user_namespacing"] = json!(users);
            let service = Service::start(&format!("cases-{name}-{users}"), config);
            without_terminal(&service);
            with_terminal(&service);
            service.purge();
        }
    }
}
