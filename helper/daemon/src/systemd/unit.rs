//! Task units: their names, their properties, and what PID 1 is asked to do with them.
//!
//! Properties are constants, numbers and names made here. The exceptions are the record
//! ([`super::record`]) and the job's labels, both in an alphabet that needs no escaping, and device
//! paths that the policy has allowed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::plan::UnitId;
use proto::task_spec::Label;
use proto::task_spec::files::DeviceAccess;
use proto::task_spec::process::{LimitName, ProcessLimit};
use zbus::{OwnedObjectPath, Variant};

use crate::systemd::bus::{Bus, MANAGER, is_named};
use crate::systemd::confinement;
use crate::tasks::record::{Kind, Record};
use kernel::layout::{LOCKS, UPPERS, upper};
use policy::UnitLimits;

const PREFIX: &str = "nomad-nspawn-";
const FOLLOWER_PREFIX: &str = "nomad-nspawn-log-";
const SUFFIX: &str = ".service";
const SLICE: &str = "machine-nspawn.slice";

/// PID 1's words for what is not there.
const NO_UNIT: &str = "NoSuchUnit";
const NO_PROCESS: &str = "NoSuchProcess";
const EXISTS: &str = "UnitExists";

/// Longest wait for a unit whose main process has been killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Memory of a clean-up: its work is bounded, the tree is not.
const CLEAN_MEMORY: u64 = 256 << 20;

/// Memory of a follower: two buffers and what its sockets hold.
const FOLLOWER_MEMORY: u64 = 32 << 20;
/// CAP_CHOWN and CAP_DAC_OVERRIDE (capabilities(7)): for the FIFOs of an agent that is not root.
const FOLLOWER_CAPABILITIES: u64 = 0b11;
/// CAP_DAC_OVERRIDE and CAP_FOWNER: folders of any mode, sticky ones, and owners of any uid range.
const CLEAN_CAPABILITIES: u64 = 0b1010;
/// Time in microseconds for a follower to hand over what its ended task has written.
const FOLLOWER_PATIENCE_US: u64 = 3_000_000;

pub(crate) type Property<'a> = (&'a str, Variant<'a>);
type Command = (String, Vec<String>, Vec<String>);

/// The unit's name.
pub(crate) fn name(unit: UnitId) -> String {
    format!("{PREFIX}{unit}{SUFFIX}")
}

/// Name of the unit that carries a task's output.
pub(crate) fn follower(unit: UnitId) -> String {
    format!("{FOLLOWER_PREFIX}{unit}{SUFFIX}")
}

fn id_of(prefix: &str, name: &str) -> Option<UnitId> {
    UnitId::parse(name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?)
}

/// The task binary: beside our own.
fn task_binary() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("/proc/self/exe: {e}"))?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    Ok(folder.join("nomad-nspawn-task"))
}

fn command(binary: &Path, words: &[&str], flags: &[&str]) -> Vec<Command> {
    let binary = binary.display().to_string();
    let mut all = vec![binary.clone()];
    all.extend(words.iter().map(|&word| word.to_owned()));
    vec![(binary, all, flags.iter().map(|&flag| flag.to_owned()).collect())]
}

/// Journal fields: the record's first, so that no label can stand for one of them.
fn fields(record: &Record, labels: &[Label]) -> Vec<Vec<u8>> {
    let labels = labels.iter().map(|l| format!("{}={}", l.name, l.value).into_bytes());
    record.fields().into_iter().chain(labels).collect()
}

/// What every unit has that a launcher or follower runs in.
fn service<'a>(
    description: &'a str,
    verb: &str,
    socket: OwnedFd,
    fields: Vec<Vec<u8>>,
) -> Result<Vec<Property<'a>>, String> {
    Ok(vec![
        ("Description", Variant::from(description)),
        ("Slice", Variant::from(SLICE)),
        ("Type", Variant::from("exec")),
        ("DevicePolicy", Variant::from("closed")),
        ("StandardInputFileDescriptor", Variant::from(zbus::Fd::from(socket))),
        ("StandardOutput", Variant::from("journal")),
        ("StandardError", Variant::from("journal")),
        ("SyslogIdentifier", Variant::from("nomad-nspawn-task")),
        ("LogExtraFields", Variant::from(fields)),
        // At host shutdown the agent goes after its tasks.
        ("After", Variant::from(vec!["nomad.service"])),
        ("ExecStartEx", Variant::from(command(&task_binary()?, &[verb], &["no-env-expand"]))),
    ])
}

