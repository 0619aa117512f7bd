//! What tokio-postgres is given: the tap, and, where it taps an encrypted stream, what binds an authentication to it.
//!
//! Between tap and tokio-postgres, which takes channel binding from its own TLS stream only. That stream is this one: its
//! "handshake" has been made before, below the tap.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Connection;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::tap::Tap;

/// The connection of every session; plain ones have the tap itself in it.
pub(super) type RawConnection = Connection<Tap, Bound>;

/// A tap on an encrypted stream.
pub(super) struct Bound {
    tap: Tap,
    server_end_point: Option<Vec<u8>>,
}

/// Makes a tap a [`Bound`] one.
pub(super) struct Bind {
    pub(super) server_end_point: Option<Vec<u8>>,
}

impl TlsConnect<Tap> for Bind {
    type Stream = Bound;
    type Error = Infallible;
    type Future = Ready<Result<Bound, Infallible>>;

    fn connect(self, tap: Tap) -> Self::Future {
        ready(Ok(Bound {
            tap,
            server_end_point: self.server_end_point,
        }))
    }
}

impl TlsStream for Bound {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.server_end_point {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Bound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tap).poll_read(cx, buf)
    }
}

impl AsyncWrite for Bound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tap).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tap).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tap).poll_shutdown(cx)
    }
}
