//! A stream whose beginning is watched by an [`AuthGate`]: what the gate refuses does not get through.
//!
//! Between the stream and the tap, for sessions whose `require_auth` says anything; once authentication is over it only
//! passes on. It decides nothing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::auth_gate::AuthGate;
use crate::config::target::RequireAuth;
use crate::runtime::BoxStream;

pub(super) struct Guarded {
    stream: BoxStream,
    gate: Option<AuthGate>,
}

/// `stream`, watched if there is anything to watch for.
pub(super) fn guard(stream: BoxStream, allowed: Option<RequireAuth>) -> BoxStream {
    match allowed {
        Some(allowed) => Box::new(Guarded {
            stream,
            gate: Some(AuthGate::new(allowed)),
        }),
        None => stream,
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if let Some(gate) = &mut this.gate {
            gate.inbound(&buf[..read])
                .map_err(|refusal| io::Error::new(io::ErrorKind::PermissionDenied, refusal))?;
            if gate.is_over() {
                this.gate = None;
            }
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
