//! Starting a task.
//!
//! The job is validated completely before anything is asked of the helper. Whatever an earlier
//! run of the task left behind is removed first, so that a crash at any moment never makes a
//! second container. A start that lost its helper, or its plugin (Nomad then repeats it), is taken
//! over where it stands: a container that was started must not be started again, because its first
//! end has closed the log streams. Only one that has come to nothing is tried again.

use std::sync::Arc;
use std::time::Duration;

use nomad_proto::drivers::{NetworkOverride, TaskConfig, TaskHandle};
use proto::error::Code;
use proto::limits;
use proto::name::TaskKey;
use proto::task_spec::process::Ready;
use proto::task_spec::{Network, Payload, TaskSpec};
use proto::wire::{self, State};
use tokio::time::{Instant, sleep, timeout};

use super::Driver;
use super::end_detection::publish;
use super::handle::{Advertised, Details, Identity};
use super::newest_start::Claim;
use super::older;
use super::progress;
use super::task::Task;
use crate::error::Failure;
use crate::exec::Context;
use crate::helper_client::CallError;
use crate::metrics::figures::{Start, Step};
use crate::node::ulimit;
use crate::translate::signal::default_stop;
use crate::translate::{self, Node, ports};

/// Time for the helper to come back before a start fails.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for looking at the image.
const LOOK: Duration = Duration::from_secs(10);
/// Tries of one start when the helper goes away under it.
const TRIES: usize = 3;
/// Time between two looks at a start that another request began.
const PAUSE: Duration = Duration::from_millis(20);

/// What Nomad keeps of a started task.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its handle.
    pub(crate) handle: TaskHandle,
    /// Its network, where it has one of its own. Nomad keeps it by itself and never asks again.
    pub(crate) network: Option<NetworkOverride>,
}

impl Driver {
    /// Starts a task.
    ///
    /// # Errors
    /// What is wrong with the job, what the helper refused, or that it cannot be reached.
    pub(crate) async fn start(self: &Arc<Self>, config: TaskConfig) -> Result<Started, Failure> {
        let result = self.start_once(config).await;
        self.helper.figures.count_start(match &result {
            Ok(_) => Start::Started,
            Err(failure) if failure.is_recoverable() => Start::Failed,
            Err(_) => Start::Refused,
        });
        result
    }

    async fn start_once(self: &Arc<Self>, config: TaskConfig) -> Result<Started, Failure> {
        let claim = self.claims.take(&config);
        self.refuse_unable()?;
        self.activate();
        if self.tasks.get(&config.id).is_some() {
            return Err(Failure::permanent(format!("task {} was started before", config.id)));
        }
        let config = Arc::new(config);
        let began = Instant::now();
        let spec = self.specify(&config).await?;
        self.helper.figures.time_step(Step::Translate, began.elapsed());
        older::refuse_beside_older(&spec.key)?;
        self.leftovers.cancel(&spec.key);
        let begun = self.remove_earlier_runs(&spec.key, &config, &claim).await?;
        let since = Instant::now();
        let under_way =
            if begun { self.find_under_way(&spec).await.map_err(to_failure)? } else { None };
        let started = match under_way {
            Some(started) => started,
            None => {
                let ask = self.ask(&spec, &config, &claim);
                progress::report_while(&self.helper, &self.events, &config, &spec, ask).await?
            }
        };
        let took = since.elapsed();
        let network = network_of(&spec, &config, &started);
        let handle = self.adopt(&spec, &config, &started, network.clone())?;
        progress::report_start(&self.events, &config, &spec, &started, took);
        if let Some(probe) = translate::probe_of(&config) {
            self.wait_until_ready(&config, &probe).await?;
        }
        Ok(Started { handle, network: network.as_ref().map(Advertised::to_override) })
    }

    /// Translates the job into the helper's specification.
    async fn specify(&self, config: &Arc<TaskConfig>) -> Result<TaskSpec, Failure> {
        let (systemd, host_users) = match self.helper.greeting(PATIENCE).await {
            Some(welcome) => (welcome.systemd, Some(welcome.host_users)),
            None => (0, None),
        };
        let (plugin, directories) = (self.config.borrow().clone(), self.directories.clone());
        let cores = self.compute.borrow().cores();
        let task = Arc::clone(config);
        let build = move || {
            let node = Node::of_host(systemd, host_users, cores, &plugin, &directories);
            translate::build(&task, &node)
        };
        let look = with_deadline(LOOK, build, || translate::image_of(config));
        progress::report_image_while(&self.events, config, progress::PATIENCE, look).await
    }

