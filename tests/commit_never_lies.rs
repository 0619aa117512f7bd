//! Promise: COMMIT never lies. Whatever happens to a transaction, or to the bytes it travels in, "committed", "rolled back"
//! and "not executed" are what became of it, and nothing is called safe to do again that was done.
//!
//! The oracle is the server's own: the scripted one keeps which writes were committed, the real ones are asked.

#[path = "commit_never_lies/alone.rs"]
mod alone;
#[path = "commit_never_lies/cuts.rs"]
mod cuts;
#[path = "commit_never_lies/ends.rs"]
mod ends;
#[path = "commit_never_lies/real.rs"]
mod real;
#[path = "commit_never_lies/refusable.rs"]
mod refusable;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
#[path = "commit_never_lies/signals.rs"]
mod signals;
#[path = "commit_never_lies/stage.rs"]
mod stage;
mod support;
