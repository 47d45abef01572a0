//! What the node reports to Nomad about this driver: whether tasks can be placed, and why not.
//!
//! Messages are constant as long as the state is: each change becomes an event of the node.

use std::collections::HashMap;
use std::path::Path;

use nomad_proto::drivers::FingerprintResponse;
use nomad_proto::drivers::fingerprint_response::HealthState;
use nomad_proto::structs::{Attribute, attribute::Value};
use proto::systemd::{self, Unfit};
use proto::wire::Welcome;

use crate::config::plugin::PluginConfig;
use crate::helper_client::Health;
use crate::startup::privilege::{Standing, account_missing};
use crate::startup::sandbox::Sandbox;

/// Where the kernel lists the controllers of cgroup v2 (cgroups(7)).
const CONTROLLERS: &str = "/sys/fs/cgroup/cgroup.controllers";

/// The fingerprint for a state of things.
pub(crate) fn take(
    config: &PluginConfig,
    standing: &Standing,
    sandbox: &Sandbox,
    helper: &Health,
) -> FingerprintResponse {
    let (health, description) = match (config.enabled, standing, helper) {
        (false, ..) => (HealthState::Undetected, "disabled".to_owned()),
        (_, Standing::Nobody { .. }, _) => (HealthState::Unhealthy, account_missing()),
        (_, _, Health::Up(welcome)) => match unfit(welcome) {
            Some(reason) => (HealthState::Unhealthy, reason),
            None => (HealthState::Healthy, "Healthy".to_owned()),
        },
        (_, _, Health::Down(down)) => (HealthState::Unhealthy, down.to_string()),
        (_, _, Health::Unknown) => {
            (HealthState::Unhealthy, "the nspawn helper has not answered yet".to_owned())
        }
    };
    FingerprintResponse {
        attributes: attributes(config, standing, sandbox, helper),
        health: health.into(),
        health_description: description,
        err: String::new(),
    }
}

/// Why no task should be placed on this systemd.
fn unfit(welcome: &Welcome) -> Option<String> {
    let version = &welcome.systemd_text;
    // A greeting is not repeated while the connection holds; the helper judges each start again.
    let reason = systemd::unfit(version)
        .filter(|reason| *reason != Unfit::Unknown && !welcome.systemd_accepted)?;
    Some(format!(
        "systemd {version} {reason}; update systemd and restart the node, or, when your \
         distribution has the fix under this number, add \"{version}\" to [systemd] accept in \
         the helper's policy file"
    ))
}

fn attributes(
    config: &PluginConfig,
    standing: &Standing,
    sandbox: &Sandbox,
    helper: &Health,
) -> HashMap<String, Attribute> {
    let mut attributes = HashMap::new();
    let mut set = |name: &str, value: Value| {
        let name = match name {
            "" => "driver.nspawn".to_owned(),
            name => format!("driver.nspawn.{name}"),
        };
        let attribute = Attribute { value: Some(value), unit: String::new() };
        attributes.insert(name, attribute);
    };
    if !config.enabled {
        return attributes;
    }
    set("sandbox", Value::StringVal(describe_confinement(standing, sandbox)));
    if let Health::Up(welcome) = helper {
        set("", Value::BoolVal(true));
        // As the older driver: the major version as text.
        set("version", Value::StringVal(welcome.systemd.to_string()));
        set("systemd", Value::StringVal(welcome.systemd_text.clone()));
        set("volumes", Value::BoolVal(config.volumes));
        set("helper", Value::StringVal(welcome.helper.clone()));
        set("host_network", Value::BoolVal(welcome.host_network));
        set("host_users", Value::BoolVal(welcome.host_users));
        set("exec", Value::BoolVal(welcome.exec));
        set("controllers", Value::StringVal(controllers(Path::new(CONTROLLERS))));
    }
    attributes
}

