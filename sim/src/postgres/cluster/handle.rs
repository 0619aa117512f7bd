//! `NodeHandle`: everything a test can do to one node, and see of it.
//!
//! Thin: it locks the cluster's state and calls what does the work.

use std::fmt;
use std::time::Duration;

use super::{Cluster, lock};
use crate::fault::{CancelFate, FailAt, LostTail, Refusal, Unsolicited};
use crate::postgres::engine::Lsn;
use crate::postgres::server::{Activity, Backend, Failing, Faults, Goodbye, Node};

/// One node of a [`Cluster`].
///
/// Methods that end sessions or change roles take effect at once; sessions notice when their tasks have their turn.
#[derive(Clone)]
pub struct NodeHandle {
    cluster: Cluster,
    index: usize,
}

/// What a session does at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendView {
    /// Its process id.
    pub pid: i32,
    /// The user.
    pub user: String,
    /// `application_name` at its start.
    pub application_name: String,
    /// It works on a statement.
    pub running: bool,
    /// Its transaction status: `I`, `T` or `E`.
    pub status: char,
}

impl NodeHandle {
    pub(crate) fn new(cluster: Cluster, index: usize) -> Self {
        Self { cluster, index }
    }

    /// Its name, which its host has too.
    #[must_use]
    pub fn name(&self) -> String {
        self.look(|node| node.name.clone())
    }

