//! The two lanes of a connection as plain data: what is accepted, what is under way, how it ends.
//!
//! Below the ends of a pipe, which hold the lock, the clock and the wakers' turn. What link faults do to a lane comes in
//! as [`Conditions`]; what is random is addressed by message, never by byte.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use gdbpool::Instant;

use super::conditions::{Conditions, scaled};
use super::framing::{Framing, Head, News};
use super::{Cut, Direction, PipeOptions, reset};
use crate::fault::CutPart;
use crate::random::Stream;

/// A sender that lost everything tries again at most this much later.
const LONGEST_RETRANSMISSION: Duration = Duration::from_secs(120);

/// A call is pending for nothing at most so many times in a row.
const LONGEST_STORM: u64 = 3;

pub(crate) struct Wire {
    pub(crate) ordinal: u64,
    /// The connecting host and the accepting one.
    pub(crate) hosts: [Arc<str>; 2],
    pub(crate) options: PipeOptions,
    pub(crate) lanes: [Lane; 2],
    pub(crate) reset: bool,
    /// The peer is gone without a word, and so many bytes are still taken.
    pub(crate) half_open: Option<usize>,
    /// The bytes are a protocol that a server traces by message, so the raw bytes stay out of the hash.
    pub(crate) masked: bool,
    /// Somebody waits for messages to begin.
    pub(crate) watched: bool,
    /// The fault that broke it.
    pub(crate) broken_by: Option<&'static str>,
    /// Faults that a caller has felt and that are still to be counted.
    pub(crate) felt: Vec<Cow<'static, str>>,
    counted: BTreeSet<&'static str>,
}

pub(crate) struct Lane {
    pub(crate) segments: VecDeque<Segment>,
    /// What waits, without names.
    pub(crate) buffered: usize,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) cut: Option<(u64, Cut)>,
    pub(crate) cuts: Vec<ArmedCut>,
    pub(crate) conditions: Conditions,
    pub(crate) framing: Framing,
    pub(crate) announced: bool,
    pub(crate) stalled: bool,
    /// It was a cut that stalled it.
    pub(crate) silenced: bool,
    pub(crate) closed: bool,
    pub(crate) broken: bool,
    pub(crate) reader_gone: bool,
    pub(crate) end: Option<(Instant, Cut)>,
    pub(crate) read_waker: Option<Waker>,
    pub(crate) write_waker: Option<Waker>,
    begun: bool,
    frames: u64,
    delay: Duration,
    last_due: Instant,
    busy_until: Instant,
    lost_since: Option<Instant>,
    popped: u64,
    tries: [(u64, u64); 2],
    random: Stream,
    storms: Stream,
}

/// A cut that waits for its message.
pub(crate) struct ArmedCut {
    pub(crate) kind: Option<char>,
    pub(crate) skip: u64,
    pub(crate) at: CutPart,
    pub(crate) then: Cut,
}

pub(crate) struct Segment {
    due: Instant,
    bytes: Vec<u8>,
    taken: usize,
    weight: usize,
}

/// What a read finds.
pub(crate) enum Found {
    Bytes(usize),
    End(Cut),
    Later(Instant),
    Nothing,
    /// There may be something, but this call is pending, and woken at once.
    Storm,
}

/// Why a write took no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It took all it may.
    Done,
    /// The lane is full.
    Full,
    /// A message begins, and somebody wants to know first.
    Message(Option<char>),
    /// This call is pending, and woken at once.
    Storm,
}

impl Wire {
    pub(crate) fn new(seed: u64, ordinal: u64, hosts: [Arc<str>; 2], options: PipeOptions) -> Self {
        let lane = |direction: Direction| {
            let entity = ordinal * 2 + direction.lane() as u64;
            Lane::new(
                Framing::new(direction),
                Stream::new(seed, "lane", entity),
                Stream::new(seed, "storm", entity),
            )
        };
        Self {
            ordinal,
            hosts,
            options,
            lanes: [lane(Direction::ToServer), lane(Direction::ToClient)],
            reset: false,
            half_open: None,
            masked: false,
            watched: false,
            broken_by: None,
            felt: Vec::new(),
            counted: BTreeSet::new(),
        }
    }

