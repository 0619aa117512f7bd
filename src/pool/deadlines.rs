//! The pool's table of deadlines: every wait of its calls ends by an entry here, served by one upkeep task.
//!
//! An entry is made when a call first has to wait, so that calls which do not wait cost nothing. It decides nothing: a
//! call that ran out of time drops its future.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use event_listener::Event;

use crate::Instant;

/// The time ran out before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// Deadlines of calls that wait. Bounded by the number of calls in progress.
///
/// A slab in no order: entries come and go with every call that waits, and are looked at as a whole only in upkeep's
/// rounds.
#[derive(Default)]
pub(crate) struct Deadlines {
    table: Mutex<Table>,
    /// Counts the rounds in which anything was due: while it stands still, whatever is in the table stays there.
    rounds: AtomicU32,
    /// Notified when upkeep must look earlier than it means to.
    pub(crate) wake: Event,
}

#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    vacant: Vec<usize>,
    /// When upkeep will look next, as far as it has said.
    served_at: Option<Instant>,
}

struct Entry {
    at: Instant,
    /// Grows when the entry is vacated, so that a stay that is over is not taken for another one.
    generation: u32,
    /// Empty while the entry is vacant.
    waker: Option<Waker>,
}

/// One call's stay in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stay {
    index: u32,
    generation: u32,
}

/// One call's place in the table, kept through its phases, each of which has an end of its own: the place is taken when the
/// call first waits, and given back when it is over, instead of with each phase.
pub(crate) struct Watch<'a> {
    deadlines: &'a Deadlines,
    stay: Option<Stay>,
    /// When the stay is due. No later than the present phase's end: what is due too soon enters again.
    at: Instant,
    /// Which task it wakes, by address; the table keeps its waker.
    task: (usize, usize),
    /// The table's count of rounds at the last look.
    rounds: u32,
}

/// A future with an end; made by [`Deadlines::limit`] and [`Deadlines::limit_pinned`].
pub(crate) struct Limited<'a, F> {
    watch: Watch<'a>,
    at: Instant,
    future: Pin<&'a mut F>,
}

impl Deadlines {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `future` until `at` at the latest.
    pub(crate) async fn limit<F: Future>(&self, at: Instant, future: F) -> Result<F::Output, Elapsed> {
        self.limit_pinned(at, std::pin::pin!(future)).await
    }

    /// Like [`limit`](Self::limit), for a future that has its place already.
    pub(crate) fn limit_pinned<'a, F>(&'a self, at: Instant, future: Pin<&'a mut F>) -> Limited<'a, F> {
        Limited {
            watch: self.watch(),
            at,
            future,
        }
    }

    /// For a call of several phases.
    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch {
            deadlines: self,
            stay: None,
            at: Instant::FAR_FUTURE,
            task: (0, 0),
            rounds: 0,
        }
    }

    /// Wakes at `at`, unless it is unset before; `None` for a time that never comes.
    pub(super) fn set(&self, at: Instant, waker: Waker) -> Option<Stay> {
        if at == Instant::FAR_FUTURE {
            return None;
        }
        let mut table = self.lock();
        let stay = table.enter(at, waker);
        let is_sooner = table.served_at.is_some_and(|served| at < served);
        drop(table);
        if is_sooner {
            self.wake.notify(1);
        }
        Some(stay)
    }

    pub(super) fn unset(&self, stay: Stay) {
        // A statement of its own: the waker is dropped after the lock.
        let left = self.lock().leave(stay);
        drop(left);
    }

    /// Upkeep's round: wakes what ran out, soonest first, and says when the next one does.
    pub(crate) fn serve(&self, now: Instant) -> Option<Instant> {
        let mut table = self.lock();
        let mut out = table.take_due(now);
        let next = table.first();
        table.served_at = None;
        if !out.is_empty() {
            self.rounds.fetch_add(1, Ordering::Release);
        }
        drop(table);
        out.sort_by_key(|(at, _)| *at);
        out.into_iter().for_each(|(_, waker)| waker.wake());
        next
    }

    /// Upkeep is about to sleep until `at`: earlier deadlines wake it. `false`: one came in meanwhile, look again.
    pub(crate) fn rest_until(&self, at: Instant) -> bool {
        let mut table = self.lock();
        table.served_at = Some(at);
        table.first().is_none_or(|first| first >= at)
    }
}

