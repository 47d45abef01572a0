//! Files of a unit's cgroup (version 2), read as any local user could.

use std::path::{Path, PathBuf};

const CGROUPS: &str = "/sys/fs/cgroup";

/// The directory of a control group, as PID 1 names it.
pub(crate) fn directory(control_group: &str) -> Option<PathBuf> {
    let path = Path::new(CGROUPS).join(control_group.trim_start_matches('/'));
    (!path.components().any(|c| c.as_os_str() == "..")).then_some(path)
}

/// The values of these fields in a file of lines `name value`; `None` for those that are not there.
pub(crate) fn fields<const N: usize>(text: &str, names: [&str; N]) -> [Option<u64>; N] {
    let mut values = [None; N];
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        let known = names.iter().zip(&mut values).find(|(known, _)| **known == name);
        if let Some((_, place)) = known {
            *place = value.trim().parse().ok();
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_names() {
        let text = "anon 1\nanon_thp 2\nfile x\nkernel 3";
        let found = fields(text, ["kernel", "anon", "file", "none"]);
        assert_eq!(found, [Some(3), Some(1), None, None]);
    }
}
