//! gdbpool: a pool of PostgreSQL connection pools for any async executor.
//!
//! It runs *interactions* (an SQL statement, or a function over a transaction) on named pools over a primary and its
//! standbys, and listens for NOTIFY, on smol, async-std, tokio, or whatever implements [`Runtime`].
//!
//! ```
//! # gdbpool_sim::doc::with_runtime(async |runtime| {
//! use gdbpool::{InteractionPool, PoolConfig};
//!
//! let db = InteractionPool::builder(runtime)
//!     .pool(PoolConfig::new("primary", "host=db1 user=app dbname=shop")?.size(10))
//!     .open()
//!     .await?;
//! let total: i64 = db.run("SELECT count(*) FROM users").read().scalar().await?;
//! # assert_eq!(total, 2);
//! # Ok(())
//! # });
//! ```
//!
//! # The way of a call
//!
//! user → [`InteractionPool`] → interaction → route → pool → session → [`Runtime`]. Imports run in that direction only.
//! What decides is written as plain machines (events in with the present instant, decisions out); the async code around
//! them holds no policy.
//!
//! | module | owns |
//! |---|---|
//! | `interaction_pool` | the user's handle |
//! | `interaction` | what is asked, and the one loop that runs and retries it |
//! | `listener` | channels, subscribers, and a mark wherever notifications may be missing |
//! | `route` | which pool serves it |
//! | `pool` | one node's ledger of sessions: idle, leased, settling, connecting, closing, waiting |
//! | `session` | one connection: dial, encryption, the tap on its bytes, its driver, statement cache, clean-up, cancel request |
//! | `runtime` | the seam to the executor, and its adapters |
//! | `tls` | TLS by rustls, behind the hook that any other library fits, too |
//! | `error`, `config`, `cancel`, `time`, `sql`, `observe`, `stream` | values |
//!
//! How a pool finds its server (connection strings, environment, TLS) has a page of its own: [`connecting`].
//!
//! # Cargo features
//!
//! Each only adds; none changes behaviour, but for one: with `tls-rustls` a connection string that prefers TLS, as those
//! without `sslmode` do, gets it where the server has it.
//!
//! | feature | adds |
//! |---|---|
//! | `smol` (default), `async-std`, `tokio` | the adapter of that name |
//! | `tls-rustls` | TLS by rustls, for all of `sslmode`; another library is given with [`PoolConfig::tls`] |
//! | `json` | `Notification::json`, by serde |
//! | `metrics` | the pools' numbers through the `metrics` facade, under OpenTelemetry's names (`db.client.connection.*`); install the recorder before a pool is opened |
//! | `array-impls`, `with-bit-vec-0_9`, `with-chrono-0_4`, `with-cidr-0_3`, `with-eui48-1`, `with-geo-types-0_7`, `with-jiff-0_2`, `with-serde_json-1`, `with-smol_str-01`, `with-time-0_3`, `with-uuid-1`, and the older versions that tokio-postgres has | those crates' types as parameters and columns |
//!
//! # What a pool promises
//!
//! - A [`Lease`] is always clean, whatever the last borrower did, and wherever its future was dropped.
//! - A dropped statement is cancelled, and never hurts the next user of its session.
//! - Callers are served in the order they asked.
//! - Connecting belongs to the pool: bounded, with backoff, and it outlives the caller that asked.
//! - Nothing needs a particular runtime, clock or source of randomness; every wait has a bound in [`PoolConfig`].
//!
//! Limits: what triggers, rules, views, user-defined operators and casts leave behind in a session after a single statement
//! cannot be seen from its text, nor that a default draws from a sequence (`lastval()`), nor that a function of yours
//! overloads a built-in's name or is called as a column (`SELECT t.f`). Say [`dirty`](Run::dirty) of such a statement, or
//! run it on a [`Lease`], which is always cleaned up in full. A session that is cut (an overdue settling, a closed pool, a
//! black hole) may leave its statement running on the server until the server notices.
//! Passwords and parameter values are kept out of everything this library says, and out of what tokio-postgres logs for it;
//! statement texts are not: this library shows them in `tracing` at trace level, tokio-postgres in `log` at debug level.

#![forbid(unsafe_code)]

mod cancel;
mod config;
mod error;
mod interaction;
mod interaction_pool;
mod listener;
mod observe;
mod pool;
mod route;
mod runtime;
mod session;
mod sql;
mod stream;
mod time;
#[cfg(feature = "tls-rustls")]
mod tls;

#[doc = include_str!("config/connecting.md")]
pub mod connecting {}

/// The door for fuzz targets; not part of the library.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::{
        config::fuzz_dsn as dsn, interaction::fuzz_named as named, pool::fuzz_ledger as ledger,
        session::fuzz_tap as tap,
    };
}

pub use tokio_postgres::{Column, Row, SimpleQueryRow, types};

#[cfg(feature = "async-std")]
pub use crate::runtime::AsyncStd;
#[cfg(feature = "smol")]
pub use crate::runtime::Smol;
#[cfg(feature = "tokio")]
pub use crate::runtime::Tokio;
pub use crate::{
    cancel::Cancel,
    config::{
        Environment, PasswordRequest, PoolConfig, Setup, SocketOptions, TlsConnection, TlsHandshake, TlsRequest,
        TlsVerification, TlsVersion,
    },
    error::{BadInput, CheckoutReport, Error, ErrorKind, Holder, Outcome, Phase, TimeoutCause},
    interaction::{
        AsyncResult, Batch, BatchResult, CopyIn, CopyOut, Count, Cursor, DryRun, FromRow, IntoInteraction, Isolation,
        LeaseRows, Notify, One, Opt, Output, Partial, PartialRun, PartialTransact, PinnedTransaction, Receipt,
        RowStream, Rows, Run, Scalar, Stream, Transact, Transaction, Typed, Within,
    },
    interaction_pool::{InteractionPool, InteractionPoolBuilder},
    listener::{GapCause, Listen, ListenEvent, Notification, QueueSubscription, Subscription},
    pool::{CloseReason, CloseReport, ConnectionPool, Events, Lease, PoolEvent, PoolStatus, Stats},
    runtime::{Endpoint, Runtime},
    session::Abandoned,
    stream::{BoxFuture, BoxStream, ByteStream},
    time::Instant,
};

/// The README's examples compile.
#[cfg(all(doctest, feature = "smol"))]
#[doc = include_str!("../README.md")]
struct Readme;
