//! The decision: every check in its order, and what comes out of it.
//!
//! Pure: no I/O, no clock, no state. Whatever [`decide`] does not put into the [`Decision`] does not
//! happen. Judging only reads a specification, which may be 1.5 MiB: a decision takes it over.

use proto::layer::ImageLayer;
use proto::limits;
use proto::link::Link;
use proto::plan::{NetworkOwner, Place, Plan, PlannedFiles, PlannedNetwork, Range, TaskDirs};
use proto::task_spec::files::DeviceAccess;
use proto::task_spec::network;
use proto::task_spec::{Label, Resources, TaskSpec, Users};
use proto::unit_id::UnitId;

use super::{
    Denial, Policy, allocation, binds, bounds, contradictions, images, isolation, machine_name,
    resources, targets, users,
};

/// Stands in a plan whose user namespace is not allocated yet: the kernel refuses a map without ids.
const NO_RANGE: Option<Range> = Some(Range { base: 0, width: 0 });

/// The policy's answer to a specification: everything checked, every name made here.
///
/// Only [`decide`] makes one, and nobody can change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    users: Users,
    private: Option<Private>,
    plan: Plan,
    unit: UnitSettings,
}

/// What a task with a network of its own gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Private {
    /// What the job asks for.
    pub(crate) wanted: network::Private,
    /// Whether forwarding may be switched on for it.
    pub(crate) enable_forwarding: bool,
    /// Whose the network namespace is.
    pub(crate) owner: NetworkOwner,
}

/// What the policy does not know: what the daemon allocates for a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allocated {
    /// The ids of its user namespace.
    pub users: Option<Range>,
    /// The link of its own network. Without one a task has loopback alone.
    pub link: Option<Link>,
    /// Process id of the agent.
    pub agent: Option<u32>,
    /// Whether system call filters of the cache may be used.
    pub cached_filters: bool,
}

/// What the task's unit is asked for with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnitSettings {
    /// DeviceAllow= of the unit (systemd.resource-control(5)) beyond every task's own: the job's
    /// devices, and what a disk image or block device as image needs. A path below /dev, or a group
    /// of devices such as `block-loop`: letters, digits and `/._:+@,=-` alone.
    pub devices: Vec<(String, DeviceAccess)>,
    /// Limits with the policy's ceilings; `tasks_max`, which is the payload's, is always set.
    pub resources: Resources,
    /// TimeoutStopUSec= in milliseconds.
    pub kill_timeout_ms: u64,
    /// Journal fields of the job.
    pub labels: Vec<Label>,
}

impl Decision {
    /// The user namespace to allocate.
    #[must_use]
    pub fn users(&self) -> Users {
        self.users
    }

    /// What the job asks of its network; `None` for a task without one of its own.
    #[must_use]
    pub fn network(&self) -> Option<&network::Private> {
        self.private.as_ref().map(|private| &private.wanted)
    }

    /// Whose a network of the task's own will be.
    #[must_use]
    pub fn network_owner(&self) -> Option<NetworkOwner> {
        self.private.as_ref().map(|private| private.owner)
    }

    /// The launcher's plan, for looking at: it starts nothing before [`Self::complete`].
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Settings of the unit.
    #[must_use]
    pub fn unit(&self) -> &UnitSettings {
        &self.unit
    }

    /// The same over these layers, the lowest first: those that the image's name means in the store.
    #[must_use]
    pub fn over(mut self, layers: Vec<ImageLayer>) -> Self {
        self.plan.layers = layers;
        self
    }

    /// Adds what the policy does not know.
    #[must_use]
    pub fn complete(self, allocated: Allocated) -> (Plan, UnitSettings) {
        let Allocated { users, link, agent, cached_filters } = allocated;
        let network = match (link, self.private) {
            (Some(link), Some(Private { enable_forwarding, owner, .. })) => {
                PlannedNetwork::Private { link, enable_forwarding, owner }
            }
            _ => self.plan.network,
        };
        (Plan { users, network, agent, cached_filters, ..self.plan }, self.unit)
    }
}

/// What judging a specification finds out: that it breaks no rule, and where its files lie.
///
/// Nothing can be started with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The image.
    pub image: Place,
    task_dirs: TaskDirs,
    /// What of the specification's files lies on the host; the rest is empty.
    files: PlannedFiles,
    network: PlannedNetwork,
    private: Option<Private>,
    kill_signal: u8,
    unit: UnitSettings,
}

