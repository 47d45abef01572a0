//! An imported archive is the tree that it was made of, in every mode.

use crate::*;
use proto::layer::{ImageLayer, ImageRecord, StoredLayer};
use proto::path::Component;
use proto::task_spec::Payload;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What a tree may hold beside plain files.
const ODD: &str = r#"
    mkdir -p odd/a/b/c odd/shared odd/sticky && chmod 2775 odd/shared && chmod 1777 odd/sticky
    echo suid > odd/suid && chmod 4755 odd/suid
    echo owned > odd/owned && chown 1000:50 odd/owned && chown 33:33 odd/a/b
    echo linked > odd/one && ln odd/one odd/a/two && ln odd/one odd/a/b/c/three
    ln -s /etc/passwd odd/absolute && ln -s ../usr odd/up && ln -s nothing odd/dangling
    mkfifo odd/fifo && : > odd/empty
    name=$(printf 'n%.0s' $(seq 255)) && echo long > odd/$name
    truncate -s 64M odd/sparse && echo end >> odd/sparse
    head -c 300000 /dev/urandom > odd/random && touch -d '2001-02-03 04:05:06' odd/random
"#;

/// Everything that a task sees of its root but what the launcher puts there for each anew.
const LIST: &str = r#"
    find / /usr -xdev ! -type d ! -type l ! -name hosts ! -name resolv.conf ! -name machine-id \
        -exec stat -c '%n %f %u %g %h %s %Y' {} + | sort
    find / /usr -xdev -type d -exec stat -c '%n %f %u %g' {} + | sort
    find / /usr -xdev -type l -exec stat -c '%N %f %u %g %h' {} + | sort
    find /usr/lib /odd -xdev -type f 2>/dev/null -exec sha256sum {} + | sort
"#;

#[test]
fn a_task_sees_the_same_tree_in_every_mode_with_and_without_user_namespace() {
    let _alone = alone();
    let script = format!("{BUSYBOX} {ODD}");
    let id = import("equal", &script);
    // The same tree by hand, in the image store.
    rig().run(&["cp", "-a", "/root/equal", "/var/lib/machines/by-hand"]).unwrap();
    for users in [Users::Pick, Users::Host] {
        for mode in MODES {
            let of = |name: &'static str| {
                let image = named(name, mode);
                move |spec: &mut TaskSpec| {
                    image(spec);
                    spec.users = users;
                }
            };
            let (layers, tree) = (run(of("equal"), LIST), run(of("by-hand"), LIST));
            assert!(layers.contains("/usr/bin/busybox"), "{users:?} {mode:?}");
            let differs = layers.lines().zip(tree.lines()).find(|(one, other)| one != other);
            assert_eq!(differs, None, "{users:?} {mode:?}");
            assert_eq!(layers.len(), tree.len(), "{users:?} {mode:?}");
            let writes =
                |name: &'static str| run(of(name), "echo x > /usr/x && cat /usr/x; ls -d /usr/x");
            assert_eq!(writes("equal"), writes("by-hand"), "{users:?} {mode:?}");
        }
    }
    wait_no_loops(id);
    // A tree of that name in the image store is what the name means, then the import again.
    rig().run(&["cp", "-a", "/root/equal", "/var/lib/machines/equal"]).unwrap();
    let kind = || run(named("equal", Root::ReadOnly), "echo > /dev/null; ls /odd; ls /by-hand");
    rig().run(&["touch", "/var/lib/machines/equal/by-hand"]).unwrap();
    assert!(kind().ends_with("/by-hand"));
    rig().run(&["rm", "-r", "/var/lib/machines/equal"]).unwrap();
    assert!(kind().contains("No such file"));
}

/// An object as its file system shows it to the host: type and mode, owner from the range's first id
/// on, links, length of files, target, attributes.
type Seen = (u32, u32, u32, u64, u64, PathBuf, Vec<(String, Vec<u8>)>);