impl Table {
    fn enter(&mut self, at: Instant, waker: Waker) -> Stay {
        let index = self.vacant.pop().unwrap_or(self.entries.len());
        if index == self.entries.len() {
            self.entries.push(Entry {
                at,
                generation: 0,
                waker: None,
            });
        }
        let entry = &mut self.entries[index];
        entry.at = at;
        entry.waker = Some(waker);
        Stay {
            // Bounded by the calls in progress.
            index: index as u32,
            generation: entry.generation,
        }
    }

    /// The entry of a stay that is not over.
    fn find(&mut self, stay: Stay) -> Option<&mut Entry> {
        self.entries
            .get_mut(stay.index as usize)
            .filter(|entry| entry.generation == stay.generation)
    }

    fn leave(&mut self, stay: Stay) -> Option<Waker> {
        let entry = self.find(stay)?;
        entry.generation = entry.generation.wrapping_add(1);
        let waker = entry.waker.take();
        self.vacant.push(stay.index as usize);
        waker
    }

    fn take_due(&mut self, now: Instant) -> Vec<(Instant, Waker)> {
        let mut out = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.at <= now
                && let Some(waker) = entry.waker.take()
            {
                entry.generation = entry.generation.wrapping_add(1);
                self.vacant.push(index);
                out.push((entry.at, waker));
            }
        }
        out
    }

    fn first(&self) -> Option<Instant> {
        let taken = self.entries.iter().filter(|entry| entry.waker.is_some());
        taken.map(|entry| entry.at).min()
    }
}

impl Watch<'_> {
    /// Runs `future` until `at` at the latest.
    pub(crate) fn limit_pinned<F: Future>(
        &mut self,
        at: Instant,
        mut future: Pin<&mut F>,
    ) -> impl Future<Output = Result<F::Output, Elapsed>> {
        std::future::poll_fn(move |cx| self.poll_until(at, future.as_mut(), cx))
    }

    fn poll_until<F: Future>(
        &mut self,
        at: Instant,
        future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<F::Output, Elapsed>> {
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let unchanged = self.stay.is_some()
            && self.at <= at
            && self.task == task(cx.waker())
            && self.rounds == self.deadlines.rounds.load(Ordering::Acquire);
        if at == Instant::FAR_FUTURE || unchanged {
            return Poll::Pending;
        }
        match self.set(at, cx.waker()) {
            Ok(()) => Poll::Pending,
            Err(elapsed) => Poll::Ready(Err(elapsed)),
        }
    }

    /// Sees to it that `waker` is woken at `at` or before; an error when that was done already.
    fn set(&mut self, at: Instant, waker: &Waker) -> Result<(), Elapsed> {
        self.task = task(waker);
        let mut table = self.deadlines.lock();
        self.rounds = self.deadlines.rounds.load(Ordering::Acquire);
        let mut old = None;
        match self.stay.map(|stay| (stay, table.find(stay))) {
            Some((_, Some(entry))) => {
                if !entry.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    old = entry.waker.replace(waker.clone());
                }
                entry.at = entry.at.min(at);
            }
            Some((_, None)) if self.at >= at => {
                self.stay = None;
                return Err(Elapsed);
            }
            _ => {
                self.stay = Some(table.enter(at, waker.clone()));
                self.at = at;
            }
        }
        self.at = self.at.min(at);
        let is_sooner = table.served_at.is_some_and(|served| self.at < served);
        drop(table);
        // Its owner's to drop, outside the lock.
        drop(old);
        if is_sooner {
            self.deadlines.wake.notify(1);
        }
        Ok(())
    }
}

/// The task that a waker wakes, for as long as anybody keeps it.
fn task(waker: &Waker) -> (usize, usize) {
    (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr())
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(stay) = self.stay {
            self.deadlines.unset(stay);
        }
    }
}

