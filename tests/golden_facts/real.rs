//! The stage of real servers: a primary and a standby, raw sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::script::{Action, Received, Stage};
use super::support::{Cluster, ClusterOptions, Mode, Server, eventually};

/// How long a server may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing must come for nothing to have come.
const SILENCE: Duration = Duration::from_millis(300);

pub(crate) struct Real {
    nodes: [Cluster; 2],
    sockets: Vec<TcpStream>,
}

impl Real {
    pub(crate) fn start(server: Server) -> Self {
        let options = ClusterOptions::new(server)
            .setting("max_standby_streaming_delay", "200ms")
            .setting("restart_after_crash", "on");
        let primary = Cluster::start(options);
        let standby = primary.standby();
        Self {
            nodes: [primary, standby],
            sockets: Vec::new(),
        }
    }
}

impl Stage for Real {
    fn set_up(&mut self, sql: &str) {
        // A session's crash leaves the server in recovery for a moment.
        eventually("the primary takes statements", || {
            self.nodes[0].try_psql("postgres", "SELECT 1").is_ok()
        });
        self.nodes[0].psql(sql);
        self.nodes[1].catch_up(&self.nodes[0]);
    }

    fn connect(&mut self, node: usize) -> usize {
        let socket = TcpStream::connect(("127.0.0.1", self.nodes[node].port())).expect("connect");
        socket.set_nodelay(true).expect("no delay");
        self.sockets.push(socket);
        self.sockets.len() - 1
    }

    fn send(&mut self, connection: usize, bytes: &[u8]) {
        // What a closed connection says is looked at by the reads.
        let _ = self.sockets[connection].write_all(bytes);
    }

    fn receive(&mut self, connection: usize, patient: bool) -> Received {
        let socket = &mut self.sockets[connection];
        let span = if patient { PATIENCE } else { SILENCE };
        socket.set_read_timeout(Some(span)).expect("a time-out");
        let mut buffer = [0; 16 * 1024];
        match socket.read(&mut buffer) {
            Ok(0) => Received::End,
            Ok(count) => Received::Bytes(buffer[..count].to_vec()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Received::Nothing,
            Err(_) => Received::End,
        }
    }

    fn close(&mut self, connection: usize) {
        let _ = self.sockets[connection].shutdown(Shutdown::Both);
    }

    fn reset(&mut self, connection: usize) {
        // Closing with unread data makes the kernel send a reset; so does closing with no time to linger, which std
        // cannot ask for. Here nothing is unread, so the reset follows the server's next write.
        let _ = self.sockets[connection].shutdown(Shutdown::Both);
    }

    fn act(&mut self, action: &Action<'_>) {
        match action {
            Action::CrashSession(_, pid) => {
                let killed = Command::new("sh")
                    .args(["-c", &format!("kill -9 {pid}")])
                    .status()
                    .expect("run sh");
                assert!(killed.success(), "no session {pid} to kill");
            }
            Action::Promote(node) => self.nodes[*node].promote(),
            Action::Start(node) => self.nodes[*node].start_again(),
            Action::StopFast(node) => self.nodes[*node].stop(Mode::Fast),
            Action::StopImmediate(node) => self.nodes[*node].stop(Mode::Immediate),
            Action::Synchronous(name) => {
                let name = if *name == "none" { "" } else { name };
                self.nodes[0].psql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'"));
                self.nodes[0].psql("SELECT pg_reload_conf()");
                eventually("the setting is taken over", || {
                    self.nodes[0].psql("SHOW synchronous_standby_names") == name
                });
            }
        }
    }
}
