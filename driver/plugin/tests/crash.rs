//! A helper that dies at bad moments, and plugins that take over from each other.
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

use common::helper::exit;
use common::node::{Node, id, is_recoverable};
use common::{AGENT, Plugin};
use nomad_proto::drivers::fingerprint_response::HealthState;
use nomad_proto::drivers::*;
use proto::wire::State;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_loses_its_helper_is_taken_over_when_the_payload_runs() {
    let mut node = Node::new().await;
    node.world.lock().unwrap().lose_starts = vec![State::Running];
    node.start(1).await.unwrap();
    assert_eq!(node.verbs(), ["start 00000001"]);
    // A payload that has run is not started again.
    node.end(0, 0);
    node.world.lock().unwrap().lose_starts = vec![State::Ended(exit(3, 0))];
    let two = node.start(2).await.unwrap();
    assert_eq!(node.verbs()[1..], ["remove 00000001", "start 00000002"]);
    assert_eq!(node.wait(&id(&two)).await.result.unwrap().exit_code, 3);
    // Nor one that ends with the status of a launcher that failed.
    let status = i32::from(proto::plan::LAUNCHER_FAILED);
    node.world.lock().unwrap().lose_starts = vec![State::Ended(exit(status, 0))];
    let three = node.start(3).await.unwrap();
    assert_eq!(node.verbs()[3..], ["remove 00000002", "start 00000003"]);
    assert_eq!(node.wait(&id(&three)).await.result.unwrap().exit_code, status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_loses_its_helper_is_undone_and_repeated_when_the_launcher_failed() {
    let mut node = Node::new().await;
    let error = "the exit record is gone".to_owned();
    let failed = State::Ended(proto::wire::Exit { error, ..exit(1, 0) });
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
    node.end(0, 0);
    node.world.lock().unwrap().lose_starts = vec![failed; 9];
    let error = node.start(2).await.unwrap_err();
    assert!(is_recoverable(&error), "{error:?}");
    // The first task is an earlier run of the second and was removed before it.
    assert!(node.world.lock().unwrap().tasks.is_empty());
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
    // Another start of a task that still runs closes the logs of both, so Nomad must begin anew.
    let error = node.start(2).await.unwrap_err();
    assert!(is_recoverable(&error), "{error:?}");
    assert_eq!(node.verbs(), ["start 00000001", "remove 00000001"]);
    node.start(3).await.unwrap();
    node.end(0, 0);
    node.start(4).await.unwrap();
    let verbs = ["start 00000003", "remove 00000003", "start 00000004"];
    assert_eq!(node.verbs()[2..], verbs);
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
    let handle = node.start(1).await.unwrap();
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
    // It was not there, and perhaps nobody wants it any more.
    assert!(!error.message().contains("anew"), "{error:?}");
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
    assert!(since.elapsed() < Duration::from_secs(15));
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
