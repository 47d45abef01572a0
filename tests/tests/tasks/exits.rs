//! How a task's end is reported: code, signal and both streams, byte for byte.

use crate::work::{Host, LIMIT, TASK, Work, assert_stream, both_modes, child, end, run_all};
use nspawn_tests::{outer, wait};

const CODES: [i64; 5] = [0, 1, 7, 133, 255];
/// No line break at the end, and everything that a terminal or a text tool would change.
const OUT: &[u8] = b"out\0\r\n\t\x1b[31m\xff\xfe end";
const ERR: &[u8] = b"err \\ \x07\x80";
const SAY: &str = r"printf 'out\0\r\n\t\033[31m\377\376 end'; printf 'err \\ \007\200' >&2";

/// What a "short" life is: less than 5 ms in the shell that runs it, on a machine of these years; a
/// slow one may take more, but less than the helper takes to see the container. The least of many:
/// what else the machine does is none of the script's doing.
fn assert_short(host: &Host, script: &str) {
    let lives = "for n in $(seq 50); do a=$(date +%s%N); busybox sh -c \"$0\" >/dev/null 2>&1; \
                 b=$(date +%s%N); echo $((b - a)); done | sort -n | head -n 1";
    let least: u64 = host.run(&["sh", "-c", lives, script]).unwrap().parse().unwrap();
    outer::tell(&format!("a short life takes {} µs", least / 1000));
    assert!(least < 20_000_000, "a short life takes {least} ns");
}

#[test]
fn exit_codes_and_streams_arrive_in_both_modes_however_short_the_life() {
    let host = Host::shared();
    let mut all = Vec::new();
    for code in CODES {
        for two in [false, true] {
            for (life, before) in [("long", "sleep 0.3; "), ("short", "")] {
                let script = format!("{before}{SAY}; exit {code}");
                let mode = if two { "two" } else { "one" };
                let work = Work::sh(&script).process_two(two);
                all.push((format!("{mode}-{life}-{code}"), work));
            }
        }
    }
    assert_short(&host, SAY);
    let (job, allocs) = run_all(&host, "exits", all);
    for (name, alloc) in &allocs {
        let code: i64 = name.rsplit('-').next().unwrap().parse().unwrap();
        let status = if code == 0 { "complete" } else { "failed" };
        assert_eq!(end(alloc), (status.to_owned(), code, 0), "{name}");
        assert_eq!(alloc.task(TASK).unwrap().failed(), code != 0, "{name}");
        assert_stream(alloc, "stdout", OUT);
        assert_stream(alloc, "stderr", ERR);
    }
    job.purge().unwrap();
}

/// PID 1 cannot kill itself with a signal. A program whose first instruction lies outside of it can.
const CRASH: &str = "cp /bin/busybox /tmp/x; \
    printf '\\0\\0\\0\\0\\0\\0\\0\\0' | dd of=/tmp/x bs=1 seek=24 conv=notrunc 2>/dev/null; exec /tmp/x";

#[test]
fn a_deadly_signal_is_reported_as_one() {
    let host = Host::shared();
    let lasting = |script: &str| format!("sleep 0.2; {script}");
    let all = vec![
        ("one-crash-11".to_owned(), Work::sh(CRASH)),
        ("one-late-crash-11".to_owned(), Work::sh(&lasting(CRASH))),
        ("two-early-crash-11".to_owned(), Work::sh(CRASH).process_two(true)),
        ("two-late-crash-11".to_owned(), Work::sh(&lasting(CRASH)).process_two(true)),
        ("two-segv-11".to_owned(), Work::sh(&lasting("kill -SEGV $$")).process_two(true)),
        ("two-kill-9".to_owned(), Work::sh(&lasting("kill -KILL $$")).process_two(true)),
        ("two-term-15".to_owned(), Work::sh(&lasting("kill -TERM $$")).process_two(true)),
    ];
    let (job, allocs) = run_all(&host, "signals", all);
    for (name, alloc) in &allocs {
        let signal: i64 = name.rsplit('-').next().unwrap().parse().unwrap();
        let (status, code, found) = end(alloc);
        assert_eq!(status, "failed", "{name}");
        // The stub init reports no signals, and may have gone before its child was seen.
        let stub = name.starts_with("two-early") && (code, found) == (255, 0);
        assert!(stub || (code, found) == (128 + signal, signal), "{name}: {code}, {found}");
        println!("{name}: exit code {code}, signal {found}");
    }
    job.purge().unwrap();
}

#[test]
fn a_signal_from_the_host_is_reported_as_one() {
    let host = Host::shared();
    // The kernel keeps every other signal from PID 1 of a container that has no handler for it.
    let tasks = [(false, 9), (true, 9), (true, 11)].map(|(two, signal)| {
        let work = Work::command(&["/bin/sleep", "600"]).process_two(two);
        (two, signal, work.run(&host, &format!("host-signal-{two}-{signal}")))
    });
    for (two, signal, task) in &tasks {
        task.alloc.wait_running().unwrap();
        let mut pid = task.leader(&host);
        if *two {
            pid = child(&host, pid);
        }
        host.run(&["kill", &format!("-{signal}"), &pid.to_string()]).unwrap();
        let expected = ("failed".to_owned(), 128 + signal, *signal);
        assert_eq!(task.end(), expected, "process_two = {two}");
        task.job.purge().unwrap();
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let host = Host::shared();
    for task in both_modes(&host, "missing", &Work::command(&["/no/such/program"])) {
        let status = task.alloc.wait_done(LIMIT).unwrap();
        assert_eq!(status, "failed");
        assert!(task.state().exit().is_none_or(|(code, _)| code != 0), "{:?}", task.state());
        wait::true_within("the program's name to be in the log or an event", LIMIT, || {
            let log = task.alloc.logs(TASK, "stderr").unwrap_or_default();
            let told = String::from_utf8_lossy(&log).contains("/no/such/program");
            Ok(told || format!("{:?}", task.state().events()).contains("/no/such/program"))
        })
        .unwrap_or_else(|e| panic!("{e:#}: {:#?}", task.state().events()));
        assert_stream(&task.alloc, "stdout", b"");
        task.job.purge().unwrap();
    }
}
