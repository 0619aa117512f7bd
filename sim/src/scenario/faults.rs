//! Strategies for faults, class by class, so that a scenario can leave whole classes out.
//!
//! Beside the strategies for scenarios: chooses triggers, targets and spans; applies nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::fault::{
    Answer, CancelFate, ConnectFate, Connections, CutPart, Delay, FailAt, Fault, FaultKind, Jitter, Link, LostTail,
    Micros, NetworkFault, ProtocolFault, Refusal, Rejoin, ReplicationFault, ServerEvent, ServerFault, Sessions,
    TimeFault, Trigger, Unsolicited, Ways,
};
use crate::pipe::{Cut, Direction};
use crate::schedule::Schedule;

/// Faults that are on or off together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultClass {
    /// Cancel requests that are late, lost or hang.
    Cancels,
    /// Connections that break, end, or are cut within a message.
    Cuts,
    /// Connects that are refused, hang, or lead nowhere; names that do not resolve.
    Dialling,
    /// Latency, bandwidth, slices, short reads and writes.
    Links,
    /// Lock convoys, slow and paused servers, zombies, server timeouts.
    Load,
    /// Partitions, clogs, half-open connections.
    Partitions,
    /// Promotion and rejoin.
    Promotion,
    /// Messages nobody asked for, floods of notifications.
    Protocol,
    /// Lag, broken streams, recovery conflicts.
    Replication,
    /// Statements that fail: deadlocks, conflicts, at Parse, at COMMIT.
    Statements,
    /// Crashes, shutdowns, terminated sessions, refusals.
    Stops,
    /// Clock jumps, other schedules, spurious wakes.
    Time,
}

impl FaultClass {
    /// All classes.
    pub const ALL: [Self; 12] = [
        Self::Cancels,
        Self::Cuts,
        Self::Dialling,
        Self::Links,
        Self::Load,
        Self::Partitions,
        Self::Promotion,
        Self::Protocol,
        Self::Replication,
        Self::Statements,
        Self::Stops,
        Self::Time,
    ];
}

/// Faults of the given classes on a cluster of so many standbys: none if there is no class, else up to eight.
pub fn faults(classes: Vec<FaultClass>, standbys: u8) -> BoxedStrategy<Vec<Fault>> {
    let classes: Vec<_> = classes
        .into_iter()
        .filter(|class| standbys > 0 || !matches!(class, FaultClass::Promotion | FaultClass::Replication))
        .collect();
    if classes.is_empty() {
        return Just(Vec::new()).boxed();
    }
    let one = select(classes).prop_flat_map(move |class| any_fault(class, standbys));
    vec(one, 1..=8).boxed()
}

/// One fault of a class.
pub fn any_fault(class: FaultClass, standbys: u8) -> BoxedStrategy<Fault> {
    (
        trigger(standbys),
        what(class, standbys),
        proptest::option::weighted(0.8, millis(1, 3_000)),
    )
        .prop_map(|(trigger, what, span)| Fault { trigger, what, span })
        .boxed()
}

fn what(class: FaultClass, standbys: u8) -> BoxedStrategy<FaultKind> {
    match class {
        FaultClass::Cancels => cancels(standbys),
        FaultClass::Cuts => cuts(standbys),
        FaultClass::Dialling => dialling(standbys),
        FaultClass::Links => links(standbys),
        FaultClass::Load => load(standbys),
        FaultClass::Partitions => partitions(standbys),
        FaultClass::Promotion => promotion(standbys),
        FaultClass::Protocol => protocol(standbys),
        FaultClass::Replication => replication(standbys),
        FaultClass::Statements => statements(standbys),
        FaultClass::Stops => stops(standbys),
        FaultClass::Time => time(standbys),
    }
}

fn millis(from: u64, to: u64) -> BoxedStrategy<Micros> {
    (from..=to).prop_map(Micros::from_millis).boxed()
}

/// The primary half of the time.
fn node(standbys: u8) -> BoxedStrategy<String> {
    prop_oneof![Just(0), 0..=standbys]
        .prop_map(|node| format!("n{node}"))
        .boxed()
}

fn standby(standbys: u8) -> BoxedStrategy<String> {
    (1..=standbys.max(1)).prop_map(|node| format!("n{node}")).boxed()
}

fn link(standbys: u8) -> BoxedStrategy<Link> {
    prop_oneof![Just(Link::All), node(standbys).prop_map(Link::Of)].boxed()
}

