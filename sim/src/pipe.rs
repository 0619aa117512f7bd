//! In-memory byte connections: two lanes with capacity, latency, half close, and every way a link can break.
//!
//! What a simulated connect hands out and what servers accept. A lane is plain data behind a lock that is never held
//! while somebody is woken; time comes from the run, faults from [`PipeControl`].

mod conditions;
mod connection;
mod framing;
mod lane;

use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use serde::{Deserialize, Serialize};

pub(crate) use self::conditions::{Conditions, draw};
pub(crate) use self::connection::{Connection, WeakConnection};
pub(crate) use self::lane::ArmedCut;
use self::lane::{Found, Stop, Wire};
use crate::executor::{Origin, Shared};
use crate::random::hash_bytes;
use crate::runtime::Sleep;
use crate::source::debug_as_source;
use crate::trace::Event;

/// The properties of a connection when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipeOptions {
    /// Bytes one lane holds before writes wait, at least one. Default: 64 KiB.
    pub capacity: usize,
    /// Virtual time a byte is under way. Default: zero.
    pub latency: Duration,
    /// The most bytes one read gives (short reads), at least one. Default: no limit.
    pub max_read: usize,
}

impl Default for PipeOptions {
    fn default() -> Self {
        Self {
            capacity: 64 * 1024,
            latency: Duration::ZERO,
            max_read: usize::MAX,
        }
    }
}

/// One lane of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// From the end that accepted to the end that connected.
    ToClient,
    /// From the end that connected to the end that accepted.
    ToServer,
}

/// How a cut connection ends for those who use it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cut {
    /// Both ends read end-of-file, writes fail with `BrokenPipe`.
    Eof,
    /// Both ends get `ConnectionReset`.
    Reset,
    /// The lane goes silent: bytes are accepted but not delivered, until [`PipeControl::resume`].
    Stall,
}

debug_as_source!(Cut, Direction);

/// One end of an in-memory connection: a `futures` byte stream. Dropping it closes both of its lanes.
pub struct PipeEnd {
    reader: PipeReader,
    writer: PipeWriter,
}

/// The reading half of an end. Dropping it makes the peer's writes fail.
pub struct PipeReader {
    link: Link,
    sleep: Option<Sleep>,
}

/// The writing half of an end. Dropping it sends end-of-file.
pub struct PipeWriter {
    link: Link,
}

/// The faults of one connection, usable at any time and from anywhere.
#[derive(Clone)]
pub struct PipeControl {
    link: Link,
}

#[derive(Clone)]
struct Link {
    shared: Arc<Shared>,
    wire: Arc<Mutex<Wire>>,
    /// The lane this half reads from or writes to; of no meaning for the control.
    lane: usize,
}

/// Two connected ends; `hosts` are the connecting one and the accepting one.
pub(crate) fn pair(shared: &Arc<Shared>, options: PipeOptions, hosts: [Arc<str>; 2]) -> (PipeEnd, PipeEnd) {
    assert!(
        options.capacity > 0 && options.max_read > 0,
        "a pipe that holds or gives no bytes never moves"
    );
    let ordinal = {
        let mut state = shared.lock();
        state.pipes += 1;
        state.pipes
    };
    let wire = Wire::new(shared.seed, ordinal, hosts, options);
    let wire = Arc::new(Mutex::new(wire));
    let link = |lane| Link {
        shared: Arc::clone(shared),
        wire: Arc::clone(&wire),
        lane,
    };
    let end = |reads: Direction, writes: Direction| PipeEnd {
        reader: PipeReader {
            link: link(reads.lane()),
            sleep: None,
        },
        writer: PipeWriter {
            link: link(writes.lane()),
        },
    };
    (
        end(Direction::ToClient, Direction::ToServer),
        end(Direction::ToServer, Direction::ToClient),
    )
}

impl Direction {
    fn lane(self) -> usize {
        match self {
            Self::ToServer => 0,
            Self::ToClient => 1,
        }
    }

    fn of_lane(lane: usize) -> Self {
        match lane {
            0 => Self::ToServer,
            _ => Self::ToClient,
        }
    }
}

impl PipeEnd {
    /// The faults of this connection.
    #[must_use]
    pub fn control(&self) -> PipeControl {
        PipeControl {
            link: self.reader.link.clone(),
        }
    }

    /// The two halves, to be used by two tasks.
    #[must_use]
    pub fn split(self) -> (PipeReader, PipeWriter) {
        (self.reader, self.writer)
    }
}

impl PipeControl {
    /// Stops delivery in one direction; writes are accepted until the lane is full, then wait.
    pub fn stall(&self, direction: Direction) {
        self.link.change(|wire| wire.lanes[direction.lane()].stalled = true);
    }

    /// Ends a stall: everything held back is delivered in order.
    pub fn resume(&self, direction: Direction) {
        self.link.change(|wire| wire.lanes[direction.lane()].stalled = false);
    }

    /// Breaks the connection at once: both ends get `ConnectionReset`, what was under way is lost.
    pub fn reset(&self) {
        self.link.change(Wire::break_now);
    }

    /// The number of this connection: all of a run count from one, in the order in which they were made.
    #[must_use]
    pub fn ordinal(&self) -> u64 {
        self.link.lock().ordinal
    }

    /// Delivers exactly the first `bytes` bytes of a direction, counted from the start of the connection, then `how`.
    ///
    /// When more was accepted already, the cut happens behind that.
    pub fn cut_at(&self, direction: Direction, bytes: u64, how: Cut) {
        let now = self.link.shared.now();
        self.link.change(|wire| {
            let lane = &mut wire.lanes[direction.lane()];
            let at = bytes.max(lane.accepted);
            lane.cut = Some((at, how));
            wire.trigger_cut(direction.lane(), now);
        });
    }

