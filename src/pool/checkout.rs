//! The checkout: an idle session, or a place in the queue and a hand-off, validated and wrapped in a guard.
//!
//! Between callers and ledger. What is handed over travels inside [`Granted`], so that a future dropped at any point gives
//! its session back by type. It holds no policy: the ledger says who is next.

use std::borrow::BorrowMut;
use std::fmt;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::deadlines::Watch;
use super::events::PoolEvent;
use super::handoff::{Delivery, HandOff};
use super::lease::Lease;
use super::ledger::{Checkout, Refusal, SlotId, WaiterId};
use super::report;
use super::shared::{Books, Shared};
use crate::Instant;
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::observe::PoolMetrics;
use crate::runtime::point;
use crate::session::{Abandoned, Mode, Session};

/// A session on its way to a caller. Dropped on the way, it goes to the next one.
pub(super) struct Granted {
    /// Empty once accepted.
    goods: Option<(Arc<Shared>, Arc<Session>)>,
    slot: SlotId,
    ping: bool,
}

/// A caller's place in the queue. Dropped, it is given up.
struct Place<'a> {
    pool: &'a Arc<Shared>,
    waiter: WaiterId,
    hand_off: Option<HandOff>,
    at: &'static Location<'static>,
    /// Its caller is told why it goes without a session.
    timed_out: bool,
}

/// What a checkout has spent its time on so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) queued: Duration,
    pub(super) validating: Duration,
    /// Callers that were still before this one when it gave up.
    pub(super) ahead: u32,
    /// When the present phase began.
    since: Instant,
}

impl Spent {
    fn since(now: Instant) -> Self {
        Self {
            queued: Duration::ZERO,
            validating: Duration::ZERO,
            ahead: 0,
            since: now,
        }
    }

    /// The whole wait so far; looked at by metrics only.
    fn total_until(&self, pool: &Shared) -> Duration {
        if !PoolMetrics::ON {
            return Duration::ZERO;
        }
        self.queued + self.validating + (pool.runtime.now() - self.since)
    }

    fn queued_until(&mut self, now: Instant) {
        self.queued += now - self.since;
        self.since = now;
    }

    fn validating_until(&mut self, now: Instant) {
        self.validating += now - self.since;
        self.since = now;
    }
}

impl Granted {
    pub(super) fn new(pool: &Arc<Shared>, slot: SlotId, session: Arc<Session>, ping: bool) -> Self {
        Self {
            goods: Some((Arc::clone(pool), session)),
            slot,
            ping,
        }
    }

    /// The lease, which takes the channel it came through back to the shelf.
    fn accept(mut self, hand_off: Option<HandOff>) -> Option<Lease> {
        let (pool, session) = self.goods.take()?;
        point!(pool.runtime, "checkout.granted");
        Some(Lease::new(pool, self.slot, session, hand_off))
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some((pool, session)) = self.goods.take() {
            point!(pool.runtime, "checkout.passed_on");
            pool.pass_on(self.slot, session);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(hand_off) = self.hand_off.take() else { return };
        let now = self.pool.coarse_now();
        let mut books = self.pool.lock();
        if books.ledger.abandon(now, self.waiter) {
            books.forget_waiter(self.waiter);
            books.shelf.put(hand_off);
            drop(books);
            if !self.timed_out {
                self.tell();
            }
            return;
        }
        drop(books);
        // Granted already: nothing more can come in now, and what came passes itself on.
        drop(hand_off.shut());
    }
}

impl Place<'_> {
    /// A caller's future was dropped in the queue.
    fn tell(&self) {
        self.pool.events.send(|| PoolEvent::Abandoned {
            pool: Arc::clone(&self.pool.config.name),
            pid: None,
            at: self.at,
            outcome: Abandoned::NotExecuted,
        });
    }
}

/// The wait for the delivery.
impl Future for Place<'_> {
    type Output = Delivery;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Delivery> {
        match &self.hand_off {
            Some(hand_off) => hand_off.poll(cx),
            None => Poll::Ready(Delivery::Closed),
        }
    }
}

