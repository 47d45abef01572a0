//! `nomad-nspawnctl`: what an operator asks about a host, a policy file or a job.
//!
//! | module | idea |
//! |---|---|
//! | [`doctor`] | is this host ready, and what to do where it is not |
//! | [`check`] | one finding of the doctor |
//! | [`host`] | the checks of kernel and systemd |
//! | [`product`] | the checks of what this project installs: account, programs, units, policy |
//! | [`host_network`] | the checks of the host's network, for tasks with one of their own |
//! | [`firewall`] | what other programs' packet filter rules do to tasks |
//! | [`filters`] | the cache of system call filters |
//! | [`metrics`] | figures for Prometheus's textfile collector |
//! | [`network`] | which task has which addresses and ports, and what it sends |
//! | [`tasks`] | the tasks with a network of their own, by PID 1's records |
//! | [`own_table`] | the helper's table of the packet filter |
//! | [`routes`] | routes of the host, and the pools of tasks' addresses |
//! | [`policy`] | is a policy file valid; what does it say of a job |
//! | [`denials`], [`less`] | every rule that a task breaks; what it would ask for without each wish |
//! | [`job`] | a job file as Nomad's tasks |
//! | [`images`] | the store of layers: what is in it, new images from files |
//! | [`reload`] | has the daemon read its policy file again |
//! | [`retire`] | ends what the older driver has left running |
//!
//! A tool for a shell: it trusts the person who calls it, only reads but for `images`, `reload` and
//! `retire`, and is never started by the daemon. It is not part of the two root binaries and may link what
//! they may not.

mod check;
mod denials;
mod doctor;
mod filters;
mod firewall;
mod host;
mod host_network;
mod images;
mod job;
mod less;
mod metrics;
mod network;
mod own_table;
mod policy;
mod product;
mod reload;
mod retire;
mod routes;
mod tasks;

use std::path::Path;
use std::process::ExitCode;

use ::policy::Policy;
use serde_json::Value;

/// The policy file that the daemon reads.
const POLICY: &str = "/etc/nomad-nspawn/policy.toml";

const USAGE: &str = "\
nomad-nspawnctl: the nspawn task driver's host, policy and jobs

usage:
  nomad-nspawnctl doctor [--json] [--agent-unit UNIT] [--plugin FILE]
        Is this host ready? Ends with 1 when something must be mended.
  nomad-nspawnctl policy check [FILE]
        Is the policy file valid? Default: /etc/nomad-nspawn/policy.toml
  nomad-nspawnctl policy explain [--json] [--policy FILE] JOB.hcl|JOB.json
        What the policy says of each nspawn task of a job: every rule that it
        breaks. JSON is that of `nomad job run -output`; HCL is read through the
        installed nomad. Ends with 1 when a task would be refused.
  nomad-nspawnctl network [--json]
        The tasks with a network of their own: link, addresses, ports, bytes; and
        what the packet filter has refused.
  nomad-nspawnctl images import FILE [--name NAME] | list [--json] | rm NAME
        Images of layers, which jobs name in `image`: made of a tar archive with a
        root file system, compressed or not; listed; removed.
  nomad-nspawnctl metrics
        What shows of the driver from outside, for Prometheus's textfile collector:
        tasks by state. The plugin's endpoint has more: `metrics` of its block.
  nomad-nspawnctl filters list | verify
        The system call filters that starts use again; verify has systemd-nspawn
        make each again and compares.
  nomad-nspawnctl reload
        Has the helper read its policy file again. A bad file is refused with its
        line, and the old policy stays in force.
  nomad-nspawnctl retire [--list] [MACHINE...]
        Ends the containers that the older driver has left running, or the named
        ones; with --list only names them.
";

/// Runs the verb on the command line.
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["doctor", options @ ..] => doctor::run(options),
        ["policy", "check"] => policy::check(POLICY),
        ["policy", "check", file] => policy::check(file),
        ["policy", "explain", words @ ..] => policy::explain(words),
        ["filters", "list"] => filters::list(),
        ["filters", "verify"] => filters::verify(),
        ["network", options @ ..] => network::run(options),
        ["images", words @ ..] => images::run(words),
        ["metrics"] => metrics::run(),
        ["reload"] => reload::run(),
        ["retire", words @ ..] => retire::run(words),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        ["--version"] => {
            println!("nomad-nspawnctl {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("nomad-nspawnctl: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Reads a policy file as the daemon does.
///
/// # Errors
/// As [`::policy::from_file`].
fn load_policy(path: &Path) -> Result<Policy, String> {
    find_policy(path)?.map_or_else(|| ::policy::parse(""), Ok)
}

/// The same; `None` when there is none.
fn find_policy(path: &Path) -> Result<Option<Policy>, String> {
    ::policy::from_file(path, kernel::root_file::read(path))
}

/// PID 1's version as it writes it.
///
/// # Errors
/// PID 1 cannot be asked.
fn systemd_version() -> Result<String, String> {
    output("systemctl", &["show", "--property=Version", "--value"])
}

/// What the system bus answers to busctl(1).
///
/// # Errors
/// It cannot be asked.
fn bus(words: &[&str]) -> Result<Value, String> {
    let text = output("busctl", &[&["--system", "--json=short"], words].concat())?;
    let mut answer: Value = serde_json::from_str(&text).map_err(|e| format!("busctl: {e}"))?;
    Ok(answer.get_mut("data").map(Value::take).unwrap_or_default())
}

/// Output of a program of the host; its standard error in the error.
///
/// # Errors
/// It cannot be executed, or does not end well.
fn output(program: &str, words: &[&str]) -> Result<String, String> {
    let result = std::process::Command::new(program)
        .args(words)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).trim_end().to_owned());
    }
    let reason = String::from_utf8_lossy(&result.stderr).trim_end().to_owned();
    Err(format!("{program} {}: {reason}", words.join(" ")))
}
