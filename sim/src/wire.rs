//! The server's side of PostgreSQL's protocol 3.0: what clients send, decoded; what servers send, encoded.
//!
//! Between a pipe and a server. Written here rather than taken from the client's codec, so that the two ends keep each
//! other honest. It holds no connection and knows no session.

mod backend;
mod frontend;

pub use self::backend::{Backend, Column, Report, Severity};
pub use self::frontend::{Decoder, Frontend, Target, WireError};
