//! What a task's events say of its start: what a person waits for while it takes long, and what has
//! been started in the end.
//!
//! Nomad keeps ten events of a task, so a start that is quick has one. Values of the job other than
//! its image and mode never come here.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use nomad_proto::drivers::TaskConfig;
use proto::task_spec::process::Ready;
use proto::task_spec::{Layer, Network, Root, TaskSpec};
use proto::wire;
use tokio::time::sleep;

use crate::events::Events;
use crate::translate;

/// A start that takes longer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Does the work of a start, and names what it waits for when it takes long.
pub(super) async fn report_while<T>(
    events: &Events,
    config: &TaskConfig,
    spec: &TaskSpec,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = sleep(PATIENCE) => {}
    }
    events.send(config, &waiting_message(&translate::image_of(config), spec));
    work.await
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

fn waiting_message(image: &str, spec: &TaskSpec) -> String {
    let root = root_words(spec.root.mode);
    let what = match (spec.process.ready, &spec.network) {
        (Ready::Notify { timeout_s }, _) => {
            format!("until the task sends READY=1, at most {timeout_s} s")
        }
        (Ready::Network { timeout_s }, _) => {
            format!("until the task's network has an address, at most {timeout_s} s")
        }
        (Ready::Started, Network::Container(container)) if container.wait_s > 0 => {
            format!("for an address from outside, at most {} s", container.wait_s)
        }
        (Ready::Started, _) => "for the node, which is busy".to_owned(),
    };
    format!("Starting: image {image}, {root}; waits {what}")
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
    use proto::wire::State;

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
    fn a_start_that_takes_long_names_what_it_waits_for() {
        let mut spec = spec();
        spec.root.mode = Root::Plain;
        assert_eq!(
            waiting_message("debian", &spec),
            "Starting: image debian, writable root; waits for the node, which is busy"
        );
        spec.process.ready = Ready::Notify { timeout_s: 120 };
        assert!(waiting_message("debian", &spec).ends_with("sends READY=1, at most 120 s"));
        spec.process.ready = Ready::Network { timeout_s: 60 };
        assert!(waiting_message("debian", &spec).ends_with("has an address, at most 60 s"));
    }
}
