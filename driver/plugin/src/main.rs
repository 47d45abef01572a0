//! The plugin that the Nomad agent starts, installed under the name `nspawn`.

fn main() -> std::process::ExitCode {
    driver::main()
}
