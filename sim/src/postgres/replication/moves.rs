//! One step of replication over all nodes: flush, send, receive, replay, and what those who wait must hear.
//!
//! Part of the cluster's plain data; it awaits nothing.

use gdbpool::Instant;

use crate::history::EventKind;
use crate::postgres::cluster::World;
use crate::postgres::engine::{Receiver, WalReceiver};
use crate::postgres::server::{Activity, Phase};

impl World {
    /// Moves what is due by now; gives the next instant at which something is.
    pub(crate) fn replicate(&mut self) -> Instant {
        let now = self.now();
        self.end_recoveries(now);
        self.flush_lazily(now);
        for node in 0..self.nodes.len() {
            self.send_to(node, now);
            self.receive_at(node);
            self.replay_at(node, now);
        }
        self.show_positions();
        self.rouse_committers();
        self.next_move(now)
    }

    fn end_recoveries(&mut self, now: Instant) {
        for index in 0..self.nodes.len() {
            if matches!(self.nodes[index].phase, Phase::Starting { until } if until <= now) {
                self.started(index);
            }
        }
    }

    fn flush_lazily(&mut self, now: Instant) {
        for node in &mut self.nodes {
            if node.is_up() && !node.faults.paused && node.disk.lazy().is_some_and(|at| at <= now) {
                node.disk.flush();
            }
        }
    }

    /// The upstream sends a standby what is durable and new to it.
    fn send_to(&mut self, node: usize, now: Instant) {
        let Some(standby) = &self.nodes[node].standby else {
            return;
        };
        let Some(upstream) = standby.upstream.filter(|_| !standby.broken) else {
            return;
        };
        let source = &self.nodes[upstream];
        if !source.is_up() || source.faults.paused || !self.nodes[node].is_up() {
            return;
        }
        let records: Vec<_> = source.disk.after(standby.sent).to_vec();
        let timeline = source.timeline;
        if let Some(standby) = &mut self.nodes[node].standby {
            records.into_iter().for_each(|record| standby.send(record, now));
        }
        self.nodes[node].timeline = timeline;
    }

    fn receive_at(&mut self, node: usize) {
        let now = self.now();
        let node = &mut self.nodes[node];
        if !node.is_up() || node.faults.paused {
            return;
        }
        let Some(standby) = &mut node.standby else { return };
        while let Some(record) = standby.receive(now) {
            node.disk.append(record);
        }
        node.disk.flush();
    }

    fn replay_at(&mut self, index: usize, now: Instant) {
        let before = self.nodes[index].position();
        while self.replay_one(index, now) {}
        let after = self.nodes[index].position();
        if after != before {
            self.settle(index, 0);
            let timeline = self.nodes[index].timeline;
            self.record(index, EventKind::WalApplied { lsn: after.0, timeline });
        }
    }

    /// Replays the next record if that is due. Sessions in its way are given the cluster's patience, then told to go.
    fn replay_one(&mut self, index: usize, now: Instant) -> bool {
        let patience = self.patience;
        let node = &mut self.nodes[index];
        if !node.is_up() || node.faults.paused {
            return false;
        }
        let Some(standby) = &mut node.standby else { return false };
        let Some(record) = standby.due(now) else { return false };
        let Err(in_the_way) = node.engine.apply(&record) else {
            standby.replayed();
            return true;
        };
        let since = *standby.blocked.get_or_insert(now);
        if since + patience <= now {
            for pid in in_the_way {
                if let Some(backend) = node.backends.get_mut(&pid).filter(|backend| !backend.conflict) {
                    backend.stand_aside();
                }
            }
        }
        false
    }

    /// The engines' own view of replication, for the functions and views that show it.
    fn show_positions(&mut self) {
        for index in 0..self.nodes.len() {
            let (receiver, receivers) = (self.wal_receiver(index), self.receivers(index));
            let node = &mut self.nodes[index];
            if let Some(standby) = &node.standby {
                node.engine.set_receive_lsn(standby.receive);
                node.engine.set_replay_paused(standby.paused);
            }
            node.engine.set_wal_receiver(receiver);
            node.engine.set_receivers(receivers);
        }
    }

