//! Sessions as of `nomad alloc exec`: streams, terminals, ends and losses.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn pipes_are_apart_and_everything_comes_before_the_exit() {
    let (node, id) = started().await;
    assert_eq!(
        run(&node, &id, "echo out; echo err >&2; exit 43").await,
        seen("out\n", "err\n", 43)
    );
    let lines = run(&node, &id, "for i in 1 2 3; do echo $i; sleep 0.2; done").await;
    assert_eq!(lines, seen("1\n2\n3\n", "", 0));
    assert_eq!(run(&node, &id, "kill -TERM $$").await, seen("", "", 143));
    let size = run(&node, &id, "stty size").await;
    assert!(String::from_utf8_lossy(&size.stderr).contains("standard input"), "{size:?}");
    assert_eq!(size.code, 1);
    // The task's own environment, and no terminal's.
    let environment = run(&node, &id, "echo $CANARY $container $HOME ${TERM-none}").await;
    assert_eq!(environment, seen("job-canary systemd-nspawn /root none\n", "", 0));
    assert!(!node.plugin.log().contains("job-canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_left_behind_does_not_hold_the_session() {
    let (node, id) = started().await;
    let begun = Instant::now();
    // It writes without end; what was there at the command's end comes, and no more.
    let noisy = run(&node, &id, "(sleep 0.3; yes) & echo main; exit 3").await;
    assert_eq!((noisy.code, &noisy.stdout[..5]), (3, &b"main\n"[..]));
    let quiet = run(&node, &id, "sleep 30 & echo main; exit 4").await;
    assert_eq!(quiet, seen("main\n", "", 4));
    let mut tty = talk(&node, &id, "(sleep 1; echo late) & echo main; exec sleep 0.3", true).await;
    assert_eq!(tty.finish().await.unwrap(), seen("main\r\n", "", 0));
    let mut tty = talk(&node, &id, "trap '' HUP; yes & echo main; exit 5", true).await;
    assert_eq!(tty.finish().await.unwrap().code, 5);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn input_ends_by_a_message_and_may_be_more_than_is_read() {
    let (node, id) = started().await;
    let mut head = talk(&node, &id, "head -n1", false).await;
    head.send(request()).await;
    head.send(input(b"", false)).await;
    head.send(input(b"one\ntwo\n", false)).await;
    head.send(input(b"", true)).await;
    assert_eq!(head.finish().await.unwrap(), seen("one\n", "", 0));
    // Both in one message; and input after the end is of no interest.
    let mut cat = talk(&node, &id, "cat; echo end", false).await;
    cat.send(input(b"last", true)).await;
    cat.send(input(b"more", false)).await;
    assert_eq!(cat.finish().await.unwrap(), seen("lastend\n", "", 0));
    // Input that nobody reads holds up neither the end nor what is written.
    let mut deaf = talk(&node, &id, "sleep 0.5; echo done", false).await;
    let requests = deaf.requests.clone();
    let flood = tokio::spawn(async move {
        while requests.send(input(&[b'x'; 64 * 1024], false)).await.is_ok() {}
    });
    assert_eq!(deaf.finish().await.unwrap(), seen("done\n", "", 0));
    drop(deaf);
    timeout(LIMIT, flood).await.expect("the flood goes on").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_an_echo_and_an_end_of_file() {
    let (node, id) = started().await;
    let tty = async |script| talk(&node, &id, script, true).await;
    let mut both = tty("echo out; echo err >&2; exit 43").await;
    assert_eq!(both.finish().await.unwrap(), seen("out\r\nerr\r\n", "", 43));
    let mut plain = tty("stty size; echo $TERM; tty").await;
    let text = plain.finish().await.unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("24 80\r\nxterm-256color\r\n/dev/pts/"), "{text}");
    // Known before the command looks.
    let first = tty("stty size").await;
    first.send(size(33, 44)).await;
    let mut first = first;
    assert_eq!(first.finish().await.unwrap(), seen("33 44\r\n", "", 0));
    // The last one counts, and the program hears of each.
    let mut sized =
        tty("trap 'stty size; exit 7' WINCH; stty size; while :; do sleep 0.05; done").await;
    sized.send(size(50, 40)).await;
    sized.read_until("50 40").await;
    sized.send(size(0, 40)).await;
    sized.send(size(100, 100)).await;
    assert_eq!(sized.finish().await.unwrap(), seen("100 100\r\n", "", 7));
    // Echo and output; the input is not closed.
    let mut head = tty("head -n1").await;
    head.send(input(b"hello\n", false)).await;
    assert_eq!(head.finish().await.unwrap(), seen("hello\r\nhello\r\n", "", 0));
    // The end of input, at the start of a line and within one, is no hang-up.
    for (typed, expected) in [("a\n", "a\r\n"), ("a\nb", "a\r\nb")] {
        let mut cat = tty("cat > /dev/null; echo; echo end; sleep 0.2; exit 6").await;
        cat.send(input(typed.as_bytes(), false)).await;
        cat.send(input(b"", true)).await;
        assert_eq!(cat.finish().await.unwrap(), seen(&format!("{expected}\r\nend\r\n"), "", 6));
    }
    let mut interrupt =
        tty("trap 'echo int; exit 9' INT; echo up; while :; do sleep 0.05; done").await;
    interrupt.read_until("up").await;
    interrupt.send(input(b"\x03", false)).await;
    // Pressed again, as a user would where the shell has missed the first one.
    sleep(Duration::from_millis(500)).await;
    interrupt.requests.send(input(b"\x03", false)).await.ok();
    assert_eq!(interrupt.finish().await.unwrap().code, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_the_command() {
    let (node, id) = started().await;
    for tty in [false, true] {
        let before = node.world.lock().unwrap().hung_up;
        let mut talk = talk(&node, &id, "echo up; sleep 1000", tty).await;
        talk.read_until("up").await;
        drop(talk);
        wait_for_hang_ups(&node, before + 1).await;
    }
    // Also while its input is stuck.
    let mut stuck = talk(&node, &id, "echo up; sleep 1000", false).await;
    stuck.read_until("up").await;
    for _ in 0..8 {
        let sent = stuck.requests.try_send(input(&[b'x'; 64 * 1024], false));
        if sent.is_err() {
            break;
        }
    }
    drop(stuck);
    wait_for_hang_ups(&node, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_killed_ends_its_commands() {
    let (mut node, id) = started().await;
    let mut talks = Vec::new();
    for number in 0..6 {
        let mut talk = talk(&node, &id, "echo up; sleep 1000", number % 2 == 0).await;
        talk.read_until("up").await;
        talks.push(talk);
    }
    node.plugin.child.kill().unwrap();
    wait_for_hang_ups(&node, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_loses_nothing() {
    let (node, id) = started().await;
    let mut talk = talk(&node, &id, "head -c 8000000 /dev/zero; echo end", false).await;
    sleep(Duration::from_secs(1)).await;
    let all = talk.finish().await.unwrap();
    assert_eq!((all.stdout.len(), all.code), (8_000_004, 0));
    assert!(all.stdout.ends_with(b"\0end\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_executed_is_an_error_with_its_reason() {
    let (mut node, id) = started().await;
    let error = |result: Result<Talk, tonic::Status>| async {
        match result {
            Ok(mut talk) => talk.finish().await.unwrap_err(),
            Err(status) => status,
        }
    };
    let unknown = format!("{}/web/00000009", common::ALLOC);
    let status = error(try_talk(&node, &unknown, &["true"], false).await).await;
    assert!(status.message().contains("is not known"), "{status:?}");
    let status = error(try_talk(&node, &id, &[], false).await).await;
    assert!(status.message().contains("no command"), "{status:?}");
    let (requests, receiver) = mpsc::channel(1);
    requests.send(input(b"x", false)).await.unwrap();
    let first = node.driver.exec_task_streaming(ReceiverStream::new(receiver)).await;
    assert!(first.unwrap_err().message().contains("sets nothing up"));
    for (trouble, part) in [
        (Trouble::Killed, "it was killed"),
        (Trouble::TwoStreams, "it sent other"),
        (Trouble::OutOfOrder, "it reported"),
    ] {
        node.world.lock().unwrap().trouble = Some(trouble);
        let status = error(try_talk(&node, &id, &["sleep", "30"], false).await).await;
        assert!(status.message().contains(part), "{status:?}");
    }
    node.world.lock().unwrap().trouble = None;
    let refusal = Refusal::new(Code::Policy, "decide", "exec", "[exec] allow is false");
    node.world.lock().unwrap().refuse_execs = Some(refusal);
    let status = error(try_talk(&node, &id, &["true"], false).await).await;
    assert!(status.message().contains("exec: [exec] allow is false"), "{status:?}");
    node.world.lock().unwrap().refuse_execs = None;
    // What an agent passes on is short; the rest is an event.
    let long = format!("{} the end", "x".repeat(200));
    let refusal = Refusal::new(Code::Policy, "decide", "exec", long);
    node.world.lock().unwrap().refuse_execs = Some(refusal);
    let mut events = node.driver.task_events(TaskEventsRequest {}).await.unwrap().into_inner();
    let status = error(try_talk(&node, &id, &["true"], false).await).await;
    assert!(status.message().len() <= 90, "{status:?}");
    assert!(status.message().ends_with("… (see alloc status)"), "{status:?}");
    let event = timeout(LIMIT, events.message()).await.unwrap().unwrap().unwrap();
    assert!(event.message.ends_with("the end"), "{event:?}");
    node.world.lock().unwrap().refuse_execs = None;
    node.end(0, 0);
    node.stop(&id, 50, "").await;
    node.wait(&id).await;
    let status = error(try_talk(&node, &id, &["true"], false).await).await;
    assert!(status.message().contains("has ended"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_are_served() {
    let (node, id) = started().await;
    let node = &node;
    let all = (0..20).map(|number| {
        let id = id.clone();
        async move {
            let mut talk =
                talk(node, &id, &format!("sleep 0.3; echo {number}"), number % 2 == 1).await;
            talk.finish().await.unwrap()
        }
    });
    let begun = Instant::now();
    let mut set = Vec::new();
    for one in all {
        set.push(Box::pin(one));
    }
    for (number, seen) in join_all(set).await.into_iter().enumerate() {
        assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), number.to_string());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// Polls all of them at once; the crates of this one have nothing of the kind.
async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = std::pin::Pin::new(future).poll(context)
            {
                *output = Some(ready);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(outputs.drain(..).flatten().collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}
