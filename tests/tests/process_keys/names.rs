//! /etc/resolv.conf, /etc/hosts and /etc/localtime in every mode, over every kind of root.

use crate::{Copy, host, refusal, run, says};
use proto::path::{Component, Relative};
use proto::task_spec::resolver::{EtcFile, ImageLink};
use proto::task_spec::{Layer, Root, TaskSpec, Volatile};

const ROOTS: [Root; 5] = [
    Root::Ephemeral(Layer::Disk),
    Root::ReadOnly,
    Root::Plain,
    Root::Volatile(Volatile::State),
    Root::Volatile(Volatile::Yes),
];

/// What an image may have at /etc/resolv.conf.
const NONE: &str = "rm -f etc/resolv.conf";
const FILE: &str = "echo 'nameserver 192.0.2.99' > etc/resolv.conf";
const LINK: &str = "ln -sf ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf";

/// A file with this content.
fn file(content: &str, link: ImageLink, read_only: bool) -> EtcFile {
    EtcFile::Put { content: content.into(), link, read_only }
}

const OWN: &str = "nameserver 192.0.2.1\n";

/// The content, then whether it can be written to.
fn resolv(image: &Copy, root: Root, resolver: EtcFile) -> (String, bool) {
    let script =
        "cat /etc/resolv.conf || echo none; echo x 2>/dev/null >>/etc/resolv.conf; echo $?";
    let ran = run(script, |spec| {
        image.give(spec, root);
        spec.names.resolver = resolver;
    });
    let (content, writable) = ran.stdout.trim_end().rsplit_once('\n').unwrap();
    (format!("{content}\n"), writable == "0")
}

#[test]
fn the_resolver_file_is_the_jobs_in_every_root() {
    use ImageLink::{Cover, Follow, Keep};
    for (number, prepare) in [NONE, FILE, LINK].into_iter().enumerate() {
        let image = Copy::new(&format!("resolv-{number}"), prepare);
        for root in ROOTS {
            let before = image.etc();
            let seen = |link, read_only| resolv(&image, root, file(OWN, link, read_only));
            let what = format!("{prepare:?} {root:?}");
            assert_eq!(seen(Cover, false), (OWN.to_owned(), true), "{what}");
            assert_eq!(seen(Cover, true), (OWN.to_owned(), false), "{what}");
            assert_eq!(seen(Follow, true), (OWN.to_owned(), false), "{what}");
            let copied = seen(Keep, false).0;
            // A link in the image stays; volatile = "yes" shows no /etc of the image.
            let stays = prepare == LINK && root != Root::Volatile(Volatile::Yes);
            assert_eq!(copied, if stays { "none\n" } else { OWN }, "{what}");
            if root != Root::Plain {
                assert_eq!(image.etc(), before, "{what}");
            }
        }
    }
}

#[test]
fn the_resolver_file_stays_or_goes() {
    let image = Copy::new("resolv-kept", FILE);
    for root in ROOTS {
        let none = root == Root::Volatile(Volatile::Yes);
        let kept = if none { "none\n" } else { "nameserver 192.0.2.99\n" };
        assert_eq!(resolv(&image, root, EtcFile::Keep).0, kept, "{root:?}");
        // A plain root keeps what was written.
        host().sh(&format!("cd /var/lib/machines/resolv-kept; {FILE}")).unwrap();
    }
    let before = image.etc();
    for root in ROOTS.into_iter().filter(|root| *root != Root::Plain) {
        assert_eq!(resolv(&image, root, EtcFile::Delete).0, "none\n", "{root:?}");
    }
    assert_eq!(image.etc(), before);
    let text = says("test -e /etc/resolv.conf || echo none", |spec| {
        image.give(spec, Root::Plain);
        spec.names.resolver = EtcFile::Delete;
    });
    assert_eq!(text, "none\n");
    assert!(!host().exists("/var/lib/machines/resolv-kept/etc/resolv.conf"));
}

fn entries(spec: &mut TaskSpec) {
    spec.names.hosts = ENTRIES.into();
}

const ENTRIES: &str = "192.0.2.7 db.example\n2001:db8::7 db\n";
const LOCAL: &str = "127.0.0.1 localhost\n::1 localhost\n";

