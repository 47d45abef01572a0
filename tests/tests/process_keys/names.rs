//! /etc/resolv.conf, /etc/hosts and /etc/localtime in every mode, over every kind of root.

use crate::{Copy, host, refusal, run, says};
use proto::spec::process::HostName;
use proto::spec::resolver::{
    HostEntry, Resolver, ResolverFile, ResolverOption, ResolverUse, SearchDomain, Timezone,
};
use proto::spec::{Layer, Root, TaskSpec, Volatile};

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

fn own() -> Resolver {
    Resolver::Own {
        servers: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        searches: vec![SearchDomain::new("a.example").unwrap(), SearchDomain::new("b").unwrap()],
        options: vec![ResolverOption::new("ndots:2").unwrap()],
    }
}

const OWN: &str =
    "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.example b\noptions ndots:2\n";

fn hosts_file(how: ResolverUse) -> Resolver {
    Resolver::Host { how, which: ResolverFile::Host }
}

/// The content, then whether it can be written to.
fn resolv(image: &Copy, root: Root, resolver: Resolver) -> (String, bool) {
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
    let hosts = host().sh("cat /etc/resolv.conf; echo").unwrap();
    for (number, prepare) in [NONE, FILE, LINK].into_iter().enumerate() {
        let image = Copy::new(&format!("resolv-{number}"), prepare);
        for root in &ROOTS[..if prepare == FILE { 5 } else { 3 }] {
            let root = *root;
            let before = image.etc();
            let seen = |resolver| resolv(&image, root, resolver);
            let what = format!("{prepare:?} {root:?}");
            assert_eq!(seen(own()), (OWN.to_owned(), true), "{what}");
            assert_eq!(seen(hosts_file(ResolverUse::Replace)), (hosts.clone(), true), "{what}");
            assert_eq!(seen(hosts_file(ResolverUse::Bind)), (hosts.clone(), false), "{what}");
            let copied = seen(hosts_file(ResolverUse::Copy)).0;
            // A link in the image stays; volatile = "yes" shows no /etc of the image.
            let stays = prepare == LINK && root != Root::Volatile(Volatile::Yes);
            assert_eq!(copied, if stays { "none\n" } else { &hosts }, "{what}");
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
        assert_eq!(resolv(&image, root, Resolver::Off).0, kept, "{root:?}");
        // A plain root keeps what was written.
        host().sh(&format!("cd /var/lib/machines/resolv-kept; {FILE}")).unwrap();
    }
    let before = image.etc();
    for root in ROOTS.into_iter().filter(|root| *root != Root::Plain) {
        assert_eq!(resolv(&image, root, Resolver::Delete).0, "none\n", "{root:?}");
    }
    assert_eq!(image.etc(), before);
    let text = says("test -e /etc/resolv.conf || echo none", |spec| {
        image.give(spec, Root::Plain);
        spec.names.resolver = Resolver::Delete;
    });
    assert_eq!(text, "none\n");
    assert!(!host().exists("/var/lib/machines/resolv-kept/etc/resolv.conf"));
}

#[test]
fn a_resolver_file_that_the_host_lacks_is_named() {
    let use_file = |which| {
        move |spec: &mut TaskSpec| {
            spec.names.resolver = Resolver::Host { how: ResolverUse::Replace, which };
        }
    };
    let hosts = host().sh("cat /etc/resolv.conf").unwrap();
    assert_eq!(says("cat /etc/resolv.conf", use_file(ResolverFile::Uplink)).trim_end(), hosts);
    for (which, path) in [
        (ResolverFile::Static, "/usr/lib/systemd/resolv.conf"),
        (ResolverFile::Stub, "/run/systemd/resolve/stub-resolv.conf"),
    ] {
        // Debian 12 has the static one without systemd-resolved.
        if host().exists(path) {
            let text = host().sh(&format!("cat {path}")).unwrap();
            assert_eq!(says("cat /etc/resolv.conf", use_file(which)).trim_end(), text.trim_end());
        } else {
            let text = refusal(use_file(which));
            assert!(text.contains(path) && text.contains("is no file on this host"), "{text}");
        }
    }
    host().run(&["mkdir", "-p", "/run/systemd/resolve"]).unwrap();
    for (which, name) in
        [(ResolverFile::Uplink, "resolv.conf"), (ResolverFile::Stub, "stub-resolv.conf")]
    {
        let line = format!("# {name}\n");
        host().write_file(&format!("/run/systemd/resolve/{name}"), &line, 0o644).unwrap();
        assert_eq!(says("cat /etc/resolv.conf", use_file(which)), line);
    }
    host().run(&["rm", "-r", "/run/systemd/resolve"]).unwrap();
}

fn entries(spec: &mut TaskSpec) {
    let entry = |(address, name): (&str, &str)| HostEntry {
        address: address.parse().unwrap(),
        name: HostName::new(name).unwrap(),
    };
    let all = [("192.0.2.7", "db.example"), ("2001:db8::7", "db")];
    spec.names.hosts = all.map(entry).to_vec();
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
fn zone(image: &Copy, root: Root, timezone: Timezone) -> String {
    let script = "readlink /etc/localtime || echo no link; tail -n 1 /etc/localtime || echo none; \
                  tail -n 1 /usr/share/zoneinfo/UTC";
    let ran = run(script, |spec| {
        image.give(spec, root);
        spec.names.timezone = timezone;
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
    let was = host().sh("readlink /etc/localtime").unwrap();
    host().sh("ln -sf /usr/share/zoneinfo/Asia/Tokyo /etc/localtime").unwrap();
    let shown = "no link JST-9 UTC0 ";
    for root in [Root::Ephemeral(Layer::Disk), Root::ReadOnly, Root::Volatile(Volatile::State)] {
        let seen = |timezone| zone(&image, root, timezone);
        assert_eq!(seen(Timezone::Off), "../usr/share/zoneinfo/UTC UTC0 UTC0 ", "{root:?}");
        assert_eq!(seen(Timezone::Copy), shown, "{root:?}");
        assert_eq!(
            seen(Timezone::Symlink),
            "../usr/share/zoneinfo/Asia/Tokyo JST-9 UTC0 ",
            "{root:?}"
        );
        assert_eq!(seen(Timezone::Delete), "no link none UTC0 ", "{root:?}");
        // As systemd-nspawn's: the bind goes to where the image's link leads.
        assert_eq!(seen(Timezone::Bind), "../usr/share/zoneinfo/UTC JST-9 JST-9 ", "{root:?}");
        assert_eq!(zone(&other, root, Timezone::Symlink), seen(Timezone::Bind), "{root:?}");
    }
    assert_eq!(image.etc(), before);
    for timezone in [Timezone::Copy, Timezone::Bind, Timezone::Symlink] {
        let seen = zone(&image, Root::Volatile(Volatile::Yes), timezone);
        assert_eq!(seen, shown, "{timezone:?}");
    }
    let plain = |timezone| zone(&image, Root::Plain, timezone);
    assert_eq!(plain(Timezone::Off), "../usr/share/zoneinfo/UTC UTC0 UTC0 ");
    assert_eq!(plain(Timezone::Symlink), "../usr/share/zoneinfo/Asia/Tokyo JST-9 UTC0 ");
    assert_eq!(plain(Timezone::Off), "../usr/share/zoneinfo/Asia/Tokyo JST-9 UTC0 ");
    assert_eq!(plain(Timezone::Copy), shown);
    assert_eq!(plain(Timezone::Delete), "no link none UTC0 ");
    host().run(&["ln", "-sf", &was, "/etc/localtime"]).unwrap();
}
