//! The task's allocation: where it is, and what of it a task may see, change and have as
//! credential.
//!
//! Trusts the policy's `alloc_dirs`, not the specification's path; judges names alone, and never
//! what lies there: the launcher walks every place from the policy's directory without following a
//! link.

use proto::path::{Component, Relative};
use proto::plan::{Place, TaskDirs};
use proto::task_spec::TaskSpec;
use proto::task_spec::files::{Credential, CredentialContent};

use super::{Denial, Policy, invalid, place_below, refuse};

/// The task's directories below the allocation.
pub(super) fn task_dirs(spec: &TaskSpec, policy: &Policy) -> Result<TaskDirs, Denial> {
    let path = &spec.alloc_dir;
    let object = format!("allocation directory {path}");
    let alloc_dir = place_below(path, policy.nomad.alloc_dirs.iter()).ok_or_else(|| {
        let reason = "lies below no directory of [nomad] alloc_dirs in the policy file; add the \
                      agent's client.alloc_dir (default: its data_dir with /alloc) there";
        refuse("nomad.alloc_dirs", &object, reason)
    })?;
    match alloc_dir.below.components() {
        [name] if name.as_str() == spec.key.alloc.to_string() => Ok(TaskDirs {
            alloc_dir,
            task: spec.key.task.clone(),
            agent_uid: policy.nomad.agent_uid,
        }),
        _ => Err(refuse(
            "nomad.alloc_dirs",
            object,
            "its last component must be the allocation's id, directly below alloc_dirs",
        )),
    }
}

/// A place below the task's own directory.
pub(super) fn of_task(below: &Relative, writes: bool, dirs: &TaskDirs) -> Result<Place, Denial> {
    let task = Component::new(dirs.task.as_str()).map_err(|e| invalid("path", &dirs.task, e))?;
    place(&[std::slice::from_ref(&task), below.components()].concat(), writes, dirs)
}

/// A place below the allocation: walked from the policy's directory, because the agent's account
/// may be able to put a link in the allocation's place.
pub(super) fn place(below: &[Component], writes: bool, dirs: &TaskDirs) -> Result<Place, Denial> {
    let names: Vec<_> = below.iter().map(Component::as_str).collect();
    let own = dirs.task.as_str();
    let reason = match names[..] {
        ["alloc"] | ["alloc", "logs", ..] if writes => {
            "is or holds the directory of Nomad's logs, whose files the agent opens by name as \
             root; bind it read-only, or a directory such as alloc/data"
        }
        ["alloc", ..] | [_, "local", ..] => return at(below, dirs),
        [task, "secrets" | "tmp", ..] if task == own => return at(below, dirs),
        // Whatever else lies there is Nomad's, another task's, or, in the root of an exec task, a
        // hard link of one of the host's own files.
        _ => {
            "is nothing of the allocation that this task may have: alloc, local of a task, and its \
             own secrets and tmp; a refusal that no line of the policy file lifts ([nomad] alloc_dirs)"
        }
    };
    let object = format!("bind of {}/{}", dirs.alloc_dir, names.join("/"));
    Err(refuse("nomad.alloc_dirs", object, reason))
}

fn at(below: &[Component], dirs: &TaskDirs) -> Result<Place, Denial> {
    let Place { root, below: alloc } = dirs.alloc_dir.clone();
    let below = Relative::new([alloc.components(), below].concat())
        .map_err(|e| invalid("path", format!("a place below {root}"), e))?;
    Ok(Place { root, below })
}

