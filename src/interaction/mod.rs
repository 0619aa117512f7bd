//! Interactions: what is asked of the database, and the one loop that runs it.
//!
//! The station between the user's handle and the route. `run` collects what is asked, `attempt` is the loop, `statement`
//! the work on one session, `failure` what the caller is told; `lease_calls`, `copy` and `rows` are what a lease offers.
//! It knows no sockets and chooses no nodes.

mod attempt;
mod copy;
mod failure;
mod lease_calls;
mod parameters;
mod patience;
mod rows;
mod run;
mod statement;

pub use self::copy::{CopyIn, CopyOut};
pub use self::lease_calls::LeaseRows;
pub use self::rows::RowStream;
pub use self::run::{Count, One, Opt, Output, Rows, Run, Scalar, Stream};