    /// Removes them, and returns whether this very run has been begun already.
    async fn remove_earlier_runs(
        &self,
        key: &TaskKey,
        config: &TaskConfig,
        claim: &Claim<'_>,
    ) -> Result<bool, Failure> {
        let runs = self.helper.runs_of(key, PATIENCE).await.map_err(to_failure)?;
        let begun = runs.contains(key);
        let mut ran = false;
        for run in runs.into_iter().filter(|run| run != key) {
            // What is there may be the later start's.
            if !claim.holds() {
                return Err(to_failure(CallError::Overtaken));
            }
            tracing::warn!(task = %run, "an earlier run is still there and is removed");
            let known = self.helper.status(&run, PATIENCE).await;
            ran |= known.is_ok_and(|task| !matches!(task.state, State::Ended(_)));
            self.helper.remove(&run, PATIENCE).await.map_err(to_failure)?;
            self.forget(&run.to_string());
            self.events.send(config, "Removed what an earlier run of this task left behind");
        }
        if ran {
            // Nomad's log collector was started before this call, and stops for good when the
            // earlier run closes the streams. It is started again when the task is restarted.
            return Err(Failure::recoverable(
                "an earlier run of this task, of which Nomad did not know or which could not be \
                 removed in its time, was still running; it has been removed, which closed the \
                 task's log streams, so Nomad must start the task once more",
            ));
        }
        Ok(begun)
    }

    /// A run that is there already, once its start is through; `None` when there is none any more.
    async fn find_under_way(&self, spec: &TaskSpec) -> Result<Option<wire::Task>, CallError> {
        let key = &spec.key;
        let deadline = Instant::now() + Duration::from_secs(spec.start_limit_s());
        loop {
            let task = match self.helper.status(key, PATIENCE).await {
                Ok(task) => task,
                Err(CallError::Refused(refusal)) if refusal.code == Code::Unknown => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            match &task.state {
                State::Starting(_) if Instant::now() < deadline => sleep(PAUSE).await,
                State::Running => return Ok(Some(task)),
                // An end that is not certain is not a payload's.
                State::Ended(exit) if exit.error.is_empty() => return Ok(Some(task)),
                State::Starting(_) | State::Ended(_) => {
                    self.helper.remove(key, PATIENCE).await?;
                    return Ok(None);
                }
            }
        }
    }

    async fn ask(
        &self,
        spec: &TaskSpec,
        config: &TaskConfig,
        claim: &Claim<'_>,
    ) -> Result<wire::Task, Failure> {
        let queued = |most: usize| self.events.send(config, &queued_message(spec, most));
        let began = Instant::now();
        let _place = self.helper.take_place(spec, queued).await;
        self.helper.figures.time_step(Step::Queue, began.elapsed());
        let mut tries = 0;
        loop {
            tries += 1;
            let began = Instant::now();
            let error = match self.helper.start(spec, || claim.holds()).await {
                Ok(task) => {
                    self.helper.figures.time_step(Step::Helper, began.elapsed());
                    if let Some(filters) = &task.filters {
                        self.helper.figures.count_filters(filters);
                    }
                    return Ok(task);
                }
                Err(CallError::Refused(refusal)) if refusal.code == Code::Epoch => {
                    CallError::Refused(refusal)
                }
                Err(error @ CallError::Unreachable(_)) => error,
                Err(error) => {
                    let undone = |code| matches!(code, Code::Failed | Code::Busy | Code::Invalid);
                    if matches!(&error, CallError::Refused(refusal) if undone(refusal.code)) {
                        // The helper undoes what failed; should it not have got through, we ask.
                        self.leftovers.add(spec.key.clone());
                    }
                    return Err(to_failure(error));
                }
            };
            tracing::warn!(task = %spec.key, tries, %error, "start lost its helper");
            match self.find_under_way(spec).await {
                Ok(Some(task)) => return Ok(task),
                Ok(None) => {}
                Err(error) => {
                    self.leftovers.add(spec.key.clone());
                    return Err(to_failure(error));
                }
            }
            if tries == TRIES {
                return Err(to_failure(error));
            }
        }
    }

    fn adopt(
        self: &Arc<Self>,
        spec: &TaskSpec,
        config: &TaskConfig,
        started: &wire::Task,
        network: Option<Advertised>,
    ) -> Result<TaskHandle, Failure> {
        let boots = matches!(spec.payload, Payload::Boot { .. });
        let identity =
            Identity::of(started, &self.boot, spec.stop_signal.unwrap_or(default_stop(boots)));
        let details = Details {
            context: Context::of(spec),
            image: translate::image_of(config),
            addresses: started.addresses.clone(),
            network,
        };
        let handle = identity.to_handle(&details, config)?;
        let task = self.tasks.add(Task::new(identity, Some(details), started.leader));
        match &started.state {
            State::Ended(exit) => publish(&self.helper.figures, &task, exit.clone()),
            // It may have ended before its unit was known here; nothing would report that again.
            State::Starting(_) | State::Running => self.check(&task),
        }
        self.follow_memory(&task);
        tracing::info!(
            task = task.id.as_str(),
            unit = started.unit.as_str(),
            machine = started.machine.as_str(),
            leader = started.leader.unwrap_or_default(),
            "task started"
        );
        for note in &started.notes {
            self.events.send(config, note);
        }
        for missed in
            ulimit::report_lower(&spec.isolation.limits, started.leader.unwrap_or_default())
        {
            self.events.send(config, &missed);
        }
        if ports::have_no_effect(config, &spec.network) {
            self.events.send(config, ports::NO_EFFECT);
        }
        Ok(handle)
    }
}

/// What services may use of a task's own network.
fn network_of(spec: &TaskSpec, config: &TaskConfig, started: &wire::Task) -> Option<Advertised> {
    match spec.network {
        Network::Private(_) | Network::Attached(_) | Network::Container(_) => {}
        Network::Loopback | Network::Host | Network::Join(_) => return None,
    }
    let v4 = started.addresses.iter().find(|address| address.is_ipv4());
    let address = v4.or(started.addresses.first())?;
    let ports = ports::inside(config).into_iter().collect();
    Some(Advertised { address: *address, ports })
}

/// Runs `look` under a deadline: a hung file system costs one blocking thread, not the start.
async fn with_deadline<T: Send + 'static>(
    limit: Duration,
    look: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    image: impl FnOnce() -> String,
) -> Result<T, Failure> {
    let look = tokio::task::spawn_blocking(look);
    let abort = look.abort_handle();
    match timeout(limit, look).await {
        Ok(Ok(result)) => result,
        // Only with panic = "unwind"; release builds abort.
        Ok(Err(_)) => Err(Failure::permanent("the driver hit a bug while it read the job")),
        Err(_) => {
            // Also while it waits for a thread.
            abort.abort();
            Err(Failure::recoverable(format!(
                "image = {:?}: its file system does not answer; see what it is mounted from, or \
                 unmount it",
                image()
            )))
        }
    }
}

