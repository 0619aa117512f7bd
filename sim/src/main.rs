//! The command `gdbpool-sim`: runs many scenarios, shrinks what it finds, and replays what was found.
//!
//! A shell around the library: it reads arguments, starts threads, prints. The only place of the simulator with threads and
//! a wall clock; a scenario itself has neither.

mod command;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match command::Command::parse(&arguments) {
        Ok(command::Command::Explore(options)) => command::explore(&options),
        Ok(command::Command::Help) => {
            println!("{}", command::USAGE);
            ExitCode::SUCCESS
        }
        Ok(command::Command::Replay(what)) => command::replay(&what),
        Err(wrong) => {
            eprintln!("{wrong}\n\n{}", command::USAGE);
            ExitCode::from(2)
        }
    }
}
