//! A helper that keeps tasks in a table and starts nothing.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::codec;
use proto::error::{Code, Refusal};
use proto::exec::ExecSpec;
use proto::limits;
use proto::name::{MachineName, TaskKey};
use proto::parts::Assembly;
use proto::task_spec::{Network, TaskSpec};
use proto::wire::*;
use tokio::task::JoinHandle;
use tokio_seqpacket::ancillary::AncillaryMessageWriter;
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use super::worker::{self, Trouble};

/// What outlives a helper process: the tasks, and what the test wants to happen.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) tasks: BTreeMap<TaskKey, (TaskSpec, State)>,
    /// Verbs in their order, without greetings, parts and questions.
    pub(crate) verbs: Vec<String>,
    /// Starts that break the connection after the task is there, in this state; the last comes
    /// first.
    pub(crate) lose_starts: Vec<State>,
    /// What the next starts are refused with.
    pub(crate) refuse: Option<Refusal>,
    /// Whether a signal ends its task.
    pub(crate) signals_end: bool,
    /// What kills are refused with.
    pub(crate) refuse_kills: Option<Refusal>,
    /// Whether starts wait before anything happens.
    pub(crate) hold_starts: bool,
    /// How many have come to that.
    pub(crate) held: usize,
    /// Whether it does what it is asked, but says nothing after its greeting.
    pub(crate) mute: bool,
    /// Specifications of commands, as they came.
    pub(crate) execs: Vec<ExecSpec>,
    /// What commands are refused with.
    pub(crate) refuse_execs: Option<Refusal>,
    /// How sessions go wrong.
    pub(crate) trouble: Option<Trouble>,
    /// Sessions that the driver has hung up.
    pub(crate) hung_up: usize,
}

/// One run of the helper.
pub(crate) struct Helper {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) socket: PathBuf,
    server: JoinHandle<()>,
}

impl Helper {
    pub(crate) fn start(socket: &Path, epoch: u64, world: &Arc<Mutex<World>>) -> Self {
        std::fs::remove_file(socket).ok();
        let mut listener = UnixSeqpacketListener::bind(socket).unwrap();
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).unwrap();
        let shared = Arc::clone(world);
        let server = tokio::spawn(async move {
            // Dropped with this task, and with them the connections.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok(socket) = listener.accept().await {
                connections.spawn(serve(socket, epoch, Arc::clone(&shared)));
            }
        });
        Self { world: Arc::clone(world), socket: socket.to_owned(), server }
    }

    /// The process dies: socket and connections go at once.
    pub(crate) async fn kill(self) {
        std::fs::remove_file(&self.socket).ok();
        self.server.abort();
        self.server.await.ok();
    }
}

pub(crate) fn exit(code: i32, signal: i32) -> Exit {
    let (memory_peak, memory_limit) = (0, 0);
    let error = String::new();
    Exit { code, signal, oom: false, memory_peak, memory_limit, ended_ms: 2_000, error }
}

