//! Changes of role: promotion with its three degrees of honesty, rejoining, starting and stopping nodes.
//!
//! Part of the cluster's plain data; it awaits nothing.

use std::time::Duration;

use gdbpool::{Endpoint, Instant};

use super::Standby;
use crate::fault::LostTail;
use crate::history::EventKind;
use crate::network::Listener;
use crate::postgres::cluster::World;
use crate::postgres::engine::{Lsn, Role};
use crate::postgres::server::{Goodbye, Phase};

impl World {
    /// Makes a standby the primary; the other standbys follow it. False if it is none, or is down.
    pub(crate) fn promote(&mut self, index: usize, lost: LostTail, fenced: bool) -> bool {
        let upstream = match &self.nodes[index].standby {
            Some(standby) if self.nodes[index].is_up() => standby.upstream,
            _ => return false,
        };
        if let Some(old) = upstream {
            if lost == LostTail::Nothing && self.nodes[old].is_up() {
                self.nodes[old].disk.flush();
                self.receive_all(index);
            }
            if fenced && self.nodes[old].is_up() {
                self.stop(
                    old,
                    if lost == LostTail::Nothing {
                        Goodbye::Administrator
                    } else {
                        Goodbye::Silent
                    },
                );
            }
            if let LostTail::Commits(count) = lost {
                self.lose_commits(index, old, count);
            }
        }
        self.promote_in_place(index);
        let rest = self
            .nodes
            .iter()
            .filter(|node| node.index != index && node.standby.is_some());
        let rest: Vec<usize> = rest.map(|node| node.index).collect();
        for other in rest {
            self.follow(other, index);
        }
        self.poke();
        true
    }

    /// The node ends recovery with what it has received: `pg_promote` alone, nobody follows by that.
    pub(crate) fn promote_in_place(&mut self, index: usize) {
        let parent = self.nodes[index].timeline;
        let Some(standby) = &mut self.nodes[index].standby else {
            return;
        };
        standby.lose_stream();
        (standby.replay_delay, standby.paused, standby.blocked) = (Duration::ZERO, false, None);
        self.replay_to_the_end(index);
        self.settle(index, 0);
        let timeline = self.nodes.iter().map(|node| node.timeline).max().unwrap_or(parent) + 1;
        let switch = self.nodes[index].position();
        let wall = self.wall();
        let node = &mut self.nodes[index];
        node.standby = None;
        node.timeline = timeline;
        node.engine.set_role(Role::Primary { timeline }, wall);
        node.engine.set_synchronous(self.synchronous.is_some());
        self.settle(index, 0);
        self.record(
            index,
            EventKind::Promoted {
                timeline,
                parent,
                switch: switch.0,
            },
        );
        self.poke();
    }

    /// Recovery replays all it has before it ends, whoever stands in its way.
    fn replay_to_the_end(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        loop {
            let Some(standby) = &mut node.standby else { return };
            let Some(record) = standby.due(Instant::FAR_FUTURE) else {
                return;
            };
            match node.engine.apply(&record) {
                Ok(()) => standby.replayed(),
                Err(in_the_way) => {
                    for pid in in_the_way {
                        node.engine.close(pid);
                        if let Some(backend) = node.backends.get_mut(&pid) {
                            backend.orphan = true;
                            backend.end(Goodbye::Administrator);
                        }
                    }
                }
            }
        }
    }

    /// Everything that is durable upstream arrives at once.
    fn receive_all(&mut self, index: usize) {
        let Some(standby) = &mut self.nodes[index].standby else {
            return;
        };
        standby.lose_stream();
        (standby.broken, standby.receive_delay) = (false, Duration::ZERO);
        let (Some(upstream), sent) = (standby.upstream, standby.sent) else {
            return;
        };
        let now = self.now();
        let records = self.nodes[upstream].disk.after(sent).to_vec();
        let node = &mut self.nodes[index];
        let Some(standby) = &mut node.standby else { return };
        records.into_iter().for_each(|record| standby.send(record, now));
        while let Some(record) = standby.receive(now) {
            node.disk.append(record);
        }
        node.disk.flush();
    }

    /// The standby loses what it has of the old primary's last commits, replayed or not.
    fn lose_commits(&mut self, index: usize, old: usize, count: u32) {
        let keep = self.nodes[old]
            .disk
            .before_last_commits(usize::try_from(count).unwrap_or(usize::MAX));
        let wall = self.wall();
        let node = &mut self.nodes[index];
        let replayed_more = node.position() > keep;
        node.disk.truncate(keep);
        if replayed_more {
            // What was seen on it is gone: its sessions cannot go on.
            node.dismiss(Goodbye::Silent);
            node.backends.values_mut().for_each(|backend| backend.orphan = true);
            node.engine = node.disk.recover();
            node.engine.set_role(node.role(), wall);
        }
        if let Some(standby) = &mut node.standby {
            standby.forget_after(keep);
        }
    }

