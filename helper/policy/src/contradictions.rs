//! Numbers out of range, and wishes that exclude each other.
//! They are refused under every policy.

use proto::limits::READY_TIMEOUT_MAX_S;
use proto::task_spec::process::Ready;
use proto::task_spec::{ImageKind, Logs, Network, Ownership, Payload, Root, TaskSpec};

use super::{Denial, devices, invalid};

pub(super) fn check(spec: &TaskSpec) -> Result<(), Denial> {
    check_root(spec)?;
    check_process(spec)?;
    spec.files.devices.iter().try_for_each(devices::check)?;
    for limit in &spec.isolation.limits {
        // No limit is the highest.
        if limit.soft.unwrap_or(u64::MAX) > limit.hard.unwrap_or(u64::MAX) {
            let object = format!("process limit {}", limit.resource.name());
            return Err(invalid("limit", object, "the soft limit is above the hard limit"));
        }
    }
    for tmpfs in &spec.files.tmpfs {
        if let Some(mode) = tmpfs.mode.filter(|mode| *mode > 0o7777) {
            let object = format!("mode {mode:o} of the tmpfs at {}", tmpfs.target);
            return Err(invalid("mode", object, "at most 7777"));
        }
    }
    Ok(())
}

fn check_root(spec: &TaskSpec) -> Result<(), Denial> {
    let object = "private_users_ownership";
    let bad = |reason| Err(invalid("ownership", object, reason));
    match spec.root.ownership {
        Ownership::Map => Ok(()),
        _ if !spec.users.isolates() => bad("has no meaning without a user namespace"),
        Ownership::Off => Ok(()),
        Ownership::Chown if spec.root.mode != Root::Plain => {
            bad("chown changes the image: not with ephemeral, read_only or volatile")
        }
        Ownership::Chown if spec.root.kind != ImageKind::Tree => {
            bad("chown needs an image that is a directory")
        }
        Ownership::Chown => Ok(()),
    }
}

fn check_process(spec: &TaskSpec) -> Result<(), Denial> {
    let boots = matches!(spec.payload, Payload::Boot { .. });
    if spec.process.user.is_some() && boots {
        return Err(invalid("user", "user", "a booted image decides on users itself"));
    }
    let ready = spec.process.ready;
    if ready.is_notified() && matches!(spec.payload, Payload::ProcessTwo { .. }) {
        let reason = "the stub init of process_two does not pass READY=1 on";
        return Err(invalid("ready", "ready = notify", reason));
    }
    if matches!((ready, &spec.network), (Ready::Network { .. }, Network::Loopback)) {
        let reason = "a network that is loopback alone has no address";
        return Err(invalid("ready", "ready = network", reason));
    }
    if let Some(timeout_s) = ready.limit_s()
        && !(1..=READY_TIMEOUT_MAX_S).contains(&timeout_s)
    {
        return Err(invalid("ready", format!("ready timeout {timeout_s} s"), "1 to 3,600 s"));
    }
    if let Logs::Container { priority } = spec.logs {
        if !boots {
            return Err(invalid("logs", "journal = true", "only a booted image has a journal"));
        }
        if priority > 7 {
            return Err(invalid("logs", format!("priority {priority}"), "0 to 7 (syslog(3))"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::tests::{Change, change, check_invalid, device, target};
    use proto::task_spec::files::Tmpfs;
    use proto::task_spec::process::{LimitName, ProcessLimit, Ready, User};
    use proto::task_spec::{ImageKind, Logs, Ownership, Payload, Root, RootFs, Users, Volatile};

    const BOOT: Payload = Payload::Boot { arguments: Vec::new() };
    const STUB: Payload = Payload::ProcessTwo { words: Vec::new() };

    fn owned(ownership: Ownership, mode: Root, kind: ImageKind, users: Users) -> Change {
        change(move |s| {
            s.root = RootFs { ownership, kind, ..RootFs::tree(mode) };
            s.users = users;
        })
    }

    fn ready(timeout_s: u32, payload: Payload) -> Change {
        change(move |s| {
            s.process.ready = Ready::Notify { timeout_s };
            s.payload = payload.clone();
        })
    }

    fn journal(priority: u8, payload: Payload) -> Change {
        change(move |s| {
            s.logs = Logs::Container { priority };
            s.payload = payload.clone();
        })
    }

    fn user(payload: Payload) -> Change {
        change(move |s| {
            s.process.user = Some(User::parse("www-data").unwrap());
            s.payload = payload.clone();
        })
    }

    fn limit(soft: Option<u64>, hard: Option<u64>) -> Change {
        let resource = LimitName::OpenFiles;
        change(move |s| s.isolation.limits = vec![ProcessLimit { resource, soft, hard }])
    }

    fn mode(mode: u16) -> Change {
        let target = target("/cache");
        let (size, inodes, mode) = (None, None, Some(mode));
        let tmpfs = Tmpfs { target, size, inodes, mode, read_only: false, executable: false };
        change(move |s| s.files.tmpfs = vec![tmpfs.clone()])
    }

    fn device_of(path: &'static str, letters: &'static str) -> Change {
        change(move |s| s.files.devices = vec![device(path, letters)])
    }

    #[test]
    fn wishes_do_not_exclude_each_other() {
        use ImageKind::{Disk, Tree};
        use Ownership::{Chown, Off};
        let command = || Payload::Command { words: Vec::new() };
        let (pick, host) = (Users::Pick, Users::Host);
        let chown = || owned(Chown, Root::Plain, Tree, pick);
        let volatile = Root::Volatile(Volatile::State);
        check_invalid(vec![
            ("chown changes", owned(Chown, Root::ReadOnly, Tree, pick), chown()),
            ("chown changes", owned(Chown, volatile, Tree, pick), owned(Off, volatile, Tree, pick)),
            ("directory", owned(Chown, Root::Plain, Disk, pick), chown()),
            ("without a user", owned(Chown, Root::Plain, Tree, host), chown()),
            ("without a user", owned(Off, Root::Plain, Tree, Users::Identity), {
                owned(Off, Root::Plain, Disk, Users::Fixed { base: 524_288, width: 65_536 })
            }),
            ("stub init", ready(5, STUB), ready(5, command())),
            ("1 to 3,600", ready(0, BOOT), ready(1, BOOT)),
            ("1 to 3,600", ready(3601, BOOT), ready(3600, BOOT)),
            ("booted image decides", user(BOOT), user(STUB)),
            ("only a booted image", journal(3, command()), journal(3, BOOT)),
            ("0 to 7", journal(8, BOOT), journal(7, BOOT)),
        ]);
    }

    #[test]
    fn numbers_have_ranges() {
        check_invalid(vec![
            ("above the hard limit", limit(Some(2), Some(1)), limit(Some(1), Some(1))),
            ("above the hard limit", limit(None, Some(1)), limit(Some(1), None)),
            ("at most 7777", mode(0o10000), mode(0o7777)),
            ("some of r, w and m", device_of("/dev/null", ""), device_of("/dev/null", "m")),
            ("DeviceAllow=", device_of("/dev/a b", "r"), device_of("/dev/a-b", "r")),
            ("DeviceAllow=", device_of("/dev/a%n", "r"), device_of("/dev/a,n=@+:_.", "r")),
        ]);
    }
}
