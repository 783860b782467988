//! The program: hands the command line to what carries it out, and the outcome to the shell.
//!
//! Status 0 is success, 1 a failure, 2 a mistake on the command line or in the configuration.

use std::process::ExitCode;

fn main() -> ExitCode {
    spip_view::cli::run(std::env::args_os())
}
