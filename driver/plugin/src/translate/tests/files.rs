//! What the keys about files and devices become in the specification.

use super::*;
use nomad_proto::drivers::{Device, Mount};
use proto::path::Absolute;
use proto::secret::Secret;
use proto::target::Target;
use proto::task_spec::files::{CredentialContent, Mapping, Source, Upper};

fn path(text: &str) -> Absolute {
    Absolute::parse(text).unwrap()
}

fn target(text: &str) -> Target {
    Target::parse(text).unwrap()
}

#[test]
fn binds_have_options_and_escapes() {
    let binds = |key: &str, from: &str, to: &str| {
        let spec = spec(&[(key, pairs(&[(from, to)]))]);
        let [bind] = <[_; 1]>::try_from(spec.files.binds).unwrap();
        bind
    };
    let plain = binds("bind", "/srv/a", "/a");
    assert_eq!((plain.source, plain.target), (Source::Host(path("/srv/a")), target("/a")));
    assert!(plain.recursive && !plain.read_only && !plain.propagated);
    assert_eq!(plain.mapping, Mapping::Automatic);
    assert!(binds("bind_read_only", "/srv/a", "/a").read_only);
    for (option, recursive, mapping) in [
        ("rootidmap", true, Mapping::Root),
        ("idmap", true, Mapping::Identity),
        ("noidmap", true, Mapping::None),
        ("owneridmap", true, Mapping::Owner),
        ("norbind,idmap", false, Mapping::Identity),
        ("rbind", true, Mapping::Automatic),
    ] {
        let bind = binds("bind", "/srv/a", &format!("/a:{option}"));
        assert_eq!((bind.recursive, bind.mapping), (recursive, mapping), "{option}");
    }
    for from in ["/srv/a:b", r"/srv/a\:b"] {
        let bind = binds("bind", from, r"/a\:b:norbind");
        assert_eq!(bind.source, Source::Host(path("/srv/a:b")));
        assert_eq!((bind.target, bind.recursive), (target("/a:b"), false));
    }
    let Source::Task(below) = binds("bind", "local/data", "/data").source else { panic!() };
    assert_eq!(below.to_path(), std::path::Path::new("local/data"));
    let mapped = spec(&[
        ("bind_idmap", "rootidmap".into()),
        ("bind", pairs(&[("/a", "/b"), ("/c", "/d:idmap")])),
    ]);
    let mappings: Vec<_> = mapped.files.binds.iter().map(|bind| bind.mapping).collect();
    assert_eq!(mappings, [Mapping::Root, Mapping::Identity]);
}

#[test]
fn both_spellings_of_bind_are_one() {
    let attribute = spec(&[("bind", map(&[("/a", "/b".into()), ("/c", "/d".into())]))]);
    let block = map(&[("/a", "/b".into())]);
    let other = map(&[("/c", "/d".into())]);
    assert_eq!(spec(&[("bind", Value::List(vec![block, other]))]).files, attribute.files);
}

#[test]
fn volumes_become_binds() {
    let mount = Mount {
        task_path: "data".to_owned(),
        host_path: "/srv/data".to_owned(),
        readonly: true,
        propagation_mode: "host-to-task".to_owned(),
        ..Mount::default()
    };
    let mut task = task(&[("bind_idmap", "idmap".into())]);
    task.mounts = vec![mount];
    let bind = try_task(&task).unwrap().files.binds.swap_remove(0);
    assert_eq!((bind.source, bind.target), (Source::Host(path("/srv/data")), target("/data")));
    assert!(bind.read_only && bind.propagated && bind.recursive);
    assert_eq!(bind.mapping, Mapping::Identity);
    task.mounts[0].propagation_mode = String::new();
    assert!(!try_task(&task).unwrap().files.binds[0].propagated);
}