#[test]
fn host_entries_follow_the_images() {
    let plant = |text: &str| format!("rm -f etc/hosts; {text}");
    for (number, (prepare, above)) in [
        ("printf '192.0.2.5 own' > etc/hosts", "192.0.2.5 own\n"),
        ("true", LOCAL),
        ("ln -s /etc/passwd etc/hosts", LOCAL),
        ("mkfifo etc/hosts", LOCAL),
    ]
    .into_iter()
    .enumerate()
    {
        let image = Copy::new(&format!("hosts-{number}"), &plant(prepare));
        for root in ROOTS {
            let above = if root == Root::Volatile(Volatile::Yes) { LOCAL } else { above };
            // A link in a root that stays is followed, inside.
            let text = says("cat /etc/hosts; stat -c %u /etc/hosts", |spec| {
                image.give(spec, root);
                entries(spec);
            });
            assert_eq!(text, format!("{above}{ENTRIES}0\n"), "{prepare} {root:?}");
        }
    }
    let long = Copy::new("hosts-long", "head -c 1100000 /dev/zero > etc/hosts");
    let text = refusal(|spec| {
        long.give(spec, Root::ReadOnly);
        entries(spec);
    });
    assert!(text.contains("/etc/hosts of the image") && text.contains("longer"), "{text}");
}

/// The zone's file as the container's own tools see it: its link, its rule, and UTC beside it.
fn zone(image: &Copy, root: Root, localtime: &EtcFile, named: Option<&str>) -> String {
    let script = "readlink /etc/localtime || echo no link; tail -n 1 /etc/localtime || echo none; \
                  tail -n 1 /usr/share/zoneinfo/UTC";
    let names = |zone: &str| zone.split('/').map(|it| Component::new(it).unwrap()).collect();
    let ran = run(script, |spec| {
        image.give(spec, root);
        spec.names.localtime = localtime.clone();
        spec.names.zone = named.map(|zone| Relative::new(names(zone)).unwrap());
    });
    ran.stdout.replace('\n', " ")
}

#[test]
fn the_time_zone_is_the_hosts_in_every_root() {
    const ZONES: &str = "usr/share/zoneinfo";
    let with_zones = format!(
        "mkdir -p {ZONES}/Asia && cp /usr/share/zoneinfo/UTC {ZONES}/ \
         && cp /usr/share/zoneinfo/Asia/Tokyo {ZONES}/Asia/ && ln -s ../{ZONES}/UTC etc/localtime"
    );
    let image = Copy::new("zones", &with_zones);
    let other = Copy::new("zones-few", &format!("{with_zones}; rm -r {ZONES}/Asia"));
    let before = image.etc();
    let tokyo = host().read_file("/usr/share/zoneinfo/Asia/Tokyo").unwrap();
    let put = |link, read_only| EtcFile::Put { content: tokyo.clone(), link, read_only };
    let (copied, bound) = (put(ImageLink::Replace, false), put(ImageLink::Follow, true));
    let name = Some("Asia/Tokyo");
    let shown = "no link JST-9 UTC0 ";
    let linked = "../usr/share/zoneinfo/Asia/Tokyo JST-9 UTC0 ";
    for root in [Root::Ephemeral(Layer::Disk), Root::ReadOnly, Root::Volatile(Volatile::State)] {
        let seen = |file, named| zone(&image, root, file, named);
        assert_eq!(seen(&EtcFile::Keep, None), "../usr/share/zoneinfo/UTC UTC0 UTC0 ", "{root:?}");
        assert_eq!(seen(&copied, None), shown, "{root:?}");
        assert_eq!(seen(&bound, name), linked, "{root:?}");
        assert_eq!(seen(&EtcFile::Delete, None), "no link none UTC0 ", "{root:?}");
        // As systemd-nspawn's: the bind goes to where the image's link leads.
        let through = "../usr/share/zoneinfo/UTC JST-9 JST-9 ";
        assert_eq!(seen(&bound, None), through, "{root:?}");
        assert_eq!(zone(&other, root, &bound, name), through, "{root:?}");
    }
    assert_eq!(image.etc(), before);
    for (file, named) in [(&copied, None), (&bound, None), (&bound, name)] {
        let seen = zone(&image, Root::Volatile(Volatile::Yes), file, named);
        assert_eq!(seen, shown, "{file:?}");
    }
    let plain = |file, named| zone(&image, Root::Plain, file, named);
    assert_eq!(plain(&EtcFile::Keep, None), "../usr/share/zoneinfo/UTC UTC0 UTC0 ");
    assert_eq!(plain(&bound, name), linked);
    assert_eq!(plain(&EtcFile::Keep, None), linked);
    assert_eq!(plain(&copied, None), shown);
    assert_eq!(plain(&EtcFile::Delete, None), "no link none UTC0 ");
}
