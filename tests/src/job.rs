//! Jobs on an instance's agent: run, wait, look, signal, stop, remove.
//!
//! For the end-to-end tests. Waiting uses the agent's blocking queries, so a change is seen within
//! milliseconds and nothing polls.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a missing key is null")]

pub use crate::task::{Event, Task};

use crate::task::story;
use crate::{Rig, api::Api, wait, world};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A job that was registered.
#[derive(Clone, Debug)]
pub struct Job {
    /// The agent it runs on.
    pub api: Api,
    /// Job id.
    pub id: String,
    /// Evaluation of the registration.
    pub eval: String,
}

/// One allocation of a job.
#[derive(Clone, Debug)]
pub struct Alloc {
    /// The agent it runs on.
    pub api: Api,
    /// Allocation id.
    pub id: String,
}

impl Rig {
    /// Registers a job given as HCL.
    ///
    /// # Errors
    /// When the agent refuses it.
    pub fn run_job(&self, hcl: &str) -> Result<Job> {
        let api = self.api();
        let body = json!({ "JobHCL": hcl, "Canonicalize": true });
        let job = api.put("/v1/jobs/parse", &body).context("the job does not parse")?;
        self.run_job_json(&job)
    }

    /// Registers a job given as the JSON object of the HTTP interface.
    ///
    /// # Errors
    /// When the agent refuses it.
    pub fn run_job_json(&self, job: &Value) -> Result<Job> {
        let api = self.api();
        let id = job["ID"].as_str().context("a job without ID")?.to_owned();
        let answer = api.put("/v1/jobs", &json!({ "Job": job }))?;
        let eval = answer["EvalID"].as_str().unwrap_or_default().to_owned();
        Ok(Job { api, id, eval })
    }

    /// All jobs that the agent knows.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        let api = self.api();
        let list = api.get("/v1/jobs")?;
        let ids = list.as_array().into_iter().flatten().filter_map(|job| job["ID"].as_str());
        Ok(ids.map(|id| Job { api, id: id.to_owned(), eval: String::new() }).collect())
    }

    /// Runs Nomad's garbage collection on server and client.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn gc(&self) -> Result<()> {
        self.api().put("/v1/system/gc", &Value::Null)?;
        self.api().get("/v1/client/gc").map(drop)
    }
}

impl Job {
    /// All allocations of the job, newest first.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn allocs(&self) -> Result<Vec<Alloc>> {
        let list = self.api.get(&format!("/v1/job/{}/allocations", self.id))?;
        let mut list: Vec<Value> = list.as_array().cloned().unwrap_or_default();
        list.sort_by_key(|alloc| std::cmp::Reverse(alloc["CreateIndex"].as_u64()));
        Ok(list
            .iter()
            .filter_map(|alloc| alloc["ID"].as_str())
            .map(|id| Alloc { api: self.api, id: id.to_owned() })
            .collect())
    }

    /// Waits for the first allocation.
    ///
    /// # Errors
    /// When none is placed in time; the message says why the evaluation failed.
    pub fn alloc(&self) -> Result<Alloc> {
        Ok(self.wait_allocs(1)?.swap_remove(0))
    }

    /// Waits until the job has at least `count` allocations.
    ///
    /// # Errors
    /// When they are not placed in time; the message says why the evaluation failed.
    pub fn wait_allocs(&self, count: usize) -> Result<Vec<Alloc>> {
        let what = format!("{count} allocations of job {}", self.id);
        // After its plugin has been killed, Nomad looks for a driver again after 5, 20 and 80 seconds
        // (drivermanager/instance.go); until then it places nothing.
        wait::until(&what, Duration::from_secs(150), || {
            let list = self.allocs()?;
            Ok((list.len() >= count).then_some(list))
        })
        .with_context(|| {
            let eval = self.api.get(&format!("/v1/evaluation/{}", self.eval));
            format!("evaluation: {}", eval.unwrap_or_default()["FailedTGAllocs"])
        })
    }

    /// Stops the job; does not wait.
    ///
    /// # Errors
    /// When the agent refuses.
    pub fn stop(&self) -> Result<()> {
        self.api.delete(&format!("/v1/job/{}", self.id)).map(drop)
    }

    /// Stops the job and waits until every allocation has ended.
    ///
    /// # Errors
    /// When one does not end in time.
    pub fn stop_wait(&self, limit: Duration) -> Result<()> {
        let allocs = self.allocs()?;
        self.stop()?;
        allocs.iter().try_for_each(|alloc| alloc.wait_done(limit).map(drop))
    }

    /// Stops the job, waits for its allocations, removes their directories, then forgets the job.
    /// In this order, because the server forgets ended allocations together with their job. Then
    /// nothing of them may be left on the host.
    ///
    /// # Errors
    /// When an allocation does not end in time or something of it stays.
    pub fn purge(&self) -> Result<()> {
        let allocs = self.allocs()?;
        self.stop()?;
        for alloc in &allocs {
            alloc.wait_done(Duration::from_secs(60))?;
            alloc.gc()?;
        }
        self.api.delete(&format!("/v1/job/{}?purge=true", self.id))?;
        allocs.iter().try_for_each(|alloc| world::wait_no_traces(self.api.leader(), &alloc.id))
    }
}

impl Alloc {
    /// The allocation as the server knows it.
    ///
    /// # Errors
    /// When the agent does not know it.
    pub fn get(&self) -> Result<Value> {
        self.api.get(&format!("/v1/allocation/{}", self.id))
    }

