//! `nomad-nspawnctl`: for people. Built by the feature `ctl` alone.

fn main() -> std::process::ExitCode {
    helper::ctl::main()
}
