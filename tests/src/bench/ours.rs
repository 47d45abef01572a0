//! Our side: the plugin, driven over its own socket.

use super::{Report, first_byte, open_fifo, resident};
use crate::plugin::{Allocation, Plugin};
use crate::{Rig, msgpack};
use anyhow::{Context as _, Result};
use nomad_proto::drivers::{
    DestroyTaskRequest, StartTaskRequest, StopTaskRequest, WaitTaskRequest,
};
use serde_json::{Value, json};
use std::fs::File;
use std::time::{Duration, Instant};

/// The prepared host.
pub(super) struct Ours<'a> {
    rig: &'a Rig,
    plugin: Plugin,
    allocation: Allocation,
    fifo: File,
    run: u32,
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

    /// Memory of driver and helper with growing numbers of tasks.
    pub(super) async fn crowds(&mut self, sizes: &[usize], report: &mut Report) -> Result<()> {
        let helper = self.rig.main_pid("nomad-nspawn-helper.service")?;
        let mut running: Vec<Allocation> = Vec::new();
        for &size in sizes {
            while running.len() < size {
                let wave = (size - running.len()).min(20);
                let mut asked = Vec::new();
                for _ in 0..wave {
                    let allocation =
                        Allocation::create(self.rig, &id(1000 + running.len()), "bench")?;
                    let request = allocation.request(1, "busybox", &["/bin/sleep", "1000"]);
                    let mut driver = self.plugin.driver();
                    asked.push(tokio::spawn(async move { driver.start_task(request).await }));
                    running.push(allocation);
                }
                for start in asked {
                    start.await?.context("start in a crowd")?;
                }
            }
            let driver = resident(self.rig, self.plugin.pid())?;
            report.memory.push((size, driver, resident(self.rig, helper)?));
        }
        for allocation in running {
            self.remove(allocation.task_id(1)).await?;
            allocation.remove(self.rig)?;
        }
        Ok(())
    }
}
