//! What the adapters for real executors share: a clock, randomness, socket settings, and closing a socket.
//!
//! Below `smol.rs`, `async_std.rs` and `tokio.rs`, at the very end of a call's way. It holds no policy, spawns nothing
//! and never waits.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "adapters are where the real world enters"
)]

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
#[cfg(any(feature = "smol", feature = "async-std"))]
use std::io::{IoSlice, IoSliceMut};
#[cfg(any(feature = "smol", feature = "async-std"))]
use std::net::Shutdown;
#[cfg(any(feature = "smol", feature = "async-std"))]
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(any(feature = "smol", feature = "async-std"))]
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant as StdInstant};

#[cfg(any(feature = "smol", feature = "async-std"))]
use futures_io::{AsyncRead, AsyncWrite};
use socket2::{SockRef, TcpKeepalive};

use super::SocketOptions;
use crate::Instant;

/// Translates between the system's instants and ours, which count from the clock's making.
#[derive(Debug)]
pub(super) struct Clock {
    origin: StdInstant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            origin: StdInstant::now(),
        }
    }

    /// Our name for the system's instant `at`; the origin for anything before it.
    pub(super) fn stamp(&self, at: StdInstant) -> Instant {
        Instant::from_nanos(0) + at.saturating_duration_since(self.origin)
    }

    /// The system's instant for `at`; `None` when it never comes.
    pub(super) fn deadline(&self, at: Instant) -> Option<StdInstant> {
        if at == Instant::FAR_FUTURE {
            return None;
        }
        self.origin.checked_add(Duration::from_nanos(at.as_nanos()))
    }
}

/// Random bits without a lock: splitmix64 on a counter, seeded from the system once.
#[derive(Debug)]
pub(super) struct Random {
    state: AtomicU64,
}

impl Random {
    pub(super) fn new() -> Self {
        // The keys of a `RandomState` come from the system, and differ between two of them.
        Self {
            state: AtomicU64::new(RandomState::new().build_hasher().finish()),
        }
    }

    pub(super) fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut bits = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// Applies `options` to a TCP socket.
///
/// As in libpq a zero leaves the system's setting. The system counts in whole seconds (the user timeout: milliseconds),
/// so spans are rounded up.
pub(super) fn configure(socket: &SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    let named = |what: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("could not set {what} on the socket: {error}"))
    };
    socket.set_tcp_nodelay(true).map_err(named("TCP_NODELAY"))?;
    socket.set_keepalive(options.keepalives).map_err(named("keepalives"))?;
    if options.keepalives {
        if let Some(idle) = options.keepalives_idle.and_then(whole_seconds) {
            socket
                .set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))
                .map_err(named("keepalives_idle"))?;
        }
        // OpenBSD, for one, has a keepalive but none of its details.
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows))]
        {
            if let Some(interval) = options.keepalives_interval.and_then(whole_seconds) {
                let interval = TcpKeepalive::new().with_interval(interval);
                socket
                    .set_tcp_keepalive(&interval)
                    .map_err(named("keepalives_interval"))?;
            }
            if let Some(retries) = options.keepalives_retries.filter(|retries| *retries > 0) {
                let retries = TcpKeepalive::new().with_retries(retries);
                socket
                    .set_tcp_keepalive(&retries)
                    .map_err(named("keepalives_retries"))?;
            }
        }
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(timeout) = options.tcp_user_timeout.filter(|timeout| !timeout.is_zero()) {
        let timeout = timeout.max(Duration::from_millis(1));
        socket
            .set_tcp_user_timeout(Some(timeout))
            .map_err(named("tcp_user_timeout"))?;
    }
    Ok(())
}

/// Connects to a socket in Linux's abstract namespace.
///
/// Of the runtimes' own connects not every one knows these names. It never waits: such a connect is done at once, or the
/// listener's queue is full, which the system says.
#[cfg(target_os = "linux")]
pub(super) fn connect_abstract(name: &std::path::Path) -> io::Result<std::os::unix::net::UnixStream> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    let mut bytes = vec![0];
    bytes.extend_from_slice(name.as_os_str().as_bytes());
    let address = socket2::SockAddr::unix(std::ffi::OsString::from_vec(bytes))?;
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&address)?;
    Ok(socket.into())
}

