//! The driver: the task that moves a session's bytes, by polling its [`Wire`], and runs its jobs.
//!
//! Jobs (preparing, settling) run here so that they outlive the caller that asked for them; they are queued, never
//! spawned. When the connection ends, the driver writes down why before anybody can see a bare "connection closed". It
//! decides nothing.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_channel::Receiver;
use futures_core::Stream;
use futures_util::stream::FuturesUnordered;

use super::wire::{Ended, Ending, Wire};
use crate::runtime::BoxFuture;

/// Work that runs in the driver of the session it is for.
pub(crate) struct Job(pub(crate) BoxFuture<'static, ()>);

pub(crate) struct Driver {
    wire: Arc<Wire>,
    /// Whoever queues a job wakes the driver through `ending`, so that nothing is registered here.
    inbox: Receiver<Job>,
    jobs: FuturesUnordered<BoxFuture<'static, ()>>,
    ending: Arc<Ending>,
}

impl Driver {
    pub(super) fn new(wire: Arc<Wire>, inbox: Receiver<Job>, ending: Arc<Ending>) -> Self {
        Self {
            wire,
            inbox,
            jobs: FuturesUnordered::new(),
            ending,
        }
    }

    pub(crate) fn ending(&self) -> Arc<Ending> {
        Arc::clone(&self.ending)
    }

    /// Drives the session to its end.
    pub(crate) async fn run(mut self) {
        let ended = std::future::poll_fn(|cx| self.poll(cx)).await;
        // Written down before the connection is dropped, which is what callers notice.
        self.ending.conclude(ended);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.ending.register_driver(cx.waker());
        if self.ending.is_killed() {
            return Poll::Ready(Ended::Closed);
        }
        loop {
            if let Poll::Ready(ended) = self.wire.poll() {
                return Poll::Ready(ended);
            }
            // A job that moved may have queued a request: the connection looks again before this task rests.
            if !self.poll_jobs(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Takes new jobs and polls them; true when one of them ended.
    fn poll_jobs(&mut self, cx: &mut Context<'_>) -> bool {
        // Nearly always empty, and seen so without a write to what others look at.
        while !self.inbox.is_empty()
            && let Ok(Job(job)) = self.inbox.try_recv()
        {
            self.jobs.push(job);
        }
        if self.jobs.is_empty() {
            return false;
        }
        let mut moved = false;
        while let Poll::Ready(Some(())) = Pin::new(&mut self.jobs).poll_next(cx) {
            moved = true;
        }
        moved
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Jobs that never ran hold the session, and the session holds the sending end: take them out.
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        self.ending.conclude(Ended::Dropped);
        self.wire.hang_up();
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("jobs", &self.jobs.len())
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}
