//! The task that accepts a node's connections and gives each a session task.
//!
//! One per node for the whole run: it sleeps while the node is down or stands still.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::executor::{Origin, Shared};
use crate::pipe::PipeEnd;
use crate::postgres::cluster::{SharedWorld, lock};
use crate::postgres::session;

pub(crate) async fn accept(shared: Arc<Shared>, world: SharedWorld, node: usize) {
    loop {
        let end = poll_fn(|cx| poll_accept(&world, node, cx)).await;
        let serving = session::serve(Arc::clone(&shared), Arc::clone(&world), node, end);
        shared.spawn(Box::pin(serving), Origin::World);
    }
}

fn poll_accept(world: &SharedWorld, node: usize, cx: &mut Context<'_>) -> Poll<PipeEnd> {
    let mut world = lock(world);
    let node = &mut world.nodes[node];
    node.acceptor = Some(cx.waker().clone());
    match &node.listener {
        // The kernel still takes connections into its queue while the process stands still.
        Some(listener) if !node.faults.paused => pin!(listener.accept()).poll(cx),
        _ => Poll::Pending,
    }
}
