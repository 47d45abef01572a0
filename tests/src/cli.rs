//! The words of the `rig` command.
//!
//! For [`main`](super). It keeps one detached instance per suite, known by a file in the cache
//! directory. It never takes an instance down that a test owns.

use crate::{demo, virtual_machine};
use anyhow::{Context as _, Result, bail};
use nspawn_tests::host::{Config, Rig, here, instance::Ready, supervisor};
use nspawn_tests::package::{deb, release, rpm};
use nspawn_tests::soak::{self, run::Part};
use nspawn_tests::{Suite, World, bench, cache, outer, product, vm};
use std::fs::File;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;

const USAGE: &str = "\
usage: cargo rig COMMAND [--suite trixie|bookworm]
  up [--no-product] [--no-agent]   boot a host with helper, driver and agent; it stays
  down                             take it down
  exec -- CMD…                     run a command in it as root
  sh                               a shell in it
  logs [-f]                        journal of agent and helper
    these with --vm: the same with a virtual machine, which has a kernel of its own
  test [--all] [-- ARGS…]          all tests of the workspace (--all: on both suites)
  test --vm [-- ARGS…]             those that need a virtual machine
  bench [--json]                   the benchmarks
  bench exec|tasks                 commands in running tasks only; figures and checks of many
  soak [--minutes N] [PART…]       oracle, mutants, races, filters, exec, bytes or one reader of
                                   bytes, at length (default: all but readers alone, 60)
  package [--rpm]                  the Debian package of the driver, or that for RPM too
  release                          packages, sources and sums of a release, checked
  picture                          draws docs/terminal.svg from a demo that it runs
  demo [--keep]                    a tour: boots, runs the example jobs, cleans up";

/// Options common to all words, and what follows `--`.
struct Args {
    suite: Suite,
    flags: Vec<String>,
    rest: Vec<String>,
}

impl Args {
    fn parse(words: &[String], known: &[&str]) -> Result<Self> {
        let mut args = Self { suite: Suite::from_env()?, flags: vec![], rest: vec![] };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--" => args.rest = words.by_ref().cloned().collect(),
                "--suite" => args.suite = words.next().context("--suite NAME")?.parse()?,
                flag if known.contains(&flag) => args.flags.push(word.clone()),
                other => bail!("unknown option {other:?}\n{USAGE}"),
            }
        }
        Ok(args)
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|word| word == flag)
    }
}

/// Runs one command; the result is the exit status.
pub(crate) fn run(words: &[String]) -> Result<u8> {
    let Some((word, rest)) = words.split_first() else { bail!("{USAGE}") };
    match word.as_str() {
        "supervise-vm" => {
            vm::supervisor::main(rest.first().context("supervise-vm SPEC")?).map(|()| 0)
        }
        "guest" => vm::guest::main().map(|()| 0),
        "world" => world(),
        "supervise" => supervisor::main(rest.first().context("supervise SPEC")?).map(|()| 0),
        "up" => up(&Args::parse(rest, &["--no-product", "--no-agent", "--vm"])?),
        "down" => down(&Args::parse(rest, &["--vm"])?),
        "exec" => exec(&Args::parse(rest, &["--vm"])?),
        "sh" => shell(&Args::parse(rest, &["--vm"])?),
        "logs" => logs(&Args::parse(rest, &["-f", "--vm"])?),
        "test" => test(&Args::parse(rest, &["--all", "--vm"])?),
        "demo" => demo(&Args::parse(rest, &["--keep"])?),
        "bench" => run_bench(rest),
        "soak" => soak(rest),
        "picture" => picture(),
        "package" => package(&Args::parse(rest, &["--rpm"])?),
        "release" => {
            println!("{}", release::build()?.display());
            Ok(0)
        }
        "hold" => hold(&Args::parse(rest, &[])?),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(0)
        }
        _ => bail!("unknown command {word:?}\n{USAGE}"),
    }
}

fn state_file(suite: Suite) -> Result<PathBuf> {
    Ok(cache::root()?.join(format!("up-{}.json", suite.name())))
}

