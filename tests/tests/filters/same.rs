//! With filters of the cache a payload is confined as with those of a plain systemd-nspawn.

use super::*;

/// What the kernel says of the payload's confinement, beside its filters.
const SHOWN: &str = "NoNewPrivs CapInh CapPrm CapEff CapBnd CapAmb Seccomp Seccomp_filters";

/// Rows: what the job says, and the words of a plain systemd-nspawn for the same.
fn rows() -> Vec<(Value, Vec<&'static str>)> {
    vec![
        (json!({}), vec![]),
        (json!({ "syscall_filter": ["bpf"] }), vec!["--system-call-filter=bpf"]),
        (json!({ "capability": ["sys_module"] }), vec!["--capability=CAP_SYS_MODULE"]),
        (json!({ "capability": ["net_admin"] }), vec!["--capability=CAP_NET_ADMIN"]),
        (json!({ "cap_drop": ["sys_ptrace"] }), vec!["--drop-capability=CAP_SYS_PTRACE"]),
        (json!({ "cap_drop": ["sys_admin"] }), vec!["--drop-capability=CAP_SYS_ADMIN"]),
        (json!({ "no_new_privileges": true }), vec!["--no-new-privileges=yes"]),
        (json!({ "process_two": true }), vec!["--as-pid2"]),
        // They do not depend on the user, whom only this image would have to have.
        (json!({ "user": "1000:1000" }), vec![]),
    ]
}

/// Starts a plain systemd-nspawn on the same image; its container's first process in the host.
fn plain(rig: &Rig, words: &[&str]) -> String {
    rig.sh("systemctl stop plain.service 2>/dev/null; systemctl reset-failed plain.service 2>/dev/null; true")
        .unwrap();
    let fixed = "systemd-run --unit=plain --property=Delegate=yes --setenv=SYSTEMD_NSPAWN_LOCK=0 \
                 systemd-nspawn --quiet --keep-unit --register=no --settings=no --read-only \
                 --private-network --private-users=1879048192:65536 --private-users-ownership=off \
                 --directory=/var/lib/machines/busybox --machine=plain --console=pipe";
    let all = fixed.split_whitespace().chain(words.iter().copied());
    let all: Vec<_> = all.chain(["--", "/bin/sh", "-c", "exec sleep 1000"]).collect();
    rig.run(&all).unwrap();
    let mut init = String::new();
    wait::true_within("the plain container", SOON, || {
        let main = rig.run(&["systemctl", "show", "-P", "MainPID", "plain.service"])?;
        let children = format!("/proc/{0}/task/{0}/children", main.trim());
        init = rig.sh(&format!("cat {children} 2>/dev/null || true"))?.trim().to_owned();
        let name = rig.sh(&format!("cat /proc/{init}/comm 2>/dev/null || true"))?;
        // Until then it is one of systemd-nspawn's own.
        Ok(["sleep", "(sd-stubinit)"].contains(&name.trim()))
    })
    .unwrap();
    init
}

#[test]
fn every_set_of_options_has_the_filters_of_a_plain_nspawn() {
    let (_alone, stand) = host();
    for (config, words) in rows() {
        let slow = start(stand, &config);
        let own = filters_of_task(&slow);
        slow.destroy().unwrap();
        let fast = start_fast(stand, &config);
        let cached = filters_of_task(&fast);
        fast.destroy().unwrap();
        let init = plain(&stand.rig, &words);
        let reference = read::of_process(outer(&stand.rig, &init).unwrap()).unwrap();
        stand.rig.run(&["systemctl", "stop", "plain.service"]).unwrap();
        assert!(reference.len() >= 5, "{config}: {}", reference.len());
        assert!(own == cached, "{config}: the cache has others than systemd-nspawn makes");
        // net_bind_service is kept by a plain one; filters do not depend on it.
        assert!(reference == cached, "{config}: a plain systemd-nspawn has others");
    }
}

/// systemd-nspawn would be under them too, and needs what they take away.
#[test]
fn rules_that_take_calls_away_are_left_to_systemd_nspawn() {
    let (_alone, stand) = host();
    for rule in ["~@mount", "~clone3"] {
        let config = json!({ "syscall_filter": [rule] });
        for _ in 0..2 {
            let slow = start(stand, &config);
            assert!(!is_fast(&slow), "{rule}");
            slow.destroy().unwrap();
        }
    }
}

#[test]
fn a_payload_cannot_see_whether_its_filters_come_from_the_cache() {
    let (_alone, stand) = host();
    let script = format!(
        "for key in {SHOWN}; do grep \"^$key:\" /proc/self/status; done; cat /proc/keys; env | sort; \
         ulimit -a; ls /proc/self/fd; cut -d' ' -f5-6 /proc/self/mountinfo; exit 0"
    );
    let config = json!({ "command": ["/bin/sh", "-c", script] });
    let seen = |fast: bool| {
        let policy = format!(
            "[seccomp]\ncache = {fast}\n[network]\nallow = [\"private\"]\n[userns]\nrequire = false\n"
        );
        stand.rig.set_policy(&policy).unwrap();
        start_fast_or_not(stand, fast);
        stand.run(&task(&config)).unwrap().stdout
    };
    let (slow, fast) = (seen(false), seen(true));
    // Allocation and run differ.
    let common = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("NOMAD_") && !line.contains("uuid"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(common(&slow), common(&fast));
    assert!(slow.contains("Seccomp:\t2"), "{slow}");
}

/// One start that is as the policy says.
fn start_fast_or_not(stand: &Stand, fast: bool) {
    let running = if fast { start_fast(stand, &json!({})) } else { start(stand, &json!({})) };
    assert_eq!(is_fast(&running), fast);
    running.destroy().unwrap();
}

#[test]
fn a_booted_container_runs_with_filters_of_the_cache() {
    let (_alone, stand) = host();
    let config = json!({ "image": "debian", "boot": true, "command": [] });
    let fast = start_fast(stand, &config);
    let leader = fast.leader().unwrap();
    let ask = ["nsenter", "-t", &leader, "-a", "systemctl", "is-system-running"];
    wait::true_within("the container to be up", SOON, || {
        Ok(stand.rig.exec(&ask)?.text().trim() == "running")
    })
    .unwrap();
    fast.destroy().unwrap();
}
