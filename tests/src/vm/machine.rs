//! One running virtual machine, seen from outside.
//!
//! For the tests that watch a machine from outside, for [`super::inside`] and for `rig up --vm`. A
//! [`supervisor`] owns it; a [`Machine`] only talks to the agent inside.

use super::frames::{self, Kind, Request};
use super::supervisor::{Ready, Spec};
use super::{channel, image, qemu};
use crate::host::{Output, instance, supervisor::KEEP};
use crate::product::{self, Variant};
use crate::{Suite, outer, wait};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a machine shall be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Debian release.
    pub suite: Suite,
    /// Which build of the product is at hand inside; `None` for a bare machine.
    pub product: Option<Variant>,
    /// Programs to bring along, besides `rig`.
    pub programs: Vec<PathBuf>,
    /// Further words of the kernel's command line.
    pub append: String,
    /// A layer of the root disk that outlives the machine, and is made when missing: the next
    /// machine with it boots from what this one has left. `None`: its own, removed with it.
    pub layer: Option<PathBuf>,
    /// Whether a reboot starts the machine again; else it ends it.
    pub reboots: bool,
}

impl Config {
    /// With the product, on the suite that `RIG_SUITE` names.
    ///
    /// # Errors
    /// When `RIG_SUITE` names no known suite.
    pub fn from_env() -> Result<Self> {
        Ok(Self::new(Suite::from_env()?))
    }

    /// With the product, on `suite`.
    #[must_use]
    pub fn new(suite: Suite) -> Self {
        Self {
            suite,
            product: Some(Variant::Plain),
            programs: Vec::new(),
            append: String::new(),
            layer: None,
            reboots: false,
        }
    }
}

/// A running machine. Dropping it ends it, and so does the end of the process, however it ends,
/// unless [`Machine::keep`] was called.
#[derive(Debug)]
pub struct Machine {
    ready: Ready,
    owned: Mutex<Option<Child>>,
}

impl Machine {
    /// Boots a machine and waits until the agent inside answers; the choice between KVM and
    /// emulation is printed.
    ///
    /// # Errors
    /// When it does not boot; the message holds the console's end.
    pub fn boot(config: &Config) -> Result<Self> {
        outer::ensure_tools()?;
        let built = config.product.map(product::build).transpose()?;
        qemu::ensure()?;
        let image = image::image(config.suite)?;
        instance::sweep()?;
        let spec = Spec {
            suite: config.suite,
            image,
            product: built.map(|built| (built.helper, built.driver)),
            programs: config.programs.clone(),
            append: config.append.clone(),
            layer: config.layer.clone(),
            reboots: config.reboots,
        };
        let start = Instant::now();
        let mut child = Command::new(instance::rig_binary()?)
            .arg("supervise-vm")
            .arg(serde_json::to_string(&spec)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(instance::supervisor_log()?)
            .spawn()
            .context("cannot start the supervisor")?;
        let mut line = String::new();
        let out = child.stdout.take().context("the supervisor has no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let answer: Result<Ready, String> = serde_json::from_str(&line)
            .with_context(|| format!("the supervisor died; it wrote {line:?}"))?;
        let ready = answer.map_err(anyhow::Error::msg)?;
        outer::tell(&format!(
            "rig: virtual machine of {} up in {:.1} s, {} ({})",
            config.suite.name(),
            start.elapsed().as_secs_f64(),
            ready.accel,
            ready.why
        ));
        Ok(Self { ready, owned: Mutex::new(Some(child)) })
    }

    /// Takes hold of a machine that another process started.
    ///
    /// # Errors
    /// When its supervisor is gone.
    pub fn attach(ready: Ready) -> Result<Self> {
        let machine = Self { ready, owned: Mutex::new(None) };
        if !machine.alive() {
            bail!("the virtual machine is gone");
        }
        Ok(machine)
    }

    /// Lets the machine outlive this process.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn keep(&self) -> Result<()> {
        let child = self.owned.lock().ok().and_then(|mut owned| owned.take());
        let stdin = child.and_then(|child| child.stdin).context("this process does not own it")?;
        { stdin }.write_all(KEEP).context("the supervisor is gone")
    }

    /// What the supervisor reported.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Whether the supervisor still holds the directory's lock: it does while qemu runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        File::open(self.ready.dir.join("lock")).is_ok_and(|file| file.try_lock().is_err())
    }

    /// `limit`, for something that runs inside: longer where the machine is emulated.
    #[must_use]
    pub fn patience(&self, limit: Duration) -> Duration {
        limit * self.ready.accel.patience()
    }

