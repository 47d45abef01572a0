//! What a published port costs, against DNAT by hand between veth links of the same kind and no other
//! rule; how soon it answers, and how soon it refuses.
//!
//! Clients and servers are threads of this process in network namespaces of the test host. Rounds
//! alternate, and the best of each side counts: what else runs on the machine only takes away.

use super::Figures;
use crate::stand::{Running, Stand};
use crate::{Config, Rig, Suite, lan, wait};
use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Rounds of each row, and how many more follow where the first are in doubt.
const ROUNDS: usize = 20;
/// Ratio below which that is so.
const DOUBTFUL: f64 = 0.95;
/// How long one stream lasts.
const STREAM: Duration = Duration::from_millis(150);
/// Connections of one round.
const CONNECTIONS: u32 = 200;
/// Tasks with as many ports each as a task may have: 4,096 more ports.
const CROWD: i32 = 32;
const EACH: i32 = 128;
/// Tasks of which first answer and end are measured.
const LIVES: i32 = 10;
/// No connection takes longer.
const LIMIT: Duration = Duration::from_secs(5);

/// Two namespaces with a router between them that has one rule.
const BY_HAND: &str = "set -e
for name in bl bh bt; do ip netns add $name; done
ip link add lan0 netns bh type veth peer name eth0 netns bl
ip link add task netns bh type veth peer name host0 netns bt
ip -n bh address add 203.0.113.1/24 dev lan0; ip -n bl address add 203.0.113.2/24 dev eth0
ip -n bh address add 10.99.0.1 peer 10.99.0.2 dev task
ip -n bt address add 10.99.0.2 peer 10.99.0.1 dev host0
ip -n bh link set lan0 up; ip -n bl link set eth0 up
ip -n bh link set task up; ip -n bt link set host0 up
ip -n bl route add default via 203.0.113.1; ip -n bt route add default via 10.99.0.1
ip netns exec bh sysctl -q net.ipv4.ip_forward=1
ip netns exec bh nft -f - <<EOF
table ip byhand {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr 203.0.113.1 tcp dport 30080 dnat to 10.99.0.2:80
	}
}
EOF";

/// One row: by hand, and by a published port.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// Best round by hand.
    pub by_hand: f64,
    /// Best round of the published port.
    pub published: f64,
    /// 1 where the port costs nothing, less where it costs.
    pub ratio: f64,
}

/// The figures of networks.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// One stream from the task to the local network, Gbit/s.
    pub throughput: Pair,
    /// A connection with one byte each way, microseconds.
    pub connection: Pair,
    /// The same with 4,096 more ports published.
    pub crowded: Pair,
    /// From the payload's listen to the first answer.
    pub first_answer: Figures,
    /// From the end of the payload to the first refusal.
    pub refusal: Figures,
}

impl Network {
    pub(super) fn json(&self) -> Value {
        let pair = |pair: &Pair| json!({ "by_hand": pair.by_hand, "published": pair.published, "ratio": pair.ratio });
        json!({
            "gbit_s": pair(&self.throughput),
            "connection_us": pair(&self.connection),
            "connection_us_4096_more": pair(&self.crowded),
            "listen_to_answer": self.first_answer.json(),
            "end_to_refusal": self.refusal.json(),
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |what: &str, pair: &Pair| {
            let Pair { by_hand, published, ratio } = pair;
            writeln!(f, "  {what}: by hand {by_hand:.1}, published {published:.1}, {ratio:.2}")
        };
        row("one stream, Gbit/s", &self.throughput)?;
        row("a connection, us", &self.connection)?;
        row("with 4,096 more ports", &self.crowded)?;
        writeln!(f, "  listen to first answer, ms  {}", self.first_answer)?;
        write!(f, "  end to refusal, ms          {}", self.refusal)
    }
}

/// A network namespace.
struct Place(File);

impl Place {
    fn named(rig: &Rig, name: &str) -> Result<Self> {
        Self::open(rig, &format!("run/netns/{name}"))
    }

    fn of(rig: &Rig, task: &Running<'_>) -> Result<Self> {
        Self::open(rig, &format!("proc/{}/ns/net", task.leader()?))
    }

    fn open(rig: &Rig, path: &str) -> Result<Self> {
        let path = format!("/proc/{}/root/{path}", rig.leader());
        Ok(Self(File::open(&path).context(path)?))
    }

    /// Runs on a thread that enters it; sockets stay where they were made.
    fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = || {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                work()
            };
            scope.spawn(inside).join().map_err(|_| anyhow!("a thread in a namespace panicked"))?
        })
    }
}

