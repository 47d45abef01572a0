//! Every path of a specification, by its name.
//!
//! [`visit`] takes each type of a specification apart without `..`: a new field does not compile
//! until it is named there.

use proto::path::{Absolute, Relative};
use proto::target::Target;
use proto::task_spec::files::{
    Bind, Credential, CredentialContent, Device, DeviceAccess, Overlay, Source, Tmpfs, Upper,
};
use proto::task_spec::network::{Attached, Container, Parent};
use proto::task_spec::process::{ProcessLimit, Ready, SyscallRule, Sysctl};
use proto::task_spec::resolver::EtcFile;
use proto::task_spec::resources::{OomScope, Property, Swap};
use proto::task_spec::{
    Files, Image, ImageKind, Isolation, Label, Layer, Logs, Names, Network, Payload, Pivot,
    Process, Resources, Root, RootFs, TaskSpec, Users, Variable, Volatile,
};

/// A path, as what it is.
pub(super) enum Field<'a> {
    /// A place inside that becomes a mount point.
    Mount(&'a mut Target),
    /// A place inside that only the container's own walk reaches.
    Inside(&'a mut Absolute),
    /// A place of the host.
    Host(&'a mut Absolute),
    /// A place of the host, or below the task's own directory.
    Source(&'a mut Source),
    /// A place below the task's own directory.
    Task(&'a mut Relative),
    /// A file below a fixed directory of the image, for the container's own walk.
    Zone(&'a mut Relative),
}

type See<'a> = &'a mut dyn FnMut(&'static str, Field<'_>);

/// Shows every path of a specification with its name.
pub(super) fn visit(spec: &mut TaskSpec, see: See<'_>) {
    let TaskSpec {
        key: proto::name::TaskKey { alloc: _, task: _, instance: _ },
        alloc_dir,
        image,
        root,
        payload,
        process,
        isolation,
        users,
        network,
        names,
        files,
        environment,
        logs,
        labels,
        stop_signal: _,
        kill_timeout_ms: _,
        resources,
    } = spec;
    visit_resources(resources, see);
    see("alloc_dir", Field::Host(alloc_dir));
    match image {
        // Settled before the decision: as a name or as a path.
        Image::Named(_) | Image::NamedOr(_, _) => {}
        Image::Path(path) => see("image", Field::Host(path)),
    }
    visit_root(root, see);
    let Process { user: _, directory, hostname: _, console: _, ready } = process;
    if let Some(directory) = directory {
        see("process.directory", Field::Inside(directory));
    }
    match network {
        Network::Loopback | Network::Private(_) | Network::Host => {}
        // Names of interfaces are no paths.
        Network::Attached(Attached { parent, v4: _, v6: _, mac: _, ports: _ }) => match parent {
            Parent::Bridge(_) | Parent::Macvlan(_) => {}
        },
        Network::Container(Container { link: _, ports: _, wait_s: _ }) => {}
        Network::Join(path) => see("network", Field::Host(path)),
    }
    visit_files(files, see);
    // None of the rest has a path.
    match payload {
        Payload::Boot { arguments: _ }
        | Payload::Command { words: _ }
        | Payload::ProcessTwo { words: _ } => {}
    }
    match ready {
        Ready::Started | Ready::Notify { timeout_s: _ } | Ready::Network { timeout_s: _ } => {}
    }
    match users {
        Users::Pick | Users::Fixed { base: _, width: _ } | Users::Identity | Users::Host => {}
    }
    match logs {
        Logs::Fifos | Logs::Discard | Logs::Journal | Logs::Both => {}
        Logs::Container { priority: _ } => {}
    }
    visit_texts(isolation);
    visit_names(names, see);
    environment.iter().for_each(|Variable { name: _, value: _ }| {});
    labels.iter().for_each(|Label { name: _, value: _ }| {});
}

fn visit_resources(resources: &mut Resources, see: See<'_>) {
    let Resources {
        memory_max: _,
        memory_low: _,
        swap: Swap::None | Swap::Bytes(_) | Swap::Unlimited,
        cpu_weight: _,
        cpu_boost: _,
        cpu_quota_us: _,
        cores: _,
        tasks_max: _,
        io_weight: _,
        oom_score: _,
        oom: OomScope::Process | OomScope::Task,
        slice: _,
        properties,
        egress: _,
    } = resources;
    for property in properties {
        match property {
            Property::MemoryHigh(_) => {}
            Property::Io { limit: _, device, most: _ } => {
                see("resources.properties.device", Field::Host(device));
            }
        }
    }
}

fn visit_texts(isolation: &Isolation) {
    let Isolation { add: _, drop: _, no_new_privileges: _, syscalls, sysctls, limits, selinux: _ } =
        isolation;
    syscalls.iter().for_each(|SyscallRule { allow: _, name: _ }| {});
    sysctls.iter().for_each(|Sysctl { name: _, value: _ }| {});
    limits.iter().for_each(|ProcessLimit { resource: _, soft: _, hard: _ }| {});
}

fn visit_names(names: &mut Names, see: See<'_>) {
    let Names { resolver, hosts: _, localtime, zone } = names;
    for file in [resolver, localtime] {
        match file {
            EtcFile::Keep | EtcFile::Delete => {}
            EtcFile::Put { content: _, link: _, read_only: _ } => {}
        }
    }
    if let Some(zone) = zone {
        see("names.zone", Field::Zone(zone));
    }
}

fn visit_root(root: &mut RootFs, see: See<'_>) {
    let RootFs { kind, mode, ownership: _, pivot } = root;
    let (ImageKind::Tree | ImageKind::Disk | ImageKind::Layers) = kind;
    match mode {
        Root::Plain | Root::ReadOnly => {}
        Root::Ephemeral(Layer::Disk | Layer::Memory | Layer::Kept) => {}
        Root::Volatile(Volatile::Yes | Volatile::State | Volatile::Overlay) => {}
    }
    if let Some(Pivot { new, old }) = pivot {
        see("root.pivot.new", Field::Inside(new));
        if let Some(old) = old {
            see("root.pivot.old", Field::Mount(old));
        }
    }
}

fn visit_files(files: &mut Files, see: See<'_>) {
    let Files { binds, tmpfs, overlays, inaccessible, devices, credentials } = files;
    for bind in binds {
        let Bind { source, target, read_only: _, recursive: _, mapping: _, propagated: _ } = bind;
        see("files.binds.source", Field::Source(source));
        see("files.binds.target", Field::Mount(target));
    }
    for tmpfs in tmpfs {
        let Tmpfs { target, size: _, inodes: _, mode: _, read_only: _, executable: _ } = tmpfs;
        see("files.tmpfs.target", Field::Mount(target));
    }
    for Overlay { lower, upper, target } in overlays {
        for layer in lower {
            see("files.overlays.lower", Field::Source(layer));
        }
        match upper {
            Upper::ReadOnly | Upper::Ephemeral => {}
            Upper::Directory(directory) => see("files.overlays.upper", Field::Source(directory)),
        }
        see("files.overlays.target", Field::Mount(target));
    }
    for hidden in inaccessible {
        see("files.inaccessible", Field::Mount(hidden));
    }
    for Device { host, target, access } in devices {
        let DeviceAccess { read: _, write: _, mknod: _ } = access;
        see("files.devices.host", Field::Host(host));
        see("files.devices.target", Field::Mount(target));
    }
    for Credential { name: _, content, encrypted: _ } in credentials {
        match content {
            CredentialContent::File(path) => see("files.credentials.file", Field::Task(path)),
            CredentialContent::Value(_) => {}
        }
    }
}
