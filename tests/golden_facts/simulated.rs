//! The stage of simulated servers: the same pair, in virtual time.

use std::io::ErrorKind;
use std::time::Duration;

use futures::future::{Either, select};
use futures::{AsyncReadExt, AsyncWriteExt};
use gdbpool::{BoxStream, Endpoint, Runtime, SocketOptions};
use gdbpool_sim::fault::LostTail;
use gdbpool_sim::{Cluster, ClusterConfig, Sim};

use super::script::{Action, Received, Stage};

const PATIENCE: Duration = Duration::from_secs(20);

const SILENCE: Duration = Duration::from_millis(300);

pub(crate) struct Simulated {
    sim: Sim,
    cluster: Cluster,
    streams: Vec<Option<BoxStream>>,
}

impl Simulated {
    pub(crate) fn new() -> Self {
        let sim = Sim::new(1);
        let config = ClusterConfig::new()
            .standbys(1)
            .max_standby_streaming_delay(Duration::from_millis(200));
        let cluster = Cluster::new(&sim, config);
        Self {
            sim,
            cluster,
            streams: Vec::new(),
        }
    }
}

impl Stage for Simulated {
    fn set_up(&mut self, sql: &str) {
        let result = self.cluster.set_up(sql);
        result.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn connect(&mut self, node: usize) -> usize {
        let runtime = self.sim.runtime();
        let name = format!("n{node}");
        let stream = self.sim.block_on(async {
            let addresses = runtime.resolve(&name, 5432).await.expect("the node's address");
            runtime
                .connect(&Endpoint::Tcp(addresses[0]), &SocketOptions::default())
                .await
        });
        self.streams.push(Some(stream.expect("connect")));
        self.streams.len() - 1
    }

    fn send(&mut self, connection: usize, bytes: &[u8]) {
        if let Some(stream) = &mut self.streams[connection] {
            let _ = self.sim.block_on(stream.write_all(bytes));
        }
    }

    fn receive(&mut self, connection: usize, patient: bool) -> Received {
        let Some(stream) = &mut self.streams[connection] else {
            return Received::End;
        };
        let runtime = self.sim.runtime();
        let until = runtime.now() + if patient { PATIENCE } else { SILENCE };
        let mut buffer = [0; 16 * 1024];
        let read = self.sim.block_on(async {
            match select(stream.read(&mut buffer), runtime.sleep_until(until)).await {
                Either::Left((read, _)) => Some(read),
                Either::Right(_) => None,
            }
        });
        match read {
            None => Received::Nothing,
            Some(Ok(0)) => Received::End,
            Some(Ok(count)) => Received::Bytes(buffer[..count].to_vec()),
            Some(Err(error)) => {
                assert!(
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "{error}"
                );
                Received::End
            }
        }
    }

    fn close(&mut self, connection: usize) {
        self.streams[connection] = None;
    }

    fn reset(&mut self, connection: usize) {
        self.streams[connection] = None;
    }

    fn act(&mut self, action: &Action<'_>) {
        match action {
            Action::CrashSession(node, pid) => {
                let node = self.cluster.node(&format!("n{node}"));
                assert!(
                    node.crash_session(*pid, Duration::from_millis(50)),
                    "no session {pid} to crash"
                );
            }
            Action::Promote(node) => {
                let node = self.cluster.node(&format!("n{node}"));
                assert!(node.promote(LostTail::Unreceived, false), "not promoted");
            }
            Action::Start(node) => {
                let node = self.cluster.node(&format!("n{node}"));
                assert!(node.restart(Duration::ZERO), "not started");
            }
            Action::StopFast(node) => self.cluster.node(&format!("n{node}")).stop_fast(),
            Action::StopImmediate(node) => self.cluster.node(&format!("n{node}")).stop_immediate(),
            Action::Synchronous("none") => self.cluster.set_synchronous(0, &[]),
            Action::Synchronous(name) => self.cluster.set_synchronous(1, &[name]),
        }
    }
}
