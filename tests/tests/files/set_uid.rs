//! A set-uid program that a payload leaves on the host gives another local account nothing of the
//! host's, tried from that account.

use crate::{Task, bind, binds, host, open_host, refused};
use nspawn_tests::Rig;
use nspawn_tests::rootfs::USERS;
use proto::limits::DISK_FIRST;
use proto::task_spec::files::{Bind, Files, Mapping};

/// Makes the given `id` a set-uid program of root's, and one of uid 1000's.
const PLANT: &str = "
    cp @dir@/tool @dir@/evil && chmod 4755 @dir@/evil || exit 1
    cp @dir@/tool @dir@/alice && chown 1000:1000 @dir@/alice && chmod 4755 @dir@/alice || exit 2
    stat -c %a @dir@/evil
";

/// The effective uid that an account gets from a program; `None`: it cannot run it.
fn gains(rig: &Rig, uid: u32, program: &str) -> Option<u32> {
    // setpriv itself still has capabilities when it executes; the shell has none.
    let out = rig.exec_as(uid, &["sh", "-c", "exec \"$0\" -u", program]).unwrap();
    out.success().then(|| out.text().trim().parse().unwrap())
}

fn tool(rig: &Rig, dir: &str, mode: &str) {
    let tool = format!("{dir}/tool");
    rig.sh(&format!("set -e; mkdir -p {dir}; chmod {mode} {dir}; cp /usr/bin/id {tool}")).unwrap();
}

/// What the rule is there for: the same program, made by root on the host, does give root.
#[test]
fn a_set_uid_program_on_an_open_directory_would_give_root() {
    let rig = host();
    let dir = "/srv/open/control";
    tool(rig, dir, "0755");
    rig.run(&["chmod", "4755", &format!("{dir}/tool")]).unwrap();
    for (_, uid) in USERS {
        assert_eq!(gains(rig, uid, &format!("{dir}/tool")), Some(0));
    }
}

#[test]
fn protected_sources_keep_it_from_everybody() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/nosuid /srv/noexec; mount -t tmpfs -o nosuid,mode=0755 n \
         /srv/nosuid; mount -t tmpfs -o noexec,mode=0755 n /srv/noexec")
        .unwrap();
    for (dir, others) in [
        ("/srv/closed/suid", None),
        // There it runs, as who runs it.
        ("/srv/nosuid/suid", Some(())),
        ("/srv/noexec/suid", None),
    ] {
        tool(rig, dir, "0755");
        for mapping in [Mapping::Automatic, Mapping::Identity, Mapping::Root] {
            rig.sh(&format!("rm -f {dir}/evil {dir}/alice")).unwrap();
            let files = binds([Bind { mapping, ..bind(dir, "/mnt/x") }]);
            let script = PLANT.replace("@dir@", "/mnt/x");
            // With root alone mapped, no file can be given to uid 1000.
            let script = if mapping == Mapping::Root {
                script.replace(" && chown 1000:1000 /mnt/x/alice", "")
            } else {
                script
            };
            assert_eq!(Task::start(rig, files, &script).finish(), "4755\n");
            for program in ["evil", "alice"] {
                for (_, uid) in USERS {
                    let gained = gains(rig, uid, &format!("{dir}/{program}"));
                    assert_eq!(gained, others.map(|()| uid), "{dir}/{program} {mapping:?}");
                }
            }
        }
    }
    rig.run(&["umount", "/srv/nosuid", "/srv/noexec"]).unwrap();
}

#[test]
fn unprotected_sources_are_refused_for_every_mapping() {
    let rig = host();
    tool(rig, "/srv/open/refused", "0777");
    for mapping in [Mapping::Automatic, Mapping::Identity, Mapping::Root, Mapping::Owner] {
        for source in ["/srv/open/refused", "/srv/open/refused/tool"] {
            let text = refused(rig, binds([Bind { mapping, ..bind(source, "/mnt/x") }]));
            for word in ["set-uid", "read-only", "0700", "nosuid", "noidmap", "unprotected", source]
            {
                assert!(text.contains(word), "{word}: {text}");
            }
        }
        let one = Bind { mapping, read_only: true, ..bind("/srv/open/refused", "/mnt/x") };
        let out = Task::start(rig, binds([one]), "touch /mnt/x/a 2>/dev/null || echo no").finish();
        assert_eq!(out, "no\n");
    }
}

