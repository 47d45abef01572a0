//! Running commands inside an instance.
//!
//! For tests and the `rig` command. Commands enter all namespaces of PID 1 with a clean environment;
//! their output goes through files, so that a daemon which keeps a stream open cannot hold the caller.
//! A command never runs without a time limit, unless it was asked for with [`Rig::spawn`].

use super::Rig;
use crate::{outer, wait};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Limit of a command that names none.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How a command ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Exit code, 128 and the number for a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Whether the status is 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

impl Rig {
    /// A command that will run inside the instance as root; streams are the caller's to set.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader().to_string(), "--all", "--root", "--wd", "--"])
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8");
        command
    }

    /// Runs a command as root and returns how it ended, whatever the status.
    ///
    /// # Errors
    /// When it cannot be started or does not end within a minute.
    pub fn exec(&self, args: &[&str]) -> Result<Output> {
        self.exec_within(args, LIMIT)
    }

    /// As [`Rig::exec`] with a limit of its own.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub fn exec_within(&self, args: &[&str], limit: Duration) -> Result<Output> {
        finish(&mut self.command(args), &args.join(" "), limit)
    }

    /// Runs a command as an ordinary user without any capability.
    ///
    /// # Errors
    /// When it cannot be started or does not end within a minute.
    pub fn exec_as(&self, uid: u32, args: &[&str]) -> Result<Output> {
        finish(&mut self.command_as(uid, args), &args.join(" "), LIMIT)
    }

    /// A command that will run inside as an ordinary user (uid and gid alike, no other groups).
    #[must_use]
    pub fn command_as(&self, uid: u32, args: &[&str]) -> Command {
        let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        // By way of a shell: setpriv itself looks the program up with root's capabilities.
        let exec = ["/bin/sh", "-c", "exec \"$@\"", "sh"];
        let mut all = vec!["setpriv", user.as_str(), group.as_str(), "--clear-groups", "--"];
        all.extend(exec);
        all.extend(args);
        self.command(&all)
    }

    /// Runs a command that must succeed; returns its standard output without the last line break.
    ///
    /// # Errors
    /// When its status is not 0; the message holds what it wrote.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let out = self.exec(args)?;
        if !out.success() {
            bail!(
                "`{}` in {}: {}: {}{}",
                args.join(" "),
                self.ready.machine,
                out.status,
                out.text(),
                String::from_utf8_lossy(&out.stderr).trim_end()
            );
        }
        let mut text = out.text();
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// Runs a shell script that must succeed.
    ///
    /// # Errors
    /// When its status is not 0.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.run(&["sh", "-c", script])
    }

    /// Starts a command as root with piped streams; the caller waits for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, args: &[&str]) -> Result<Child> {
        self.command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", args.join(" ")))
    }
}

/// Runs `command` to its end, at most `limit` long; then its whole process group is killed.
fn finish(command: &mut Command, what: &str, limit: Duration) -> Result<Output> {
    let (mut stdout, mut stderr) = (scratch()?, scratch()?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start `{what}`"))?;
    let status = wait::until(&format!("`{what}`"), limit, || Ok(child.try_wait()?));
    let read = |file: &mut std::fs::File| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (out, err) = (read(&mut stdout)?, read(&mut stderr)?);
    match status {
        Ok(status) => Ok(Output { status, stdout: out, stderr: err }),
        Err(error) => {
            let group = Pid::from_raw(i32::try_from(child.id())?);
            killpg(group, Signal::SIGKILL).ok();
            child.wait()?;
            let said = [out, err].concat();
            outer::say(&format!("`{what}` killed after its time limit"));
            Err(error.context(String::from_utf8_lossy(&said).into_owned()))
        }
    }
}

/// A nameless temporary file.
fn scratch() -> Result<std::fs::File> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    Ok(nix::sys::memfd::memfd_create(c"rig-output", flags)?.into())
}
