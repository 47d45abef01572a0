//! The agent inside a virtual machine: runs the commands that arrive at its virtio-serial ports.
//!
//! For `rig guest`, started by a unit of the image. It trusts whoever is at the other end: the
//! outer machine owns this one. One thread a port, one command a session, each in a process group
//! of its own that ends with the session.

use super::frames::{self, End, Kind, Request};
use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Prefix of the ports' names; the number follows.
pub const PORT: &str = "rig.";
/// How often a client hears of a silent command.
const ALIVE: Duration = Duration::from_secs(5);
/// How long a stream of an ended command that a daemon keeps open must be silent.
const DRAIN: Duration = Duration::from_millis(500);
/// A port without a client cannot be waited for, it reports a hang-up at once. The first ports are
/// the busy ones.
const LOOK: Duration = Duration::from_millis(40);
/// How long a client must be away to be gone: that the last one has left may show only when the next
/// one has come and been read, because the two take different queues of the device.
const AWAY: Duration = Duration::from_secs(2);
/// A look at the command while a client is there.
const TICK: u16 = 100;

/// Serves all ports, until the machine ends.
///
/// # Errors
/// When there are none.
pub fn main() -> Result<()> {
    let mut threads = Vec::new();
    for (number, path) in ports()? {
        let port = OpenOptions::new().read(true).write(true).open(&path);
        let port = port.with_context(|| format!("open {}", path.display()))?;
        threads.push(std::thread::spawn(move || serve(number, &port)));
    }
    anyhow::ensure!(!threads.is_empty(), "no virtio-serial port is named {PORT}0");
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a port's thread panicked"))?;
    }
    Ok(())
}

/// The ports by the names that qemu gave them; udev, which would make links, does not run.
fn ports() -> Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/class/virtio-ports").context("virtio_console")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if let Some(number) = name.trim().strip_prefix(PORT) {
            found.push((number.parse()?, Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(found)
}

fn serve(number: u32, port: &File) {
    loop {
        match wait_input(port, TICK) {
            Ok(Input::Ready) => {
                if let Err(error) = session(port) {
                    eprintln!("rig guest: port {number}: {error:#}");
                }
            }
            Ok(Input::Nothing) => {}
            Ok(Input::Gone) => std::thread::sleep(LOOK * (number + 1)),
            Err(error) => {
                eprintln!("rig guest: port {number}: {error:#}");
                std::thread::sleep(LOOK);
            }
        }
    }
}

/// What a port has to offer.
#[derive(PartialEq, Eq)]
enum Input {
    Ready,
    Nothing,
    /// No client.
    Gone,
}

fn wait_input(port: &File, milliseconds: u16) -> Result<Input> {
    let mut fds = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(milliseconds)) {
        Err(nix::errno::Errno::EINTR) => return Ok(Input::Nothing),
        other => other?,
    };
    let [fd] = &fds;
    let seen = fd.revents().unwrap_or(PollFlags::empty());
    // A port without a client is readable as well: it reads as the end.
    Ok(if seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
        Input::Gone
    } else if seen.contains(PollFlags::POLLIN) {
        Input::Ready
    } else {
        Input::Nothing
    })
}

/// Where a session's frames go; emptied at its end, so that a stream which outlives it writes
/// nothing into the next.
type Out = Arc<Mutex<Option<File>>>;

fn send(out: &Out, kind: Kind, content: &[u8]) {
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(port) = out.as_mut()
        && let Err(error) = frames::write(port, kind, content)
    {
        eprintln!("rig guest: {error:#}");
    }
}

/// Serves one client after another, as long as the next has come when the last has gone.
fn session(port: &File) -> Result<()> {
    let mut port = Patient(port);
    let mut number = Some(frames::read_mark(&mut port)?);
    while let Some(this) = number {
        frames::write_mark(&mut port.0, this)?;
        number = match frames::read(&mut port)? {
            (Kind::Request, content) => execute(port.0, &content)?,
            (Kind::Mark, next) => next.try_into().ok(),
            (kind, _) => anyhow::bail!("a session began with {kind:?}"),
        };
    }
    Ok(())
}