fn ways() -> BoxedStrategy<Ways> {
    select(vec![Ways::Both, Ways::Replies, Ways::Requests]).boxed()
}

fn direction() -> BoxedStrategy<Direction> {
    select(vec![Direction::ToServer, Direction::ToClient]).boxed()
}

/// A message's type, and the lane it travels in.
fn message() -> BoxedStrategy<(Direction, Option<char>)> {
    let to_client = select(vec![
        None,
        Some('Z'),
        Some('C'),
        Some('E'),
        Some('1'),
        Some('2'),
        Some('T'),
        Some('D'),
        Some('A'),
    ]);
    let to_server = select(vec![
        None,
        Some('P'),
        Some('B'),
        Some('E'),
        Some('S'),
        Some('Q'),
        Some('X'),
        Some('!'),
    ]);
    prop_oneof![
        to_client.prop_map(|kind| (Direction::ToClient, kind)),
        to_server.prop_map(|kind| (Direction::ToServer, kind)),
    ]
    .boxed()
}

fn trigger(standbys: u8) -> BoxedStrategy<Trigger> {
    let event = select(vec![
        ServerEvent::CancelArrived,
        ServerEvent::CommitDurable,
        ServerEvent::Listened,
        ServerEvent::LockWaitBegan,
        ServerEvent::NotifyDelivered,
        ServerEvent::NotifyQueued,
        ServerEvent::RolledBack,
        ServerEvent::SessionClosed,
        ServerEvent::SessionOpened,
        ServerEvent::StatementBegan,
        ServerEvent::StatementEnded,
        ServerEvent::TransactionBegan,
        ServerEvent::Unlistened,
        ServerEvent::WalApplied,
    ]);
    let on = proptest::option::weighted(0.3, node(standbys));
    prop_oneof![
        3 => (0..2_000_000u64).prop_map(|at| Trigger::At(Micros(at))),
        2 => (message(), 1..40u64).prop_map(|((direction, kind), nth)| Trigger::Message {
            connections: Connections::Trigger,
            direction,
            kind,
            nth,
        }),
        3 => (event, on, 1..12u64).prop_map(|(event, node, nth)| Trigger::Server { event, node, nth }),
    ]
    .boxed()
}

fn connections(standbys: u8) -> BoxedStrategy<Connections> {
    let to = || proptest::option::of(node(standbys)).boxed();
    prop_oneof![
        4 => Just(Connections::Trigger),
        2 => (to(), 1..12u64).prop_map(|(to, nth)| Connections::Nth { to, nth }),
        1 => to().prop_map(|to| Connections::Newest { to }),
        1 => to().prop_map(|to| Connections::All { to }),
    ]
    .boxed()
}

fn cuts(standbys: u8) -> BoxedStrategy<FaultKind> {
    let part = prop_oneof![
        (0..60u32).prop_map(CutPart::Byte),
        (0..=1000u16).prop_map(CutPart::Thousandth)
    ];
    let cut = (
        connections(standbys),
        message(),
        0..4u64,
        part,
        select(vec![Cut::Eof, Cut::Reset, Cut::Stall]),
    );
    prop_oneof![
        connections(standbys).prop_map(|connections| NetworkFault::Reset { connections }),
        (connections(standbys), direction())
            .prop_map(|(connections, direction)| NetworkFault::Fin { connections, direction }),
        cut.prop_map(|(connections, (direction, kind), skip, at, then)| NetworkFault::Cut {
            connections,
            direction,
            kind,
            skip,
            at,
            then
        }),
    ]
    .prop_map(FaultKind::Network)
    .boxed()
}

fn partitions(standbys: u8) -> BoxedStrategy<FaultKind> {
    let hosts = (0..=standbys).map(|node| format!("n{node}")).collect::<Vec<_>>();
    prop_oneof![
        (link(standbys), ways()).prop_map(|(link, ways)| NetworkFault::Partition { link, ways }),
        (link(standbys), ways()).prop_map(|(link, ways)| NetworkFault::Clog { link, ways }),
        (connections(standbys), 0..4_096u32)
            .prop_map(|(connections, buffer)| NetworkFault::HalfOpen { connections, buffer }),
        millis(1, 300).prop_map(move |stagger| NetworkFault::Swizzle {
            hosts: hosts.clone(),
            stagger
        }),
    ]
    .prop_map(FaultKind::Network)
    .boxed()
}

