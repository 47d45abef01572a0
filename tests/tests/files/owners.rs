//! Who owns on the host what container root and container uid 1000 write, for every kind of mount:
//! the table of docs/CONFIG.md.

use crate::{Task, bind, binds, host, open_host, read_only, refused, relative, up};
use nspawn_tests::Rig;
use nspawn_tests::hostile::Handmade;
use proto::limits::DISK_FIRST;
use proto::task_spec::files::{Bind, Files, Mapping, Source};

/// Writes a file as root and, where it may, one as uid 1000; prints what both look like inside.
const WRITE: &str = r#"
    for d in @dirs@; do
        touch $d/r 2>/dev/null; chmod 0755 $d/r 2>/dev/null
        touch $d/a 2>/dev/null && chown 1000:1000 $d/a 2>/dev/null
        echo $d $(stat -c %u:%g $d/r $d/a 2>/dev/null)
    done
"#;

/// Owners on the host, as uid:gid of both files; `-` for one that could not be made.
fn outside(rig: &Rig, dir: &str) -> String {
    let look = |name: &str| {
        let out = rig.exec(&["stat", "-c", "%u:%g", &format!("{dir}/{name}")]).unwrap();
        if out.success() { out.text().trim().to_owned() } else { "-".to_owned() }
    };
    format!("{} {}", look("r"), look("a"))
}

fn write_in(dirs: &[&str]) -> String {
    WRITE.replace("@dirs@", &dirs.join(" "))
}

#[test]
fn protected_places_have_the_containers_owners_on_disk() {
    let rig = host();
    let task = Task::start(rig, Files::default(), &write_in(&["/alloc", "/local", "/secrets"]));
    let out = task.output();
    assert_eq!(out, "/alloc 0:0 1000:1000\n/local 0:0 1000:1000\n/secrets 0:0 1000:1000\n");
    let dir = task.made.dir();
    for sub in ["alloc", "t/local", "t/secrets"] {
        assert_eq!(outside(rig, &format!("{dir}/{sub}")), "0:0 1000:1000", "{sub}");
    }
    task.remove();
}

/// Nomad makes them writable for everybody.
fn open_up(rig: &Rig, made: &Handmade<'_>) {
    rig.sh(&format!(
        "chown 65534:65534 {0}/alloc {0}/t/local && chmod 0777 {0}/alloc {0}/t/local",
        made.dir()
    ))
    .unwrap();
}

/// Whichever range the task has: another allocation must be able to read them.
#[test]
fn open_task_directories_have_the_same_owners_on_disk_for_every_range() {
    let rig = open_host();
    let task = Task::try_with(
        rig,
        |made| {
            open_up(rig, made);
            Files::default()
        },
        &write_in(&["/alloc", "/local", "/secrets"]),
        |spec| spec,
    )
    .unwrap();
    let out = task.output();
    assert_eq!(out, "/alloc 0:0 1000:1000\n/local 0:0 1000:1000\n/secrets 0:0 1000:1000\n");
    let (base, dir) = (DISK_FIRST, task.made.dir());
    let range = format!("{base}:{base} {0}:{0}", base + 1000);
    for (sub, owners) in
        [("alloc", range.as_str()), ("t/local", &range), ("t/secrets", "0:0 1000:1000")]
    {
        assert_eq!(outside(rig, &format!("{dir}/{sub}")), owners, "{sub}");
    }
    assert!(task.notes.iter().any(|note| note.contains("0600")), "{:?}", task.notes);
    task.remove();
}

