//! What is allowed: a pure decision over one task specification.
//!
//! No I/O, no clock, no state of its own. Whatever [`decide`] does not put into the [`Decision`]
//! does not happen. A refusal names the rule and the line of the policy file that would allow it.

mod file;
mod names;

pub use file::{Policy, load};
pub use names::machine_name;

use proto::error::{Code, Refusal};
use proto::limits;
use proto::name::MachineName;
use proto::path::{Absolute, Relative};
use proto::plan::{Place, PlannedFiles, PlannedNetwork, Step, TaskDirs};
use proto::spec::{Files, Image, Network, Payload, Resources, TaskSpec, Users};

/// The policy's answer to a specification: everything checked, every name made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Machine name.
    pub machine: MachineName,
    /// Where the image is.
    pub image: Place,
    /// The network.
    pub network: PlannedNetwork,
    /// The task's folders.
    pub task_dirs: TaskDirs,
    /// Signal that asks the payload to end.
    pub kill_signal: u8,
    /// The user namespace.
    pub users: Users,
    /// Further files.
    pub files: PlannedFiles,
    /// Limits of the unit.
    pub resources: Resources,
    /// TimeoutStopUSec= in milliseconds.
    pub kill_timeout_ms: u64,
}

/// Judges one specification.
///
/// # Errors
/// The first rule that it breaks.
pub fn decide(spec: &TaskSpec, policy: &Policy) -> Result<Decision, Refusal> {
    check_sizes(spec)?;
    check_environment(spec)?;
    if !spec.users.isolates() && policy.userns_require {
        return Err(refuse(
            "user_namespacing = false",
            "without a user namespace container root is host root; the policy file would allow \
             it with [userns] require = false",
        ));
    }
    Ok(Decision {
        machine: machine_name(&spec.key),
        image: image(&spec.image, policy)?,
        network: network(spec, policy)?,
        task_dirs: task_dirs(spec, policy)?,
        kill_signal: kill_signal(spec)?,
        users: spec.users,
        files: files(&spec.files)?,
        resources: resources(spec.resources)?,
        kill_timeout_ms: spec.kill_timeout_ms.min(limits::KILL_TIMEOUT_MAX_MS),
    })
}

fn refuse(object: impl AsRef<str>, reason: impl AsRef<str>) -> Refusal {
    Refusal::new(Code::Policy, Step::Decide.name(), object, reason)
}

fn invalid(object: impl AsRef<str>, reason: impl AsRef<str>) -> Refusal {
    Refusal::new(Code::Invalid, Step::Decide.name(), object, reason)
}

fn check_sizes(spec: &TaskSpec) -> Result<(), Refusal> {
    let words = match &spec.payload {
        Payload::Boot { arguments: words }
        | Payload::Command { words }
        | Payload::ProcessTwo { words } => words,
    };
    if words.len() > limits::ARGUMENTS_MAX {
        return Err(invalid("command", "at most 4,096 words"));
    }
    if words.iter().any(|word| word.reveal().len() > limits::ARGUMENT_MAX) {
        return Err(invalid("command", "at most 131,071 bytes a word (execve(2))"));
    }
    if words.iter().any(|word| word.reveal().contains('\0')) {
        return Err(invalid("command", "no NUL byte"));
    }
    Ok(())
}

fn check_environment(spec: &TaskSpec) -> Result<(), Refusal> {
    if spec.environment.len() > limits::VARIABLES_MAX {
        return Err(invalid("environment", "at most 4,096 variables"));
    }
    let mut names = std::collections::HashSet::new();
    for variable in &spec.environment {
        let (name, value) = (variable.name.as_str(), variable.value.reveal());
        let object = || format!("environment variable {name}");
        if name.len() + 1 + value.len() > limits::VARIABLE_MAX {
            return Err(invalid(object(), "at most 131,071 bytes with its name (execve(2))"));
        }
        if value.contains('\0') {
            return Err(invalid(object(), "no NUL byte"));
        }
        if !names.insert(name) {
            return Err(invalid(object(), "given twice"));
        }
    }
    Ok(())
}

/// The first of `roots` that holds `path`, with the rest of the path.
fn place_below(path: &Absolute, roots: &[Absolute]) -> Option<Place> {
    roots.iter().find_map(|root| path.below(root).map(|below| Place { root: root.clone(), below }))
}