    /// Whether it is up and its sessions may begin.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.look(|node| node.is_up())
    }

    /// Whether it is in recovery.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.look(|node| node.standby.is_some())
    }

    /// Its timeline.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.look(|node| node.timeline)
    }

    /// What it has written, or replayed as a standby.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.look(|node| node.position().0)
    }

    /// Its sessions, in the order of their process ids.
    #[must_use]
    pub fn sessions(&self) -> Vec<BackendView> {
        self.look(|node| {
            let open = node
                .backends
                .values()
                .filter(|backend| backend.counts() && backend.activity != Activity::Starting);
            let views = open.map(|backend| BackendView {
                pid: backend.pid,
                user: backend.user.to_string(),
                application_name: backend.application.to_string(),
                running: matches!(backend.activity, Activity::Running | Activity::Syncing),
                status: char::from(node.engine.status(backend.pid)),
            });
            views.collect()
        })
    }

    /// The process is gone at once: what was not durable is lost, sessions read end-of-file without a word.
    pub fn crash(&self) {
        lock(self.cluster.world()).stop(self.index, Goodbye::Silent);
    }

    /// One session's process crashes: that session reads end-of-file, all others a WARNING 57P02, and the node recovers.
    ///
    /// False if there is no such session.
    pub fn crash_session(&self, pid: i32, recovery: Duration) -> bool {
        let mut world = lock(self.cluster.world());
        let Some(victim) = world.nodes[self.index].backends.get_mut(&pid) else {
            return false;
        };
        victim.end(Goodbye::Silent);
        world.stop(self.index, Goodbye::CrashElsewhere);
        world.start(self.index, recovery)
    }

    /// A fast stop: sessions get FATAL 57P01, standbys get all WAL.
    pub fn stop_fast(&self) {
        lock(self.cluster.world()).stop(self.index, Goodbye::Administrator);
    }

    /// An immediate stop: sessions get a WARNING 57P01 as a notice; as a crash otherwise.
    pub fn stop_immediate(&self) {
        lock(self.cluster.world()).stop(self.index, Goodbye::Immediate);
    }

    /// Starts a node that is down: it recovers what was durable, answers 57P03 for `recovery`, then serves.
    ///
    /// False if it is not down.
    pub fn restart(&self, recovery: Duration) -> bool {
        lock(self.cluster.world()).start(self.index, recovery)
    }

    /// Makes this standby the primary; the other standbys follow it, rewound where they must be.
    ///
    /// `fenced` stops the old primary; else it goes on taking writes on its own timeline. False if this is no standby, or
    /// is down.
    pub fn promote(&self, lost: LostTail, fenced: bool) -> bool {
        lock(self.cluster.world()).promote(self.index, lost, fenced)
    }

    /// Becomes a standby of the present primary, rewound to where their timelines part. Sessions get FATAL 57P01.
    ///
    /// A node that is down stays down; it follows when it is started. False if there is no other primary.
    pub fn rejoin(&self) -> bool {
        let mut world = lock(self.cluster.world());
        match world.primary().filter(|primary| *primary != self.index) {
            Some(primary) => {
                world.follow(self.index, primary);
                true
            }
            None => false,
        }
    }

    /// Comes back as a standby with the WAL it has, although it has parted from the primary's: it serves what it has, and
    /// nothing new comes.
    pub fn rejoin_diverged(&self) {
        lock(self.cluster.world()).rejoin_diverged(self.index);
    }

    /// How long records are under way to this standby, and how long it waits before it replays them, from now on.
    pub fn set_lag(&self, receive: Duration, replay: Duration) {
        self.change_standby(|standby| (standby.receive_delay, standby.replay_delay) = (receive, replay));
    }

    /// Stops replay, or lets it go on.
    pub fn pause_replay(&self, paused: bool) {
        lock(self.cluster.world()).pause_replay(self.index, paused);
    }

    /// Breaks the WAL stream to this standby, or mends it: then it catches up.
    pub fn break_stream(&self, broken: bool) {
        self.change_standby(|standby| {
            standby.broken = broken;
            standby.lose_stream();
        });
    }

    /// Recovery on this standby cancels what this session does: error 40001, or FATAL when it is idle in a transaction.
    ///
    /// False if there is no such session.
    pub fn recovery_conflict(&self, pid: i32) -> bool {
        self.with_backend(pid, Backend::stand_aside)
    }

    /// Ends a session with FATAL 57P01, as `pg_terminate_backend` does. False if there is none.
    pub fn terminate(&self, pid: i32) -> bool {
        self.with_backend(pid, |backend| backend.end(Goodbye::Administrator))
    }

    /// Breaks the connection of a session: both ends get a reset. False if there is none.
    pub fn reset_connection(&self, pid: i32) -> bool {
        let control = {
            let world = lock(self.cluster.world());
            world.nodes[self.index]
                .backends
                .get(&pid)
                .map(|backend| backend.control.clone())
        };
        control.map(|control| control.reset()).is_some()
    }

    /// Nothing on the node moves, as under SIGSTOP, until it is let go on.
    pub fn pause(&self, paused: bool) {
        lock(self.cluster.world()).set_paused(self.index, paused);
    }

    /// Every statement takes this much longer; `None` as usual.
    pub fn slow(&self, by: Option<Duration>) {
        self.change_faults(|faults| faults.slow = by);
    }

    /// New sessions are refused so; `None` lets them in.
    pub fn refuse(&self, why: Option<Refusal>) {
        self.change_faults(|faults| faults.refuse = why);
    }

    /// Sessions over this number get FATAL 53300; `None` is `max_connections` with its places for superusers.
    pub fn limit_sessions(&self, most: Option<usize>) {
        self.change_faults(|faults| faults.max_sessions = most);
    }

    /// What becomes of cancel requests from now on; `None`: they take effect at once, then their connections close.
    pub fn set_cancel_fate(&self, fate: Option<CancelFate>) {
        self.change_faults(|faults| faults.cancel = fate);
    }

    /// The next `count` statements fail at that step, with this SQLSTATE.
    ///
    /// # Panics
    /// If `sqlstate` has not five characters.
    pub fn fail_next(&self, sqlstate: &str, at: FailAt, count: u32) {
        assert_eq!(sqlstate.len(), 5, "an SQLSTATE has five characters: {sqlstate:?}");
        let failing = Failing {
            sqlstate: sqlstate.to_owned(),
            at,
            count,
        };
        self.change_faults(|faults| faults.fail = (count > 0).then_some(failing));
    }

    /// The next COMMIT says CommandComplete, then its connection ends before ReadyForQuery: by a reset, or end-of-file.
    pub fn cut_next_commit(&self, reset: bool) {
        self.change_faults(|faults| faults.cut_commit = Some(reset));
    }

    /// Messages that nobody asked for, before so many of a hundred replies.
    pub fn unsolicited(&self, message: Option<(Unsolicited, u8)>) {
        self.change_faults(|faults| faults.unsolicited = message);
    }

    /// Sessions do not notice that their clients are gone, until this ends.
    pub fn zombies(&self, on: bool) {
        self.change_faults(|faults| faults.zombies = on);
        lock(self.cluster.world()).nodes[self.index].rouse_zombies();
    }

    fn look<R>(&self, look: impl FnOnce(&Node) -> R) -> R {
        look(&lock(self.cluster.world()).nodes[self.index])
    }

    fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(self.cluster.world()).nodes[self.index].faults);
    }

    fn change_standby(&self, change: impl FnOnce(&mut crate::postgres::replication::Standby)) {
        let mut world = lock(self.cluster.world());
        if let Some(standby) = &mut world.nodes[self.index].standby {
            change(standby);
        }
        world.poke();
    }

    fn with_backend(&self, pid: i32, act: impl FnOnce(&mut Backend)) -> bool {
        let mut world = lock(self.cluster.world());
        world.nodes[self.index].backends.get_mut(&pid).map(act).is_some()
    }

    /// Waits for nothing: whether a standby has replayed up to a position.
    #[must_use]
    pub fn has_replayed(&self, position: u64) -> bool {
        self.look(|node| node.position() >= Lsn(position))
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeHandle({})", self.name())
    }
}
