//! What the policy does with every path of a specification: a path fails the tests until it has a
//! row in [`ROWS`].

use super::visit::{Field, visit};
use super::{ALLOC, absolute, bind, device, spec, target};
use crate::*;
use proto::codec;
use proto::error::Code;
use proto::path::{Absolute, Relative};
use proto::task_spec::files::{
    Bind, Credential, CredentialContent, CredentialName, Device, Overlay, Source, Tmpfs, Upper,
};
use proto::task_spec::resources::{IoLimit, Property};
use proto::task_spec::{Files, Image, Network, Pivot, TaskSpec};

/// The policy's rule for a path.
#[derive(Clone, Copy, Debug)]
enum Row {
    /// [`Target`]'s rule, and no other mount at the place.
    Mount,
    /// No rule: nothing of the host is reached by it, and nothing mounted at it.
    Inside,
    /// A place of the host; these are refused under the strict preset.
    Host(&'static [&'static str]),
    /// A bind, a layer or a directory for changes, written to or not.
    Source { writes: bool },
    /// A file of the task's own; these are refused.
    Task(&'static [&'static str]),
    /// No rule: it is looked up with the image's root as root, and becomes the text of a link.
    Zone,
}

const ROWS: [(&str, Row); 18] = [
    (
        "alloc_dir",
        Row::Host(&["/", "/tmp/OWN", "/var/lib/nomad/alloc", "/var/lib/nomad/alloc/x/OWN"]),
    ),
    ("image", Row::Host(&["/", "/etc", "/var/lib/machines", "/var/lib/nomad/alloc/OWN/web/local"])),
    ("root.pivot.new", Row::Inside),
    ("root.pivot.old", Row::Mount),
    ("process.directory", Row::Inside),
    ("names.zone", Row::Zone),
    ("network", Row::Host(&["/proc/1/ns/net", "/run/netns", "/run/netns/x", "/run/netns/OWN/x"])),
    ("files.binds.source", Row::Source { writes: true }),
    ("files.binds.target", Row::Mount),
    ("files.tmpfs.target", Row::Mount),
    ("files.overlays.lower", Row::Source { writes: false }),
    ("files.overlays.upper", Row::Source { writes: true }),
    ("files.overlays.target", Row::Mount),
    ("files.inaccessible", Row::Mount),
    ("files.devices.host", Row::Host(&["/", "/dev", "/dev/sda", "/etc/shadow", "/dev/fuse/x"])),
    ("files.devices.target", Row::Mount),
    ("resources.properties.device", Row::Host(&["/", "/dev", "/etc/shadow", "/var/lib/nomad"])),
    ("files.credentials.file", Row::Task(&["", "private/x", "alloc/data", "tmp/x", "etc/shadow"])),
];

/// What allows everything of [`full`].
const FILE: &str = "[binds]\nread_only = [\"/opt\"]\nread_write = [\"/srv\"]\n\
                    [devices]\nallow = [\"/dev/fuse:rw\"]";

/// Refused places of the host for whatever is mounted from there.
const SOURCES: [&str; 17] = [
    "/",
    "/etc/shadow",
    "/proc/1/root",
    "/sys",
    "/dev",
    "/run",
    "/var/lib/machines/a",
    "/var/lib/nomad/client",
    "/var/lib/nomad-nspawn",
    "/var/lib/nomad/alloc/17070707-0707-0707-0707-070707070707/alloc",
    "/var/lib/nomad/alloc/OWN",
    "/var/lib/nomad/alloc/OWN/web",
    "/var/lib/nomad/alloc/OWN/web/private",
    "/var/lib/nomad/alloc/OWN/web/etc",
    "/var/lib/nomad/alloc/OWN/other/etc/crontab",
    "/var/lib/nomad/alloc/OWN/other/alloc",
    "/var/lib/nomad/alloc/OWN/other/secrets",
];
/// What is refused beside them where it would be written to.
const WRITTEN: [&str; 4] = [
    "/opt/x",
    "/var/lib/nomad/alloc/OWN/alloc",
    "/var/lib/nomad/alloc/OWN/alloc/logs",
    "/var/lib/nomad/alloc/OWN/alloc/logs/x",
];
/// Refused places below the task's own directory.
const OF_TASK: [&str; 5] = ["", "private/x", "etc/crontab", "alloc/data", "locals"];

/// Places that no mount point may have.
const TARGETS: [&str; 12] = [
    "/",
    "/dev",
    "/run",
    "/alloc",
    "/local",
    "/secrets",
    "/proc",
    "/proc/kcore",
    "/sys",
    "/sys/x",
    "/run/host",
    "/run/host/x",
];

fn path(text: &str) -> Absolute {
    absolute(&text.replace("OWN", ALLOC))
}

fn relative(text: &str) -> Relative {
    absolute(&format!("/{text}")).below(&absolute("/")).unwrap()
}