/// A bind of the task's own directory shows what the directory shows; what Nomad has written with
/// mode 0600 can still be had by a read-only bind of the file.
#[test]
fn binds_of_open_task_directories_have_their_owners() {
    let rig = open_host();
    let own = |below: &str, target: &str| Bind {
        source: Source::Task(relative(below)),
        ..bind("/", target)
    };
    let script = "
        (umask 077; echo one >/mnt/w/f; echo two >/local/d/g; chown 1000:1000 /local/d/g)
        cd /mnt/r && cat f g && stat -c %u:%g f g && cat /etc/key
    ";
    let task = Task::try_with(
        rig,
        |made| {
            open_up(rig, made);
            let local = format!("{}/t/local", made.dir());
            rig.sh(&format!(
                "set -e; cd {local}; mkdir d; chown {DISK_FIRST}:{DISK_FIRST} d; umask 077; echo key >key"
            ))
            .unwrap();
            let read_only = |below, target| Bind { read_only: true, ..own(below, target) };
            binds([
                own("local/d", "/mnt/w"),
                read_only("local/d", "/mnt/r"),
                read_only("local/key", "/etc/key"),
            ])
        },
        script,
        |spec| spec,
    )
    .unwrap();
    assert_eq!(task.output(), "one\ntwo\n0:0\n1000:1000\nkey\n");
    let of = |name: &str| format!("{}/t/local/d/{name}", task.made.dir());
    let owners = rig.run(&["stat", "-c", "%u", &of("f"), &of("g")]).unwrap();
    assert_eq!(owners, format!("{DISK_FIRST}\n{}", DISK_FIRST + 1000));
    task.remove();
}

/// What a task wrote while the data directory was open, after it was closed.
#[test]
fn files_of_an_open_time_are_named_where_the_directory_is_closed() {
    let rig = host();
    let task = Task::try_with(
        rig,
        |made| {
            let data = format!("{}/alloc/data", made.dir());
            rig.sh(&format!("echo x >{data}/old && chown {0}:{0} {data}/old", DISK_FIRST + 5))
                .unwrap();
            Files::default()
        },
        "stat -c %u /alloc/data/old",
        |spec| spec,
    )
    .unwrap();
    assert_eq!(task.output(), "65534\n");
    let owner = (DISK_FIRST + 5).to_string();
    let named = |note: &String| note.contains("alloc/data/old") && note.contains(&owner);
    assert!(task.notes.iter().any(named), "{:?}", task.notes);
    task.remove();
}

/// Each mapping on a directory of 1234:2345 that everybody may write to.
#[test]
fn every_mapping_of_a_bind_has_its_owners() {
    let rig = host();
    let cases = [
        // Mapping, inside, on the host; `b` stands for the base of the range.
        ("auto", Mapping::Automatic, "0:0 1000:1000", "0:0 1000:1000"),
        ("id", Mapping::Identity, "0:0 1000:1000", "0:0 1000:1000"),
        ("none", Mapping::None, "0:0 1000:1000", "b:b b+1000:b+1000"),
        // Only root exists there: its file cannot be given to another.
        ("root", Mapping::Root, "0:0 0:0", "1234:2345 1234:2345"),
        // The target is /home/app, which belongs to uid 1000: root is nobody there.
        ("owner", Mapping::Owner, "", "- -"),
    ];
    let mut all = Vec::new();
    for (name, mapping, ..) in cases {
        let source = format!("/srv/closed/map/{name}");
        rig.sh(&format!(
            "set -e; mkdir -p {source}; chown 1234:2345 {source}; chmod 0777 {source}"
        ))
        .unwrap();
        let target = if name == "owner" { "/home/app".into() } else { format!("/mnt/{name}") };
        all.push(Bind { mapping, ..bind(&source, &target) });
    }
    let dirs = ["/mnt/auto", "/mnt/id", "/mnt/none", "/mnt/root", "/home/app"];
    let script = write_in(&dirs)
        + r#"
        stat -c '%n %u:%g' @dirs@
        busybox setpriv --help >/dev/null 2>&1
        su app -c 'touch /home/app/mine && stat -c "mine %u:%g" /home/app/mine'
    "#
        .replace("@dirs@", &dirs.join(" "))
        .as_str();
    let task = Task::start(rig, binds(all), &script);
    let out = task.output();
    for ((name, _, inside, owners), dir) in cases.iter().zip(dirs) {
        assert!(out.contains(format!("{dir} {inside}").trim_end()), "{name}: {out}");
        let b = task.base;
        let owners = owners.replace("b+1000", &(b + 1000).to_string()).replace('b', &b.to_string());
        assert_eq!(outside(rig, &format!("/srv/closed/map/{name}")), owners, "{name}: {out}");
    }
    for shown in [
        "/mnt/auto 1234:2345",
        "/mnt/id 1234:2345",
        "/mnt/none 65534:65534",
        "/mnt/root 0:0",
        "/home/app 1000:1000",
        "mine 1000:1000",
    ] {
        assert!(out.contains(&format!("{shown}\n")), "{shown}: {out}");
    }
    let mine = rig.run(&["stat", "-c", "%u:%g", "/srv/closed/map/owner/mine"]).unwrap();
    assert_eq!(mine, "1234:2345");
    task.remove();
}

