//! A bench for the oracles' own tests: histories made by hand.

use std::time::Duration;

use gdbpool::Instant;

use super::{Case, Oracle, judge};
use crate::fault::{Delay, Micros};
use crate::history::{Durability, End, EventKind, History, Role, Status};
use crate::scenario::{
    Answer, Client, ClientHistory, EndState, Fate, Heard, Op, Patience, Say, Scenario, Step, Topology, call_of,
};
use crate::schedule::Schedule;

/// One client whose steps are the ops: the call of step `n` is `n`, its first mark `100 * n`.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) scenario: Scenario,
    pub(super) server: History,
    pub(super) clients: ClientHistory,
    pub(super) end: EndState,
    now: Instant,
}

impl Bench {
    pub(super) fn new(ops: Vec<Op>) -> Self {
        let steps = ops.into_iter().map(|op| Step {
            pause: Micros(0),
            op,
            timeout: None,
            patience: Patience::Await,
        });
        let scenario = Scenario {
            seed: 0,
            topology: Topology {
                standbys: 0,
                write_size: 2,
                read_size: 2,
                latency: Delay::default(),
                replay_delay: Micros(0),
                socket_buffer: 65_536,
                synchronous: false,
            },
            clients: vec![Client { steps: steps.collect() }],
            faults: Vec::new(),
            schedule: Schedule::Fifo,
            choices: None,
        };
        Self {
            scenario,
            server: History::new(),
            clients: ClientHistory::default(),
            end: EndState {
                timeline: 1,
                ..EndState::default()
            },
            now: Instant::from_nanos(0),
        }
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.end.finished = self.now;
    }

    pub(super) fn server(&mut self, kind: EventKind) {
        self.server.record(self.now, 0, kind);
    }

    pub(super) fn open(&mut self, pid: i32, pool: &str) {
        self.server(EventKind::SessionOpened {
            pid,
            user: "app".into(),
            application: pool.into(),
        });
    }

    pub(super) fn began(&mut self, pid: i32, op: u64, status: Status) {
        self.begin(pid, "UPDATE", Some(op), status);
    }

    /// Like [`began`](Self::began), on a node that is a standby at that moment.
    pub(super) fn began_on_standby(&mut self, pid: i32, op: u64) {
        self.began(pid, op, Status::Idle);
        self.server.amend_last(|kind| {
            if let EventKind::StatementBegan { role, .. } = kind {
                *role = Role::Standby;
            }
        });
    }

    pub(super) fn text(&mut self, pid: i32, text: &str, status: Status) {
        self.begin(pid, text, None, status);
    }

    fn begin(&mut self, pid: i32, text: &str, op: Option<u64>, status: Status) {
        self.server(EventKind::StatementBegan {
            pid,
            text: text.into(),
            op,
            status,
            role: Role::Primary,
            read_only: false,
            snapshot: 0,
        });
    }

    pub(super) fn ran(&mut self, pid: i32, op: u64, status: Status, changed: u64) {
        self.began(pid, op, status);
        self.server(EventKind::StatementEnded {
            pid,
            op: Some(op),
            end: End::Tag("UPDATE 1".into()),
            changed,
            xid: None,
            status,
        });
    }

    pub(super) fn committed(&mut self, pid: i32, ops: &[u64]) {
        self.server(EventKind::Committed {
            pid,
            xid: Some(1),
            lsn: 1,
            timeline: 1,
            ops: ops.to_vec(),
            durability: Durability::Local,
        });
    }

    pub(super) fn queued(&mut self, channel: &str, payload: &str) {
        self.server(EventKind::NotifyQueued {
            pid: 9,
            channel: channel.into(),
            payload: payload.into(),
            ordinal: 0,
        });
    }

    pub(super) fn say(&mut self, call: u64, say: Say) {
        self.clients.record(self.server.len(), self.now, call, say);
    }

    pub(super) fn asked(&mut self, call: u64) {
        self.ask(call, None);
    }

    pub(super) fn asked_until(&mut self, call: u64, span: Duration) {
        self.ask(call, Some(self.now + span));
    }

    fn ask(&mut self, call: u64, deadline: Option<Instant>) {
        let op = self.scenario.clients[0].steps[usize::try_from(call).unwrap()]
            .op
            .clone();
        let pool = match &op {
            Op::ReadOn { pool, .. } | Op::WriteOn { pool } => Some(self.scenario.topology.pool(*pool)),
            _ => None,
        };
        let read = matches!(op, Op::Read { .. } | Op::ReadOn { .. } | Op::WriteAsRead { .. });
        self.say(
            call,
            Say::Asked {
                read,
                pool,
                deadline,
                idempotent: op == Op::Insert { idempotent: true },
            },
        );
    }

    pub(super) fn ended(&mut self, call: u64, fate: Fate, kept: &[u64]) {
        let kept = kept.to_vec();
        let failure = None;
        self.say(call, Say::Ended { fate, failure, kept });
    }

    pub(super) fn statement(&mut self, op: u64, answer: Answer) {
        self.say(call_of(op), Say::Statement { op, answer });
    }

    pub(super) fn heard(&mut self, call: u64, heard: Heard) {
        self.say(call, Say::Heard(heard));
    }

    /// The oracles that find something, once each.
    fn found(&self) -> (Vec<Oracle>, String) {
        let found = judge(Case {
            scenario: &self.scenario,
            server: &self.server,
            clients: &self.clients,
            end: &self.end,
        });
        let mut oracles: Vec<_> = found.iter().map(|violation| violation.oracle).collect();
        oracles.sort();
        oracles.dedup();
        let words: Vec<_> = found.iter().map(ToString::to_string).collect();
        (oracles, words.join("\n"))
    }

    pub(super) fn finds(&self, wanted: &[Oracle]) {
        let (oracles, words) = self.found();
        assert_eq!(oracles, wanted, "{words}");
    }
}
