//! Everything of one cluster behind one lock: nodes, users, stubs, history, and what follows from each engine call.
//!
//! Tasks of sessions, acceptance and replication and the public handles work on it, briefly and without awaiting. Its
//! lock is taken before the run's, never the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use gdbpool::Instant;

use super::config::{Login, SyncRule};
use super::stubs::Stubs;
use crate::executor::Shared;
use crate::fault::ServerEvent;
use crate::history::{self, Durability, EventKind, History};
use crate::postgres::engine::{Completion, Engine, EngineEvent, Lsn, Moment, Request};
use crate::postgres::server::{Activity, Goodbye, Node};
use crate::random::Stream;

pub(crate) type SharedWorld = Arc<Mutex<World>>;

/// How long a commit with `synchronous_commit = off` may take to become durable: three times `wal_writer_delay`.
const LAZY_FLUSH: Duration = Duration::from_millis(600);

/// A cluster's state.
pub(crate) struct World {
    pub(crate) shared: Arc<Shared>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) users: BTreeMap<String, Login>,
    pub(crate) databases: BTreeSet<String>,
    pub(crate) history: History,
    pub(crate) stubs: Stubs,
    /// Whose copy a commit waits for.
    pub(crate) synchronous: Option<SyncRule>,
    /// How long recovery on a standby waits for sessions in its way.
    pub(crate) patience: Duration,
    pub(crate) replicator: Option<Waker>,
    /// Tells apart the clusters of one run.
    pub(crate) number: u64,
    pub(crate) keys: Stream,
    pub(crate) next_pid: i32,
}

