//! The Driver service.
//!
//! Requests that change something run in a task of their own and are finished even when the agent
//! stops waiting: half a start is worse than one that is no longer wanted.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use nomad_proto::drivers::driver_capabilities::{FsIsolation, MountConfigs};
use nomad_proto::drivers::driver_server::Driver as Nomad;
use nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode;
use nomad_proto::drivers::*;
use proto::wire::Exit;
use tonic::{Request, Response, Status, Streaming};

use super::exec::{self, command_result};
use super::stream::{self, Answers};
use crate::config::table::Table as _;
use crate::config::task::TaskKeys;
use crate::error::Failure;
use crate::events::timestamp;
use crate::exec::Limits;
use crate::lifecycle::Driver;
use crate::lifecycle::handle::Advertised;
use crate::lifecycle::task::{Phase, Task};

/// The service.
#[derive(Debug)]
pub(super) struct Service {
    driver: Arc<Driver>,
}

impl Service {
    pub(super) fn new(driver: Arc<Driver>) -> Self {
        Self { driver }
    }

    fn task(&self, id: &str) -> Result<Arc<Task>, Failure> {
        self.driver.tasks.get(id).ok_or_else(|| Failure::unknown_task(id))
    }
}

/// Runs to the end, whether or not the agent waits for it.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(Status::from),
        // Only with panic = "unwind"; release builds abort.
        Err(_) => Err(Failure::permanent("the driver hit a bug; see the agent's log").into()),
    }
}

fn duration(duration: Option<prost_types::Duration>) -> Duration {
    // Negative ones are as good as none.
    duration.and_then(|d| Duration::try_from(d).ok()).unwrap_or_default()
}

fn exit_result(exit: &Exit) -> ExitResult {
    ExitResult { exit_code: exit.code, signal: exit.signal, oom_killed: exit.oom }
}

#[tonic::async_trait]
impl Nomad for Service {
    async fn init(&self, _: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        self.driver.activate();
        Ok(Response::new(InitResponse {}))
    }

