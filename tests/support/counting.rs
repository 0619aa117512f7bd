//! A runtime around another one that counts: tasks and streams alive, start-ups under way, cancel requests and hits.
//!
//! Between the library and a runtime that does the work. Streams pass through a tap of its own, so that what it says does
//! not rest on what the library thinks it saw. It changes no byte and delays nothing.
#![allow(dead_code, reason = "every test binary uses its own part of the support")]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures::channel::oneshot;
use futures::io::{AsyncRead, AsyncWrite};
use gdbpool::{BoxFuture, BoxStream, Endpoint, Instant, Runtime, SocketOptions};

/// Starts `future` on `runtime`.
///
/// The result is gone when the task panicked or was dropped: awaiting it fails then.
pub(crate) fn start<T: Send + 'static>(
    runtime: &dyn Runtime,
    future: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (sender, result) = oneshot::channel();
    runtime.spawn(Box::pin(async move {
        // Nobody waits for the result when its receiver was dropped.
        drop(sender.send(future.await));
    }));
    result
}

/// See the file's header.
#[derive(Clone)]
pub(crate) struct Counting {
    inner: Arc<dyn Runtime>,
    pub(crate) counts: Arc<Counts>,
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Spawned and neither done nor dropped.
    pub(crate) tasks: Gauge,
    /// Connected and not dropped.
    pub(crate) streams: Gauge,
    /// Asked for, and neither failed nor at their first ReadyForQuery. Cancel requests count until they are written.
    pub(crate) start_ups: Gauge,
    /// Calls to connect.
    pub(crate) dials: AtomicUsize,
    /// Cancel requests written.
    pub(crate) cancels: AtomicUsize,
    /// Statements that ended by 57014, as the server said.
    pub(crate) cancelled: AtomicUsize,
    /// Set while only `now` may be called: things are being dropped.
    pub(crate) only_now: AtomicBool,
    /// Other calls made meanwhile.
    pub(crate) improper_calls: AtomicUsize,
}

/// How many there are now, and the most there were at once.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

/// One of those that a gauge counts.
struct Counted {
    counts: Arc<Counts>,
    gauge: fn(&Counts) -> &Gauge,
}

impl Gauge {
    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    /// The highest count is taken from now on.
    pub(crate) fn reset_peak(&self) {
        self.peak.store(self.now(), Ordering::SeqCst);
    }
}

impl Counted {
    fn new(counts: &Arc<Counts>, gauge: fn(&Counts) -> &Gauge) -> Self {
        let here = gauge(counts);
        let now = here.now.fetch_add(1, Ordering::SeqCst) + 1;
        here.peak.fetch_max(now, Ordering::SeqCst);
        let counts = Arc::clone(counts);
        Self { counts, gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.counts).now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Counting {
    pub(crate) fn new(inner: Arc<dyn Runtime>) -> Self {
        Self {
            inner,
            counts: Arc::default(),
        }
    }

    fn called(&self) {
        if self.counts.only_now.load(Ordering::SeqCst) {
            self.counts.improper_calls.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Runtime for Counting {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.called();
        let alive = Counted::new(&self.counts, |counts| &counts.tasks);
        self.inner.spawn(Box::pin(async move {
            let _alive = alive;
            task.await;
        }));
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.called();
        self.inner.sleep_until(at)
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn random(&self) -> u64 {
        self.called();
        self.inner.random()
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.called();
        self.inner.resolve(host, port)
    }

    fn connect(&self, to: &Endpoint, options: &SocketOptions) -> BoxFuture<'static, io::Result<BoxStream>> {
        self.called();
        self.counts.dials.fetch_add(1, Ordering::SeqCst);
        let counts = Arc::clone(&self.counts);
        let starting = Counted::new(&counts, |counts| &counts.start_ups);
        let connecting = self.inner.connect(to, options);
        Box::pin(async move {
            let stream = connecting.await?;
            Ok(Box::new(Tapped {
                stream,
                _open: Counted::new(&counts, |counts| &counts.streams),
                starting: Some(starting),
                first_write: true,
                ready: Finder::new(b"Z\0\0\0\x05I"),
                cancelled: Finder::new(b"C57014\0"),
                counts,
            }) as BoxStream)
        })
    }
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counting").field(&self.counts).finish()
    }
}

/// A stream whose bytes are looked at.
struct Tapped {
    stream: BoxStream,
    _open: Counted,
    starting: Option<Counted>,
    first_write: bool,
    ready: Finder,
    cancelled: Finder,
    counts: Arc<Counts>,
}

/// Finds a pattern, whose first byte occurs in it only once, in a stream of bytes.
struct Finder {
    pattern: &'static [u8],
    matched: usize,
}

impl Finder {
    fn new(pattern: &'static [u8]) -> Self {
        Self { pattern, matched: 0 }
    }

    /// How often the pattern ends in `bytes`.
    fn count(&mut self, bytes: &[u8]) -> usize {
        let mut found = 0;
        for byte in bytes {
            self.matched = match *byte == self.pattern[self.matched] {
                true => self.matched + 1,
                false => usize::from(*byte == self.pattern[0]),
            };
            if self.matched == self.pattern.len() {
                found += 1;
                self.matched = 0;
            }
        }
        found
    }
}

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let count = ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if this.starting.is_some() && this.ready.count(&buf[..count]) > 0 {
            this.starting = None;
        }
        let cancelled = this.cancelled.count(&buf[..count]);
        this.counts.cancelled.fetch_add(cancelled, Ordering::SeqCst);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let count = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        if std::mem::take(&mut this.first_write) && buf.starts_with(CANCEL_REQUEST) {
            this.starting = None;
            this.counts.cancels.fetch_add(1, Ordering::SeqCst);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// How a CancelRequest begins: length 16, code 80877102.
const CANCEL_REQUEST: &[u8] = &[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e];
