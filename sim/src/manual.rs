//! `Manual`: a future that a test polls by hand, to drop it after exactly k polls.
//!
//! Beside the executor: its polls count as steps, its waker only sets a flag.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::executor::Shared;

/// A future under manual control; made by [`Sim::manual`](crate::Sim::manual).
///
/// It is also a future itself: `sim.block_on(&mut manual)` runs what is left of it.
pub struct Manual<F: Future> {
    shared: Arc<Shared>,
    future: Pin<Box<F>>,
    flag: Arc<Flag>,
    waker: Waker,
    polls: u64,
}

#[derive(Debug)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<F: Future> Manual<F> {
    pub(crate) fn new(shared: Arc<Shared>, future: F) -> Self {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        Self {
            shared,
            future: Box::pin(future),
            flag,
            waker,
            polls: 0,
        }
    }

    /// Polls exactly once, and runs nothing else.
    ///
    /// # Panics
    /// As the future does when it is polled after completion.
    pub fn poll(&mut self) -> Poll<F::Output> {
        self.flag.0.store(false, Ordering::SeqCst);
        self.polls += 1;
        self.shared.manual_step(self.polls);
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }

    /// Polls as long as it is woken, and runs all ready tasks in between; the clock stands still.
    ///
    /// Pending means that only time, or the test itself, can move things on.
    pub fn settle(&mut self) -> Poll<F::Output> {
        loop {
            if self.is_woken()
                && let Poll::Ready(output) = self.poll()
            {
                return Poll::Ready(output);
            }
            let now = self.shared.now();
            self.shared.run_until(now);
            if !self.is_woken() {
                return Poll::Pending;
            }
        }
    }

    /// Whether it was woken since the last poll; true before the first.
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.flag.0.load(Ordering::SeqCst)
    }

    /// Polls so far, by hand or otherwise.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.polls
    }
}

impl<F: Future> Future for Manual<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls += 1;
        self.future.as_mut().poll(cx)
    }
}

impl<F: Future> fmt::Debug for Manual<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manual")
            .field("polls", &self.polls)
            .field("woken", &self.is_woken())
            .finish_non_exhaustive()
    }
}
