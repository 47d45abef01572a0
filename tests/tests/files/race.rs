//! A bind source that somebody swaps for a link all the time: a start sees the directory or is
//! refused, and never what the link leads to.

use crate::{Task, bind, binds, host};
use nix::fcntl::{OFlag, RenameFlags, renameat2};
use nspawn_tests::wait::Stop;
use std::sync::atomic::{AtomicBool, Ordering};

const STARTS: usize = 40;

#[test]
fn a_swapped_source_never_leads_elsewhere() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/closed/race/dir/sub /srv/closed/treasure/sub; cd /srv/closed; \
         echo honest >race/dir/sub/f; echo stolen >treasure/sub/f; ln -s ../treasure race/link")
        .unwrap();
    let directory = rig.open("/srv/closed/race", OFlag::O_PATH | OFlag::O_DIRECTORY, 0).unwrap();
    let done = AtomicBool::new(false);
    let (mut seen, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !done.load(Ordering::Relaxed) {
                renameat2(&directory, "dir", &directory, "link", RenameFlags::RENAME_EXCHANGE)
                    .unwrap();
                swaps += 1;
                // As long as a few system calls: the start's walk meets both.
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
            swaps
        });
        let end = Stop(&done);
        for _ in 0..STARTS {
            let files = binds([bind("/srv/closed/race/dir/sub", "/mnt/x")]);
            match Task::try_start(rig, files, "cat /mnt/x/f") {
                Ok(task) => {
                    assert_eq!(task.finish(), "honest\n");
                    seen += 1;
                }
                Err(refusal) => {
                    // The walk met the link, in one of several words, or what is above the
                    // directory could not be judged: of this source in any case.
                    let told = refusal.to_string();
                    assert!(told.contains("/srv/closed/race/dir/sub"), "{told}");
                    refused += 1;
                }
            }
        }
        drop(end);
        let swaps = swapper.join().unwrap();
        eprintln!(
            "{STARTS} starts amid {swaps} swaps: {seen} saw the directory, {refused} refused"
        );
    });
    assert!(
        seen > 0 && refused > 0,
        "{seen} saw the directory, {refused} refused: no race took place"
    );
}