pub(crate) fn lock(world: &SharedWorld) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn now(&self) -> Instant {
        self.shared.now()
    }

    /// The servers' clock: microseconds since 2000-01-01, which is when every run starts.
    pub(crate) fn wall(&self) -> i64 {
        wall(self.now())
    }

    /// Writes down what a node did. Faults may wait for it.
    pub(crate) fn record(&mut self, node: usize, kind: EventKind) {
        let at = self.now();
        if let Some(event) = trigger_of(&kind) {
            self.happened(node, event, kind.pid());
        }
        self.history.record(at, u32::try_from(node).unwrap_or(u32::MAX), kind);
    }

    /// Something that faults may wait for, in the history or not.
    pub(crate) fn happened(&self, node: usize, event: ServerEvent, pid: Option<i32>) {
        let node = &self.nodes[node];
        let backend = pid.and_then(|pid| node.backends.get(&pid));
        let connection = backend.map(|backend| backend.control.ordinal());
        self.shared.happened(&node.name, event, connection);
    }

    pub(crate) fn new_pid(&mut self) -> (i32, i32) {
        self.next_pid += 1;
        let key = self.keys.at(u64::from(self.next_pid.unsigned_abs()));
        (self.next_pid, i32::try_from(key >> 33).unwrap_or_default())
    }

    /// Calls the engine for a session, and sees to everything that follows for others.
    pub(crate) fn engine<R>(&mut self, node: usize, pid: i32, call: impl FnOnce(&mut Engine, Moment) -> R) -> R {
        let now = self.now();
        let moment = Moment { now, wall: wall(now) };
        let result = call(&mut self.nodes[node].engine, moment);
        self.settle(node, pid);
        result
    }

    /// What an engine call leaves behind: WAL, waiters that may go on, signals, facts for the history.
    pub(crate) fn settle(&mut self, node: usize, pid: i32) {
        let now = self.now();
        let records = self.nodes[node].engine.take_wal();
        if !records.is_empty() {
            let target = &mut self.nodes[node];
            let lazy = target.engine.commit_level(pid) == "off";
            for record in records {
                target.disk.append(record);
            }
            if lazy {
                target.disk.flush_by(now + LAZY_FLUSH);
            } else {
                target.disk.flush();
            }
            self.poke();
        }
        let events = self.nodes[node].engine.take_events();
        let notified = events.iter().any(|event| matches!(event, EngineEvent::NotifyQueued(_)));
        for event in events {
            self.record(node, event_kind(event));
        }
        if notified {
            self.nodes[node].rouse_listeners();
        }
        for pid in self.nodes[node].engine.take_wakes() {
            if let Some(backend) = self.nodes[node].backends.get_mut(&pid) {
                backend.wake = true;
                backend.rouse();
            }
        }
        for request in self.nodes[node].engine.take_requests() {
            self.obey(node, &request);
        }
    }

    /// What a function of SQL asks the server to do.
    fn obey(&mut self, node: usize, request: &Request) {
        match request {
            Request::Cancel { pid } => {
                if let Some(backend) = self.nodes[node].backends.get_mut(pid) {
                    backend.cancel();
                }
            }
            Request::Terminate { pid } => {
                if let Some(backend) = self.nodes[node].backends.get_mut(pid) {
                    backend.end(Goodbye::Administrator);
                }
            }
            Request::PauseReplay => self.pause_replay(node, true),
            Request::ResumeReplay => self.pause_replay(node, false),
            Request::Promote => self.promote_in_place(node),
        }
    }

    /// Lets replication look again.
    pub(crate) fn poke(&mut self) {
        if let Some(waker) = self.replicator.take() {
            waker.wake();
        }
    }

    /// A statement or the end of an implicit transaction has succeeded: what it did goes to the history.
    pub(crate) fn executed(&mut self, node: usize, pid: i32, completion: &Completion, durability: Durability) {
        let facts = &completion.facts;
        let target = &mut self.nodes[node];
        let (status, timeline, position) = (target.engine.status(pid), target.timeline, target.position());
        let Some(backend) = target.backends.get_mut(&pid) else {
            return;
        };
        backend.ledger.xid = facts.xid.or(backend.ledger.xid);
        // Inside BEGIN and COMMIT, or between the statements of a pipeline, nothing has ended yet.
        let control = matches!(&*completion.tag, "COMMIT" | "ROLLBACK" | "");
        if status != b'I' || !(facts.commit_lsn.is_some() || facts.rolled_back || control) {
            return;
        }
        backend.began = None;
        let Some((xid, ops)) = backend.ledger.end() else { return };
        let kind = if facts.rolled_back {
            EventKind::RolledBack { pid, xid, ops }
        } else {
            EventKind::Committed {
                pid,
                xid,
                lsn: facts.commit_lsn.unwrap_or(position).0,
                timeline,
                ops,
                durability,
            }
        };
        self.record(node, kind);
    }

    /// A statement has failed; an implicit transaction is gone with it.
    pub(crate) fn failed(&mut self, node: usize, pid: i32) {
        self.engine(node, pid, |engine, _| engine.fail(pid));
        if self.nodes[node].engine.status(pid) == b'I' {
            self.rolled_back(node, pid);
        }
    }

    fn rolled_back(&mut self, node: usize, pid: i32) {
        let ended = self.nodes[node].backends.get_mut(&pid).and_then(|backend| {
            backend.began = None;
            backend.ledger.end()
        });
        if let Some((xid, ops)) = ended {
            self.record(node, EventKind::RolledBack { pid, xid, ops });
        }
    }

    /// A session is over: its transaction is rolled back, its place is free.
    pub(crate) fn close(&mut self, node: usize, pid: i32) {
        let Some(backend) = self.nodes[node].backends.get(&pid) else {
            return;
        };
        let (orphan, opened, how) = (backend.orphan, backend.activity != Activity::Starting, backend.closing);
        if !orphan {
            let channels = self.nodes[node].engine.channels(pid);
            self.engine(node, pid, |engine, _| engine.close(pid));
            for channel in channels {
                let channel = channel.into();
                self.record(node, EventKind::Unlistened { pid, channel });
            }
        }
        self.rolled_back(node, pid);
        if opened {
            self.record(node, EventKind::SessionClosed { pid, how });
        }
        self.nodes[node].backends.remove(&pid);
        // Somebody's replay may have waited for this session.
        self.poke();
    }

    /// A cancel request; whether it hit.
    pub(crate) fn cancel(&mut self, node: usize, pid: i32, key: i32) -> bool {
        let backend = self.nodes[node]
            .backends
            .get_mut(&pid)
            .filter(|backend| backend.key == key && !backend.orphan);
        let hit = backend.map(|backend| (backend.cancel(), backend.ledger.last));
        let (hit, op) = match hit {
            Some((true, op)) => (true, op),
            _ => (false, None),
        };
        self.record(node, EventKind::CancelArrived { pid, hit, op });
        hit
    }

    pub(crate) fn node_named(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The node that takes writes: the one with the newest timeline, if any is up.
    pub(crate) fn primary(&self) -> Option<usize> {
        let primaries = self.nodes.iter().filter(|node| node.standby.is_none());
        let newest = primaries.max_by_key(|node| (node.timeline, node.is_up()));
        newest.map(|node| node.index)
    }

    /// Somebody's call met a fault of this kind.
    pub(crate) fn felt(&self, name: &str) {
        self.shared.lock().felt(name);
    }

    /// A statement begins that sees everything up to `snapshot`: faults of replication are met where there is more than that.
    pub(crate) fn feel_lag(&self, node: usize, snapshot: u64) {
        let Some(standby) = self.nodes[node]
            .standby
            .as_ref()
            .filter(|standby| !standby.faults.is_empty())
        else {
            return;
        };
        if standby
            .upstream
            .is_some_and(|upstream| self.nodes[upstream].position().0 > snapshot)
        {
            standby.faults.iter().for_each(|name| self.felt(name));
        }
    }

    /// Changes whose copy commits wait for; those that wait look again.
    pub(crate) fn set_synchronous(&mut self, rule: Option<SyncRule>) {
        let shown = rule.as_ref().map(SyncRule::shown);
        for node in &mut self.nodes {
            node.engine.set_synchronous(rule.is_some());
            node.engine
                .set_server_setting("synchronous_standby_names", shown.as_deref())
                .expect("a setting that every server knows");
            node.backends.values_mut().for_each(|backend| {
                backend.wake |= backend.activity == Activity::Syncing;
                backend.rouse();
            });
        }
        self.synchronous = rule;
        self.poke();
    }

    /// Whether a commit at `lsn` has the copies it waits for; `replayed` asks for more than received.
    pub(crate) fn is_synchronous(&self, node: usize, lsn: Lsn, replayed: bool) -> bool {
        let Some(rule) = &self.synchronous else { return true };
        let copies = self.nodes.iter().filter(|other| {
            let standby = other
                .standby
                .as_ref()
                .filter(|standby| standby.upstream == Some(node) && !standby.broken);
            rule.names.contains(&other.name)
                && other.is_up()
                && standby.is_some_and(|standby| {
                    if replayed {
                        standby.replay >= lsn
                    } else {
                        standby.receive >= lsn
                    }
                })
        });
        copies.count() >= rule.count
    }
}

