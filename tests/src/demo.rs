//! `cargo demo`: what the driver does, shown with the commands a user would type.
//!
//! For someone who sees it for the first time. Every line that starts with `$` really ran, inside the
//! host. The proofs at the end are checked, not only printed: a demo whose claim does not hold fails.

use anyhow::{Context as _, Result, bail};
use nspawn_tests::{Alloc, Job, Rig, outer, product, wait};
use std::process::Stdio;
use std::time::Duration;

/// Where the job files lie in the host.
const JOBS: &str = "/root";

/// Shows everything; the host stays as it was before.
pub(crate) fn tour(rig: &Rig) -> Result<()> {
    title("A batch job that runs one command in a busybox container");
    let hello = run(rig, "hello")?;
    hello.wait_done(Duration::from_secs(60))?;
    show(rig, &["nomad", "job", "status", "hello"])?;
    show(rig, &["nomad", "alloc", "status", &hello.id])?;
    show(rig, &["nomad", "alloc", "logs", &hello.id])?;
    show(rig, &["nomad", "alloc", "logs", "-stderr", &hello.id])?;

    title("A service job that boots a whole Debian with systemd as PID 1");
    let debian = run(rig, "debian")?;
    debian.wait_running()?;
    wait_booted(rig, &debian)?;
    show(rig, &["nomad", "alloc", "status", &debian.id])?;
    show(rig, &["machinectl", "list"])?;
    show(rig, &["nomad", "alloc", "logs", "-tail", "-n", "12", &debian.id])?;

    title("Who runs as whom");
    plugin_is_not_root(rig)?;
    container_root_is_not_host_root(rig, &debian)?;

    title("Stopping powers the container off");
    show(rig, &["nomad", "job", "stop", "-detach", "debian"])?;
    debian.wait_done(Duration::from_secs(60))?;
    show(rig, &["nomad", "alloc", "status", "-short", &debian.id])?;
    for event in debian.task("debian")?.events() {
        println!("{:<16}{}", event.kind, event.message);
    }
    for job in ["hello", "debian"] {
        Job { api: rig.api(), id: job.to_owned(), eval: String::new() }.purge()?;
    }
    Ok(())
}

/// How to look around in a host that stays.
pub(crate) fn farewell(rig: &Rig) {
    let address = &rig.ready().address;
    println!(
        "
The host stays. To look around:
  cargo rig sh                            a shell in it (nomad, machinectl, journalctl)
  cargo rig exec -- nomad job run /root/hello.nomad.hcl
  cargo rig logs -f                       journal of agent and helper
  http://{address}:4646                   Nomad's API, from this machine (and its UI, when the nomad
                                          binary was built with it)
  cargo rig down                          take it down"
    );
}

fn title(text: &str) {
    println!("\n── {text}\n");
}

/// Runs a command in the host and shows both, as in a terminal.
fn show(rig: &Rig, words: &[&str]) -> Result<()> {
    println!("$ {}", words.join(" "));
    // Nomad adds a hint about its UI to every answer when this is not set.
    let status = rig
        .command(words)
        .env("NOMAD_CLI_SHOW_HINTS", "false")
        .stdin(Stdio::null())
        .status()
        .with_context(|| words.join(" "))?;
    println!();
    if !status.success() {
        bail!("`{}`: {status}", words.join(" "));
    }
    Ok(())
}

/// Runs one of the repository's example jobs the way a user does.
fn run(rig: &Rig, name: &str) -> Result<Alloc> {
    let file = format!("{name}.nomad.hcl");
    let path = format!("{JOBS}/{file}");
    rig.copy_in(&product::workspace().join("example/jobs").join(&file), &path, 0o644)?;
    show(rig, &["cat", &path])?;
    show(rig, &["nomad", "job", "run", &path])?;
    Job { api: rig.api(), id: name.to_owned(), eval: String::new() }.alloc()
}

/// The leader of the container: found by machined's name of it.
fn leader(rig: &Rig, alloc: &Alloc, task: &str) -> Result<String> {
    let machine = format!("{task}-{}", alloc.id);
    rig.run(&["machinectl", "show", "--property=Leader", "--value", &machine])
}

fn wait_booted(rig: &Rig, alloc: &Alloc) -> Result<()> {
    outer::say("waiting for the container's systemd to finish its boot");
    let leader = leader(rig, alloc, "debian")?;
    wait::true_within("the container's boot", Duration::from_secs(60), || {
        let ask = ["nsenter", "-t", &leader, "-a", "-r", "systemctl", "is-system-running"];
        let state = rig.exec(&ask)?.text();
        Ok(matches!(state.trim(), "running" | "degraded"))
    })
}

fn plugin_is_not_root(rig: &Rig) -> Result<()> {
    let pid = rig.run(&["pgrep", "--newest", "--full", product::PLUGIN])?;
    println!("The plugin, process {pid}:");
    let status = format!("/proc/{pid}/status");
    show(rig, &["grep", "-E", "^(Name|Uid|Gid|Groups|Cap.*|NoNewPrivs):", &status])?;
    let text = rig.run(&["cat", &status])?;
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default()
    };
    let ids: Vec<&str> = value("Uid:").split_whitespace().collect();
    let no_capability = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"]
        .iter()
        .all(|set| value(set).bytes().all(|digit| digit == b'0'));
    if ids.is_empty() || ids.contains(&"0") || !no_capability || value("NoNewPrivs:") != "1" {
        bail!("the plugin has rights it must not have");
    }
    println!("→ not root, no capability in any set, and it can never gain one.\n");
    Ok(())
}

fn container_root_is_not_host_root(rig: &Rig, alloc: &Alloc) -> Result<()> {
    let leader = leader(rig, alloc, "debian")?;
    println!("The container's PID 1 is process {leader} of the host. Its user id map:");
    let path = format!("/proc/{leader}/uid_map");
    show(rig, &["cat", &path])?;
    println!("Who it is inside, and who it is for the host:");
    show(rig, &["nsenter", "-t", &leader, "-a", "-r", "stat", "-c", "inside: uid %u", "/proc/1"])?;
    let proc = format!("/proc/{leader}");
    show(rig, &["stat", "-c", "host:   uid %u", &proc])?;
    let map = rig.run(&["cat", &path])?;
    let fields: Vec<u32> = map.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [inside, outside, length] = fields.as_slice() else { bail!("uid map: {map}") };
    let seen: u32 = rig.run(&["stat", "-c", "%u", &proc])?.parse()?;
    if *inside != 0 || *outside < 65_536 || *length != 65_536 || seen != *outside {
        bail!("container root is not mapped away");
    }
    println!("→ root inside is the unprivileged user {outside} of the host.");
    Ok(())
}
