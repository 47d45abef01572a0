//! Credentials for PID 1 of the container. Their content never reaches a message.

use std::collections::HashSet;

use proto::limits;
use proto::secret::Secret;
use proto::task_spec::files::{Credential, CredentialContent, CredentialName};

use super::paths::below;
use crate::config::Problem;
use crate::config::block_keys::CredentialKeys;
use crate::config::task::TaskKeys;

/// The job's credentials.
pub(crate) fn credentials(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Vec<Credential> {
    let mut names = HashSet::new();
    let mut credentials = Vec::new();
    for (index, block) in keys.credential.0.iter().enumerate() {
        let key = format!("credential[{index}]");
        if !names.insert(block.name.as_str()) {
            problems.push(Problem::new(&key, "its name is there twice").value(&block.name));
        }
        credentials.extend(credential(&key, block, problems));
    }
    credentials
}

fn credential(
    key: &str,
    block: &CredentialKeys,
    problems: &mut Vec<Problem>,
) -> Option<Credential> {
    let name = CredentialName::new(&block.name)
        .map_err(|e| {
            let problem = Problem::new(format!("{key}.name"), e.to_string());
            problems.push(problem.value(&block.name));
        })
        .ok();
    let content = match (&block.source, &block.value) {
        (Some(source), None) => parse_source(&format!("{key}.source"), source, problems),
        (None, Some(value)) if value.0.len() > limits::CREDENTIAL_MAX => {
            problems.push(
                Problem::new(format!("{key}.value"), "at most 1 MiB")
                    .remedy("write a file with a template block and name it as source"),
            );
            None
        }
        (None, Some(value)) => Some(CredentialContent::Value(Secret::new(value.0.as_str()))),
        _ => {
            problems.push(
                Problem::new(key, "needs exactly one of source and value")
                    .remedy("source = \"secrets/name\" for a file that a template writes"),
            );
            None
        }
    };
    Some(Credential { name: name?, content: content?, encrypted: block.encrypted })
}

/// A file below the task's secrets or local directory, by its path below the task's directory or by
/// the one that it has inside.
fn parse_source(key: &str, text: &str, problems: &mut Vec<Problem>) -> Option<CredentialContent> {
    let path = below(text).ok().filter(|path| {
        let parts = path.components();
        parts.len() > 1
            && parts.first().is_some_and(|first| matches!(first.as_str(), "secrets" | "local"))
    });
    if path.is_none() {
        problems.push(
            Problem::new(key, "must be a file below the task's secrets or local directory")
                .value(text)
                .remedy("e.g. secrets/name or ${NOMAD_SECRETS_DIR}/name"),
        );
    }
    path.map(CredentialContent::File)
}
