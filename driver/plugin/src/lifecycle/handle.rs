//! What the driver needs to find a task again, kept by Nomad as opaque bytes.
//!
//! Nomad gives the bytes back at any later time: after a restart of plugin or agent, after an
//! upgrade, after a reboot. So they begin with their own version, name the boot they belong
//! to, and are checked like any other input. Nomad writes them to its state, which root alone can
//! read and where it keeps the environment of every driver's tasks. This driver keeps one copy, in
//! the form in which a command in the task gets it: the configuration that is echoed beside it is
//! freed of the environment and of the job's `config` block.

use std::net::IpAddr;

use bincode::{Decode, Encode};
use nomad_proto::drivers::{NetworkOverride, TaskConfig, TaskHandle, TaskState};
use proto::codec;
use proto::name::{MachineName, TaskKey};
use proto::wire;

use crate::error::Failure;
use crate::exec::Context;

/// Version in Nomad's handle.
const HANDLE_VERSION: i32 = 2;
/// Version in the handles of the older Go driver.
pub(crate) const OLDER_DRIVER: i32 = 1;
/// Version of `driver_state`: an [`Identity`] and [`Details`].
const STATE_VERSION: u8 = 3;
/// Version of those whose details lack the network.
const STATE_WITHOUT_NETWORK: u8 = 2;
/// Version of those that hold an [`Identity`] alone.
const STATE_WITHOUT_DETAILS: u8 = 1;

/// A task as the driver must know it to serve every later request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Identity {
    /// Which run of which task.
    pub(crate) key: TaskKey,
    /// Its unit.
    pub(crate) unit: String,
    /// Its machine name.
    pub(crate) machine: MachineName,
    /// The host's boot id at the start: units do not outlive a boot.
    pub(crate) boot: String,
    /// Signal that asks the payload to end when the job names none.
    pub(crate) stop_signal: u8,
    /// First uid of its range.
    pub(crate) uid_base: Option<u32>,
    /// Unix time of the start in milliseconds.
    pub(crate) started_ms: u64,
}

/// What else is kept of a task; those that an earlier version started have none.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Details {
    /// What commands in it get.
    pub(crate) context: Context,
    /// Its image, as the job names it.
    pub(crate) image: String,
    /// Its addresses, where it has a network of its own: IPv4, then IPv6.
    pub(crate) addresses: Vec<IpAddr>,
    /// What services use, where it has a network of its own.
    pub(crate) network: Option<Advertised>,
}

/// What services and checks with `address_mode = "driver"` use.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Advertised {
    /// The task's address: of IPv4 where it has one.
    pub(crate) address: IpAddr,
    /// Published labels, and the port inside of each.
    pub(crate) ports: Vec<(String, i32)>,
}

impl Advertised {
    /// In Nomad's form. Other services keep the host's address and port.
    pub(crate) fn to_override(&self) -> NetworkOverride {
        NetworkOverride {
            port_map: self.ports.iter().cloned().collect(),
            addr: self.address.to_string(),
            auto_advertise: false,
        }
    }
}

impl Identity {
    /// From the helper's account of a started task.
    pub(crate) fn of(task: &wire::Task, boot: &str, stop_signal: u8) -> Self {
        Self {
            key: task.key.clone(),
            unit: task.unit.clone(),
            machine: task.machine.clone(),
            boot: boot.to_owned(),
            stop_signal,
            uid_base: task.uid_base,
            started_ms: task.started_ms,
        }
    }

    /// The handle for Nomad.
    ///
    /// # Errors
    /// It is larger than a specification may be, which the start's own bounds exclude.
    pub(crate) fn to_handle(
        &self,
        details: &Details,
        config: &TaskConfig,
    ) -> Result<TaskHandle, Failure> {
        let mut driver_state = vec![STATE_VERSION];
        let encoded = codec::encode_whole(&(self, details))
            .map_err(|e| Failure::permanent(format!("task handle cannot be written: {e}")))?;
        driver_state.extend(encoded);
        let config = TaskConfig {
            env: Default::default(),
            device_env: Default::default(),
            msgpack_driver_config: Vec::new(),
            ..config.clone()
        };
        Ok(TaskHandle {
            version: HANDLE_VERSION,
            config: Some(config),
            state: TaskState::Running.into(),
            driver_state,
        })
    }

