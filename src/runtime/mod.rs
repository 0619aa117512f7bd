//! The seam to the user's executor: spawn, time, randomness, name look-up and dialing, as one trait.
//!
//! The last station of a call's way (user → interaction → route → pool → session → runtime). Everything the library
//! does to the outside world goes through an instance of [`Runtime`]; nothing here detects a runtime from the
//! environment, and nothing here holds policy. One adapter per file.

#[cfg(feature = "async-std")]
mod async_std;
#[cfg(any(feature = "smol", feature = "async-std", feature = "tokio"))]
mod real;
#[cfg(feature = "smol")]
mod smol;
#[cfg(feature = "tokio")]
mod tokio;

#[cfg(feature = "async-std")]
pub use self::async_std::AsyncStd;
#[cfg(feature = "smol")]
pub use self::smol::Smol;
#[cfg(feature = "tokio")]
pub use self::tokio::Tokio;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Instant;
use crate::config::SocketOptions;
pub(crate) use crate::stream::{BoxFuture, BoxStream};

/// Where to dial: one address, already resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix domain socket (the socket file itself, not its folder).
    Unix(PathBuf),
    /// A Unix domain socket in Linux's abstract namespace, which has no file: its name, without the zero byte in front.
    UnixAbstract(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "@{}", name.display()),
        }
    }
}

/// The executor, clock, source of randomness and network of one pool.
///
/// An instance, given to [`InteractionPool::builder`](crate::InteractionPool::builder); every method is required and
/// none has a default, so that a pool on a virtual clock can never reach a real one. The adapters `Smol`, `AsyncStd`
/// and `Tokio` are about a hundred lines each and are a model for further ones.
///
/// All methods are called from ordinary code, also outside any executor (but never from a `Drop`, except `now`).
pub trait Runtime: Send + Sync + 'static {
    /// Runs `task` to its end in the background. Dropping a task instead of running it is allowed at shutdown only.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Completes at `at`, or at once if `at` is past. The future may be dropped at any time.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;

    /// The present instant; never goes backwards.
    fn now(&self) -> Instant;

    /// 64 random bits, for jitter and tie-breaks (not for secrets).
    fn random(&self) -> u64;

    /// The addresses of `host`, in the resolver's order, each with `port`.
    ///
    /// # Errors
    /// What the resolver says; no addresses are no error here.
    ///
    /// # Cancel safety
    /// Yes: the future may be dropped at any time.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

    /// A connected stream to `to`.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::Unsupported`] for a kind of endpoint that this runtime cannot dial.
    ///
    /// # Cancel safety
    /// Yes: dropping the future abandons the attempt and closes the socket.
    fn connect(&self, to: &Endpoint, options: &SocketOptions) -> BoxFuture<'static, io::Result<BoxStream>>;

    /// A named place of the library is passed; the simulator counts it, and may begin a fault there.
    #[cfg(gdbpool_points)]
    #[doc(hidden)]
    fn point(&self, _name: &'static str) {}
}

/// Passes a named place. Compiled to nothing, unless the library is built for the simulator with `--cfg gdbpool_points`.
///
/// No lock of the library may be held there: what begins may wake tasks.
macro_rules! point {
    ($runtime:expr, $name:literal) => {
        #[cfg(gdbpool_points)]
        $crate::Runtime::point(&*$runtime, $name);
    };
}
pub(crate) use point;

/// A shared runtime is a runtime: pools can share one, and its users can ask it for the present instant.
impl<R: Runtime + ?Sized> Runtime for Arc<R> {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        (**self).spawn(task);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        (**self).sleep_until(at)
    }

    fn now(&self) -> Instant {
        (**self).now()
    }

    fn random(&self) -> u64 {
        (**self).random()
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        (**self).resolve(host, port)
    }

    fn connect(&self, to: &Endpoint, options: &SocketOptions) -> BoxFuture<'static, io::Result<BoxStream>> {
        (**self).connect(to, options)
    }

    #[cfg(gdbpool_points)]
    fn point(&self, name: &'static str) {
        (**self).point(name);
    }
}
