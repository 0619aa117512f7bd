//! Promise: a function is run again as a whole where that is safe and only there: whatever conflicts, deadlocks and lost
//! sessions do to it, it is applied once if it succeeded, never if it failed, and never more often than its caller allows.

#[path = "rerun/bank.rs"]
mod bank;
#[path = "rerun/conflicts.rs"]
mod conflicts;
#[path = "rerun/limits.rs"]
mod limits;
#[path = "rerun/once.rs"]
mod once;
#[path = "support/one_database.rs"]
mod one_database;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use gdbpool::Error;

/// The SQLSTATE that the server gave.
fn state(error: &Error) -> Option<&str> {
    error.database().map(|report| report.code().code())
}