fn attach(suite: Suite) -> Result<Rig> {
    let text = std::fs::read_to_string(state_file(suite)?)
        .with_context(|| format!("no host is up for {}: cargo rig up", suite.name()))?;
    let ready: Ready = serde_json::from_str(&text)?;
    Rig::attach(suite, ready).context("cargo rig up")
}

/// Held by whoever makes or removes the known host: two at once would leave one that nobody knows.
fn lock(suite: Suite) -> Result<File> {
    cache::lock(&format!("up-{}", suite.name()))
}

fn up(args: &Args) -> Result<u8> {
    if args.has("--vm") {
        return virtual_machine::up(args.suite, &args.flags);
    }
    if here::is_here() {
        return up_here(args);
    }
    let _guard = lock(args.suite)?;
    if let Ok(rig) = attach(args.suite) {
        outer::say(&format!("{} is up already", rig.ready().machine));
        return Ok(0);
    }
    let mut config = Config::new(args.suite);
    config.own_debian = true;
    config.agent = !args.has("--no-agent");
    if args.has("--no-product") {
        config.product = None;
    }
    let rig = Rig::up(&config)?;
    if config.product.is_some() {
        rig.install_ctl()?;
    }
    hold_on(args.suite, &rig)?;
    println!("{} is up at {}; next: cargo rig sh", rig.ready().machine, rig.ready().address);
    Ok(0)
}

/// Brings up what is asked for in the virtual machine that this process runs in.
fn up_here(args: &Args) -> Result<u8> {
    let mut config = Config::new(args.suite);
    config.agent = !args.has("--no-agent");
    if args.has("--no-product") {
        config.product = None;
    }
    let rig = Rig::up(&config)?;
    // Not every machine has brought it.
    if product::build_ctl()?.exists() {
        rig.install_ctl()?;
    }
    Ok(0)
}

/// For tests that watch a virtual machine from outside: what it holds, a line each.
fn world() -> Result<u8> {
    let rig = Rig::up(&Config { product: None, agent: false, ..Config::from_env()? })?;
    World::snapshot(&rig)?.lines().iter().for_each(|line| println!("{line}"));
    Ok(0)
}

/// More pairs than the test measures, for steadier figures.
const PAIRS: usize = 40;

fn run_bench(words: &[String]) -> Result<u8> {
    if let [word, rest @ ..] = words
        && ["exec", "tasks"].contains(&word.as_str())
    {
        let suite = Args::parse(rest, &[])?.suite;
        if word == "exec" {
            println!("{}", bench::exec(suite, bench::EXEC_PAIRS)?);
        } else {
            println!("{}", bench::crowd(suite, bench::LARGE_CROWD, true)?);
        }
        return Ok(0);
    }
    let args = Args::parse(words, &["--json"])?;
    let report = bench::run(args.suite, PAIRS)?;
    if args.has("--json") {
        println!("{:#}", report.json());
    } else {
        println!("{report}");
    }
    Ok(0)
}

/// Builds and prints where the packages are.
fn package(args: &Args) -> Result<u8> {
    let package = deb::build()?;
    println!("{}", package.display());
    if args.has("--rpm") {
        println!("{}", rpm::build(&package)?.display());
    }
    Ok(0)
}

/// The long runs; the table is printed and left in target/soak.md.
fn soak(words: &[String]) -> Result<u8> {
    let (minutes, words) = match words {
        [flag, minutes, rest @ ..] if flag == "--minutes" => (minutes.as_str(), rest),
        rest => ("60", rest),
    };
    let parts = words.iter().map(|word| word.parse()).collect::<Result<Vec<Part>>>()?;
    let parts = if parts.is_empty() { Part::ALL.to_vec() } else { parts };
    let table = soak::run::run(minutes.parse().context("--minutes N")?, &parts)?;
    println!("{table}");
    std::fs::write(nspawn_tests::product::workspace().join("target/soak.md"), table.to_string())?;
    Ok(u8::from(!table.is_clean()))
}

