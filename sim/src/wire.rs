//! The server's side of PostgreSQL's protocol 3.0: what clients send, decoded; what servers send, encoded.
//!
//! Between a pipe and a server. Written here rather than taken from the client's codec, so that the two ends keep each
//! other honest. It holds no connection and knows no session.

mod backend;
mod frontend;
mod report;

pub use self::backend::{Backend, Column};
pub use self::frontend::{Decoder, Frontend, Illegal, Target, WireError};
pub use self::report::{Report, Severity};
