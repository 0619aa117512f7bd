//! The executor: the same seed gives the same run, another seed another; the clock jumps; hangs are named.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use gdbpool::{Instant, Runtime};
use gdbpool_sim::{Schedule, Sim};

/// Eight tasks that take turns over timers of the same instants; gives the order of their turns.
fn turns(sim: &Sim) -> Vec<u32> {
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..8 {
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

fn outcome(seed: u64) -> (Vec<u32>, u128, u64) {
    let sim = Sim::new(seed);
    (turns(&sim), sim.trace_hash(), sim.steps())
}

#[test]
fn the_same_seed_gives_the_same_run_also_on_a_fresh_thread() {
    for seed in 0..20 {
        let first = outcome(seed);
        assert_eq!(first, outcome(seed), "seed {seed}");
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| outcome(seed)).join().unwrap());
        assert_eq!(first, elsewhere, "seed {seed} on a fresh thread");
    }
}

#[test]
fn different_seeds_give_different_orders() {
    let orders: std::collections::BTreeSet<_> = (0..50).map(|seed| outcome(seed).0).collect();
    assert!(orders.len() > 45, "50 seeds gave {} orders", orders.len());
}

#[test]
fn fifo_runs_in_the_order_of_spawning_whatever_the_seed() {
    for seed in 0..5 {
        let order = turns(&Sim::with_schedule(seed, Schedule::Fifo));
        let expected: Vec<u32> = (0..4).flat_map(|_| 0..8).collect();
        assert_eq!(order, expected, "seed {seed}");
    }
}

#[test]
fn the_clock_jumps_and_stands_still_otherwise() {
    let sim = Sim::new(3);
    let runtime = sim.runtime();
    let year = Duration::from_secs(365 * 24 * 3600);
    sim.block_on(runtime.sleep_until(runtime.now() + year));
    assert_eq!(sim.now(), Instant::from_nanos(0) + year);
    assert!(sim.steps() < 5, "{} steps", sim.steps());
    let task = sim.spawn({
        let runtime = runtime.clone();
        async move { runtime.sleep_until(runtime.now() + Duration::from_secs(1)).await }
    });
    sim.run_until_idle();
    assert_eq!((sim.live_tasks(), sim.pending_timers()), (1, 1));
    sim.advance(Duration::from_millis(999));
    assert_eq!(sim.live_tasks(), 1);
    sim.advance(Duration::from_millis(1));
    assert_eq!((sim.live_tasks(), sim.pending_timers()), (0, 0));
    sim.block_on(task);
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    let sim = Sim::new(0);
    let runtime = sim.runtime();
    let mut sleep = sim.manual(runtime.sleep_until(Instant::from_nanos(10)));
    assert!(sleep.poll().is_pending());
    assert_eq!(sim.pending_timers(), 1);
    drop(sleep);
    assert_eq!(sim.pending_timers(), 0);
}

#[test]
fn a_deadlock_and_a_livelock_name_the_seed() {
    let text = |run: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("the run cannot end");
        panic.downcast_ref::<String>().cloned().unwrap_or_default()
    };
    let deadlock = text(&|| Sim::new(4711).block_on(std::future::pending()));
    assert!(
        deadlock.contains("deadlock") && deadlock.contains("seed 4711"),
        "{deadlock}"
    );
    let never = text(&|| {
        let sim = Sim::new(4712);
        sim.block_on(sim.runtime().sleep_until(Instant::FAR_FUTURE));
    });
    assert!(never.contains("deadlock") && never.contains("seed 4712"), "{never}");
    let livelock = text(&|| {
        let sim = Sim::new(4713);
        sim.set_step_budget(1_000);
        sim.block_on(std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
    });
    assert!(
        livelock.contains("livelock") && livelock.contains("seed 4713"),
        "{livelock}"
    );
}

#[test]
fn manual_polls_count_and_run_nothing_else() {
    let sim = Sim::new(1);
    let runtime = sim.runtime();
    let task = sim.spawn(async { 7 });
    let mut manual = sim.manual(async {
        let seven = task.await;
        runtime.sleep_until(Instant::from_nanos(50)).await;
        seven
    });
    assert!(manual.is_woken());
    assert!(manual.poll().is_pending());
    assert!(!manual.is_woken());
    assert_eq!(sim.live_tasks(), 1, "the task had no turn yet");
    sim.run_until_idle();
    assert!(manual.is_woken());
    assert!(manual.settle().is_pending(), "only time moves it on now");
    sim.advance(Duration::from_nanos(50));
    assert_eq!(manual.settle(), Poll::Ready(7));
    assert_eq!(manual.polls(), 3);
}

#[test]
fn a_task_panic_ends_the_run_unless_it_is_tolerated() {
    let sim = Sim::new(1);
    sim.runtime().spawn(Box::pin(async { panic!("first") }));
    assert!(catch_unwind(AssertUnwindSafe(|| sim.run_until_idle())).is_err());
    sim.tolerate_panics();
    sim.runtime().spawn(Box::pin(async { panic!("second") }));
    sim.run_until_idle();
    assert_eq!(sim.task_panics(), ["second"]);
    assert_eq!(sim.live_tasks(), 0);
}

#[test]
fn tasks_are_dropped_with_the_run_in_spawn_order() {
    struct Last(u32, Arc<Mutex<Vec<u32>>>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let sim = Sim::new(9);
    for number in 0..5 {
        let last = Last(number, Arc::clone(&dropped));
        sim.runtime().spawn(Box::pin(async move {
            let _last = last;
            std::future::pending::<()>().await;
        }));
    }
    sim.run_until_idle();
    let runtime = sim.runtime();
    drop(sim);
    assert_eq!(*dropped.lock().unwrap(), [0, 1, 2, 3, 4]);
    runtime.spawn(Box::pin(async {}));
}
