//! Waiting for a payload that reports itself when it is ready (sd_notify(3)).
//!
//! systemd-nspawn passes `READY=1` of the container's PID 1 on to a socket of ours, one a start. The
//! unit keeps NotifyAccess=none: no payload can send to PID 1. Only root can write to the socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use proto::error::Refusal;
use proto::unit_id::UnitId;
use tokio::net::UnixDatagram;

use crate::files;
use crate::process::Process;
use kernel::layout::ready_socket;

/// The socket of one start; its file goes with it.
pub(crate) struct Notice {
    socket: UnixDatagram,
    path: PathBuf,
    limit_s: u32,
}

impl Notice {
    pub(crate) fn new(unit: UnitId, limit_s: u32) -> io::Result<Self> {
        let path = ready_socket(unit);
        let notice = Self { socket: UnixDatagram::bind(&path)?, path, limit_s };
        fs::set_permissions(&notice.path, Permissions::from_mode(0o600))?;
        Ok(notice)
    }

    /// Waits for `READY=1`, or the end of systemd-nspawn.
    pub(crate) async fn wait(&self, main: &Process) -> Result<(), Refusal> {
        let failed = |reason: String| Refusal::failed("ready", "payload", reason);
        let heard = async {
            tokio::select! {
                heard = self.receive_ready() => heard.map_err(|e| e.to_string()),
                _ = main.await_end() => Err("ended before it said READY=1".to_owned()),
            }
        };
        match tokio::time::timeout(Duration::from_secs(self.limit_s.into()), heard).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(failed(format!(
                "did not say READY=1 (sd_notify(3), as process 1 of the container) within {} s; \
                 raise the timeout of the ready block or use mode = \"started\"",
                self.limit_s
            ))),
        }
    }

    async fn receive_ready(&self) -> io::Result<()> {
        let mut message = [0; 4096];
        loop {
            let length = self.socket.recv(&mut message).await?;
            let mut lines = message.get(..length).unwrap_or_default().split(|b| *b == b'\n');
            if lines.any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        files::remove(&self.path);
    }
}
