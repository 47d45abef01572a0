//! The other side: systemd-nspawn in a transient unit, on an ID-mapped clone that was made before.
//!
//! It has less to do than a task: no overlay, no network namespace, no directories, no FIFO checks.
//! A disk image it mounts and ID-maps itself, read-only.

use super::{first_byte, open_fifo, wait_gone};
use crate::Rig;
use anyhow::{Context as _, Result};
use std::cell::Cell;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use zbus::{Connection, Variant};

/// First uid of the fixed range.
const BASE: u32 = 0x1000_0000;
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PATH: &str = "/org/freedesktop/systemd1";

/// `--image=` asks for udev, which the host has not: a socket in its place that nobody reads, and
/// an entry for each loop device that says that udev is done with it.
const UDEV: &str = "
mkdir -p /run/udev/data /run/systemd/system; cd /run/systemd/system
printf '[Socket]\\nListenSequentialPacket=/run/udev/control\\n' > no-udev.socket
printf '[Service]\\nExecStart=sleep infinity\\n' > no-udev.service
for n in /dev/loop[0-9]*; do printf 'I:1\\nV:1\\n' > /run/udev/data/b7:${n#/dev/loop}; done
systemctl daemon-reload && systemctl start no-udev.socket";

/// The prepared host.
pub(super) struct Bare<'a> {
    rig: &'a Rig,
    bus: Connection,
    next: Cell<u32>,
}

impl<'a> Bare<'a> {
    pub(super) async fn prepare(rig: &'a Rig) -> Result<Self> {
        for image in super::IMAGES {
            let map = format!("b:0:{BASE}:65536");
            rig.sh(&format!(
                "mkdir -p /run/bare/{image} && mount --bind -o X-mount.idmap={map} \
                 /var/lib/machines/{image} /run/bare/{image}"
            ))?;
        }
        rig.sh(UDEV)?;
        let socket =
            PathBuf::from(format!("/proc/{}/root/run/dbus/system_bus_socket", rig.leader()));
        let stream = std::os::unix::net::UnixStream::connect(&socket).context("bus of the host")?;
        let bus = zbus::connection::Builder::unix_stream(stream).build().await?;
        Ok(Self { rig, bus, next: Cell::new(0) })
    }

    fn fifo(&self, number: u32) -> Result<(File, File)> {
        let path = format!("/run/bare/fifo{number}");
        self.rig.run(&["mkfifo", &path])?;
        let reader = open_fifo(self.rig, &path)?;
        let outer = format!("/proc/{}/root{path}", self.rig.leader());
        // As a task's own: opened for both, so that neither side blocks.
        let writer = File::options().read(true).write(true).custom_flags(0).open(outer)?;
        Ok((reader, writer))
    }

    async fn ask(&self, image: &str, number: u32, stdout: &File) -> Result<()> {
        let disk = image == super::DISK;
        let root = if disk {
            format!("--image={image}")
        } else {
            format!("--directory=/run/bare/{image}")
        };
        let words = [
            "/usr/bin/systemd-nspawn",
            "--quiet",
            "--keep-unit",
            "--register=no",
            "--settings=no",
            "--link-journal=no",
            "--timezone=off",
            "--resolv-conf=off",
            &format!("--machine=bare{number}"),
            &root,
            if disk { "--read-only" } else { "--quiet" },
            &format!("--private-users={BASE}:65536"),
            if disk { "--private-users-ownership=map" } else { "--private-users-ownership=off" },
            "--console=pipe",
            "--",
            "/bin/echo",
            "x",
        ]
        .map(str::to_owned);
        let command = vec![(words[0].clone(), words.to_vec(), vec!["no-env-expand".to_owned()])];
        // Parallel starts share one directory, which nspawn would lock.
        let environment = vec!["SYSTEMD_NSPAWN_LOCK=0", "SYSTEMD_LOG_TARGET=journal"];
        let properties = vec![
            ("Type", Variant::from("exec")),
            ("Delegate", Variant::from(true)),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("Environment", Variant::from(environment)),
            ("StandardOutputFileDescriptor", Variant::from(zbus::Fd::from(stdout.as_fd()))),
            ("ExecStartEx", Variant::from(command)),
        ];
        let auxiliary: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let name = format!("bare-{number}.service");
        let body = (name, "fail", properties, auxiliary);
        self.bus
            .call_method(Some(SYSTEMD), PATH, Some(MANAGER), "StartTransientUnit", &body)
            .await?;
        Ok(())
    }

    fn number(&self) -> u32 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// One start, from the call to the first byte.
    pub(super) async fn start(&self, image: &str) -> Result<Duration> {
        let number = self.number();
        let (mut reader, writer) = self.fifo(number)?;
        tokio::time::sleep(super::SETTLE).await;
        let called = Instant::now();
        self.ask(image, number, &writer).await?;
        let came = first_byte(&mut reader)?;
        wait_gone(self.rig, "bare-*")?;
        Ok(came - called)
    }

    /// Many starts at once, from the call to the last first byte.
    pub(super) async fn start_many(&self, count: usize) -> Result<Duration> {
        let mut fifos = Vec::new();
        for _ in 0..count {
            let number = self.number();
            fifos.push((number, self.fifo(number)?));
        }
        let called = Instant::now();
        for (number, (_, writer)) in &fifos {
            self.ask("busybox", *number, writer).await?;
        }
        let mut last = called;
        for (_, (reader, _)) in &mut fifos {
            last = last.max(first_byte(reader)?);
        }
        wait_gone(self.rig, "bare-*")?;
        Ok(last - called)
    }
}