    /// Reads a handle that Nomad kept; those of earlier versions have no details.
    ///
    /// # Errors
    /// Why it is not one of this driver's.
    pub(crate) fn from_handle(handle: &TaskHandle) -> Result<(Self, Option<Details>), Failure> {
        let id = handle.config.as_ref().map_or("", |config| &config.id);
        let newer = || {
            Failure::permanent(format!(
                "the handle of task {id} has a form that this version of the nspawn driver does \
                 not know; was the driver downgraded?"
            ))
        };
        if handle.version != HANDLE_VERSION {
            return Err(newer());
        }
        match handle.driver_state.split_first() {
            Some((&STATE_VERSION, rest)) => codec::decode_whole::<(Self, Details)>(rest)
                .map(|(identity, details)| (identity, Some(details)))
                .map_err(|_| newer()),
            Some((&STATE_WITHOUT_NETWORK, rest)) => {
                // As a structure of these three parts.
                codec::decode_whole::<(Self, (Context, String, Vec<IpAddr>))>(rest)
                    .map(|(identity, (context, image, addresses))| {
                        (identity, Some(Details { context, image, addresses, network: None }))
                    })
                    .map_err(|_| newer())
            }
            Some((&STATE_WITHOUT_DETAILS, rest)) => {
                codec::decode(rest).map(|identity| (identity, None)).map_err(|_| newer())
            }
            _ => Err(newer()),
        }
    }
}

/// The host's boot id.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::name::{ImageName, VariableName};
    use proto::path::Absolute;
    use proto::secret::Secret;
    use proto::task_spec::{Image, TaskSpec, Variable};

    fn identity() -> Identity {
        Identity {
            key: "0e8b1c2d-1111-2222-3333-444455556666/web/00c0ffee".parse().unwrap(),
            unit: "nomad-nspawn-abc.service".to_owned(),
            machine: MachineName::new("web-0e8b1c2d").unwrap(),
            boot: "boot".to_owned(),
            stop_signal: 37,
            uid_base: Some(524_288),
            started_ms: 1,
        }
    }

    fn config() -> TaskConfig {
        TaskConfig {
            id: identity().key.to_string(),
            name: "web".to_owned(),
            alloc_id: "0e8b1c2d-1111-2222-3333-444455556666".to_owned(),
            env: [("TOKEN".to_owned(), "canary".to_owned())].into(),
            device_env: [("TOKEN".to_owned(), "canary".to_owned())].into(),
            msgpack_driver_config: b"canary".to_vec(),
            ..TaskConfig::default()
        }
    }

    fn details() -> Details {
        let key = identity().key;
        let alloc = Absolute::parse("/a").unwrap();
        let image = Image::Named(ImageName::new("busybox").unwrap());
        let mut spec = TaskSpec::new(key, alloc, image);
        spec.environment = vec![Variable {
            name: VariableName::new("TOKEN").unwrap(),
            value: Secret::new("kept"),
        }];
        spec.process.directory = Some(Absolute::parse("/local").unwrap());
        let context = Context::of(&spec);
        let (image, address) = ("busybox".to_owned(), [10, 0, 0, 1].into());
        let network = Some(Advertised { address, ports: vec![("http".to_owned(), 8080)] });
        Details { context, image, addresses: vec![address], network }
    }

    #[test]
    fn handles_round_trip_with_one_copy_of_the_environment() {
        let handle = identity().to_handle(&details(), &config()).unwrap();
        assert_eq!(Identity::from_handle(&handle), Ok((identity(), Some(details()))));
        assert!(!format!("{:?}", details()).contains("kept"));
        let echoed = handle.config.unwrap();
        assert!(!format!("{echoed:?}").contains("canary"));
        assert_eq!((echoed.id, echoed.name), (config().id, config().name));
        assert_eq!(echoed.alloc_id, config().alloc_id);
    }

    #[test]
    fn handles_of_the_first_form_have_no_details() {
        let mut handle = identity().to_handle(&details(), &config()).unwrap();
        handle.driver_state = vec![1];
        handle.driver_state.extend(codec::encode(&identity()).unwrap());
        assert_eq!(Identity::from_handle(&handle), Ok((identity(), None)));
    }

    #[test]
    fn handles_of_the_second_form_have_no_network() {
        let mut handle = identity().to_handle(&details(), &config()).unwrap();
        let Details { context, image, addresses, .. } = details();
        handle.driver_state = vec![2];
        let second = (identity(), (context, image, addresses));
        handle.driver_state.extend(codec::encode_whole(&second).unwrap());
        let expected = Details { network: None, ..details() };
        assert_eq!(Identity::from_handle(&handle), Ok((identity(), Some(expected))));
    }

    #[test]
    fn foreign_handles_are_named() {
        let handle = identity().to_handle(&details(), &config()).unwrap();
        let old = TaskHandle { version: OLDER_DRIVER, ..handle.clone() };
        assert!(Identity::from_handle(&old).is_err());
        let mut newer = handle.clone();
        newer.driver_state[0] = 9;
        assert!(Identity::from_handle(&newer).is_err());
        let empty = TaskHandle { driver_state: Vec::new(), ..handle };
        assert!(Identity::from_handle(&empty).is_err());
    }

    proptest! {
        #[test]
        fn hostile_states_never_panic(state in proptest::collection::vec(any::<u8>(), 0..200)) {
            let handle = TaskHandle { version: 2, driver_state: state, ..TaskHandle::default() };
            Identity::from_handle(&handle).ok();
        }
    }
}