    pub(crate) fn wakers(&mut self) -> Vec<Waker> {
        let halves = self
            .lanes
            .iter_mut()
            .flat_map(|lane| [lane.read_waker.take(), lane.write_waker.take()]);
        halves.flatten().collect()
    }

    /// Nobody has both ends any more, or nothing can come of it.
    pub(crate) fn is_over(&self) -> bool {
        // Behind silence, an end does not know yet.
        let silent = self.half_open.is_some() || self.lanes.iter().any(|lane| lane.silenced);
        self.reset || (!silent && self.lanes.iter().all(|lane| lane.closed || lane.broken))
    }

    pub(crate) fn write(&mut self, lane: usize, bytes: &[u8], now: Instant) -> io::Result<(usize, Stop)> {
        if self.reset {
            self.feel_break();
            return Err(reset());
        }
        self.feel_conditions(lane);
        let silent = self.half_open.is_some() || self.lanes.iter().any(|lane| lane.stalled || lane.conditions.held);
        let most = self.lanes[lane]
            .conditions
            .max_write
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let mut taken = 0;
        loop {
            let target = &mut self.lanes[lane];
            // A peer that is gone is noticed only over a link that carries its reset back.
            if target.closed || target.broken || (target.reader_gone && !silent) {
                if taken > 0 {
                    return Ok((taken, Stop::Done));
                }
                self.feel_break();
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
            if taken == most {
                return Ok((taken, Stop::Done));
            }
            let free = self
                .half_open
                .unwrap_or(self.options.capacity)
                .saturating_sub(target.buffered);
            if free == 0 {
                return Ok((taken, Stop::Full));
            }
            if let Some(head) = target.framing.begins(&bytes[taken..])
                && !target.begun
            {
                if target.storms(1, target.frames) {
                    return Ok((taken, Stop::Storm));
                }
                if self.watched && !mem::replace(&mut target.announced, true) {
                    return Ok((taken, Stop::Message(head.kind)));
                }
                self.begin(lane, head, now);
                continue;
            }
            taken += self.take(lane, &bytes[taken..most], free, now);
        }
    }

    /// A message begins: its delay is drawn, cuts that waited for it find their place.
    fn begin(&mut self, lane: usize, head: Head, now: Instant) {
        let target = &mut self.lanes[lane];
        target.begun = true;
        target.announced = false;
        target.delay = target.conditions.delay(&target.random, target.frames);
        target.frames += 1;
        let aimed = target.aim(head);
        let due = target.due(now, self.options.latency);
        if let Some(kind) = head.kind.filter(|_| aimed) {
            self.broken_by = Some("network.cut");
            self.felt
                .push(format!("network.cut.{}.{kind}", ["to_server", "to_client"][lane]).into());
        }
        self.trigger_cut(lane, due);
    }

    fn take(&mut self, lane: usize, bytes: &[u8], free: usize, now: Instant) -> usize {
        let latency = self.options.latency;
        let target = &mut self.lanes[lane];
        let taken = target.framing.take(bytes, free);
        let last = target.send(&bytes[..taken.bytes], taken.weight, now, latency);
        // The next byte begins something new, or the framing is opaque.
        target.begun = target.framing.begins(&[0]).is_none();
        match taken.news {
            Some(News::Encrypted) => self
                .lanes
                .iter_mut()
                .for_each(|lane| lane.framing.hear(News::Encrypted)),
            Some(news) => self.lanes[1 - lane].framing.hear(news),
            None => {}
        }
        self.trigger_cut(lane, last);
        taken.bytes
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
        let silent = self.half_open.is_some();
        let max_read = self.options.max_read;
        let target = &mut self.lanes[lane];
        let waits = !target.segments.is_empty() || target.end.is_some();
        if waits {
            self.feel_conditions(lane);
        }
        let target = &mut self.lanes[lane];
        if silent || target.conditions.held {
            return Found::Nothing;
        }
        let limit = buffer
            .len()
            .min(max_read)
            .min(target.conditions.max_read.unwrap_or(usize::MAX));
        let limit = match target.cut {
            Some((at, Cut::Stall)) => limit.min(usize::try_from(at.saturating_sub(target.delivered)).unwrap_or(limit)),
            _ => limit,
        };
        if target.stalled || (limit == 0 && !buffer.is_empty()) {
            target.stalled = true;
            if target.cut.take().is_some() {
                target.silenced = true;
                self.feel_break();
            }
            return Found::Nothing;
        }
        if target.segments.front().is_some_and(|segment| segment.taken == 0) && target.storms(0, target.popped) {
            return Found::Storm;
        }
        match target.segments.front() {
            Some(segment) if segment.due > now => Found::Later(segment.due),
            Some(_) => Found::Bytes(target.deliver(&mut buffer[..limit])),
            None => match target.end {
                Some((due, _)) if due > now => Found::Later(due),
                Some((_, how)) => {
                    self.feel_break();
                    Found::End(how)
                }
                None => Found::Nothing,
            },
        }
    }

    /// One end of the lane says that nothing more will come.
    pub(crate) fn finish(&mut self, lane: usize, now: Instant) {
        let latency = self.options.latency;
        let lane = &mut self.lanes[lane];
        if !mem::replace(&mut lane.closed, true) && lane.end.is_none() {
            lane.delay = lane.conditions.delay(&lane.random, lane.frames);
            lane.frames += 1;
            let due = lane.due(now, latency) + lane.conditions.close_delay;
            lane.end = Some((due, Cut::Eof));
        }
    }

    pub(crate) fn break_now(&mut self) {
        self.reset = true;
        self.half_open = None;
        for lane in &mut self.lanes {
            lane.segments.clear();
            lane.buffered = 0;
        }
    }

    pub(crate) fn set_conditions(&mut self, conditions: [Conditions; 2], now: Instant) {
        for (lane, conditions) in self.lanes.iter_mut().zip(conditions) {
            lane.set_conditions(conditions, now);
        }
    }

    fn feel_conditions(&mut self, lane: usize) {
        if self.lanes[lane].conditions.are_none() && self.half_open.is_none() {
            return;
        }
        let half_open = self.half_open.map(|_| "network.half_open");
        let names = self.lanes[lane].conditions.by.iter().copied().chain(half_open);
        for name in names {
            if self.counted.insert(name) {
                self.felt.push(name.into());
            }
        }
    }

    fn feel_break(&mut self) {
        self.felt.extend(self.broken_by.take().map(Cow::from));
    }
}

impl Lane {
    fn new(framing: Framing, random: Stream, storms: Stream) -> Self {
        Self {
            segments: VecDeque::new(),
            buffered: 0,
            accepted: 0,
            delivered: 0,
            cut: None,
            cuts: Vec::new(),
            conditions: Conditions::default(),
            framing,
            announced: false,
            stalled: false,
            silenced: false,
            closed: false,
            broken: false,
            reader_gone: false,
            end: None,
            read_waker: None,
            write_waker: None,
            begun: false,
            frames: 0,
            delay: Duration::ZERO,
            last_due: Instant::from_nanos(0),
            busy_until: Instant::from_nanos(0),
            lost_since: None,
            popped: 0,
            tries: [(u64::MAX, 0); 2],
            random,
            storms,
        }
    }

