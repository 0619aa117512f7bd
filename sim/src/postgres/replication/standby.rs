//! What a standby has received and replayed, what is under way to it, and how late it is made to be.
//!
//! A plain machine: records go in with the time, and come out when they are due.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gdbpool::Instant;

use crate::postgres::engine::{Lsn, WalRecord};

/// The receiving end of replication.
#[derive(Debug)]
pub(crate) struct Standby {
    /// The node it follows, if any.
    pub(crate) upstream: Option<usize>,
    /// The stream is broken: nothing new comes.
    pub(crate) broken: bool,
    /// Replay stands still.
    pub(crate) paused: bool,
    /// How long records are under way.
    pub(crate) receive_delay: Duration,
    /// How long received records wait for their replay.
    pub(crate) replay_delay: Duration,
    /// Up to here records were sent to it.
    pub(crate) sent: Lsn,
    /// Up to here they have arrived, durably.
    pub(crate) receive: Lsn,
    /// Up to here they are replayed.
    pub(crate) replay: Lsn,
    /// Since when the next record cannot be replayed because of sessions in its way.
    pub(crate) blocked: Option<Instant>,
    /// The injected faults in force that keep it behind, by their names in the coverage.
    pub(crate) faults: BTreeSet<&'static str>,
    under_way: VecDeque<(Instant, Arc<WalRecord>)>,
    waiting: VecDeque<(Instant, Arc<WalRecord>)>,
}

impl Standby {
    /// A standby that has everything up to `position`.
    pub(crate) fn new(position: Lsn) -> Self {
        Self {
            upstream: None,
            broken: false,
            paused: false,
            receive_delay: Duration::ZERO,
            replay_delay: Duration::ZERO,
            sent: position,
            receive: position,
            replay: position,
            blocked: None,
            faults: BTreeSet::new(),
            under_way: VecDeque::new(),
            waiting: VecDeque::new(),
        }
    }

    /// The upstream sends a record.
    pub(crate) fn send(&mut self, record: Arc<WalRecord>, now: Instant) {
        self.sent = record.end;
        self.under_way.push_back((now, record));
    }

    /// The next record that has arrived by now.
    pub(crate) fn receive(&mut self, now: Instant) -> Option<Arc<WalRecord>> {
        let (sent, _) = self.under_way.front()?;
        if *sent + self.receive_delay > now {
            return None;
        }
        let (_, record) = self.under_way.pop_front()?;
        self.receive = record.end;
        self.waiting.push_back((now, Arc::clone(&record)));
        Some(record)
    }

    /// The next record to replay, if one is due by now.
    pub(crate) fn due(&self, now: Instant) -> Option<Arc<WalRecord>> {
        let (arrived, record) = self.waiting.front()?;
        let due = !self.paused && *arrived + self.replay_delay <= now;
        due.then(|| Arc::clone(record))
    }

    /// The record that was due is replayed.
    pub(crate) fn replayed(&mut self) {
        if let Some((_, record)) = self.waiting.pop_front() {
            self.replay = record.end;
        }
        self.blocked = None;
    }

    /// When something moves next, if nothing changes.
    pub(crate) fn next(&self) -> Instant {
        let arrival = self.under_way.front().map(|(sent, _)| *sent + self.receive_delay);
        let replay = self.waiting.front().filter(|_| !self.paused && self.blocked.is_none());
        let replay = replay.map(|(arrived, _)| *arrived + self.replay_delay);
        let first = arrival.into_iter().chain(replay).min();
        first.unwrap_or(Instant::FAR_FUTURE)
    }

    /// What has not arrived is lost; it is sent again when the stream is back.
    pub(crate) fn lose_stream(&mut self) {
        self.under_way.clear();
        self.sent = self.receive;
    }

    /// What is behind `position` was never received.
    pub(crate) fn forget_after(&mut self, position: Lsn) {
        self.lose_stream();
        self.waiting.retain(|(_, record)| record.end <= position);
        self.receive = self.receive.min(position);
        self.replay = self.replay.min(position);
        self.sent = self.receive;
    }

    /// Recovery after a start has replayed everything that was received.
    pub(crate) fn recovered(&mut self, position: Lsn) {
        self.lose_stream();
        self.waiting.clear();
        self.blocked = None;
        (self.sent, self.receive, self.replay) = (position, position, position);
    }
}