fn links(standbys: u8) -> BoxedStrategy<FaultKind> {
    let jitter = prop_oneof![
        Just(Jitter::None),
        millis(1, 50).prop_map(Jitter::Exponential),
        millis(1, 50).prop_map(Jitter::Uniform),
        (1..20u8, millis(50, 500)).prop_map(|(percent, extra)| Jitter::Tail { percent, extra }),
    ];
    prop_oneof![
        (link(standbys), 1_000..100_000u64)
            .prop_map(|(link, bytes_per_second)| NetworkFault::Bandwidth { link, bytes_per_second }),
        (link(standbys), millis(0, 50), jitter).prop_map(|(link, min, jitter)| NetworkFault::Latency {
            link,
            delay: Delay { min, jitter }
        }),
        (link(standbys), 1..60u8).prop_map(|(link, percent)| NetworkFault::PendingStorm { link, percent }),
        (link(standbys), 1..64u32).prop_map(|(link, max)| NetworkFault::ShortReads { link, max }),
        (link(standbys), 1..64u32).prop_map(|(link, max)| NetworkFault::ShortWrites { link, max }),
        (link(standbys), 1..64u32, 10..500u64).prop_map(|(link, max, gap)| NetworkFault::Slice {
            link,
            max,
            gap: Micros(gap)
        }),
        (link(standbys), millis(1, 1_000)).prop_map(|(link, delay)| NetworkFault::SlowClose { link, delay }),
    ]
    .prop_map(FaultKind::Network)
    .boxed()
}

fn dialling(standbys: u8) -> BoxedStrategy<FaultKind> {
    let fate = prop_oneof![
        Just(ConnectFate::AcceptThenClose),
        Just(ConnectFate::Hang),
        Just(ConnectFate::Refused),
        millis(1, 2_000).prop_map(ConnectFate::Slow),
    ];
    let answer = select(vec![Answer::Hang, Answer::Unknown]);
    prop_oneof![
        3 => (node(standbys), fate).prop_map(|(to, fate)| NetworkFault::Connect { to, fate }),
        1 => answer.prop_map(|answer| NetworkFault::Resolve { name: "rw".to_owned(), answer }),
    ]
    .prop_map(FaultKind::Network)
    .boxed()
}

fn cancels(standbys: u8) -> BoxedStrategy<FaultKind> {
    let fate = prop_oneof![
        millis(1, 500).prop_map(CancelFate::Delayed),
        Just(CancelFate::Hang),
        millis(1, 500).prop_map(CancelFate::Late),
        Just(CancelFate::Lost),
    ];
    (node(standbys), fate)
        .prop_map(|(node, fate)| FaultKind::Protocol(ProtocolFault::Cancel { node, fate }))
        .boxed()
}

fn protocol(standbys: u8) -> BoxedStrategy<FaultKind> {
    let message = select(vec![
        Unsolicited::Notice,
        Unsolicited::Notification,
        Unsolicited::ParameterStatus,
    ]);
    prop_oneof![
        (node(standbys), any::<bool>()).prop_map(|(node, reset)| ProtocolFault::CommitWithoutReady { node, reset }),
        (1..200u32, 1..200u32).prop_map(|(count, bytes)| ProtocolFault::NotifyFlood {
            node: "n0".to_owned(),
            channel: super::CHANNELS[0].to_owned(),
            count,
            bytes
        }),
        (node(standbys), message, 1..50u8).prop_map(|(node, message, percent)| ProtocolFault::Unsolicited {
            node,
            message,
            percent
        }),
    ]
    .prop_map(FaultKind::Protocol)
    .boxed()
}

fn sessions() -> BoxedStrategy<Sessions> {
    let which = vec![
        Sessions::All,
        Sessions::Idle,
        Sessions::IdleInTransaction,
        Sessions::InQuery,
        Sessions::Trigger,
    ];
    select(which).boxed()
}

fn stops(standbys: u8) -> BoxedStrategy<FaultKind> {
    let why = select(vec![
        Refusal::Password,
        Refusal::ShuttingDown,
        Refusal::StartingUp,
        Refusal::TooMany,
    ]);
    prop_oneof![
        (node(standbys), millis(0, 500)).prop_map(|(node, recovery)| ServerFault::Crash { node, recovery }),
        (node(standbys), sessions(), millis(0, 500)).prop_map(|(node, sessions, recovery)| {
            ServerFault::CrashSession {
                node,
                sessions,
                recovery,
            }
        }),
        (node(standbys), 1..6u32).prop_map(|(node, sessions)| ServerFault::MaxSessions { node, sessions }),
        (node(standbys), why).prop_map(|(node, why)| ServerFault::Refuse { node, why }),
        (node(standbys), any::<bool>(), millis(0, 500)).prop_map(|(node, immediate, recovery)| ServerFault::Shutdown {
            node,
            immediate,
            recovery
        }),
        (node(standbys), sessions()).prop_map(|(node, sessions)| ServerFault::Terminate { node, sessions }),
    ]
    .prop_map(FaultKind::Server)
    .boxed()
}

