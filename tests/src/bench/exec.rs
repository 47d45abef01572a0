//! Commands in running tasks, against nsenter(1) with all namespaces in the same run.
//!
//! The helper is asked directly, as the driver asks it; from the request to the report of the end.
//! nsenter(1) gives its command no confinement of the task's, so it is the least that entering takes.

use super::SETTLE;
use super::report::{Figures, percentile};
use crate::hostile::{Client, Door, Handmade, command};
use crate::{Config, Rig, Suite, wait};
use anyhow::{Context as _, Result, bail, ensure};
use proto::unit_id::UnitId;
use std::fmt;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Sessions at once, and how often so many begin together.
const CROWD: usize = 20;
const ROUNDS: usize = 10;
/// A path, so that neither side searches.
const TRUE: &str = "/bin/true";

/// What commands cost.
#[derive(Debug, Default)]
pub struct Exec {
    /// nsenter(1).
    pub nsenter: Figures,
    /// This driver, with a worker that waits.
    pub warm: Figures,
    /// 99th percentile of twenty at once, in milliseconds: most of them find no worker that waits.
    pub crowd_p99: f64,
    /// Those, all of them.
    pub crowd: Figures,
}

impl Exec {
    /// Milliseconds that the median is above that of nsenter(1).
    #[must_use]
    pub fn added(&self) -> f64 {
        self.warm.median - self.nsenter.median
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "nsenter": self.nsenter.json(),
            "warm": self.warm.json(),
            "crowd": self.crowd.json(),
            "crowd_p99_ms": self.crowd_p99,
        })
    }
}

impl fmt::Display for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`true` in a running task, ms")?;
        writeln!(f, "  nsenter -a          {}", self.nsenter)?;
        writeln!(f, "  this driver         {}", self.warm)?;
        writeln!(f, "  more than nsenter   {:.1}", self.added())?;
        writeln!(f, "  {CROWD} at once          {}, p99 {:.1}", self.crowd, self.crowd_p99)
    }
}

/// One command from the request to its end.
fn time_session(client: &mut Client, task: &Handmade<'_>) -> Result<Duration> {
    let spec = command(&task.key, &[TRUE]);
    let called = Instant::now();
    let mut session = client.exec(&spec)?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    session.started()?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let ended = session.finish()?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(called.elapsed())
}

fn time_nsenter(leader: &str) -> Result<Duration> {
    let mut enter = Command::new("nsenter");
    enter.args(["-t", leader, "-a", TRUE]).stdin(Stdio::null());
    let called = Instant::now();
    let status = enter.status()?;
    ensure!(status.success(), "nsenter: {status}");
    Ok(called.elapsed())
}

/// A command of each client at once.
fn time_crowd(clients: &mut [Client], task: &Handmade<'_>) -> Result<Vec<Duration>> {
    std::thread::scope(|scope| {
        let session = |client| scope.spawn(move || time_session(client, task));
        let threads: Vec<_> = clients.iter_mut().map(session).collect();
        let join = |it: std::thread::ScopedJoinHandle<'_, Result<Duration>>| {
            it.join().ok().context("a thread panicked")?
        };
        threads.into_iter().map(join).collect()
    })
}

/// Process id, on the outer machine, of the task's first process.
fn leader(rig: &Rig, task: &Handmade<'_>) -> Result<String> {
    let unit = format!("nomad-nspawn-{}.service", UnitId::from(&task.key));
    let group = rig.run(&["systemctl", "show", "-P", "ControlGroup", &unit])?;
    let file = rig.ready().tree.join(group.trim_start_matches('/')).join("payload/cgroup.procs");
    wait::until("the payload", Duration::from_secs(10), || {
        let list = fs::read_to_string(&file).unwrap_or_default();
        Ok(list.lines().next().map(str::to_owned))
    })
}

/// Measures so many commands of each side.
///
/// # Errors
/// When the host does not come up or a command fails.
pub fn run(suite: Suite, pairs: usize) -> Result<Exec> {
    let rig = Rig::up(&Config { agent: false, ..Config::new(suite) })?;
    let door = Door::of(&rig)?;
    let mut client = door.enter()?;
    let task = Handmade::new(&rig, "exec")?;
    match client.start(&task.spec(&["/bin/sleep", "1000"])?)? {
        Ok(proto::wire::Answer::Started(_)) => {}
        other => bail!("{other:?}"),
    }
    let leader = leader(&rig, &task)?;
    time_nsenter(&leader)?;
    time_session(&mut client, &task)?;
    let (mut nsenter, mut warm) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        for side in 0..2 {
            // Also for the next worker to be there.
            std::thread::sleep(SETTLE);
            if (pair + side).is_multiple_of(2) {
                nsenter.push(time_nsenter(&leader)?);
            } else {
                warm.push(time_session(&mut client, &task)?);
            }
        }
    }
    let mut clients = (0..CROWD).map(|_| door.enter()).collect::<Result<Vec<_>>>()?;
    let mut crowd = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::sleep(SETTLE);
        crowd.extend(time_crowd(&mut clients, &task)?);
    }
    task.remove(&client)?;
    rig.down()?;
    Ok(Exec {
        nsenter: Figures::of(nsenter),
        warm: Figures::of(warm),
        crowd_p99: percentile(&crowd, 99),
        crowd: Figures::of(crowd),
    })
}
