//! Commands in tasks: what Nomad's client sees of their streams, their end and their loss. The
//! helper is pretended, its worker executes on this machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

#[path = "../common/mod.rs"]
mod common;
mod scripts;
mod sessions;

use std::time::{Duration, Instant};

use common::node::{Node, id};
use common::worker::Trouble;
use nomad_proto::drivers::exec_task_streaming_request::{Setup, TerminalSize};
use nomad_proto::drivers::*;
use proto::error::{Code, Refusal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

const LIMIT: Duration = Duration::from_secs(20);

/// The client's side of a conversation.
struct Talk {
    requests: mpsc::Sender<ExecTaskStreamingRequest>,
    responses: Streaming<ExecTaskStreamingResponse>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    code: i32,
}

fn request() -> ExecTaskStreamingRequest {
    ExecTaskStreamingRequest::default()
}

fn size(height: i32, width: i32) -> ExecTaskStreamingRequest {
    ExecTaskStreamingRequest { tty_size: Some(TerminalSize { height, width }), ..request() }
}

fn input(data: &[u8], close: bool) -> ExecTaskStreamingRequest {
    let stdin = Some(ExecTaskStreamingIoOperation { data: data.to_vec(), close });
    ExecTaskStreamingRequest { stdin, ..request() }
}

async fn try_talk(node: &Node, id: &str, words: &[&str], tty: bool) -> Result<Talk, tonic::Status> {
    let (requests, receiver) = mpsc::channel(8);
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    let setup = Some(Setup { task_id: id.to_owned(), command, tty });
    requests.send(ExecTaskStreamingRequest { setup, ..request() }).await.unwrap();
    let mut driver = node.driver.clone();
    let responses = driver.exec_task_streaming(ReceiverStream::new(receiver)).await?.into_inner();
    Ok(Talk { requests, responses })
}

async fn talk(node: &Node, id: &str, script: &str, tty: bool) -> Talk {
    try_talk(node, id, &["/bin/sh", "-c", script], tty).await.unwrap()
}

impl Talk {
    async fn send(&self, request: ExecTaskStreamingRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// Reads to the end: all output comes before the exit, and each stream ends once.
    async fn finish(&mut self) -> Result<Seen, tonic::Status> {
        timeout(LIMIT, self.read()).await.expect("the conversation does not end")
    }

    async fn read(&mut self) -> Result<Seen, tonic::Status> {
        let mut seen = Seen::default();
        let mut ended = Vec::new();
        while let Some(response) = self.responses.message().await? {
            if response.exited {
                seen.code = response.result.unwrap().exit_code;
                assert!(self.responses.message().await.unwrap().is_none(), "after the exit");
                assert!(ended.contains(&"stdout"), "{ended:?}");
                return Ok(seen);
            }
            for (name, operation, into) in [
                ("stdout", response.stdout, &mut seen.stdout),
                ("stderr", response.stderr, &mut seen.stderr),
            ] {
                let Some(operation) = operation else { continue };
                assert!(!ended.contains(&name), "{name} after its end");
                into.extend(operation.data);
                if operation.close {
                    ended.push(name);
                }
            }
        }
        panic!("no exit: {seen:?}")
    }

    /// Reads until standard output holds a text.
    async fn read_until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let read = async {
            while !String::from_utf8_lossy(&seen).contains(text) {
                let response = self.responses.message().await.unwrap().expect("an end");
                seen.extend(response.stdout.unwrap_or_default().data);
            }
        };
        timeout(LIMIT, read).await.expect("no such text");
        String::from_utf8_lossy(&seen).into_owned()
    }
}

async fn run(node: &Node, id: &str, script: &str) -> Seen {
    talk(node, id, script, false).await.finish().await.unwrap()
}

async fn started() -> (Node, String) {
    let mut node = Node::new().await;
    let id = id(&node.start(1).await.unwrap());
    (node, id)
}

fn seen(stdout: &str, stderr: &str, code: i32) -> Seen {
    Seen { stdout: stdout.into(), stderr: stderr.into(), code }
}

async fn wait_for_hang_ups(node: &Node, count: usize) {
    let end = Instant::now() + Duration::from_secs(3);
    while node.world.lock().unwrap().hung_up < count {
        assert!(Instant::now() < end, "the session is not hung up");
        sleep(Duration::from_millis(10)).await;
    }
}