/// Serves one connection at a time: `r` asks for one byte, `t` for as many as come through, `q` ends it.
fn serve(listener: TcpListener) -> Result<()> {
    let buffer = vec![0; 1 << 18];
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut wish = [0];
        match stream.read(&mut wish)? {
            1 if wish == *b"r" => stream.write_all(b"r")?,
            1 if wish == *b"t" => while stream.write_all(&buffer).is_ok() {},
            1 if wish == *b"q" => return Ok(()),
            _ => {}
        }
    }
}

fn open(to: SocketAddr, wish: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(wish)?;
    Ok(stream)
}

/// Gbit/s of one stream.
fn throughput(to: SocketAddr) -> Result<f64> {
    let mut stream = open(to, b"t")?;
    let mut buffer = vec![0; 1 << 18];
    let (begun, mut bytes) = (Instant::now(), 0_usize);
    while begun.elapsed() < STREAM {
        bytes += stream.read(&mut buffer)?;
    }
    let bits = f64::from(u32::try_from(bytes / 1024)?) * 8.0 * 1024.0;
    Ok(bits / begun.elapsed().as_secs_f64() / 1e9)
}

/// Microseconds of one connection, as the mean of many.
fn connection(to: SocketAddr) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..CONNECTIONS {
        open(to, b"r")?.read_exact(&mut [0])?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(CONNECTIONS))
}

/// Where a client is, and where it connects to.
type Path<'a> = (&'a Place, SocketAddr);

/// A row of figures of which the greatest is the best, or the least.
fn row(
    paths: [Path<'_>; 2],
    measure: fn(SocketAddr) -> Result<f64>,
    greatest: bool,
) -> Result<Pair> {
    let mut best = [None::<f64>; 2];
    let mut pair = Pair::default();
    for rounds in [ROUNDS, 2 * ROUNDS] {
        for _ in 0..rounds {
            for ((place, to), best) in paths.iter().zip(&mut best) {
                let now = place.within(|| measure(*to))?;
                let better = |old: f64| if greatest { old.max(now) } else { old.min(now) };
                *best = Some(best.map_or(now, better));
            }
        }
        let [by_hand, published] = best.map(Option::unwrap_or_default);
        let ratio = if greatest { published / by_hand } else { by_hand / published };
        pair = Pair { by_hand, published, ratio };
        if ratio >= DOUBTFUL {
            break;
        }
    }
    Ok(pair)
}

/// A task that does nothing, with its port 80 at this port of the host.
fn idle(stand: &Stand, value: i32) -> Result<Running<'_>> {
    start(stand, "echo ready; exec sleep 1000", vec![lan::port("p0", lan::HOST_4, value, 80)])
}

fn start<'a>(
    stand: &'a Stand,
    script: &str,
    ports: Vec<nomad_proto::drivers::PortMapping>,
) -> Result<Running<'a>> {
    let mut config = lan::task(script);
    if let Some(keys) = config.as_object_mut() {
        keys.insert("ports".to_owned(), ports.iter().map(|port| port.label.clone()).collect());
    }
    let started = stand.start(&config, lan::with_ports(ports))?;
    let mut task = started.map_err(|refused| anyhow!("refused: {}", refused.text))?;
    task.wait_output("ready")?;
    Ok(task)
}

/// Runs everything on a host of its own.
///
/// # Errors
/// When the host does not come up or a task does not start.
pub fn run(suite: Suite) -> Result<Network> {
    let stand = Stand::up_on(&Config { agent: false, ..Config::new(suite) }, "")?;
    let rig = &stand.rig;
    lan::up(rig)?;
    rig.sh(BY_HAND)?;
    let rows = rows(&stand)?;
    let client = Place::named(rig, "lan")?;
    let lives = |one: fn(&Stand, &Place, i32) -> Result<Duration>, first: i32| {
        let times = (first..first + LIVES).map(|value| one(&stand, &client, value));
        Ok::<_, anyhow::Error>(Figures::of(times.collect::<Result<_>>()?))
    };
    let network = Network {
        first_answer: lives(first_answer, 20_600)?,
        refusal: lives(refusal, 20_700)?,
        ..rows
    };
    rig.down()?;
    Ok(network)
}

