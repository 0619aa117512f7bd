//! The cluster as the one who applies injected faults of servers: layers P, S and R of the fault table.
//!
//! Maps faults as data to what the cluster's parts can do; it decides nothing. A fault that finds nothing to apply itself
//! to says so.

use std::time::Duration;

use super::direct::DATABASE;
use super::{Cluster, World, lock};
use crate::fault::{FaultKind, Micros, ProtocolFault, Rejoin, ReplicationFault, ServerFault, ServerFaults, Sessions};
use crate::postgres::replication::Standby;
use crate::postgres::server::{Activity, Backend, Failing, Faults, Goodbye};

/// The session that holds the lock of a convoy; it never has a connection.
pub(crate) const CONVOY: i32 = 99;

impl ServerFaults for Cluster {
    fn begin(&self, what: &FaultKind, connection: Option<u64>) -> bool {
        let mut world = lock(self.world());
        match what {
            FaultKind::Protocol(fault) => world.begin_protocol(fault).is_some(),
            FaultKind::Replication(ReplicationFault::Join { node }) => {
                drop(world);
                self.join(node)
            }
            FaultKind::Replication(fault) => world.begin_replication(fault, connection).unwrap_or(false),
            FaultKind::Server(fault) => world.begin_server(fault, connection).unwrap_or(false),
            FaultKind::Network(_) | FaultKind::Time(_) => false,
        }
    }

    fn end(&self, what: &FaultKind) {
        let mut world = lock(self.world());
        // A node that is not there has nothing to end.
        let _ = match what {
            FaultKind::Protocol(fault) => world.end_protocol(fault),
            FaultKind::Replication(fault) => world.end_replication(fault),
            FaultKind::Server(fault) => world.end_server(fault),
            FaultKind::Network(_) | FaultKind::Time(_) => None,
        };
    }
}

impl World {
    fn begin_protocol(&mut self, fault: &ProtocolFault) -> Option<()> {
        match fault {
            ProtocolFault::Cancel { node, fate } => self.faults(node)?.cancel = Some(*fate),
            ProtocolFault::CommitWithoutReady { node, reset } => self.faults(node)?.cut_commit = Some(*reset),
            ProtocolFault::NotifyFlood {
                node,
                channel,
                count,
                bytes,
            } => {
                let index = self.node_named(node)?;
                self.flood(index, channel, *count, *bytes)?;
            }
            ProtocolFault::Unsolicited { node, message, percent } => {
                self.faults(node)?.unsolicited = Some((*message, *percent));
            }
        }
        Some(())
    }

    fn end_protocol(&mut self, fault: &ProtocolFault) -> Option<()> {
        match fault {
            ProtocolFault::Cancel { node, .. } => self.faults(node)?.cancel = None,
            ProtocolFault::CommitWithoutReady { node, .. } => self.faults(node)?.cut_commit = None,
            ProtocolFault::NotifyFlood { .. } => {}
            ProtocolFault::Unsolicited { node, .. } => self.faults(node)?.unsolicited = None,
        }
        Some(())
    }

    /// One transaction notifies so often, with payloads that differ.
    fn flood(&mut self, node: usize, channel: &str, count: u32, bytes: u32) -> Option<()> {
        let channel = channel.replace('\'', "''");
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut sql = String::new();
        for number in 0..count {
            let mut payload = format!("x{number} ");
            payload.extend(std::iter::repeat_n('x', bytes.saturating_sub(payload.len())));
            payload.truncate(bytes.max(1));
            sql.push_str(&format!("SELECT pg_notify('{channel}', '{payload}');"));
        }
        self.execute(node, DATABASE, &sql).ok()?;
        let target = &self.nodes[node];
        let heard = target
            .backends
            .keys()
            .any(|pid| target.engine.channels(*pid).contains(&channel));
        if heard {
            self.felt("protocol.notify_flood");
        }
        Some(())
    }

