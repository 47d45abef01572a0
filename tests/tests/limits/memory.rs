//! Memory: the limit ends what goes beyond it, and nothing else.

use crate::host::{MIB, control, field, start};
use nspawn_tests::vm::inside;

/// Fills a variable until it is killed, in the shell itself: 2 MiB, doubled.
const HOG: &str = "x=0123456789abcdef; while :; do x=$x$x; done";

#[test]
fn over_the_limit_is_an_oom_kill_that_is_reported_and_a_neighbour_goes_on() {
    inside(|| {
        let mut neighbour = start("echo here; read x < /dev/zero; sleep 1000", 64, 100);
        neighbour.wait_output("here").unwrap();
        let before = control(&neighbour, "memory.events");
        let mut hog = start(&format!("echo begins; sleep 1; {HOG}"), 64, 100);
        hog.wait_output("begins").unwrap();
        assert_eq!(control(&hog, "memory.max"), (64 * MIB).to_string());
        let end = hog.finish().unwrap();
        assert!(end.oom_killed, "{end:?}");
        assert_ne!((end.code, end.signal), (0, 0), "{end:?}");
        assert_eq!(control(&neighbour, "memory.events"), before);
        assert_eq!(field(&before, "oom_kill"), 0);
        assert!(neighbour.leader().is_ok(), "the neighbour lives");
        neighbour.stop("SIGKILL").unwrap();
    });
}

#[test]
fn below_the_limit_nothing_is_killed() {
    inside(|| {
        // 16 MiB, twice while it grows.
        let text = "x=0123456789abcdef; for i in $(seq 20); do x=$x$x; done; echo ${#x}; exit 7";
        let end = start(text, 128, 100).finish().unwrap();
        assert!(!end.oom_killed && (end.code, end.signal) == (7, 0), "{end:?}");
    });
}