fn load(standbys: u8) -> BoxedStrategy<FaultKind> {
    let settings = [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
    ];
    let setting = (select(settings.to_vec()), 5..200u64);
    prop_oneof![
        node(standbys).prop_map(|node| ServerFault::LockConvoy {
            node,
            table: "items".to_owned()
        }),
        node(standbys).prop_map(|node| ServerFault::Pause { node }),
        (node(standbys), setting).prop_map(|(node, (name, value))| ServerFault::Setting {
            node,
            name: name.to_owned(),
            value: value.to_string()
        }),
        (node(standbys), millis(1, 200)).prop_map(|(node, by)| ServerFault::Slow { node, by }),
        node(standbys).prop_map(|node| ServerFault::Zombies { node }),
    ]
    .prop_map(FaultKind::Server)
    .boxed()
}

fn statements(standbys: u8) -> BoxedStrategy<FaultKind> {
    let how = prop_oneof![
        (
            select(vec!["40001", "40P01", "23505", "57014", "55P03"]),
            Just(FailAt::Execute)
        ),
        (select(vec!["40001", "23505"]), Just(FailAt::Commit)),
        (select(vec!["42601", "40001"]), Just(FailAt::Parse)),
    ];
    (node(standbys), how, 1..4u32)
        .prop_map(|(node, (sqlstate, at), count)| {
            FaultKind::Server(ServerFault::Fail {
                node,
                sqlstate: sqlstate.to_owned(),
                at,
                count,
            })
        })
        .boxed()
}

fn promotion(standbys: u8) -> BoxedStrategy<FaultKind> {
    let lost = prop_oneof![
        Just(LostTail::Nothing),
        (1..4u32).prop_map(LostTail::Commits),
        Just(LostTail::Unreceived),
    ];
    let rejoin = select(vec![Rejoin::Diverged, Rejoin::Rewound]);
    prop_oneof![
        3 => (standby(standbys), lost, any::<bool>())
            .prop_map(|(node, lost, fenced)| ReplicationFault::Promote { node, lost, fenced }),
        1 => rejoin.prop_map(|how| ReplicationFault::Rejoin { node: "n0".to_owned(), how }),
    ]
    .prop_map(FaultKind::Replication)
    .boxed()
}

fn replication(standbys: u8) -> BoxedStrategy<FaultKind> {
    prop_oneof![
        standby(standbys).prop_map(|node| ReplicationFault::BreakStream { node }),
        (standby(standbys), sessions()).prop_map(|(node, sessions)| ReplicationFault::Conflict { node, sessions }),
        Just(ReplicationFault::Join {
            node: "joiner".to_owned()
        }),
        standby(standbys).prop_map(|node| ReplicationFault::LoseSyncStandby { node }),
        standby(standbys).prop_map(|node| ReplicationFault::PauseReplay { node }),
        (standby(standbys), millis(1, 3_000)).prop_map(|(node, by)| ReplicationFault::ReceiveDelay { node, by }),
        (standby(standbys), millis(1, 3_000)).prop_map(|(node, by)| ReplicationFault::ReplayDelay { node, by }),
    ]
    .prop_map(FaultKind::Replication)
    .boxed()
}

fn time(standbys: u8) -> BoxedStrategy<FaultKind> {
    let schedule = prop_oneof![
        Just(Schedule::Random),
        (2..=4u32).prop_map(|depth| Schedule::Pct { depth }),
        (0..20u64).prop_map(|task| Schedule::Starve { task }),
    ];
    prop_oneof![
        millis(10, 10_000).prop_map(|by| TimeFault::Jump { by }),
        schedule.prop_map(|schedule| TimeFault::Reschedule { schedule }),
        (node(standbys), -5_000_000..5_000_000i64).prop_map(|(host, micros)| TimeFault::Skew { host, micros }),
        (1..50u8).prop_map(|percent| TimeFault::SpuriousWakes { percent }),
    ]
    .prop_map(FaultKind::Time)
    .boxed()
}
