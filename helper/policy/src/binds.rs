//! Places of the host that a task sees: binds and overlay layers.
//! Judged by path, component by component; the launcher opens them without following a link.

use proto::path::Absolute;
use proto::plan::{Place, PlannedFiles, TaskDirs};
use proto::task_spec::TaskSpec;
use proto::task_spec::files::{Bind, Overlay, Source};

use super::{Denial, Policy, allocation, devices, invalid, place_below, refuse, unlisted};

/// What of [`proto::task_spec::Files`] has a place on the host; the rest is empty.
pub(super) fn files(
    spec: &TaskSpec,
    dirs: &TaskDirs,
    policy: &Policy,
) -> Result<PlannedFiles, Denial> {
    let files = &spec.files;
    let host = Host { spec, dirs, policy };
    let dev = Absolute::parse("/dev").map_err(|e| invalid("device-name", "/dev", e))?;
    let overlay =
        |it: &Overlay| it.placed(|layer| host.place(layer, false), |to| host.place(to, true));
    let device = |it| devices::plan(it, &dev, policy);
    Ok(PlannedFiles {
        binds: files.binds.iter().map(|bind| host.bind(bind)).collect::<Result<_, _>>()?,
        overlays: files.overlays.iter().map(overlay).collect::<Result<_, _>>()?,
        devices: files.devices.iter().map(device).collect::<Result<_, _>>()?,
        unprotected: policy.binds.unprotected.0,
        ..PlannedFiles::default()
    })
}

/// What the host's files are judged by.
struct Host<'a> {
    spec: &'a TaskSpec,
    dirs: &'a TaskDirs,
    policy: &'a Policy,
}

impl Host<'_> {
    fn bind(&self, bind: &Bind) -> Result<Bind<Place>, Denial> {
        // What the host mounts below it later has the host's own flags.
        let writes = !bind.read_only || bind.propagated;
        Ok(bind.placed(self.place(&bind.source, writes)?))
    }

    fn place(&self, source: &Source, writes: bool) -> Result<Place, Denial> {
        match source {
            Source::Task(below) => allocation::of_task(below, writes, self.dirs),
            Source::Host(path) => match path.below(&self.spec.alloc_dir) {
                Some(below) => allocation::place(below.components(), writes, self.dirs),
                None => self.of_host(path, writes),
            },
        }
    }

    /// Elsewhere on the host, as far as the policy lists it.
    fn of_host(&self, path: &Absolute, writes: bool) -> Result<Place, Denial> {
        let policy = self.policy;
        let rule = if writes { "binds.read_write" } else { "binds.read_only" };
        let object = format!("{}bind of {path}", if writes { "" } else { "read-only " });
        let touched = |directories: &[Absolute]| {
            directories.iter().find(|directory| touches(path, directory)).map(ToString::to_string)
        };
        if let Some(denied) = touched(&policy.binds.deny) {
            let reason = format!("is, holds or lies below {denied}, which [binds] deny lists");
            return Err(refuse("binds.deny", object, reason));
        }
        let nomads = || touched(&policy.derived.nomad_data).filter(|_| !self.is_own_volume(path));
        if let Some(never) = touched(&policy.derived.binds_never).or_else(nomads) {
            let reason = format!(
                "is, holds or lies below {never}, which is never bound; only preset = \"compat\" \
                 in the policy file, which makes jobs as good as root, would allow it"
            );
            return Err(refuse("preset", object, reason));
        }
        let read_only = policy.binds.read_only.iter().filter(|_| !writes);
        place_below(path, policy.binds.read_write.iter().chain(read_only))
            .ok_or_else(|| unlisted(rule, object, path))
    }

    /// Whether it is a volume that a storage plugin (CSI) has mounted for this allocation.
    fn is_own_volume(&self, path: &Absolute) -> bool {
        let alloc = self.spec.key.alloc.to_string();
        self.policy.derived.nomad_data.iter().filter_map(|data| path.below(data)).any(|below| {
            match below.components() {
                [client, csi, rest @ ..] => {
                    client.as_str() == "client"
                        && csi.as_str() == "csi"
                        && rest.iter().any(|part| part.as_str() == alloc)
                }
                _ => false,
            }
        })
    }
}

