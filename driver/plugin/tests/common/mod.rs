//! A plugin process started as the agent starts one, and a helper that only pretends.
//!
//! The tests run as root: the plugin talks to a helper of uid 0 alone, and giving up root is one
//! of the things to be shown.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests; each test binary uses a part"
)]

pub(crate) mod helper;
pub(crate) mod node;
pub(crate) mod worker;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nomad_proto::base::base_plugin_client::BasePluginClient;
use nomad_proto::base::{NomadConfig, SetConfigRequest};
use nomad_proto::drivers::driver_client::DriverClient;
use nomad_proto::drivers::{
    AllocatedMemoryResources, AllocatedTaskResources, PortMapping, Resources, TaskConfig,
};
use tonic::transport::{Channel, Endpoint};

/// Uid of an agent that is not root.
pub(crate) const AGENT: u32 = 61_184;
pub(crate) const ALLOC: &str = "0e8b1c2d-1111-2222-3333-444455556666";
pub(crate) const COOKIE: (&str, &str) = (
    "NOMAD_PLUGIN_MAGIC_COOKIE",
    "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255",
);

/// A directory of its own that every user can pass through; removed at the end.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::Uid::effective().is_root(), "these tests need root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/nspawn-driver-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    /// The driver's binary where every user can run it.
    pub(crate) fn binary(&self) -> PathBuf {
        let path = self.0.join("nspawn");
        if !path.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_nomad-driver-nspawn"), &path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Starts a program that was copied just now: another test may have forked while the copy was
/// open for writing, and holds it until it executes.
pub(crate) fn spawn(command: &mut Command) -> Child {
    loop {
        match command.spawn() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other.unwrap(),
        }
    }
}

/// A running plugin.
pub(crate) struct Plugin {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
    pub(crate) log: Arc<Mutex<String>>,
}

impl Plugin {
    /// Starts it as the agent does; as root, or as an agent that is not.
    pub(crate) fn start(scratch: &Scratch, uid: Option<u32>, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(scratch.binary());
        command
            .env(COOKIE.0, COOKIE.1)
            .env("PLUGIN_PROTOCOL_VERSIONS", "2")
            .env("CANARY", "agent-canary")
            .envs(environment.iter().copied())
            .current_dir(&scratch.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(uid) = uid {
            let own = scratch.0.join("agent");
            if !own.exists() {
                std::fs::create_dir(&own).unwrap();
                chown(&own, Some(uid), Some(uid)).unwrap();
            }
            command.uid(uid).gid(uid).env("TMPDIR", &own);
        }
        let mut child = spawn(&mut command);
        let log = Arc::new(Mutex::new(String::new()));
        let (mut stderr, sink) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                sink.lock().unwrap().push_str(&text);
            }
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let fields: Vec<&str> = line.trim_end().split('|').collect();
        let ["1", "2", "unix", socket, "grpc", ""] = fields[..] else {
            panic!("handshake {line:?}, log {}", log.lock().unwrap());
        };
        let socket = PathBuf::from(socket);
        std::thread::spawn(move || {
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).ok();
            assert_eq!(rest, "", "nothing but the handshake may be on stdout");
        });
        Self { child, socket, log }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let uri = format!("unix://{}", self.socket.display());
        Endpoint::try_from(uri).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn driver(&self) -> DriverClient<Channel> {
        DriverClient::new(self.channel().await)
    }

    /// Configures the plugin for real, with a helper at `socket`.
    pub(crate) async fn configure(&self, socket: &Path) {
        self.configure_with(socket, &[]).await;
    }

    /// The same with further keys.
    pub(crate) async fn configure_with(&self, socket: &Path, keys: &[(&str, &str)]) {
        let mut base = BasePluginClient::new(self.channel().await);
        base.set_config(SetConfigRequest {
            msgpack_config: helper_config(socket, keys),
            nomad_config: Some(NomadConfig::default()),
            plugin_api_version: "v0.1.0".to_owned(),
        })
        .await
        .unwrap();
    }

    /// A field of the process's status.
    pub(crate) fn status(&self, name: &str) -> String {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let since = Instant::now();
        while since.elapsed() < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- plugin's log\n{}", self.log());
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(0xd9);
    out.push(u8::try_from(text.len()).unwrap());
    out.extend(text.as_bytes());
}

fn helper_config(socket: &Path, keys: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0x81 + u8::try_from(keys.len()).unwrap()];
    for (key, value) in keys.iter().chain([&("helper_socket", socket.to_str().unwrap())]) {
        text(&mut out, key);
        text(&mut out, value);
    }
    out
}

/// A job that runs a command in the image `busybox`.
pub(crate) fn task(name: &str, instance: u32) -> TaskConfig {
    task_of("busybox", name, instance)
}

/// A job that publishes the ports `http` and `admin` of its group, which has a third as well.
pub(crate) fn task_with_ports(name: &str, instance: u32) -> TaskConfig {
    let mut task = task(name, instance);
    let config = &mut task.msgpack_driver_config;
    config[0] += 1;
    text(config, "ports");
    config.push(0x92);
    text(config, "http");
    text(config, "admin");
    let port = |label: &str, value, to| PortMapping {
        label: label.to_owned(),
        value,
        to,
        host_ip: "192.0.2.1".to_owned(),
    };
    let ports = vec![port("http", 20_001, 80), port("admin", 20_002, 0), port("other", 20_003, 0)];
    task.resources.as_mut().unwrap().ports = ports;
    task
}

/// A job whose task is ready when a shell's script succeeds, tried every 100 ms.
pub(crate) fn task_ready_by(name: &str, instance: u32, script: &str, seconds: u64) -> TaskConfig {
    let mut task = task(name, instance);
    let config = &mut task.msgpack_driver_config;
    config[0] += 1;
    text(config, "ready");
    config.push(0x84);
    for (key, value) in [("mode", "exec"), ("interval", "1s"), ("timeout", &format!("{seconds}s"))]
    {
        text(config, key);
        text(config, value);
    }
    text(config, "command");
    config.push(0x93);
    for word in ["/bin/sh", "-c", script] {
        text(config, word);
    }
    task
}

/// A job that runs a command in an image.
pub(crate) fn task_of(image: &str, name: &str, instance: u32) -> TaskConfig {
    let mut config = vec![0x82];
    text(&mut config, "image");
    text(&mut config, image);
    text(&mut config, "boot");
    config.push(0xc2);
    TaskConfig {
        id: format!("{ALLOC}/{name}/{instance:08x}"),
        name: name.to_owned(),
        alloc_id: ALLOC.to_owned(),
        alloc_dir: format!("/var/lib/nomad/alloc/{ALLOC}"),
        stdout_path: format!("/x/.{name}.stdout.fifo"),
        stderr_path: format!("/x/.{name}.stderr.fifo"),
        env: [("CANARY".to_owned(), "job-canary".to_owned())].into(),
        msgpack_driver_config: config,
        resources: Some(Resources {
            allocated_resources: Some(AllocatedTaskResources {
                memory: Some(AllocatedMemoryResources { memory_mb: 64, memory_max_mb: 0 }),
                ..AllocatedTaskResources::default()
            }),
            ..Resources::default()
        }),
        ..TaskConfig::default()
    }
}
