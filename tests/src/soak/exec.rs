//! Commands in a task whose payload, root in its container, tries to reach each process that enters.
//!
//! For the tests of commands and `cargo rig soak`. It changes fs.suid_dumpable, which is the outer
//! machine's, and puts it back.

use crate::hostile::{Client, Handmade, command};
use crate::{Rig, outer, wait};
use anyhow::{Context as _, Result, bail, ensure};
use proto::name::ImageName;
use proto::secret::Secret;
use proto::task_spec::{Image, Payload};
use proto::wire::Answer;
use std::fs;
use std::time::Duration;

const SUID_DUMPABLE: &str = "/proc/sys/fs/suid_dumpable";

/// Tries everything on each process that executes the worker's program, and counts in a file. 101 is
/// ptrace(2), 0x4206 PTRACE_SEIZE, 17 PTRACE_DETACH (x86-64).
const SCANNER: &str = r#"
$| = 1; my ($looks, $got, %done) = (0, 0);
sub worker { (readlink("/proc/$_[0]/exe") // "") =~ /nomad-nspawn-task/ }
while (1) {
    1 while waitpid(-1, 1) > 0;
    opendir(my $proc, "/proc");
    for my $pid (grep { /^[0-9]+$/ && $_ != $$ } readdir $proc) {
        open(my $comm, "<", "/proc/$pid/comm") or next;
        my $name = <$comm> // "";
        next unless $name =~ /^nomad-nspawn-ta/;
        $looks++;
        $got++ if worker($pid);
        $got++ if opendir(my $fds, "/proc/$pid/fd") && worker($pid);
        if (syscall(101, 0x4206, $pid + 0, 0, 0) == 0) { $got++ if worker($pid); syscall(101, 17, $pid + 0, 0, 0) }
        $got++ if open(my $mem, "<", "/proc/$pid/mem") and worker($pid);
    }
    closedir $proc;
    open(my $out, ">", "/local/new"); print $out "$looks $got\n"; close $out; rename "/local/new", "/local/scan";
}
"#;

/// Puts the setting back.
struct Setting(String);

impl Setting {
    fn keep() -> Result<Self> {
        Ok(Self(fs::read_to_string(SUID_DUMPABLE)?))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SUID_DUMPABLE, self.0.trim()) {
            outer::say(&format!("{SUID_DUMPABLE}: {error}"));
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Commands that ended well, of all values.
    pub sessions: u64,
    /// For each value of fs.suid_dumpable: how often the payload has looked at a process, and how often it
    /// has got at one.
    pub values: Vec<(&'static str, u64, u64)>,
}

/// Runs a command that must end well; what it writes.
fn execute(client: &Client, task: &Handmade<'_>, words: &[&str]) -> Result<String> {
    let opened = client.exec(&command(&task.key, words))?;
    let mut session = opened.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    session.started()?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let ended = session.finish()?;
    ensure!(ended.code == 0, "{words:?}: {ended:?}");
    Ok(ended.stdout)
}

/// What the payload has counted: looks, successes.
fn count(client: &Client, task: &Handmade<'_>) -> Result<(u64, u64)> {
    let text = execute(client, task, &["/bin/cat", "/local/scan"])?;
    let (looks, got) = text.trim_end().split_once(' ').context(text.clone())?;
    Ok((looks.parse()?, got.parse()?))
}

/// Runs so many commands for each value of the setting. The host's policy must allow a task the image
/// `debian`.
///
/// # Errors
/// When the task does not start or a command fails.
pub fn run(rig: &Rig, client: &Client, sessions: u64) -> Result<Figures> {
    let setting = Setting::keep()?;
    let task = Handmade::new(rig, "exec")?;
    let mut spec = task.spec(&["/bin/true"])?;
    spec.image = Image::Named(ImageName::new("debian")?);
    let words = ["/usr/bin/perl", "-e", SCANNER].map(Secret::new);
    spec.payload = Payload::Command { words: words.into() };
    match client.start(&spec)? {
        Ok(Answer::Started(_)) => {}
        other => bail!("{other:?}"),
    }
    wait::true_within("the scanner", Duration::from_secs(20), || {
        Ok(execute(client, &task, &["/bin/cat", "/local/scan"]).is_ok())
    })?;
    let mut figures = Figures::default();
    let (mut before, _) = count(client, &task)?;
    for value in ["0", "1", "2"] {
        fs::write(SUID_DUMPABLE, value)?;
        for _ in 0..sessions {
            execute(client, &task, &["/bin/true"])?;
            figures.sessions += 1;
        }
        let (looks, got) = count(client, &task)?;
        figures.values.push((value, looks - before, got));
        before = looks;
    }
    drop(setting);
    task.remove(client)?;
    Ok(figures)
}
