//! The outer end of a machine's ports: runs one command and passes its streams on.
//!
//! For [`super::Machine`] and the `rig` command. A port serves one session at a time; a lock beside
//! its socket says whose it is. A machine that says nothing for a while is dead, and so is the
//! session: nothing here waits without a limit.

use super::frames::{self, End, Kind, Request};
use crate::{outer, wait};
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many commands may run at once.
pub const PORTS: usize = 8;
/// A running command is heard of every five seconds, by a guest that may be twenty times slower.
const SILENCE: Duration = Duration::from_secs(100);
/// An agent that is there answers within milliseconds; the machine may be busy.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a session is begun: bytes of a broken one may swallow a beginning.
const TRIES: usize = 3;
/// Lines of the console that a report of a dead machine holds.
const CONSOLE: usize = 30;

/// The socket of a port.
#[must_use]
pub fn socket(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("port{number}.sock"))
}

/// What the machine wrote to its serial console.
#[must_use]
pub fn console(dir: &Path) -> PathBuf {
    dir.join("console.log")
}

/// A port that is ours.
struct Port {
    stream: UnixStream,
    _lock: File,
}

/// Takes a free port and begins a session with the agent.
fn open(dir: &Path) -> Result<Port> {
    let (number, lock) = wait::until("a free port", Duration::from_secs(60), || {
        for number in 0..PORTS {
            let lock = File::create(socket(dir, number).with_extension("lock"))?;
            if lock.try_lock().is_ok() {
                return Ok(Some((number, lock)));
            }
        }
        Ok(None)
    })?;
    let mut stream = UnixStream::connect(socket(dir, number)).context("qemu is gone")?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let own = File::open("/dev/urandom").and_then(|mut file| {
        let mut number = [0; 8];
        file.read_exact(&mut number).map(|()| number)
    })?;
    frames::write_mark(&mut stream, own)?;
    // An answer to an earlier client may come first.
    while frames::read_mark(&mut stream).context("no answer from the agent")? != own {}
    Ok(Port { stream, _lock: lock })
}

/// Waits until the agent inside answers.
///
/// # Errors
/// When it does not in time, or `dead` reports why it never will.
pub fn wait_agent(dir: &Path, limit: Duration, mut dead: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        dead()?;
        match open(dir) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() >= limit => {
                let what = format!("no agent within {} s", limit.as_secs());
                return Err(error.context(what));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Runs one command; `take` gets the bytes of standard output (false) and error (true) as they
/// come, `input` the port to write frames of standard input to.
///
/// # Errors
/// When the machine is dead or the command does not end in time; the message holds the console's
/// end or what was run.
pub fn run(
    dir: &Path,
    request: &Request,
    input: impl FnOnce(UnixStream) -> Result<()>,
    mut take: impl FnMut(bool, &[u8]),
) -> Result<i32> {
    let what = request.args.join(" ");
    let dead = || {
        format!("`{what}`; the machine's console ends:\n{}", outer::tail(&console(dir), CONSOLE))
    };
    let first = (1..TRIES).find_map(|_| open(dir).ok());
    let mut port = first.map_or_else(|| open(dir), Ok).with_context(dead)?;
    frames::write(&mut port.stream, Kind::Request, &serde_json::to_vec(request)?)?;
    port.stream.set_read_timeout(Some(SILENCE))?;
    input(port.stream.try_clone()?)?;
    loop {
        let (kind, bytes) = frames::read(&mut port.stream)
            .map_err(|error| match error.downcast_ref::<std::io::Error>().map(|e| e.kind()) {
                Some(ErrorKind::WouldBlock) => error.context("the machine does not answer"),
                Some(_) => error.context("the machine has ended"),
                None => error,
            })
            .with_context(dead)?;
        match kind {
            Kind::Stdout => take(false, &bytes),
            Kind::Stderr => take(true, &bytes),
            Kind::Alive => {}
            Kind::End => match serde_json::from_slice(&bytes)? {
                End::Status(status) => return Ok(status),
                End::TimedOut => bail!("`{what}` timed out after {} ms", request.limit_ms),
                End::NotStarted(why) => bail!("`{what}`: {why}"),
            },
            Kind::Request | Kind::Input | Kind::Mark => bail!("{kind:?} from the agent"),
        }
    }
}