fn look(path: &Path, base: u32) -> Seen {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let (links, size) = if kind.is_dir() { (0, 0) } else { (meta.nlink(), meta.size()) };
    let target = std::fs::read_link(path).unwrap_or_default();
    let mut names = [0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut all: Vec<_> = names
        .map(|name| {
            let mut value = [0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            // Ids in them are the range's: the owner of a capability, users of a list.
            let value = match name {
                b"security.capability" => value[4..20.min(length)].to_vec(),
                b"system.posix_acl_access" | b"system.posix_acl_default" => {
                    value[4..length].chunks(8).flat_map(|entry| unmapped(entry, base)).collect()
                }
                _ => value[..length].to_vec(),
            };
            (String::from_utf8(name.to_vec()).unwrap(), value)
        })
        .collect();
    all.sort();
    let special = kind.is_char_device() || kind.is_block_device();
    assert!(!special, "{}", path.display());
    (meta.mode(), meta.uid() - base, meta.gid() - base, links, size, target, all)
}

/// An entry of an access control list (linux/posix_acl_xattr.h) as it is in the image.
fn unmapped(entry: &[u8], base: u32) -> Vec<u8> {
    let id = u32::from_le_bytes(entry[4..8].try_into().unwrap());
    let id = if id == u32::MAX { id } else { id - base };
    [&entry[..4], &id.to_le_bytes()].concat()
}

fn walk(top: &Path) -> BTreeMap<PathBuf, Seen> {
    let base = top.metadata().unwrap().uid();
    let (mut all, mut left) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(path) = left.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.insert(path.strip_prefix(top).unwrap().to_owned(), look(&path, base));
    }
    all
}

#[test]
fn attributes_and_capabilities_are_those_of_the_archive() {
    let _alone = alone();
    let set = r#"
        mkdir -p odd && for n in user cap list; do echo $n > odd/$n; done; mkdir odd/default
    "#;
    let make = format!("{BUSYBOX} {set}");
    rig()
        .run(&["sh", "-ec", "mkdir /root/attributes; cd /root/attributes; eval \"$0\"", &make])
        .unwrap();
    let top = format!("/proc/{}/root/root/attributes/odd", rig().leader());
    let set = |file: &str, name: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(format!("{top}/{file}"), name, value, flags).unwrap();
    };
    set("user", "user.key", b"any \0 value");
    // CAP_NET_BIND_SERVICE, permitted and effective (struct vfs_cap_data, version 2).
    let capability = [0x0200_0001_u32, 1 << 10, 0, 0, 0].map(u32::to_le_bytes).concat();
    set("cap", "security.capability", &capability);
    // rw for the owner, r for user 1000, r for the group, rw as mask, nothing for others.
    let entries = [
        (1, 6, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (0x10, 6, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let entry = |(tag, rights, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = [2_u32.to_le_bytes().to_vec(), entries.map(entry).concat()].concat();
    set("list", "system.posix_acl_access", &list);
    set("default", "system.posix_acl_default", &list);
    let _id = import("attributes", "");
    rig().run(&["cp", "-a", "/root/attributes", "/var/lib/machines/attributes-by-hand"]).unwrap();
    for mode in [Root::ReadOnly, Root::Ephemeral(Layer::Memory)] {
        let seen = ["attributes", "attributes-by-hand"].map(|name| {
            let (task, client) = (Handmade::new(rig(), "images").unwrap(), client());
            start(&task, &client, named(name, mode), "sleep 600").unwrap();
            let alloc = task.key.alloc.to_string();
            let process = rig().containers_of(&alloc, 1).pop().unwrap();
            let seen = walk(Path::new(&format!("/proc/{}/root/odd", process.pid)));
            end(task, &client);
            seen
        });
        assert_eq!(seen[0], seen[1], "{mode:?}");
        let count: usize = seen[0].values().map(|seen| seen.6.len()).sum();
        assert_eq!(count, 4, "{:?}", seen[0]);
    }
    rig().run(&["rm", "-r", "/var/lib/machines/attributes-by-hand"]).unwrap();
}

#[test]
fn an_imported_debian_boots() {
    let _alone = alone();
    rig()
        .run(&["tar", "-C", "/var/lib/machines/debian", "-cf", "/root/debian-import.tar", "."])
        .unwrap();
    let id = import_tar("debian-import");
    let (task, client) = (Handmade::new(rig(), "images").unwrap(), client());
    let mut spec = task.spec(&[]).unwrap();
    named("debian-import", Root::Ephemeral(Layer::Disk))(&mut spec);
    spec.payload = Payload::Boot { arguments: Vec::new() };
    client.start(&spec).unwrap().unwrap();
    let alloc = task.key.alloc.to_string();
    let state = || {
        let Some(init) = rig().containers_of(&alloc, 1).pop() else { return Ok(false) };
        let unit = format!("/proc/{}/root/run/systemd/units", init.pid);
        let booted = format!("/proc/{}/root/run/nologin", init.pid);
        Ok(Path::new(&unit).exists() && !Path::new(&booted).exists())
    };
    wait::true_within("the container to be up", Duration::from_secs(60), state).unwrap();
    assert_eq!(loops(id), 1);
    end(task, &client);
    wait_no_loops(id);
    rig().run(&["rm", "/root/debian-import.tar"]).unwrap();
}

/// Layers are stacked in the record's order, up to as many as a record may have: the names of all
/// have to fit into one page of mount options.
#[test]
fn a_root_of_many_layers_shows_the_uppermost_of_each_file() {
    let _alone = alone();
    let base = import("stacked", BUSYBOX);
    // As an import makes them, without a unit for each.
    let make = r#"
        umask 077; cd /root; for n in $(seq 1 "$0"); do
            rm -rf layer; mkdir -p -m 755 layer layer/many; cd layer; echo $n | tee top > many/$n
            [ $n = 3 ] && rm many/3 && mknod many/.wh.2 p 2>/dev/null && rm many/.wh.2 && : > many/.wh.2
            tar -cf ../layer.tar . ; cd ..
            key=$(sha256sum layer.tar | cut -c -64); file="$1/$key.erofs"
            /usr/libexec/nomad-nspawn/nomad-nspawn-fetch convert --above --key $key --output "$file" < layer.tar 2>/dev/null
            chmod 0400 "$file"; echo $key $(stat -c %s "$file")
        done"#;
    let directory = format!("{IMAGES}/layers/+import");
    let rest = rig().run(&["sh", "-ec", make, "127", &directory]).unwrap();
    let rest: Vec<(Digest, u64)> = rest
        .lines()
        .map(|line| {
            let (key, size) = line.split_once(' ').unwrap();
            (Digest::parse(key).unwrap(), size.parse().unwrap())
        })
        .collect();
    let source = Component::new("+import").unwrap();
    let stored = |&(digest, size): &(Digest, u64)| StoredLayer {
        layer: ImageLayer { source: source.clone(), digest },
        size,
        content: digest,
    };
    for count in [3, 127] {
        let all: Vec<_> = [(base, 0)].iter().chain(&rest[..count]).map(stored).collect();
        let record = ImageRecord::new(all).unwrap().write().unwrap();
        let id = Digest([u8::try_from(count).unwrap(); 32]);
        rig().write_file(&format!("{IMAGES}/images/{id}"), record, 0o600).unwrap();
        let name = format!("{IMAGES}/imports/of-{count}");
        rig().write_file(&name, format!("{id}\n"), 0o600).unwrap();
        // The third takes the file of the second away and brings none.
        let script = "cat /top; ls /many | wc -l; ls /many/2 /many/3; ls /usr/bin/busybox";
        for mode in [Root::ReadOnly, Root::Ephemeral(Layer::Disk), Root::Volatile(Volatile::State)]
        {
            let said = run(named(&format!("of-{count}"), mode), script);
            assert!(
                said.starts_with(&format!("{count}\n{}\n/usr/bin/busybox", count - 2)),
                "{said}"
            );
        }
        let devices = [(base, 0)].iter().chain(&rest[..count]).map(|it| loops(it.0)).sum::<usize>();
        assert!(devices <= count + 1, "{devices}");
    }
    rig()
        .run(&["rm", &format!("{IMAGES}/imports/of-3"), &format!("{IMAGES}/imports/of-127")])
        .unwrap();
    wait_no_loops(base);
    // What no name means goes with the next removal.
    assert!(ctl(&["rm", "stacked"]).success());
    assert!(!rig().exists(&layer_path(rest[0].0)) && !rig().exists(&layer_path(base)));
}
