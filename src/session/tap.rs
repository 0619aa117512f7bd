//! The tap: a stream wrapper through which all of a session's bytes pass on their way to and from tokio-postgres.
//!
//! Between driver and runtime stream. It shows the bytes to the [`Observer`] and publishes its facts before
//! tokio-postgres acts on them. It holds no policy and changes no byte.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead as _, AsyncWrite as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::observer::{Facts, Observer, Status, Tag};
use crate::runtime::BoxStream;

/// Bytes read at once.
const READ: usize = 8 * 1024;

/// The side of the tap that sessions read.
#[derive(Clone)]
pub(crate) struct Observed {
    shared: Arc<Shared>,
}

struct Shared {
    observer: Mutex<Observer>,
    /// The few facts that every statement asks for, so that the fast path takes no lock: see [`Brief`].
    brief: AtomicU64,
    /// Bytes written by our side, for the same reason.
    written: AtomicU64,
}

/// The facts the fast path needs, packed into one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Brief(u64);

pub(crate) struct Tap {
    stream: BoxStream,
    observed: Observed,
    /// What a safe reader reads into has to be initialised: once here, instead of at each try to read.
    buffer: Box<[u8; READ]>,
    /// Reads in a row that found bytes.
    reads: u32,
    /// Our end is closed.
    is_shut: bool,
}

/// So many reads in a row, then everybody else has a turn: tokio-postgres reads on for as long as there are bytes, and a
/// server that sends rows nobody wants any more is as fast as we are. Without this, the session's own jobs (the cancel
/// request that would end it) and, on one thread, all other tasks would wait for the last row.
const READS_PER_TURN: u32 = 32;

impl Brief {
    const SETTLED: u64 = 1;
    const PLAIN: u64 = 1 << 1;
    const READ_ONLY: u64 = 1 << 2;
    const READ_WRITE: u64 = 1 << 3;
    const PLANS_LOST: u64 = 1 << 4;

    fn of(facts: &Facts) -> Self {
        let settled = facts.outstanding == 0 && facts.status == Status::Idle && !facts.in_copy && !facts.confused;
        let mut bits = 0;
        for (set, bit) in [
            (settled, Self::SETTLED),
            (facts.tag == Tag::Plain, Self::PLAIN),
            (facts.read_only == Some(true), Self::READ_ONLY),
            (facts.read_only == Some(false), Self::READ_WRITE),
            (facts.plans_lost, Self::PLANS_LOST),
        ] {
            bits |= if set { bit } else { 0 };
        }
        Self(bits)
    }

    /// Every request written was answered, the last answer said "idle", and no COPY is under way.
    pub(crate) fn is_settled(self) -> bool {
        self.0 & Self::SETTLED != 0
    }

    /// The last command tag was SELECT, INSERT, UPDATE or DELETE.
    pub(crate) fn tag_is_plain(self) -> bool {
        self.0 & Self::PLAIN != 0
    }

    /// Whether new transactions are read only by default; `None` when the server does not report it.
    pub(crate) fn read_only(self) -> Option<bool> {
        match self.0 & (Self::READ_ONLY | Self::READ_WRITE) {
            0 => None,
            bits => Some(bits & Self::READ_ONLY != 0),
        }
    }

    /// The server's prepared statements were dropped behind our back.
    pub(crate) fn plans_lost(self) -> bool {
        self.0 & Self::PLANS_LOST != 0
    }
}

impl Observed {
    fn lock(&self) -> MutexGuard<'_, Observer> {
        self.shared.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn brief(&self) -> Brief {
        Brief(self.shared.brief.load(Ordering::Acquire))
    }

    pub(crate) fn facts(&self) -> Facts {
        self.lock().facts().clone()
    }

    /// Bytes written by our side.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }

    fn show(&self, show: impl FnOnce(&mut Observer)) {
        let mut observer = self.lock();
        show(&mut observer);
        let facts = observer.facts();
        self.shared.brief.store(Brief::of(facts).0, Ordering::Release);
        self.shared.written.store(facts.written, Ordering::Release);
    }
}

impl Tap {
    pub(crate) fn new(stream: BoxStream) -> (Self, Observed) {
        let shared = Shared {
            observer: Mutex::default(),
            brief: AtomicU64::new(0),
            written: AtomicU64::new(0),
        };
        let observed = Observed {
            shared: Arc::new(shared),
        };
        (
            Self {
                stream,
                observed: observed.clone(),
                buffer: Box::new([0; READ]),
                reads: 0,
                is_shut: false,
            },
            observed,
        )
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.reads >= READS_PER_TURN {
            this.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = buf.remaining().min(READ);
        let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, &mut this.buffer[..room]) else {
            this.reads = 0;
            return Poll::Pending;
        };
        let bytes = &this.buffer[..read?];
        this.reads += 1;
        this.observed.show(|observer| observer.inbound(bytes));
        buf.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.observed.show(|observer| observer.outbound(&bytes[..written]));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_shut {
            ready!(Pin::new(&mut this.stream).poll_close(cx))?;
            this.is_shut = true;
        }
        // The server's end closes when its process is gone: until then the session counts, at the server and in the pool.
        let mut rest = [0; 64];
        while let Ok(1..) = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut rest)) {}
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observed").field(&self.brief()).finish()
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("observed", &self.observed)
            .finish_non_exhaustive()
    }
}