fn whole_seconds(span: Duration) -> Option<Duration> {
    let seconds = span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0));
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// A stream of the async-io family, whose own `poll_close` does nothing: this one ends the sending side.
#[cfg(any(feature = "smol", feature = "async-std"))]
pub(super) struct Socket<S>(pub(super) S);

#[cfg(any(feature = "smol", feature = "async-std"))]
impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read_vectored(cx, bufs)
    }
}

#[cfg(any(feature = "smol", feature = "async-std"))]
impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S>
where
    for<'a> SockRef<'a>: From<&'a S>,
{
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
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        match SockRef::from(&self.0).shutdown(Shutdown::Write) {
            // The peer was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn connected() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        TcpStream::connect(listener.local_addr().expect("address")).expect("connect")
    }

    #[test]
    fn instants_survive_the_way_there_and_back() {
        let clock = Clock::new();
        for nanos in [0, 1, 999_999_999, 1_000_000_000, u64::from(u32::MAX) * 1_000] {
            let at = Instant::from_nanos(nanos);
            assert_eq!(clock.stamp(clock.deadline(at).expect("within the system's range")), at);
        }
        assert_eq!(clock.deadline(Instant::FAR_FUTURE), None);
    }

    #[test]
    fn an_instant_before_the_origin_is_the_origin() {
        let early = StdInstant::now();
        let clock = Clock::new();
        assert_eq!(clock.stamp(early), Instant::from_nanos(0));
    }

    #[test]
    fn random_differs_within_and_between_instances() {
        let (one, other) = (Random::new(), Random::new());
        let mut drawn: Vec<u64> = (0..1_000).flat_map(|_| [one.next(), other.next()]).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 2_000);
        // Each bit is set in about half of the draws: within six standard deviations of 1,000.
        for bit in 0..64 {
            let set = drawn.iter().filter(|bits| *bits >> bit & 1 == 1).count();
            assert!((866..=1_134).contains(&set), "bit {bit} set in {set} of 2000");
        }
    }

    #[test]
    fn the_defaults_switch_keepalives_on_and_delay_off() {
        let stream = connected();
        let socket = SockRef::from(&stream);
        let before = socket.tcp_keepalive_time().expect("read");
        configure(&socket, &SocketOptions::default()).expect("configure");
        assert!(socket.keepalive().expect("read"));
        assert!(socket.tcp_nodelay().expect("read"));
        assert_eq!(socket.tcp_keepalive_time().expect("read"), before);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn every_option_reaches_the_socket() {
        let stream = connected();
        let socket = SockRef::from(&stream);
        let options = SocketOptions {
            keepalives: true,
            keepalives_idle: Some(Duration::from_millis(41_001)),
            keepalives_interval: Some(Duration::from_secs(7)),
            keepalives_retries: Some(3),
            tcp_user_timeout: Some(Duration::from_millis(1_500)),
        };
        configure(&socket, &options).expect("configure");
        assert_eq!(socket.tcp_keepalive_time().expect("read"), Duration::from_secs(42));
        assert_eq!(socket.tcp_keepalive_interval().expect("read"), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().expect("read"), 3);
        assert_eq!(
            socket.tcp_user_timeout().expect("read"),
            Some(Duration::from_millis(1_500))
        );

        configure(
            &socket,
            &SocketOptions {
                keepalives: false,
                ..SocketOptions::default()
            },
        )
        .expect("configure");
        assert!(!socket.keepalive().expect("read"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn zero_leaves_the_systems_setting_and_nonsense_is_named() {
        let stream = connected();
        let socket = SockRef::from(&stream);
        let before = (
            socket.tcp_keepalive_time().expect("read"),
            socket.tcp_keepalive_retries().expect("read"),
        );
        let mut options = SocketOptions {
            keepalives_idle: Some(Duration::ZERO),
            keepalives_interval: Some(Duration::ZERO),
            keepalives_retries: Some(0),
            tcp_user_timeout: Some(Duration::ZERO),
            ..SocketOptions::default()
        };
        configure(&socket, &options).expect("configure");
        let after = (
            socket.tcp_keepalive_time().expect("read"),
            socket.tcp_keepalive_retries().expect("read"),
        );
        assert_eq!(after, before);

        options.keepalives_retries = Some(1_000);
        let error = configure(&socket, &options).expect_err("the system's bound is 127");
        assert!(error.to_string().contains("keepalives_retries"), "{error}");
    }
}
