//! Commands that the driver executes itself, and what becomes of them when it or the helper goes:
//! scripts, and commands that a start waits for.

use super::*;

async fn script(node: &Node, id: &str, script: &str, millis: i32) -> Result<Seen, tonic::Status> {
    let request = ExecTaskRequest {
        task_id: id.to_owned(),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        timeout: Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 }),
    };
    let response = node.driver.clone().exec_task(request).await?.into_inner();
    let code = response.result.expect("a result").exit_code;
    Ok(Seen { stdout: response.stdout, stderr: response.stderr, code })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_has_no_input_a_limit_and_the_end_of_its_output() {
    let (node, id) = started().await;
    let run = async |text, millis| script(&node, &id, text, millis).await;
    assert_eq!(run("cat; echo warn >&2; exit 2", 900).await.unwrap(), seen("warn\n", "warn\n", 2));
    let long = run("seq 1 100000", 900).await.unwrap();
    assert!(long.stdout.len() == 4096 && long.stdout.ends_with(b"\n100000\n"));
    assert_eq!(run("kill -KILL $$", 900).await.unwrap().code, 137);
    let begun = Instant::now();
    let status = run("echo half; sleep 30", 300).await.unwrap_err();
    assert!(status.message().contains("not ended after 300ms"), "{status:?}");
    assert!(status.message().contains("its output ends with: half"), "{status:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    wait_for_hang_ups(&node, 1).await;
    // The time counts from the command's execution.
    node.world.lock().unwrap().trouble = Some(Trouble::Slow(Duration::from_secs(1)));
    assert_eq!(run("echo late", 500).await.unwrap(), seen("late\n", "", 0));
    node.world.lock().unwrap().trouble = Some(Trouble::Slow(Duration::from_secs(7)));
    let status = run("echo never", 500).await.unwrap_err();
    assert!(status.message().contains("could not be executed within 5 s"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_comes_back_executes_and_its_death_ends_nothing() {
    let (mut node, id) = started().await;
    let mut long = talk(&node, &id, "echo up; read line; echo got $line", false).await;
    long.read_until("up").await;
    node.kill_helper().await;
    let waiting = {
        let (driver, id) = (node.driver.clone(), id.clone());
        tokio::spawn(async move {
            let request = ExecTaskRequest {
                task_id: id,
                command: vec!["echo".to_owned(), "again".to_owned()],
                timeout: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
            };
            driver.clone().exec_task(request).await.unwrap().into_inner()
        })
    };
    sleep(Duration::from_millis(500)).await;
    node.revive_helper(2);
    assert_eq!(waiting.await.unwrap().stdout, b"again\n");
    long.send(input(b"it\n", true)).await;
    assert_eq!(long.finish().await.unwrap(), seen("got it\n", "", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_task_keeps_its_environment() {
    let mut node = Node::new().await;
    let handle = node.start(1).await.unwrap();
    node.replace_plugin(Some(common::AGENT), &[]).await;
    node.recover(&handle).await.unwrap();
    let id = id(&handle);
    assert_eq!(run(&node, &id, "echo $CANARY").await, seen("job-canary\n", "", 0));
    // 1: the form of earlier versions, which held the identity alone. It comes first in the new
    // one.
    let mut old = handle.clone();
    let identity = old.driver_state.len() - details_length(&node);
    old.driver_state.truncate(identity);
    old.driver_state[0] = 1;
    node.replace_plugin(Some(common::AGENT), &[]).await;
    node.recover(&old).await.unwrap();
    let status = try_talk(&node, &id, &["true"], false).await.err().unwrap();
    assert!(status.message().contains("earlier version"), "{status:?}");
}

/// Bytes of the details in a handle: the environment with its lengths, three marks, image, addresses,
/// and the network that services use, without ports.
fn details_length(node: &Node) -> usize {
    let world = node.world.lock().unwrap();
    let (spec, _) = world.tasks.values().next().unwrap();
    let variables: usize =
        spec.environment.iter().map(|v| 16 + v.name.as_str().len() + v.value.reveal().len()).sum();
    let image = 8 + "busybox".len();
    let addresses = 8 + (4 + 4) + (4 + 16);
    let network = 1 + (4 + 4) + 8;
    8 + variables + 3 + image + addresses + network
}

/// Starts a task that is ready when a script succeeds; what came of it, and the events.
async fn start_ready(
    node: &mut Node,
    number: u32,
    script: &str,
    timeout_s: u64,
) -> (Result<(), tonic::Status>, Vec<String>) {
    let mut events = node.driver.task_events(TaskEventsRequest {}).await.unwrap().into_inner();
    let request =
        StartTaskRequest { task: Some(common::task_ready_by("web", number, script, timeout_s)) };
    let result = node.driver.start_task(request).await.map(drop);
    let mut messages = Vec::new();
    while let Ok(Ok(Some(event))) = timeout(Duration::from_millis(200), events.message()).await {
        messages.push(event.message);
    }
    (result, messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_ready_when_its_command_succeeds() {
    let mut node = Node::new().await;
    let mark = node.scratch.0.join("mark");
    let third = format!("echo x >> {m}; test $(wc -l < {m}) -ge 3", m = mark.display());
    let (result, events) = start_ready(&mut node, 1, &third, 10).await;
    result.unwrap();
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "x\nx\nx\n");
    let waits = "Ready: waits until ready.command succeeds, at most 10s";
    assert!(events.iter().any(|event| event == waits), "{events:?}");
    assert!(events.iter().any(|event| event.starts_with("Ready: ready.command")), "{events:?}");
    assert_eq!(node.world.lock().unwrap().execs[0].environment[0].value.reveal(), "job-canary");
    node.destroy(&format!("{}/web/00000001", common::ALLOC)).await;

    let begun = Instant::now();
    let (result, _) = start_ready(&mut node, 2, "echo not yet; exit 3", 1).await;
    let status = result.unwrap_err();
    assert!(common::node::is_recoverable(&status), "{status:?}");
    for part in ["within 1s", "exit code 3", "ends with: not yet", "raise ready.timeout"] {
        assert!(status.message().contains(part), "{part}: {status:?}");
    }
    // A command that hangs is ended with the time.
    let (result, _) = start_ready(&mut node, 3, "sleep 1000", 1).await;
    assert!(result.unwrap_err().message().contains("did not succeed within 1s"));
    wait_for_hang_ups(&node, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    // Nothing is left of a task that was not ready.
    assert!(node.world.lock().unwrap().tasks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_before_it_is_ready_has_not_started() {
    let mut node = Node::new().await;
    let world = std::sync::Arc::clone(&node.world);
    tokio::spawn(async move {
        while world.lock().unwrap().execs.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        for (_, state) in world.lock().unwrap().tasks.values_mut() {
            *state = proto::wire::State::Ended(common::helper::exit(7, 0));
        }
    });
    let begun = Instant::now();
    let (result, _) = start_ready(&mut node, 1, "exit 1", 60).await;
    let status = result.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(30), "{status:?}");
    assert!(status.message().contains("the task ended with exit code 7"), "{status:?}");
    assert!(node.world.lock().unwrap().tasks.is_empty());
}