/// On a file system that no kernel can map every write of the payload would fail.
#[test]
fn a_writable_bind_that_cannot_be_mapped_is_refused_with_the_way_out() {
    let rig = host();
    rig.sh("set -e; mkdir /srv/closed/um; cd /srv/closed/um; mkdir l m up ram; \
         mount -t tmpfs up up; mkdir up/u up/w; echo low >l/f; \
         mount -t overlay -o lowerdir=l,upperdir=up/u,workdir=up/w ov m; \
         mount -t ramfs ram ram; chmod 0777 m ram; echo low >ram/f")
        .unwrap();
    // The last one can be mapped itself; what is mounted below it cannot.
    for source in ["/srv/closed/um/m", "/srv/closed/um/ram", "/srv/closed/um"] {
        let one = bind(source, "/mnt/x");
        for mapping in [Mapping::Automatic, Mapping::Identity, Mapping::Root, Mapping::Owner] {
            let text = refused(rig, binds([Bind { mapping, ..one.clone() }]));
            for word in ["cannot ID-map", "bind_idmap = \"none\"", "noidmap", "read-only", source] {
                assert!(text.contains(word), "{mapping:?}, {word}: {text}");
            }
        }
    }
    for source in ["/srv/closed/um/m", "/srv/closed/um/ram"] {
        let task = Task::start(
            rig,
            binds([read_only(source, "/mnt/x")]),
            "cat /mnt/x/f; stat -c %u /mnt/x",
        );
        assert!(task.notes.iter().any(|note| note.contains("cannot ID-map")), "{:?}", task.notes);
        assert_eq!(task.finish(), "low\n65534\n");
        let one = Bind { mapping: Mapping::None, ..bind(source, "/mnt/x") };
        let task = Task::start(rig, binds([one]), "echo new >/mnt/x/new && stat -c %u /mnt/x/new");
        assert_eq!(task.notes, [""; 0]);
        assert_eq!(task.finish(), "0\n");
    }
    rig.sh("cd /srv/closed/um && umount m up ram").unwrap();
}

/// A data directory on such a file system: the task runs, and its events say what is lost.
#[test]
fn task_directories_that_cannot_be_mapped_are_named() {
    let rig = up("refuse", "0700");
    rig.sh("mkdir -p /var/lib/nomad/alloc && mount -t ramfs ram /var/lib/nomad/alloc").unwrap();
    let task = Task::try_with(
        &rig,
        |made| {
            open_up(&rig, made);
            Files::default()
        },
        &write_in(&["/alloc", "/local"]),
        |spec| spec,
    )
    .unwrap();
    assert_eq!(task.output(), "/alloc 0:0 1000:1000\n/local 0:0 1000:1000\n");
    let (base, dir) = (task.base, task.made.dir());
    let range = format!("{base}:{base} {0}:{0}", base + 1000);
    assert_eq!(outside(&rig, &format!("{dir}/alloc")), range);
    let told = |note: &String| note.contains("cannot ID-map") && note.contains("sticky");
    assert!(task.notes.iter().any(told), "{:?}", task.notes);
    task.remove();
}
