//! The adapter for tokio, for one of its runtimes named by a handle.
//!
//! The last station of a call's way, when the pool was built with [`Tokio`]. It holds no policy; the only look at its
//! surroundings is [`Tokio::current`], which the user calls.
#![expect(clippy::disallowed_methods, reason = "adapters are where the real world enters")]

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

#[cfg(unix)]
use ::tokio::net::UnixStream;
use ::tokio::net::{TcpStream, lookup_host};
use ::tokio::runtime::{Handle, TryCurrentError};
use ::tokio::{io as tokio_io, time};
use futures_io::{AsyncRead, AsyncWrite};
use socket2::SockRef;

use super::real::{self, Clock, Random};
use super::{BoxFuture, BoxStream, Endpoint, Runtime, SocketOptions};
use crate::Instant;

/// Runs a pool on a [tokio](https://docs.rs/tokio) runtime.
///
/// Background tasks, sockets, timers and name look-ups belong to that runtime, wherever the pool is used from: what a
/// pool hands out can be awaited on any executor and any thread, while the runtime runs.
///
/// The runtime needs its I/O and its timers (`enable_all`, as `#[tokio::main]` has them) and has to outlive the use of
/// the pool: tokio's timers panic when polled without. A runtime of the current thread moves on only while somebody is
/// inside its `block_on`.
///
/// The clock is tokio's: where a test has paused it, [`now`](Runtime::now) shows the paused time to callers on that
/// runtime. On systems other than Unix, [`Endpoint::Unix`] is refused as unsupported,
/// [`Endpoint::UnixAbstract`] on those other than Linux.
pub struct Tokio {
    handle: Handle,
    clock: Clock,
    random: Random,
}

impl Tokio {
    /// Everything runs on the runtime of `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self {
            handle,
            clock: Clock::new(),
            random: Random::new(),
        }
    }

    /// Everything runs on the tokio runtime this is called in.
    ///
    /// # Errors
    ///
    /// When called outside a tokio runtime; [`new`](Self::new) takes the handle of one there.
    pub fn current() -> Result<Self, TryCurrentError> {
        Handle::try_current().map(Self::new)
    }

    /// `future`, polled inside the runtime's context, which tokio's sockets and look-ups need to be made in.
    fn in_context<T>(&self, future: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
        let handle = self.handle.clone();
        let mut future = Box::pin(future);
        Box::pin(poll_fn(move |cx| {
            let _entered = handle.enter();
            future.as_mut().poll(cx)
        }))
    }
}

impl fmt::Debug for Tokio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokio")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

impl Runtime for Tokio {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        // Dropping the handle detaches the task.
        drop(self.handle.spawn(task));
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let Some(deadline) = self.clock.deadline(at) else {
            return Box::pin(std::future::pending());
        };
        // Once made in the context, a sleep can be polled anywhere.
        let _entered = self.handle.enter();
        Box::pin(time::sleep_until(time::Instant::from_std(deadline)))
    }

    fn now(&self) -> Instant {
        self.clock.stamp(time::Instant::now().into_std())
    }

    fn random(&self) -> u64 {
        self.random.next()
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        self.in_context(async move { Ok(lookup_host((host.as_str(), port)).await?.collect()) })
    }

    fn connect(&self, to: &Endpoint, options: &SocketOptions) -> BoxFuture<'static, io::Result<BoxStream>> {
        let (to, options) = (to.clone(), options.clone());
        self.in_context(async move {
            match to {
                Endpoint::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    real::configure(&SockRef::from(&stream), &options)?;
                    Ok(Box::new(Stream(stream)) as BoxStream)
                }
                #[cfg(unix)]
                Endpoint::Unix(path) => Ok(Box::new(Stream(UnixStream::connect(path).await?)) as BoxStream),
                #[cfg(target_os = "linux")]
                Endpoint::UnixAbstract(name) => {
                    let stream = UnixStream::from_std(real::connect_abstract(&name)?)?;
                    Ok(Box::new(Stream(stream)) as BoxStream)
                }
                #[cfg(not(unix))]
                Endpoint::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
                #[cfg(not(target_os = "linux"))]
                Endpoint::UnixAbstract(_) => Err(io::ErrorKind::Unsupported.into()),
            }
        })
    }
}

/// A tokio stream as a `futures` stream.
struct Stream<S>(S);

impl<S: tokio_io::AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = tokio_io::ReadBuf::new(buf);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl<S: tokio_io::AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