    /// A standby follows another node from now on; where its WAL has parted from that one's, it is rewound.
    pub(crate) fn follow(&mut self, index: usize, upstream: usize) {
        let fork = self.nodes[index].disk.fork(&self.nodes[upstream].disk);
        let diverged = self.nodes[index].disk.end() > fork;
        if diverged || self.nodes[index].standby.is_none() {
            self.rewind(index, upstream, fork);
        }
        if let Some(standby) = &mut self.nodes[index].standby {
            standby.upstream = Some(upstream);
            standby.lose_stream();
        }
        self.poke();
    }

    /// The node becomes a standby with the WAL it has; nothing new comes to it.
    pub(crate) fn rejoin_diverged(&mut self, index: usize) {
        if self.nodes[index].standby.is_some() {
            return;
        }
        let was_up = self.nodes[index].is_up();
        self.stop(index, Goodbye::Administrator);
        let node = &mut self.nodes[index];
        node.standby = Some(Standby::new(node.disk.end()));
        if was_up {
            self.start(index, Duration::ZERO);
        }
    }

    /// The node becomes a standby that has nothing but what it shares with `upstream`.
    fn rewind(&mut self, index: usize, upstream: usize, fork: Lsn) {
        let old = self.nodes[index]
            .standby
            .as_ref()
            .map(|old| (old.receive_delay, old.replay_delay));
        let was_up = self.nodes[index].is_up();
        if was_up {
            self.stop(index, Goodbye::Administrator);
        }
        let timeline = self.nodes[upstream].timeline;
        let node = &mut self.nodes[index];
        node.disk.truncate(fork);
        node.timeline = timeline;
        let mut standby = Standby::new(node.disk.end());
        (standby.receive_delay, standby.replay_delay) = old.unwrap_or_default();
        node.standby = Some(standby);
        self.record(index, EventKind::Rejoined { timeline });
        if was_up {
            self.start(index, Duration::ZERO);
        }
    }

    /// The node's process ends; what is durable stays.
    pub(crate) fn stop(&mut self, index: usize, goodbye: Goodbye) {
        if self.nodes[index].phase == Phase::Down {
            return;
        }
        let orderly = goodbye == Goodbye::Administrator;
        if orderly {
            self.nodes[index].disk.flush();
            self.ship_all(index);
        }
        self.nodes[index].vanish(goodbye);
        let kind = if orderly {
            EventKind::Stopped
        } else {
            EventKind::Crashed
        };
        self.record(index, kind);
        for node in &mut self.nodes {
            if let Some(standby) = node.standby.as_mut().filter(|standby| standby.upstream == Some(index)) {
                standby.lose_stream();
            }
        }
        self.poke();
    }

    /// An orderly stop waits until the standbys have everything.
    fn ship_all(&mut self, index: usize) {
        let followers = self.nodes.iter().filter(|node| {
            let standby = node.standby.as_ref();
            node.is_up() && standby.is_some_and(|standby| standby.upstream == Some(index) && !standby.broken)
        });
        let followers: Vec<usize> = followers.map(|node| node.index).collect();
        for follower in followers {
            let delay = self.nodes[follower]
                .standby
                .as_ref()
                .map(|standby| standby.receive_delay);
            self.receive_all(follower);
            if let (Some(standby), Some(delay)) = (&mut self.nodes[follower].standby, delay) {
                standby.receive_delay = delay;
            }
        }
    }

    /// The node's process begins: it recovers from its disk, and serves after `recovery`.
    ///
    /// False if it runs already, or if somebody else listens at its address.
    pub(crate) fn start(&mut self, index: usize, recovery: Duration) -> bool {
        if self.nodes[index].phase != Phase::Down {
            return false;
        }
        let wall = self.wall();
        let now = self.now();
        let endpoint: Endpoint = self.nodes[index].endpoint.clone();
        let listener = Listener::open(std::sync::Arc::clone(&self.shared), endpoint);
        let node = &mut self.nodes[index];
        node.listener = Some(listener);
        node.engine = node.disk.recover();
        node.engine.set_role(node.role(), wall);
        node.engine.crash(wall);
        node.engine.set_synchronous(self.synchronous.is_some());
        if let Some(standby) = &mut node.standby {
            standby.recovered(node.disk.end());
        }
        node.phase = Phase::Starting { until: now + recovery };
        node.wake_acceptor();
        if recovery.is_zero() {
            self.started(index);
        }
        true
    }

    /// Recovery is over: sessions may begin.
    pub(crate) fn started(&mut self, index: usize) {
        if matches!(self.nodes[index].phase, Phase::Starting { .. }) {
            self.nodes[index].phase = Phase::Up;
            self.record(index, EventKind::Restarted);
            self.poke();
        }
    }
}