/// Controllers of cgroup v2 that the kernel has: limits hold and statistics exist for these alone.
fn controllers(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut names: Vec<_> = text.split_whitespace().collect();
    names.sort_unstable();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// What confines the plugin process, in a few words.
fn describe_confinement(standing: &Standing, sandbox: &Sandbox) -> String {
    let uid = standing.uid();
    match standing {
        Standing::Account { .. } | Standing::Nobody { .. } => {
            format!("uid {uid}, no capabilities, no_new_privs, {sandbox}")
        }
        Standing::Agent { .. } => {
            format!(
                "uid {uid} of an agent that is not root (experimental), no_new_privs, {sandbox}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper_client::connection::Down;
    use std::sync::Arc;

    fn up() -> Health {
        Health::Up(Arc::new(Welcome {
            version: 1,
            features: 0,
            epoch: 7,
            helper: "0.1.0".to_owned(),
            systemd: 257,
            systemd_text: "257.13-1~deb13u1".to_owned(),
            systemd_accepted: false,
            host_network: false,
            host_users: false,
            exec: true,
        }))
    }

    const ACCOUNT: Standing = Standing::Account { uid: 997, gid: 997 };

    #[test]
    fn each_state_has_its_own_health() {
        let config = PluginConfig::default();
        let health = |config: &PluginConfig, standing: &Standing, helper: &Health| {
            let fingerprint = take(config, standing, &Sandbox::FULL, helper);
            (fingerprint.health(), fingerprint.health_description)
        };
        assert_eq!(health(&config, &ACCOUNT, &up()), (HealthState::Healthy, "Healthy".to_owned()));
        let (state, text) =
            health(&config, &ACCOUNT, &Health::Down(Down::Absent { socket: "/run/x".into() }));
        assert_eq!(state, HealthState::Unhealthy);
        assert!(text.contains("systemctl enable --now"), "{text}");
        let (state, text) = health(&config, &Standing::Nobody { uid: 61_000 }, &up());
        assert_eq!(state, HealthState::Unhealthy);
        assert!(text.contains("systemd-sysusers"), "{text}");
        let disabled = PluginConfig { enabled: false, ..PluginConfig::default() };
        assert_eq!(
            health(&disabled, &ACCOUNT, &up()),
            (HealthState::Undetected, "disabled".to_owned())
        );
    }

    #[test]
    fn a_systemd_with_known_holes_is_unhealthy_unless_the_policy_accepts_it() {
        let with = |version: &str, accepted: bool| {
            let Health::Up(welcome) = up() else { panic!() };
            let mut welcome = (*welcome).clone();
            welcome.systemd_text = version.to_owned();
            welcome.systemd_accepted = accepted;
            let fingerprint = take(
                &PluginConfig::default(),
                &ACCOUNT,
                &Sandbox::FULL,
                &Health::Up(Arc::new(welcome)),
            );
            (fingerprint.health(), fingerprint.health_description)
        };
        let (state, text) = with("255.4-1ubuntu8", false);
        assert_eq!(state, HealthState::Unhealthy);
        assert!(text.contains("CVE-2026-40226") && text.contains("255.4-1ubuntu8"), "{text}");
        let (state, text) = with("247.3-7", false);
        assert_eq!(state, HealthState::Unhealthy);
        assert!(text.contains("too old"), "{text}");
        assert_eq!(with("255.4-1ubuntu8", true).0, HealthState::Healthy);
        assert_eq!(with("", false).0, HealthState::Healthy);
    }

    #[test]
    fn attributes_are_the_older_drivers_and_more() {
        let attributes = take(&PluginConfig::default(), &ACCOUNT, &Sandbox::FULL, &up()).attributes;
        let value = |name: &str| attributes[name].value.clone().unwrap();
        assert_eq!(value("driver.nspawn"), Value::BoolVal(true));
        assert_eq!(value("driver.nspawn.version"), Value::StringVal("257".to_owned()));
        assert_eq!(value("driver.nspawn.volumes"), Value::BoolVal(true));
        assert_eq!(value("driver.nspawn.exec"), Value::BoolVal(true));
        assert!(matches!(value("driver.nspawn.controllers"), Value::StringVal(_)));
        let Health::Up(welcome) = up() else { panic!() };
        let refuses = Health::Up(Arc::new(Welcome { exec: false, ..(*welcome).clone() }));
        let attributes =
            take(&PluginConfig::default(), &ACCOUNT, &Sandbox::FULL, &refuses).attributes;
        assert_eq!(attributes["driver.nspawn.exec"].value, Some(Value::BoolVal(false)));
    }

    #[test]
    fn controllers_are_in_one_order_and_their_absence_is_told() {
        let file = std::env::temp_dir().join(format!("controllers-{}", std::process::id()));
        for (text, seen) in [("pids cpu memory\n", "cpu memory pids"), ("\n", "none")] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(controllers(&file), seen);
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(controllers(&file), "none");
    }
}
