//! Parse, build the context, run, map the error to an exit code.

fn main() -> std::process::ExitCode {
    devstack::cli::main().into()
}