fn image(image: &Image, policy: &Policy) -> Result<Place, Refusal> {
    match image {
        Image::Named(name) => {
            let component = proto::path::Component::new(name.as_str())
                .and_then(|component| Relative::new(vec![component]))
                .map_err(|e| invalid(name.as_str(), e.to_string()))?;
            Ok(Place { root: policy.images_store.clone(), below: component })
        }
        Image::Path(path) => place_below(path, &policy.images_paths)
            .filter(|place| !place.below.components().is_empty())
            .ok_or_else(|| {
                refuse(
                    format!("image {path}"),
                    "lies below no folder of [images] paths in the policy file; add its parent \
                     folder there, or move the image",
                )
            }),
    }
}

fn network(spec: &TaskSpec, policy: &Policy) -> Result<PlannedNetwork, Refusal> {
    let allowed = |kind: &str, object: &str| {
        if policy.network_allow.iter().any(|entry| entry == kind) {
            return Ok(());
        }
        Err(refuse(
            object,
            format!("the policy file would allow it with \"{kind}\" in [network] allow"),
        ))
    };
    match &spec.network {
        Network::Loopback => {
            allowed("private", "private network").map(|()| PlannedNetwork::Loopback)
        }
        Network::Host => allowed("host", "host network").map(|()| PlannedNetwork::Host),
        Network::Join(path) => {
            allowed("group", "group network")?;
            let place = place_below(path, &policy.netns_paths).ok_or_else(|| {
                refuse(
                    format!("network namespace {path}"),
                    "lies below no folder of [network] netns_paths in the policy file",
                )
            })?;
            // Nomad's own namespaces carry the allocation's id; others, where listed, do not.
            let nomads = place.root.to_path().ends_with("run/netns");
            let alloc = spec.key.alloc.to_string();
            match place.below.components() {
                [name] if !nomads || name.as_str() == alloc => Ok(PlannedNetwork::Join(place)),
                _ => Err(refuse(
                    format!("network namespace {path}"),
                    "is not the one that Nomad made for this allocation",
                )),
            }
        }
    }
}

fn files(files: &Files) -> Result<PlannedFiles, Refusal> {
    if *files == Files::default() {
        return Ok(PlannedFiles::default());
    }
    Err(refuse("files", "not allowed yet"))
}

fn task_dirs(spec: &TaskSpec, policy: &Policy) -> Result<TaskDirs, Refusal> {
    let path = &spec.alloc_dir;
    let place = place_below(path, &policy.alloc_dirs).ok_or_else(|| {
        refuse(
            format!("allocation folder {path}"),
            "lies below no folder of [nomad] alloc_dirs in the policy file; add the agent's \
             client.alloc_dir (default: its data_dir with /alloc) there",
        )
    })?;
    let alloc = spec.key.alloc.to_string();
    match place.below.components() {
        [name] if name.as_str() == alloc => Ok(TaskDirs {
            alloc_dir: place,
            task: spec.key.task.clone(),
            agent_uid: policy.agent_uid,
        }),
        _ => Err(refuse(
            format!("allocation folder {path}"),
            "its last component must be the allocation's id, directly below alloc_dirs",
        )),
    }
}

fn kill_signal(spec: &TaskSpec) -> Result<u8, Refusal> {
    match spec.stop_signal {
        Some(signal) => check_signal(signal),
        // systemd shuts down on SIGRTMIN+3 (systemd(1)); SIGRTMIN is 34 for the C library.
        None if matches!(spec.payload, Payload::Boot { .. }) => Ok(37),
        None => Ok(15),
    }
}

/// Checks that a number is a signal that a payload may get.
///
/// # Errors
/// Not a Linux signal number.
pub fn check_signal(signal: u8) -> Result<u8, Refusal> {
    if (1..=64).contains(&signal) && !matches!(signal, 32 | 33) {
        return Ok(signal);
    }
    Err(invalid(format!("signal {signal}"), "1 to 31 and 34 to 64 (signal(7))"))
}

fn resources(wanted: Resources) -> Result<Resources, Refusal> {
    let memory = limits::MEMORY_MIN..=limits::MEMORY_MAX;
    let check = |name: &str, value: Option<u64>, range: &std::ops::RangeInclusive<u64>| match value
    {
        Some(v) if !range.contains(&v) => {
            Err(invalid(format!("{name} {v}"), format!("{} to {}", range.start(), range.end())))
        }
        _ => Ok(()),
    };
    check("memory limit", wanted.memory_max, &memory)?;
    check("memory reservation", wanted.memory_low, &memory)?;
    check("cpu weight", wanted.cpu_weight, &limits::CPU_WEIGHT)?;
    check("task limit", wanted.tasks_max, &limits::TASKS_LIMIT)?;
    Ok(wanted)
}

#[cfg(test)]
mod tests;