/// Judges one specification, and takes it over into the plan.
///
/// # Errors
/// The first rule that it breaks.
pub fn decide(spec: TaskSpec, policy: &Policy) -> Result<Decision, Denial> {
    let judged = judge(&spec, policy)?;
    let plan = Plan {
        unit: UnitId::from(&spec.key),
        machine: machine_name(&spec.key),
        alloc: spec.key.alloc,
        users: NO_RANGE,
        image: judged.image,
        layers: Vec::new(),
        root: spec.root,
        payload: spec.payload,
        process: spec.process,
        isolation: spec.isolation,
        cached_filters: false,
        network: judged.network,
        names: spec.names,
        files: PlannedFiles {
            tmpfs: spec.files.tmpfs,
            inaccessible: spec.files.inaccessible,
            credentials: spec.files.credentials,
            ..judged.files
        },
        environment: spec.environment,
        task_dirs: judged.task_dirs,
        logs: spec.logs,
        kill_signal: judged.kill_signal,
        resources: judged.unit.resources.clone(),
        min_free: policy.limits.min_free.0,
        agent: None,
    };
    Ok(Decision { users: spec.users, private: judged.private, plan, unit: judged.unit })
}

/// Judges one specification, without making a plan of it.
///
/// # Errors
/// The first rule that it breaks.
pub fn judge(spec: &TaskSpec, policy: &Policy) -> Result<Judgement, Denial> {
    bounds::check(spec)?;
    contradictions::check(spec)?;
    targets::check(spec)?;
    users::check_range(spec.users, policy)?;
    resources::check(&spec.resources)?;
    super::network::check_ports(&spec.network)?;
    super::network::check_mac(&spec.network)?;
    let kill_signal = resources::kill_signal(spec)?;
    let image = images::place(spec, policy)?;
    let task_dirs = allocation::task_dirs(spec, policy)?;
    users::check(spec.users, &image, policy)?;
    isolation::check(spec, policy)?;
    let files = binds::files(spec, &task_dirs, policy)?;
    for credential in &spec.files.credentials {
        allocation::check_credential(credential, &task_dirs)?;
    }
    let mut devices = images::devices(&spec.root, &image)?;
    devices.extend(files.devices.iter().map(|device| (device.host.to_string(), device.access)));
    let (network, private) = super::network::plan(spec, policy)?;
    super::network::check_egress(spec, &network, private.as_ref(), policy)?;
    let unit = UnitSettings {
        devices,
        resources: resources::within(&spec.resources, policy)?,
        kill_timeout_ms: (spec.kill_timeout_ms)
            .clamp(limits::KILL_TIMEOUT_MIN_MS, limits::KILL_TIMEOUT_MAX_MS),
        labels: spec.labels.clone(),
    };
    Ok(Judgement { image, task_dirs, files, network, private, kill_signal, unit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{COMPAT, change, judged, users};
    use proto::name::VariableName;
    use proto::secret::Secret;
    use proto::task_spec::files::{Credential, CredentialContent, CredentialName};
    use proto::task_spec::{Payload, Variable};

    /// `None` would be the host's own users.
    #[test]
    fn a_plan_without_its_ids_has_no_ids_at_all() {
        for wanted in [Users::Pick, Users::Identity, Users::Host] {
            let decision = judged(COMPAT, users(wanted)).unwrap();
            assert_eq!(decision.plan().users.map(|range| range.width), Some(0), "{wanted:?}");
            let given = Some(Range { base: 524_288, width: 65_536 });
            let (plan, unit) = decision.clone().complete(Allocated {
                users: given,
                agent: Some(7),
                ..Allocated::default()
            });
            assert_eq!((plan.users, plan.agent), (given, Some(7)));
            assert_eq!(unit, *decision.unit());
        }
    }

    /// What may be long is moved: the bytes that were decoded are those of the plan.
    #[test]
    fn a_decision_takes_the_specification_over() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let fill = change(move |spec| {
            let (name, value) = (VariableName::new("A").unwrap(), secret("variable"));
            spec.environment = vec![Variable { name, value }];
            spec.payload = Payload::Command { words: vec![secret("word")] };
            let content = CredentialContent::Value(secret("credential"));
            let name = CredentialName::new("key").unwrap();
            spec.files.credentials = vec![Credential { name, content, encrypted: false }];
            spec.names.hosts = b"127.0.0.1 here".to_vec();
        });
        let mut spec = crate::tests::spec();
        fill(&mut spec);
        let (given, policy) = (spec.clone(), crate::parse("").unwrap());
        let at = |spec: &TaskSpec| (spec.environment.as_ptr(), spec.files.credentials.as_ptr());
        let before = at(&spec);
        assert!(judge(&spec, &policy).is_ok());
        let plan = decide(spec, &policy).unwrap().plan;
        assert_eq!((plan.environment.as_ptr(), plan.files.credentials.as_ptr()), before);
        assert_eq!(plan.environment, given.environment);
        assert_eq!(plan.files.credentials, given.files.credentials);
        assert_eq!((plan.payload, plan.names), (given.payload, given.names));
    }
}
