//! The CancelRequest: sixteen bytes on a side connection that ask the server to stop a backend's statement.
//!
//! Used by settling only. It reports whether the server closed the side connection, which it does after it has sent the
//! signal: only then can the session be drained (manual, "Canceling Requests in Progress").

use std::io;
use std::pin::pin;

use bytes::BytesMut;
use futures_util::{AsyncReadExt, AsyncWriteExt};
use postgres_protocol::message::frontend;

use super::dial::Address;
use crate::runtime::Runtime;

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

/// Sends one cancel request. No deadline of its own: the caller's holds.
pub(crate) async fn send(runtime: &dyn Runtime, address: &Address, pid: i32, key: i32) -> CancelRequest {
    let Ok(mut stream) = runtime.connect(&address.endpoint, &address.options).await else {
        return CancelRequest::NotSent;
    };
    let mut request = BytesMut::new();
    frontend::cancel_request(pid, key, &mut request);
    let mut exchange = pin!(async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut rest = [0; 16];
        while stream.read(&mut rest).await? != 0 {}
        Ok::<_, io::Error>(())
    });
    match exchange.as_mut().await {
        Ok(()) => CancelRequest::Delivered,
        // A reset is an end, too: the server's process for the side connection is gone.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => CancelRequest::Delivered,
        Err(error) => CancelRequest::InDoubt(error),
    }
}
