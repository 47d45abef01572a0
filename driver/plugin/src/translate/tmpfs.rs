//! File systems in memory.

use proto::task_spec::files::Tmpfs;

use super::paths::split;
use super::targets::Targets;
use crate::config::Problem;
use crate::config::task::TaskKeys;
use crate::config::value::Size;

/// Where every distribution lets all users write, and nobody remove what is another's.
const OPEN_TO_ALL: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Those of the job's `tmpfs`.
pub(crate) fn read_list(
    keys: &TaskKeys,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Vec<Tmpfs> {
    let mut file_systems = Vec::new();
    for text in &keys.tmpfs {
        let key = format!("tmpfs {text:?}");
        let parts = split(text);
        let (target, options) = match parts.as_slice() {
            [target] => (target, ""),
            [target, options] => (target, options.as_str()),
            _ => {
                problems.push(Problem::new(key, "must be a path, and options behind one colon"));
                continue;
            }
        };
        let options = options.split(',').filter(|option| !option.is_empty());
        file_systems.extend(build(&key, target, options, targets, problems));
    }
    file_systems
}

/// One file system with systemd-nspawn's options.
pub(crate) fn build<'a>(
    key: &str,
    target: &str,
    options: impl Iterator<Item = &'a str>,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Option<Tmpfs> {
    let target = targets.take(key, target, problems)?;
    let mut tmpfs = Tmpfs {
        mode: OPEN_TO_ALL.contains(&target.to_string().as_str()).then_some(0o1777),
        target,
        size: None,
        inodes: None,
        read_only: false,
        executable: true,
    };
    let before = problems.len();
    for option in options {
        if apply_option(&mut tmpfs, option).is_none() {
            problems.push(Problem::new(key, "knows no such option").value(option).remedy(
                "size=BYTES (also with k, m, g), nr_inodes=N, mode=OCTAL, ro, rw, exec, noexec",
            ));
        }
    }
    (problems.len() == before).then_some(tmpfs)
}

/// Takes one option over; `None` when it is not known or its value is wrong.
fn apply_option(tmpfs: &mut Tmpfs, option: &str) -> Option<()> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    match name {
        "ro" => tmpfs.read_only = true,
        "rw" => tmpfs.read_only = false,
        "exec" => tmpfs.executable = true,
        "noexec" => tmpfs.executable = false,
        // They hold anyway.
        "nosuid" | "nodev" => {}
        "size" => tmpfs.size = Some(parse_size(value)?),
        "nr_inodes" => tmpfs.inodes = Some(parse_size(value)?),
        "mode" => {
            let mode = u16::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
            tmpfs.mode = Some(mode?);
        }
        _ => return None,
    }
    Some(())
}

fn parse_size(text: &str) -> Option<u64> {
    Size::parse(text).map(|size| size.0).filter(|size| *size > 0)
}
