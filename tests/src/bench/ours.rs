//! Our side: the plugin, driven over its own socket.

use super::report::{Beside, percentile};
use super::{Checks, Crowd, Statistics, checks, first_byte, open_fifo, resident};
use crate::plugin::{Allocation, Plugin};
use crate::{Rig, msgpack};
use anyhow::{Context as _, Result};
use nomad_proto::drivers::{
    DestroyTaskRequest, StartTaskRequest, StopTaskRequest, TaskStatsRequest, WaitTaskRequest,
};
use serde_json::{Value, json};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The prepared host.
pub(super) struct Ours<'a> {
    rig: &'a Rig,
    plugin: Plugin,
    allocation: Allocation,
    fifo: File,
    run: u32,
}

/// How long figures are asked for.
const STATISTICS: Duration = Duration::from_secs(10);
/// Starts beside many tasks, for their median.
const STARTS_BESIDE: usize = 20;
/// Until all streams go their way.
const SETTLE_STATISTICS: Duration = Duration::from_secs(2);

/// CPU time that a process has used, in whole ticks of the kernel (proc_pid_stat(5)): a hundredth of a
/// second.
fn cpu_time(process: &str) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("stat")?;
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}

/// The id of the n-th allocation: its end chooses the uid range.
fn id(number: usize) -> String {
    format!("0e8b1c2d-1111-2222-3333-{number:012x}")
}

/// The request for a command that writes one line, with these keys of the job.
fn request(allocation: &Allocation, run: u32, keys: &Value) -> StartTaskRequest {
    let mut keys = keys.clone();
    if let Some(keys) = keys.as_object_mut() {
        keys.insert("boot".to_owned(), json!(false));
        keys.insert("command".to_owned(), json!(["/bin/echo", "x"]));
        // As the bare start, which has no link either; two rows have.
        keys.entry("private_network").or_insert(json!(true));
    }
    let mut request = allocation.request(run, "", &[]);
    if let Some(task) = &mut request.task {
        task.msgpack_driver_config = msgpack::encode(&keys);
    }
    request
}

impl<'a> Ours<'a> {
    pub(super) async fn prepare(rig: &'a Rig) -> Result<Self> {
        let plugin = Plugin::start(rig).await?;
        let allocation = Allocation::create(rig, &id(0), "bench")?;
        let fifo = open_fifo(rig, &allocation.fifo("stdout"))?;
        Ok(Self { rig, plugin, allocation, fifo, run: 0 })
    }

    async fn remove(&self, task_id: String) -> Result<()> {
        self.plugin.driver().destroy_task(DestroyTaskRequest { task_id, force: true }).await?;
        Ok(())
    }

    /// One start with these keys of the job beside its command, from the call to the first byte.
    pub(super) async fn start(&mut self, keys: &Value) -> Result<Duration> {
        self.run += 1;
        let request = request(&self.allocation, self.run, keys);
        let mut driver = self.plugin.driver();
        tokio::time::sleep(super::SETTLE).await;
        let called = Instant::now();
        let asked = tokio::spawn(async move { driver.start_task(request).await });
        // The byte is awaited on a thread of its own: the call's reply comes later.
        let mut fifo = self.fifo.try_clone()?;
        let came = tokio::task::spawn_blocking(move || first_byte(&mut fifo)).await??;
        asked.await??;
        let task_id = self.allocation.task_id(self.run);
        self.plugin.driver().wait_task(WaitTaskRequest { task_id: task_id.clone() }).await?;
        self.remove(task_id).await?;
        Ok(came - called)
    }

    /// Many starts at once, each its own allocation; to the last first byte.
    pub(super) async fn start_many(&mut self, count: usize) -> Result<Duration> {
        let mut all = Vec::new();
        for number in 1..=count {
            let allocation = Allocation::create(self.rig, &id(number), "bench")?;
            let fifo = open_fifo(self.rig, &allocation.fifo("stdout"))?;
            all.push((allocation, fifo));
        }
        let called = Instant::now();
        let mut asked = Vec::new();
        let mut bytes = Vec::new();
        for (allocation, fifo) in &all {
            let request = request(allocation, 1, &json!({ "image": "busybox", "ephemeral": true }));
            let mut driver = self.plugin.driver();
            asked.push(tokio::spawn(async move { driver.start_task(request).await }));
            let mut fifo = fifo.try_clone()?;
            bytes.push(tokio::task::spawn_blocking(move || first_byte(&mut fifo)));
        }
        let mut last = called;
        for byte in bytes {
            last = last.max(byte.await??);
        }
        for (start, (allocation, _)) in asked.into_iter().zip(&all) {
            start.await??;
            self.remove(allocation.task_id(1)).await?;
            allocation.remove(self.rig)?;
        }
        Ok(last - called)
    }

