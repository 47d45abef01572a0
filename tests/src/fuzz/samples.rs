//! Good messages of every kind: a reader that met none of a kind was never tried with it.

use crate::race;
use anyhow::{Context as _, Result};
use proto::cpu_set::CpuSet;
use proto::error::{Code, Refusal};
use proto::exec::{ExecPlan, ExecSpec, SessionId, SessionReport, TerminalSize, Work, WorkerReport};
use proto::layer::{Digest, ImageLayer, ImageRecord, StoredLayer};
use proto::link::{Ends, Link, Mac, Published, Zone};
use proto::name::{
    AllocId, Instance, LinkZoneName, MachineName, ParentName, TaskKey, TaskName, VariableName,
    ZoneName,
};
use proto::parts::Part;
use proto::path::{Absolute, Component, Relative};
use proto::plan::{
    FilterSource, NetworkOwner, Order, Place, Plan, PlannedFiles, PlannedNetwork, Report,
};
use proto::secret::Secret;
use proto::target::Target;
use proto::task_spec::files::{
    Bind, Credential, CredentialContent, CredentialName, Device, DeviceAccess, Mapping, Overlay,
    Tmpfs, Upper,
};
use proto::task_spec::network::{Address, Attached, Container, ContainerLink, Parent, Port};
use proto::task_spec::process::User;
use proto::task_spec::resources::{AddressRange, IoLimit, OomScope, Property, SliceName, Swap};
use proto::task_spec::{Resources, Variable};
use proto::wire::{
    Answer, Exec, Exit, Hello, Page, Phase, Reply, Request, Signal, Start, State, Task, Verb,
    Welcome,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::path::Path;

fn key() -> Result<TaskKey> {
    Ok(TaskKey { alloc: AllocId([7; 16]), task: TaskName::new("web")?, instance: Instance(9) })
}

pub(super) fn requests() -> Result<Vec<Request>> {
    let key = key()?;
    let part = Part { offset: 8, bytes: vec![1, 2, 3] };
    let verbs = [
        Verb::Hello(Hello { oldest: 1, newest: 1 }),
        Verb::Part(part),
        Verb::Start(Start { length: 9 }),
        Verb::Signal(Signal { key: key.clone(), signal: 15 }),
        Verb::Kill(key.clone()),
        Verb::Status(key.clone()),
        Verb::List(Some(key.clone())),
        Verb::List(None),
        Verb::Remove(key.clone()),
        Verb::Exec(Exec { length: 9 }),
    ];
    Ok(verbs.into_iter().map(|verb| Request { epoch: 3, id: 4, verb }).collect())
}

fn task(state: State) -> Result<Task> {
    Ok(Task {
        key: key()?,
        unit: "nomad-nspawn-x.service".to_owned(),
        machine: MachineName::new("web-1")?,
        addresses: vec![[10, 87, 16, 2].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()],
        uid_base: Some(524_288),
        leader: Some(7),
        started_ms: 1,
        state,
        notes: vec!["a note".to_owned()],
        filters: Some(FilterSource::Untested { version: 262 }),
    })
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        features: 0,
        epoch: 3,
        helper: "1.0.0".to_owned(),
        systemd: 257,
        systemd_text: "257.13-1~deb13u1".to_owned(),
        systemd_accepted: false,
        host_network: true,
        host_users: false,
        exec: true,
    }
}

fn refusal() -> Refusal {
    Refusal::new(Code::Policy, "decide", "image /x", "lies below no directory")
}

pub(super) fn replies() -> Result<Vec<Reply>> {
    let exit = Exit {
        code: 139,
        signal: 11,
        oom: true,
        memory_peak: 64 << 20,
        memory_limit: 1 << 26,
        ended_ms: 2,
        error: "lost".to_owned(),
    };
    let results = [
        Ok(Answer::Welcome(welcome())),
        Ok(Answer::Taken),
        Ok(Answer::Started(task(State::Starting(Phase::Address))?)),
        Ok(Answer::Signaled),
        Ok(Answer::Killed),
        Ok(Answer::Status(task(State::Running)?)),
        Ok(Answer::Status(task(State::Ended(exit))?)),
        Ok(Answer::Page(Page { keys: vec![key()?, key()?], more: true })),
        Ok(Answer::Removed),
        Ok(Answer::Session),
        Err(refusal()),
    ];
    Ok((1..).zip(results).map(|(id, result)| Reply { id, result }).collect())
}