impl<F: Future> Future for Limited<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.watch.poll_until(this.at, this.future.as_mut(), cx)
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("stay", &self.stay)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines")
            .field("first", &self.lock().first())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use futures_util::FutureExt as _;

    use super::{Deadlines, Elapsed};
    use crate::Instant;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    const fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn a_call_that_does_not_wait_is_not_entered() {
        let deadlines = Deadlines::default();
        assert_eq!(deadlines.limit(at(1), ready(7)).now_or_never(), Some(Ok(7)));
        assert_eq!(deadlines.serve(at(0)), None);
    }

    #[test]
    fn what_is_due_ends_and_the_rest_waits() {
        let deadlines = Deadlines::default();
        let mut early = pin!(deadlines.limit(at(10), pending::<()>()));
        let mut late = pin!(deadlines.limit(at(20), pending::<()>()));
        let mut never = pin!(deadlines.limit(Instant::FAR_FUTURE, pending::<()>()));
        assert_eq!(late.as_mut().now_or_never(), None);
        assert_eq!(early.as_mut().now_or_never(), None);
        assert_eq!(never.as_mut().now_or_never(), None);
        assert_eq!(deadlines.serve(at(9)), Some(at(10)));
        assert_eq!(early.as_mut().now_or_never(), None);
        assert_eq!(deadlines.serve(at(10)), Some(at(20)));
        assert_eq!(early.as_mut().now_or_never(), Some(Err(Elapsed)));
        assert_eq!(late.as_mut().now_or_never(), None);
        assert_eq!(deadlines.serve(at(20)), None);
        assert_eq!(late.as_mut().now_or_never(), Some(Err(Elapsed)));
        assert_eq!(never.as_mut().now_or_never(), None);
    }

    #[test]
    fn a_stay_that_is_over_is_not_taken_for_the_next_one_in_its_place() {
        let deadlines = Deadlines::default();
        let mut first = Box::pin(deadlines.limit(at(10), pending::<()>()));
        assert_eq!(first.as_mut().now_or_never(), None);
        assert_eq!(deadlines.serve(at(10)), None);
        let mut second = pin!(deadlines.limit(at(20), pending::<()>()));
        assert_eq!(second.as_mut().now_or_never(), None);
        // The first one is woken late, or dropped unread: the second one's entry stays.
        drop(first);
        assert_eq!(deadlines.serve(at(15)), Some(at(20)));
        assert_eq!(second.as_mut().now_or_never(), None);
        assert_eq!(deadlines.lock().entries.len(), 1, "the place is used again");
    }

    #[test]
    fn a_call_keeps_its_place_through_its_phases() {
        let deadlines = Deadlines::default();
        let mut watch = deadlines.watch();
        let mut never = pin!(pending::<()>());
        assert_eq!(watch.limit_pinned(at(10), never.as_mut()).now_or_never(), None);
        assert_eq!(watch.limit_pinned(at(30), never.as_mut()).now_or_never(), None);
        assert_eq!(deadlines.lock().entries.len(), 1);
        // Woken too soon: it enters again, with its own end.
        assert_eq!(deadlines.serve(at(10)), None);
        assert_eq!(watch.limit_pinned(at(30), never.as_mut()).now_or_never(), None);
        assert_eq!(deadlines.serve(at(29)), Some(at(30)));
        assert_eq!(watch.limit_pinned(at(30), never.as_mut()).now_or_never(), None);
        assert_eq!(deadlines.serve(at(30)), None);
        let elapsed = watch.limit_pinned(at(30), never.as_mut()).now_or_never();
        assert_eq!(elapsed, Some(Err(Elapsed)));
        // A phase that ends sooner than the one before.
        assert_eq!(watch.limit_pinned(at(50), never.as_mut()).now_or_never(), None);
        assert_eq!(watch.limit_pinned(at(40), never.as_mut()).now_or_never(), None);
        assert_eq!(deadlines.serve(at(30)), Some(at(40)));
        drop(watch);
        assert_eq!(deadlines.serve(at(30)), None);
    }

    #[test]
    fn the_task_that_polls_last_is_woken() {
        let deadlines = Deadlines::default();
        let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let mut limited = pin!(deadlines.limit(at(10), pending::<()>()));
        for count in [&first, &last] {
            let waker = Waker::from(Arc::clone(count));
            assert!(limited.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        deadlines.serve(at(10));
        let woken = [first, last].map(|count| count.0.load(Ordering::SeqCst));
        assert_eq!(woken, [0, 1]);
    }

    #[test]
    fn upkeep_looks_again_when_an_earlier_deadline_came_in() {
        let deadlines = Deadlines::default();
        assert!(deadlines.rest_until(at(50)));
        let woken = deadlines.wake.listen();
        let mut call = pin!(deadlines.limit(at(40), pending::<()>()));
        assert_eq!(call.as_mut().now_or_never(), None);
        assert_eq!(woken.now_or_never(), Some(()));
        assert!(!deadlines.rest_until(at(50)));
    }
}