#[test]
fn mount_blocks_are_of_three_types() {
    let bind = spec(&[(
        "mount",
        blocks(&[
            ("source", "local/x".into()),
            ("target", "/x".into()),
            ("readonly", true.into()),
            ("propagation", "host-to-task".into()),
            ("options", list(&["norbind", "rootidmap"])),
        ]),
    )])
    .files
    .binds
    .swap_remove(0);
    assert!(bind.read_only && bind.propagated && !bind.recursive);
    assert_eq!(bind.mapping, Mapping::Root);
    let tmpfs = spec(&[(
        "mount",
        blocks(&[
            ("type", "tmpfs".into()),
            ("target", "/cache".into()),
            ("options", list(&["size=64m", "mode=1777", "noexec"])),
        ]),
    )])
    .files
    .tmpfs
    .swap_remove(0);
    assert_eq!((tmpfs.size, tmpfs.mode), (Some(64 << 20), Some(0o1777)));
    assert!(!tmpfs.executable && !tmpfs.read_only);
    let overlay = spec(&[(
        "mount",
        blocks(&[
            ("type", "overlay".into()),
            ("source", "/srv/low:local/up".into()),
            ("target", "/merged".into()),
        ]),
    )])
    .files
    .overlays
    .swap_remove(0);
    assert_eq!(overlay.lower, [Source::Host(path("/srv/low"))]);
    assert!(matches!(overlay.upper, Upper::Directory(Source::Task(_))));
}

#[test]
fn tmpfs_overlays_and_hidden_paths_are_read() {
    let tmpfs = spec(&[("tmpfs", list(&["/a", "/b:size=1k,nr_inodes=5,ro,nosuid"]))]).files.tmpfs;
    assert_eq!((tmpfs[0].size, tmpfs[0].executable, tmpfs[0].read_only), (None, true, false));
    assert_eq!((tmpfs[1].size, tmpfs[1].inodes, tmpfs[1].read_only), (Some(1024), Some(5), true));
    let overlays = spec(&[
        ("overlay", list(&["/l1:/l2:/up:/t1", "/l1::/t2", "/l1:/t3"])),
        ("overlay_ro", list(&["/l1:/l2:/t4", "/l1:/t5"])),
    ])
    .files
    .overlays;
    let host = |text: &str| Source::Host(path(text));
    let uppers: Vec<_> = overlays.iter().map(|overlay| overlay.upper.clone()).collect();
    let expected = [
        Upper::Directory(host("/up")),
        Upper::Ephemeral,
        Upper::Directory(host("/t3")),
        Upper::ReadOnly,
        Upper::ReadOnly,
    ];
    assert_eq!(uppers, expected);
    let lowers: Vec<_> = overlays.iter().map(|overlay| overlay.lower.len()).collect();
    assert_eq!(lowers, [2, 1, 1, 2, 2]);
    assert_eq!(overlays[4].lower[1], host("/t5"));
    assert_eq!(spec(&[("inaccessible", list(&["/srv/x"]))]).files.inaccessible, [target("/srv/x")]);
}

#[test]
fn devices_come_from_the_job_and_from_plugins() {
    let mut task = task(&[(
        "device",
        Value::List(vec![
            map(&[("host_path", "/dev/fuse".into())]),
            map(&[
                ("host_path", "/dev/kvm".into()),
                ("container_path", "/dev/k".into()),
                ("permissions", "rwm".into()),
            ]),
        ]),
    )]);
    task.devices.push(Device {
        host_path: "/dev/nvidia0".to_owned(),
        task_path: "/dev/nvidia0".to_owned(),
        cgroup_permissions: "r".to_owned(),
    });
    task.device_env.insert("GPU".to_owned(), "0".to_owned());
    task.env.insert("A".to_owned(), "1".to_owned());
    let spec = try_task(&task).unwrap();
    let nodes: Vec<_> = spec
        .files
        .devices
        .iter()
        .map(|d| {
            let access = d.access;
            format!("{} {} {}{}{}", d.host, d.target, access.read, access.write, access.mknod)
        })
        .collect();
    assert_eq!(
        nodes,
        [
            "/dev/fuse /dev/fuse truetruefalse",
            "/dev/kvm /dev/k truetruetrue",
            "/dev/nvidia0 /dev/nvidia0 truefalsefalse",
        ]
    );
    let names: Vec<_> = spec.environment.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["A", "GPU"]);
}

#[test]
fn credentials_are_files_or_values() {
    let credential = |entries: &[(&str, Value)]| {
        let mut all = vec![("name", Value::from("db.password"))];
        all.extend_from_slice(entries);
        spec(&[("credential", blocks(&all))]).files.credentials.swap_remove(0)
    };
    let value = credential(&[("value", "s".into()), ("encrypted", true.into())]);
    assert_eq!(value.content, CredentialContent::Value(Secret::new("s")));
    assert!(value.encrypted);
    for source in ["secrets/db", "/secrets/db", "./secrets//db"] {
        let CredentialContent::File(file) = credential(&[("source", source.into())]).content else {
            panic!("{source}");
        };
        assert_eq!(file.to_path(), std::path::Path::new("secrets/db"));
    }
}