pub(super) fn commands() -> Result<[ExecSpec; 2]> {
    let full = ExecSpec {
        key: key()?,
        words: vec![Secret::new("ls"), Secret::new("-l")],
        environment: vec![Variable { name: VariableName::new("A")?, value: Secret::new("b") }],
        directory: Some(Absolute::parse("/local")?),
        user: Some(User::parse("app:44")?),
        terminal: Some(TerminalSize { rows: 24, columns: 80 }),
    };
    let least = ExecSpec {
        environment: Vec::new(),
        directory: None,
        user: None,
        terminal: None,
        ..full.clone()
    };
    Ok([full, least])
}

pub(super) fn works() -> Result<Vec<Work>> {
    let (cgroup, session) = (Absolute::parse("/machine.slice/x.service")?, SessionId(7));
    let unit = proto::unit_id::UnitId::from(&key()?);
    let plan = |spec| ExecPlan { session, unit, cgroup: cgroup.clone(), width: 65_536, spec };
    let mut all: Vec<Work> = commands()?.map(|spec| Work::Execute(plan(spec))).into();
    all.push(Work::Clear { cgroup, session });
    Ok(all)
}

pub(super) fn session_reports() -> [SessionReport; 4] {
    let failed = SessionReport::Failed(refusal());
    [SessionReport::Streams, SessionReport::Started, SessionReport::Exited { code: 130 }, failed]
}

pub(super) fn worker_reports() -> [WorkerReport; 2] {
    [WorkerReport::Ready { pid: 7 }, WorkerReport::Missing(vec!["1ff".to_owned()])]
}

pub(super) fn orders() -> [Order; 3] {
    let part = Part { offset: 0, bytes: vec![1, 2] };
    [Order::Part(part), Order::Prepare { length: 9 }, Order::Go]
}

pub(super) fn reports() -> [Report; 4] {
    [
        Report::Begun { pid: 7 },
        Report::Prepared {
            notes: vec!["a note".to_owned()],
            held_back: true,
            filters: FilterSource::Untested { version: 262 },
            lacks_filters: true,
        },
        Report::Connected,
        Report::Failed(refusal()),
    ]
}

fn files() -> Result<PlannedFiles> {
    let below = Relative::new(vec![Component::new("data")?, Component::new("x")?])?;
    let place = Place { root: Absolute::parse("/srv")?, below: below.clone() };
    let target = Target::parse("/mnt/x")?;
    Ok(PlannedFiles {
        binds: vec![Bind {
            source: place.clone(),
            target: target.clone(),
            read_only: true,
            recursive: false,
            mapping: Mapping::Owner,
            propagated: true,
        }],
        tmpfs: vec![Tmpfs {
            target: target.clone(),
            size: Some(4096),
            inodes: None,
            mode: Some(0o1777),
            read_only: false,
            executable: true,
        }],
        overlays: vec![Overlay {
            lower: vec![place.clone()],
            upper: Upper::Directory(place.clone()),
            target: target.clone(),
        }],
        inaccessible: vec![target.clone()],
        devices: vec![Device {
            host: place,
            target,
            access: DeviceAccess { read: true, write: false, mknod: true },
        }],
        credentials: [
            CredentialContent::Value(Secret::new("value")),
            CredentialContent::File(below),
        ]
        .into_iter()
        .map(|content| {
            Ok(Credential { name: CredentialName::new("key")?, content, encrypted: false })
        })
        .collect::<Result<_>>()?,
        ..PlannedFiles::default()
    })
}