    /// Gives the first cut that waited for this message its place; false if there was none.
    fn aim(&mut self, head: Head) -> bool {
        let accepted = self.accepted;
        let mut place = None;
        self.cuts.retain_mut(|cut| {
            if head.kind.is_none() || (cut.kind.is_some() && cut.kind != head.kind) || place.is_some() {
                return true;
            }
            if cut.skip > 0 {
                cut.skip -= 1;
                return true;
            }
            let length = head.length.map(|length| length as u64);
            let into = match cut.at {
                CutPart::Byte(byte) => u64::from(byte).min(length.unwrap_or(u64::MAX)),
                CutPart::Thousandth(part) => length.unwrap_or(0) * u64::from(part.min(1_000)) / 1_000,
            };
            place = Some((accepted + into, cut.then));
            false
        });
        if place.is_none() {
            return false;
        }
        self.cut = place;
        true
    }

    /// When what is sent now arrives; never before what was sent earlier.
    fn due(&mut self, now: Instant, latency: Duration) -> Instant {
        self.last_due = self.last_due.max(self.busy_until.max(now) + latency + self.delay);
        self.last_due
    }

    /// Puts bytes under way; gives when the last of them arrives.
    fn send(&mut self, bytes: &[u8], weight: usize, now: Instant, latency: Duration) -> Instant {
        if let Some(rate) = self.conditions.bandwidth {
            let nanos = weight as u128 * 1_000_000_000 / u128::from(rate.max(1));
            let span = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.busy_until = self.busy_until.max(now) + span;
        }
        let mut due = self.due(now, latency);
        let Some((longest, gap)) = self.conditions.slice.filter(|_| weight > 1) else {
            self.accept(bytes, weight, due);
            return due;
        };
        let longest = u64::from(longest.max(1));
        let (mut sent, mut weighed, mut piece) = (0, 0, 0);
        while weighed < weight {
            let number = self.random.at((self.frames << 20) | piece);
            let size = 1 + usize::try_from((u128::from(number) * u128::from(longest)) >> 64).unwrap_or(0);
            let end = (weighed + size).min(weight);
            // Names stretch the pieces, they do not add any.
            let until = if end == weight {
                bytes.len()
            } else {
                bytes.len() * end / weight
            };
            self.accept(&bytes[sent..until], end - weighed, due);
            (sent, weighed, piece) = (until, end, piece + 1);
            if weighed < weight {
                due = due + gap;
            }
        }
        self.last_due = due;
        due
    }