    /// The variables that make a program inside use the machine itself as test host.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let patience = self.ready.accel.patience().to_string();
        let suite = self.ready.suite.name().to_owned();
        [("RIG", "here".to_owned()), ("RIG_SUITE", suite), ("RIG_PATIENCE", patience)]
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec()
    }

    fn request(&self, args: &[&str], limit: Duration) -> Result<Request> {
        let limit_ms = u64::try_from(self.patience(limit).as_millis())?;
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Ok(Request { args, env: self.variables(), limit_ms })
    }

    /// Runs a command inside and passes its bytes on as they come; `true` for standard error.
    ///
    /// # Errors
    /// When the machine is dead or the command does not end in time.
    pub fn stream(
        &self,
        args: &[&str],
        limit: Duration,
        take: impl FnMut(bool, &[u8]),
    ) -> Result<ExitStatus> {
        let request = self.request(args, limit)?;
        let none = |mut port| frames::write(&mut port, Kind::Input, b"");
        channel::run(&self.ready.dir, &request, none, take).map(ExitStatus::from_raw)
    }

    /// The same with this process's own standard streams, for people.
    ///
    /// # Errors
    /// When the machine is dead.
    pub fn pass_through(&self, args: &[&str]) -> Result<ExitStatus> {
        let request = self.request(args, Duration::from_secs(24 * 3600))?;
        let input = |mut port| {
            // Ends with this process.
            std::thread::spawn(move || -> Result<()> {
                let mut bytes = [0; 4096];
                loop {
                    let length = std::io::stdin().read(&mut bytes)?;
                    let some = bytes.get(..length).unwrap_or_default();
                    frames::write(&mut port, Kind::Input, some)?;
                    if length == 0 {
                        return Ok(());
                    }
                }
            });
            Ok(())
        };
        let take = |error: bool, bytes: &[u8]| {
            let written = if error {
                std::io::stderr().write_all(bytes)
            } else {
                let mut out = std::io::stdout();
                out.write_all(bytes).and_then(|()| out.flush())
            };
            // A reader that is gone is its own business.
            drop(written);
        };
        channel::run(&self.ready.dir, &request, input, take).map(ExitStatus::from_raw)
    }

    /// Runs a command inside and returns how it ended, whatever the status.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn exec(&self, args: &[&str], limit: Duration) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = self.stream(args, limit, |error, bytes| {
            if error { &mut stderr } else { &mut stdout }.extend_from_slice(bytes);
        })?;
        Ok(Output { status, stdout, stderr })
    }

    /// Runs a shell script that must succeed; returns its output without the last line break.
    ///
    /// # Errors
    /// When its status is not 0; the message holds what it wrote.
    pub fn sh(&self, script: &str) -> Result<String> {
        let out = self.exec(&["sh", "-c", script], Duration::from_secs(60))?;
        if !out.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            bail!("`{script}` in the machine: {}: {}{said}", out.status, out.text());
        }
        Ok(out.text().trim_end_matches('\n').to_owned())
    }

    /// The machine's present boot.
    ///
    /// # Errors
    /// When the machine is dead.
    pub fn boot_id(&self) -> Result<String> {
        self.sh("cat /proc/sys/kernel/random/boot_id")
    }

    /// Runs what reboots the machine, as `systemctl reboot`, and waits for the agent of the next
    /// boot; returns how long that took.
    ///
    /// # Errors
    /// When it does not come back in time.
    pub fn reboot_by(&self, script: &str) -> Result<Duration> {
        let (before, start) = (self.boot_id()?, Instant::now());
        // Later, because else nobody might be left to answer.
        let detached = format!("(sleep 1; {script}) < /dev/null > /dev/null 2>&1 &");
        self.sh(&detached)?;
        let limit = self.ready.accel.boot_limit() + self.patience(Duration::from_secs(120));
        wait::true_within("the next boot", limit, || {
            channel::wait_agent(&self.ready.dir, limit, || Ok(()))?;
            Ok(self.boot_id().is_ok_and(|now| now != before))
        })
        .with_context(|| outer::tail(&channel::console(&self.ready.dir), 30))?;
        Ok(start.elapsed())
    }

    /// Where a brought program is inside.
    #[must_use]
    pub fn program(name: &str) -> String {
        format!("{}/bin/{name}", image::BROUGHT)
    }

    /// Ends the machine at once and waits until nothing of it is left.
    ///
    /// # Errors
    /// When the supervisor does not finish in time.
    pub fn down(&self) -> Result<()> {
        let child = self.owned.lock().ok().and_then(|mut owned| owned.take());
        if self.alive() {
            // It may have ended by itself since.
            kill(Pid::from_raw(self.ready.supervisor), Signal::SIGTERM).ok();
        }
        if let Some(mut child) = child {
            drop(child.stdin.take());
            child.wait()?;
        }
        wait::true_within("the virtual machine to go down", Duration::from_secs(30), || {
            Ok(!self.alive())
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let owned = self.owned.lock().is_ok_and(|owned| owned.is_some());
        if owned && let Err(error) = self.down() {
            outer::say(&format!("ending the virtual machine: {error:#}"));
        }
    }
}
