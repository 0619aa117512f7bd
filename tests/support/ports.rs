//! Free TCP ports for servers and proxies that may close theirs and come back to it.
//!
//! Below `cluster.rs` and `proxy.rs`. A port is only looked for, not reserved: whoever binds it must be ready to lose it.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// A TCP port of 127.0.0.1 that nobody listens on.
///
/// Below the range from which the kernel serves outgoing connections: while a server is down, a client that keeps trying
/// could otherwise be given the very port and connect to itself.
pub(crate) fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let range = PORTS.end - PORTS.start;
    for _ in 0..range {
        let step = TRIED.fetch_add(1, Ordering::Relaxed);
        let offset = process::id().wrapping_mul(131).wrapping_add(step.wrapping_mul(17)) % range;
        let port = u16::try_from(PORTS.start + offset).expect("the range ends below 65536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Linux serves outgoing connections from 32768 on.
const PORTS: Range<u32> = 10_000..32_000;