/// Executes a request; the number of the next session where that has begun already.
fn execute(port: &File, content: &[u8]) -> Result<Option<[u8; 8]>> {
    let request: Request = serde_json::from_slice(content)?;
    let out: Out = Arc::new(Mutex::new(Some(port.try_clone()?)));
    let end = match start(&request) {
        Ok(mut child) => {
            let end = run(port, &out, &mut child, Duration::from_millis(request.limit_ms));
            if !matches!(end, Ok(Ended::Command(End::Status(_)))) {
                killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL).ok();
                child.wait()?;
            }
            end
        }
        Err(error) => Ok(Ended::Command(End::NotStarted(format!("{error:#}")))),
    };
    if let Ok(Ended::Command(end)) = &end {
        send(&out, Kind::End, &serde_json::to_vec(end)?);
    }
    out.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(match end? {
        Ended::Replaced(number) => Some(number),
        Ended::Command(_) | Ended::Alone => None,
    })
}

/// A port whose client may seem to be away for a moment: then it reads as the end.
struct Patient<'a>(&'a File);

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let began = Instant::now();
        loop {
            let length = self.0.read(bytes)?;
            if length > 0 || began.elapsed() > AWAY {
                return Ok(length);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// What a session ends with.
enum Ended {
    /// The command's end.
    Command(End),
    /// The client has gone.
    Alone,
    /// Another client has come.
    Replaced([u8; 8]),
}

fn start(request: &Request) -> Result<Child> {
    let (program, args) = request.args.split_first().context("no command")?;
    Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .envs(request.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/root")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}

fn run(port: &File, out: &Out, child: &mut Child, limit: Duration) -> Result<Ended> {
    let began = Instant::now();
    let passed = Arc::new(AtomicU64::new(0));
    let mut streams = vec![
        pass(child.stdout.take().context("stdout")?, Kind::Stdout, out, &passed),
        pass(child.stderr.take().context("stderr")?, Kind::Stderr, out, &passed),
    ];
    let mut stdin = child.stdin.take();
    let (mut alive, mut away) = (Instant::now(), None);
    loop {
        match wait_input(port, TICK)? {
            Input::Ready => {
                away = None;
                let (kind, bytes) = frames::read(&mut Patient(port))?;
                if kind == Kind::Mark {
                    return bytes
                        .try_into()
                        .map(Ended::Replaced)
                        .map_err(|_| anyhow::anyhow!("mark"));
                }
                anyhow::ensure!(kind == Kind::Input, "{kind:?} while a command runs");
                // A command that does not read its input may have closed it.
                let written = stdin.as_mut().map(|stdin| stdin.write_all(&bytes));
                if bytes.is_empty() || matches!(written, Some(Err(_))) {
                    stdin = None;
                }
            }
            Input::Gone if away.get_or_insert_with(Instant::now).elapsed() > AWAY => {
                return Ok(Ended::Alone);
            }
            Input::Gone => std::thread::sleep(LOOK),
            Input::Nothing => away = None,
        }
        if let Some(status) = child.try_wait()? {
            let (mut seen, mut quiet) = (0, Instant::now());
            while !streams.iter().all(JoinHandle::is_finished) && quiet.elapsed() < DRAIN {
                std::thread::sleep(Duration::from_millis(2));
                let now = passed.load(Ordering::Relaxed);
                if now != seen {
                    (seen, quiet) = (now, Instant::now());
                }
            }
            for stream in streams.drain(..).filter(JoinHandle::is_finished) {
                stream.join().map_err(|_| anyhow::anyhow!("a stream's thread panicked"))?;
            }
            return Ok(Ended::Command(End::Status(status.into_raw())));
        }
        if began.elapsed() >= limit {
            return Ok(Ended::Command(End::TimedOut));
        }
        if alive.elapsed() >= ALIVE {
            alive = Instant::now();
            send(out, Kind::Alive, b"");
        }
    }
}

fn pass(
    mut from: impl Read + Send + 'static,
    kind: Kind,
    out: &Out,
    passed: &Arc<AtomicU64>,
) -> JoinHandle<()> {
    let (out, passed) = (Arc::clone(out), Arc::clone(passed));
    std::thread::spawn(move || {
        let mut some = [0; 16_384];
        while let Ok(length) = from.read(&mut some)
            && length > 0
        {
            send(&out, kind, some.get(..length).unwrap_or_default());
            passed.fetch_add(1, Ordering::Relaxed);
        }
    })
}
