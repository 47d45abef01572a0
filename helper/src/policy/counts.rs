//! How many, and how long: bounds of lists and texts.

use std::collections::HashSet;
use std::hash::Hash;

use proto::limits::{
    ARGUMENT_MAX, ARGUMENTS_MAX, CREDENTIAL_MAX, LAYERS_MAX, MOUNTS_MAX, NAMESERVERS_MAX,
    RULES_MAX, SEARCHES_MAX, VARIABLE_MAX, VARIABLES_MAX,
};
use proto::spec::files::CredentialContent;
use proto::spec::resolver::Resolver;
use proto::spec::{Payload, TaskSpec};

use super::{Denial, invalid};

pub(super) fn check(spec: &TaskSpec) -> Result<(), Denial> {
    check_command(spec)?;
    check_environment(spec)?;
    let (files, isolation) = (&spec.files, &spec.isolation);
    at_most(files.binds.len(), MOUNTS_MAX, "binds")?;
    at_most(files.tmpfs.len(), MOUNTS_MAX, "tmpfs mounts")?;
    at_most(files.overlays.len(), MOUNTS_MAX, "overlays")?;
    at_most(files.inaccessible.len(), MOUNTS_MAX, "inaccessible paths")?;
    at_most(files.devices.len(), MOUNTS_MAX, "devices")?;
    at_most(files.credentials.len(), MOUNTS_MAX, "credentials")?;
    at_most(isolation.syscalls.len(), RULES_MAX, "system call rules")?;
    at_most(isolation.sysctls.len(), RULES_MAX, "sysctls")?;
    at_most(isolation.limits.len(), RULES_MAX, "process limits")?;
    at_most(spec.names.hosts.len(), RULES_MAX, "extra hosts")?;
    at_most(spec.labels.len(), RULES_MAX, "labels")?;
    for overlay in &files.overlays {
        let object = format!("lower layers of the overlay at {}", overlay.target);
        if overlay.lower.is_empty() {
            return Err(invalid("count", object, "at least 1"));
        }
        at_most(overlay.lower.len(), LAYERS_MAX, &object)?;
    }
    if let Resolver::Own { servers, searches, options } = &spec.names.resolver {
        at_most(servers.len(), NAMESERVERS_MAX, "nameservers")?;
        at_most(searches.len(), SEARCHES_MAX, "search domains")?;
        at_most(options.len(), SEARCHES_MAX, "resolver options")?;
    }
    for credential in &files.credentials {
        if let CredentialContent::Value(value) = &credential.content
            && value.reveal().len() > CREDENTIAL_MAX
        {
            return Err(invalid(
                "text",
                format!("credential {}", credential.name),
                "at most 1 MiB",
            ));
        }
    }
    once("credential", files.credentials.iter().map(|it| it.name.as_str()))?;
    once("label", spec.labels.iter().map(|it| it.name.as_str()))?;
    once("sysctl", isolation.sysctls.iter().map(|it| it.name.as_str()))?;
    once("process limit", isolation.limits.iter().map(|it| it.resource.name()))
}

fn at_most(count: usize, most: usize, what: &str) -> Result<(), Denial> {
    if count > most {
        return Err(invalid("count", what, format!("{count}, but at most {most}")));
    }
    Ok(())
}

fn once<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Denial> {
    match first_double(names) {
        Some(name) => Err(invalid("twice", format!("{what} {name}"), "given twice")),
        None => Ok(()),
    }
}

fn first_double<T: Hash + Eq + Copy>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    all.find(|one| !seen.insert(*one))
}

fn check_command(spec: &TaskSpec) -> Result<(), Denial> {
    let words = match &spec.payload {
        Payload::Boot { arguments: words }
        | Payload::Command { words }
        | Payload::ProcessTwo { words } => words,
    };
    if words.len() > ARGUMENTS_MAX {
        return Err(invalid("count", "command", "at most 4,096 words"));
    }
    if words.iter().any(|word| word.reveal().len() > ARGUMENT_MAX) {
        return Err(invalid("text", "command", "at most 131,071 bytes a word (execve(2))"));
    }
    if words.iter().any(|word| word.reveal().contains('\0')) {
        return Err(invalid("text", "command", "no NUL byte"));
    }
    Ok(())
}

fn check_environment(spec: &TaskSpec) -> Result<(), Denial> {
    if spec.environment.len() > VARIABLES_MAX {
        return Err(invalid("count", "environment", "at most 4,096 variables"));
    }
    for variable in &spec.environment {
        let (name, value) = (variable.name.as_str(), variable.value.reveal());
        let bad = |rule| Err(invalid("text", format!("environment variable {name}"), rule));
        if name.len() + 1 + value.len() > VARIABLE_MAX {
            return bad("at most 131,071 bytes with its name (execve(2))");
        }
        if value.contains('\0') {
            return bad("no NUL byte");
        }
    }
    once("environment variable", spec.environment.iter().map(|it| it.name.as_str()))
}
