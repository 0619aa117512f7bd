//! Replication: how WAL gets from a node's disk to its standbys, and what becomes of it there.
//!
//! The decisions are made on the cluster's plain data; one task per cluster waits for the next instant at which
//! something moves. It never looks into records.

mod moves;
mod promote;
mod standby;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use gdbpool::Instant;

use super::cluster::{SharedWorld, lock};
use crate::executor::{Origin, Shared};
use crate::runtime::Sleep;

pub(crate) use self::standby::Standby;

/// Moves WAL for as long as the run lasts.
pub(crate) async fn replicate(shared: Arc<Shared>, world: SharedWorld) {
    loop {
        let until = lock(&world).replicate();
        let mut sleep = Sleep::new(&shared, until, Origin::World);
        let mut looked = false;
        poll_fn(|cx| {
            // Woken: something has changed, so look again.
            if std::mem::replace(&mut looked, true) {
                return Poll::Ready(());
            }
            lock(&world).replicator = Some(cx.waker().clone());
            Pin::new(&mut sleep).poll(cx)
        })
        .await;
        if until == Instant::FAR_FUTURE {
            lock(&world).replicator = None;
        }
    }
}
