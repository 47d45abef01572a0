//! The life of tasks, against a helper that only pretends: every request of the agent, and a
//! helper that dies at bad moments.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::helper::{Helper, World, exit};
use common::{AGENT, Plugin, Scratch, task};
use prost::Message;
use proto::error::{Code, Refusal};
use proto::nomad::drivers::driver_client::DriverClient;
use proto::nomad::drivers::fingerprint_response::HealthState;
use proto::nomad::drivers::*;
use proto::spec::{Network, Payload};
use proto::wire::State;
use tokio::time::timeout;
use tonic::transport::Channel;

struct Node {
    plugin: Plugin,
    driver: DriverClient<Channel>,
    helper: Option<Helper>,
    world: Arc<Mutex<World>>,
    scratch: Scratch,
}

impl Node {
    async fn new() -> Self {
        let scratch = Scratch::new();
        let world = Arc::new(Mutex::new(World::default()));
        let helper = Helper::start(&scratch.0.join("helper.sock"), 1, &world);
        let plugin = Plugin::start(&scratch, Some(AGENT), &[]);
        plugin.configure(&helper.socket).await;
        let driver = plugin.driver().await;
        Self { plugin, driver, helper: Some(helper), world, scratch }
    }

    async fn kill_helper(&mut self) {
        self.helper.take().unwrap().kill().await;
    }

    fn revive_helper(&mut self, epoch: u64) {
        let socket = self.scratch.0.join("helper.sock");
        self.helper = Some(Helper::start(&socket, epoch, &self.world));
    }

    async fn start(&mut self, instance: u32) -> Result<TaskHandle, tonic::Status> {
        let request = StartTaskRequest { task: Some(task("web", instance)) };
        let response = self.driver.start_task(request).await?.into_inner();
        Ok(response.handle.unwrap())
    }

    async fn wait(&self, id: &str) -> WaitTaskResponse {
        let request = WaitTaskRequest { task_id: id.to_owned() };
        let mut driver = self.driver.clone();
        let answer = timeout(Duration::from_secs(10), driver.wait_task(request));
        answer.await.expect("no end").unwrap().into_inner()
    }

    async fn stop(&mut self, id: &str, millis: i32, signal: &str) {
        let request = StopTaskRequest {
            task_id: id.to_owned(),
            timeout: Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 }),
            signal: signal.to_owned(),
        };
        self.driver.stop_task(request).await.unwrap();
    }

    async fn destroy(&mut self, id: &str) {
        let request = DestroyTaskRequest { task_id: id.to_owned(), force: true };
        self.driver.destroy_task(request).await.unwrap();
    }

    fn verbs(&self) -> Vec<String> {
        self.world.lock().unwrap().verbs.clone()
    }

    fn end(&self, code: i32, signal: i32) {
        for (_, state) in self.world.lock().unwrap().tasks.values_mut() {
            *state = State::Ended(exit(code, signal));
        }
    }
}