fn link(plan: &Plan) -> Link {
    let port = |address: IpAddr| Port { address, host: NonZeroU16::MAX, task: NonZeroU16::MIN };
    let v4 = |last| Ipv4Addr::new(10, 87, 16, last);
    let v6 = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    Link {
        name: plan.unit.into(),
        v4: Ends { task: v4(2), gateway: v4(1), pool: v4(0), prefix: 20 },
        v6: Some(Ends { task: v6(2), gateway: v6(1), pool: v6(0), prefix: 64 }),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        zone: ZoneName::new("zone").ok().map(|name| Zone { name, group: 0x6e76_0001 }),
        ports: [v4(9).into(), Ipv6Addr::LOCALHOST.into()]
            .map(|at| Published { port: port(at), on_loopback: true })
            .to_vec(),
    }
}

fn attached(plan: &Plan) -> Result<[PlannedNetwork; 2]> {
    let port =
        Port { address: Ipv4Addr::LOCALHOST.into(), host: NonZeroU16::MAX, task: NonZeroU16::MIN };
    let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 9), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9));
    let attached = Attached {
        parent: Parent::Bridge(ParentName::new("br0")?),
        v4: Some(Address { address: v4, bits: Some(24) }),
        v6: Some(Address { address: v6, bits: None }),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        ports: vec![port],
    };
    let link = ContainerLink::Zone(LinkZoneName::new("shop")?);
    let container = Container { link, ports: vec![port], wait_s: 30 };
    Ok([
        PlannedNetwork::Attached {
            attached,
            port: plan.unit.into(),
            enable_forwarding: true,
            owner: NetworkOwner::Host,
        },
        PlannedNetwork::Container { container, enable_forwarding: false },
    ])
}

/// Every field and every variant.
fn resources() -> Result<Resources> {
    Ok(Resources {
        memory_max: Some(1 << 27),
        memory_low: Some(1 << 26),
        swap: Swap::Bytes(1 << 20),
        cpu_weight: Some(100),
        cpu_boost: Some(4),
        cpu_quota_us: Some(1_500_000),
        cores: CpuSet::parse("0-3,9"),
        tasks_max: Some(50),
        io_weight: Some(10),
        oom_score: -7,
        oom: OomScope::Task,
        slice: Some(SliceName::new("machine-nspawn-batch.slice")?),
        properties: vec![
            Property::MemoryHigh(1 << 25),
            Property::Io {
                limit: IoLimit::WriteOperations,
                device: Absolute::parse("/dev/vda")?,
                most: 9,
            },
        ],
        egress: Some(vec![
            AddressRange { address: Ipv4Addr::LOCALHOST.into(), bits: 8 },
            AddressRange { address: Ipv6Addr::LOCALHOST.into(), bits: 128 },
        ]),
    })
}

fn layer(byte: u8) -> Result<ImageLayer> {
    Ok(ImageLayer { source: Component::new("+import")?, digest: Digest([byte; 32]) })
}

/// Images of one layer and of several.
pub(super) fn records() -> Result<Vec<ImageRecord>> {
    let stored = |byte| -> Result<StoredLayer> {
        Ok(StoredLayer { layer: layer(byte)?, size: 4096, content: Digest([byte; 32]) })
    };
    let of = |count: u8| -> Result<ImageRecord> {
        let layers = (0..count).map(stored).collect::<Result<_>>()?;
        ImageRecord::new(layers).context("a record of some layers")
    };
    [1, 3].into_iter().map(of).collect()
}

pub(super) fn plans() -> Result<[Plan; 6]> {
    let plan = race::plan(Path::new("/host"))?;
    let linked = Plan {
        network: PlannedNetwork::Private {
            link: link(&plan),
            enable_forwarding: true,
            owner: NetworkOwner::Container,
        },
        ..plan.clone()
    };
    let [bridged, container] = attached(&plan)?.map(|network| Plan { network, ..plan.clone() });
    let resources = resources()?;
    let layered = Plan { layers: vec![layer(1)?, layer(2)?], ..plan.clone() };
    Ok([
        layered,
        plan.clone(),
        linked,
        bridged,
        container,
        Plan { files: files()?, resources, ..plan },
    ])
}
