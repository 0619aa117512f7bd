//! The driver: the one task that moves a session's bytes, by polling `tokio_postgres::Connection`, and runs its jobs.
//!
//! Jobs (preparing, settling) run here so that they outlive the caller that asked for them; they are queued, never
//! spawned. When the connection ends, the driver writes down why before anybody can see a bare "connection closed". It
//! decides nothing.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use async_channel::Receiver;
use futures_core::Stream;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Connection};

use super::tap::Tap;
use crate::runtime::BoxFuture;

/// Work that runs in the driver of the session it is for.
pub(crate) struct Job(pub(crate) BoxFuture<'static, ()>);

/// How a session ends: asked to from outside, told from inside.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    killed: AtomicBool,
    waker: AtomicWaker,
    ended: OnceLock<Ended>,
}

/// Why a session ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// We closed it.
    Closed,
    /// The connection failed, or the server ended it; the server's own words, if it had any.
    Failed(Arc<tokio_postgres::Error>),
    /// The executor dropped the driver.
    Dropped,
}

pub(crate) struct Driver {
    connection: Connection<Tap, NoTlsStream>,
    /// Whoever queues a job wakes the driver through `ending`, so that nothing is registered here.
    inbox: Receiver<Job>,
    jobs: FuturesUnordered<BoxFuture<'static, ()>>,
    ending: Arc<Ending>,
}

impl Ending {
    /// Ends the session at once: the driver drops the connection when it next runs.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// There is a job in the inbox.
    pub(super) fn wake_driver(&self) {
        self.waker.wake();
    }

    /// Why the session ended, once it has.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        self.ended.get()
    }
}

impl Driver {
    pub(super) fn new(connection: Connection<Tap, NoTlsStream>, inbox: Receiver<Job>, ending: Arc<Ending>) -> Self {
        Self {
            connection,
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
        let _ = self.ending.ended.set(ended);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.ending.waker.register(cx.waker());
        if self.ending.killed.load(Ordering::Acquire) {
            return Poll::Ready(Ended::Closed);
        }
        loop {
            if let Poll::Ready(ended) = self.poll_connection(cx) {
                return Poll::Ready(ended);
            }
            // A job that moved may have queued a request: the connection looks again before this task rests.
            if !self.poll_jobs(cx) {
                return Poll::Pending;
            }
        }
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            match self.connection.poll_message(cx) {
                Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                    tracing::debug!(sqlstate = notice.code().code(), severity = notice.severity(), "notice");
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Ended::Failed(Arc::new(error))),
                Poll::Ready(None) => return Poll::Ready(Ended::Closed),
                Poll::Pending => return Poll::Pending,
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
        let _ = self.ending.ended.set(Ended::Dropped);
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
