//! Schedules: every choice is recorded and can be replayed and taken back; faults of time do what they say.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use gdbpool::{Instant, Runtime};
use gdbpool_sim::fault::{Fault, FaultKind, Micros, TimeFault, Trigger};
use gdbpool_sim::{Choices, Schedule, Sim};

/// Six tasks that take turns over timers of the same instants; gives the order of their turns.
fn turns(sim: &Sim) -> Vec<u32> {
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..6 {
        let (order, runtime) = (Arc::clone(&order), sim.runtime());
        sim.runtime().spawn(Box::pin(async move {
            for round in 1..=4u64 {
                runtime.sleep_until(Instant::from_nanos(round * 100)).await;
                order.lock().unwrap().push(number);
            }
        }));
    }
    sim.advance(Duration::from_secs(1));
    let order = order.lock().unwrap();
    order.clone()
}

const SCHEDULES: [Schedule; 4] = [
    Schedule::Fifo,
    Schedule::Random,
    Schedule::Pct { depth: 3 },
    Schedule::Starve { task: 1 },
];

#[test]
fn a_run_is_replayed_by_its_choices_and_shrinks_towards_fifo() {
    let fifo = turns(&Sim::with_schedule(0, Schedule::Fifo));
    for schedule in SCHEDULES {
        for seed in 0..10 {
            let sim = Sim::with_schedule(seed, schedule);
            let order = turns(&sim);
            let replay = |choices: Choices| {
                let again = Sim::new(seed);
                again.replay_choices(choices);
                (turns(&again), again.trace_hash())
            };
            assert_eq!(
                replay(sim.choices()),
                (order, sim.trace_hash()),
                "{schedule:?}, seed {seed}"
            );
            assert_eq!(replay(Choices::default()).0, fifo, "{schedule:?}, seed {seed}");
            // Any subset is a run, and a later choice that is taken back does not touch what was before it.
            let mut fewer = sim.choices();
            fewer.0.pop_last();
            let _ = replay(fewer);
        }
    }
}

#[test]
fn schedules_differ_and_starving_starves() {
    let orders: BTreeSet<_> = SCHEDULES.iter().map(|&of| turns(&Sim::with_schedule(1, of))).collect();
    assert_eq!(orders.len(), SCHEDULES.len());
    for seed in 0..10 {
        // Task 1 is the first one that is spawned, number 0 here.
        let order = turns(&Sim::with_schedule(seed, Schedule::Starve { task: 1 }));
        for round in order.chunks(6) {
            assert_eq!(round.last(), Some(&0), "seed {seed}: {order:?}");
        }
    }
}

#[test]
fn another_schedule_holds_as_long_as_its_fault() {
    let sim = Sim::with_schedule(1, Schedule::Random);
    let reschedule = TimeFault::Reschedule {
        schedule: Schedule::Fifo,
    };
    sim.set_faults([Fault {
        trigger: Trigger::At(Micros(0)),
        what: FaultKind::Time(reschedule),
        span: Some(Micros::from_secs(10)),
    }]);
    assert_eq!(turns(&sim), turns(&Sim::with_schedule(1, Schedule::Fifo)));
    assert_eq!(sim.schedule(), Schedule::Fifo);
    sim.advance(Duration::from_secs(10));
    assert_eq!(sim.schedule(), Schedule::Random);
}

#[test]
fn a_jump_makes_everything_up_to_it_due_in_order() {
    let sim = Sim::new(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    for second in [3, 1, 2, 50] {
        let (order, runtime) = (Arc::clone(&order), sim.runtime());
        sim.runtime().spawn(Box::pin(async move {
            runtime
                .sleep_until(Instant::from_nanos(0) + Duration::from_secs(second))
                .await;
            order.lock().unwrap().push((second, runtime.now()));
        }));
    }
    sim.run_until_idle();
    sim.inject(
        FaultKind::Time(TimeFault::Jump {
            by: Micros::from_secs(10),
        }),
        None,
    );
    sim.run_until_idle();
    let ten = Instant::from_nanos(0) + Duration::from_secs(10);
    assert_eq!(*order.lock().unwrap(), [(1, ten), (2, ten), (3, ten)]);
}

#[test]
fn spurious_wakes_poll_who_was_not_woken() {
    let polls = |percent| {
        let sim = Sim::new(1);
        let polls = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&polls);
        sim.runtime().spawn(Box::pin(poll_fn(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Poll::Pending
        })));
        sim.inject(FaultKind::Time(TimeFault::SpuriousWakes { percent }), None);
        turns(&sim);
        (
            polls.load(Ordering::Relaxed),
            sim.coverage().count("fault.time.spurious_wakes.noticed"),
        )
    };
    assert_eq!(polls(0), (1, 0));
    let (some, noticed) = polls(50);
    assert!(some > 1 && noticed > 0, "{some} polls, {noticed} wakes");
}
