//! `filters`: makes one entry of the cache.
//!
//! Runs systemd-nspawn twice on an empty directory tree, with the options of a start and a payload
//! that does not exist, and takes the filters that it has installed by then. Both must agree. Runs in a
//! unit of its own with every capability; reads nothing of a job but its rules for system calls,
//! and executes nothing but itself and systemd-nspawn.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use nix::unistd::{Pid, dup2_stdin, execve};
use proto::plan::LAUNCHER_FAILED;
use proto::step::Step;
use proto::systemd;

use super::entry::{self, Entry, Stamp};
use super::find::{self, LOADER};
use super::options::Options;
use super::trace::{self, Seen};
use crate::open::if_there;
use crate::stage::OwnPath;
use crate::step::{At, Problem};
use crate::{isolation, namespaces, nspawn, output, settings};
use kernel::{hook, layout};

/// The verb of the process that waits to be traced before it becomes systemd-nspawn.
pub(crate) const TRACED: &str = "filters-traced";
/// What systemd-nspawn mounts something on, or looks for.
const DIRECTORIES: [&str; 9] = ["usr", "tmp", "dev", "proc", "sys", "run", "etc", "var", "root"];
/// All ids as they are: the filters do not depend on them.
const IDENTITY: &str = "--private-users=0:65536";
const NOTHING: &str = "/none";
/// Sets that are kept, beside those of tasks; one has some 30 KiB.
const ENTRIES_MAX: usize = 64;

/// Runs `filters`; without words for what most starts use.
pub(crate) fn main(words: &[&str]) -> ExitCode {
    let all = match words {
        [] => isolation::usual_boundings().map(|bounding| Some(Options::usual(bounding))).to_vec(),
        words => vec![Options::parse(words)],
    };
    run(words, all.into_iter(), |options, stage| {
        if find::find(&options).is_some() {
            return Ok("current");
        }
        make_room(&options)?;
        store(&stage.make(options)?)?;
        Ok("made")
    })
}

/// Runs `filters-verify`: whether systemd-nspawn makes now what the cache has.
pub(crate) fn verify(words: &[&str]) -> ExitCode {
    run(words, std::iter::once(Options::parse(words)), |options, stage| {
        let found = find::find(&options);
        let found =
            found.ok_or_else(|| Problem::refused("entry", "is not there, or not current"))?;
        if stage.make(options)?.filters == found.filters {
            return Ok("the same");
        }
        Err(Problem::refused("entry", "holds other filters than systemd-nspawn makes: remove it"))
    })
}

fn run(
    words: &[&str],
    all: impl Iterator<Item = Option<Options>>,
    work: impl Fn(Options, &Stage) -> Result<&'static str, Problem>,
) -> ExitCode {
    let stage = match hook::run(Step::FillStage, Stage::enter) {
        Ok(stage) => stage,
        Err(problem) => {
            eprintln!("filters failed: {problem}");
            return ExitCode::from(LAUNCHER_FAILED);
        }
    };
    for options in all {
        let Some(options) = options else {
            eprintln!("filters: not a bounding set and rules: {words:?}");
            return ExitCode::from(64);
        };
        let name = entry::name(&options);
        match work(options, &stage) {
            Ok(what) => eprintln!("filters {name}: {what}"),
            Err(problem) => {
                eprintln!("filters {name} failed: {problem}");
                return ExitCode::from(LAUNCHER_FAILED);
            }
        }
    }
    ExitCode::SUCCESS
}

/// The process's own mount namespace, with the empty tree in it.
struct Stage;

impl Stage {
    fn enter() -> Result<Self, Problem> {
        namespaces::enter_mount_namespace()?;
        let root = OwnPath::root();
        root.make_dir(0o755)?;
        DIRECTORIES.iter().try_for_each(|name| root.join(name).make_dir(0o755))?;
        namespaces::private_runtime(false)?;
        Ok(Self)
    }

    fn make(&self, options: Options) -> Result<Entry, Problem> {
        settings::write(&[], None, options.bounding)?;
        let result = observe_twice(options);
        settings::remove()?;
        result
    }
}

fn observe_twice(options: Options) -> Result<Entry, Problem> {
    let one = observe(&options)?;
    // The second run is between two looks at the files: it is theirs if they have not changed.
    let files = stamps(&one.mapped)?;
    let version = version()?;
    let other = observe(&options)?;
    if one != other || stamps(&other.mapped)? != files {
        return Err(Problem::refused("system call filters", "of two runs differ"));
    }
    Ok(Entry { options, version, files, filters: one.filters })
}

/// The version of systemd-nspawn itself: its package may be another one than PID 1's.
fn version() -> Result<u32, Problem> {
    let binary = nspawn::binary()?;
    let mut asked = Command::new(OsStr::from_bytes(binary.as_bytes()));
    let answer = asked.arg("--version").stdin(Stdio::null()).output().at("systemd-nspawn")?;
    // "systemd 257 (257.13-1~deb13u1)", then a line of features.
    let text = String::from_utf8_lossy(&answer.stdout);
    Ok(text.split_whitespace().nth(1).map_or(0, systemd::major))
}

