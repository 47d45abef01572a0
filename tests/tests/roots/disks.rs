//! Disk images and block devices.

use crate::*;
use nspawn_tests::disks::FILE_SYSTEMS;
use nspawn_tests::wait;
use proto::path::Absolute;
use std::time::Duration;

/// Loop devices whose file has this name, as the kernel lists them.
fn loops(name: &str) -> usize {
    let script = "cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -c \"/$0\\( \\|$\\)\"";
    rig().exec(&["sh", "-c", script, name]).unwrap().text().trim().parse().unwrap()
}

fn wait_no_loops(name: &str) {
    wait::true_within("the loop device to go", Duration::from_secs(10), || Ok(loops(name) == 0))
        .unwrap();
}

fn sum(path: &str) -> String {
    rig().run(&["sha256sum", path]).unwrap()
}

const WHO: &str = "stat -c %u:%g / /etc/passwd /home/app; (echo x > /x) 2>/dev/null && echo wrote";
const OWNERS: &str = "0:0\n0:0\n1000:1000";

#[test]
fn every_file_system_in_every_mode_leaves_the_file_as_it_is() {
    for kind in FILE_SYSTEMS {
        let name = format!("disk-{kind}");
        let path = rig().add_disk(kind, &name).unwrap();
        let before = sum(&path);
        let modes = if kind == "ext4" { &HARMLESS[..] } else { &HARMLESS[..2] };
        for mode in modes.iter().copied() {
            if mode == Root::Volatile(Volatile::Yes) {
                assert_eq!(run(disk(&name, mode), "stat -f -c %T /"), "tmpfs", "{kind}");
                continue;
            }
            let writable = !matches!(mode, Root::ReadOnly | Root::Volatile(Volatile::State));
            let expected = if writable { format!("{OWNERS}\nwrote") } else { OWNERS.to_owned() };
            assert_eq!(run(disk(&name, mode), WHO), expected, "{kind} {mode:?}");
        }
        wait_no_loops(&format!("{name}.raw"));
        assert_eq!(sum(&path), before, "{kind}");
        rig().run(&["rm", &path]).unwrap();
    }
}

#[test]
fn a_plain_disk_keeps_what_was_written() {
    for kind in ["ext4", "btrfs"] {
        let name = format!("plain-{kind}");
        rig().add_disk(kind, &name).unwrap();
        assert_eq!(run(disk(&name, Root::Plain), WHO), format!("{OWNERS}\nwrote"), "{kind}");
        if kind == "ext4" {
            // Whatever the image asks for: mkfs.ext4 makes it "continue", others "panic".
            let look = "grep -c '^/dev/loop[0-9]* / ext4 rw,.*errors=remount-ro' /proc/mounts";
            assert_eq!(run(disk(&name, Root::Plain), look), "1");
        }
        let look = "cat /x; stat -c %u /x /alloc";
        assert_eq!(run(disk(&name, Root::Plain), look), "x\n0\n0", "{kind}");
        wait_no_loops(&format!("{name}.raw"));
    }
    for kind in ["squashfs", "erofs"] {
        let name = format!("plain-{kind}");
        rig().add_disk(kind, &name).unwrap();
        let said = refused(disk(&name, Root::Plain));
        assert!(said.contains("cannot be written: use ephemeral"), "{kind}: {said}");
    }
}

#[test]
fn the_loop_device_goes_however_the_task_ends() {
    let (task, client) = (Handmade::new(rig(), "disks").unwrap(), client());
    rig().add_disk("ext4", "killed").unwrap();
    start(&task, &client, disk("killed", Root::Plain), "sleep 60").unwrap();
    assert_eq!(loops("killed.raw"), 1);
    let unit = format!("nomad-nspawn-{}.service", proto::unit_id::UnitId::from(&task.key));
    rig().run(&["systemctl", "kill", "--kill-whom=all", "--signal=KILL", &unit]).unwrap();
    task.wait_ended(&client).unwrap();
    wait_no_loops("killed.raw");
    end_run(&task, &client);
    task.remove(&client).unwrap();
    // Nothing of it in the host's mount table, at any time.
    assert!(!rig().sh("cat /proc/1/mountinfo").unwrap().contains("nomad-nspawn/stage"));
    // It can be used again.
    assert_eq!(run(disk("killed", Root::Plain), "echo again"), "again");
}

#[test]
fn what_is_no_disk_image_is_refused_with_the_reason() {
    let no_system = "holds no ext4, squashfs, erofs or btrfs";
    let make = "cd /var/lib/machines/wrong; \
                truncate -s 8M zeros.raw; cp zeros.raw gpt.raw; \
                printf 'EFI PART' | dd of=gpt.raw bs=1 seek=512 conv=notrunc status=none; \
                for s in '0 hsqs' '1080 \\123\\357' '65600 _BHRfS_M'; do set -- $s; \
                cp zeros.raw magic$1.raw; printf $2 | dd of=magic$1.raw bs=1 seek=$1 conv=notrunc \
                status=none; done; \
                printf x > short.raw; mkfifo fifo.raw; mkdir directory.raw; \
                ln -s ../busybox link; mknod node.raw c 1 3";
    rig().sh(make).unwrap();
    let at = |name: &str, kind| {
        let image = Image::Path(Absolute::parse(&format!("{STORE}/wrong/{name}")).unwrap());
        move |spec: &mut TaskSpec| {
            spec.image = image;
            spec.root.kind = kind;
        }
    };
    let neither = "is neither a regular file nor a block device";
    for (name, kind, why) in [
        ("zeros.raw", ImageKind::Disk, no_system),
        ("gpt.raw", ImageKind::Disk, no_system),
        ("short.raw", ImageKind::Disk, no_system),
        ("magic0.raw", ImageKind::Disk, "does not mount its squashfs file system"),
        ("magic1080.raw", ImageKind::Disk, "does not mount its ext4 file system"),
        ("magic65600.raw", ImageKind::Disk, "does not mount its btrfs file system"),
        ("fifo.raw", ImageKind::Disk, neither),
        ("directory.raw", ImageKind::Disk, neither),
        ("node.raw", ImageKind::Disk, neither),
        ("link", ImageKind::Disk, "symbolic link"),
        ("link", ImageKind::Tree, "symbolic link"),
        ("link/bin", ImageKind::Tree, "symbolic link"),
        ("zeros.raw", ImageKind::Tree, "is no directory"),
        ("missing.raw", ImageKind::Disk, "does not exist on this host"),
    ] {
        let said = refused(at(name, kind));
        assert!(said.contains(why), "{name}: {said}");
        wait_no_loops(name);
    }
}

