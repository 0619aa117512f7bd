//! Strategies for whole scenarios, and the scenario of a seed.
//!
//! Swarm testing: each class of fault is on in half the scenarios, and every fifth one has none. Chooses only; nothing
//! is run here.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;

use super::faults::{FaultClass, faults};
use super::property::runner;
use super::{Client, FunctionEnd, Leaves, Op, Patience, PinEnd, Savepoint, Scenario, Step, Topology, Wrong};
use crate::fault::{Delay, Jitter, Micros};
use crate::schedule::Schedule;

/// Whole scenarios, faults on in four of five.
///
/// ```
/// use gdbpool_sim::scenario::scenarios;
/// use proptest::strategy::{Strategy, ValueTree};
/// use proptest::test_runner::TestRunner;
///
/// let scenario = scenarios().new_tree(&mut TestRunner::deterministic()).unwrap().current();
/// assert!((1..=6).contains(&scenario.clients.len()));
/// ```
pub fn scenarios() -> BoxedStrategy<Scenario> {
    scenarios_of(operations())
}

/// Whole scenarios whose clients make these calls, faults on in four of five.
pub fn scenarios_of(operations: BoxedStrategy<Op>) -> BoxedStrategy<Scenario> {
    let faulty = scenarios_with(operations.clone(), true);
    prop_oneof![4 => faulty, 1 => scenarios_with(operations, false)].boxed()
}

fn scenarios_with(operations: BoxedStrategy<Op>, faulty: bool) -> BoxedStrategy<Scenario> {
    let classes = if faulty {
        subsequence(FaultClass::ALL.to_vec(), 0..=FaultClass::ALL.len()).boxed()
    } else {
        Just(Vec::new()).boxed()
    };
    (any::<u64>(), topologies(), clients(operations), classes, schedules())
        .prop_flat_map(|(seed, topology, clients, classes, schedule)| {
            let faults = faults(classes, topology.standbys);
            (Just((seed, topology, clients, schedule)), faults)
        })
        .prop_map(|((seed, topology, clients, schedule), faults)| Scenario {
            seed,
            topology,
            clients,
            faults,
            schedule,
            choices: None,
        })
        .boxed()
}

impl Scenario {
    /// The scenario of this number: without faults for every fifth.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let strategy = scenarios_with(operations(), !seed.is_multiple_of(5));
        let tree = strategy.new_tree(&mut runner(seed));
        let mut scenario = tree.expect("the strategies reject nothing").current();
        scenario.seed = seed;
        scenario
    }
}

/// 60 of 100 random, 25 PCT, 10 starving one task, 5 first-in first-out.
fn schedules() -> BoxedStrategy<Schedule> {
    prop_oneof![
        60 => Just(Schedule::Random),
        25 => (2..=4u32).prop_map(|depth| Schedule::Pct { depth }),
        10 => (0..30u64).prop_map(|task| Schedule::Starve { task }),
        5 => Just(Schedule::Fifo),
    ]
    .boxed()
}

/// Clusters and pools: small on purpose.
pub fn topologies() -> BoxedStrategy<Topology> {
    let latency = prop_oneof![
        Just(Delay::default()),
        (0..2_000u64).prop_map(|min| Delay {
            min: Micros(min),
            jitter: Jitter::None
        }),
        (0..1_000u64, 1..2_000u64).prop_map(|(min, mean)| Delay {
            min: Micros(min),
            jitter: Jitter::Exponential(Micros(mean))
        }),
    ];
    let buffer = prop_oneof![3 => Just(65_536u32), 1 => 64..512u32];
    let sizes = (
        prop_oneof![2 => 1..=3u8, 1 => 1..=8u8],
        prop_oneof![2 => 1..=3u8, 1 => 1..=8u8],
    );
    let replay = prop_oneof![Just(0u64), 0..200u64];
    (0..=3u8, sizes, latency, replay, buffer, prop::bool::weighted(0.2))
        .prop_map(
            |(standbys, (write_size, read_size), latency, replay, socket_buffer, synchronous)| Topology {
                standbys,
                write_size,
                read_size,
                latency,
                replay_delay: Micros::from_millis(replay),
                socket_buffer,
                synchronous: synchronous && standbys > 0,
            },
        )
        .boxed()
}

/// The programs of one to six clients that make these calls: some 50 statements together in the mean.
pub fn clients(operations: BoxedStrategy<Op>) -> BoxedStrategy<Vec<Client>> {
    vec(vec(steps(operations), 1..=14).prop_map(|steps| Client { steps }), 1..=6).boxed()
}

