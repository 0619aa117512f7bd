//! The ledger's property test, and the examples that a random history proves too weakly.
//!
//! A failing history is printed with the line that replays it: `GDBPOOL_SEED` alone fixes every case.

use std::panic::Location;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::model::{self, Op};
use super::{Checkout, ConnectFailure, Effects, Grant, Ledger, Limits, Return, SlotId};
use crate::Instant;
use crate::pool::close_reason::CloseReason;

/// Histories per seed, and their longest.
const CASES: u32 = 1_000;
const LONGEST: usize = 200;
/// Tried when `GDBPOOL_SEED` is not set.
const SEEDS: [u64; 3] = [1, 2, 3];

#[test]
fn every_history_keeps_the_books() {
    let given = std::env::var("GDBPOOL_SEED").ok();
    let seeds = match &given {
        Some(seed) => vec![seed.parse().expect("GDBPOOL_SEED is a number")],
        None => SEEDS.to_vec(),
    };
    for seed in seeds {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let ops = vec(any::<[u8; 4]>().prop_map(Op::decode), 0..=LONGEST);
        let outcome = runner.run(&(any::<model::Setup>(), ops), |(setup, ops)| {
            model::run(setup, &ops);
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}\nreplay: GDBPOOL_SEED={seed} cargo test --lib every_history_keeps_the_books");
        }
    }
}

#[test]
fn sessions_opened_together_do_not_end_together() {
    let mut ledger = Ledger::new(
        Limits {
            max: 2,
            max_connecting: 2,
            hold_warning: None,
            ..LIMITS
        },
        at_millis(0),
    );
    let slots = dial_for_waiters(&mut ledger, 2);
    for (slot, random) in slots.iter().zip([0, u64::MAX]) {
        assert!(ledger.connected(at_millis(0), *slot, random).grant.is_some());
    }
    for slot in &slots {
        let _ = ledger.checkin(at_millis(1), *slot, Return::Clean);
    }
    assert_eq!(
        ledger.next_wake(at_millis(1)),
        Some(Instant::from_nanos(900_000_000_001))
    );
    assert_eq!(ledger.reap(at_millis(899_999)), None);
    assert_eq!(
        ledger.reap(at_millis(900_001)),
        Some(slots[1]),
        "the jitter takes off up to a tenth"
    );
    assert_eq!(ledger.reap(at_millis(999_999)), None);
    assert_eq!(ledger.reap(at_millis(1_000_000)), Some(slots[0]));
    assert_eq!(
        ledger
            .status(at_millis(1_000_000))
            .counters
            .closes(CloseReason::Lifetime),
        2
    );
}

#[test]
fn pauses_grow_are_drawn_and_end() {
    let pause = |failures: &[ConnectFailure], random: u64| {
        let mut ledger = Ledger::new(LIMITS, at_millis(0));
        let _ = ledger.checkout(at_millis(0), Location::caller());
        let mut now = at_millis(0);
        for failure in failures {
            now = ledger.status(now).backoff_until.unwrap_or(now);
            let slot = ledger.next_connect(now).expect("a dial after the pause");
            let _ = ledger.connect_failed(now, slot, *failure, random);
        }
        ledger.status(now).backoff_until.expect("a pause after a failure") - now
    };
    use ConnectFailure::{Overloaded, Permanent, Transient};
    let millis = |pause: Duration| (pause.as_micros() + 500) / 1_000;
    assert_eq!(millis(pause(&[Transient], u64::MAX)), 100);
    assert_eq!(millis(pause(&[Transient; 3], u64::MAX)), 400, "the ceiling doubles");
    assert_eq!(
        millis(pause(&[Overloaded; 3], u64::MAX)),
        3_200,
        "and twice as fast when there is no room"
    );
    assert_eq!(millis(pause(&[Transient; 60], u64::MAX)), 5_000, "up to the cap");
    assert_eq!(
        millis(pause(&[Transient; 60], 0)),
        25,
        "jitter is full, but a pause stays a pause"
    );
    assert_eq!(
        millis(pause(&[Permanent], 0)),
        2_500,
        "what somebody must repair is not hammered"
    );
}

#[test]
fn dials_that_fail_together_count_once_and_the_next_goes_alone() {
    let mut ledger = Ledger::new(
        Limits {
            max: 16,
            max_connecting: 8,
            ..LIMITS
        },
        at_millis(0),
    );
    for slot in dial_for_waiters(&mut ledger, 8) {
        let _ = ledger.connect_failed(at_millis(1), slot, ConnectFailure::Transient, u64::MAX);
    }
    let until = ledger
        .status(at_millis(1))
        .backoff_until
        .expect("a pause after a failure");
    assert!(until <= at_millis(101), "eight failures of one burst doubled the pause");
    assert_eq!(ledger.next_wake(at_millis(1)), Some(until));
    for alone in [1, 2, 4] {
        let dials: Vec<SlotId> = std::iter::from_fn(|| ledger.next_connect(until)).collect();
        assert_eq!(dials.len(), alone, "each success admits one more");
        for slot in dials {
            let effects = ledger.connected(until, slot, 0);
            assert!(effects.grant.is_some() || alone == 4, "a waiter is left out");
        }
    }
}