/// Microseconds since 2000-01-01 at an instant of a run.
pub(crate) fn wall(now: Instant) -> i64 {
    i64::try_from(now.as_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// What of the history can trigger faults. A commit is durable before its session goes on.
fn trigger_of(kind: &EventKind) -> Option<ServerEvent> {
    Some(match kind {
        EventKind::CancelArrived { .. } => ServerEvent::CancelArrived,
        EventKind::Committed { xid: Some(_), .. } => ServerEvent::CommitDurable,
        EventKind::Crashed => ServerEvent::Crashed,
        EventKind::Listened { .. } => ServerEvent::Listened,
        EventKind::NotifyQueued { .. } => ServerEvent::NotifyQueued,
        EventKind::NotifySent { .. } => ServerEvent::NotifyDelivered,
        EventKind::Promoted { .. } => ServerEvent::Promoted,
        EventKind::Restarted => ServerEvent::Restarted,
        EventKind::RolledBack { .. } => ServerEvent::RolledBack,
        EventKind::SessionClosed { .. } => ServerEvent::SessionClosed,
        EventKind::SessionOpened { .. } => ServerEvent::SessionOpened,
        EventKind::StatementBegan { .. } => ServerEvent::StatementBegan,
        EventKind::StatementEnded { .. } => ServerEvent::StatementEnded,
        EventKind::Unlistened { .. } => ServerEvent::Unlistened,
        EventKind::WalApplied { .. } => ServerEvent::WalApplied,
        _ => return None,
    })
}

fn event_kind(event: EngineEvent) -> EventKind {
    match event {
        EngineEvent::Listened { pid, channel } => EventKind::Listened {
            pid,
            channel: channel.into(),
        },
        EngineEvent::NotifyQueued(notification) => EventKind::NotifyQueued {
            pid: notification.pid,
            channel: notification.channel.into(),
            payload: notification.payload.into(),
            ordinal: notification.ordinal,
        },
        EngineEvent::Unlistened { pid, channel } => EventKind::Unlistened {
            pid,
            channel: channel.into(),
        },
    }
}

/// The engine's word for a transaction status, in the history's.
pub(crate) fn status_kind(status: u8) -> history::Status {
    match status {
        b'I' => history::Status::Idle,
        b'T' => history::Status::Transaction,
        _ => history::Status::Failed,
    }
}
