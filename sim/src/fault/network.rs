//! The faults of layer N as data: links, connections, connects, names.
//!
//! Applied by `network/`. Hosts are named: servers by their node's name (`n0`), clients by their runtime's (`app`).

use serde::{Deserialize, Serialize};

use super::{Micros, names};
use crate::pipe::{Cut, Direction};
use crate::source::debug_as_source;

/// Faults of links, connections, connects and names.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkFault {
    /// Lasting. The links carry so many bytes per second in each direction, at least one.
    Bandwidth {
        /// The links.
        link: Link,
        /// Bytes per second.
        bytes_per_second: u64,
    },
    /// Lasting. Everything is held back, connects too; at the end it arrives in one burst.
    Clog {
        /// The links.
        link: Link,
        /// The directions held back.
        ways: Ways,
    },
    /// Lasting. What becomes of connects.
    Connect {
        /// The host connected to.
        to: String,
        /// Their fate.
        fate: ConnectFate,
    },
    /// A message is cut: exactly the bytes before the cut are delivered.
    Cut {
        /// The connections, those to come included; with `Trigger`, that of the trigger.
        connections: Connections,
        /// The lane.
        direction: Direction,
        /// The type of the message, as in [`Trigger::Message`](super::Trigger::Message).
        kind: Option<char>,
        /// How many messages of that type are let pass from now on.
        skip: u64,
        /// Where in the message.
        at: CutPart,
        /// How the connection ends.
        then: Cut,
    },
    /// One end sends FIN: a half close; the other direction stays open.
    Fin {
        /// The connections.
        connections: Connections,
        /// The lane that ends.
        direction: Direction,
    },
    /// Lasting. The peer is gone without a word: nothing arrives in either direction, writes succeed until `buffer`
    /// bytes wait. At the end the connection is reset.
    HalfOpen {
        /// The connections.
        connections: Connections,
        /// Bytes that the writer's side still takes.
        buffer: u32,
    },
    /// Lasting. Bytes are under way for this long.
    Latency {
        /// The links.
        link: Link,
        /// How long.
        delay: Delay,
    },
    /// Lasting. Everything is lost; at the end senders find out late, after a retransmission time-out.
    Partition {
        /// The links.
        link: Link,
        /// The directions cut.
        ways: Ways,
    },
    /// Lasting. Reads and writes that could go on are pending, and woken without data.
    PendingStorm {
        /// The links.
        link: Link,
        /// How many of a hundred calls.
        percent: u8,
    },
    /// The connections break: both ends get `ConnectionReset`, what is under way is lost.
    Reset {
        /// The connections.
        connections: Connections,
    },
    /// Lasting. What look-ups of a name find.
    Resolve {
        /// The name looked up.
        name: String,
        /// What is found.
        answer: Answer,
    },
    /// Lasting. One read gives at most so many bytes, at least one.
    ShortReads {
        /// The links.
        link: Link,
        /// The most bytes.
        max: u32,
    },
    /// Lasting. One write takes at most so many bytes, at least one.
    ShortWrites {
        /// The links.
        link: Link,
        /// The most bytes.
        max: u32,
    },
    /// Lasting. Bytes travel in pieces of one to `max`, each `gap` after the one before.
    Slice {
        /// The links.
        link: Link,
        /// The longest piece.
        max: u32,
        /// The time between two pieces.
        gap: Micros,
    },
    /// Lasting. An end that closes is seen to do so only this much later.
    SlowClose {
        /// The links.
        link: Link,
        /// How much later.
        delay: Micros,
    },
    /// Lasting. The hosts are clogged one after another, `stagger` apart, and unclogged at the end in another order,
    /// again `stagger` apart.
    Swizzle {
        /// The hosts.
        hosts: Vec<String>,
        /// The time between two hosts.
        stagger: Micros,
    },
}

/// The links that a fault is about.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// All links.
    All,
    /// Those that one host has.
    Of(String),
    /// The one from a connecting host (first) to an accepting host.
    Between(String, String),
}

/// The directions of a link that are cut or held.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ways {
    /// Both.
    Both,
    /// Requests pass, replies do not.
    Replies,
    /// Replies pass, requests do not.
    Requests,
}

/// The connections that a fault is about.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connections {
    /// All that are open now, to one host or to any.
    All {
        /// The accepting host.
        to: Option<String>,
    },
    /// The one that was established last.
    Newest {
        /// The accepting host.
        to: Option<String>,
    },
    /// The nth that was, or will be, established, counted from one.
    Nth {
        /// The accepting host; `None` counts the connections of the whole run.
        to: Option<String>,
        /// Which.
        nth: u64,
    },
    /// The connection of the message or server event that was the trigger.
    Trigger,
}

/// How long bytes are under way: a fixed part and a random one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// The fixed part.
    pub min: Micros,
    /// The random part.
    pub jitter: Jitter,
}

/// The random part of a delay.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Jitter {
    /// Nothing.
    #[default]
    None,
    /// Exponential with this mean, at most twenty times it.
    Exponential(Micros),
    /// Mostly nothing, sometimes much.
    Tail {
        /// In how many of a hundred cases.
        percent: u8,
        /// How much.
        extra: Micros,
    },
    /// Anything up to this.
    Uniform(Micros),
}

/// What becomes of connects.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectFate {
    /// They succeed, and the server's end closes at once.
    AcceptThenClose,
    /// They never complete.
    Hang,
    /// They are refused.
    Refused,
    /// They succeed after this long.
    Slow(Micros),
}

/// Where a message is cut.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CutPart {
    /// After so many of its bytes; its end if it is shorter.
    Byte(u32),
    /// After so many thousandths of it, rounded down: 0 is before its first byte, 1000 behind its last.
    Thousandth(u16),
}

/// What a look-up finds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The addresses of these hosts, in this order.
    Hosts(Vec<String>),
    /// Nothing, ever.
    Hang,
    /// That there is no such name.
    Unknown,
}

names!(NetworkFault:
    Bandwidth => "network.bandwidth",
    Clog => "network.clog",
    Connect => "network.connect",
    Cut => "network.cut",
    Fin => "network.fin",
    HalfOpen => "network.half_open",
    Latency => "network.latency",
    Partition => "network.partition",
    PendingStorm => "network.pending_storm",
    Reset => "network.reset",
    Resolve => "network.resolve",
    ShortReads => "network.short_reads",
    ShortWrites => "network.short_writes",
    Slice => "network.slice",
    SlowClose => "network.slow_close",
    Swizzle => "network.swizzle",
);

debug_as_source!(
    Answer,
    ConnectFate,
    Connections,
    CutPart,
    Delay,
    Jitter,
    Link,
    NetworkFault,
    Ways,
);
