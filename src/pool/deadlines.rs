//! The pool's table of deadlines: every wait of its calls ends by an entry here, served by one upkeep task.
//!
//! An entry is made when a call first has to wait, so that calls which do not wait cost nothing. It decides nothing: a
//! call that ran out of time drops its future.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use event_listener::Event;

use crate::Instant;

/// The time ran out before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// Deadlines of calls that wait, soonest first. Bounded by the number of calls in progress.
#[derive(Default)]
pub(crate) struct Deadlines {
    table: Mutex<Table>,
    /// Notified when upkeep must look earlier than it means to.
    pub(crate) wake: Event,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<(Instant, u64), Waker>,
    next: u64,
    /// When upkeep will look next, as far as it has said.
    served_at: Option<Instant>,
}

/// A future with an end; made by [`Deadlines::limit`].
struct Limited<'a, F> {
    deadlines: &'a Deadlines,
    at: Instant,
    entry: Option<u64>,
    future: Pin<&'a mut F>,
}

impl Deadlines {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `future` until `at` at the latest.
    pub(crate) async fn limit<F: Future>(&self, at: Instant, future: F) -> Result<F::Output, Elapsed> {
        if at == Instant::FAR_FUTURE {
            return Ok(future.await);
        }
        let future = std::pin::pin!(future);
        Limited {
            deadlines: self,
            at,
            entry: None,
            future,
        }
        .await
    }

    /// Upkeep's round: wakes what ran out, and says when the next one does.
    pub(crate) fn serve(&self, now: Instant) -> Option<Instant> {
        let mut table = self.lock();
        let later = table.entries.split_off(&(now, u64::MAX));
        let out = std::mem::replace(&mut table.entries, later);
        let next = table.entries.first_key_value().map(|((at, _), _)| *at);
        table.served_at = None;
        drop(table);
        out.into_values().for_each(Waker::wake);
        next
    }

    /// Upkeep is about to sleep until `at`: earlier deadlines wake it. `false`: one came in meanwhile, look again.
    pub(crate) fn rest_until(&self, at: Instant) -> bool {
        let mut table = self.lock();
        table.served_at = Some(at);
        table
            .entries
            .first_key_value()
            .is_none_or(|((first, _), _)| *first >= at)
    }
}

impl<F: Future> Future for Limited<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(output) = this.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let mut table = this.deadlines.lock();
        match this.entry {
            Some(id) => match table.entries.get_mut(&(this.at, id)) {
                Some(waker) => waker.clone_from(cx.waker()),
                None => {
                    this.entry = None;
                    return Poll::Ready(Err(Elapsed));
                }
            },
            None => {
                let id = table.next;
                table.next += 1;
                table.entries.insert((this.at, id), cx.waker().clone());
                this.entry = Some(id);
                if table.served_at.is_some_and(|served| this.at < served) {
                    drop(table);
                    this.deadlines.wake.notify(1);
                }
            }
        }
        Poll::Pending
    }
}

impl<F> Drop for Limited<'_, F> {
    fn drop(&mut self) {
        if let Some(id) = self.entry {
            self.deadlines.lock().entries.remove(&(self.at, id));
        }
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines")
            .field("entries", &self.lock().entries.len())
            .finish_non_exhaustive()
    }
}