    fn accept(&mut self, bytes: &[u8], weight: usize, due: Instant) {
        let room = match self.cut {
            Some((at, Cut::Eof | Cut::Reset)) => at.saturating_sub(self.accepted),
            _ => u64::MAX,
        };
        self.accepted += bytes.len() as u64;
        let kept = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if kept == 0 {
            return;
        }
        let weight = if kept < bytes.len() { weight.min(kept) } else { weight };
        self.buffered += weight;
        match self.segments.back_mut() {
            Some(last) if last.due == due => {
                last.bytes.extend_from_slice(&bytes[..kept]);
                last.weight += weight;
            }
            _ => self.segments.push_back(Segment {
                due,
                bytes: bytes[..kept].to_vec(),
                taken: 0,
                weight,
            }),
        }
    }

    fn deliver(&mut self, buffer: &mut [u8]) -> usize {
        let Some(segment) = self.segments.front_mut() else {
            return 0;
        };
        let rest = &segment.bytes[segment.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        segment.taken += count;
        // Room is given back by whole segments: where in one a read ended may depend on names.
        if segment.taken == segment.bytes.len() {
            self.buffered -= segment.weight;
            self.popped += 1;
            self.segments.pop_front();
        }
        self.delivered += count as u64;
        count
    }

    /// Whether the present call is pending for nothing; `side` is zero for reads. For each `key`, which counts what has
    /// moved, that ends once and for all: a caller that asks twice in each of its polls must not be woken for ever.
    fn storms(&mut self, side: usize, key: u64) -> bool {
        if self.conditions.storm == 0 {
            return false;
        }
        let (last, tries) = self.tries[side];
        let tries = if last == key { tries } else { 0 };
        let number = self.storms.at(key * 16 + side as u64 * 8 + tries);
        let storm = tries < LONGEST_STORM && number % 100 < u64::from(self.conditions.storm);
        self.tries[side] = (key, if storm { tries + 1 } else { LONGEST_STORM });
        storm
    }

    fn set_conditions(&mut self, conditions: Conditions, now: Instant) {
        let was_lost = self.conditions.lost;
        self.conditions = conditions;
        if self.conditions.lost {
            self.lost_since.get_or_insert(now);
        }
        if was_lost && !self.conditions.lost {
            let span = self.lost_since.take().map_or(Duration::ZERO, |since| now - since);
            let late = scaled(span.min(LONGEST_RETRANSMISSION), self.random.at(u64::MAX - self.frames));
            let earliest = now + late;
            for segment in &mut self.segments {
                segment.due = segment.due.max(earliest);
            }
            if let Some((due, _)) = &mut self.end {
                *due = (*due).max(earliest);
            }
            if !self.segments.is_empty() {
                self.last_due = self.last_due.max(earliest);
            }
        }
    }
}
