//! One server of a cluster: its engine, its disk, its sessions, and whether it is up.
//!
//! Plain data behind the cluster's lock; the tasks of sessions, acceptance and replication work on it. It awaits nothing.

mod accept;
mod backend;
mod disk;
mod faults;
mod ledger;

use std::collections::BTreeMap;
use std::task::Waker;

use gdbpool::{Endpoint, Instant};

use super::engine::{Engine, Lsn, NodeSettings, Role};
use super::replication::Standby;
use crate::network::Listener;

pub(crate) use self::accept::accept;
pub(crate) use self::backend::{Activity, Backend, Goodbye};
pub(crate) use self::disk::Disk;
pub(crate) use self::faults::{Failing, Faults, refusal};

/// One server.
pub(crate) struct Node {
    /// Its number in the cluster.
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) settings: NodeSettings,
    pub(crate) engine: Engine,
    pub(crate) phase: Phase,
    pub(crate) timeline: u32,
    /// `None` is a primary.
    pub(crate) standby: Option<Standby>,
    pub(crate) disk: Disk,
    pub(crate) backends: BTreeMap<i32, Backend>,
    pub(crate) faults: Faults,
    /// While it is there, connections are accepted.
    pub(crate) listener: Option<Listener>,
    pub(crate) acceptor: Option<Waker>,
}

/// Whether a server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No process: connects are refused.
    Down,
    /// It recovers: sessions get 57P03 until then.
    Starting { until: Instant },
    /// It serves.
    Up,
}

impl Node {
    pub(crate) fn new(
        index: usize,
        name: String,
        endpoint: Endpoint,
        settings: NodeSettings,
        role: Role,
        listener: Listener,
    ) -> Self {
        let mut engine = Engine::new(settings.clone());
        engine.set_role(role, settings.started);
        let disk = Disk::new(&engine);
        let (timeline, standby) = match role {
            Role::Primary { timeline } => (timeline, None),
            Role::Standby { timeline } => (timeline, Some(Standby::new(disk.flushed()))),
        };
        Self {
            index,
            name,
            endpoint,
            settings,
            engine,
            phase: Phase::Up,
            timeline,
            standby,
            disk,
            backends: BTreeMap::new(),
            faults: Faults::default(),
            listener: Some(listener),
            acceptor: None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    pub(crate) fn role(&self) -> Role {
        let timeline = self.timeline;
        if self.standby.is_some() {
            Role::Standby { timeline }
        } else {
            Role::Primary { timeline }
        }
    }

    /// What the node has replayed, or written as a primary.
    pub(crate) fn position(&self) -> Lsn {
        match &self.standby {
            Some(standby) => standby.replay,
            None => self.engine.wal_position(),
        }
    }

    /// Every session ends so; those that are over already are not asked again.
    pub(crate) fn dismiss(&mut self, goodbye: Goodbye) {
        for backend in self.backends.values_mut() {
            backend.end(goodbye);
        }
    }

    /// The process is gone: nobody listens, no session has anything to do with what the engine becomes.
    pub(crate) fn vanish(&mut self, goodbye: Goodbye) {
        self.dismiss(goodbye);
        for backend in self.backends.values_mut() {
            backend.orphan = true;
        }
        self.phase = Phase::Down;
        self.listener = None;
        self.wake_acceptor();
    }

    pub(crate) fn wake_acceptor(&mut self) {
        if let Some(waker) = self.acceptor.take() {
            waker.wake();
        }
    }

    /// Wakes everybody, after something that all must look at.
    pub(crate) fn wake_all(&mut self) {
        self.backends.values_mut().for_each(Backend::rouse);
        self.wake_acceptor();
    }

    /// Idle sessions that have notifications to deliver look at them.
    pub(crate) fn rouse_listeners(&mut self) {
        let engine = &self.engine;
        let idle = self
            .backends
            .values_mut()
            .filter(|backend| backend.activity == Activity::Idle);
        for backend in idle.filter(|backend| engine.has_notifications(backend.pid)) {
            backend.wake = true;
            backend.rouse();
        }
    }

    /// Those whose clients are gone look whether they may end.
    pub(crate) fn rouse_zombies(&mut self) {
        for backend in self.backends.values_mut() {
            backend.wake = true;
            backend.rouse();
        }
    }

    /// Sessions past their start-up packet that are not over.
    pub(crate) fn sessions(&self) -> usize {
        self.backends.values().filter(|backend| backend.counts()).count()
    }
}
