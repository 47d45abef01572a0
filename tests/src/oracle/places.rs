//! Where things may lie: image, allocation, network namespace, binds, overlays, devices.

use super::Broken;
use super::file::{ImagePath, Preset, Settings};
use proto::task_spec::files::{CredentialContent, Source, Upper};
use proto::task_spec::network::{Container, ContainerLink, Parent, Port};
use proto::task_spec::{Image, ImageKind, Network, Root, TaskSpec};

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// Whether `path` is `root` or lies below it.
#[must_use]
pub fn within(path: &str, root: &str) -> bool {
    parts(path).starts_with(&parts(root))
}

fn same(one: &str, other: &str) -> bool {
    parts(one) == parts(other)
}

/// The directory that holds `path`; `/` holds itself.
fn parent(path: &str) -> String {
    let mut all = parts(path);
    all.pop();
    format!("/{}", all.join("/"))
}

/// Where the image is.
pub(super) fn image(spec: &TaskSpec, policy: &Settings) -> String {
    match &spec.image {
        Image::Named(name) | Image::NamedOr(name, _) if spec.root.kind == ImageKind::Layers => {
            format!("/var/lib/nomad-nspawn/images/imports/{name}")
        }
        Image::Named(name) | Image::NamedOr(name, _) => {
            let disk = spec.root.kind == ImageKind::Disk && !name.as_str().ends_with(".raw");
            let end = if disk { ".raw" } else { "" };
            format!("{}/{name}{end}", policy.images_store.trim_end_matches('/'))
        }
        Image::Path(path) => path.to_string(),
    }
}

/// The longest entry that is `path` or holds it.
fn entry<'a>(path: &str, policy: &'a Settings) -> Option<&'a ImagePath> {
    let holding = policy.images_paths.iter().filter(|entry| within(path, &entry.path));
    holding.max_by_key(|entry| parts(&entry.path).len())
}

/// Where Nomad mounts parts of the allocations again: in the directory beside its data.
fn mounts(alloc_dir: &str) -> String {
    format!("{}/alloc_mounts", parent(&parent(alloc_dir)).trim_end_matches('/'))
}

/// What an image may not show: `listed` is the entry that holds it, or the store.
fn check_shown(path: &str, listed: &str, policy: &Settings, broken: &mut Broken) {
    let allocs =
        policy.alloc_dirs.iter().any(|dir| touches(path, dir) || touches(path, &mounts(dir)));
    broken.policy("image-alloc", allocs && !same(path, "/"));
    let shows = |directory: &str| touches(path, directory) && !within(listed, directory);
    broken.policy("image-deny", policy.binds_deny.iter().any(|directory| shows(directory)));
    let never = NEVER.iter().any(|directory| shows(directory));
    let nomads = policy.alloc_dirs.iter().any(|dir| shows(&parent(dir)));
    broken.policy("image-never", policy.preset == Preset::Strict && (never || nomads));
}

fn check_image(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    let writes = spec.root.mode == Root::Plain;
    if spec.root.kind == ImageKind::Layers {
        // An imported image has a name and is never changed; no list has it.
        let is_path = matches!(spec.image, Image::Path(_));
        broken.invalid("image-layers", is_path || writes);
        return;
    }
    let path = image(spec, policy);
    let entry = match &spec.image {
        Image::Named(_) | Image::NamedOr(..) => {
            check_shown(&path, &policy.images_store, policy, broken);
            entry(&policy.images_store, policy)
        }
        Image::Path(_) => {
            let found = entry(&path, policy);
            let whole_host = same(&path, "/") && !writes;
            let good = found.is_some_and(|e| !same(&e.path, &path) || whole_host);
            broken.policy("image-place", !good);
            if let Some(found) = found {
                check_shown(&path, &found.path, policy, broken);
            }
            found
        }
    };
    let writable = entry.is_some_and(|entry| entry.writable);
    broken.policy("image-writable", writes && !writable);
    // A disk image that a task could have made in its own image.
    let inside = |e: &ImagePath| {
        let deep = within(&path, &e.path) && parts(&path).len() > parts(&e.path).len() + 1;
        e.writable && !same(&e.path, "/") && deep
    };
    let disk = spec.root.kind == ImageKind::Disk && !within(&path, "/dev");
    broken.policy("image-inside", disk && writable && policy.images_paths.iter().any(inside));
    // An entry that is not writable is no part of what a task changes.
    let kept = policy.images_paths.iter().any(|e| !e.writable && within(&e.path, &path));
    broken.policy("image-holds", writes && kept);
}

/// The allocation's own directory, when it is where it must be.
fn check_alloc(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    let alloc = spec.key.alloc.to_string();
    let good = policy
        .alloc_dirs
        .iter()
        .any(|dir| same(&spec.alloc_dir.to_string(), &format!("{dir}/{alloc}")));
    broken.policy("alloc-dir", !good);
}

