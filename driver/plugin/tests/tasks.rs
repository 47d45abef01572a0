//! The life of tasks, against a helper that only pretends: every request of the agent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::time::Duration;

use common::node::{Node, id, is_recoverable};
use common::{task, task_with_ports};
use nomad_proto::drivers::*;
use prost::Message;
use proto::error::{Code, Refusal};
use proto::task_spec::{Network, Payload};
use proto::wire::State;
use tokio::time::timeout;

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
        assert_eq!(spec.network, Network::with_ports(vec![]));
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
async fn d18_nomad_learns_address_and_ports_of_a_private_network() {
    let mut node = Node::new().await;
    let own = NetworkOverride {
        port_map: [("http".to_owned(), 80), ("admin".to_owned(), 20_002)].into(),
        addr: "10.87.16.2".to_owned(),
        auto_advertise: false,
    };
    let driver = node.driver.clone();
    let start = async |task| {
        let request = StartTaskRequest { task: Some(task) };
        driver.clone().start_task(request).await.unwrap().into_inner().network_override
    };
    assert_eq!(start(task_with_ports("web", 1)).await, Some(own.clone()));
    // Also of a start that is taken over where another left it.
    node.world.lock().unwrap().lose_starts = vec![State::Running];
    assert_eq!(start(task_with_ports("lost", 2)).await, Some(own));
    assert!(node.verbs().iter().filter(|verb| verb.starts_with("start 00000002")).count() == 1);
    let without = NetworkOverride { addr: "10.87.16.2".to_owned(), ..NetworkOverride::default() };
    assert_eq!(start(task("none", 3)).await, Some(without));
    // Nomad registers the services of a group with a network by what it has made itself.
    let mut grouped = task_with_ports("grouped", 4);
    grouped.network_isolation_spec = Some(NetworkIsolationSpec {
        mode: network_isolation_spec::NetworkIsolationMode::Group.into(),
        path: format!("/var/run/netns/{}", common::ALLOC),
        ..NetworkIsolationSpec::default()
    });
    let mut events = node.driver.task_events(TaskEventsRequest {}).await.unwrap().into_inner();
    assert_eq!(start(grouped).await, None);
    let event = timeout(Duration::from_secs(5), events.message()).await.unwrap().unwrap().unwrap();
    assert!(event.message.contains("ports: has no effect in this group"), "{event:?}");
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