    async fn shutdown(
        &self,
        _: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownResponse>, Status> {
        // Tasks go on; the process is ended by the controller.
        Ok(Response::new(ShutdownResponse {}))
    }

    async fn task_config_schema(
        &self,
        _: Request<TaskConfigSchemaRequest>,
    ) -> Result<Response<TaskConfigSchemaResponse>, Status> {
        Ok(Response::new(TaskConfigSchemaResponse { spec: Some(TaskKeys::spec()) }))
    }

    async fn capabilities(
        &self,
        _: Request<CapabilitiesRequest>,
    ) -> Result<Response<CapabilitiesResponse>, Status> {
        let disable_log_collection = self.driver.config.borrow().disable_log_collection;
        Ok(Response::new(CapabilitiesResponse {
            capabilities: Some(DriverCapabilities {
                send_signals: true,
                exec: true,
                fs_isolation: FsIsolation::Image.into(),
                network_isolation_modes: vec![
                    NetworkIsolationMode::Host.into(),
                    NetworkIsolationMode::Group.into(),
                ],
                must_create_network: false,
                // Zero also means any mounts.
                mount_configs: MountConfigs::UnknownMounts.into(),
                disable_log_collection,
                dynamic_workload_users: false,
            }),
        }))
    }

    type FingerprintStream = Answers<FingerprintResponse>;

    async fn fingerprint(
        &self,
        _: Request<FingerprintRequest>,
    ) -> Result<Response<Self::FingerprintStream>, Status> {
        self.driver.activate();
        let driver = Arc::clone(&self.driver);
        Ok(Response::new(stream::fingerprints(driver)))
    }

    async fn recover_task(
        &self,
        request: Request<RecoverTaskRequest>,
    ) -> Result<Response<RecoverTaskResponse>, Status> {
        let driver = Arc::clone(&self.driver);
        let Some(handle) = request.into_inner().handle else {
            return Err(Failure::permanent("the agent sent no task handle").into());
        };
        finish(async move { driver.recover(&handle).await }).await?;
        Ok(Response::new(RecoverTaskResponse {}))
    }

    async fn start_task(
        &self,
        request: Request<StartTaskRequest>,
    ) -> Result<Response<StartTaskResponse>, Status> {
        let driver = Arc::clone(&self.driver);
        let Some(task) = request.into_inner().task else {
            return Err(Failure::permanent("the agent sent no task configuration").into());
        };
        let started = finish(async move { driver.start(task).await }).await?;
        Ok(Response::new(StartTaskResponse {
            result: start_task_response::Result::Success.into(),
            driver_error_msg: String::new(),
            handle: Some(started.handle),
            network_override: started.network,
        }))
    }

    async fn wait_task(
        &self,
        request: Request<WaitTaskRequest>,
    ) -> Result<Response<WaitTaskResponse>, Status> {
        let task = self.task(&request.into_inner().task_id)?;
        let exit = task.wait_until_ended().await;
        Ok(Response::new(WaitTaskResponse {
            result: Some(exit_result(&exit)),
            err: exit.error.clone(),
        }))
    }

    async fn stop_task(
        &self,
        request: Request<StopTaskRequest>,
    ) -> Result<Response<StopTaskResponse>, Status> {
        let driver = Arc::clone(&self.driver);
        let StopTaskRequest { task_id, timeout, signal } = request.into_inner();
        finish(async move { driver.stop(&task_id, duration(timeout), &signal).await }).await?;
        Ok(Response::new(StopTaskResponse {}))
    }

    async fn destroy_task(
        &self,
        request: Request<DestroyTaskRequest>,
    ) -> Result<Response<DestroyTaskResponse>, Status> {
        let driver = Arc::clone(&self.driver);
        let id = request.into_inner().task_id;
        finish(async move {
            driver.destroy(&id).await;
            Ok(())
        })
        .await?;
        Ok(Response::new(DestroyTaskResponse {}))
    }

    async fn inspect_task(
        &self,
        request: Request<InspectTaskRequest>,
    ) -> Result<Response<InspectTaskResponse>, Status> {
        let task = self.task(&request.into_inner().task_id)?;
        Ok(Response::new(inspect(&task)))
    }

    type TaskStatsStream = Answers<TaskStatsResponse>;

    async fn task_stats(
        &self,
        request: Request<TaskStatsRequest>,
    ) -> Result<Response<Self::TaskStatsStream>, Status> {
        let request = request.into_inner();
        let task = self.driver.tasks.get(&request.task_id);
        let every = duration(request.collection_interval);
        Ok(Response::new(stream::stats(&self.driver, task, every)))
    }

    type TaskEventsStream = Answers<DriverTaskEvent>;

    async fn task_events(
        &self,
        _: Request<TaskEventsRequest>,
    ) -> Result<Response<Self::TaskEventsStream>, Status> {
        Ok(Response::new(stream::events(&self.driver)))
    }

    async fn signal_task(
        &self,
        request: Request<SignalTaskRequest>,
    ) -> Result<Response<SignalTaskResponse>, Status> {
        let driver = Arc::clone(&self.driver);
        let SignalTaskRequest { task_id, signal } = request.into_inner();
        finish(async move { driver.signal(&task_id, &signal).await }).await?;
        Ok(Response::new(SignalTaskResponse {}))
    }

    // Not finished when the agent stops waiting: nobody would see its result.
    async fn exec_task(
        &self,
        request: Request<ExecTaskRequest>,
    ) -> Result<Response<ExecTaskResponse>, Status> {
        let ExecTaskRequest { task_id, command, timeout } = request.into_inner();
        let limits = Limits::of_script(duration(timeout));
        let finished = self.driver.run_script(&task_id, &command, limits).await?;
        Ok(Response::new(ExecTaskResponse {
            stdout: finished.output,
            stderr: finished.errors,
            result: Some(command_result(finished.code)),
        }))
    }

    type ExecTaskStreamingStream = exec::Outputs;

    async fn exec_task_streaming(
        &self,
        request: Request<Streaming<ExecTaskStreamingRequest>>,
    ) -> Result<Response<Self::ExecTaskStreamingStream>, Status> {
        exec::converse(&self.driver, request.into_inner()).await.map(Response::new)
    }

    async fn create_network(
        &self,
        _: Request<CreateNetworkRequest>,
    ) -> Result<Response<CreateNetworkResponse>, Status> {
        Err(Failure::unsupported("the nspawn driver makes no group networks").into())
    }

    async fn destroy_network(
        &self,
        _: Request<DestroyNetworkRequest>,
    ) -> Result<Response<DestroyNetworkResponse>, Status> {
        Err(Failure::unsupported("the nspawn driver makes no group networks").into())
    }
}

/// Everything that is known of a task; Nomad's client wants every part to be there.
fn inspect(task: &Task) -> InspectTaskResponse {
    let identity = &task.identity;
    let mut attributes = HashMap::from([
        ("unit".to_owned(), identity.unit.clone()),
        ("machine".to_owned(), identity.machine.to_string()),
    ]);
    if let Some(base) = identity.uid_base {
        attributes.insert("uid_base".to_owned(), base.to_string());
    }
    if let Some(details) = &task.details {
        attributes.insert("image".to_owned(), details.image.clone());
        if let Some(address) = details.addresses.first() {
            attributes.insert("ip".to_owned(), address.to_string());
        }
    }
    let network = task.details.as_ref().and_then(|details| details.network.as_ref());
    let (state, exit) = match task.phase() {
        Phase::Running { leader } => {
            if let Some(pid) = leader {
                attributes.insert("pid".to_owned(), pid.to_string());
            }
            (TaskState::Running, None)
        }
        Phase::Ended(exit) => (TaskState::Exited, Some(exit)),
    };
    let ended_ms = exit.as_ref().map_or(0, |exit| exit.ended_ms);
    InspectTaskResponse {
        task: Some(TaskStatus {
            id: task.id.clone(),
            name: identity.key.task.to_string(),
            state: state.into(),
            started_at: Some(timestamp(identity.started_ms)),
            completed_at: Some(timestamp(ended_ms)),
            result: Some(exit.map_or_else(ExitResult::default, |exit| exit_result(&exit))),
        }),
        driver: Some(TaskDriverStatus { attributes }),
        network_override: network.map(Advertised::to_override),
    }
}