    /// Waits until `accept` gives something for the allocation, by blocking queries.
    ///
    /// # Errors
    /// A time-out that names `what` and holds status and events, or what `accept` returns.
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut accept: impl FnMut(&Value) -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        let mut index = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = left.min(Duration::from_secs(5)).as_millis().max(1);
            let path = format!("/v1/allocation/{}?index={index}&wait={wait}ms", self.id);
            let answer = self.api.call("GET", &path, None)?;
            index = answer.index;
            let alloc = answer.json().with_context(|| format!("allocation {}", self.id))?;
            if let Some(found) = accept(&alloc)? {
                return Ok(found);
            }
            if left.is_zero() {
                bail!(
                    "timed out after {:.1} s waiting for {what}; allocation {} is {}: {}",
                    limit.as_secs_f64(),
                    self.id,
                    alloc["ClientStatus"],
                    story(&alloc)
                );
            }
        }
    }

    /// Waits until the allocation's client status is `status`. Another final status is an error.
    ///
    /// # Errors
    /// When it ends otherwise or not in time.
    pub fn wait_status(&self, status: &str, limit: Duration) -> Result<Value> {
        self.wait(&format!("status {status}"), limit, |alloc| {
            let now = alloc["ClientStatus"].as_str().unwrap_or_default();
            if now != status && is_final(now) {
                bail!("allocation {} is {now}, not {status}: {}", self.id, story(alloc));
            }
            Ok((now == status).then(|| alloc.clone()))
        })
    }

    /// Waits until all tasks run.
    ///
    /// # Errors
    /// When one does not in time.
    pub fn wait_running(&self) -> Result<Value> {
        self.wait("all tasks to run", Duration::from_secs(60), |alloc| {
            if is_final(alloc["ClientStatus"].as_str().unwrap_or_default()) {
                bail!(
                    "allocation {} is {} ({}, {}) instead of running: {}",
                    self.id,
                    alloc["ClientStatus"],
                    alloc["ClientDescription"],
                    alloc["DesiredDescription"],
                    story(alloc)
                );
            }
            let states = alloc["TaskStates"].as_object();
            let all = states.is_some_and(|tasks| {
                !tasks.is_empty() && tasks.values().all(|task| task["State"] == "running")
            });
            Ok(all.then(|| alloc.clone()))
        })
    }

    /// Waits until the allocation has ended in any way; returns its client status.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait_done(&self, limit: Duration) -> Result<String> {
        self.wait("the allocation's end", limit, |alloc| {
            let now = alloc["ClientStatus"].as_str().unwrap_or_default();
            Ok(is_final(now).then(|| now.to_owned()))
        })
    }

    /// State of a task now.
    ///
    /// # Errors
    /// When the allocation has no such task yet.
    pub fn task(&self, name: &str) -> Result<Task> {
        Task::of(&self.get()?, name)
    }

    /// Waits for a task event of this type and returns the newest one.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait_event(&self, task: &str, kind: &str, limit: Duration) -> Result<Event> {
        self.wait(&format!("event {kind} of task {task}"), limit, |alloc| {
            let state = Task::of(alloc, task).ok();
            Ok(state.and_then(|state| state.events().into_iter().rev().find(|e| e.kind == kind)))
        })
    }

    /// All bytes the agent has collected of one stream (`stdout` or `stderr`).
    ///
    /// # Errors
    /// When the agent has none.
    pub fn logs(&self, task: &str, stream: &str) -> Result<Vec<u8>> {
        let path = format!(
            "/v1/client/fs/logs/{}?task={task}&type={stream}&plain=true&origin=start&offset=0",
            self.id
        );
        let answer = self.api.call("GET", &path, None)?;
        answer.good().with_context(|| format!("{stream} of {task}"))?;
        Ok(answer.body)
    }

    /// Waits until the collected bytes of one stream satisfy `enough`.
    ///
    /// # Errors
    /// When they do not in time; the message holds the end of what is there.
    pub fn wait_logs(
        &self,
        task: &str,
        stream: &str,
        limit: Duration,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let mut last = Vec::new();
        wait::until(&format!("{stream} of {task}"), limit, || {
            // The file appears only with the first bytes.
            last = self.logs(task, stream).unwrap_or_default();
            Ok(enough(&last).then(|| last.clone()))
        })
        .with_context(|| {
            let end = last.get(last.len().saturating_sub(400)..).unwrap_or_default();
            format!("{} bytes, the end: {:?}", last.len(), String::from_utf8_lossy(end))
        })
    }

    /// Restarts one task in place.
    ///
    /// # Errors
    /// When the agent refuses.
    pub fn restart(&self, task: &str) -> Result<()> {
        let path = format!("/v1/client/allocation/{}/restart", self.id);
        self.api.put(&path, &json!({ "TaskName": task })).map(drop)
    }

    /// Sends a signal to one task.
    ///
    /// # Errors
    /// What the driver says.
    pub fn signal(&self, task: &str, signal: &str) -> Result<()> {
        let path = format!("/v1/client/allocation/{}/signal", self.id);
        self.api.put(&path, &json!({ "Task": task, "Signal": signal })).map(drop)
    }

    /// Stops this allocation (Nomad places a new one for a service job).
    ///
    /// # Errors
    /// When the agent refuses.
    pub fn stop(&self) -> Result<()> {
        self.api.put(&format!("/v1/allocation/{}/stop", self.id), &Value::Null).map(drop)
    }

    /// Removes the directory of an ended allocation from the client.
    ///
    /// # Errors
    /// When the client refuses for another reason than having removed it already.
    pub fn gc(&self) -> Result<()> {
        let answer =
            self.api.call("GET", &format!("/v1/client/allocation/{}/gc", self.id), None)?;
        if answer.status == 404 { Ok(()) } else { answer.good() }
    }
}

fn is_final(status: &str) -> bool {
    matches!(status, "complete" | "failed" | "lost")
}
