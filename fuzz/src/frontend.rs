//! Arbitrary bytes as a client: the server answers, refuses or hangs up; it never panics and never spins.
//!
//! What the fuzz target `server_frontend` runs, and the simulator's tests, over the committed corpus. The first byte says
//! how the bytes are cut into pieces, the second what comes before them, the rest is sent as it is.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gdbpool::{Endpoint, Runtime, SocketOptions};
use gdbpool_sim::{Answer, ScriptedServer, Sim, StartUp, Type};

/// So many polls are enough for any input of a fuzzer's size; more is a livelock.
const STEPS: u64 = 1_000_000;

/// Sends the bytes to a server and reads whatever it says; gives how much that was.
pub fn frontend(input: &[u8]) -> u64 {
    let [pieces, before, bytes @ ..] = input else { return 0 };
    let sim = Sim::new(u64::from(*before));
    sim.set_step_budget(STEPS);
    let server = ScriptedServer::start(&sim, ([10, 0, 0, 1], 5432).into());
    server.on("SELECT 1", Answer::rows(&[("one", Type::Int4)], vec![vec![1.into()]]));
    server.on_prefix("COPY", Answer::CopyIn);
    if before & 2 != 0 {
        server.set_start_up(StartUp::Cleartext("secret".to_owned()));
    }
    let runtime = sim.runtime();
    let endpoint = Endpoint::Tcp(([10, 0, 0, 1], 5432).into());
    let mut stream = sim
        .block_on(runtime.connect(&endpoint, &SocketOptions::default()))
        .expect("the server listens");
    let mut client = sim.manual(async move {
        let start = start_up();
        let bytes = [if before & 1 != 0 { &*start } else { &[] }, bytes].concat();
        let mut read = 0;
        let mut buffer = [0; 4096];
        for piece in bytes.chunks(usize::from(*pieces) + 1) {
            if stream.write_all(piece).await.is_err() {
                break;
            }
        }
        // Half a close: the server still answers what it has read.
        let _ = stream.close().await;
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            read += count as u64;
        }
        read
    });
    // Whatever waits for time gets an hour of it.
    for _ in 0..3 {
        if let std::task::Poll::Ready(read) = client.settle() {
            return read;
        }
        sim.advance(Duration::from_secs(1_200));
    }
    0
}

/// A start-up packet of protocol 3.0.
fn start_up() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0app\0database\0shop\0\0";
    let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
    [&length[..], body].concat()
}