/// An allowed specification with each path at least once.
fn full() -> TaskSpec {
    let mut spec = spec();
    spec.image = Image::Path(path("/var/lib/machines/a"));
    spec.root.pivot = Some(Pivot { new: path("/run/host"), old: Some(target("/old")) });
    spec.process.directory = Some(path("/run/host"));
    spec.resources.properties =
        vec![Property::Io { limit: IoLimit::ReadBandwidth, device: path("/dev/vda"), most: 1 }];
    spec.names.zone = Some(relative("UTC"));
    spec.network = Network::Join(path("/run/netns/OWN"));
    let host = |text: &str| Source::Host(path(text));
    let upper = Upper::Directory(host("/srv/changes"));
    let content = CredentialContent::File(relative("secrets/token"));
    let name = CredentialName::new("token").unwrap();
    spec.files = Files {
        binds: vec![Bind { target: target("/bind"), ..bind("/srv/a", false) }],
        tmpfs: vec![Tmpfs {
            target: target("/tmpfs"),
            size: None,
            inodes: None,
            mode: None,
            read_only: false,
            executable: false,
        }],
        overlays: vec![Overlay { lower: vec![host("/opt/l")], upper, target: target("/overlay") }],
        inaccessible: vec![target("/hidden")],
        devices: vec![Device { target: target("/device"), ..device("/dev/fuse", "rw") }],
        credentials: vec![Credential { name, content, encrypted: false }],
    };
    spec
}

/// The verdict after a change of the path of this name.
fn judged(name: &str, mut change: impl FnMut(Field<'_>)) -> Result<Decision, Denial> {
    let mut spec = full();
    visit(&mut spec, &mut |seen, field| {
        if seen == name {
            change(field);
        }
    });
    decide(spec, &parse(FILE).unwrap())
}

fn check_refused(name: &str, what: &str, change: impl FnMut(Field<'_>)) {
    let code = judged(name, change).map(|_| ()).map_err(|denial| denial.refusal.code);
    assert!(matches!(code, Err(Code::Policy | Code::Invalid)), "{name} at {what}: {code:?}");
}

/// A refused place cannot stand in a specification: it is written into the bytes of one.
fn check_mount(name: &str) {
    let whole = codec::encode_whole(&full()).unwrap();
    let mut own = None;
    visit(&mut full(), &mut |seen, field| {
        if let (true, Field::Mount(target)) = (seen == name, field) {
            own = Some(target.clone());
        }
    });
    let from = codec::encode(&own.unwrap()).unwrap();
    let at = whole.windows(from.len()).position(|some| some == from).unwrap();
    for refused in TARGETS {
        let to = codec::encode(&path(refused)).unwrap();
        let bytes = [&whole[..at], &to, &whole[at + from.len()..]].concat();
        let error = codec::decode_whole::<TaskSpec>(&bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("{refused}: ")), "{name}: {error}");
    }
    let other = if name == "files.tmpfs.target" { "/bind" } else { "/tmpfs" };
    check_refused(name, other, |field| {
        if let Field::Mount(place) = field {
            *place = target(other);
        }
    });
}

fn check_row(name: &str, row: Row) {
    let at = |places: &[&str]| {
        for place in places {
            check_refused(name, place, |field| match field {
                Field::Host(it) => *it = path(place),
                Field::Source(it) => *it = Source::Host(path(place)),
                Field::Task(it) => *it = relative(place),
                Field::Mount(_) | Field::Inside(_) | Field::Zone(_) => {
                    panic!("{name} is another kind of path")
                }
            });
        }
    };
    match row {
        Row::Mount => check_mount(name),
        Row::Inside => {
            for place in TARGETS {
                let change = |field: Field<'_>| match field {
                    Field::Inside(it) => *it = path(place),
                    _ => panic!("{name} is another kind of path"),
                };
                assert!(judged(name, change).is_ok(), "{name} at {place}");
            }
        }
        Row::Zone => {
            let change = |field: Field<'_>| match field {
                Field::Zone(it) => *it = relative("Europe/Berlin"),
                _ => panic!("{name} is another kind of path"),
            };
            assert!(judged(name, change).is_ok(), "{name}");
        }
        Row::Host(refused) | Row::Task(refused) => at(refused),
        Row::Source { writes } => {
            at(&SOURCES);
            if writes {
                at(&WRITTEN);
            }
            for place in OF_TASK {
                check_refused(name, place, |field| {
                    if let Field::Source(it) = field {
                        *it = Source::Task(relative(place));
                    }
                });
            }
        }
    }
}

#[test]
fn s1_every_path_of_a_specification_has_a_rule() {
    assert!(judge(&full(), &parse(FILE).unwrap()).is_ok());
    let mut seen = Vec::new();
    visit(&mut full(), &mut |name, field| {
        let row = ROWS.iter().find(|(known, _)| *known == name).map(|(_, row)| *row);
        let fits = matches!(
            (&field, row),
            (Field::Mount(_), Some(Row::Mount))
                | (Field::Inside(_), Some(Row::Inside))
                | (Field::Host(_), Some(Row::Host(_)))
                | (Field::Task(_), Some(Row::Task(_)))
                | (Field::Source(_), Some(Row::Source { .. }))
                | (Field::Zone(_), Some(Row::Zone))
        );
        assert!(fits, "{name} has no row that fits: {row:?}");
        seen.push(name);
    });
    for (name, row) in &ROWS {
        assert!(seen.contains(name), "no path is called {name}");
        check_row(name, *row);
    }
}