/// A nosuid directory does not answer for another mount below it.
#[test]
fn a_mount_below_a_nosuid_directory_is_judged_too() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/outer; mount -t tmpfs -o nosuid,mode=0755 o /srv/outer; \
         mkdir /srv/outer/inner; mount -t tmpfs -o mode=0755 i /srv/outer/inner")
        .unwrap();
    let text = refused(rig, binds([bind("/srv/outer", "/mnt/x")]));
    assert!(text.contains("set-uid"), "{text}");
    let shallow = Bind { recursive: false, ..bind("/srv/outer", "/mnt/x") };
    Task::start(rig, binds([shallow]), "touch /mnt/x/f").finish();
    rig.run(&["mount", "-o", "remount,bind,nosuid", "/srv/outer/inner"]).unwrap();
    Task::start(rig, binds([bind("/srv/outer", "/mnt/x")]), "touch /mnt/x/inner/f").finish();
    rig.run(&["umount", "/srv/outer/inner", "/srv/outer"]).unwrap();
}

/// With the lenient policy they are not mapped: such a program gives the container's own ids.
#[test]
fn unmapped_sources_give_nothing_of_the_hosts() {
    let rig = open_host();
    tool(rig, "/srv/open/lenient", "0777");
    for mapping in
        [Mapping::Automatic, Mapping::Identity, Mapping::Root, Mapping::Owner, Mapping::None]
    {
        rig.sh("rm -f /srv/open/lenient/evil /srv/open/lenient/alice").unwrap();
        let files = binds([Bind { mapping, ..bind("/srv/open/lenient", "/mnt/x") }]);
        let task = Task::start(rig, files, &PLANT.replace("@dir@", "/mnt/x"));
        let noted = task.notes.iter().any(|note| note.contains("without ID mapping"));
        assert_eq!(noted, mapping != Mapping::None, "{:?}", task.notes);
        assert_container_ids(rig, &task, "/srv/open/lenient");
        task.finish();
    }
}

/// The task's own directories; where allocations are not protected, their files have owners on disk
/// that no account has. /secrets is noexec.
#[test]
fn task_directories_give_nothing_of_the_hosts() {
    for rig in [host(), open_host()] {
        for sub in ["alloc", "local", "secrets"] {
            let task = Task::try_with(
                rig,
                |made| {
                    let dir = made.dir();
                    rig.sh(&format!("chmod 0777 {dir}/alloc {dir}/t/local")).unwrap();
                    for directory in ["alloc", "t/local", "t/secrets"] {
                        rig.sh(&format!("cp /usr/bin/id {dir}/{directory}/tool")).unwrap();
                    }
                    Files::default()
                },
                &PLANT.replace("@dir@", &format!("/{sub}")),
                |spec| spec,
            )
            .unwrap();
            assert_eq!(task.output(), "4755\n");
            let directory = if sub == "alloc" { "alloc".into() } else { format!("t/{sub}") };
            assert_container_ids(rig, &task, &format!("{}/{directory}", task.made.dir()));
            task.remove();
        }
    }
}

/// Whoever runs the planted programs gets nothing, or an id of the container's range, or one that
/// task files have on disk.
fn assert_container_ids(rig: &Rig, task: &Task<'_>, dir: &str) {
    task.output();
    for program in ["evil", "alice"] {
        for (_, uid) in USERS {
            let gained = gains(rig, uid, &format!("{dir}/{program}"));
            let mut ranges = [task.base, DISK_FIRST].map(|first| first..first + 65_536).into_iter();
            let is_containers = |id| ranges.any(|range| range.contains(&id));
            assert!(gained.is_none_or(is_containers), "{dir}/{program}: {gained:?}");
        }
    }
}
