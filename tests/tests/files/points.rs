//! Mount points in directories that others share: systemd-nspawn, which is host root and goes by
//! path, has nothing to do with them.

use crate::{Task, at, bind, binds, host, read_only};
use nix::fcntl::{OFlag, RenameFlags, renameat2};
use nspawn_tests::wait::Stop;
use nspawn_tests::{Rig, wait};
use proto::name::ImageName;
use proto::task_spec::files::{Files, Tmpfs};
use proto::task_spec::{Image, TaskSpec};
use proto::unit_id::UnitId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What systemd-nspawn was told to mount, by target.
fn told(rig: &Rig, task: &Task<'_>) -> Vec<String> {
    let unit = format!("nomad-nspawn-{}.service", UnitId::from(&task.made.key));
    let line = format!("tr '\\0' '\\n' </proc/$(systemctl show -P MainPID {unit})/cmdline");
    let words = rig.sh(&line).unwrap();
    let option = |word: &str| {
        let (name, value) = word.split_once('=')?;
        let mounts = ["--bind", "--bind-ro", "--tmpfs", "--overlay", "--overlay-ro"];
        mounts.contains(&name).then(|| value.split(':').nth(1).unwrap_or(value).to_owned())
    };
    words.lines().filter_map(option).collect()
}

#[test]
fn what_lies_below_another_mount_is_not_systemd_nspawns_to_mount() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/closed/points/a /srv/closed/points/b; \
         echo in >/srv/closed/points/b/f; cd /var/lib/machines; cp -a busybox linked; \
         ln -s /alloc linked/data; ln -s data/deep linked/twice; ln -s /srv linked/mnt/l")
        .unwrap();
    let inner = |target: &str| read_only("/srv/closed/points/b", target);
    let files = Files {
        binds: vec![
            bind("/srv/closed/points/a", "/srv"),
            inner("/srv/x"),
            // Over links of the image, one of them to nothing.
            inner("/data/y"),
            inner("/twice/z"),
            inner("/mnt/l/w"),
            inner("/tmp/t/u"),
        ],
        tmpfs: vec![
            Tmpfs {
                target: at("/local/t"),
                size: None,
                inodes: None,
                mode: None,
                read_only: false,
                executable: false,
            },
            Tmpfs {
                target: at("/tmp/t"),
                size: None,
                inodes: None,
                mode: None,
                read_only: false,
                executable: false,
            },
        ],
        ..Files::default()
    };
    let script = "cat /srv/x/f /alloc/y/f /data/y/f /alloc/deep/z/f /srv/w/f /tmp/t/u/f; \
                  touch /local/t/o; stat -f -c %T /local/t; exec sleep 60";
    let image = Image::Named(ImageName::new("linked").unwrap());
    let change = |spec: TaskSpec| TaskSpec { image, ..spec };
    let task = Task::try_with(rig, |_| files, script, change).unwrap();
    let mut told = told(rig, &task);
    told.sort();
    assert_eq!(told, ["/alloc", "/local", "/secrets", "/srv", "/tmp/t"]);
    let mut seen = Vec::new();
    wait::true_within("the payload to look", Duration::from_secs(10), || {
        seen.extend(task.made.written(0)?);
        Ok(seen.ends_with(b"tmpfs\n"))
    })
    .unwrap();
    let seen = String::from_utf8(seen).unwrap();
    assert_eq!(seen, format!("{}tmpfs\n", "in\n".repeat(6)));
    let made = rig.run(&["ls", "/srv/closed/points/a"]).unwrap();
    assert_eq!(made, "w\nx");
    task.remove();
}

