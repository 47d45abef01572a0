//! A small HTTP/1.1 client for the Nomad agent inside an instance.
//!
//! For [`crate::job`] and for tests that need a call it lacks. Each connection is made by a thread
//! that has entered the instance's network namespace, to the loopback address there: the outer
//! machine's network is never used. One request per connection.

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Port of the server's HTTP interface.
pub const PORT: u16 = 4646;
/// Port of the agent's own HTTP interface; what concerns the node itself is asked there.
pub const CLIENT_PORT: u16 = 4656;
/// No answer takes longer than this; blocking queries wait less.
const LIMIT: Duration = Duration::from_secs(60);

/// The agent of one instance.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    leader: i32,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `X-Nomad-Index`, 0 when absent.
    pub index: u64,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null when empty.
    ///
    /// # Errors
    /// When the status is not 2xx (the body is the message) or the body is no JSON.
    pub fn json(&self) -> Result<Value> {
        self.good()?;
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Fails unless the status is 2xx.
    ///
    /// # Errors
    /// The body, as the message.
    pub fn good(&self) -> Result<()> {
        if !(200..300).contains(&self.status) {
            bail!("HTTP {}: {}", self.status, String::from_utf8_lossy(&self.body).trim());
        }
        Ok(())
    }
}

impl Api {
    pub(crate) fn new(leader: i32) -> Self {
        Self { leader }
    }

    /// PID 1 of the instance, as numbered outside.
    pub(crate) fn leader(&self) -> i32 {
        self.leader
    }

    /// GET, as JSON.
    ///
    /// # Errors
    /// When the agent does not answer or answers with an error.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, None)?.json().with_context(|| format!("GET {path}"))
    }

    /// PUT, answer as JSON.
    ///
    /// # Errors
    /// When the agent does not answer or answers with an error.
    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.call("PUT", path, Some(body))?.json().with_context(|| format!("PUT {path}"))
    }

    /// DELETE, answer as JSON.
    ///
    /// # Errors
    /// When the agent does not answer or answers with an error.
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.call("DELETE", path, None)?.json().with_context(|| format!("DELETE {path}"))
    }

    /// Any request; the status is the caller's to judge.
    ///
    /// # Errors
    /// When the agent does not answer in HTTP.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let own = path.starts_with("/v1/client/") || path.starts_with("/v1/agent/");
        let mut stream = self.connect(if own { CLIENT_PORT } else { PORT })?;
        let body = body.map(Value::to_string).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        read_answer(BufReader::new(stream)).with_context(|| format!("{method} {path}"))
    }

    /// A connection to a port of the instance's loopback address.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(&self, port: u16) -> Result<TcpStream> {
        self.connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// A connection from inside the instance's network namespace.
    ///
    /// # Errors
    /// When nobody listens there, or the instance is gone.
    pub fn connect_to(&self, address: SocketAddr) -> Result<TcpStream> {
        let path = format!("/proc/{}/ns/net", self.leader);
        // A thread of its own, because a thread cannot easily come back. The socket stays in the
        // namespace it was made in.
        let stream = std::thread::spawn(move || -> Result<TcpStream> {
            setns(File::open(&path).context("instance gone")?, CloneFlags::CLONE_NEWNET)
                .context("enter the instance's network namespace")?;
            Ok(TcpStream::connect_timeout(&address, Duration::from_secs(5))?)
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the connecting thread panicked"))?
        .with_context(|| format!("connect to {address} in the instance"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn read_answer(mut stream: BufReader<TcpStream>) -> Result<Answer> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("no HTTP answer: {line:?}"))?;
    let (mut index, mut length, mut chunked) = (0, None, false);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "x-nomad-index" => index = value.parse().unwrap_or(0),
            "content-length" => length = Some(value.parse::<u64>()?),
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        read_chunks(&mut stream, &mut body)?;
    } else if let Some(length) = length {
        stream.take(length).read_to_end(&mut body)?;
    } else {
        stream.read_to_end(&mut body)?;
    }
    Ok(Answer { status, index, body })
}

fn read_chunks(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).context("chunk size")?;
        if size == 0 {
            return Ok(());
        }
        stream.by_ref().take(size).read_to_end(body)?;
        line.clear();
        stream.read_line(&mut line)?;
    }
}