#[test]
fn the_bound_on_dials_holds_across_failures() {
    let mut ledger = Ledger::new(
        Limits {
            max_connecting: 2,
            ..LIMITS
        },
        at_millis(0),
    );
    let slow_and_failed = dial_for_waiters(&mut ledger, 2);
    for _ in 0..3 {
        let _ = ledger.checkout(at_millis(0), Location::caller());
    }
    let _ = ledger.connect_failed(at_millis(1), slow_and_failed[1], ConnectFailure::Transient, 0);
    let until = ledger
        .status(at_millis(1))
        .backoff_until
        .expect("a pause after a failure");
    let alone = ledger.next_connect(until).expect("a dial after the pause");
    assert_eq!(ledger.next_connect(until), None);
    let _ = ledger.connected(until, alone, 0);
    assert!(ledger.next_connect(until).is_some());
    assert_eq!(ledger.next_connect(until), None, "the slow dial is still under way");
}

#[test]
fn a_clock_that_lags_does_not_bring_a_pause_back() {
    let mut ledger = Ledger::new(LIMITS, at_millis(0));
    let Checkout::Wait(waiter) = ledger.checkout(at_millis(0), Location::caller()) else {
        panic!("must wait")
    };
    let slot = ledger.next_connect(at_millis(0)).expect("a dial");
    let _ = ledger.connect_failed(at_millis(0), slot, ConnectFailure::Permanent, u64::MAX);
    assert!(ledger.abandon(at_millis(0), waiter));
    let until = ledger.next_wake(at_millis(0)).expect("upkeep sees the pause end");
    assert_eq!(
        ledger.next_wake(until),
        None,
        "nothing is left to do, so nothing wakes upkeep"
    );
    let lagging = at_millis(until.as_nanos() / 1_000_000 - 1);
    assert!(matches!(
        ledger.checkout(lagging, Location::caller()),
        Checkout::Wait(_)
    ));
    assert!(ledger.connect_due(lagging), "nobody would dial for this waiter");
}

#[test]
fn a_failed_ping_keeps_its_callers_turn() {
    let mut ledger = Ledger::new(Limits { max: 1, ..LIMITS }, at_millis(0));
    let slot = dial_for_waiters(&mut ledger, 1)[0];
    let _ = ledger.connected(at_millis(0), slot, 0);
    let Checkout::Wait(_later) = ledger.checkout(at_millis(1), Location::caller()) else {
        panic!("must wait")
    };
    let (effects, again) = ledger.revalidate(at_millis(2), slot, Location::caller());
    assert_eq!(effects.close, Some(slot));
    let Checkout::Wait(first) = again else {
        panic!("must wait")
    };
    assert_eq!(
        ledger.next_connect(at_millis(2)),
        None,
        "the dead session's capacity is not free yet"
    );
    let effects = ledger.closed(at_millis(3), slot);
    assert!(effects.wake_upkeep, "upkeep must dial");
    let slot = ledger.next_connect(at_millis(3)).expect("capacity for a dial");
    let Some(Grant::Session { waiter, .. }) = ledger.connected(at_millis(4), slot, 0).grant else {
        panic!("a waiter is left out")
    };
    assert_eq!(waiter, first);
}

#[test]
fn the_status_names_the_longest_holds_and_a_late_return() {
    let mut ledger = Ledger::new(
        Limits {
            max: 7,
            max_connecting: 7,
            ..LIMITS
        },
        at_millis(0),
    );
    let slots = dial_for_waiters(&mut ledger, 7);
    for (millis, slot) in (1..).zip(&slots) {
        let _ = ledger.connected(at_millis(millis), *slot, 0);
    }
    let held: Vec<SlotId> = ledger
        .status(at_millis(10))
        .longest_holds
        .iter()
        .map(|hold| hold.slot)
        .collect();
    assert_eq!(held, slots[..5]);
    let reported = ledger.overdue_holds(at_millis(30_002));
    assert_eq!(reported.len(), 2);
    assert_eq!(reported[0].at.file(), file!());
    assert!(
        ledger.overdue_holds(at_millis(30_002)).is_empty(),
        "each hold is reported once"
    );
    let effects = ledger.checkin(at_millis(30_005), slots[0], Return::Clean);
    assert_eq!(effects.late.map(|hold| hold.held), Some(Duration::from_millis(30_004)));
    assert_eq!(
        ledger.checkin(at_millis(30_005), slots[0], Return::Clean),
        Effects::default(),
        "returned twice"
    );
}

/// Queues callers and reserves a dial for each.
fn dial_for_waiters(ledger: &mut Ledger, callers: usize) -> Vec<SlotId> {
    for _ in 0..callers {
        assert!(matches!(
            ledger.checkout(at_millis(0), Location::caller()),
            Checkout::Wait(_)
        ));
    }
    let slots: Vec<SlotId> = std::iter::from_fn(|| ledger.next_connect(at_millis(0))).collect();
    assert_eq!(slots.len(), callers);
    slots
}