/// systemd-nspawn writes there by path, as host root.
#[test]
fn no_link_of_an_image_leads_to_systemd_nspawns_own_directories() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/closed/own; cd /var/lib/machines; cp -a busybox led; \
         ln -s /run led/r; ln -s /run/host led/h; ln -s / led/s; \
         cp -a busybox folded; rm -rf folded/tmp; ln -s /alloc folded/tmp")
        .unwrap();
    let start = |name: &str, target: &str| {
        let image = Image::Named(ImageName::new(name).unwrap());
        let files = binds([bind("/srv/closed/own", target)]);
        let task = Task::try_with(rig, |_| files, "exit 0", |spec| TaskSpec { image, ..spec });
        task.map(Task::finish)
    };
    for target in ["/r/host", "/r/host/x", "/h", "/h/x", "/s", "/r", "/s/dev", "/s/proc/x"] {
        let text = start("led", target).unwrap_err().to_string();
        assert!(text.contains(target) && text.contains("a link of the image leads to"), "{text}");
    }
    start("led", "/r/other").unwrap();
    let text = start("folded", "/mnt/x").unwrap_err().to_string();
    assert!(text.contains("/tmp") && text.contains("or a link"), "{text}");
    assert_eq!(rig.run(&["ls", "-A", "/srv/closed/own"]).unwrap(), "");
}

/// Another task takes the mount point away and puts a link in the place of the directory above it.
#[test]
fn a_swapped_mount_point_never_leads_elsewhere() {
    const STARTS: usize = 40;
    let rig = host();
    rig.sh("set -e; cd /srv/closed; mkdir -p swap/dir victim source; echo in >source/f; \
         ln -s /srv/closed/victim swap/link")
        .unwrap();
    let directory = rig.open("/srv/closed/swap", OFlag::O_PATH | OFlag::O_DIRECTORY, 0).unwrap();
    let done = AtomicBool::new(false);
    let (mut seen, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(&directory, "dir", &directory, "link", RenameFlags::RENAME_EXCHANGE)
                    .unwrap();
                // The one of them that is a directory now.
                for name in ["dir/point", "link/point"] {
                    let at = nix::unistd::UnlinkatFlags::RemoveDir;
                    let _one_of_them = nix::unistd::unlinkat(&directory, name, at);
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let _stop = Stop(&done);
        for _ in 0..STARTS {
            let inner = read_only("/srv/closed/source", "/mnt/a/dir/point");
            let files = binds([bind("/srv/closed/swap", "/mnt/a"), inner]);
            match Task::try_start(rig, files, "exit 0") {
                Ok(task) => {
                    task.finish();
                    seen += 1;
                }
                Err(refusal) => {
                    let told = refusal.to_string();
                    assert!(told.contains("/mnt/a/dir/point"), "{told}");
                    refused += 1;
                }
            }
        }
    });
    eprintln!("{STARTS} starts: {seen} ran, {refused} refused");
    assert!(seen > 0 && refused > 0, "{seen} ran, {refused} refused: no race took place");
    let victim = rig.run(&["find", "/srv/closed/victim", "-printf", "%p %u\\n"]).unwrap();
    assert_eq!(victim, "/srv/closed/victim root");
}

/// Nomad's log collector is host root and opens the files there by name.
#[test]
fn nomads_log_directory_is_closed_to_the_payload() {
    let rig = host();
    let script = "
        for f in t.stdout.1 x; do
            ln -s /etc/passwd /alloc/logs/$f 2>/dev/null && echo linked
            (echo x >/alloc/logs/$f) 2>/dev/null && echo written
        done
        rm /alloc/logs/.t.stdout.fifo 2>/dev/null && echo removed
        mv /alloc/logs /alloc/old 2>/dev/null && echo moved
        umount /alloc/logs 2>/dev/null && echo unmounted
        mount -o remount,rw /alloc/logs 2>/dev/null && echo remounted
        ls -A /alloc/logs; echo again >/dev/stdout; echo data >/alloc/data/f; cat /alloc/data/f";
    let seen = crate::run(rig, Files::default(), script);
    assert_eq!(seen, ".t.stderr.fifo\n.t.stdout.fifo\nagain\ndata\n");
}
