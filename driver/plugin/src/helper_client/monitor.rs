//! Watches the helper's life through one connection that asks nothing: its end is the helper's.
//! It is renewed from time to time, because the greeting reports what the current policy allows.
//!
//! The helper is distinguished from an earlier process by its epoch. A short absence, as at a
//! restart or an upgrade, is not reported: the node would flap for nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::connection::Connection;
use super::health::Health;
use crate::metrics::figures::Figures;

/// Absence that goes unreported.
const GRACE: Duration = Duration::from_secs(3);
/// Life of a connection: how late a changed policy shows in the node's fingerprint.
const RENEWAL: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Runs indefinitely.
pub(super) async fn run(
    path: &watch::Sender<PathBuf>,
    health: &watch::Sender<Health>,
    figures: &Figures,
) {
    let mut epoch = None;
    let mut path = path.subscribe();
    let mut pause = PAUSE;
    let mut gone_since: Option<Instant> = None;
    loop {
        let current = path.borrow_and_update().clone();
        match Connection::open(&current).await {
            Ok((connection, welcome)) => {
                if epoch.replace(welcome.epoch) != Some(welcome.epoch) {
                    figures.count_helper();
                }
                publish(health, Health::Up(Arc::new(welcome)));
                let since = Instant::now();
                tokio::select! {
                    () = connection.wait_until_closed() => {}
                    // An error means that the sender is gone, which lives as long as we do.
                    _ = path.changed() => {}
                    () = sleep(RENEWAL) => {}
                }
                gone_since = Some(Instant::now());
                if since.elapsed() > PAUSE_MAX {
                    pause = PAUSE;
                }
            }
            Err(down) => {
                let never_up = matches!(*health.borrow(), Health::Unknown);
                let gone = *gone_since.get_or_insert_with(Instant::now);
                if never_up || gone.elapsed() > GRACE {
                    publish(health, Health::Down(down));
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            _ = path.changed() => {}
        }
    }
}

fn publish(health: &watch::Sender<Health>, new: Health) {
    health.send_if_modified(|old| {
        let changed = *old != new;
        if changed {
            match &new {
                Health::Up(welcome) => tracing::info!(
                    helper = welcome.helper.as_str(),
                    systemd = welcome.systemd,
                    epoch = format!("{:016x}", welcome.epoch),
                    "helper is up"
                ),
                Health::Down(down) => tracing::error!(reason = %down, "helper is down"),
                Health::Unknown => {}
            }
            *old = new;
        }
        changed
    });
}