/// The rules for DeviceAllow=. The closed policy itself allows the standard nodes and /dev/pts.
///
/// PID 1 drops a rule for a node that is not there; the launcher, which opens each node, refuses
/// then. The host's nodes are not seen from here (PrivateDevices=).
fn devices(limits: &UnitLimits, make: bool) -> Vec<(&str, String)> {
    let asked = limits.devices.iter().map(|(path, access)| {
        (path.as_str(), DeviceAccess { mknod: make || access.mknod, ..*access }.to_string())
    });
    std::iter::once(("/dev/net/tun", "rwm".to_owned())).chain(asked).collect()
}

/// Takes the right to make nodes, which the launcher needed, away where the policy did not give it.
/// Only for a task without user namespace: in one the kernel lets nobody make a node.
pub(crate) async fn restrict_devices(
    bus: &Bus,
    unit: UnitId,
    limits: &UnitLimits,
) -> Result<(), String> {
    let none: Vec<(&str, String)> = Vec::new();
    // The empty list takes the earlier rules away: 252 would keep them beside the new ones.
    let rules = [none, devices(limits, false)].map(|rules| ("DeviceAllow", Variant::from(rules)));
    let body = (name(unit), true, Vec::from(rules));
    bus.call(MANAGER, "SetUnitProperties", &body).await.map(drop).map_err(|e| e.to_string())
}

/// Asks PID 1 for a task's unit. Returns when the job is queued. `socket`: the launcher's end.
pub(crate) async fn start(
    bus: &Bus,
    record: &Record,
    labels: &[Label],
    limits: &UnitLimits,
    processes: &[ProcessLimit],
    socket: OwnedFd,
    systemd: u32,
) -> Result<(), String> {
    let unit = record.unit();
    let id = unit.to_string();
    let clean = command(&task_binary()?, &["clean", &id], &["no-env-expand", "ignore-failure"]);
    // Always with `m`: the launcher makes the node.
    let devices = devices(limits, true);
    // Room for what systemd-nspawn sets from inside the user namespace, where no hard limit can be
    // raised. Without bound, so that none of them is too low for the launcher and systemd-nspawn; of
    // nice the kernel's most, since PID 1 of systemd 257 fails at an unlimited one.
    let room = |limit: &ProcessLimit| {
        let nice = limit.resource == LimitName::Nice;
        (format!("Limit{}", limit.resource.name()), if nice { 40 } else { u64::MAX })
    };
    let rooms: Vec<_> = processes.iter().map(room).collect();
    let oom = if record.kind == Kind::Boot { "continue" } else { "stop" };
    let fields = fields(record, labels);
    let mut properties = service("Nomad task in systemd-nspawn", "launch", socket, fields)?;
    properties.extend([
        ("NotifyAccess", Variant::from("none")),
        // Keeps the exit status until it is read, also that of exit 0.
        ("RemainAfterExit", Variant::from(true)),
        ("CollectMode", Variant::from("inactive")),
        ("KillMode", Variant::from("mixed")),
        ("KillSignal", Variant::from(15_i32)),
        ("Delegate", Variant::from(true)),
        ("DeviceAllow", Variant::from(devices)),
        ("OOMPolicy", Variant::from(oom)),
        ("TimeoutStopUSec", Variant::from(limits.kill_timeout_ms.saturating_mul(1000))),
        ("ExecStopPostEx", Variant::from(clean)),
    ]);
    properties.extend(rooms.iter().map(|(name, room)| (name.as_str(), Variant::from(*room))));
    if systemd >= 254 {
        properties.push(("DelegateSubgroup", Variant::from("supervisor")));
    }
    let resources = [
        ("TasksMax", limits.resources.tasks_max),
        ("MemoryMax", limits.resources.memory_max),
        ("MemoryLow", limits.resources.memory_low),
        ("CPUWeight", limits.resources.cpu_weight),
    ];
    properties
        .extend(resources.into_iter().filter_map(|(name, value)| Some((name, value?.into()))));
    start_transient(bus, &name(unit), properties).await.map_err(|e| e.to_string())
}

