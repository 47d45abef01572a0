//! What the agent gets to see when starts queue, a helper says nothing, or a call is not served.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::time::{Duration, Instant};

use common::node::{Node, id, is_recoverable};
use common::{AGENT, task, task_of};
use nomad_proto::drivers::*;
use proto::error::{Code, Refusal};
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_whose_kill_failed_is_repeated_by_nomad() {
    let mut node = Node::new().await;
    let id = id(&node.start(1).await.unwrap());
    for code in [Code::Failed, Code::Busy] {
        let refusal = Refusal::new(code, "kill_all", &id, "the bus is away");
        node.world.lock().unwrap().refuse_kills = Some(refusal);
        let error = node.try_stop(&id, 0, "").await.unwrap_err();
        assert!(error.message().contains("the bus is away"), "{error:?}");
    }
    // What has ended meanwhile needs no kill.
    node.end(3, 0);
    node.try_stop(&id, 0, "").await.unwrap();
    assert_eq!(node.wait(&id).await.result.unwrap().exit_code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_starts_of_a_task_that_wait_the_later_goes_on() {
    let mut node = Node::new().await;
    let mut events = node.driver.task_events(TaskEventsRequest {}).await.unwrap().into_inner();
    node.world.lock().unwrap().hold_starts = true;
    let start = |name: &str, instance| {
        let mut driver = node.driver.clone();
        let request = StartTaskRequest { task: Some(task(name, instance)) };
        tokio::spawn(async move { driver.start_task(request).await })
    };
    let others: Vec<_> = (0..10).map(|n| start(&format!("other{n}"), 1)).collect();
    while node.world.lock().unwrap().held < 10 {
        sleep(Duration::from_millis(10)).await;
    }
    let mut waits = async || {
        let event = timeout(Duration::from_secs(9), events.message()).await.unwrap();
        let event = event.unwrap().unwrap();
        assert_eq!(event.task_name, "web");
        assert!(event.message.contains("this node starts 10 tasks at once"), "{event:?}");
    };
    // The agent is killed while this one waits; the next agent asks for the task again.
    let old = start("web", 7);
    waits().await;
    let new = start("web", 3);
    waits().await;
    node.world.lock().unwrap().hold_starts = false;
    let refused = old.await.unwrap().unwrap_err();
    assert!(refused.message().contains("a later start of the same task"), "{refused:?}");
    assert!(!is_recoverable(&refused));
    new.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    let world = node.world.lock().unwrap();
    let runs: Vec<_> = world.tasks.keys().filter(|key| key.task.as_str() == "web").collect();
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].instance.0, 3);
    assert!(!world.verbs.contains(&"start 00000007".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_helper_delays_all_recoveries_together_by_one_timeout() {
    let mut node = Node::new().await;
    let handles = [1, 2, 3, 4].map(|n| (format!("task{n}"), n));
    let mut recovered = Vec::new();
    for (name, instance) in handles {
        let request = StartTaskRequest { task: Some(task(&name, instance)) };
        let answer = node.driver.start_task(request).await.unwrap().into_inner();
        recovered.push(answer.handle.unwrap());
    }
    node.world.lock().unwrap().mute = true;
    node.replace_plugin(Some(AGENT), &[("recover_timeout", "2s")]).await;
    let since = Instant::now();
    for handle in &recovered {
        node.recover(handle).await.unwrap();
    }
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    // They are asked for once it speaks.
    node.end(5, 0);
    node.world.lock().unwrap().mute = false;
    for handle in &recovered {
        assert_eq!(node.wait(&id(handle)).await.result.unwrap().exit_code, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_helper_does_not_delay_the_older_drivers_tasks() {
    let mut node = Node::new().await;
    let request = StartTaskRequest { task: Some(task("older", 1)) };
    let answer = node.driver.start_task(request).await.unwrap().into_inner();
    let handle = TaskHandle { version: 1, ..answer.handle.unwrap() };
    node.world.lock().unwrap().mute = true;
    node.replace_plugin(Some(AGENT), &[("recover_timeout", "1s")]).await;
    let since = Instant::now();
    for _ in 0..3 {
        let error = node.recover(&handle).await.unwrap_err();
        assert!(error.message().contains("it does not run any more"), "{error:?}");
    }
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_account_recovering_waits_for_nobody() {
    let mut node = Node::new().await;
    let handle = node.start(1).await.unwrap();
    node.kill_helper().await;
    node.replace_plugin(None, &[("recover_timeout", "1s")]).await;
    let since = Instant::now();
    node.recover(&handle).await.unwrap();
    // A node that has the account waits for its helper.
    let account = nix::unistd::User::from_name("nomad-nspawn").unwrap();
    let most = if account.is_none() { 900 } else { 3_000 };
    assert!(since.elapsed() < Duration::from_millis(most), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_without_answer_is_not_sent_twice() {
    let mut node = Node::new().await;
    node.replace_plugin(Some(AGENT), &[("helper_timeout", "1s")]).await;
    let id = id(&node.start(1).await.unwrap());
    node.world.lock().unwrap().mute = true;
    let request = SignalTaskRequest { task_id: id, signal: "SIGHUP".to_owned() };
    let error = node.driver.signal_task(request).await.unwrap_err();
    assert!(error.message().contains("does not answer"), "{error:?}");
    let signals = node.verbs().iter().filter(|verb| verb.starts_with("signal")).count();
    assert_eq!(signals, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_of_another_boot_says_so() {
    let mut node = Node::new().await;
    let mut handle = node.start(1).await.unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let state = &mut handle.driver_state;
    let at = state.windows(36).position(|bytes| bytes == boot.trim().as_bytes()).unwrap();
    state[at..at + 36].copy_from_slice(b"00000000-0000-0000-0000-000000000000");
    node.replace_plugin(Some(AGENT), &[]).await;
    let error = node.recover(&handle).await.unwrap_err();
    let said = "the host was rebooted after task";
    assert!(error.message().contains(said) && error.message().contains("is gone"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_says_so() {
    let mut node = Node::new().await;
    node.start(1).await.unwrap();
    let alloc_id = common::ALLOC.to_owned();
    let create = CreateNetworkRequest { alloc_id: alloc_id.clone(), hostname: String::new() };
    let destroy = DestroyNetworkRequest { alloc_id, isolation_spec: None };
    let driver = &mut node.driver;
    for (error, text) in [
        (driver.create_network(create).await.unwrap_err(), "makes no group networks"),
        (driver.destroy_network(destroy).await.unwrap_err(), "makes no group networks"),
    ] {
        assert_eq!(error.code(), tonic::Code::Unimplemented);
        assert!(error.message().contains(text), "{error:?}");
    }
    // The agent's own good-bye changes nothing: tasks go on, and so does the process.
    node.driver.shutdown(ShutdownRequest {}).await.unwrap();
    node.driver.init(InitRequest {}).await.unwrap();
    assert_eq!(node.verbs(), ["start 00000001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_below_a_closed_directory_is_not_taken_for_a_missing_one() {
    use std::os::unix::fs::PermissionsExt;
    let mut node = Node::new().await;
    let closed = node.scratch.0.join("closed");
    std::fs::create_dir_all(closed.join("debian")).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let request = StartTaskRequest { task: Some(task_of("closed/debian", "web", 1)) };
    let error = node.driver.start_task(request).await.unwrap_err();
    let said = "may not look into a directory on the way to";
    assert!(error.message().contains(said), "{error:?}");
    assert!(error.message().contains("write its absolute path"), "{error:?}");
}
