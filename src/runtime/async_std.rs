//! The adapter for async-std and its global executor.
//!
//! The last station of a call's way, when the pool was built with [`AsyncStd`]. It holds no policy and looks for no
//! executor in its surroundings.
#![expect(clippy::disallowed_methods, reason = "adapters are where the real world enters")]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Instant as StdInstant;

use ::async_std::net::{TcpStream, ToSocketAddrs};
#[cfg(unix)]
use ::async_std::os::unix::net::UnixStream;
use ::async_std::task;
use socket2::SockRef;

use super::real::{self, Clock, Random, Socket};
use super::{BoxFuture, BoxStream, Endpoint, Runtime, SocketOptions};
use crate::Instant;

/// Runs a pool on [async-std](https://docs.rs/async-std).
///
/// async-std is discontinued by its authors in favour of smol. It is supported and tested here for the applications that
/// run on it; new ones better start with `Smol`.
///
/// Background tasks run on async-std's global executor; its threads and its reactor start by themselves, so what a pool
/// hands out can be awaited on any executor. On systems other than Unix, [`Endpoint::Unix`] is refused as unsupported,
/// [`Endpoint::UnixAbstract`] on those other than Linux.
pub struct AsyncStd {
    clock: Clock,
    random: Random,
}

impl AsyncStd {
    /// Background tasks run on async-std's global executor.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Clock::new(),
            random: Random::new(),
        }
    }
}

impl Default for AsyncStd {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for AsyncStd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncStd").finish_non_exhaustive()
    }
}

impl Runtime for AsyncStd {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        // Dropping the handle detaches the task.
        drop(task::spawn(future));
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let deadline = self.clock.deadline(at);
        Box::pin(async move {
            match deadline {
                Some(deadline) => task::sleep(deadline.saturating_duration_since(StdInstant::now())).await,
                None => std::future::pending().await,
            }
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
        Box::pin(async move { Ok((host.as_str(), port).to_socket_addrs().await?.collect()) })
    }

    fn connect(&self, to: &Endpoint, options: &SocketOptions) -> BoxFuture<'static, io::Result<BoxStream>> {
        let (to, options) = (to.clone(), options.clone());
        Box::pin(async move {
            match to {
                Endpoint::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    real::configure(&SockRef::from(&stream), &options)?;
                    Ok(Box::new(Socket(stream)) as BoxStream)
                }
                #[cfg(unix)]
                Endpoint::Unix(path) => Ok(Box::new(Socket(UnixStream::connect(path).await?)) as BoxStream),
                #[cfg(target_os = "linux")]
                Endpoint::UnixAbstract(name) => {
                    let stream = UnixStream::from(real::connect_abstract(&name)?);
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
