//! The two lanes of a connection as plain data: what is accepted, what is under way, how it ends.
//!
//! Below the ends of a pipe, which hold the lock, the clock and the wakers' turn.

use std::collections::VecDeque;
use std::io;
use std::task::{Poll, Waker};

use gdbpool::Instant;

use super::{Cut, PipeOptions, reset};

pub(crate) struct Wire {
    pub(crate) ordinal: u64,
    pub(crate) options: PipeOptions,
    pub(crate) lanes: [Lane; 2],
    pub(crate) reset: bool,
    /// The bytes are a protocol that a server traces by message, so the raw bytes stay out of the hash.
    pub(crate) masked: bool,
}

#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) buffered: usize,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) cut: Option<(u64, Cut)>,
    pub(crate) stalled: bool,
    pub(crate) closed: bool,
    pub(crate) broken: bool,
    pub(crate) reader_gone: bool,
    pub(crate) end: Option<(Instant, Cut)>,
    pub(crate) read_waker: Option<Waker>,
    pub(crate) write_waker: Option<Waker>,
}

pub(crate) struct Segment {
    due: Instant,
    bytes: Vec<u8>,
    taken: usize,
}

/// What a read finds.
pub(crate) enum Found {
    Bytes(usize),
    End(Cut),
    Later(Instant),
    Nothing,
}

impl Wire {
    pub(crate) fn wakers(&mut self) -> Vec<Waker> {
        let halves = self
            .lanes
            .iter_mut()
            .flat_map(|lane| [lane.read_waker.take(), lane.write_waker.take()]);
        halves.flatten().collect()
    }

    pub(crate) fn write(&mut self, lane: usize, bytes: &[u8], now: Instant) -> Poll<io::Result<usize>> {
        if self.reset {
            return Poll::Ready(Err(reset()));
        }
        let silent = self.lanes.iter().any(|lane| lane.stalled);
        let (capacity, due) = (self.options.capacity, now + self.options.latency);
        let target = &mut self.lanes[lane];
        // A peer that is gone is noticed only over a link that carries its reset back.
        if target.closed || target.broken || (target.reader_gone && !silent) {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe)));
        }
        let free = capacity.saturating_sub(target.buffered);
        if free == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        let taken = bytes.len().min(free);
        target.accept(&bytes[..taken], due);
        self.trigger_cut(lane, due);
        Poll::Ready(Ok(taken))
    }

    /// Ends the connection once the lane has accepted as many bytes as its cut allows.
    pub(crate) fn trigger_cut(&mut self, lane: usize, due: Instant) {
        let Some((at, how)) = self.lanes[lane].cut else { return };
        if how == Cut::Stall || self.lanes[lane].accepted < at {
            return;
        }
        self.lanes[lane].broken = true;
        self.lanes[lane].end = Some((due, how));
        let back = &mut self.lanes[1 - lane];
        back.broken = true;
        back.segments.clear();
        back.buffered = 0;
        back.end = Some((due, how));
    }

    pub(crate) fn read(&mut self, lane: usize, buffer: &mut [u8], now: Instant) -> Found {
        let limit = buffer.len().min(self.options.max_read);
        let lane = &mut self.lanes[lane];
        let limit = match lane.cut {
            Some((at, Cut::Stall)) => limit.min(usize::try_from(at.saturating_sub(lane.delivered)).unwrap_or(limit)),
            _ => limit,
        };
        if lane.stalled || (limit == 0 && !buffer.is_empty()) {
            lane.stalled = true;
            lane.cut = None;
            return Found::Nothing;
        }
        match lane.segments.front() {
            Some(segment) if segment.due > now => Found::Later(segment.due),
            Some(_) => Found::Bytes(lane.deliver(&mut buffer[..limit])),
            None => match lane.end {
                Some((due, _)) if due > now => Found::Later(due),
                Some((_, how)) => Found::End(how),
                None => Found::Nothing,
            },
        }
    }
}

impl Lane {
    pub(crate) fn accept(&mut self, bytes: &[u8], due: Instant) {
        let room = match self.cut {
            Some((at, Cut::Eof | Cut::Reset)) => at.saturating_sub(self.accepted),
            _ => u64::MAX,
        };
        self.accepted += bytes.len() as u64;
        let kept = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if kept == 0 {
            return;
        }
        self.buffered += kept;
        match self.segments.back_mut() {
            Some(last) if last.due == due => last.bytes.extend_from_slice(&bytes[..kept]),
            _ => self.segments.push_back(Segment {
                due,
                bytes: bytes[..kept].to_vec(),
                taken: 0,
            }),
        }
    }

    pub(crate) fn deliver(&mut self, buffer: &mut [u8]) -> usize {
        let Some(segment) = self.segments.front_mut() else {
            return 0;
        };
        let rest = &segment.bytes[segment.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        segment.taken += count;
        if segment.taken == segment.bytes.len() {
            self.segments.pop_front();
        }
        self.buffered -= count;
        self.delivered += count as u64;
        count
    }
}
