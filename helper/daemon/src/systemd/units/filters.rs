//! The unit that makes system call filters for the cache.

use std::time::Duration;

use zbus::Variant;

use crate::systemd::bus::{Bus, is_named};
use crate::systemd::units::{names, transient};

/// systemd-nspawn is started twice for each set, which takes 200 ms.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Time in microseconds after which PID 1 ends it.
const LONGEST_US: u64 = 80_000_000;
const MEMORY: u64 = 256 << 20;
/// Between two looks for the end of the unit of an earlier daemon process.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs `filters` and waits for its end. `words`: the launcher's own; without any: what most starts
/// use.
pub(crate) async fn run(bus: &Bus, words: &[String]) -> Result<(), String> {
    let mut all = vec!["filters"];
    all.extend(words.iter().map(String::as_str));
    let command = transient::command(&all, false)?;
    let properties = || {
        vec![
            ("Description", Variant::from("System call filters for Nomad tasks")),
            ("Slice", Variant::from(transient::SLICE)),
            ("Type", Variant::from("oneshot")),
            // systemd-nspawn needs all that it needs for a task, and cgroups of its own.
            ("Delegate", Variant::from(true)),
            ("DevicePolicy", Variant::from("closed")),
            ("DeviceAllow", Variant::from(vec![("/dev/net/tun", "rwm")])),
            ("MemoryMax", Variant::from(MEMORY)),
            ("TimeoutStartUSec", Variant::from(LONGEST_US)),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("SyslogIdentifier", Variant::from("nomad-nspawn-task")),
            ("ExecStart", Variant::from(command.clone())),
        ]
    };
    let run = async {
        loop {
            let job = bus.job_of(names::FILTERS).await;
            match transient::start(bus, names::FILTERS, properties()).await {
                // That of an earlier daemon process, which makes another set.
                Err(e) if is_named(&e, transient::EXISTS) => tokio::time::sleep(PAUSE).await,
                Err(e) => return Err(e.to_string()),
                Ok(()) => return Ok(job.await.is_ok_and(|result| result == "done")),
            }
        }
    };
    match tokio::time::timeout(TIMEOUT, run).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(false)) | Err(_) => Err(format!("see journalctl -u {}", names::FILTERS)),
    }
}