#[test]
fn an_ext4_with_errors_is_not_written_before_it_is_checked() {
    let path = rig().add_disk("ext4", "dirty").unwrap();
    // s_state of the superblock: 1 clean, 2 errors.
    let mark = "printf '\\00'$1 | dd of=$0 bs=1 seek=1082 conv=notrunc status=none";
    for state in ["0", "2", "3"] {
        rig().run(&["sh", "-c", mark, &path, state]).unwrap();
        let said = refused(disk("dirty", Root::Plain));
        assert!(said.contains("run e2fsck -f"), "{state}: {said}");
    }
    rig().run(&["sh", "-c", mark, &path, "1"]).unwrap();
    assert_eq!(run(disk("dirty", Root::Plain), WHO), format!("{OWNERS}\nwrote"));
}

/// What a crash of the host leaves: a journal to replay, or to leave alone.
#[test]
fn a_journal_is_replayed_where_the_image_is_written_and_nowhere_else() {
    let path = rig().add_disk("ext4", "mounted").unwrap();
    let crash = "mkdir /mnt/mounted; busybox mount -o loop $0 /mnt/mounted; \
                 echo x > /mnt/mounted/x; sync /mnt/mounted/x; cp $0 \
                 /var/lib/machines/crashed.raw; umount /mnt/mounted";
    rig().run(&["sh", "-ec", crash, &path]).unwrap();
    let crashed = "/var/lib/machines/crashed.raw";
    // s_feature_incompat of the superblock: 4 is a journal to replay.
    let flag = format!("od -An -tu1 -j1120 -N1 {crashed}");
    let needs_recovery = || rig().sh(&flag).unwrap().trim().parse::<u8>().unwrap() & 4 != 0;
    assert!(needs_recovery());
    let before = sum(crashed);
    assert_eq!(run(disk("crashed", Root::ReadOnly), WHO), OWNERS);
    assert_eq!(run(disk("crashed", Root::Ephemeral(Layer::Disk)), "echo runs"), "runs");
    wait_no_loops("crashed.raw");
    assert_eq!(sum(crashed), before);
    assert_eq!(run(disk("crashed", Root::Plain), "cat /x"), "x");
    wait_no_loops("crashed.raw");
    assert!(!needs_recovery());
}

/// A loop device: the kernel's, so it would outlive the host.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let freed = rig().run(&["busybox", "losetup", "-d", &self.0]);
        assert!(freed.is_ok() || std::thread::panicking(), "{freed:?}");
    }
}

#[test]
fn a_block_device_is_an_image() {
    let path = rig().add_disk("ext4", "device").unwrap();
    // Others may take the free device first.
    let make = "for n in $(seq 50); do d=$(busybox losetup -f); busybox losetup $d $0 && \
                echo $d && exit; done; exit 1";
    let device = Loop(rig().run(&["sh", "-c", make, &path]).unwrap());
    let image = Image::Path(Absolute::parse(&device.0).unwrap());
    let change = |mode| {
        let image = image.clone();
        move |spec: &mut TaskSpec| {
            spec.image = image;
            spec.root = RootFs { kind: ImageKind::Disk, ..RootFs::tree(mode) };
        }
    };
    let before = sum(&path);
    let ephemeral = run(change(Root::Ephemeral(Layer::Disk)), WHO);
    assert_eq!((ephemeral, sum(&path)), (format!("{OWNERS}\nwrote"), before));
    assert_eq!(run(change(Root::Plain), WHO), format!("{OWNERS}\nwrote"));
    assert_eq!(run(change(Root::ReadOnly), "cat /x"), "x");
}

/// A device node in the image names a device of the host.
#[test]
fn device_nodes_of_a_disk_image_open_nothing() {
    let path = rig().add_disk("ext4", "nodes").unwrap();
    let make = "mkdir -p /mnt/nodes; busybox mount -o loop $0 /mnt/nodes; cd /mnt/nodes; \
                mknod zero c 1 5; mknod disk b 7 0; chmod 666 zero disk; cd /; umount /mnt/nodes";
    rig().run(&["sh", "-ec", make, &path]).unwrap();
    for mode in [Root::Plain, Root::ReadOnly, Root::Ephemeral(Layer::Disk)] {
        let said = run(disk("nodes", mode), "head -c1 /zero; head -c1 /disk; echo end");
        assert_eq!(said.matches("Permission denied").count(), 2, "{mode:?}: {said}");
    }
}