/// One step of a client that makes one of these calls.
pub fn steps(operations: BoxedStrategy<Op>) -> BoxedStrategy<Step> {
    let pause = prop_oneof![Just(0u64), 0..20_000u64];
    let timeout = proptest::option::weighted(0.3, prop_oneof![1..50u64, 50..5_000u64]);
    let patience = prop_oneof![
        6 => Just(Patience::Await),
        1 => (0..20_000u64).prop_map(|after| Patience::Cancel(Micros(after))),
        2 => (0..12u32).prop_map(Patience::Drop),
        1 => Just(Patience::Spawn),
    ];
    (pause, operations, timeout, patience)
        .prop_map(|(pause, op, timeout, patience)| Step {
            pause: Micros(pause),
            op,
            timeout: timeout.map(Micros::from_millis),
            patience,
        })
        .boxed()
}

fn micros(below: u64) -> BoxedStrategy<Micros> {
    prop_oneof![Just(Micros(0)), (0..below).prop_map(Micros)].boxed()
}

/// Calls of all kinds.
pub fn operations() -> BoxedStrategy<Op> {
    prop_oneof![
        16 => reads_and_writes(),
        4 => functions(),
        4 => pins(),
        6 => subscriptions(),
        2 => leases(),
        1 => (micros(200_000), any::<bool>()).prop_map(|(span, write)| Op::Slow { span, write }),
        1 => wrongs(),
    ]
    .boxed()
}

/// Statements that fail for certain.
pub fn wrongs() -> BoxedStrategy<Op> {
    let how = vec![
        Wrong::Division,
        Wrong::NoStatement,
        Wrong::NoTable,
        Wrong::NoTransaction,
        Wrong::Standby,
    ];
    select(how).prop_map(|how| Op::Wrong { how }).boxed()
}

/// Single statements: what routing is about.
pub fn reads_and_writes() -> BoxedStrategy<Op> {
    let row = || 0..super::ROWS;
    let pool = || 0..4u8;
    prop_oneof![
        5 => (row(), any::<bool>()).prop_map(|(row, marked)| Op::Read { row, marked }),
        3 => row().prop_map(|row| Op::Update { row }),
        3 => prop::bool::weighted(0.2).prop_map(|idempotent| Op::Insert { idempotent }),
        1 => (pool(), row()).prop_map(|(pool, row)| Op::ReadOn { pool, row }),
        1 => pool().prop_map(|pool| Op::WriteOn { pool }),
        1 => row().prop_map(|row| Op::WriteAsRead { row }),
    ]
    .boxed()
}

/// Subscriptions and notifications.
pub fn subscriptions() -> BoxedStrategy<Op> {
    let listen = (0..3u8, micros(1_500_000), any::<bool>());
    prop_oneof![
        // Often enough that one falls into each stage of a subscription.
        2 => (0..3u8).prop_map(|channel| Op::Notify { channel }),
        1 => listen.prop_map(|(channel, span, queue)| Op::Listen { channel, span, queue }),
    ]
    .boxed()
}

/// Function interactions.
pub fn functions() -> BoxedStrategy<Op> {
    let savepoint = select(vec![Savepoint::None, Savepoint::Kept, Savepoint::TakenBack]);
    let end = prop_oneof![
        4 => Just(FunctionEnd::Commit),
        1 => Just(FunctionEnd::Escape),
        1 => Just(FunctionEnd::Fail),
        1 => Just(FunctionEnd::Panic),
        1 => Just(FunctionEnd::Swallow),
    ];
    (vec(0..super::ROWS, 1..=3), savepoint, end)
        .prop_map(|(rows, savepoint, end)| Op::Function { rows, savepoint, end })
        .boxed()
}

/// Partial interactions, with their pinned transactions.
pub fn pins() -> BoxedStrategy<Op> {
    let end = prop_oneof![
        4 => Just(PinEnd::Commit),
        1 => Just(PinEnd::Rollback),
        1 => Just(PinEnd::Drop),
        1 => Just(PinEnd::Expire),
        1 => Just(PinEnd::SpoiltCommit),
    ];
    let lease = proptest::option::weighted(0.3, (1..500u64).prop_map(Micros::from_millis));
    (
        vec(0..super::ROWS, 1..=3),
        micros(50_000),
        lease,
        prop::bool::weighted(0.3),
        end,
    )
        .prop_map(|(rows, hold, lease, cursor, end)| {
            // Who waits for the end of its lease time does not have a day.
            let lease = match end {
                PinEnd::Expire => Some(lease.unwrap_or(Micros::from_millis(200))),
                _ => lease,
            };
            Op::Pin {
                rows,
                hold,
                lease,
                cursor,
                end,
            }
        })
        .boxed()
}

/// Leases that leave something behind.
pub fn leases() -> BoxedStrategy<Op> {
    let leaves = select(vec![
        Leaves::AdvisoryLock,
        Leaves::FailedTransaction,
        Leaves::Listen,
        Leaves::Nothing,
        Leaves::OpenTransaction,
        Leaves::Setting,
        Leaves::TempTable,
    ]);
    (leaves, micros(20_000))
        .prop_map(|(leaves, hold)| Op::Lease { leaves, hold })
        .boxed()
}
