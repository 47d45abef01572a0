//! The plugin as a process: handshake, privileges, log lines, the way it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{AGENT, Plugin, Scratch, task};
use nomad_proto::base::base_plugin_client::BasePluginClient;
use nomad_proto::base::*;
use nomad_proto::drivers::fingerprint_response::HealthState;
use nomad_proto::drivers::*;
use nomad_proto::health::HealthCheckRequest;
use nomad_proto::health::health_client::HealthClient;
use nomad_proto::plugin::Empty;
use nomad_proto::plugin::grpc_broker_client::GrpcBrokerClient;
use nomad_proto::plugin::grpc_controller_client::GrpcControllerClient;
use nomad_proto::plugin::grpc_stdio_client::GrpcStdioClient;

const NONE: &str = "0000000000000000";

#[test]
fn without_the_cookie_it_says_why_and_ends() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_nomad-driver-nspawn")).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("plugin of the Nomad agent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_is_given_up_for_good() {
    let scratch = Scratch::new();
    let plugin = Plugin::start(&scratch, None, &[]);
    for id in ["Uid", "Gid"] {
        let ids = plugin.status(id);
        let first = ids.split(' ').next().unwrap();
        assert_ne!(first, "0");
        assert!(ids.split(' ').all(|other| other == first), "{id} {ids}");
    }
    assert_eq!(plugin.status("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(plugin.status(set), NONE, "{set}");
    }
    assert_eq!(plugin.status("NoNewPrivs"), "1");
    assert_eq!(plugin.status("Seccomp"), "2");
    // Every thread, not only the first.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", plugin.child.id())).unwrap();
    for thread in tasks.flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap();
        for line in ["CapEff", "CapPrm", "CapBnd"] {
            assert!(status.contains(&format!("{line}:\t{NONE}")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"));
    }
    let directory = plugin.socket.parent().unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(directory).unwrap());
    assert_eq!(mode & 0o777, 0o700);
    assert!(plugin.socket.as_os_str().len() < 107);
}

/// The kernel keeps the area that the process began with, so /proc tells nothing. What counts is
/// that no library follows a variable: here the one that names the system bus.
#[tokio::test(flavor = "multi_thread")]
async fn the_agents_environment_steers_nothing() {
    let scratch = Scratch::new();
    let path = scratch.0.join("agent/bus.sock");
    std::fs::create_dir(scratch.0.join("agent")).unwrap();
    std::os::unix::fs::chown(scratch.0.join("agent"), Some(AGENT), Some(AGENT)).unwrap();
    let bus = tokio::net::UnixListener::bind(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(AGENT), Some(AGENT)).unwrap();
    let address = format!("unix:path={}", path.display());
    let environment = [("DBUS_SYSTEM_BUS_ADDRESS", address.as_str())];
    let plugin = Plugin::start(&scratch, Some(AGENT), &environment);
    plugin.configure(&scratch.0.join("absent.sock")).await;
    assert!(tokio::time::timeout(Duration::from_secs(1), bus.accept()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_account_or_helper_it_serves_and_says_what_is_missing() {
    let scratch = Scratch::new();
    let plugin = Plugin::start(&scratch, None, &[]);
    plugin.configure(&scratch.0.join("absent.sock")).await;
    let mut driver = plugin.driver().await;
    let mut stream = driver.fingerprint(FingerprintRequest {}).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.health(), HealthState::Unhealthy);
    let text = first.health_description;
    assert!(text.contains("systemd-sysusers") || text.contains("systemctl enable --now"), "{text}");
    let refused =
        driver.start_task(StartTaskRequest { task: Some(task("web", 1)) }).await.unwrap_err();
    assert!(refused.message().contains("nspawn-helper") || refused.message() == text);
    assert!(!matches!(refused.code(), tonic::Code::Unavailable | tonic::Code::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_start_answers_and_ends_at_once() {
    let scratch = Scratch::new();
    let mut plugin = Plugin::start(&scratch, None, &[]);
    // The agent tests a socket by connecting and closing.
    drop(std::os::unix::net::UnixStream::connect(&plugin.socket).unwrap());
    let channel = plugin.channel().await;
    let mut broker = GrpcBrokerClient::new(channel.clone());
    let mut broker = broker.start_stream(tokio_stream::pending()).await.unwrap().into_inner();
    let mut stdio = GrpcStdioClient::new(channel.clone());
    let mut stdio = stdio.stream_stdio(()).await.unwrap().into_inner();
    let mut base = BasePluginClient::new(channel.clone());
    let info = base.plugin_info(PluginInfoRequest {}).await.unwrap();
    let info = info.into_inner();
    assert_eq!((info.r#type(), info.name.as_str()), (PluginType::Driver, "nspawn"));
    assert_eq!(info.plugin_api_versions, ["v0.1.0"]);
    assert!(!info.plugin_version.is_empty());
    let schema = base.config_schema(ConfigSchemaRequest {}).await.unwrap();
    assert!(schema.into_inner().spec.is_some());
    for _ in 0..2 {
        let request = SetConfigRequest {
            plugin_api_version: "v0.1.0".to_owned(),
            ..SetConfigRequest::default()
        };
        base.set_config(request).await.unwrap();
    }
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "plugin"] {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
    }
    let silent = Duration::from_millis(200);
    assert!(tokio::time::timeout(silent, broker.message()).await.is_err());
    assert!(tokio::time::timeout(silent, stdio.message()).await.is_err());
    GrpcControllerClient::new(channel).shutdown(Empty {}).await.unwrap();
    let ended = plugin.ended_within(Duration::from_secs(2)).expect("still there");
    assert!(ended.success(), "{ended}");
    assert!(!plugin.socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupts_are_ignored_and_terminate_ends() {
    use nix::sys::signal::{Signal, kill};
    let scratch = Scratch::new();
    let mut plugin = Plugin::start(&scratch, None, &[]);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(plugin.child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    assert!(plugin.ended_within(Duration::from_millis(300)).is_none());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(plugin.ended_within(Duration::from_secs(2)).unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lives_on_when_nobody_reads_its_output() {
    let scratch = Scratch::new();
    let mut command = Command::new(scratch.binary());
    command
        .env(common::COOKIE.0, common::COOKIE.1)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = common::spawn(&mut command);
    drop(child.stderr.take());
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    let socket = line.split('|').nth(3).unwrap().into();
    let plugin = Plugin { child, socket, log: Default::default() };
    // Each of these logs, into pipes that are closed.
    plugin.configure(&scratch.0.join("absent.sock")).await;
    let mut driver = plugin.driver().await;
    driver.init(InitRequest {}).await.unwrap();
    let refused = driver.start_task(StartTaskRequest { task: Some(task("web", 1)) });
    assert!(refused.await.is_err());
    driver.init(InitRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_choose_directory_and_group_of_the_socket() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    let directory = scratch.0.join("sockets");
    std::fs::create_dir(&directory).unwrap();
    let plugin = Plugin::start(
        &scratch,
        None,
        &[
            ("PLUGIN_UNIX_SOCKET_DIR", directory.to_str().unwrap()),
            ("PLUGIN_UNIX_SOCKET_GROUP", "12345"),
        ],
    );
    assert!(plugin.socket.starts_with(&directory));
    let socket = std::fs::metadata(&plugin.socket).unwrap();
    assert_eq!((socket.gid(), socket.mode() & 0o777), (12_345, 0o660));
    let own = std::fs::metadata(plugin.socket.parent().unwrap()).unwrap();
    assert_eq!((own.gid(), own.mode() & 0o777), (12_345, 0o710));
    plugin.channel().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_objects_the_agent_can_read() {
    let scratch = Scratch::new();
    let plugin = Plugin::start(&scratch, Some(AGENT), &[]);
    plugin.configure(&scratch.0.join("absent.sock")).await;
    let mut driver = plugin.driver().await;
    let mut task = task("web", 1);
    task.user = "root".to_owned();
    driver.start_task(StartTaskRequest { task: Some(task) }).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = plugin.log();
    assert!(log.contains("\"@message\":\"helper is down\""), "{log}");
    for line in log.lines() {
        assert!(line.starts_with("{\"@level\":\"") && line.ends_with('}'), "{line}");
        assert!(line.contains(",\"@timestamp\":\""), "{line}");
    }
    assert!(!log.contains("canary"), "{log}");
}
