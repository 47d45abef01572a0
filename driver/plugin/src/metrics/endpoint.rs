//! The metrics endpoint: `GET /metrics` over HTTP, on loopback, when the operator asks for it.
//!
//! Whoever is on the host may ask, so a request costs little, is bounded in time and number, and
//! changes nothing. Only the instance that Nomad has configured for real listens: Nomad starts
//! others to identify them, and around an agent's restart two overlap, so a port in use is tried
//! again and never an error.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::socket::{self, Sockets};
use crate::lifecycle::Driver;

/// The only path.
const PATH: &str = "/metrics";
/// The text format's version.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Connections at once; more wait in the kernel.
const CONNECTIONS: usize = 8;
/// Life of a connection: one request.
const LIFE: Duration = Duration::from_secs(10);
/// Time between two tries to bind, and how many before the log has a line.
const PAUSE: Duration = Duration::from_millis(500);
const TRIES: u32 = 20;

/// Serves until the process ends, if the configuration has an address at this moment: the first one
/// that is real. Later changes need a new plugin process, which Nomad starts when its configuration
/// changes: the sandbox allows no further socket.
pub(crate) async fn run(driver: Arc<Driver>, sockets: Sockets) {
    let Some(address) = driver.config.borrow().metrics_address() else { return };
    let listener = match sockets.choose(address) {
        Ok(socket) => bind(socket, address).await,
        Err(reason) => Err(reason),
    };
    match listener {
        Ok(listener) => {
            tracing::info!(%address, "metrics are served");
            accept(&driver, &listener).await;
        }
        Err(reason) => tracing::error!(%address, reason, "no metrics endpoint"),
    }
}

async fn bind(socket: OwnedFd, address: SocketAddr) -> Result<TcpListener, String> {
    let mut tries: u32 = 0;
    loop {
        match socket::bind_to(&socket, address) {
            Ok(()) => return socket::listener(socket).map_err(|e| e.to_string()),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tries = tries.saturating_add(1);
                if tries == TRIES {
                    tracing::warn!(%address, "metrics: the address is in use; it is tried again");
                }
                sleep(PAUSE).await;
            }
            Err(error) => return Err(format!("bind: {error}")),
        }
    }
}

async fn accept(driver: &Arc<Driver>, listener: &TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Semaphores are never closed.
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let driver = Arc::clone(driver);
                tokio::spawn(async move {
                    serve(driver, stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "metrics: accept failed");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(driver: Arc<Driver>, stream: TcpStream) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = respond(&driver, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "metrics: connection"),
        Err(_) => tracing::debug!("metrics: a connection was cut after its time"),
    }
}

fn respond(driver: &Driver, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let text = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, FORMAT);
        response
    };
    if path != PATH {
        return text(StatusCode::NOT_FOUND, format!("only {PATH} is here\n"));
    }
    if method != Method::GET {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    text(StatusCode::OK, driver.metrics_page())
}