/// Asks PID 1 for the unit that carries a task's output. It ends by itself when the task has.
pub(crate) async fn start_follower(
    bus: &Bus,
    record: &Record,
    labels: &[Label],
    socket: OwnedFd,
) -> Result<(), String> {
    let unit = record.unit();
    let mut fields = fields(record, labels);
    // Each is added to every line: those that say which task it is, not the rest of the record.
    fields.retain(|field| !field.starts_with(b"NSPAWN_"));
    // Its lines are the task's: journalctl -u shows them with the task's unit.
    fields.push(format!("OBJECT_SYSTEMD_UNIT={}", name(unit)).into_bytes());
    let description = "Output of a Nomad task in systemd-nspawn";
    let mut properties = service(description, "follow", socket, fields)?;
    properties.extend([
        ("CollectMode", Variant::from("inactive-or-failed")),
        // A stop waits for its own end: SIGCONT changes nothing.
        ("KillSignal", Variant::from(libc::SIGCONT)),
        ("TimeoutStopUSec", Variant::from(FOLLOWER_PATIENCE_US)),
        // At host shutdown it goes after its task.
        ("Before", Variant::from(vec![name(unit)])),
        ("MemoryMax", Variant::from(FOLLOWER_MEMORY)),
        ("TasksMax", Variant::from(8_u64)),
    ]);
    // Pipes are written to all the same; a socket of the container's journal is made there.
    let writable = vec![upper(unit).display().to_string()];
    properties.extend(confinement::properties(writable, FOLLOWER_CAPABILITIES));
    start_transient(bus, &follower(unit), properties).await.map_err(|e| e.to_string())
}

async fn start_transient(bus: &Bus, name: &str, all: Vec<Property<'_>>) -> zbus::Result<()> {
    let auxiliary: Vec<(&str, Vec<Property<'_>>)> = Vec::new();
    let body = (name, "fail", all, auxiliary);
    bus.call(MANAGER, "StartTransientUnit", &body).await.map(drop)
}

/// Runs `clean` for a unit that left its folder behind, and waits for its end.
pub(crate) async fn clean(bus: &Bus, unit: UnitId) -> Result<(), String> {
    let id = unit.to_string();
    let name = format!("{PREFIX}clean-{id}{SUFFIX}");
    let clean = command(&task_binary()?, &["clean", &id], &["no-env-expand"]);
    let done = bus.job_of(&name).await;
    let writable = vec![UPPERS.to_owned(), format!("-{LOCKS}")];
    let mut properties = confinement::properties(writable, CLEAN_CAPABILITIES);
    properties.extend([
        ("Description", Variant::from("Clean-up after a Nomad task")),
        ("Slice", Variant::from(SLICE)),
        ("Type", Variant::from("oneshot")),
        ("DevicePolicy", Variant::from("closed")),
        ("MemoryMax", Variant::from(CLEAN_MEMORY)),
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("ExecStartEx", Variant::from(clean)),
    ]);
    let done = match start_transient(bus, &name, properties).await {
        Ok(()) => Some(done),
        // That of an earlier removal, which waited as long as we do now. Its job may be over.
        Err(e) if is_named(&e, EXISTS) => None,
        Err(e) => return Err(e.to_string()),
    };
    tokio::time::timeout(STOP_TIMEOUT, settled(bus, &name, done))
        .await
        .map_err(|_| "the clean-up takes long: it goes on".to_owned())
}

/// Which processes of a unit get SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// All of them, at once.
    All,
    /// The main process; PID 1 then ends the others and runs the unit's clean-up.
    Main,
}

/// Sends SIGKILL to processes of a unit. That there is none of them is fine.
pub(crate) async fn kill(bus: &Bus, unit: UnitId, who: Who) -> Result<(), String> {
    let who = if who == Who::All { "all" } else { "main" };
    match bus.call(MANAGER, "KillUnit", &(name(unit), who, libc::SIGKILL)).await {
        Err(e) if !is_named(&e, NO_UNIT) && !is_named(&e, NO_PROCESS) => Err(e.to_string()),
        _ => Ok(()),
    }
}

