//! The log FIFOs lie in a directory that the payload may write to: whatever it puts in their place
//! is not opened, and no link leads a root process anywhere.

use crate::bare;
use nspawn_tests::Rig;
use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::wait::Stop;
use proto::error::Code;
use proto::wire::Answer;
use std::sync::atomic::{AtomicBool, Ordering};

/// Starts amid the swapping. Each meets the one or the other; all the same one in a billion runs.
const STARTS: u32 = 32;
const SENTENCE: &str = "is not the FIFO that the Nomad agent made";

/// Starts a task whose FIFO was replaced by `script` (`$1` the FIFO, `$2` its directory).
fn refused(rig: &Rig, client: &Client, script: &str) -> String {
    let task = Handmade::new(rig, "logger").unwrap();
    let fifo = task.fifo("stdout");
    let directory = format!("{}/alloc/logs", task.dir());
    rig.run(&["sh", "-ec", script, "sh", &fifo, &directory]).unwrap();
    let refusal = client.start(&task.spec(&["/bin/echo", "hello"]).unwrap()).unwrap().unwrap_err();
    assert_eq!((refusal.step.as_str(), refusal.code), ("logs", Code::Invalid), "{refusal}");
    task.remove(client).unwrap();
    refusal.to_string()
}

#[test]
fn p06_a_replaced_fifo_is_refused_in_words() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    rig.sh("rm -rf /root/victim; mkdir /root/victim; mkfifo /root/victim/fifo").unwrap();
    for script in [
        "rm $1; ln -s /root/victim/new $1",
        "rm $1; ln -s /root/victim/fifo $1",
        "rm $1; ln -s /dev/null $1",
        "rm $1; : >$1",
        "rm $1; mknod $1 c 1 3",
        "rm $1; mkdir $1",
        "rm $1; mkfifo -m 0666 $1; chown 1000 $1",
        "chown 524288:524288 $1",
        "ln $1 $2/another-name",
    ] {
        let text = refused(rig, &client, script);
        assert!(
            text.contains(SENTENCE) && text.contains(".logger.stdout.fifo"),
            "{script}: {text}"
        );
    }
    assert_eq!(rig.sh("ls /root/victim").unwrap(), "fifo");
    rig.sh("rm -r /root/victim").unwrap();
}

#[test]
fn p02_a_link_in_place_of_a_directory_is_not_followed() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    rig.sh("rm -rf /root/victim; mkdir -p /root/victim/logs; echo x >/root/victim/mark").unwrap();
    for directory in ["alloc/logs", "alloc", "swapped/local"] {
        let task = Handmade::new(rig, "swapped").unwrap();
        let path = format!("{}/{directory}", task.dir());
        rig.run(&["sh", "-ec", "mv $1 $1.away; ln -s /root/victim $1", "sh", &path]).unwrap();
        let spec = task.spec(&["/bin/touch", "/alloc/touched", "/local/touched"]).unwrap();
        let refusal = client.start(&spec).unwrap().unwrap_err();
        assert!(refusal.step == "task-dirs" && refusal.object.contains(directory), "{refusal:?}");
        assert!(refusal.reason.contains("Not a directory"), "{refusal}");
        rig.run(&["sh", "-ec", "rm $1; mv $1.away $1", "sh", &path]).unwrap();
        task.remove(&client).unwrap();
    }
    assert_eq!(rig.sh("find /root/victim | sort | tr '\n' ' '").unwrap().trim_end(), {
        "/root/victim /root/victim/logs /root/victim/mark"
    });
    rig.sh("rm -r /root/victim").unwrap();
}

/// A directory that turns into a link and back all the while: each start sees one or the other.
#[test]
fn p02_p03_a_directory_that_is_swapped_all_the_while_never_leads_out() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    rig.sh("rm -rf /root/victim; mkdir -p /root/victim").unwrap();
    let task = Handmade::new(rig, "racer").unwrap();
    let directory = format!("/proc/{}/root{}/racer", rig.leader(), task.dir());
    let (local, away) = (format!("{directory}/local"), format!("{directory}/away"));
    std::os::unix::fs::symlink("/root/victim", &away).unwrap();
    let done = AtomicBool::new(false);
    let (mut ran, mut refusals) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flag = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
            let cwd = nix::fcntl::AT_FDCWD;
            while !done.load(Ordering::Relaxed) {
                nix::fcntl::renameat2(cwd, local.as_str(), cwd, away.as_str(), flag).unwrap();
                std::thread::yield_now();
            }
        });
        let _end = Stop(&done);
        for instance in 0..STARTS {
            let mut spec = task.spec(&["/bin/touch", "/local/touched"]).unwrap();
            spec.key.instance = proto::name::Instance(instance);
            match client.start(&spec).unwrap() {
                Ok(Answer::Started(_)) => ran += 1,
                Err(refusal) if refusal.step == "task-dirs" => refusals += 1,
                other => panic!("{other:?}"),
            }
            let removed = client.ask(proto::wire::Verb::Remove(spec.key)).unwrap();
            assert_eq!(removed, Ok(Answer::Removed));
        }
    });
    println!("swapped directory: {ran} ran, {refusals} refused");
    assert!(ran > 0 && refusals > 0, "{ran} ran, {refusals} refused: no race took place");
    assert_eq!(rig.sh("ls -A /root/victim").unwrap(), "");
    rig.sh("rm -r /root/victim").unwrap();
    task.remove(&client).unwrap();
}
