//! The adapter for smol: its global executor, or one of the user's.
//!
//! The last station of a call's way, when the pool was built with [`Smol`]. It holds no policy and looks for no
//! executor in its surroundings.
#![expect(clippy::disallowed_methods, reason = "adapters are where the real world enters")]

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Instant as StdInstant;

use ::smol::{Async, Executor, Timer};
use socket2::SockRef;

use super::real::{self, Clock, Random, Socket};
use super::{BoxFuture, BoxStream, Endpoint, Runtime, SocketOptions};
use crate::Instant;

/// Runs a pool on [smol](https://docs.rs/smol).
///
/// Sockets and timers are driven by smol's own reactor thread, which starts by itself: what a pool hands out can be
/// awaited on any executor, a bare `block_on` included. Only background tasks need the executor named here.
///
/// Host names are looked up on smol's pool of blocking threads. On systems other than Unix, [`Endpoint::Unix`] is
/// refused as unsupported, [`Endpoint::UnixAbstract`] on those other than Linux.
pub struct Smol {
    /// Not kept alive from here: its tasks hold the pool, and the pool holds this.
    executor: Option<Weak<Executor<'static>>>,
    clock: Clock,
    random: Random,
}

impl Smol {
    /// Background tasks run on smol's global executor, which has one thread unless `SMOL_THREADS` says otherwise.
    #[must_use]
    pub fn new() -> Self {
        Self {
            executor: None,
            clock: Clock::new(),
            random: Random::new(),
        }
    }

    /// Background tasks run on `executor`.
    ///
    /// Somebody has to keep it and run it ([`Executor::run`]) for as long as the pool lives: on one that stands still,
    /// nothing is connected and nothing cleaned up. When it is dropped, the pool's tasks and connections go with it.
    #[must_use]
    pub fn with_executor(executor: &Arc<Executor<'static>>) -> Self {
        Self {
            executor: Some(Arc::downgrade(executor)),
            clock: Clock::new(),
            random: Random::new(),
        }
    }
}

impl Default for Smol {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Smol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let executor = if self.executor.is_some() { "own" } else { "global" };
        f.debug_struct("Smol")
            .field("executor", &executor)
            .finish_non_exhaustive()
    }
}

impl Runtime for Smol {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        match &self.executor {
            // Of an executor that is gone, nobody runs tasks any more.
            Some(executor) => match executor.upgrade() {
                Some(executor) => executor.spawn(task).detach(),
                None => drop(task),
            },
            None => ::smol::spawn(task).detach(),
        }
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let timer = self.clock.deadline(at).map_or_else(Timer::never, Timer::at);
        Box::pin(async move {
            timer.await;
        })
    }

    fn now(&self) -> Instant {
        self.clock.stamp(StdInstant::now())
    }

    fn random(&self) -> u64 {
        self.random.next()
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { ::smol::net::resolve((host.as_str(), port)).await })
    }

    fn connect(&self, to: &Endpoint, options: &SocketOptions) -> BoxFuture<'static, io::Result<BoxStream>> {
        let (to, options) = (to.clone(), options.clone());
        // `Async` rather than `smol::net`: one reader and one writer per stream is all a session has, and it is lighter.
        Box::pin(async move {
            match to {
                Endpoint::Tcp(address) => {
                    let stream = Async::<TcpStream>::connect(address).await?;
                    real::configure(&SockRef::from(&stream), &options)?;
                    Ok(Box::new(Socket(stream)) as BoxStream)
                }
                #[cfg(unix)]
                Endpoint::Unix(path) => Ok(Box::new(Socket(Async::<UnixStream>::connect(path).await?)) as BoxStream),
                #[cfg(target_os = "linux")]
                Endpoint::UnixAbstract(name) => {
                    let stream = Async::new_nonblocking(real::connect_abstract(&name)?)?;
                    Ok(Box::new(Socket(stream)) as BoxStream)
                }
                #[cfg(not(unix))]
                Endpoint::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
                #[cfg(not(target_os = "linux"))]
                Endpoint::UnixAbstract(_) => Err(io::ErrorKind::Unsupported.into()),
            }
        })
    }
}