/// Ports that lead to the task.
pub(super) fn ports(spec: &TaskSpec) -> &[Port] {
    match &spec.network {
        Network::Private(wanted) => &wanted.ports,
        Network::Attached(wanted) => &wanted.ports,
        Network::Container(wanted) => &wanted.ports,
        Network::Loopback | Network::Host | Network::Join(_) => &[],
    }
}

fn check_network(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    let kinds = match &spec.network {
        Network::Loopback => vec!["private".to_owned()],
        Network::Private(wanted) if wanted.zone.is_some() => vec!["zone".to_owned()],
        Network::Private(_) => vec!["veth".to_owned()],
        Network::Host => vec!["host".to_owned()],
        Network::Join(_) => vec!["group".to_owned()],
        Network::Attached(wanted) => vec![match &wanted.parent {
            Parent::Bridge(name) => format!("bridge:{name}"),
            Parent::Macvlan(name) => format!("macvlan:{name}"),
        }],
        Network::Container(wanted) => {
            let link = match &wanted.link {
                ContainerLink::Veth => "veth".to_owned(),
                ContainerLink::Zone(_) => "zone".to_owned(),
                ContainerLink::Bridge(name) => format!("bridge:{name}"),
                ContainerLink::Macvlan(name) => format!("macvlan:{name}"),
            };
            vec!["container".to_owned(), link]
        }
    };
    // The only patterns that the files of this test have end in a star.
    let allowed = |kind: &String| {
        policy.network_allow.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(beginning) => kind.starts_with(beginning),
            None => allowed == kind,
        })
    };
    broken.policy("network-kind", !kinds.iter().all(allowed));
    let is_containers = matches!(spec.network, Network::Container(_));
    broken.policy("container-admin", is_containers && !policy.container_admin);
    let zone = match &spec.network {
        Network::Private(wanted) => wanted.zone.as_ref().map(|zone| zone.as_str()),
        Network::Container(Container { link: ContainerLink::Zone(zone), .. }) => {
            Some(zone.as_str())
        }
        _ => None,
    };
    let named = |pattern: &String| zone.is_none_or(|zone| matches(pattern, zone, true));
    broken.policy("zone-listed", zone.is_some() && !policy.network_zones.iter().any(named));
    let listed =
        |port: u16| policy.network_ports.iter().any(|(low, high)| *low <= port && port <= *high);
    broken.policy("port-listed", ports(spec).iter().any(|port| !listed(port.host.get())));
    if let Network::Join(path) = &spec.network {
        let path = path.to_string();
        let alloc = spec.key.alloc.to_string();
        let good = policy.netns_paths.iter().any(|root| {
            // In a directory of iproute2's, Nomad names its own after the allocation.
            let nomads = root.ends_with("/run/netns") || root == "run/netns";
            same(&parent(&path), root)
                && !same(&path, root)
                && (!nomads || parts(&path).last() == Some(&alloc.as_str()))
        });
        broken.policy("netns-place", !good);
    }
}

/// Where a bind begins.
pub(super) fn source(spec: &TaskSpec, source: &Source) -> String {
    match source {
        Source::Host(path) => path.to_string(),
        Source::Task(below) => {
            let below: Vec<_> = below.components().iter().map(|part| part.as_str()).collect();
            let path = format!("{}/{}/{}", spec.alloc_dir, spec.key.task, below.join("/"));
            path.trim_end_matches('/').to_owned()
        }
    }
}

/// Directories of the host that no task of the strict preset sees.
const NEVER: [&str; 7] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/lib/nomad-nspawn",
    "/etc/nomad-nspawn",
    "/usr/libexec/nomad-nspawn",
];

/// Whether one is the other, lies below it, or contains it.
fn touches(path: &str, directory: &str) -> bool {
    within(path, directory) || within(directory, path)
}

/// What a task may have of its allocation (POLICY.md, "What needs no line"): the shared directory,
/// `local` of any task, its own `secrets` and `tmp`. To write, not the shared one itself nor its
/// logs.
fn check_own(below: &[&str], task: &str, writes: bool, broken: &mut Broken) {
    let (first, second) = (below.first().copied(), below.get(1).copied());
    let shared = first == Some("alloc");
    let local = first.is_some() && second == Some("local");
    let own = first == Some(task) && (second == Some("secrets") || second == Some("tmp"));
    broken.policy("alloc-place", !shared && !local && !own);
    let logs = second.is_none() || second == Some("logs");
    broken.policy("alloc-logs", shared && logs && writes);
}