    fn begin_server(&mut self, fault: &ServerFault, connection: Option<u64>) -> Option<bool> {
        let mut found = true;
        match fault {
            ServerFault::Crash { node, .. } => found = self.halt(node, Goodbye::Silent, "server.crash")?,
            ServerFault::CrashSession {
                node,
                sessions,
                recovery,
            } => {
                let index = self.node_named(node)?;
                // The first of them takes the others along.
                found = self.each_session(index, *sessions, connection, |backend| backend.end(Goodbye::Silent));
                if found {
                    self.halt(node, Goodbye::CrashElsewhere, "server.crash_session")?;
                    self.start(index, recovery.span());
                }
            }
            ServerFault::Shutdown { node, immediate, .. } => {
                let goodbye = if *immediate {
                    Goodbye::Immediate
                } else {
                    Goodbye::Administrator
                };
                found = self.halt(node, goodbye, "server.shutdown")?;
            }
            ServerFault::Fail {
                node,
                sqlstate,
                at,
                count,
            } => {
                let failing = Failing {
                    sqlstate: sqlstate.clone(),
                    at: *at,
                    count: *count,
                };
                found = *count > 0 && sqlstate.len() == 5;
                self.faults(node)?.fail = found.then_some(failing);
            }
            ServerFault::LockConvoy { node, table } => {
                let index = self.node_named(node)?;
                found = self.lock_table(index, table);
            }
            ServerFault::MaxSessions { node, sessions } => {
                self.faults(node)?.max_sessions = usize::try_from(*sessions).ok();
            }
            ServerFault::Pause { node } => {
                let index = self.node_named(node)?;
                if !self.nodes[index].backends.is_empty() {
                    self.felt("server.pause");
                }
                self.pause(node, true)?;
            }
            ServerFault::Refuse { node, why } => self.faults(node)?.refuse = Some(*why),
            ServerFault::Setting { node, name, value } => {
                let index = self.node_named(node)?;
                found = self.nodes[index].engine.set_server_setting(name, Some(value)).is_ok();
                self.nodes[index].faults.setting = found;
            }
            ServerFault::Slow { node, by } => self.faults(node)?.slow = Some(by.span()),
            ServerFault::Terminate { node, sessions } => {
                let index = self.node_named(node)?;
                found = self.each_session(index, *sessions, connection, |backend| {
                    backend.end(Goodbye::Administrator)
                });
                if found {
                    self.felt("server.terminate");
                }
            }
            ServerFault::Zombies { node } => self.faults(node)?.zombies = true,
        }
        Some(found)
    }

    fn end_server(&mut self, fault: &ServerFault) -> Option<()> {
        match fault {
            ServerFault::Crash { node, recovery } | ServerFault::Shutdown { node, recovery, .. } => {
                let index = self.node_named(node)?;
                self.start(index, recovery.span());
            }
            ServerFault::Fail { node, .. } => self.faults(node)?.fail = None,
            ServerFault::LockConvoy { node, .. } => {
                let index = self.node_named(node)?;
                self.engine(index, CONVOY, |engine, _| engine.close(CONVOY));
            }
            ServerFault::MaxSessions { node, .. } => self.faults(node)?.max_sessions = None,
            ServerFault::Pause { node } => self.pause(node, false)?,
            ServerFault::Refuse { node, .. } => self.faults(node)?.refuse = None,
            ServerFault::Setting { node, name, .. } => {
                let index = self.node_named(node)?;
                let configured = self.nodes[index].settings.settings.get(name).cloned();
                // What could be set can be taken back.
                let _ = self.nodes[index].engine.set_server_setting(name, configured.as_deref());
                self.nodes[index].faults.setting = false;
            }
            ServerFault::Slow { node, .. } => self.faults(node)?.slow = None,
            ServerFault::CrashSession { .. } | ServerFault::Terminate { .. } => {}
            ServerFault::Zombies { node } => {
                let index = self.node_named(node)?;
                self.nodes[index].faults.zombies = false;
                self.nodes[index].rouse_zombies();
            }
        }
        Some(())
    }

    fn begin_replication(&mut self, fault: &ReplicationFault, connection: Option<u64>) -> Option<bool> {
        match fault {
            ReplicationFault::BreakStream { node } | ReplicationFault::LoseSyncStandby { node } => {
                let name = fault.name();
                self.change_standby(node, |standby| {
                    standby.broken = true;
                    standby.lose_stream();
                    standby.faults.insert(name);
                })?;
            }
            ReplicationFault::Conflict { node, sessions } => {
                let index = self.node_named(node)?;
                self.nodes[index].standby.as_ref()?;
                let any = self.each_session(index, *sessions, connection, Backend::stand_aside);
                if any {
                    self.felt("replication.conflict");
                }
                return Some(any);
            }
            // Needs tasks of its own: the cluster sees to it.
            ReplicationFault::Join { .. } => return Some(false),
            ReplicationFault::PauseReplay { node } => {
                self.change_standby(node, |standby| {
                    standby.paused = true;
                    standby.faults.insert(fault.name());
                })?;
            }
            ReplicationFault::Promote { node, lost, fenced } => {
                let index = self.node_named(node)?;
                let has_sessions = self.nodes.iter().any(|node| !node.backends.is_empty());
                let promoted = self.promote(index, *lost, *fenced);
                if promoted && has_sessions {
                    self.felt("replication.promote");
                }
                return Some(promoted);
            }
            ReplicationFault::ReceiveDelay { node, by } => {
                self.change_standby(node, |standby| {
                    standby.receive_delay += by.span();
                    standby.faults.insert(fault.name());
                })?;
            }
            ReplicationFault::Rejoin { node, how } => {
                let index = self.node_named(node)?;
                let primary = self.primary().filter(|primary| *primary != index)?;
                if !self.nodes[index].backends.is_empty() {
                    self.felt("replication.rejoin");
                }
                match how {
                    Rejoin::Diverged => self.rejoin_diverged(index),
                    Rejoin::Rewound => self.follow(index, primary),
                }
                // One that comes back is up.
                self.start(index, Duration::ZERO);
            }
            ReplicationFault::ReplayDelay { node, by } => {
                self.change_standby(node, |standby| {
                    standby.replay_delay += by.span();
                    standby.faults.insert(fault.name());
                })?;
            }
        }
        Some(true)
    }