/// Whether one path is, holds or lies below the other.
pub(super) fn touches(one: &Absolute, other: &Absolute) -> bool {
    one.below(other).is_some() || other.below(one).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{ALLOC, COMPAT, Change, absolute, bind, check, judged, row, target};
    use proto::task_spec::files::Upper;

    fn binds(path: &'static str, read_only: bool) -> Change {
        Box::new(move |s| s.files.binds = vec![bind(path, read_only)])
    }

    fn overlay(lower: &'static str, upper: Option<&'static str>) -> Change {
        let host = |path| Source::Host(absolute(path));
        Box::new(move |s| {
            let upper = upper.map_or(Upper::Ephemeral, |path| Upper::Directory(host(path)));
            s.files.overlays =
                vec![Overlay { lower: vec![host(lower)], upper, target: target("/o") }];
        })
    }

    #[test]
    fn binds_begin_below_a_listed_directory() {
        const READ_ONLY: &str = "[binds]\nread_only = [\"/srv\"]";
        const WRITE: &str = "[binds]\nread_write = [\"/srv\"]";
        let (read, write) = ("binds.read_only", "binds.read_write");
        let own = "/var/lib/nomad/alloc/OWN/alloc/data";
        check(vec![
            row(
                read,
                "\"/srv/x\" added to [binds] read_only",
                ("", binds("/srv/x", true)),
                (READ_ONLY, binds("/srv/x", true)),
            ),
            row(
                read,
                "\"/srvx\"",
                (READ_ONLY, binds("/srvx", true)),
                (READ_ONLY, binds("/srv", true)),
            ),
            row(
                write,
                "\"/srv\" added to [binds] read_write",
                (READ_ONLY, binds("/srv", false)),
                (WRITE, binds("/srv", false)),
            ),
            row(
                write,
                "\"/home\"",
                (WRITE, binds("/home", false)),
                (COMPAT, binds("/home", false)),
            ),
            row(read, "\"/mnt\"", (WRITE, binds("/mnt", true)), (WRITE, binds("/srv/a", true))),
            row(read, "\"/l\"", ("", overlay("/l", None)), (READ_ONLY, overlay("/srv/l", None))),
            row(
                write,
                "\"/srv/u\"",
                (READ_ONLY, overlay("/srv/l", Some("/srv/u"))),
                (WRITE, overlay("/srv/l", Some("/srv/u"))),
            ),
            row(
                "preset",
                "/var/lib/nomad,",
                ("", binds("/var/lib/nomad/alloc/other", true)),
                ("", binds(own, false)),
            ),
        ]);
    }

    #[test]
    fn some_directories_are_never_bound() {
        const ALL: &str = "[binds]\nread_write = [\"/\"]";
        const DENY: &str = "preset = \"compat\"\n[binds]\ndeny = [\"/srv/a\"]";
        let words = "preset = \"compat\"";
        let never = [
            "/",
            "/proc",
            "/proc/1",
            "/sys/fs",
            "/dev",
            "/dev/shm",
            "/run",
            "/run/x",
            "/var",
            "/var/lib",
            "/var/lib/machines",
            "/var/lib/machines/a",
            "/var/lib/nomad",
            "/var/lib/nomad/server",
            "/opt/nomad/data",
            "/opt",
            "/var/lib/nomad-nspawn/x",
            "/etc",
            "/etc/nomad-nspawn",
            "/usr/libexec/nomad-nspawn/nomad-nspawn-helper",
            "/usr",
            "/var/lib/nomad/client/csi/node/p/per-alloc/17070707-0707-0707-0707-070707070707/v",
            "/var/lib/nomad/client/OWN",
            "/var/lib/nomad/client/csj/OWN",
            "/var/lib/nomad/server/csi/OWN",
        ];
        for path in never {
            let compat = (COMPAT, binds(path, false));
            check(vec![row("preset", words, (ALL, binds(path, true)), compat)]);
        }
        let csi = "/var/lib/nomad/client/csi/node/p/per-alloc/OWN/v/rw";
        check(vec![
            row("binds.read_write", "csi", ("", binds(csi, false)), (ALL, binds(csi, false))),
            row(
                "binds.deny",
                "[binds] deny",
                (DENY, binds("/srv/a/b", true)),
                (DENY, binds("/srv/b", true)),
            ),
            row(
                "binds.deny",
                "[binds] deny",
                (DENY, binds("/srv", true)),
                (DENY, binds("/srv/ab", true)),
            ),
            row(
                "binds.deny",
                "[binds] deny",
                (DENY, binds("/srv/a", false)),
                (COMPAT, binds("/srv/a", false)),
            ),
            row(
                "preset",
                "/data/store",
                (
                    "[images]\nstore = \"/data/store\"\n[binds]\nread_only = [\"/data\"]",
                    binds("/data", true),
                ),
                ("[binds]\nread_only = [\"/data\"]", binds("/data", true)),
            ),
        ]);
    }

    /// Places below the allocation are walked from the policy's directory.
    #[test]
    fn places_begin_at_a_directory_of_the_policy() {
        let path = |text: &str| absolute(text).below(&absolute("/")).unwrap();
        let source = |source: Source| {
            let bind = Bind { source, ..bind("/", false) };
            let decision = judged(COMPAT, |s| s.files.binds = vec![bind.clone()]).unwrap();
            let place = decision.plan().files.binds.first().unwrap().source.clone();
            (place.root.to_string(), place.below)
        };
        let alloc = || "/var/lib/nomad/alloc".to_owned();
        let below = |rest: &str| path(&format!("/{ALLOC}/{rest}"));
        assert_eq!(source(Source::Task(path("/local/a"))), (alloc(), below("web/local/a")));
        let host = |text: &str| Source::Host(absolute(text));
        let own = format!("/var/lib/nomad/alloc/{ALLOC}/other/local");
        assert_eq!(source(host(&own)), (alloc(), below("other/local")));
        assert_eq!(source(host("/srv/a")), ("/".to_owned(), path("/srv/a")));
    }
}