    /// A stop of a command that ends at the signal, with its removal.
    pub(super) async fn stop(&mut self) -> Result<Duration> {
        self.run += 1;
        let script = "trap 'exit 0' TERM; echo x; while :; do sleep 1 & wait; done";
        let request = self.allocation.request(self.run, "busybox", &["/bin/sh", "-c", script]);
        self.plugin.driver().start_task(request).await?;
        first_byte(&mut self.fifo)?;
        let task_id = self.allocation.task_id(self.run);
        let called = Instant::now();
        let stop = StopTaskRequest {
            task_id: task_id.clone(),
            timeout: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            signal: String::new(),
        };
        self.plugin.driver().stop_task(stop).await?;
        self.remove(task_id).await?;
        Ok(called.elapsed())
    }

    /// What it costs that each task's figures are asked for, all by streams of their own as the agent does.
    async fn statistics(&self, tasks: &[Allocation]) -> Result<Statistics> {
        let driver = format!("/proc/{}/root/proc/{}", self.rig.leader(), self.plugin.pid());
        let pid1 = format!("/proc/{}", self.rig.leader());
        let (begun, before) = (Instant::now(), cpu_time(&pid1)?);
        tokio::time::sleep(STATISTICS).await;
        let without = (cpu_time(&pid1)? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        let samples = Arc::new(AtomicU32::new(0));
        let mut streams = Vec::new();
        for allocation in tasks {
            let request = TaskStatsRequest {
                task_id: allocation.task_id(1),
                collection_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            };
            let mut stream = self.plugin.driver().task_stats(request).await?.into_inner();
            let samples = Arc::clone(&samples);
            streams.push(tokio::spawn(async move {
                while let Ok(Some(_)) = stream.message().await {
                    samples.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        // Those that open streams and find their cgroups are not what it costs each second.
        tokio::time::sleep(SETTLE_STATISTICS).await;
        samples.store(0, Ordering::Relaxed);
        let (begun, before) = (Instant::now(), [cpu_time(&driver)?, cpu_time(&pid1)?]);
        tokio::time::sleep(STATISTICS).await;
        let seconds = begun.elapsed().as_secs_f64();
        let share = |now: Duration, then: Duration| (now - then).as_secs_f64() / seconds * 100.0;
        let figures = Statistics {
            tasks: tasks.len(),
            driver: share(cpu_time(&driver)?, before[0]),
            pid1: [share(cpu_time(&pid1)?, before[1]), without * 100.0],
            samples: f64::from(samples.load(Ordering::Relaxed)) / seconds,
        };
        streams.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(figures)
    }

    /// More idle tasks, until there are so many.
    async fn grow(&self, running: &mut Vec<Allocation>, size: usize) -> Result<()> {
        while running.len() < size {
            let wave = (size - running.len()).min(20);
            let mut asked = Vec::new();
            for _ in 0..wave {
                let allocation = Allocation::create(self.rig, &id(1000 + running.len()), "bench")?;
                let request = allocation.request(1, "busybox", &["/bin/sleep", "1000"]);
                let mut driver = self.plugin.driver();
                asked.push(tokio::spawn(async move { driver.start_task(request).await }));
                running.push(allocation);
            }
            for start in asked {
                start.await?.context("start in a crowd")?;
            }
        }
        Ok(())
    }

    async fn remove_all(&self, running: Vec<Allocation>) -> Result<()> {
        for allocation in running {
            self.remove(allocation.task_id(1)).await?;
            allocation.remove(self.rig)?;
        }
        Ok(())
    }

    /// Figures and checks of so many idle tasks.
    pub(super) async fn crowd(&mut self, tasks: usize, checks: bool) -> Result<Crowd> {
        let mut running = Vec::new();
        let mut beside = Vec::new();
        for size in [0, tasks / 5, tasks] {
            self.grow(&mut running, size).await?;
            beside.push(self.beside(size).await?);
        }
        let statistics = self.statistics(&running).await?;
        let checks = match checks {
            true => checks::run(&self.plugin, &running).await?,
            false => Checks::default(),
        };
        self.remove_all(running).await?;
        Ok(Crowd { beside, statistics, checks })
    }

    /// One more start, and memory, beside so many tasks that run.
    async fn beside(&mut self, tasks: usize) -> Result<Beside> {
        let keys = json!({ "image": "busybox", "ephemeral": true });
        let mut starts = Vec::new();
        for _ in 0..STARTS_BESIDE {
            starts.push(self.start(&keys).await?);
        }
        let helper = self.rig.main_pid("nomad-nspawn-helper.service")?;
        Ok(Beside {
            tasks,
            start_ms: percentile(&starts, 50),
            driver: resident(self.rig, self.plugin.pid())?,
            helper: resident(self.rig, helper)?,
        })
    }

    /// Memory of driver and helper with growing numbers of tasks.
    pub(super) async fn crowds(
        &self,
        sizes: &[usize],
        memory: &mut Vec<(usize, u64, u64)>,
    ) -> Result<()> {
        let helper = self.rig.main_pid("nomad-nspawn-helper.service")?;
        let mut running = Vec::new();
        for &size in sizes {
            self.grow(&mut running, size).await?;
            let driver = resident(self.rig, self.plugin.pid())?;
            memory.push((size, driver, resident(self.rig, helper)?));
        }
        self.remove_all(running).await
    }
}