    fn end_replication(&mut self, fault: &ReplicationFault) -> Option<()> {
        let less = |delay: &mut Duration, by: &Micros| *delay = delay.saturating_sub(by.span());
        match fault {
            ReplicationFault::BreakStream { node } | ReplicationFault::LoseSyncStandby { node } => {
                self.change_standby(node, |standby| {
                    standby.broken = false;
                    standby.faults.remove(fault.name());
                })
            }
            ReplicationFault::PauseReplay { node } => self.change_standby(node, |standby| {
                standby.paused = false;
                standby.faults.remove(fault.name());
            }),
            ReplicationFault::ReceiveDelay { node, by } => self.change_standby(node, |standby| {
                less(&mut standby.receive_delay, by);
                standby.faults.remove(fault.name());
            }),
            ReplicationFault::ReplayDelay { node, by } => self.change_standby(node, |standby| {
                less(&mut standby.replay_delay, by);
                standby.faults.remove(fault.name());
            }),
            ReplicationFault::Conflict { .. }
            | ReplicationFault::Join { .. }
            | ReplicationFault::Promote { .. }
            | ReplicationFault::Rejoin { .. } => Some(()),
        }
    }

    fn faults(&mut self, node: &str) -> Option<&mut Faults> {
        let index = self.node_named(node)?;
        Some(&mut self.nodes[index].faults)
    }

    fn halt(&mut self, node: &str, goodbye: Goodbye, name: &str) -> Option<bool> {
        let index = self.node_named(node)?;
        let up = self.nodes[index].phase != crate::postgres::server::Phase::Down;
        if up && !self.nodes[index].backends.is_empty() {
            self.felt(name);
        }
        self.stop(index, goodbye);
        Some(up)
    }

    fn pause(&mut self, node: &str, paused: bool) -> Option<()> {
        let index = self.node_named(node)?;
        self.set_paused(index, paused);
        Some(())
    }

    /// Stops everything on a node, or lets it go on.
    pub(crate) fn set_paused(&mut self, index: usize, paused: bool) {
        self.nodes[index].faults.paused = paused;
        self.nodes[index].wake_all();
        self.poke();
    }

    fn change_standby(&mut self, node: &str, change: impl FnOnce(&mut Standby)) -> Option<()> {
        let index = self.node_named(node)?;
        change(self.nodes[index].standby.as_mut()?);
        self.poke();
        Some(())
    }

    /// A session that nobody sees takes an ACCESS EXCLUSIVE lock and keeps it.
    fn lock_table(&mut self, node: usize, table: &str) -> bool {
        if !self.nodes[node].is_up() {
            return false;
        }
        let sql = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        let settings = Default::default();
        let opened = self.engine(node, CONVOY, |engine, _| {
            engine.open(CONVOY, "postgres", "postgres", &settings)
        });
        let locked = opened.is_ok() && self.execute_all(node, CONVOY, &sql).is_ok();
        if !locked {
            self.engine(node, CONVOY, |engine, _| engine.close(CONVOY));
        }
        locked
    }

    /// Does something to every session meant; whether there was one.
    fn each_session(
        &mut self,
        node: usize,
        sessions: Sessions,
        connection: Option<u64>,
        mut act: impl FnMut(&mut Backend),
    ) -> bool {
        let target = &mut self.nodes[node];
        let mut any = false;
        for (pid, backend) in &mut target.backends {
            if backend.activity == Activity::Starting || backend.orphan {
                continue;
            }
            let running = matches!(backend.activity, Activity::Running | Activity::Syncing);
            let status = target.engine.status(*pid);
            let meant = match sessions {
                Sessions::All => true,
                Sessions::Idle => !running && status == b'I',
                Sessions::IdleInTransaction => !running && status != b'I',
                Sessions::InQuery => running,
                Sessions::Trigger => connection == Some(backend.control.ordinal()),
            };
            if meant {
                act(backend);
                any = true;
            }
        }
        any
    }
}
