//! PID 1's signals about units: one match rule for all tasks, no polling.
//!
//! Signals are hints and nothing more. The bus checks who sends broadcasts, but any local user can
//! send a message of the same form, so a hint only ever leads to a question to the helper. Hints can
//! also be lost (bus restarted, PID 1 re-executed), so every new connection looks at all tasks
//! again. Nothing is ever changed over the bus.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::systemd::unit_path;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedVariant, Variant};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Messages that are queued here; the bus queues further ones and loses none.
const QUEUE: NonZeroUsize = NonZeroUsize::new(256).unwrap();
const ANSWER: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Who acts on hints. Called for each signal, so it must not wait.
pub(crate) trait Watcher {
    /// Whether the unit at this D-Bus path belongs to a task.
    fn watches(&self, path: &str) -> bool;

    /// The unit at this D-Bus path may have ended.
    fn suspect(&self, path: &str);

    /// Any of them may have ended unseen.
    fn suspect_all(&self);
}

/// The connection, while there is one.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    connection: Mutex<Option<Connection>>,
}

impl Bus {
    fn connection(&self) -> Option<Connection> {
        let connection = self.connection.lock();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, new: Option<Connection>) {
        let connection = self.connection.lock();
        *connection.unwrap_or_else(PoisonError::into_inner) = new;
    }

    async fn property(&self, unit: &str, interface: &str, name: &str) -> Option<OwnedVariant> {
        let connection = self.connection()?;
        let reply = connection
            .call_method(
                Some(SYSTEMD),
                unit_path(unit),
                Some(PROPERTIES),
                "Get",
                &(interface, name),
            )
            .await
            .ok()?;
        reply.body().deserialize().ok()
    }

    async fn text(&self, unit: &str, interface: &str, name: &str) -> Option<String> {
        let value = self.property(unit, interface, name).await?;
        String::try_from(value).ok()
    }

    /// Whether the unit still has processes of its payload; `None` when PID 1 cannot be asked.
    /// A unit that PID 1 does not know does not run.
    pub(crate) async fn unit_runs(&self, unit: &str) -> Option<bool> {
        let active = self.text(unit, UNIT, "ActiveState").await?;
        let sub = self.text(unit, UNIT, "SubState").await?;
        Some(!has_ended(&active, &sub))
    }

    /// Whether the unit is frozen; `None` when PID 1 cannot be asked.
    pub(crate) async fn is_frozen(&self, unit: &str) -> Option<bool> {
        Some(self.text(unit, UNIT, "FreezerState").await? != "running")
    }

    /// The unit's control group, as a path below the cgroup file system.
    pub(crate) async fn control_group(&self, unit: &str) -> Option<String> {
        let path = self.text(unit, SERVICE, "ControlGroup").await?;
        (!path.is_empty()).then_some(path)
    }
}

/// The states of a task's unit whose payload has ended: the unit stays, because it holds the record.
fn has_ended(active: &str, sub: &str) -> bool {
    matches!(active, "failed" | "inactive") || sub == "exited"
}

/// Watches all units and never returns.
pub(crate) async fn watch(bus: Arc<Bus>, watcher: impl Watcher) {
    let mut pause = PAUSE;
    let mut reported = false;
    loop {
        let since = Instant::now();
        let ended = session(&bus, &watcher).await;
        let was_up = bus.connection().is_some();
        bus.set(None);
        // Once for each absence.
        if was_up || !reported {
            let error = ended.err().map(|e| e.to_string()).unwrap_or_default();
            tracing::warn!(error, "no system bus; ends of tasks are seen when it is back");
            reported = true;
        }
        if since.elapsed() > PAUSE_MAX {
            pause = PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Watches over one connection, until it breaks.
async fn session(bus: &Bus, watcher: &impl Watcher) -> zbus::Result<()> {
    let connection = zbus::connection::Builder::system().method_timeout(ANSWER).build().await?;
    let units = rule(PROPERTIES, "PropertiesChanged")
        .sender(SYSTEMD)
        .path_namespace("/org/freedesktop/systemd1/unit")
        .arg(0, UNIT)
        .build()?;
    let owners = rule("org.freedesktop.DBus", "NameOwnerChanged")
        .sender("org.freedesktop.DBus")
        .arg(0, SYSTEMD)
        .build()?;
    let reloads = rule(MANAGER, "Reloading").sender(SYSTEMD).path(MANAGER_PATH).build()?;
    let mut units = MessageStream::for_match_rule(units, &connection, Some(QUEUE)).await?;
    let mut owners = MessageStream::for_match_rule(owners, &connection, None).await?;
    let mut reloads = MessageStream::for_match_rule(reloads, &connection, None).await?;
    subscribe(&connection).await?;
    bus.set(Some(connection.clone()));
    tracing::debug!("watching units on the system bus");
    watcher.suspect_all();
    loop {
        tokio::select! {
            message = units.next() => match message {
                Some(message) => hint(watcher, &message?),
                None => return Ok(()),
            },
            message = owners.next() => match message {
                Some(message) => {
                    let _ = message?;
                    // PID 1 was re-executed and may have dropped the subscription.
                    if let Err(error) = subscribe(&connection).await {
                        tracing::debug!(%error, "not subscribed while PID 1 is away");
                    }
                    watcher.suspect_all();
                }
                None => return Ok(()),
            },
            message = reloads.next() => match message {
                Some(message) => {
                    let _ = message?;
                    watcher.suspect_all();
                }
                None => return Ok(()),
            },
        }
    }
}

fn rule<'m>(interface: &'static str, member: &'static str) -> zbus::match_rule::Builder<'m> {
    MatchRule::builder().msg_type(Type::Signal).interface(interface).member(member)
}

/// Asks PID 1 to send signals at all; it keeps silent while nobody asks.
async fn subscribe(connection: &Connection) -> zbus::Result<()> {
    let call = connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "Subscribe", &());
    match call.await {
        Err(zbus::Error::MethodError(name, ..))
            if name.as_str().ends_with(".AlreadySubscribed") =>
        {
            Ok(())
        }
        other => other.map(|_| ()),
    }
}

/// Reads one PropertiesChanged and passes it on, if its unit belongs to a task and may have ended.
fn hint(watcher: &impl Watcher, message: &Message) {
    let header = message.header();
    let Some(path) = header.path().filter(|path| watcher.watches(path.as_str())) else {
        return;
    };
    let body = message.body();
    let Ok((_, changed, _)) = body.deserialize::<(&str, HashMap<&str, Variant<'_>>, Vec<&str>)>()
    else {
        return;
    };
    let text = |name: &str| match changed.get(name) {
        Some(Variant::Str(text)) => text.as_str(),
        _ => "",
    };
    if has_ended(text("ActiveState"), text("SubState")) {
        watcher.suspect(path.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_units_count_as_ended() {
        assert!(has_ended("active", "exited"));
        assert!(has_ended("failed", "failed"));
        assert!(has_ended("inactive", "dead"));
        for (active, sub) in [
            ("active", "running"),
            ("activating", "start"),
            ("deactivating", "stop-sigterm"),
            ("", ""),
        ] {
            assert!(!has_ended(active, sub));
        }
    }
}