fn demo(args: &Args) -> Result<u8> {
    let keep = args.has("--keep");
    let _guard = lock(args.suite)?;
    outer::say("the first time, this builds a host, Nomad and the driver: about ten minutes");
    let mut config = Config::new(args.suite);
    config.own_debian = keep;
    let rig = match attach(args.suite) {
        Ok(_) => bail!("a host is up already; cargo rig down first"),
        Err(_) => Rig::up(&config)?,
    };
    demo::tour(&rig)?;
    if keep {
        rig.install_ctl()?;
        hold_on(args.suite, &rig)?;
        demo::farewell(&rig);
    } else {
        rig.down()?;
        outer::say("cleaned up; cargo demo --keep leaves the host running");
    }
    Ok(0)
}

/// Runs a demo and draws what it printed.
fn picture() -> Result<u8> {
    let mut demo = Command::new(std::env::current_exe()?);
    let out = demo.arg("demo").stderr(std::process::Stdio::inherit()).output()?;
    if !out.status.success() {
        bail!("the demo failed: {}", out.status);
    }
    let file = product::workspace().join("docs/terminal.svg");
    std::fs::write(&file, nspawn_tests::picture::draw(&String::from_utf8(out.stdout)?)?)?;
    println!("{}", file.display());
    Ok(0)
}

/// Lets a host outlive this process, where later commands find it.
fn hold_on(suite: Suite, rig: &Rig) -> Result<()> {
    let (file, part) = (state_file(suite)?, state_file(suite)?.with_extension("new"));
    std::fs::write(&part, serde_json::to_string(rig.ready())?)?;
    // Known, and whole, before it is on its own.
    std::fs::rename(part, file)?;
    rig.keep()
}

/// Owns a bare host until its standard input ends; for the test of what a killed owner leaves.
fn hold(args: &Args) -> Result<u8> {
    let config = Config { product: None, agent: false, ..Config::new(args.suite) };
    let rig = Rig::up(&config)?;
    println!("{}", serde_json::to_string(rig.ready())?);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    rig.down().map(|()| 0)
}

fn down(args: &Args) -> Result<u8> {
    if args.has("--vm") {
        return virtual_machine::down(args.suite);
    }
    let _guard = lock(args.suite)?;
    if let Ok(rig) = attach(args.suite) {
        rig.down()?;
        outer::say(&format!("{} is down", rig.ready().machine));
    }
    cache::remove(&state_file(args.suite)?)?;
    Ok(0)
}

/// Runs a command with this process's own streams and passes its exit status on.
fn pass_through(mut command: Command) -> Result<u8> {
    let status = command.status().context("cannot start nsenter")?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(1))
}

fn exec(args: &Args) -> Result<u8> {
    let words: Vec<&str> = args.rest.iter().map(String::as_str).collect();
    if words.is_empty() {
        bail!("exec -- CMD…");
    }
    if args.has("--vm") {
        return virtual_machine::exec(args.suite, &words);
    }
    pass_through(attach(args.suite)?.command(&words))
}

fn shell(args: &Args) -> Result<u8> {
    if args.has("--vm") {
        return virtual_machine::shell(args.suite);
    }
    let mut command = attach(args.suite)?.command(&["bash", "-l"]);
    if let Some(term) = std::env::var_os("TERM").filter(|_| std::io::stdin().is_terminal()) {
        command.env("TERM", term);
    }
    pass_through(command)
}

fn logs(args: &Args) -> Result<u8> {
    let mut words = vec!["journalctl", "--no-pager", "-o", "short-precise"];
    words.extend(["-u", "nomad.service", "-u", "nomad-nspawn-*"]);
    if args.has("-f") {
        words.push("-f");
    }
    if args.has("--vm") {
        return virtual_machine::exec(args.suite, &words);
    }
    pass_through(attach(args.suite)?.command(&words))
}

fn test(args: &Args) -> Result<u8> {
    let suites: &[Suite] =
        if args.has("--all") { &[Suite::Trixie, Suite::Bookworm] } else { &[args.suite] };
    for suite in suites {
        let mut command = Command::new("cargo");
        command
            .args(["test", "--workspace"])
            .args(args.has("--vm").then_some(["--test", "limits", "--test", "vm"]).iter().flatten())
            .args(&args.rest)
            .current_dir(nspawn_tests::product::workspace())
            .env("RIG_SUITE", suite.name());
        outer::say(&format!("tests on {}", suite.name()));
        let code = pass_through(command)?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}
