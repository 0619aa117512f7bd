//! Promise: a list of hosts is one node: it is dialled as libpq dials it, every failure is told, and one deadline holds over
//! all of it.
//!
//! Hosts in order or at random, all addresses of a name, a name looked up anew at each dial, `connect_timeout` per address,
//! Unix sockets with and without a file, and whose password, address and cancel request it is.

#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

#[path = "dialing/hosts.rs"]
mod hosts;
#[path = "dialing/real.rs"]
mod real;

use std::error::Error as _;
use std::fmt::Write as _;

/// An error with all its causes.
fn all_of(error: &gdbpool::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, " | {cause}");
        next = cause.source();
    }
    text
}
