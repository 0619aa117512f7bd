//! The CancelRequest: sixteen bytes on a side connection that ask the server to stop a backend's statement.
//!
//! Used by settling only. It reports whether the server closed the side connection, which it does after it has sent the
//! signal: only then can the session be drained (manual, "Canceling Requests in Progress").

use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{AsyncReadExt, AsyncWriteExt};
use postgres_protocol::message::frontend;

use super::dial::Address;
use super::tls::Secured;
use crate::runtime::{Runtime, point};

/// How a cancel request ended.
#[derive(Debug)]
pub(crate) enum CancelRequest {
    /// The server closed the side connection: the signal, if any, has been sent.
    Delivered,
    /// Not a byte was written: nothing was or will be cancelled.
    NotSent,
    /// It was written, and may arrive at any time.
    InDoubt(io::Error),
}

/// Sends one cancel request, to the very address of the session, and encrypted if the session is: the key in it is as good as
/// a password. No deadline of its own: the caller's holds.
pub(crate) async fn send(runtime: &dyn Runtime, address: &Address, pid: i32, key: i32) -> CancelRequest {
    point!(runtime, "cancel.connecting");
    let Some(Secured { mut stream, .. }) = connect(runtime, address).await else {
        return CancelRequest::NotSent;
    };
    let mut request = BytesMut::new();
    frontend::cancel_request(pid, key, &mut request);
    let mut exchange = pin!(async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        point!(runtime, "cancel.sent");
        let mut rest = [0; 16];
        while stream.read(&mut rest).await? != 0 {}
        Ok::<_, io::Error>(())
    });
    match exchange.as_mut().await {
        Ok(()) => CancelRequest::Delivered,
        // A reset is an end, too: the server's process for the side connection is gone. So is the end of an encrypted stream
        // without a farewell, which servers do not send here.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
            ) =>
        {
            CancelRequest::Delivered
        }
        Err(error) => CancelRequest::InDoubt(error),
    }
}

async fn connect(runtime: &dyn Runtime, address: &Address) -> Option<Secured> {
    let stream = runtime.connect(&address.endpoint, &address.options).await.ok()?;
    match &address.tls {
        Some((tls, host)) => tls.secure(stream, Arc::clone(host), false).await.ok(),
        None => Some(Secured::plain(stream)),
    }
}
