//! The connection to PID 1 over the system bus, and the ends of its jobs.
//!
//! The connection is made again whenever it is lost (the bus may be restarted at any time). Calls
//! are methods of org.freedesktop.systemd1 and org.freedesktop.machine1 alone; no object is ever
//! exported.

use std::cell::RefCell;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use proto::systemd::unit_path;
use tokio::sync::{Mutex, oneshot};
use zbus::export::futures_core::Stream;
use zbus::message::{Body, Type};
use zbus::zvariant::DynamicType;
use zbus::{Connection, MatchRule, MessageStream, ObjectPath, OwnedVariant};

/// A service, one of its objects, and an interface of that.
type Object<'a> = (&'a str, &'a str, &'a str);

const SYSTEMD: &str = "org.freedesktop.systemd1";
/// PID 1.
pub(super) const MANAGER: Object<'static> =
    (SYSTEMD, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
/// systemd-machined.
pub(super) const MACHINED: Object<'static> =
    ("org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager");
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Longest wait for one reply.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Waiters for the end of a unit's job, by unit name.
type Waiters = Rc<RefCell<Vec<(String, oneshot::Sender<String>)>>>;

/// The connection.
#[derive(Debug, Default)]
pub(super) struct Bus {
    connection: Mutex<Option<Connection>>,
    waiters: Waiters,
}

impl Bus {
    async fn connection(&self) -> zbus::Result<Connection> {
        let mut current = self.connection.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = zbus::connection::Builder::system().method_timeout(TIMEOUT).build();
        let connection = tokio::time::timeout(TIMEOUT, connection)
            .await
            .map_err(|_| zbus::Error::Failure("the bus does not answer".to_owned()))??;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .interface(MANAGER.2)
            .member("JobRemoved")
            .build()?;
        let stream =
            MessageStream::for_match_rule(rule, &connection, NonZeroUsize::new(256)).await?;
        let (service, path, interface) = MANAGER;
        connection.call_method(Some(service), path, Some(interface), "Subscribe", &()).await?;
        tokio::task::spawn_local(deliver(stream, self.waiters.clone()));
        *current = Some(connection.clone());
        Ok(connection)
    }

    /// Calls a method.
    pub(super) async fn call<B>(
        &self,
        object: Object<'_>,
        method: &str,
        body: &B,
    ) -> zbus::Result<Body>
    where
        B: serde::Serialize + DynamicType,
    {
        let (service, path, interface) = object;
        let connection = self.connection().await?;
        let reply = connection.call_method(Some(service), path, Some(interface), method, body);
        Ok(reply.await?.body())
    }

    /// Reads one property of a unit, whether it is loaded or not.
    pub(super) async fn property<T>(
        &self,
        unit: &str,
        interface: &str,
        name: &str,
    ) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant, Error = zbus::Error>,
    {
        self.get((SYSTEMD, &unit_path(unit), &format!("{SYSTEMD}.{interface}")), name).await
    }

    /// The version of the running systemd.
    pub(super) async fn systemd_version(&self) -> zbus::Result<String> {
        self.get(MANAGER, "Version").await
    }

    async fn get<T>(&self, (service, path, interface): Object<'_>, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant, Error = zbus::Error>,
    {
        let read = async || self.call((service, path, PROPERTIES), "Get", &(interface, name)).await;
        let body = match read().await {
            // The bus was restarted: the next connection waits for it. Reading twice harms nothing.
            Err(zbus::Error::InputOutput(_)) => read().await,
            other => other,
        };
        let value = body?.deserialize::<OwnedVariant>()?;
        T::try_from(value).map_err(|e| zbus::Error::Failure(format!("{name}: {e}")))
    }

    /// A wait for the end of the unit's next job. Ask before the call that makes the job.
    pub(super) fn job_of(&self, unit: &str) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.borrow_mut().push((unit.to_owned(), sender));
        receiver
    }
}

/// Hands job results to their waiters until the connection ends; then nobody waits for nothing.
async fn deliver(mut stream: MessageStream, waiters: Waiters) {
    while let Some(message) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
        let Ok(message) = message else { continue };
        let body = message.body();
        let Ok((_, _, unit, result)) = body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>()
        else {
            continue;
        };
        let mut waiting = waiters.borrow_mut();
        // Waiters that gave up are dropped on the way.
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.drain(..).filter(|(_, s)| !s.is_closed()).partition(|(name, _)| name == unit);
        *waiting = rest;
        for (_, sender) in ready {
            // The waiter may just have given up.
            drop(sender.send(result.to_owned()));
        }
    }
    waiters.borrow_mut().clear();
}

/// Whether PID 1 or systemd-machined answered with this error of its own.
pub(super) fn is_named(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(full, _, _)
        if full.as_str().rsplit('.').next() == Some(name))
}