    /// The row of `pg_stat_wal_receiver`.
    fn wal_receiver(&self, index: usize) -> Option<WalReceiver> {
        let standby = self.nodes[index].standby.as_ref().filter(|standby| !standby.broken)?;
        let upstream = &self.nodes[standby.upstream?];
        upstream.is_up().then(|| WalReceiver {
            pid: 200,
            received: standby.receive,
            timeline: upstream.timeline,
            conninfo: format!(
                "host={} port=5432 user=postgres application_name={}",
                upstream.name, self.nodes[index].name
            ),
        })
    }

    /// The rows of `pg_stat_replication`.
    fn receivers(&self, index: usize) -> Vec<Receiver> {
        let followers = self.nodes.iter().filter_map(|other| {
            let standby = other.standby.as_ref()?;
            let connected = standby.upstream == Some(index) && !standby.broken && other.is_up();
            connected.then_some((other, standby))
        });
        let rows = followers.map(|(other, standby)| {
            let named = self
                .synchronous
                .as_ref()
                .is_some_and(|rule| rule.names.contains(&other.name));
            Receiver {
                pid: i32::try_from(other.index).unwrap_or_default() + 100,
                user: "postgres".to_owned(),
                application_name: other.name.clone(),
                state: (if standby.sent == standby.receive {
                    "streaming"
                } else {
                    "catchup"
                })
                .to_owned(),
                sent: standby.sent,
                written: standby.receive,
                flushed: standby.receive,
                replayed: standby.replay,
                replay_lag: None,
                sync_state: (if named { "sync" } else { "async" }).to_owned(),
            }
        });
        rows.collect()
    }

    fn rouse_committers(&mut self) {
        if self.synchronous.is_none() {
            return;
        }
        for node in &mut self.nodes {
            for backend in node.backends.values_mut() {
                if backend.activity == Activity::Syncing {
                    backend.wake = true;
                    backend.rouse();
                }
            }
        }
    }

    fn next_move(&self, now: Instant) -> Instant {
        let moving = self.nodes.iter().filter(|node| node.is_up() && !node.faults.paused);
        let instants = moving.flat_map(|node| {
            let standby = node.standby.as_ref();
            let lost_patience = standby
                .and_then(|standby| standby.blocked)
                .map(|since| since + self.patience);
            let lost_patience = lost_patience.filter(|at| *at > now);
            [node.disk.lazy(), standby.map(super::Standby::next), lost_patience]
        });
        let recoveries = self.nodes.iter().filter_map(|node| match node.phase {
            Phase::Starting { until } => Some(until),
            _ => None,
        });
        instants
            .flatten()
            .chain(recoveries)
            .min()
            .unwrap_or(Instant::FAR_FUTURE)
    }

    pub(crate) fn pause_replay(&mut self, node: usize, paused: bool) {
        if let Some(standby) = &mut self.nodes[node].standby {
            standby.paused = paused;
        }
        self.show_positions();
        self.poke();
    }

    /// Everything every standby could have is received and replayed now, whatever its lag: for set-up.
    pub(crate) fn catch_up(&mut self) {
        let now = self.now();
        for node in &mut self.nodes {
            if node.is_up() {
                node.disk.flush();
            }
        }
        for index in 0..self.nodes.len() {
            self.send_to(index, now);
            let node = &mut self.nodes[index];
            let Some(standby) = &mut node.standby else { continue };
            let delays = (standby.receive_delay, standby.replay_delay, standby.paused);
            (standby.receive_delay, standby.replay_delay, standby.paused) = Default::default();
            self.receive_at(index);
            self.replay_at(index, now);
            if let Some(standby) = &mut self.nodes[index].standby {
                (standby.receive_delay, standby.replay_delay, standby.paused) = delays;
            }
        }
        self.show_positions();
        self.poke();
    }
}