async fn serve(socket: UnixSeqpacket, epoch: u64, world: Arc<Mutex<World>>) {
    let mut assembly = Assembly::default();
    let mut buffer = vec![0; limits::MESSAGE_MAX + 1];
    let mut greeted = false;
    loop {
        let Ok(info) = socket.recv(&mut buffer).await else {
            return;
        };
        if info.bytes_read() == 0 {
            return;
        }
        let request: Request = codec::decode(&buffer[..info.bytes_read()]).unwrap();
        if !matches!(request.verb, Verb::Hello(_)) {
            assert!(greeted && request.epoch == epoch, "not greeted");
        }
        greeted = true;
        let result = match request.verb {
            Verb::Hello(_) => Ok(Answer::Welcome(welcome(epoch))),
            Verb::Part(part) => {
                assembly.take(&part).unwrap();
                Ok(Answer::Taken)
            }
            Verb::Start(start) => {
                world.lock().unwrap().held += 1;
                while world.lock().unwrap().hold_starts {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let whole = std::mem::take(&mut assembly).finish(start.length).unwrap();
                match begin(&world, codec::decode_whole(&whole).unwrap()) {
                    Some(result) => result,
                    None => return,
                }
            }
            Verb::Exec(exec) => {
                let whole = std::mem::take(&mut assembly).finish(exec.length).unwrap();
                match execute(&world, codec::decode_whole(&whole).unwrap()) {
                    Ok(session) => {
                        let reply = Reply { id: request.id, result: Ok(Answer::Session) };
                        let mut control = [0; 64];
                        let mut ancillary = AncillaryMessageWriter::new(&mut control);
                        ancillary.add_fds([session.as_fd()]).unwrap();
                        let bytes = codec::encode(&reply).unwrap();
                        socket.send_with_ancillary(&bytes, &mut ancillary).await.ok();
                        continue;
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            verb => answer(&world, verb),
        };
        if world.lock().unwrap().mute && !matches!(result, Ok(Answer::Welcome(_))) {
            continue;
        }
        let reply = Reply { id: request.id, result };
        socket.send(&codec::encode(&reply).unwrap()).await.ok();
    }
}

/// Hands a command to a worker, which outlives this helper; gives back the driver's end.
fn execute(world: &Arc<Mutex<World>>, spec: ExecSpec) -> Result<UnixSeqpacket, Refusal> {
    let mut locked = world.lock().unwrap();
    locked.execs.push(spec.clone());
    if let Some(refusal) = &locked.refuse_execs {
        return Err(refusal.clone());
    }
    let (session, own) = UnixSeqpacket::pair().unwrap();
    let world = Arc::clone(world);
    tokio::spawn(async move { worker::execute(own, spec, &world).await });
    Ok(session)
}

fn welcome(epoch: u64) -> Welcome {
    Welcome {
        version: 1,
        features: 0,
        epoch,
        helper: "9.9.9".to_owned(),
        systemd: 257,
        systemd_text: "257.13-1~deb13u1".to_owned(),
        systemd_accepted: false,
        host_network: false,
        host_users: false,
        exec: true,
    }
}

fn begin(world: &Mutex<World>, spec: TaskSpec) -> Option<Result<Answer, Refusal>> {
    let mut world = world.lock().unwrap();
    world.verbs.push(format!("start {}", spec.key.instance));
    if let Some(refusal) = world.refuse.take() {
        return Some(Err(refusal));
    }
    let key = spec.key.clone();
    let lost = world.lose_starts.pop();
    let state = lost.clone().unwrap_or(State::Running);
    let task = describe(&key, &spec, State::Running);
    world.tasks.insert(key, (spec, state));
    if lost.is_some() {
        return None;
    }
    Some(Ok(Answer::Started(task)))
}

fn describe(key: &TaskKey, spec: &TaskSpec, state: State) -> Task {
    let addresses = match spec.network {
        Network::Private(_) => vec![[10, 87, 16, 2].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()],
        _ => Vec::new(),
    };
    Task {
        key: key.clone(),
        unit: format!("nspawn-test-{}.service", key.instance),
        machine: MachineName::new("test").unwrap(),
        addresses,
        uid_base: Some(524_288),
        leader: (state == State::Running).then_some(4242),
        started_ms: 1_000,
        state,
        notes: Vec::new(),
        filters: None,
    }
}

fn answer(world: &Mutex<World>, verb: Verb) -> Result<Answer, Refusal> {
    let mut world = world.lock().unwrap();
    if let Some(key) = verb.key().filter(|_| !matches!(verb, Verb::Status(_))) {
        let line = format!("{} {}", verb.name(), key.instance);
        world.verbs.push(line);
    }
    let unknown = || Refusal::new(Code::Unknown, "status", "", "no such task");
    match verb {
        Verb::Signal(signal) => {
            let ends = world.signals_end;
            let (_, state) = world.tasks.get_mut(&signal.key).ok_or_else(unknown)?;
            if ends {
                *state = State::Ended(exit(0, 0));
            }
            Ok(Answer::Signaled)
        }
        Verb::Kill(key) => {
            if let Some(refusal) = &world.refuse_kills {
                return Err(refusal.clone());
            }
            let (_, state) = world.tasks.get_mut(&key).ok_or_else(unknown)?;
            *state = State::Ended(exit(137, 9));
            Ok(Answer::Killed)
        }
        Verb::Status(key) => {
            let (spec, state) = world.tasks.get(&key).ok_or_else(unknown)?;
            Ok(Answer::Status(describe(&key, spec, state.clone())))
        }
        Verb::List(last) => {
            let after = |key: &&TaskKey| last.as_ref().is_none_or(|last| *key > last);
            Ok(Answer::Page(Page {
                keys: world.tasks.keys().filter(after).cloned().collect(),
                more: false,
            }))
        }
        Verb::Remove(key) => {
            world.tasks.remove(&key);
            Ok(Answer::Removed)
        }
        other => panic!("{other:?}"),
    }
}
