//! The unit in which an archive becomes a layer.
//!
//! PID 1 starts it for nobody in particular, without capability, network, or file of the host that it
//! could write; of the host's files it sees programs and libraries. It has three descriptors: the
//! archive, the new file, and a pipe for one line. Treats that line, and the file, as hostile.

use std::fs::File;
use std::process::{Command, Stdio};

use proto::error::printable;
use proto::layer::Digest;

/// The converter.
const CONVERTER: &str = "/usr/libexec/nomad-nspawn/nomad-nspawn-fetch";
/// Bytes that are read of what it reports.
const REPORT_MAX: u64 = 16 * 1024;

/// The converter's own bound for a layer, in bytes.
const LAYER_MAX: u64 = 128 << 30;

/// Settings of the unit (systemd.exec(5), systemd.resource-control(5)): time is for the largest
/// archive that the converter takes.
const SETTINGS: [&str; 40] = [
    "DynamicUser=yes",
    "CapabilityBoundingSet=",
    "NoNewPrivileges=yes",
    "PrivateNetwork=yes",
    "PrivateDevices=yes",
    "PrivateIPC=yes",
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    // Whatever others may read on this host would otherwise be an image's content.
    "InaccessiblePaths=-/boot -/etc -/home -/media -/mnt -/opt -/root -/srv -/sys -/var",
    // PID 1 takes what makes the others inaccessible from there, so it is empty instead.
    // The other is the host's, also with PrivateDevices=.
    "TemporaryFileSystem=/run:ro /dev/shm:ro",
    // None would be spelled `none`, which PID 1 takes from files alone; the filter has no socket(2).
    "RestrictAddressFamilies=AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "SystemCallErrorNumber=EPERM",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@aio @chown @ipc @keyring @network-io @privileged @resources @setuid @timer",
    "KeyringMode=private",
    "UMask=0077",
    "MemoryMax=384M",
    "MemorySwapMax=0",
    "TasksMax=4",
    "LimitCORE=0",
    "LimitNOFILE=64",
    "RuntimeMaxSec=3600",
    "CPUWeight=20",
    "Slice=machine-nspawn.slice",
    "SyslogIdentifier=nomad-nspawn-fetch",
];

/// Makes the layer `output` of an archive with this digest, of at most `room` bytes; returns the
/// converter's report.
///
/// # Errors
/// The converter's reason, or that the unit could not be started or did not end well.
pub(super) fn run(
    archive: File,
    output: File,
    digest: Digest,
    room: u64,
) -> Result<String, String> {
    let unit = format!("nomad-nspawn-import-{}", std::process::id());
    let mut command = Command::new("systemd-run");
    command.args(["--pipe", "--wait", "--quiet", "--collect", &format!("--unit={unit}")]);
    command.arg("--description=Conversion of an image for Nomad tasks in systemd-nspawn");
    command.args(SETTINGS.iter().map(|setting| format!("--property={setting}")));
    command.arg(format!("--property=LimitFSIZE={}", room.min(LAYER_MAX)));
    command.args(["--", CONVERTER, "convert", "--key", &digest.to_string()]);
    command.stdin(archive).stdout(output).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("systemd-run: {e}"))?;
    // The parent's copies would be writers of the file.
    drop(command);
    let report = child.stderr.take().map(read_report).unwrap_or_default();
    let status = child.wait().map_err(|e| format!("systemd-run: {e}"))?;
    if status.success() {
        return Ok(report);
    }
    let why = if report.is_empty() { "it was ended".to_owned() } else { report };
    Err(format!("not converted: {why} ({status}; journalctl -u {unit} may say more)"))
}

/// The beginning of what comes, in one line. What is behind it is not read: its writer then ends.
fn read_report(pipe: impl std::io::Read) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    // What came before an error is worth showing.
    drop(pipe.take(REPORT_MAX).read_to_end(&mut bytes));
    printable(String::from_utf8_lossy(&bytes).trim())
}
