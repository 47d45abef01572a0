//! Process limits that a task runs with, beside those that its job asks for.
//!
//! PID 1 and systemd-nspawn take the closest without an error where the kernel does not let a limit be
//! raised. Trusts /proc. Never fails: what cannot be read is not reported.

use std::fs;

use proto::task_spec::process::{LimitName, ProcessLimit};

/// A sentence for each hard limit that is lower than the job asks for.
pub(crate) fn report_lower(asked: &[ProcessLimit], leader: u32) -> Vec<String> {
    if asked.is_empty() {
        return Vec::new();
    }
    // The payload may be gone again.
    let limits = fs::read_to_string(format!("/proc/{leader}/limits")).unwrap_or_default();
    let files = fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    compare(asked, &limits, files.trim().parse().unwrap_or(u64::MAX))
}

/// `limits`: the text of /proc/PID/limits; `files`: the most that the kernel takes for open files, which
/// is as good as infinity.
fn compare(asked: &[ProcessLimit], limits: &str, files: u64) -> Vec<String> {
    let mut all = Vec::new();
    for limit in asked {
        let hard = |line: &str| {
            let value = line.strip_prefix(title(limit.resource))?.split_whitespace().nth(1)?;
            if value == "unlimited" { Some(u64::MAX) } else { value.parse().ok() }
        };
        let Some(has) = limits.lines().find_map(hard) else { continue };
        let most = if limit.resource == LimitName::OpenFiles { files } else { u64::MAX };
        if has < limit.hard.unwrap_or(u64::MAX).min(most) {
            let name = limit.resource.name().to_ascii_lowercase();
            all.push(format!(
                "ulimit {name}: the hard limit is {has}, lower than asked for: this host, perhaps a \
                 container itself, does not let it be raised"
            ));
        }
    }
    all
}

/// The limit's line in /proc/PID/limits (proc_pid_limits(5)).
fn title(limit: LimitName) -> &'static str {
    match limit {
        LimitName::AddressSpace => "Max address space ",
        LimitName::Core => "Max core file size ",
        LimitName::Cpu => "Max cpu time ",
        LimitName::Data => "Max data size ",
        LimitName::FileSize => "Max file size ",
        LimitName::Locks => "Max file locks ",
        LimitName::LockedMemory => "Max locked memory ",
        LimitName::MessageQueues => "Max msgqueue size ",
        LimitName::Nice => "Max nice priority ",
        LimitName::OpenFiles => "Max open files ",
        LimitName::Processes => "Max processes ",
        LimitName::ResidentSet => "Max resident set ",
        LimitName::RealtimePriority => "Max realtime priority ",
        LimitName::RealtimeTime => "Max realtime timeout ",
        LimitName::PendingSignals => "Max pending signals ",
        LimitName::Stack => "Max stack size ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_its_line() {
        let own = fs::read_to_string("/proc/self/limits").unwrap();
        for limit in LimitName::ALL {
            assert!(own.lines().any(|line| line.starts_with(title(*limit))), "{limit:?}");
        }
    }

    #[test]
    fn a_hard_limit_below_the_asked_one_is_reported() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 20000                files     \n\
                    Max locked memory         8388608              unlimited            bytes     \n";
        let of = |resource, hard, files| {
            compare(&[ProcessLimit { resource, soft: Some(1), hard }], text, files).concat()
        };
        let (files, memory) = (LimitName::OpenFiles, LimitName::LockedMemory);
        assert!(
            of(files, Some(20_001), 1 << 30).starts_with("ulimit nofile: the hard limit is 20000")
        );
        assert!(of(files, None, 1 << 30).contains("lower than asked for"));
        for (resource, hard, most) in
            [(files, Some(20_000), 1 << 30), (files, None, 20_000), (memory, None, 0)]
        {
            assert_eq!(of(resource, hard, most), "");
        }
        assert_eq!(of(LimitName::Core, None, 0), "", "not in the text");
    }
}