/// Takes a session from the pool, waiting until `deadline` at the latest.
///
/// The caller's watch may be kept for what follows.
pub(super) async fn checkout<'a>(
    pool: &'a Arc<Shared>,
    mut watch: impl BorrowMut<Watch<'a>>,
    at: &'static Location<'static>,
    deadline: Option<Instant>,
) -> Result<Lease, Error> {
    let mut asked = match ask(pool, at) {
        Asked::Session(granted) if !granted.ping => {
            pool.metrics.waited(Duration::ZERO);
            return granted.accept(None).ok_or_else(|| refused(pool, Refusal::Closed));
        }
        other => other,
    };
    let mut spent = Spent::since(pool.now_for(pool.config.checkout_timeout));
    let longest = spent.since + pool.config.checkout_timeout;
    let deadline = deadline.map_or(longest, |deadline| deadline.min(longest));
    loop {
        let (granted, hand_off) = match asked {
            Asked::Session(granted) => (granted, None),
            Asked::Wait(mut place) => {
                point!(pool.runtime, "checkout.queued");
                let delivery = watch.borrow_mut().limit_pinned(deadline, Pin::new(&mut place)).await;
                match delivery {
                    Ok(Delivery::Session(granted)) => (granted, place.hand_off.take()),
                    Ok(Delivery::Shed(waited)) => return Err(shed(pool, waited)),
                    Ok(Delivery::Closed) => return Err(refused(pool, Refusal::Closed)),
                    Err(_) => {
                        spent.queued_until(pool.runtime.now());
                        spent.ahead = pool.lock().ledger.ahead_of(place.waiter);
                        place.timed_out = true;
                        drop(place);
                        return Err(report::timed_out(pool, Phase::Queued, spent));
                    }
                }
            }
            Asked::Refused(why) => return Err(refused(pool, why)),
        };
        let ping = granted.ping;
        let Some(lease) = granted.accept(hand_off) else {
            return Err(refused(pool, Refusal::Closed));
        };
        if !ping {
            pool.metrics.waited(spent.total_until(pool));
            return Ok(lease);
        }
        // Boxed, because it is rare and large: every checkout would carry, and move, the room for it.
        asked = match Box::pin(validate(pool, lease, deadline, at, &mut spent)).await? {
            Ok(lease) => {
                pool.metrics.waited(spent.total_until(pool));
                return Ok(lease);
            }
            Err(next) => next,
        };
    }
}

enum Asked<'a> {
    Refused(Refusal),
    Session(Granted),
    Wait(Place<'a>),
}

/// One question to the ledger, under its lock.
fn ask<'a>(pool: &'a Arc<Shared>, at: &'static Location<'static>) -> Asked<'a> {
    let now = match pool.config.shed {
        None => pool.coarse_now(),
        // Waits are measured from here, against the target.
        Some((target, _)) => pool.now_for(target),
    };
    let mut books = pool.lock();
    let answer = books.ledger.checkout(now, at);
    let asked = answered(pool, &mut books, answer, at);
    let wake = matches!(asked, Asked::Wait(_)) && books.ledger.wake_for_waiter(now);
    drop(books);
    if wake {
        pool.wake_upkeep();
    }
    asked
}

fn answered<'a>(
    pool: &'a Arc<Shared>,
    books: &mut Books,
    answer: Checkout,
    at: &'static Location<'static>,
) -> Asked<'a> {
    match answer {
        Checkout::Refused(why) => Asked::Refused(why),
        Checkout::Session { slot, ping } => match books.take_session(slot) {
            Some(session) => Asked::Session(Granted::new(pool, slot, session, ping)),
            None => Asked::Refused(Refusal::Closed),
        },
        Checkout::Wait(waiter) => {
            let hand_off = books.shelf.take();
            books.await_delivery(waiter, hand_off.clone());
            Asked::Wait(Place {
                pool,
                waiter,
                hand_off: Some(hand_off),
                at,
                timed_out: false,
            })
        }
    }
}

/// Asks an idle session for a sign of life. A dead one is closed, and the caller keeps its turn.
async fn validate<'a>(
    pool: &'a Arc<Shared>,
    lease: Lease,
    deadline: Instant,
    at: &'static Location<'static>,
    spent: &mut Spent,
) -> Result<Result<Lease, Asked<'a>>, Error> {
    spent.queued_until(pool.runtime.now());
    point!(pool.runtime, "checkout.validating");
    let limit = deadline.min(spent.since + pool.config.ping_timeout);
    let answered = pool.deadlines.limit(limit, lease.ping()).await;
    let now = pool.runtime.now();
    spent.validating_until(now);
    match answered {
        Ok(Ok(())) => Ok(Ok(lease)),
        // The caller's time is up; the session is proved or given up by its settling.
        Err(_) if limit == deadline => {
            // Before the report, which would name this very caller as a holder.
            drop(lease);
            Err(report::timed_out(pool, Phase::Validating, *spent))
        }
        Ok(Err(_)) | Err(_) => {
            let (slot, session, hand_off) = lease.take_apart();
            session.kill();
            let mut books = pool.lock();
            books.shelf.take_back(hand_off);
            let (effects, answer) = books.ledger.revalidate(now, slot, at);
            let next = self::answered(pool, &mut books, answer, at);
            pool.carry_out(books, effects);
            Ok(Err(next))
        }
    }
}

fn shed(pool: &Shared, waited: Duration) -> Error {
    let error = Error::new(ErrorKind::Shed, Outcome::NotExecuted, Phase::Queued);
    error
        .with_spent(vec![(Phase::Queued, waited)])
        .with_pool(&pool.config.name)
}

fn refused(pool: &Shared, why: Refusal) -> Error {
    let kind = match why {
        Refusal::Closed => ErrorKind::PoolClosed,
        Refusal::QueueFull => ErrorKind::QueueFull,
    };
    Error::new(kind, Outcome::NotExecuted, Phase::Queued).with_pool(&pool.config.name)
}

impl Lease {
    /// A Sync round trip, which leaves nothing behind.
    async fn ping(&self) -> Result<(), crate::session::Failure> {
        let session = self.session();
        let alive = pin!(session.client().check_connection());
        session.request_whole(self.ticket(), Mode::Template, alive).await
    }
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted")
            .field("slot", &self.slot)
            .field("ping", &self.ping)
            .finish_non_exhaustive()
    }
}
