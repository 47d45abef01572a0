//! `nomad-nspawn-helper`: the daemon. Started by systemd alone; `check-policy` only reads the
//! policy file.

fn main() -> std::process::ExitCode {
    helper::daemon::main()
}
