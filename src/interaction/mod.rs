//! Interactions: what is asked of the database, and the one loop that runs it.
//!
//! The station between the user's handle and the route. `run` collects what is asked, `attempt` is the loop, `statement`
//! the work on one session, `failure` what the caller is told; `named`, `typed`, `batch`, `dry_run` and `spawn` are options
//! of a statement; `lease_calls`, `copy` and `rows` are what a lease offers. A function runs by `function` (again by `rerun`)
//! in a `transaction`; `partial` opens one that stays, `pinned` holds it, `cursor` reads in it. It knows no sockets and
//! chooses no nodes.

mod attempt;
mod batch;
mod copy;
mod cursor;
mod dry_run;
mod failure;
mod function;
mod into_interaction;
mod lease_calls;
mod named;
mod notify;
mod parameters;
mod partial;
mod patience;
mod pinned;
mod rerun;
mod rows;
mod run;
mod spawn;
mod statement;
mod transaction;
mod typed;

pub use self::batch::BatchResult;
pub use self::copy::{CopyIn, CopyOut};
pub use self::cursor::Cursor;
pub use self::dry_run::DryRun;
pub use self::function::Transact;
pub(crate) use self::into_interaction::Door;
pub use self::into_interaction::IntoInteraction;
pub use self::lease_calls::LeaseRows;
#[cfg(fuzzing)]
pub use self::named::fuzz_named;
pub use self::notify::Notify;
pub use self::partial::{PartialRun, PartialTransact, Within};
pub use self::pinned::{Partial, PinnedTransaction};
pub use self::rows::RowStream;
pub use self::run::{Batch, Count, One, Opt, Output, Rows, Run, Scalar, Stream, Typed};
pub use self::spawn::AsyncResult;
pub use self::transaction::{Isolation, Receipt, Transaction};
pub use self::typed::FromRow;