const fn at_millis(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

const LIMITS: Limits = Limits {
    min: 0,
    max: 10,
    max_connecting: 4,
    max_waiters: 100,
    max_lifetime: Some(Duration::from_secs(1_000)),
    lifetime_jitter: 0.1,
    idle_timeout: None,
    ping_after: None,
    hold_warning: Some(Duration::from_secs(30)),
    shed: None,
    backoff_base: Duration::from_millis(100),
    backoff_cap: Duration::from_secs(5),
};

/// One session that each holder keeps for 20 ms, callers every 5 ms: four times what it can serve.
#[test]
fn overload_is_shed_and_ends_with_the_queue() {
    let (target, interval) = (Duration::from_millis(50), Duration::from_millis(200));
    let limits = Limits {
        max: 1,
        shed: Some((target, interval)),
        hold_warning: None,
        ..LIMITS
    };
    let mut ledger = Ledger::new(limits, at_millis(0));
    let slot = dial_for_waiters(&mut ledger, 1)[0];
    let _ = ledger.connected(at_millis(0), slot, 0);
    let (mut first, mut shed, mut served) = (None, 0, Vec::new());
    for millis in 1..2_000 {
        let now = at_millis(millis);
        while let Some(refused) = ledger.shed(now) {
            assert!(refused.waited > target);
            first.get_or_insert(millis);
            shed += 1;
        }
        if millis % 5 == 0 {
            assert!(matches!(ledger.checkout(now, Location::caller()), Checkout::Wait(_)));
        }
        if millis % 20 == 0 {
            let Some(Grant::Session { waiter, .. }) = ledger.checkin(now, slot, Return::Clean).grant else {
                panic!("nobody waits at {millis} ms")
            };
            served.push(waiter);
        }
        let status = ledger.status(now);
        if first.is_some() {
            assert!(
                status.oldest_wait <= Some(target),
                "a wait of {:?} at {millis} ms",
                status.oldest_wait
            );
        }
    }
    // Those of the first interval were served within the target, those of the second were not.
    assert_eq!(first.map(|first| (200..=405).contains(&first)), Some(true), "{first:?}");
    assert!(shed > 200, "{shed}");
    assert_eq!(ledger.status(at_millis(2_000)).counters.shed, shed);
    assert_eq!(served.len(), 99, "nobody is refused instead of being served");

    // The callers stop: what is queued is served or refused, and then the session is idle.
    let mut millis = 2_000;
    while ledger.status(at_millis(millis)).idle == 0 {
        while ledger.shed(at_millis(millis)).is_some() {}
        let _ = ledger.checkin(at_millis(millis), slot, Return::Clean);
        millis += 20;
        assert!(millis < 3_000, "it never comes to rest");
    }
    assert!(!ledger.status(at_millis(millis)).is_overloaded);
    assert_eq!(
        ledger.next_wake(at_millis(millis)).map(|at| at > at_millis(10_000)),
        Some(true)
    );
}

/// A burst that waits longer than the target, once, is no overload.
#[test]
fn a_burst_is_not_shed() {
    let (target, interval) = (Duration::from_millis(5), Duration::from_millis(1_000));
    let limits = Limits {
        max: 1,
        shed: Some((target, interval)),
        ..LIMITS
    };
    let mut ledger = Ledger::new(limits, at_millis(0));
    let slot = dial_for_waiters(&mut ledger, 1)[0];
    let _ = ledger.connected(at_millis(0), slot, 0);
    for burst in 0..20 {
        let at = |millis: u64| at_millis(burst * 600 + millis);
        for _ in 0..50 {
            let _ = ledger.checkout(at(0), Location::caller());
        }
        for millis in 1..=50 {
            assert_eq!(ledger.shed(at(millis * 10)), None);
            let _ = ledger.checkin(at(millis * 10), slot, Return::Clean);
        }
        let _ = ledger.checkin(at(510), slot, Return::Clean);
    }
    assert_eq!(ledger.status(at_millis(20_000)).counters.shed, 0);
}

/// Nobody comes back at all: the waiters are refused after the first interval.
#[test]
fn a_pool_that_stands_still_sheds() {
    let (target, interval) = (Duration::from_millis(50), Duration::from_millis(200));
    let limits = Limits {
        max: 1,
        shed: Some((target, interval)),
        ..LIMITS
    };
    let mut ledger = Ledger::new(limits, at_millis(0));
    let Checkout::Wait(waiter) = ledger.checkout(at_millis(0), Location::caller()) else {
        panic!("must wait")
    };
    assert!(ledger.next_connect(at_millis(0)).is_some());
    assert_eq!(ledger.next_wake(at_millis(0)), Some(at_millis(200)));
    assert_eq!(ledger.shed(at_millis(199)), None);
    let shed = ledger.shed(at_millis(200)).expect("overdue");
    assert_eq!((shed.waiter, shed.waited), (waiter, Duration::from_millis(200)));
    assert!(!ledger.abandon(at_millis(201), waiter), "it is still in line");
}
