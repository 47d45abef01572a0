//! `nomad-nspawn-task`: one-shot steps inside a task's unit. Started by PID 1 alone.

fn main() -> std::process::ExitCode {
    launcher::main()
}