/// The rows that compare.
fn rows(stand: &Stand) -> Result<Network> {
    let rig = &stand.rig;
    let task = idle(stand, 20_500)?;
    let places = [Place::named(rig, "bt")?, Place::of(rig, &task)?];
    let servers = places
        .iter()
        .map(|place| place.within(|| Ok(TcpListener::bind(("0.0.0.0", 80))?)))
        .map(|listener| Ok(std::thread::spawn(|| serve(listener?))))
        .collect::<Result<Vec<_>>>()?;
    let clients = [Place::named(rig, "bl")?, Place::named(rig, "lan")?];
    let at = ["203.0.113.1:30080".parse()?, SocketAddr::new(lan::HOST_4.parse()?, 20_500)];
    let [one, other] = &clients;
    let paths = [(one, at[0]), (other, at[1])];
    let mut figures = Network {
        throughput: row(paths, throughput, true)?,
        connection: row(paths, connection, false)?,
        ..Network::default()
    };
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let port =
            |n: i32| lan::port(&format!("p{n}"), lan::HOST_4, 22_000 + number * EACH + n, n + 1);
        crowd.push(start(stand, "echo ready; exec sleep 1000", (0..EACH).map(port).collect())?);
    }
    figures.crowded = row(paths, connection, false)?;
    for task in crowd {
        task.stop("SIGKILL")?;
    }
    for (client, to) in paths {
        client.within(|| open(to, b"q").map(drop))?;
    }
    for server in servers {
        server.join().map_err(|_| anyhow!("a server panicked"))??;
    }
    task.stop("SIGKILL")?;
    Ok(figures)
}

/// A client tries all the while; the time from the listen to its first answer.
fn first_answer(stand: &Stand, client: &Place, value: i32) -> Result<Duration> {
    let task = idle(stand, value)?;
    let inside = Place::of(&stand.rig, &task)?;
    let to = SocketAddr::new(lan::HOST_4.parse()?, u16::try_from(value)?);
    let (begun, came) = std::thread::scope(|scope| {
        let tries = scope.spawn(|| {
            client.within(|| {
                let end = Instant::now() + LIMIT;
                while Instant::now() < end {
                    if let Ok(mut stream) = open(to, b"r")
                        && stream.read_exact(&mut [0]).is_ok()
                    {
                        return Ok(Instant::now());
                    }
                }
                Err(anyhow!("no answer"))
            })
        });
        std::thread::sleep(Duration::from_millis(20));
        let begun = inside.within(|| {
            let begun = Instant::now();
            let listener = TcpListener::bind(("0.0.0.0", 80))?;
            std::thread::spawn(|| serve(listener));
            Ok(begun)
        });
        (begun, tries.join())
    });
    let came = came.map_err(|_| anyhow!("the client panicked"))??;
    client.within(|| open(to, b"q").map(drop))?;
    task.stop("SIGKILL")?;
    Ok(came - begun?)
}

/// The payload is killed; the time until its port refuses.
fn refusal(stand: &Stand, client: &Place, value: i32) -> Result<Duration> {
    let task = lan::serve(stand, &[lan::HOST_4], value)?;
    let to = SocketAddr::new(lan::HOST_4.parse()?, u16::try_from(value)?);
    wait::true_within("the server", LIMIT, || {
        Ok(lan::answers(&stand.rig, lan::IN_LAN, lan::HOST_4, value, 3))
    })?;
    // Ready before, so that entering the host does not count.
    let kill = format!("read word; kill -KILL {}", task.leader()?);
    let mut killer = stand.rig.command(&["sh", "-c", &kill]);
    let mut killer = killer.stdin(Stdio::piped()).spawn()?;
    std::thread::sleep(Duration::from_millis(100));
    let mut stdin = killer.stdin.take().context("no stdin")?;
    let ended = Instant::now();
    stdin.write_all(b"now\n")?;
    let refused = client.within(|| {
        let (mut first, mut refusals) = (ended, 0);
        while ended.elapsed() < LIMIT {
            let seen = TcpStream::connect_timeout(&to, Duration::from_millis(5));
            if !seen.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
                refusals = 0;
                continue;
            }
            if refusals == 0 {
                first = Instant::now();
            }
            refusals += 1;
            // The payload's own kernel may refuse too, before its link goes and nobody answers.
            if refusals == 200 {
                return Ok(first);
            }
        }
        Err(anyhow!("never refused"))
    })?;
    killer.wait()?;
    task.finish()?;
    Ok(refused - ended)
}
