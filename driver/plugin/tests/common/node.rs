//! A plugin, a pretended helper and a client, as one node.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nomad_proto::drivers::driver_client::DriverClient;
use nomad_proto::drivers::*;
use proto::wire::State;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::helper::{Helper, World, exit};
use super::{AGENT, Plugin, Scratch, task};

pub(crate) struct Node {
    pub(crate) plugin: Plugin,
    pub(crate) driver: DriverClient<Channel>,
    pub(crate) helper: Option<Helper>,
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) scratch: Scratch,
}

impl Node {
    pub(crate) async fn new() -> Self {
        let scratch = Scratch::new();
        let world = Arc::new(Mutex::new(World::default()));
        let helper = Helper::start(&scratch.0.join("helper.sock"), 1, &world);
        let plugin = Plugin::start(&scratch, Some(AGENT), &[]);
        plugin.configure(&helper.socket).await;
        let driver = plugin.driver().await;
        Self { plugin, driver, helper: Some(helper), world, scratch }
    }

    pub(crate) async fn kill_helper(&mut self) {
        self.helper.take().unwrap().kill().await;
    }

    pub(crate) fn revive_helper(&mut self, epoch: u64) {
        let socket = self.scratch.0.join("helper.sock");
        self.helper = Some(Helper::start(&socket, epoch, &self.world));
    }

    pub(crate) async fn start(&mut self, instance: u32) -> Result<TaskHandle, tonic::Status> {
        let request = StartTaskRequest { task: Some(task("web", instance)) };
        let response = self.driver.start_task(request).await?.into_inner();
        Ok(response.handle.unwrap())
    }

    pub(crate) async fn wait(&self, id: &str) -> WaitTaskResponse {
        let request = WaitTaskRequest { task_id: id.to_owned() };
        let mut driver = self.driver.clone();
        let answer = timeout(Duration::from_secs(10), driver.wait_task(request));
        answer.await.expect("no end").unwrap().into_inner()
    }

    pub(crate) async fn stop(&mut self, id: &str, millis: i32, signal: &str) {
        self.try_stop(id, millis, signal).await.unwrap();
    }

    pub(crate) async fn try_stop(
        &mut self,
        id: &str,
        millis: i32,
        signal: &str,
    ) -> Result<(), tonic::Status> {
        let request = StopTaskRequest {
            task_id: id.to_owned(),
            timeout: Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 }),
            signal: signal.to_owned(),
        };
        self.driver.stop_task(request).await.map(drop)
    }

    /// Another plugin process takes the place of this one.
    pub(crate) async fn replace_plugin(&mut self, uid: Option<u32>, keys: &[(&str, &str)]) {
        self.plugin = Plugin::start(&self.scratch, uid, &[]);
        self.plugin.configure_with(&self.scratch.0.join("helper.sock"), keys).await;
        self.driver = self.plugin.driver().await;
    }

    pub(crate) async fn recover(&mut self, handle: &TaskHandle) -> Result<(), tonic::Status> {
        let handle = Some(handle.clone());
        let request = RecoverTaskRequest { task_id: String::new(), handle };
        self.driver.recover_task(request).await.map(drop)
    }

    pub(crate) async fn destroy(&mut self, id: &str) {
        let request = DestroyTaskRequest { task_id: id.to_owned(), force: true };
        self.driver.destroy_task(request).await.unwrap();
    }

    pub(crate) fn verbs(&self) -> Vec<String> {
        self.world.lock().unwrap().verbs.clone()
    }

    pub(crate) fn end(&self, code: i32, signal: i32) {
        for (_, state) in self.world.lock().unwrap().tasks.values_mut() {
            *state = State::Ended(exit(code, signal));
        }
    }
}

pub(crate) fn id(handle: &TaskHandle) -> String {
    handle.config.as_ref().unwrap().id.clone()
}

/// Whether Nomad would try again.
pub(crate) fn is_recoverable(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::FailedPrecondition
        && status
            .details()
            .windows(b"RecoverableError".len())
            .any(|window| window == b"RecoverableError")
}
