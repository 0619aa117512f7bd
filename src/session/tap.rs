//! The tap: a stream wrapper through which all of a session's bytes pass on their way to and from tokio-postgres.
//!
//! Between driver and runtime stream. It shows the bytes to the [`Observer`] and publishes its facts before
//! tokio-postgres acts on them. It holds no policy and changes no byte, but for sessions behind a transaction pooler, where
//! [`Unnamed`] takes the names of statements out on our side of the observer.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::{Buf, BytesMut};
use futures_io::{AsyncRead as _, AsyncWrite as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Statement;
use tokio_postgres::types::Type;

use super::observer::{Facts, Observer, Status, Tag};
use super::unnamed::Unnamed;
use crate::config::Pooling;
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
    /// Types, beside those that are in every server, that tokio-postgres has asked for on this session. Only kept for
    /// [`Unnamed`].
    types: Mutex<BTreeSet<u32>>,
    stirs: Arc<Stirs>,
}

/// Whether anything can have come since the last look found nothing. The wire is polled for writing, too, and each poll
/// looks for bytes: without this, each would cost a system call, or a turn through the executor's books.
#[derive(Debug, Default)]
struct Stirs {
    is_quiet: AtomicBool,
    /// Whom to wake, once it is always the same one.
    reader: OnceLock<Waker>,
}

/// The facts the fast path needs, packed into one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Brief(u64);

pub(crate) struct Tap {
    stream: BoxStream,
    observed: Observed,
    /// Of the observed's `stirs`.
    stirred: Waker,
    /// What a safe reader reads into has to be initialised: once here, instead of at each try to read.
    buffer: Box<[u8; READ]>,
    /// Reads in a row that found bytes.
    reads: u32,
    /// Our end is closed.
    is_shut: bool,
    /// Boxed, because most sessions have none.
    renaming: Option<Box<Renaming>>,
}

/// What stands between tokio-postgres and the bytes on the wire, where statements have no names there.
#[derive(Debug, Default)]
struct Renaming {
    unnamed: Unnamed,
    /// On their way out.
    outbound: BytesMut,
    /// On their way in.
    inbound: BytesMut,
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

    /// tokio-postgres has asked for all types that this statement has.
    pub(super) fn types_are_known(&self, statement: &Statement) {
        let columns = statement.columns().iter().map(|column| column.type_().oid());
        let own = columns.filter(|oid| Type::from_oid(*oid).is_none());
        let mut types = self.shared.types.lock().unwrap_or_else(PoisonError::into_inner);
        types.extend(own);
    }

    fn is_known(&self, oid: u32) -> bool {
        let types = self.shared.types.lock().unwrap_or_else(PoisonError::into_inner);
        types.contains(&oid)
    }

    /// From here on the stream is read for `reader` only.
    pub(super) fn read_for(&self, reader: Waker) {
        // Set once, when the session begins.
        let _ = self.shared.stirs.reader.set(reader);
    }

    /// A write that waits may have taken the place of a read that waited to write, as those of TLS can: that one looks again.
    fn stirred_if_pending<T>(&self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.shared.stirs.is_quiet.store(false, Ordering::Release);
        }
        polled
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
    pub(crate) fn new(stream: BoxStream, pooling: Pooling) -> (Self, Observed) {
        let shared = Shared {
            observer: Mutex::default(),
            brief: AtomicU64::new(0),
            written: AtomicU64::new(0),
            types: Mutex::default(),
            stirs: Arc::default(),
        };
        let stirred = Waker::from(Arc::clone(&shared.stirs));
        let observed = Observed {
            shared: Arc::new(shared),
        };
        (
            Self {
                stream,
                observed: observed.clone(),
                stirred,
                buffer: Box::new([0; READ]),
                reads: 0,
                is_shut: false,
                renaming: (pooling == Pooling::Unnamed).then(Box::default),
            },
            observed,
        )
    }
}

impl Tap {
    /// One read of the wire, shown to the observer: what was read, in the buffer.
    fn poll_wire(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        if self.reads >= READS_PER_TURN {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let stirs = &self.observed.shared.stirs;
        let has_reader = stirs.reader.get().is_some();
        if has_reader && stirs.is_quiet.swap(true, Ordering::AcqRel) {
            self.reads = 0;
            return Poll::Pending;
        }
        let reader = if has_reader { &self.stirred } else { cx.waker() };
        let mut cx = Context::from_waker(reader);
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(&mut cx, &mut self.buffer[..room]) else {
            self.reads = 0;
            return Poll::Pending;
        };
        stirs.is_quiet.store(false, Ordering::Release);
        let read = read?;
        self.reads += 1;
        self.observed.show(|observer| observer.inbound(&self.buffer[..read]));
        Poll::Ready(Ok(read))
    }

    fn poll_renamed(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(renaming) = &mut self.renaming
                && renaming.inbound.has_remaining()
            {
                let taken = renaming.inbound.len().min(buf.remaining());
                buf.put_slice(&renaming.inbound[..taken]);
                renaming.inbound.advance(taken);
                return Poll::Ready(Ok(()));
            }
            let read = ready!(self.poll_wire(cx, READ))?;
            let Some(renaming) = &mut self.renaming else {
                return Poll::Ready(Ok(()));
            };
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            let observed = &self.observed;
            let passed = renaming.unnamed.inbound(
                &self.buffer[..read],
                |oid| observed.is_known(oid),
                &mut renaming.inbound,
            );
            passed.map_err(|strange| io::Error::new(io::ErrorKind::InvalidData, strange))?;
        }
    }

    /// Writes what waits to go out.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(renaming) = &mut self.renaming else {
            return Poll::Ready(Ok(()));
        };
        while renaming.outbound.has_remaining() {
            let polled = Pin::new(&mut self.stream).poll_write(cx, &renaming.outbound);
            let written = ready!(self.observed.stirred_if_pending(polled))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.observed
                .show(|observer| observer.outbound(&renaming.outbound[..written]));
            renaming.outbound.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl Wake for Stirs {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_quiet.store(false, Ordering::Release);
        if let Some(reader) = self.reader.get() {
            reader.wake_by_ref();
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.renaming.is_some() {
            return this.poll_renamed(cx, buf);
        }
        let read = ready!(this.poll_wire(cx, buf.remaining().min(READ)))?;
        buf.put_slice(&this.buffer[..read]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // One piece waits at most; what is taken beside it grows by its statements' texts.
        ready!(this.poll_rest(cx))?;
        if let Some(renaming) = &mut this.renaming {
            renaming.unnamed.outbound(bytes, &mut renaming.outbound);
            // What does not leave now leaves with the next piece or the flush.
            if let Poll::Ready(rest) = this.poll_rest(cx) {
                rest?;
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        let written = ready!(this.observed.stirred_if_pending(polled))?;
        this.observed.show(|observer| observer.outbound(&bytes[..written]));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.observed.stirred_if_pending(polled)
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
