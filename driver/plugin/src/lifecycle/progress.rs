//! What a task's events say of its start: what a person waits for while it takes long, and what has
//! been started in the end.
//!
//! Nomad keeps ten events of a task, so a start that is quick has one, and a slow one has one for each
//! phase that somebody waits for: image, root, network, starting, ready. Values of the job other than
//! its image and mode never come here.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use nomad_proto::drivers::TaskConfig;
use proto::task_spec::process::Ready;
use proto::task_spec::{Layer, Network, Root, TaskSpec};
use proto::wire::{self, Phase, State};
use tokio::time::sleep;

use crate::events::Events;
use crate::helper_client::Helper;
use crate::translate;

/// A part of a start that takes longer is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at how far a start has got.
const LOOK: Duration = Duration::from_secs(1);
/// The same once the payload runs: it may take an hour to be ready.
const RARE_LOOK: Duration = Duration::from_secs(10);

/// Reads the image, and says so when it takes longer than `patience`.
pub(super) async fn report_image_while<T>(
    events: &Events,
    config: &TaskConfig,
    patience: Duration,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = sleep(patience) => {}
    }
    events.send(config, &image_message(&translate::image_of(config)));
    work.await
}

/// Does the work of a start, and names what it waits for when it takes long: each phase once.
pub(super) async fn report_while<T>(
    helper: &Helper,
    events: &Events,
    config: &TaskConfig,
    spec: &TaskSpec,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let (mut reported, mut pause) = (None, PATIENCE);
    loop {
        let look = async {
            sleep(pause).await;
            helper.status(&spec.key, LOOK).await
        };
        let found = tokio::select! {
            result = &mut work => return result,
            found = look => found,
        };
        pause = LOOK;
        // No answer, or no such task yet: it waits for a place, which has an event of its own.
        let Ok(wire::Task { state: State::Starting(phase), .. }) = found else { continue };
        if reported.replace(phase) != Some(phase) {
            events.send(config, &phase_message(phase, &translate::image_of(config), spec));
        }
        if matches!(phase, Phase::Address | Phase::Ready) {
            pause = RARE_LOOK;
        }
    }
}

/// Reports a start that has gone well.
pub(super) fn report_start(
    events: &Events,
    config: &TaskConfig,
    spec: &TaskSpec,
    started: &wire::Task,
    took: Duration,
) {
    events.send(config, &started_message(&translate::image_of(config), spec, started, took));
}

fn image_message(image: &str) -> String {
    format!("Image: reads {image}, whose file system is slow")
}

fn phase_message(phase: Phase, image: &str, spec: &TaskSpec) -> String {
    match (phase, spec.process.ready, &spec.network) {
        (Phase::Root, ..) => {
            format!("Root: mounts image {image}, {}", root_words(spec.root.mode))
        }
        (Phase::Network, ..) => "Network: makes the task's network".to_owned(),
        (Phase::Payload, ..) => {
            "Starting: waits until systemd-nspawn executes the payload".to_owned()
        }
        (Phase::Ready, Ready::Notify { timeout_s }, _) => {
            format!("Ready: waits until the task sends READY=1, at most {timeout_s} s")
        }
        (Phase::Address, Ready::Network { timeout_s }, _) => {
            format!("Network: waits until it has an address, at most {timeout_s} s")
        }
        (Phase::Address, _, Network::Container(container)) => {
            let most = container.wait_s;
            format!("Network: waits for an address from outside, at most {most} s")
        }
        // Of another start than this one asked for.
        (Phase::Ready | Phase::Address, ..) => "Ready: waits for the task".to_owned(),
    }
}

fn started_message(image: &str, spec: &TaskSpec, task: &wire::Task, took: Duration) -> String {
    let network = match (&spec.network, task.addresses.first()) {
        (_, Some(address)) => format!("address {address}"),
        (Network::Loopback, None) => "loopback network".to_owned(),
        (Network::Host, None) => "host network".to_owned(),
        (Network::Join(_), None) => "network of the group".to_owned(),
        (_, None) => "network without address".to_owned(),
    };
    format!(
        "Started container {} in {:.2} s: image {image}, {}, {network}",
        task.machine,
        took.as_secs_f64(),
        root_words(spec.root.mode)
    )
}

fn root_words(root: Root) -> &'static str {
    match root {
        Root::Plain => "writable root",
        Root::ReadOnly => "read-only root",
        Root::Ephemeral(Layer::Disk) => "ephemeral root on disk",
        Root::Ephemeral(Layer::Memory) => "ephemeral root in memory",
        Root::Ephemeral(Layer::Kept) => "ephemeral root kept for the allocation",
        Root::Volatile(_) => "volatile root",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::name::{ImageName, MachineName};
    use proto::path::Absolute;
    use proto::task_spec::Image;

    fn spec() -> TaskSpec {
        let key = "0e8b1c2d-1111-2222-3333-444455556666/web/00000001".parse().unwrap();
        let image = Image::Named(ImageName::new("debian").unwrap());
        TaskSpec::new(key, Absolute::parse("/a").unwrap(), image)
    }

    #[test]
    fn a_start_is_told_with_image_root_and_network() {
        let mut spec = spec();
        let mut task = wire::Task {
            key: spec.key.clone(),
            unit: "nomad-nspawn-x.service".to_owned(),
            machine: MachineName::new("web-0e8b1c2d").unwrap(),
            uid_base: None,
            addresses: Vec::new(),
            leader: Some(1),
            started_ms: 0,
            state: State::Running,
            notes: Vec::new(),
            filters: None,
        };
        let took = Duration::from_millis(312);
        assert_eq!(
            started_message("debian", &spec, &task, took),
            "Started container web-0e8b1c2d in 0.31 s: image debian, ephemeral root on disk, \
             loopback network"
        );
        task.addresses = vec![[10, 87, 16, 2].into()];
        spec.network = Network::with_ports(Vec::new());
        assert!(started_message("debian", &spec, &task, took).ends_with("address 10.87.16.2"));
    }

    #[test]
    fn each_phase_has_its_words() {
        let mut spec = spec();
        spec.root.mode = Root::Plain;
        let words = |phase, spec: &TaskSpec| phase_message(phase, "debian", spec);
        for (phase, text) in [
            (Phase::Root, "Root: mounts image debian, writable root"),
            (Phase::Network, "Network: makes the task's network"),
            (Phase::Payload, "Starting: waits until systemd-nspawn executes the payload"),
        ] {
            assert_eq!(words(phase, &spec), text);
        }
        spec.process.ready = Ready::Notify { timeout_s: 120 };
        assert!(words(Phase::Ready, &spec).ends_with("sends READY=1, at most 120 s"));
        spec.process.ready = Ready::Network { timeout_s: 60 };
        assert!(words(Phase::Address, &spec).ends_with("has an address, at most 60 s"));
    }

    #[tokio::test]
    async fn an_image_is_named_when_it_takes_long_to_read() {
        let (events, config) = (Events::default(), TaskConfig::default());
        let mut reader = events.subscribe();
        let (short, long) = (Duration::from_millis(5), Duration::from_secs(60));
        report_image_while(&events, &config, long, async {}).await;
        assert!(reader.try_recv().is_err());
        report_image_while(&events, &config, short, sleep(short * 20)).await;
        let message = reader.try_recv().unwrap().message;
        assert!(message.starts_with("Image: reads "), "{message}");
        assert!(reader.try_recv().is_err());
    }
}
