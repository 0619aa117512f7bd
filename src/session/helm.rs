//! The helm of a session: the one caller, if any, that is woken in the driver's place and reads its own answer.
//!
//! Beside the wire. A call whose request is the only one under way takes it, so that its answer wakes no task but the
//! caller's. Whoever needs the driver relieves it: then it waits like everybody else. It polls nothing itself.

use std::mem;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Helm {
    /// Read without the lock by whoever can as well wake the driver, which looks here under the lock after it has polled.
    is_taken: AtomicBool,
    seat: Mutex<Option<Seat>>,
}

#[derive(Debug)]
struct Seat {
    /// The number of the request.
    owner: NonZeroU64,
    /// Empty once it was woken, until it looks again.
    waker: Option<Waker>,
}

impl Helm {
    fn seat(&self) -> MutexGuard<'_, Option<Seat>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The only request under way takes the helm. Whoever had it was relieved before.
    pub(super) fn take(&self, owner: NonZeroU64, waker: &Waker) {
        let waker = Some(waker.clone());
        let before = self.seat().replace(Seat { owner, waker });
        self.is_taken.store(true, Ordering::Release);
        drop(before);
    }

    /// What happens from here on wakes `waker`. `false`: this request has the helm no longer.
    pub(super) fn keep(&self, owner: NonZeroU64, waker: &Waker) -> bool {
        let mut seat = self.seat();
        let Some(seat) = seat.as_mut().filter(|seat| seat.owner == owner) else {
            return false;
        };
        if !seat.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            seat.waker = Some(waker.clone());
        }
        true
    }

    /// This request leaves the helm, if it has it. `true`: it was woken, and has not looked since.
    pub(super) fn leave(&self, owner: NonZeroU64) -> bool {
        let mut seat = self.seat();
        if seat.as_ref().is_none_or(|seat| seat.owner != owner) {
            return false;
        }
        self.is_taken.store(false, Ordering::Release);
        let left = seat.take();
        drop(seat);
        left.is_some_and(|seat| seat.waker.is_none())
    }

    /// Takes the helm from whoever has it, and wakes it, so that it waits for its answer like everybody else.
    pub(super) fn relieve(&self) {
        if self.is_taken.load(Ordering::Acquire) {
            let mut seat = self.seat();
            self.is_taken.store(false, Ordering::Release);
            let relieved = seat.take();
            drop(seat);
            if let Some(waker) = relieved.and_then(|seat| seat.waker) {
                waker.wake();
            }
        }
    }

    /// Wakes whoever has the helm; `false` when it seems to be nobody.
    pub(super) fn wake(&self) -> bool {
        self.is_taken.load(Ordering::Acquire) && self.nudge()
    }

    /// Wakes whoever has the helm; `false` when nobody has.
    pub(super) fn nudge(&self) -> bool {
        let mut seat = self.seat();
        let Some(taken) = seat.as_mut() else { return false };
        let waker = mem::take(&mut taken.waker);
        drop(seat);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::Helm;

    const OWNER: NonZeroU64 = NonZeroU64::MIN;
    const NEXT: NonZeroU64 = NonZeroU64::MAX;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counted() -> (impl Fn() -> usize, Waker) {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        (move || count.0.swap(0, Ordering::SeqCst), waker)
    }

    #[test]
    fn whoever_has_the_helm_is_woken_once_for_each_look() {
        let (woken, waker) = counted();
        let helm = Helm::default();
        assert!(!helm.wake() && !helm.nudge());
        helm.take(OWNER, &waker);
        assert!(helm.wake() && helm.wake() && helm.nudge());
        assert_eq!(woken(), 1);
        assert!(helm.keep(OWNER, &waker));
        assert!(helm.wake());
        assert_eq!(woken(), 1);
        assert!(helm.keep(OWNER, &waker));
        assert!(!helm.leave(OWNER), "nothing came since it looked");
        assert!(!helm.wake());
        assert_eq!(woken(), 0);
    }

    #[test]
    fn what_a_leaver_has_not_looked_at_is_said() {
        let (woken, waker) = counted();
        let helm = Helm::default();
        helm.take(OWNER, &waker);
        assert!(helm.wake());
        assert!(helm.leave(OWNER));
        assert!(!helm.leave(OWNER), "it has left already");
        assert_eq!(woken(), 1);
    }

    #[test]
    fn a_relieved_one_is_woken_and_touches_the_next_ones_place_no_more() {
        let ((woken, waker), (next_woken, next)) = (counted(), counted());
        let helm = Helm::default();
        helm.take(OWNER, &waker);
        helm.relieve();
        helm.relieve();
        assert_eq!(woken(), 1);
        assert!(!helm.keep(OWNER, &waker));
        helm.take(NEXT, &next);
        assert!(!helm.keep(OWNER, &waker) && !helm.leave(OWNER));
        assert!(helm.wake());
        assert_eq!((woken(), next_woken()), (0, 1));
    }
}
