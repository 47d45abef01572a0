//! What cannot be executed, in words.

use crate::{Service, alone, busybox, host, parts};

#[test]
fn what_is_missing_is_named() {
    let _host = host();
    let service = Service::start("errors", busybox());
    let (out, err, code) = parts(&service.exec(&["no-such-program"], b""));
    assert!(out.is_empty() && code == 1, "{out} {err} {code}");
    for part in ["no-such-program", "PATH"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (_, err, code) = parts(&service.exec(&["/etc/passwd"], b""));
    assert!(code == 1 && err.contains("/etc/passwd"), "{err}");
    service.purge();
}

#[test]
fn a_policy_without_exec_refuses_with_its_rule() {
    let host = alone();
    let service = Service::start("policy", busybox());
    assert_eq!(service.sh("true").code(), 0);
    host.set_policy("[userns]\nrequire = false\n[exec]\nallow = false\n").unwrap();
    let (_, err, code) = parts(&service.sh("true"));
    assert!(code == 1 && err.contains("allow = true in [exec]"), "{err}");
    host.set_policy("[userns]\nrequire = false\n").unwrap();
    assert_eq!(service.sh("true").code(), 0);
    service.purge();
}
