//! What a subscriber receives: notifications, and plain marks wherever some may be missing.
//!
//! Values at the end of a notification's way (server → session → listener → subscriber). They decide nothing.

use std::fmt;
use std::sync::Arc;

use crate::Instant;

/// What a subscriber receives, in this order: `Subscribed` first; then notifications in the order the server sent them;
/// around every place where some may be missing a `Gap` and, once nothing is missed any more, a `Resumed`.
///
/// Whoever keeps a copy of the database's state reads it anew after `Subscribed` and after every `Resumed`, not before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenEvent {
    /// The server acknowledged LISTEN: whatever is committed from here on is received.
    Subscribed,
    /// A notification.
    Notification(Notification),
    /// From here to the next `Resumed`, notifications may be missing. While one gap lasts, a second cause or further
    /// dropped notifications are told by another `Gap`.
    Gap {
        /// Why.
        cause: GapCause,
        /// The last sign of life from the server before the loss; for [`GapCause::Overflow`] when the queue was first
        /// found full.
        since: Instant,
        /// How many notifications were dropped for want of room since the last `Gap`; those lost with a connection are
        /// not known and not counted.
        dropped: u64,
    },
    /// The server acknowledged LISTEN again, or the queue has room again: nothing is missed from here on.
    Resumed,
}

/// Why notifications may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapCause {
    /// The connection broke, or the server ended it.
    ConnectionLost,
    /// The server stopped answering: the connection was given up.
    Silent,
    /// The subscriber's queue was full.
    Overflow,
    /// The pool was closed; nothing follows.
    PoolClosed,
    /// A notification of our own did not arrive: what is between here and the server (a pooler that shares its connections
    /// by transaction or by statement) voids LISTEN.
    Unsupported,
}

/// One notification. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    inner: Arc<Inner>,
}

#[derive(PartialEq, Eq)]
struct Inner {
    channel: Box<str>,
    payload: Box<str>,
    backend_pid: i32,
}

impl Notification {
    pub(super) fn new(channel: &str, payload: &str, backend_pid: i32) -> Self {
        let inner = Inner {
            channel: channel.into(),
            payload: payload.into(),
            backend_pid,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The channel it was sent on.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.inner.channel
    }

    /// What was sent with it; empty when nothing was.
    #[must_use]
    pub fn payload(&self) -> &str {
        &self.inner.payload
    }

    /// The process id of the server's backend that sent it.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.inner.backend_pid
    }

    /// The payload read as `key:value|key:value`, pair by pair in its order. A key ends at its first colon; a part without
    /// a colon is a key with an empty value, and an empty part is no pair.
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// # let mut changes = db.listen_on("changes").subscribe().await?;
    /// # db.notify("changes", "table:users|id:7").await?;
    /// # let notification = loop {
    /// #     if let Some(gdbpool::ListenEvent::Notification(notification)) = changes.next().await { break notification; }
    /// # };
    /// // Of the payload "table:users|id:7":
    /// let pairs: Vec<(&str, &str)> = notification.pairs().collect();
    /// assert_eq!(pairs, [("table", "users"), ("id", "7")]);
    /// # Ok(())
    /// # });
    /// ```
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let parts = self.payload().split('|').filter(|part| !part.is_empty());
        parts.map(|part| part.split_once(':').unwrap_or((part, "")))
    }

    /// The payload read as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) when it is no JSON, or not that of a `T`; the source says where.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, crate::Error> {
        use crate::error::{Error, ErrorKind, Outcome, Phase};
        let read = serde_json::from_str(self.payload());
        read.map_err(|error| Error::new(ErrorKind::Decode, Outcome::NotExecuted, Phase::Reading).with_source(error))
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("channel", &self.channel())
            .field("payload", &self.payload())
            .field("backend_pid", &self.backend_pid())
            .finish()
    }
}

impl fmt::Display for GapCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionLost => "the connection was lost",
            Self::Silent => "the server stopped answering",
            Self::Overflow => "the queue was full",
            Self::PoolClosed => "the pool was closed",
            Self::Unsupported => "LISTEN has no effect here",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Notification;

    fn pairs(payload: &str) -> Vec<(String, String)> {
        let notification = Notification::new("c", payload, 1);
        let pairs = notification.pairs();
        pairs.map(|(key, value)| (key.into(), value.into())).collect()
    }

    #[test]
    fn a_payload_is_read_as_pairs_in_its_order() {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        assert_eq!(pairs("b:1|a:2"), owned(&[("b", "1"), ("a", "2")]));
        assert_eq!(pairs("at:12:30|x"), owned(&[("at", "12:30"), ("x", "")]));
        assert_eq!(pairs("a:1||b:"), owned(&[("a", "1"), ("b", "")]));
        assert_eq!(pairs(""), owned(&[]));
    }

    #[cfg(feature = "json")]
    #[test]
    fn a_payload_is_read_as_json() {
        let read = Notification::new("c", "[1, 2]", 1).json::<Vec<u8>>();
        assert_eq!(read.ok(), Some(vec![1, 2]));
        let error = Notification::new("c", "no", 1).json::<Vec<u8>>().expect_err("not JSON");
        assert!(matches!(error.kind(), crate::ErrorKind::Decode), "{error:?}");
    }
}