fn observe(options: &Options) -> Result<Seen, Problem> {
    let own = Path::new("/proc/self/exe");
    let mut child = Command::new(own);
    child.arg(TRACED).args(options.words()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child: Child = child.spawn().at("process to trace")?;
    let go = child.stdin.take();
    let pid = Pid::from_raw(child.id().cast_signed());
    // Its standard input ends when it is traced.
    let seen = trace::watch(pid, || drop(go))?;
    if seen.filters.len() != entry::COUNT {
        // It leaves one out without an error where the kernel does not take it.
        let reason = format!("installed {} of {} filters", seen.filters.len(), entry::COUNT);
        return Err(Problem::refused("systemd-nspawn", reason));
    }
    Ok(seen)
}

/// Becomes systemd-nspawn once standard input has ended.
pub(crate) fn traced(words: &[&str]) -> ExitCode {
    let become_nspawn = || -> Result<Infallible, Problem> {
        io::stdin().read_to_end(&mut Vec::new()).at("standard input")?;
        dup2_stdin(output::null()?.as_fd()).at("standard input")?;
        let options = Options::parse(words);
        let options = options.ok_or_else(|| Problem::refused("options", "are none"))?;
        let binary = nspawn::binary()?;
        let environment = nspawn::c_strings(nspawn::constant_environment(), "environment")?;
        let arguments = nspawn::c_strings(arguments(&options)?, "command")?;
        let Err(error) = execve(&binary, &arguments, &environment);
        Err(error).at("systemd-nspawn")
    };
    let Err(problem) = become_nspawn();
    eprintln!("filters failed: {problem}");
    ExitCode::from(LAUNCHER_FAILED)
}

fn arguments(options: &Options) -> Result<Vec<String>, Problem> {
    let mut all = nspawn::constant_arguments();
    all.extend([
        format!("--directory={}", OwnPath::root()),
        IDENTITY.to_owned(),
        "--private-users-ownership=off".to_owned(),
        "--read-only".to_owned(),
        "--console=pipe".to_owned(),
    ]);
    for rule in &options.rules {
        all.push(isolation::syscall(rule)?);
    }
    all.extend(["--".to_owned(), NOTHING.to_owned()]);
    Ok(all)
}

/// The state of every file that had a part in it.
fn stamps(mapped: &[PathBuf]) -> Result<Vec<Stamp>, Problem> {
    let all = mapped.iter().map(PathBuf::as_path).chain(LOADER.map(Path::new));
    all.map(|path| {
        let now = if_there(OwnPath::recorded(path).metadata()).at(path.display())?;
        Ok(Stamp::new(path.into(), now.as_ref()))
    })
    .collect()
}

/// Takes away what no start can use any more, and the oldest of too many: a job chooses its sets, and
/// each is memory of the host. Those of tasks stay, stale ones as well, for commands that are
/// executed in them.
fn make_room(options: &Options) -> Result<(), Problem> {
    let directory = OwnPath::filters();
    let Some(entries) = if_there(directory.entries()).at(&directory)? else { return Ok(()) };
    let mut kept = entries_of_tasks()?;
    kept.insert(entry::name(options));
    let mut unused = Vec::new();
    for entry in entries {
        let entry = entry.at(&directory)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !kept.contains(*name)) else { continue };
        let file = directory.join(name);
        // A name with a dot is what a fill has left that was killed: no other one runs.
        let text = if name.contains('.') { None } else { file.read().ok() };
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        if text.and_then(|text| Entry::read(&text)).is_some_and(|entry| find::is_current(&entry)) {
            let made = entry.metadata().and_then(|meta| meta.modified()).at(&file)?;
            unused.push((made, name.to_owned()));
        } else {
            if_there(file.remove_file()).at(file)?;
        }
    }
    unused.sort_unstable();
    let too_many = unused.len().saturating_add(1).saturating_sub(ENTRIES_MAX);
    for (_, name) in unused.into_iter().take(too_many) {
        let file = directory.join(name);
        if_there(file.remove_file()).at(file)?;
    }
    Ok(())
}

/// Names of the entries that hold the filters of tasks.
fn entries_of_tasks() -> Result<BTreeSet<String>, Problem> {
    let (directory, mut all) = (OwnPath::ready(), BTreeSet::new());
    for file in directory.entries().at(&directory)? {
        let name = file.at(&directory)?.file_name();
        let Some(name) = name.to_str().filter(|name| layout::is_filter_options(name)) else {
            continue;
        };
        let file = directory.join(name);
        // The task may have been removed meanwhile.
        let text = if_there(file.read()).at(file)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        all.extend(layout::entry_of_options(&text).map(|(entry, _)| entry.to_owned()));
    }
    Ok(all)
}

/// Puts the entry into its place, at once and as a whole.
fn store(entry: &Entry) -> Result<(), Problem> {
    let directory = OwnPath::filters();
    directory.make_dirs(0o700)?;
    let name = entry::name(&entry.options);
    let new = directory.join(format!("{name}.{}", std::process::id()));
    hook::run(Step::FillWrite, || new.write_new(entry.write().as_bytes()))?;
    hook::run(Step::FillRename, || new.rename(&directory.join(name))).at(new)
}
