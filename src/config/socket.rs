//! Socket settings: what a runtime applies to the TCP connections it makes. Values only.

use std::time::Duration;

/// Socket settings a [`Runtime`](crate::Runtime) applies to TCP connections it makes; Unix sockets ignore them.
///
/// The defaults are libpq's: keepalives on with the system's intervals, `TCP_NODELAY` on, no user timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Whether TCP keepalives are sent. Default: true.
    pub keepalives: bool,
    /// Silence before the first keepalive; `None` leaves the system's setting. Default: `None`.
    pub keepalives_idle: Option<Duration>,
    /// Time between keepalives; `None` leaves the system's setting. Default: `None`.
    pub keepalives_interval: Option<Duration>,
    /// Lost keepalives before the connection counts as dead; `None` leaves the system's setting. Default: `None`.
    pub keepalives_retries: Option<u32>,
    /// How long written data may stay unacknowledged (`TCP_USER_TIMEOUT`, Linux only). Default: `None`.
    pub tcp_user_timeout: Option<Duration>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            keepalives: true,
            keepalives_idle: None,
            keepalives_interval: None,
            keepalives_retries: None,
            tcp_user_timeout: None,
        }
    }
}
