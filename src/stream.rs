//! The shapes of what moves between rooms and the outside: a boxed future, a byte stream. Types only.
//!
//! Below every room, so that a setting can name a hook over streams. What makes and moves streams is `runtime`.

use std::pin::Pin;

use futures_io::{AsyncRead, AsyncWrite};

/// A boxed future that can move between threads; what [`Runtime`](crate::Runtime) methods take and return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connected byte stream, erased: `futures` `AsyncRead + AsyncWrite`.
pub type BoxStream = Box<dyn ByteStream>;

/// What a [`Runtime`](crate::Runtime) hands out when it connects: any `futures` byte stream that can move between threads.
///
/// Implemented for every type that qualifies; there is nothing to implement by hand.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for S {}