/// The event of a start that has to wait for its turn.
fn queued_message(spec: &TaskSpec, most: usize) -> String {
    let which = match spec.process.ready {
        Ready::Notify { .. } => "tasks with ready.mode = \"notify\"",
        _ if spec.waits() => "tasks that wait for an address",
        _ => "tasks",
    };
    format!("Waits for other starts: this node starts {most} {which} at once")
}

/// A helper that cannot be reached is worth another try.
fn to_failure(error: CallError) -> Failure {
    match error {
        CallError::Refused(refusal) => refusal.into(),
        CallError::Unreachable(down) => Failure::recoverable(down.to_string()),
        CallError::Overtaken => Failure::permanent(format!("{error}; this one is given up")),
        CallError::TooLarge(_) => Failure::permanent(format!(
            "the task is {error}; its command, environment and credential values may take about {} \
             KiB together: put large ones into files, with a template block or the credential's source",
            limits::SPEC_MAX / 1024
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_system_that_hangs_is_named_by_its_image() {
        let image = || "/srv/nfs/debian".to_owned();
        let hang = || {
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        };
        let error = with_deadline(Duration::from_millis(20), hang, image).await.unwrap_err();
        assert!(tonic::Status::from(error.clone()).code() == tonic::Code::FailedPrecondition);
        assert!(error.text().contains("\"/srv/nfs/debian\": its file system does not answer"));
        assert_eq!(with_deadline(LOOK, || Ok(7), image).await, Ok(7));
    }

    #[test]
    fn a_start_that_is_too_large_names_everything_that_counts() {
        let text = to_failure(CallError::TooLarge(proto::codec::CodecError::TooLong));
        for part in ["command", "environment", "credential", "1536 KiB"] {
            assert!(text.text().contains(part), "{text}");
        }
    }
}
