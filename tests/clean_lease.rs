//! Promise: a lease is always clean. Whatever the last borrower did, and wherever it was dropped, the next one sees a
//! session outside a transaction, with the template's settings and nothing foreign in it, and the slots are all back.

#[path = "clean_lease/cache.rs"]
mod cache;
#[path = "clean_lease/leftovers.rs"]
mod leftovers;
#[path = "clean_lease/misuse.rs"]
mod misuse;
#[path = "clean_lease/mode.rs"]
mod mode;
#[path = "clean_lease/ops.rs"]
mod ops;
#[path = "clean_lease/polls.rs"]
mod polls;
#[path = "clean_lease/raw.rs"]
mod raw;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
#[path = "clean_lease/stage.rs"]
mod stage;
mod support;
#[path = "clean_lease/transaction_ops.rs"]
mod transaction_ops;
#[path = "clean_lease/wire_events.rs"]
mod wire_events;