/// Checks a credential, whose file the launcher reads as root.
pub(super) fn check_credential(credential: &Credential, dirs: &TaskDirs) -> Result<(), Denial> {
    if let CredentialContent::File(below) = &credential.content {
        let first = below.components().first().map(Component::as_str);
        if !matches!(first, Some("secrets" | "local")) {
            let from = below.to_path();
            let object = format!("credential {} from {}", credential.name, from.display());
            let reason = "lies outside the task's own secrets and local directories; have the file \
                          written to one of them";
            return Err(refuse("nomad.alloc_dirs", object, reason));
        }
        of_task(below, false, dirs)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{ALLOC, COMPAT, Change, absolute, bind, change, check, row, target};
    use proto::task_spec::files::{CredentialName, Overlay, Source, Upper};

    fn alloc_dir(path: &'static str) -> Change {
        Box::new(move |s| s.alloc_dir = absolute(&path.replace("OWN", ALLOC)))
    }

    fn below(path: &str) -> Relative {
        absolute(&format!("/{path}")).below(&absolute("/")).unwrap()
    }

    /// A bind of a directory of its own allocation.
    fn own(path: &'static str, read_only: bool) -> Change {
        let path = format!("/var/lib/nomad/alloc/OWN/{path}");
        change(move |s| s.files.binds = vec![bind(&path, read_only)])
    }

    /// The same as the directory for an overlay's changes, by its path below the task's directory.
    fn upper(path: &'static str) -> Change {
        let (lower, upper) = (Source::Task(below("local")), Source::Task(below(path)));
        let overlay =
            Overlay { lower: vec![lower], upper: Upper::Directory(upper), target: target("/o") };
        change(move |s| s.files.overlays = vec![overlay.clone()])
    }

    fn secret(path: &'static str) -> Change {
        let content = CredentialContent::File(below(path));
        let name = CredentialName::new("token").unwrap();
        let credential = Credential { name, content, encrypted: false };
        change(move |s| s.files.credentials = vec![credential.clone()])
    }

    type Make = fn() -> Change;

    /// Refused and allowed alike whatever the preset.
    fn check_both(words: &'static str, rows: Vec<(Make, Make)>) {
        for (no, yes) in rows {
            for file in ["", COMPAT] {
                check(vec![row("nomad.alloc_dirs", words, (file, no()), (file, yes()))]);
            }
        }
    }

    #[test]
    fn a_task_has_what_is_listed_of_its_allocation_and_nothing_else() {
        check_both(
            "nothing of the allocation that this task may have",
            vec![
                (|| own("", true), || own("alloc", true)),
                (|| own("web", true), || own("web/local", true)),
                (|| own("web/private", false), || own("web/secrets", false)),
                (|| own("web/etc", true), || own("web/tmp/x", false)),
                (|| own("other/private/x", false), || own("other/local/x", false)),
                (|| own("other/secrets", true), || own("alloc/secrets", true)),
                (|| own("other/tmp", true), || own("alloc/tmp", true)),
            ],
        );
    }

    /// An exec task's root is made of hard links of the host's files, with `alloc` in it once more.
    #[test]
    fn s2_the_root_of_an_exec_task_is_out_of_reach() {
        let lower = |path: &'static str| {
            let host = absolute(&format!("/var/lib/nomad/alloc/{ALLOC}/{path}"));
            let (lower, target) = (vec![Source::Host(host)], target("/o"));
            let overlay = Overlay { lower, upper: Upper::Ephemeral, target };
            change(move |s| s.files.overlays = vec![overlay.clone()])
        };
        check_both(
            "nothing of the allocation that this task may have",
            vec![
                (|| own("other/etc/crontab", false), || own("other/local/crontab", false)),
                (|| own("other/etc/crontab", true), || own("other/local/crontab", true)),
                (|| own("other/usr/bin", true), || own("alloc/usr/bin", true)),
                (|| own("other/alloc/data", true), || own("alloc/data", true)),
                (|| own("other/locals", true), || own("other/local", true)),
                (|| upper("etc"), || upper("local/etc")),
                (|| upper("alloc/data"), || upper("tmp")),
            ],
        );
        for file in ["", COMPAT] {
            let words = "nothing of the allocation";
            let good = (file, lower("other/local/etc"));
            check(vec![row("nomad.alloc_dirs", words, (file, lower("other/etc")), good)]);
        }
    }

    #[test]
    fn no_task_writes_where_the_agent_opens_logs_by_name() {
        let propagated = || {
            let read_only = own("alloc", true);
            change(move |s| {
                read_only(s);
                s.files.binds.iter_mut().for_each(|bind| bind.propagated = true);
            })
        };
        let words = "directory of Nomad's logs";
        check_both(
            words,
            vec![
                (|| own("alloc", false), || own("alloc", true)),
                (|| own("alloc/logs", false), || own("alloc/logs", true)),
                (|| own("alloc/logs/x", false), || own("alloc/data", false)),
                (|| own("alloc/logs", false), || own("alloc/alloc/logs", false)),
            ],
        );
        let read = ("", own("alloc", true));
        check(vec![row("nomad.alloc_dirs", words, ("", propagated()), read)]);
    }

    /// What the driver takes from a job is no bound of a driver that sends what it likes.
    #[test]
    fn credentials_are_files_of_the_tasks_own_directories() {
        check_both(
            "lies outside the task's own secrets and local",
            vec![
                (|| secret("private/vault_token"), || secret("secrets/vault_token")),
                (|| secret("private"), || secret("local/private/x")),
                (|| secret("tmp/x"), || secret("local/x")),
                (|| secret("alloc/logs/x"), || secret("secrets/a/b")),
                (|| secret(""), || secret("secrets")),
            ],
        );
    }

    #[test]
    fn a_place_of_the_allocation_has_a_bounded_depth() {
        let deep = |depth: usize| secret(Box::leak(format!("local{}", "/a".repeat(depth)).into()));
        crate::tests::check_invalid(vec![("at most 64 components", deep(62), deep(61))]);
    }

    #[test]
    fn only_the_own_allocation_is_mounted() {
        let rule = "nomad.alloc_dirs";
        let own = || ("", alloc_dir("/opt/nomad/data/alloc/OWN"));
        let id = "allocation's id";
        check(vec![
            row(rule, id, ("", alloc_dir("/var/lib/nomad/alloc")), own()),
            row(rule, id, ("", alloc_dir("/var/lib/nomad/alloc/x/OWN")), own()),
            row(
                rule,
                id,
                ("", alloc_dir("/var/lib/nomad/alloc/17070707-0707-0707-0707-070707070707")),
                own(),
            ),
            row(
                rule,
                "[nomad] alloc_dirs",
                ("", alloc_dir("/tmp/OWN")),
                ("[nomad]\nalloc_dirs = [\"/tmp\"]", alloc_dir("/tmp/OWN")),
            ),
        ]);
    }
}