    /// Bytes the reader of a direction has read so far.
    #[must_use]
    pub fn delivered(&self, direction: Direction) -> u64 {
        self.link.lock().lanes[direction.lane()].delivered
    }

    /// Bytes the writer of a direction has written so far.
    #[must_use]
    pub fn accepted(&self, direction: Direction) -> u64 {
        self.link.lock().lanes[direction.lane()].accepted
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection::new(Arc::clone(&self.link.wire))
    }

    pub(crate) fn mask(&self) {
        self.link.lock().masked = true;
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the wire and wakes everybody who waits on it, after the lock is released.
    fn change(&self, change: impl FnOnce(&mut Wire)) {
        let mut wire = self.lock();
        change(&mut wire);
        let wakers = wire.wakers();
        drop(wire);
        wake(wakers);
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let now = this.link.shared.now();
            let mut wire = this.link.lock();
            if wire.reset {
                let felt = wire.broken_by.take();
                drop(wire);
                this.link.shared.felt(felt);
                return Poll::Ready(Err(reset()));
            }
            let found = wire.read(this.link.lane, buffer, now);
            let (ordinal, masked, felt) = (wire.ordinal, wire.masked, mem::take(&mut wire.felt));
            if let Found::Bytes(count) = found {
                let waker = wire.lanes[this.link.lane].write_waker.take();
                drop(wire);
                this.link.shared.felt(felt);
                if !masked {
                    let words = [ordinal, this.link.lane as u64, hash_bytes(&buffer[..count])];
                    this.link.shared.record(Event::Pipe, &words);
                }
                wake(waker);
                return Poll::Ready(Ok(count));
            }
            let replaced = wire.lanes[this.link.lane].read_waker.replace(cx.waker().clone());
            drop(wire);
            drop(replaced);
            this.link.shared.felt(felt);
            match found {
                Found::Storm => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Found::End(Cut::Reset) => return Poll::Ready(Err(reset())),
                Found::End(_) => return Poll::Ready(Ok(0)),
                Found::Later(due) => {
                    if this.sleep.as_ref().is_none_or(|sleep| sleep.at() != due) {
                        this.sleep = Some(Sleep::new(&this.link.shared, due, Origin::World));
                    }
                    match this.sleep.as_mut().map(|sleep| Pin::new(sleep).poll(cx)) {
                        Some(Poll::Ready(())) => this.sleep = None,
                        _ => return Poll::Pending,
                    }
                }
                Found::Bytes(_) | Found::Nothing => return Poll::Pending,
            }
        }
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut done = 0;
        loop {
            let (step, readers) = self.write_some(&bytes[done..], cx);
            wake(readers);
            match step {
                Ok((count, Stop::Message(kind))) => {
                    done += count;
                    self.announce(kind);
                }
                Ok((count, stop)) => {
                    done += count;
                    if done > 0 || stop == Stop::Done {
                        return Poll::Ready(Ok(done));
                    }
                    if stop == Stop::Storm {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
                // What was taken is taken; the next call gets the error.
                Err(_) if done > 0 => return Poll::Ready(Ok(done)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.link.lock().reset { Err(reset()) } else { Ok(()) })
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl PipeWriter {
    /// One step of a write, and the readers to be woken after it.
    fn write_some(&self, bytes: &[u8], cx: &Context<'_>) -> (io::Result<(usize, Stop)>, Vec<Waker>) {
        let now = self.link.shared.now();
        let mut wire = self.link.lock();
        let step = wire.write(self.link.lane, bytes, now);
        let mut wakers = Vec::new();
        let mut replaced = None;
        if let Ok((0, Stop::Full)) = step {
            replaced = wire.lanes[self.link.lane].write_waker.replace(cx.waker().clone());
        } else {
            // A cut ends the other lane too, so both readers may have news.
            wakers.extend(wire.lanes.iter_mut().filter_map(|lane| lane.read_waker.take()));
        }
        let felt = mem::take(&mut wire.felt);
        drop(wire);
        drop(replaced);
        self.link.shared.felt(felt);
        (step, wakers)
    }

    /// Tells the run that a message begins, before its first byte is taken.
    fn announce(&self, kind: Option<char>) {
        let (ordinal, to) = {
            let wire = self.link.lock();
            (wire.ordinal, Arc::clone(&wire.hosts[1]))
        };
        let direction = Direction::of_lane(self.link.lane);
        self.link.shared.message_begins(ordinal, &to, direction, kind);
    }

    fn finish(&self) {
        let now = self.link.shared.now();
        self.link.change(|wire| wire.finish(self.link.lane, now));
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let lane = self.link.lane;
        self.link.change(|wire| wire.lanes[lane].reader_gone = true);
    }
}

impl AsyncRead for PipeEnd {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_close(cx)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = self.lock();
        write!(f, "connection {}", wire.ordinal)?;
        for (name, lane) in ["to server", "to client"].iter().zip(&wire.lanes) {
            write!(f, ", {name}: {} accepted, {} delivered", lane.accepted, lane.delivered)?;
        }
        Ok(())
    }
}

impl fmt::Debug for PipeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipeEnd({:?})", self.reader.link)
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipeReader({:?})", self.link)
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipeWriter({:?})", self.link)
    }
}

impl fmt::Debug for PipeControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipeControl({:?})", self.link)
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

fn reset() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}