fn id(handle: &TaskHandle) -> String {
    handle.config.as_ref().unwrap().id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_lives_from_start_to_destroy() {
    let mut node = Node::new().await;
    let handle = node.start(1).await.unwrap();
    assert!(handle.version >= 1 && handle.state() == TaskState::Running);
    assert!(!format!("{handle:?}").contains("canary"));
    let id = id(&handle);
    {
        let world = node.world.lock().unwrap();
        let (spec, _) = world.tasks.values().next().unwrap();
        assert_eq!(spec.environment[0].value.reveal(), "job-canary");
        assert_eq!(spec.network, Network::Loopback);
        assert_eq!(spec.payload, Payload::Command { words: vec![] });
        assert_eq!(spec.resources.memory_max, Some(64 << 20));
    }
    let inspect = node
        .driver
        .inspect_task(InspectTaskRequest { task_id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    let (status, driver) = (inspect.task.unwrap(), inspect.driver.unwrap());
    assert_eq!(status.state(), TaskState::Running);
    assert!(status.started_at.is_some() && status.completed_at.is_some());
    assert!(status.result.is_some());
    assert_eq!(driver.attributes["pid"], "4242");
    let signal = |name: &str| SignalTaskRequest { task_id: id.clone(), signal: name.to_owned() };
    node.driver.signal_task(signal("hup")).await.unwrap();
    assert!(node.driver.signal_task(signal("SIGNOPE")).await.is_err());
    // A wait that is given up takes nothing with it.
    let request = WaitTaskRequest { task_id: id.clone() };
    let short = Duration::from_millis(50);
    assert!(timeout(short, node.driver.wait_task(request)).await.is_err());
    node.stop(&id, 50, "").await;
    for _ in 0..2 {
        let result = node.wait(&id).await.result.unwrap();
        assert_eq!((result.exit_code, result.signal), (137, 9));
    }
    node.destroy(&id).await;
    assert!(node.world.lock().unwrap().tasks.is_empty());
    assert_eq!(
        node.verbs(),
        [
            "start 00000001",
            "signal 00000001",
            "signal 00000001",
            "kill 00000001",
            "remove 00000001"
        ]
    );
    let request = WaitTaskRequest { task_id: id };
    assert!(node.driver.wait_task(request).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_tasks_are_where_nomad_wants_them() {
    let mut node = Node::new().await;
    let id = format!("{}/web/00000009", common::ALLOC);
    node.stop(&id, 50, "SIGTERM").await;
    node.destroy(&id).await;
    node.destroy("no id of ours").await;
    let mut stats = node
        .driver
        .task_stats(TaskStatsRequest { task_id: id, collection_interval: None })
        .await
        .unwrap()
        .into_inner();
    assert!(stats.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_end_needs_no_kill() {
    let mut node = Node::new().await;
    node.world.lock().unwrap().signals_end = true;
    let id = id(&node.start(1).await.unwrap());
    // Without a bus nobody hints; the kill's check or a new helper finds out. Here: the kill.
    node.stop(&id, 100, "SIGINT").await;
    assert!(node.wait(&id).await.result.is_some());
    node.stop(&id, 100, "SIGINT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_come_at_once_and_end_with_the_task() {
    let mut node = Node::new().await;
    let id = id(&node.start(1).await.unwrap());
    let request = TaskStatsRequest {
        task_id: id.clone(),
        collection_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
    };
    let mut stats = node.driver.task_stats(request).await.unwrap().into_inner();
    let first = stats.message().await.unwrap().unwrap().stats.unwrap();
    let usage = first.agg_resource_usage.unwrap();
    assert!(first.timestamp.is_some() && usage.cpu.is_some() && usage.memory.is_some());
    node.stop(&id, 0, "").await;
    while let Some(_more) = stats.message().await.unwrap() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_loses_its_helper_is_taken_over_when_the_payload_runs() {
    let mut node = Node::new().await;
    node.world.lock().unwrap().lose_starts = vec![State::Running];
    node.start(1).await.unwrap();
    assert_eq!(node.verbs(), ["start 00000001"]);
    // A payload that has run is not started again.
    node.world.lock().unwrap().lose_starts = vec![State::Ended(exit(3, 0))];
    let two = node.start(2).await.unwrap();
    assert_eq!(node.verbs()[1..], ["remove 00000001", "start 00000002"]);
    assert_eq!(node.wait(&id(&two)).await.result.unwrap().exit_code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_loses_its_helper_is_undone_and_repeated_when_the_launcher_failed() {
    let mut node = Node::new().await;
    let failed = State::Ended(exit(proto::plan::LAUNCHER_FAILED.into(), 0));
    node.world.lock().unwrap().lose_starts = vec![failed.clone(); 2];
    node.start(1).await.unwrap();
    assert_eq!(
        node.verbs(),
        [
            "start 00000001",
            "remove 00000001",
            "start 00000001",
            "remove 00000001",
            "start 00000001"
        ]
    );
    node.world.lock().unwrap().lose_starts = vec![failed; 9];
    let error = node.start(2).await.unwrap_err();
    assert!(is_recoverable(&error), "{error:?}");
    // The first task is an earlier run of the second and was removed before it.
    assert!(node.world.lock().unwrap().tasks.is_empty());
}

fn is_recoverable(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::FailedPrecondition
        && status
            .details()
            .windows(b"RecoverableError".len())
            .any(|window| window == b"RecoverableError")
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_whether_to_try_again() {
    let mut node = Node::new().await;
    for (code, recoverable) in
        [(Code::Policy, false), (Code::Invalid, false), (Code::Busy, true), (Code::Failed, true)]
    {
        let refusal = Refusal::new(code, "policy", "/srv/x", "not below images.paths");
        node.world.lock().unwrap().refuse = Some(refusal);
        let error = node.start(1).await.unwrap_err();
        assert_eq!(is_recoverable(&error), recoverable, "{error:?}");
        assert!(error.message().contains("/srv/x"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_runs_of_the_same_task_go_first() {
    let mut node = Node::new().await;
    node.start(1).await.unwrap();
    // A new plugin process knows nothing of the first run.
    node.plugin = Plugin::start(&node.scratch, Some(AGENT), &[]);
    node.plugin.configure(&node.scratch.0.join("helper.sock")).await;
    node.driver = node.plugin.driver().await;
    let mut events = node.driver.task_events(TaskEventsRequest {}).await.unwrap().into_inner();
    // Nomad repeats the very start that the old process was busy with.
    node.start(1).await.unwrap();
    assert_eq!(node.verbs(), ["start 00000001"]);
    node.start(2).await.unwrap();
    assert_eq!(node.verbs(), ["start 00000001", "remove 00000001", "start 00000002"]);
    let event = events.message().await.unwrap().unwrap();
    assert_eq!((event.task_name.as_str(), event.alloc_id.as_str()), ("web", common::ALLOC));
    assert!(event.timestamp.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_helper_may_be_tried_again() {
    let mut node = Node::new().await;
    node.kill_helper().await;
    let since = std::time::Instant::now();
    let error = node.start(1).await.unwrap_err();
    assert!(is_recoverable(&error), "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(8));
    assert!(error.message().contains("systemctl"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_while_the_helper_was_away_is_reported() {
    let mut node = Node::new().await;
    let id = id(&node.start(1).await.unwrap());
    node.kill_helper().await;
    node.end(3, 0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.revive_helper(2);
    let answer = node.wait(&id).await;
    assert_eq!(answer.result.unwrap().exit_code, 3);
    assert_eq!(answer.err, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_taken_over_by_a_new_plugin() {
    let mut node = Node::new().await;
    let handle = common::stored(&node.start(1).await.unwrap());
    let id = id(&handle);
    let mut plugin = Plugin::start(&node.scratch, Some(AGENT), &[]);
    plugin.configure(&node.scratch.0.join("helper.sock")).await;
    std::mem::swap(&mut plugin, &mut node.plugin);
    drop(plugin);
    node.driver = node.plugin.driver().await;
    let recover = |handle: &TaskHandle| RecoverTaskRequest {
        task_id: String::new(),
        handle: Some(handle.clone()),
    };
    for _ in 0..2 {
        node.driver.recover_task(recover(&handle)).await.unwrap();
    }
    node.world.lock().unwrap().signals_end = true;
    node.stop(&id, 100, "").await;
    // Booted tasks get systemd's signal, commands SIGTERM.
    assert!(node.verbs().contains(&"signal 00000001".to_owned()));
    node.wait(&id).await;

    let old = TaskHandle { version: 1, ..handle.clone() };
    let error = node.driver.recover_task(recover(&old)).await.unwrap_err();
    assert!(error.message().contains("older nspawn driver"), "{error:?}");
    assert!(node.driver.recover_task(RecoverTaskRequest::default()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_helper_a_task_is_taken_over_unseen_and_checked_later() {
    let mut node = Node::new().await;
    let handle = node.start(1).await.unwrap();
    let id = id(&handle);
    node.kill_helper().await;
    node.end(9, 0);
    let plugin = Plugin::start(&node.scratch, Some(AGENT), &[]);
    node.plugin = plugin;
    node.plugin.configure(&node.scratch.0.join("helper.sock")).await;
    node.driver = node.plugin.driver().await;
    let since = std::time::Instant::now();
    let request = RecoverTaskRequest { task_id: String::new(), handle: Some(handle) };
    node.driver.recover_task(request).await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(12));
    node.revive_helper(2);
    assert_eq!(node.wait(&id).await.result.unwrap().exit_code, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_removed_is_removed_later() {
    let mut node = Node::new().await;
    let id = id(&node.start(1).await.unwrap());
    node.kill_helper().await;
    node.destroy(&id).await;
    assert_eq!(node.world.lock().unwrap().tasks.len(), 1);
    node.revive_helper(2);
    for _ in 0..100 {
        if node.world.lock().unwrap().tasks.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still there: {:?}", node.verbs());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_helper() {
    let mut node = Node::new().await;
    let mut stream = node.driver.fingerprint(FingerprintRequest {}).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.health(), HealthState::Healthy);
    assert_eq!(first.health_description, "Healthy");
    assert!(first.attributes.contains_key("driver.nspawn.version"));
    // A short absence is nobody's business.
    node.kill_helper().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.revive_helper(2);
    let again = stream.message().await.unwrap().unwrap();
    assert_eq!(again.health(), HealthState::Healthy);
    node.kill_helper().await;
    let gone = timeout(Duration::from_secs(10), stream.message()).await;
    let gone = gone.unwrap().unwrap().unwrap();
    assert_eq!(gone.health(), HealthState::Unhealthy);
    assert!(gone.health_description.contains("systemctl"));
    node.revive_helper(3);
    let back = timeout(Duration::from_secs(10), stream.message()).await;
    assert_eq!(back.unwrap().unwrap().unwrap().health(), HealthState::Healthy);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_waiters_share_one_connection() {
    let mut node = Node::new().await;
    let id = id(&node.start(1).await.unwrap());
    let mut waiters = Vec::new();
    for _ in 0..300 {
        let mut driver = node.driver.clone();
        let task_id = id.clone();
        waiters
            .push(tokio::spawn(async move { driver.wait_task(WaitTaskRequest { task_id }).await }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    node.stop(&id, 0, "").await;
    for waiter in waiters {
        let result = waiter.await.unwrap().unwrap().into_inner().result.unwrap();
        assert_eq!(result.signal, 9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_environments_arrive_whole() {
    let mut node = Node::new().await;
    let mut task = task("web", 1);
    for index in 0..13 {
        let value: String = "value\n\"\\$% ".repeat(10_000);
        task.env.insert(format!("LARGE_{index:02}"), value);
    }
    let expected = task.env["LARGE_07"].clone();
    node.driver.start_task(StartTaskRequest { task: Some(task) }).await.unwrap();
    let world = node.world.lock().unwrap();
    let (spec, _) = world.tasks.values().next().unwrap();
    let found =
        spec.environment.iter().find(|variable| variable.name.as_str() == "LARGE_07").unwrap();
    assert_eq!(found.value.reveal(), expected);
    // Nothing of it may be in the log.
    assert!(!node.plugin.log().contains("value"));
    assert_eq!(TaskHandle::default().encoded_len(), 0);
}
