//! What executes commands for the pretended helper: on this very machine, with real pipes and
//! terminals, and no container around them.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use proto::codec;
use proto::exec::{ExecSpec, SessionReport};
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::AncillaryMessageWriter;

use super::helper::World;

/// How the next sessions go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The worker is killed while the command runs.
    Killed,
    /// It sends two streams for a command without terminal.
    TwoStreams,
    /// It reports an exit before a start.
    OutOfOrder,
    /// It takes its time before the command is executed.
    Slow(Duration),
}

/// The driver's end of the streams, the command's, and the size that a terminal was made with.
fn streams(spec: &ExecSpec) -> (Vec<OwnedFd>, [Stdio; 3]) {
    if let Some(size) = spec.terminal {
        let size =
            libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let again = || Stdio::from(slave.try_clone().unwrap());
        return (vec![master], [again(), again(), again()]);
    }
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let ((stdin, own_stdin), (own_stdout, stdout), (own_stderr, stderr)) = (pipe(), pipe(), pipe());
    (vec![own_stdin, own_stdout, own_stderr], [stdin.into(), stdout.into(), stderr.into()])
}

async fn report(socket: &UnixSeqpacket, report: SessionReport, descriptors: &[OwnedFd]) {
    let mut control = [0; 64];
    let mut ancillary = AncillaryMessageWriter::new(&mut control);
    ancillary.add_fds(descriptors.iter().map(AsFd::as_fd)).unwrap();
    let bytes = codec::encode(&report).unwrap();
    let sent = socket.send_vectored_with_ancillary(&[IoSlice::new(&bytes)], &mut ancillary).await;
    // The driver may have hung up.
    sent.ok();
}

/// Kills a command with its session; before setsid(1) has made one, the command alone.
fn end(child: &mut Child) {
    killpg(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL).ok();
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Executes a command and reports on it, until it ends or the driver hangs up.
pub(crate) async fn execute(socket: UnixSeqpacket, spec: ExecSpec, world: &Mutex<World>) {
    let trouble = world.lock().unwrap().trouble;
    if let Some(Trouble::Slow(time)) = trouble {
        tokio::time::sleep(time).await;
    }
    let (mut own, [stdin, stdout, stderr]) = streams(&spec);
    let mut command = Command::new("setsid");
    if spec.terminal.is_some() {
        command.arg("--ctty");
    }
    command
        .args(spec.words.iter().map(|word| word.reveal()))
        .env_clear()
        .envs(spec.environment.iter().map(|v| (v.name.as_str(), v.value.reveal())))
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    // In the caller's process group: a leader's setsid(1) would fork, and another process end.
    let mut child = command.spawn().unwrap();
    drop(command);
    if trouble == Some(Trouble::TwoStreams) {
        own.pop();
    }
    report(&socket, SessionReport::Streams, &own).await;
    drop(own);
    if trouble == Some(Trouble::OutOfOrder) {
        report(&socket, SessionReport::Exited { code: 0 }, &[]).await;
    }
    report(&socket, SessionReport::Started, &[]).await;
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let mut rest = [0; 1];
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let tick = Duration::from_millis(2);
        if tokio::time::timeout(tick, socket.recv(&mut rest)).await.is_ok() {
            killpg(group, Signal::SIGHUP).ok();
            end(&mut child);
            world.lock().unwrap().hung_up += 1;
            return;
        }
        if trouble == Some(Trouble::Killed) {
            end(&mut child);
            return;
        }
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
    report(&socket, SessionReport::Exited { code }, &[]).await;
}