/// Stops a unit, waits for it, and takes its record away.
pub(crate) async fn stop(bus: &Bus, name: &str) -> Result<(), String> {
    let done = bus.job_of(name).await;
    match bus.call(MANAGER, "StopUnit", &(name, "replace")).await {
        Ok(_) => tokio::time::timeout(STOP_TIMEOUT, settled(bus, name, Some(done)))
            .await
            .map_err(|_| "the unit does not stop".to_owned())?,
        Err(e) if is_named(&e, NO_UNIT) => return Ok(()),
        Err(e) => return Err(e.to_string()),
    }
    match bus.call(MANAGER, "ResetFailedUnit", &(&name,)).await {
        Err(e) if !is_named(&e, NO_UNIT) => Err(e.to_string()),
        _ => Ok(()),
    }
}

/// Waits for a unit that stops or ends by itself: for the job, and for the state, because a job may have
/// been another and the bus may have gone away.
async fn settled(bus: &Bus, name: &str, job: Option<tokio::sync::oneshot::Receiver<String>>) {
    if let Some(job) = job {
        drop(job.await);
    }
    loop {
        let state = bus.property::<String>(name, "Unit", "ActiveState").await;
        if state.is_ok_and(|state| state == "inactive" || state == "failed") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A unit as PID 1 sees it; the default is one that is not loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) loaded: bool,
    pub(crate) active: String,
    pub(crate) sub: String,
    /// ExecMainCode: 1 exited, 2 killed, 3 dumped; 0 while it runs.
    pub(crate) code: i32,
    pub(crate) status: i32,
    pub(crate) result: String,
    /// Unix time of the main process's end in microseconds.
    pub(crate) ended_us: u64,
}

/// Reads how a unit stands.
pub(crate) async fn look(bus: &Bus, unit: UnitId) -> zbus::Result<Seen> {
    let name = name(unit);
    let unit = async |property| bus.property::<String>(&name, "Unit", property).await;
    let number = async |property| bus.property::<i32>(&name, "Service", property).await;
    if unit("LoadState").await? == "not-found" {
        return Ok(Seen::default());
    }
    Ok(Seen {
        loaded: true,
        active: unit("ActiveState").await?,
        sub: unit("SubState").await?,
        code: number("ExecMainCode").await?,
        status: number("ExecMainStatus").await?,
        result: bus.property(&name, "Service", "Result").await?,
        ended_us: bus.property(&name, "Service", "ExecMainExitTimestamp").await?,
    })
}

/// A task's unit, found at start-up.
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) main_pid: u32,
    pub(crate) started_ms: u64,
}

type Listed =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// All units of ours, read back from PID 1.
#[derive(Default)]
pub(crate) struct All {
    /// Tasks.
    pub(crate) found: Vec<Found>,
    /// Units that carry the output of a task, by that task.
    pub(crate) followers: Vec<UnitId>,
}

/// Finds all units of ours.
pub(crate) async fn find_all(bus: &Bus) -> zbus::Result<All> {
    let none: Vec<&str> = Vec::new();
    let patterns = (none, vec![format!("{PREFIX}*{SUFFIX}")]);
    let body = bus.call(MANAGER, "ListUnitsByPatterns", &patterns).await?;
    let listed: Vec<Listed> = body.deserialize()?;
    let mut all = All::default();
    for (name, _, load, ..) in listed {
        all.followers.extend(id_of(FOLLOWER_PREFIX, &name));
        let Some(id) = id_of(PREFIX, &name) else { continue };
        // PID 1 lists a name that another unit mentions (a follower its task) as a unit, though
        // there is none.
        if load != "not-found" {
            all.found.push(read_back(bus, id).await?);
        }
    }
    Ok(all)
}

async fn read_back(bus: &Bus, id: UnitId) -> zbus::Result<Found> {
    let name = &name(id);
    let fields: Vec<Vec<u8>> = bus.property(name, "Service", "LogExtraFields").await?;
    let main_pid = bus.property(name, "Service", "MainPID").await?;
    let started_us: u64 = bus.property(name, "Service", "ExecMainStartTimestamp").await?;
    Ok(Found { record: Record::parse(id, &fields), main_pid, started_ms: started_us / 1000 })
}
