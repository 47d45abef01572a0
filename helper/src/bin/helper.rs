//! `nomad-nspawn-helper`: the daemon. Started by systemd alone; takes no argument.

fn main() -> std::process::ExitCode {
    helper::daemon::main()
}
