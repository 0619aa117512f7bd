//! A small web application on smol: `cargo run --release --example web_smol [-- ADDRESS]`.
//!
//! The program around `shop`: it listens, hands requests to the handlers, runs the two background tasks, and ends cleanly
//! when it is asked to. Without an address it shows itself off (`demo`) and ends.
#![expect(clippy::disallowed_methods, reason = "a program on smol spawns on smol")]

#[path = "../../tests/support/cluster.rs"]
mod cluster;
mod demo;
mod http;
mod servers;
mod shop;

use std::io;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use smol::net::{TcpListener, TcpStream};

use crate::servers::Server;
use crate::shop::Shop;

fn main() -> io::Result<()> {
    let server = Server::find();
    smol::block_on(run(&server.dsn, std::env::args().nth(1)))
}

async fn run(dsn: &str, address: Option<String>) -> io::Result<()> {
    let shop = Arc::new(Shop::open(gdbpool::Smol::new(), dsn).await.map_err(io::Error::other)?);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let here = listener.local_addr()?;
    println!("serving http://{here}/ ; POST /stop ends it");

    let (cached, worked) = (Arc::clone(&shop), Arc::clone(&shop));
    let cache = smol::spawn(async move { cached.keep_cache().await });
    let worker = smol::spawn(async move { worked.work().await });
    let demo = address
        .is_none()
        .then(|| smol::spawn(demo::run(move || TcpStream::connect(here))));

    serve(&shop, &listener).await?;

    // Clean shutdown: the tasks see the same flag, and end by themselves; then the pool, whose sessions say goodbye.
    cache.await.map_err(io::Error::other)?;
    worker.await.map_err(io::Error::other)?;
    if let Some(demo) = demo {
        demo.await?;
    }
    shop.close().await;
    Ok(())
}

/// Takes connections until the shop is stopped; those taken are answered to their end.
async fn serve(shop: &Arc<Shop>, listener: &TcpListener) -> io::Result<()> {
    let mut under_way = FuturesUnordered::new();
    let stop = shop.stop.clone();
    loop {
        // Those that have ended are let go; a client that went away is no reason to fail.
        while let Some(Some(ended)) = under_way.next().now_or_never() {
            drop(ended);
        }
        let accepted = std::pin::pin!(listener.accept());
        let (mut stream, _) = match select(accepted, std::pin::pin!(stop.cancelled())).await {
            Either::Left((accepted, _)) => accepted?,
            Either::Right(_) => break,
        };
        let shop = Arc::clone(shop);
        under_way.push(smol::spawn(async move {
            let request = http::read_request(&mut stream).await?;
            let response = shop.answer(request).await;
            http::write_response(&mut stream, &response).await
        }));
    }
    while under_way.next().await.is_some() {}
    Ok(())
}
