//! How many, and how long: bounds of lists and texts.
//! They hold under every policy, and before anything else looks at the lists.

use std::collections::HashSet;

use proto::limits::{
    ARGUMENT_MAX, ARGUMENTS_MAX, CREDENTIAL_MAX, EGRESS_MAX, ETC_FILE_MAX, LABELS_BYTES_MAX,
    LABELS_MAX, LAYERS_MAX, MOUNTS_MAX, PATHS_MAX, PORTS_MAX, PROPERTIES_MAX, RULES_MAX,
    VARIABLE_MAX, VARIABLES_MAX,
};
use proto::secret::Secret;
use proto::task_spec::files::{CredentialContent, Source, Upper};
use proto::task_spec::output::Label;
use proto::task_spec::resources::Property;
use proto::task_spec::{Payload, TaskSpec, Variable};

use super::{Denial, invalid, targets};

pub(super) fn check(spec: &TaskSpec) -> Result<(), Denial> {
    let (Payload::Boot { arguments: words }
    | Payload::Command { words }
    | Payload::ProcessTwo { words }) = &spec.payload;
    check_words(words)?;
    check_environment(&spec.environment)?;
    let (files, isolation, names) = (&spec.files, &spec.isolation, &spec.names);
    at_most(files.binds.len(), MOUNTS_MAX, "binds")?;
    at_most(files.tmpfs.len(), MOUNTS_MAX, "tmpfs mounts")?;
    at_most(files.overlays.len(), MOUNTS_MAX, "overlays")?;
    at_most(files.inaccessible.len(), MOUNTS_MAX, "inaccessible paths")?;
    at_most(files.devices.len(), MOUNTS_MAX, "devices")?;
    at_most(files.credentials.len(), MOUNTS_MAX, "credentials")?;
    at_most(isolation.syscalls.len(), RULES_MAX, "system call rules")?;
    at_most(isolation.sysctls.len(), RULES_MAX, "sysctls")?;
    at_most(isolation.limits.len(), RULES_MAX, "process limits")?;
    at_most(names.resolver.content().len(), ETC_FILE_MAX, "bytes of /etc/resolv.conf")?;
    at_most(names.hosts.len(), ETC_FILE_MAX, "bytes of /etc/hosts")?;
    at_most(names.localtime.content().len(), ETC_FILE_MAX, "bytes of /etc/localtime")?;
    at_most(spec.labels.len(), LABELS_MAX, "labels")?;
    at_most(spec.labels.iter().map(Label::bytes).sum(), LABELS_BYTES_MAX, "bytes of all labels")?;
    at_most(spec.network.ports().len(), PORTS_MAX, "ports")?;
    let resources = &spec.resources;
    at_most(resources.properties.len(), PROPERTIES_MAX, "properties")?;
    at_most(resources.egress.iter().flatten().count(), EGRESS_MAX, "egress ranges")?;
    for overlay in &files.overlays {
        let object = format!("lower layers of the overlay at {}", overlay.target);
        if overlay.lower.is_empty() {
            return Err(invalid("count", object, "at least 1"));
        }
        at_most(overlay.lower.len(), LAYERS_MAX, &object)?;
    }
    at_most(components(spec), PATHS_MAX, "path components of mounts, devices and credentials")?;
    for credential in &files.credentials {
        if let CredentialContent::Value(value) = &credential.content
            && value.reveal().len() > CREDENTIAL_MAX
        {
            let reason = "at most 1 MiB";
            return Err(invalid("text", format!("credential {}", credential.name), reason));
        }
    }
    once("credential", files.credentials.iter().map(|it| it.name.as_str()))?;
    once("label", spec.labels.iter().map(|it| it.name.as_str()))?;
    once("sysctl", isolation.sysctls.iter().map(|it| it.name.as_str()))?;
    once("process limit", isolation.limits.iter().map(|it| it.resource.name()))?;
    let properties: Vec<String> = resources.properties.iter().map(place).collect();
    once("property", properties.iter().map(String::as_str))
}

/// A property by its name, and by its device where it has one.
fn place(property: &Property) -> String {
    match property {
        Property::MemoryHigh(_) => property.name().to_owned(),
        Property::Io { device, .. } => format!("{} of {device}", property.name()),
    }
}

/// Components of all paths of mounts, devices and credentials.
fn components(spec: &TaskSpec) -> usize {
    let files = &spec.files;
    let source = |it: &Source| match it {
        Source::Host(path) => path.components().len(),
        Source::Task(path) => path.components().len(),
    };
    let upper = |it: &Upper| if let Upper::Directory(it) = it { source(it) } else { 0 };
    let content = |it: &CredentialContent| match it {
        CredentialContent::File(path) => path.components().len(),
        CredentialContent::Value(_) => 0,
    };
    let binds = files.binds.iter().map(|it| source(&it.source));
    let overlays = files
        .overlays
        .iter()
        .map(|it| it.lower.iter().map(source).sum::<usize>() + upper(&it.upper));
    let credentials = files.credentials.iter().map(|it| content(&it.content));
    let devices = files.devices.iter().map(|it| it.host.components().len());
    let targets = targets::all(spec).map(|it| it.path().components().len());
    binds.chain(overlays).chain(credentials).chain(devices).chain(targets).sum()
}

fn at_most(count: usize, most: usize, what: &str) -> Result<(), Denial> {
    if count > most {
        return Err(invalid("count", what, format!("{count}, but at most {most}")));
    }
    Ok(())
}

fn once<'a>(what: &str, mut names: impl Iterator<Item = &'a str>) -> Result<(), Denial> {
    let mut seen = HashSet::new();
    match names.find(|name| !seen.insert(*name)) {
        Some(name) => Err(invalid("twice", format!("{what} {name}"), "given twice")),
        None => Ok(()),
    }
}

/// Of a command's words.
pub(super) fn check_words(words: &[Secret]) -> Result<(), Denial> {
    at_most(words.len(), ARGUMENTS_MAX, "words of the command")?;
    if words.iter().any(|word| word.reveal().len() > ARGUMENT_MAX) {
        return Err(invalid("text", "command", "at most 131,071 bytes a word (execve(2))"));
    }
    if words.iter().any(|word| word.reveal().contains('\0')) {
        return Err(invalid("text", "command", "no NUL byte"));
    }
    Ok(())
}

/// Of an environment.
pub(super) fn check_environment(environment: &[Variable]) -> Result<(), Denial> {
    at_most(environment.len(), VARIABLES_MAX, "variables")?;
    for variable in environment {
        let (name, value) = (variable.name.as_str(), variable.value.reveal());
        let bad = |rule| Err(invalid("text", format!("environment variable {name}"), rule));
        if name.len() + 1 + value.len() > VARIABLE_MAX {
            return bad("at most 131,071 bytes with its name (execve(2))");
        }
        if value.contains('\0') {
            return bad("no NUL byte");
        }
    }
    once("environment variable", environment.iter().map(|it| it.name.as_str()))
}

#[cfg(test)]
mod tests;
