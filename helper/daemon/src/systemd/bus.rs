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
use std::time::{Duration, Instant};

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
pub(crate) const MANAGER: Object<'static> =
    (SYSTEMD, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
/// systemd-machined.
pub(crate) const MACHINED: Object<'static> =
    ("org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager");
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Longest wait for one reply.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a connection that can be used.
const CONNECT: Duration = Duration::from_secs(20);

/// Who waits for the end of a unit's job.
#[derive(Debug)]
struct Waiter {
    unit: String,
    /// Number of the connection over which the job's end will be heard.
    connection: u64,
    sender: oneshot::Sender<String>,
}

type Waiters = Rc<RefCell<Vec<Waiter>>>;

/// The connection, as far as there is one.
#[derive(Debug, Default)]
struct Link {
    connection: Option<Connection>,
    /// How many there have been.
    number: u64,
    /// When the last try to make one failed, and why.
    failed: Option<(Instant, String)>,
}

/// The connection.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    link: Mutex<Link>,
    waiters: Waiters,
}

impl Bus {
    /// The connection and its number.
    async fn connection(&self) -> zbus::Result<(Connection, u64)> {
        let asked = Instant::now();
        let mut link = self.link.lock().await;
        if let Some(connection) = link.connection.as_ref().filter(|open| !open.is_closed()) {
            return Ok((connection.clone(), link.number));
        }
        // Whoever waited for a try that failed fails with it: a bus that hangs must not take the
        // full time of each of them, one after another.
        if let Some((_, why)) = link.failed.as_ref().filter(|(when, _)| *when >= asked) {
            return Err(zbus::Error::Failure(why.clone()));
        }
        let made = tokio::time::timeout(CONNECT, connect()).await;
        let made = made
            .unwrap_or_else(|_| Err(zbus::Error::Failure("the bus does not answer".to_owned())));
        match made {
            Ok((connection, stream)) => {
                link.number += 1;
                tokio::task::spawn_local(deliver(stream, self.waiters.clone(), link.number));
                link.connection = Some(connection.clone());
                Ok((connection, link.number))
            }
            Err(error) => {
                link.failed = Some((Instant::now(), error.to_string()));
                Err(error)
            }
        }
    }

    /// Calls a method.
    pub(crate) async fn call<B>(
        &self,
        object: Object<'_>,
        method: &str,
        body: &B,
    ) -> zbus::Result<Body>
    where
        B: serde::Serialize + DynamicType,
    {
        let (service, path, interface) = object;
        let (connection, _) = self.connection().await?;
        let reply = connection.call_method(Some(service), path, Some(interface), method, body);
        Ok(reply.await?.body())
    }

    /// Reads one property of a unit, whether it is loaded or not.
    pub(crate) async fn property<T>(
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
    pub(crate) async fn systemd_version(&self) -> zbus::Result<String> {
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

    /// The unit of a machine.
    pub(crate) async fn unit_of_machine(&self, name: &str) -> zbus::Result<String> {
        let body = self.call(MACHINED, "GetMachine", &(name,)).await?;
        let path: ObjectPath<'_> = body.deserialize()?;
        let machine = (MACHINED.0, path.as_str(), "org.freedesktop.machine1.Machine");
        self.get(machine, "Unit").await
    }

    /// A wait for the end of the unit's next job. Ask before the call that makes the job.
    pub(crate) async fn job_of(&self, unit: &str) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        // Without a connection the call that makes the job fails, and its caller with it.
        let connection = self.connection().await.map_or(0, |(_, number)| number);
        self.waiters.borrow_mut().push(Waiter { unit: unit.to_owned(), connection, sender });
        receiver
    }
}

/// A connection, and the ends of jobs that are heard over it.
async fn connect() -> zbus::Result<(Connection, MessageStream)> {
    let connection = zbus::connection::Builder::system().method_timeout(TIMEOUT).build().await?;
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(SYSTEMD)
        .interface(MANAGER.2)
        .member("JobRemoved")
        .build()?;
    let stream = MessageStream::for_match_rule(rule, &connection, NonZeroUsize::new(256)).await?;
    let (service, path, interface) = MANAGER;
    connection.call_method(Some(service), path, Some(interface), "Subscribe", &()).await?;
    Ok((connection, stream))
}

/// Gives waiters for that unit's job their result. Those that gave up are dropped on the way.
fn wake(waiters: &mut Vec<Waiter>, unit: &str, result: &str) {
    for waiter in waiters.extract_if(.., |w| w.sender.is_closed() || w.unit == unit) {
        // The waiter may just have given up.
        drop(waiter.sender.send(result.to_owned()));
    }
}

/// Ends the waits for what would have been heard over a connection that is gone. Those for a later
/// one go on.
fn end_waits(waiters: &mut Vec<Waiter>, connection: u64) {
    waiters.retain(|waiter| waiter.connection > connection);
}

/// Passes job results to their waiters until the connection ends; then the waits that depend on it end.
async fn deliver(mut stream: MessageStream, waiters: Waiters, connection: u64) {
    while let Some(message) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
        let Ok(message) = message else { continue };
        let body = message.body();
        if let Ok((_, _, unit, result)) = body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>() {
            wake(&mut waiters.borrow_mut(), unit, result);
        }
    }
    end_waits(&mut waiters.borrow_mut(), connection);
}

/// Whether PID 1 or systemd-machined answered with this error of its own.
pub(crate) fn is_named(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(full, _, _)
        if full.as_str().rsplit('.').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_the_end_of_a_connection_ends_no_wait_of_the_next_one() {
        let mut waiters = Vec::new();
        let mut wait = |unit: &str, connection| {
            let (sender, receiver) = oneshot::channel();
            waiters.push(Waiter { unit: unit.to_owned(), connection, sender });
            receiver
        };
        let (mut old, mut new) = (wait("a", 1), wait("a", 2));
        let (mut other, given_up) = (wait("b", 2), wait("b", 2));
        drop(given_up);
        end_waits(&mut waiters, 1);
        assert_eq!(old.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(new.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        wake(&mut waiters, "a", "done");
        assert_eq!(new.try_recv().as_deref(), Ok("done"));
        assert_eq!(other.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(waiters.len(), 1, "who gave up is gone");
    }
}