fn check_source(
    spec: &TaskSpec,
    policy: &Settings,
    from: &Source,
    writes: bool,
    broken: &mut Broken,
) {
    let path = source(spec, from);
    if within(&path, &spec.alloc_dir.to_string()) {
        let below = parts(path.trim_start_matches(&spec.alloc_dir.to_string()));
        check_own(&below, spec.key.task.as_str(), writes, broken);
        return;
    }
    let listed = |list: &[String]| list.iter().any(|directory| within(&path, directory));
    let (read, write) = (listed(&policy.binds_read_only), listed(&policy.binds_read_write));
    broken.policy("bind-unlisted", !read && !write);
    broken.policy("bind-read-only", writes && read && !write);
    broken.policy("bind-deny", policy.binds_deny.iter().any(|directory| touches(&path, directory)));
    if policy.preset == Preset::Compat {
        return;
    }
    let images = policy.images_paths.iter().map(|entry| entry.path.as_str());
    let mut never = NEVER.iter().copied().chain([policy.images_store.as_str()]).chain(images);
    broken.policy("bind-never", never.any(|directory| touches(&path, directory)));
    let nomads = policy.alloc_dirs.iter().any(|dir| {
        let data = parent(dir);
        // A volume of the container storage interface, staged for this allocation.
        let csi = within(&path, &format!("{data}/client/csi"));
        let own = csi && parts(&path).contains(&spec.key.alloc.to_string().as_str());
        !own && (touches(&path, dir) || touches(&path, &data))
    });
    broken.policy("bind-nomad", nomads);
    let again = policy.alloc_dirs.iter().any(|dir| touches(&path, &mounts(dir)));
    broken.policy("bind-mounts", again);
}

fn check_binds(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    for bind in &spec.files.binds {
        // Later mounts of the host may be writable, whatever the bind is.
        let writes = !bind.read_only || bind.propagated;
        check_source(spec, policy, &bind.source, writes, broken);
    }
    for overlay in &spec.files.overlays {
        for layer in &overlay.lower {
            check_source(spec, policy, layer, false, broken);
        }
        if let Upper::Directory(directory) = &overlay.upper {
            check_source(spec, policy, directory, true, broken);
        }
    }
}

fn check_credentials(spec: &TaskSpec, broken: &mut Broken) {
    for credential in &spec.files.credentials {
        if let CredentialContent::File(below) = &credential.content {
            let path = source(spec, &Source::Task(below.clone()));
            let own = format!("{}/{}", spec.alloc_dir, spec.key.task);
            let open = ["secrets", "local"].map(|directory| format!("{own}/{directory}"));
            let good = open.iter().any(|directory| within(&path, directory));
            broken.policy("credential-place", !good);
        }
    }
}

/// Whether a path can stand in a unit file as it is.
pub(super) fn is_plain(path: &str) -> bool {
    path.chars().all(|c| c.is_ascii_alphanumeric() || "/._:+@,=-".contains(c))
}

/// Whether a pattern covers a whole text. `**` stands for any text, `*` for any text without a
/// slash, or with `everywhere` for any text too.
pub(super) fn matches(pattern: &str, text: &str, everywhere: bool) -> bool {
    let (rest, crosses) = match (pattern.strip_prefix("**"), pattern.strip_prefix('*')) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, everywhere),
        (None, None) => {
            let Some(first) = pattern.chars().next() else { return text.is_empty() };
            let (Some(pattern), Some(text)) =
                (pattern.strip_prefix(first), text.strip_prefix(first))
            else {
                return false;
            };
            return matches(pattern, text, everywhere);
        }
    };
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    for end in ends {
        let (taken, left) = text.split_at(end);
        if !crosses && taken.contains('/') {
            return false;
        }
        if matches(rest, left, everywhere) {
            return true;
        }
    }
    false
}

fn check_devices(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    for device in &spec.files.devices {
        let path = device.host.to_string();
        let outside = !path.starts_with("/dev/");
        broken.policy("device-place", outside);
        let entries: Vec<_> =
            policy.devices_allow.iter().filter_map(|entry| entry.rsplit_once(':')).collect();
        let listed = |path: &str| {
            entries.iter().filter(|(pattern, _)| matches(pattern, path, false)).collect::<Vec<_>>()
        };
        let found = listed(&path);
        let asked =
            [(device.access.read, 'r'), (device.access.write, 'w'), (device.access.mknod, 'm')];
        let covers = |letters: &str| asked.iter().all(|(on, c)| !on || letters.contains(*c));
        broken.policy("device-listed", !outside && found.is_empty());
        let access = found.iter().any(|(_, letters)| covers(letters));
        broken.policy("device-access", !found.is_empty() && !access);
    }
}

/// All rules about places.
pub(super) fn check(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    check_image(spec, policy, broken);
    check_alloc(spec, policy, broken);
    check_network(spec, policy, broken);
    check_binds(spec, policy, broken);
    check_credentials(spec, broken);
    check_devices(spec, policy, broken);
}
