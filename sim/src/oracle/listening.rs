//! O9: a subscription receives every notification that is committed while it lasts, once, in commit order, or a gap says
//! where some may be missing. After its barrier nothing is delivered, and, if it was the channel's last one, its server no
//! longer has the channel, or that connection ends.

use std::collections::BTreeSet;
use std::time::Duration;

use gdbpool::Instant;

use super::index::{CallView, Index};
use super::{Oracle, Violation};
use crate::history::{Event, EventKind};
use crate::scenario::{ClientEvent, Heard, Op, Say, call_of};

/// A notification that has not come after this long is missing, once nothing is wrong any more.
const DELIVERY: Duration = Duration::from_secs(30);

/// A connection that the listener gave up is gone from the server after this long, once nothing is wrong any more.
const GOODBYE: Duration = Duration::from_secs(30);

/// A notification that clients sent: its channel's order on its node.
struct Queued<'a> {
    event: &'a Event,
    channel: &'a str,
    payload: &'a str,
}

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let queued = queued(index);
    for call in index.calls.values() {
        let Some(Op::Listen { channel, .. }) = call.op() else {
            continue;
        };
        let channel = crate::scenario::CHANNELS[usize::from(*channel) % crate::scenario::CHANNELS.len()];
        let of_channel: Vec<_> = queued.iter().filter(|queued| queued.channel == channel).collect();
        after_the_barrier(call, found);
        twice(call, found);
        for interval in intervals(call) {
            in_order(&interval, &of_channel, found);
            over_one_connection(index, &interval, found);
            in_time(index, channel, &interval, &of_channel, found);
        }
        server_side(index, call, channel, found);
    }
}

/// Notifications that carry a mark: what a fault floods the channel with carries none.
fn queued<'a>(index: &Index<'a>) -> Vec<Queued<'a>> {
    let events = index.case.server.events().iter();
    let queued = events.filter_map(|event| match &event.kind {
        EventKind::NotifyQueued { channel, payload, .. } if is_mark(payload) => Some(Queued {
            event,
            channel,
            payload,
        }),
        _ => None,
    });
    queued.collect()
}

fn is_mark(payload: &str) -> bool {
    payload.parse::<u64>().is_ok()
}

fn after_the_barrier(call: &CallView<'_>, found: &mut Vec<Violation>) {
    let drained = call
        .events
        .iter()
        .position(|event| event.say == Say::Heard(Heard::Drained));
    let Some(drained) = drained else { return };
    for event in &call.events[drained..] {
        if matches!(
            event.say,
            Say::Heard(Heard::Notification { .. } | Heard::Gap(_) | Heard::Resumed)
        ) {
            let text = "delivered after the barrier";
            found.push(Violation::new(Oracle::O9, text).with(call.events[drained]).with(*event));
        }
    }
}

fn twice(call: &CallView<'_>, found: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    for event in &call.events {
        if let Say::Heard(Heard::Notification { payload, .. }) = &event.say
            && is_mark(payload)
            && !seen.insert(payload)
        {
            found.push(Violation::new(Oracle::O9, format!("{payload} was delivered twice")).with(*event));
        }
    }
}

/// A time in which nothing may be missing.
struct Interval<'a> {
    from: &'a ClientEvent,
    /// What ended it; `None` at the end of the history.
    until: Option<&'a ClientEvent>,
    received: Vec<(&'a ClientEvent, &'a str)>,
}

fn intervals<'a>(call: &CallView<'a>) -> Vec<Interval<'a>> {
    let mut intervals: Vec<Interval<'a>> = Vec::new();
    let mut is_open = false;
    let mut cancelled = false;
    for event in &call.events {
        match &event.say {
            Say::Heard(Heard::Subscribed | Heard::Resumed) => {
                is_open = true;
                intervals.push(Interval {
                    from: event,
                    until: None,
                    received: Vec::new(),
                });
            }
            Say::Heard(Heard::Notification { payload, .. }) if is_open && is_mark(payload) => {
                if let Some(interval) = intervals.last_mut() {
                    interval.received.push((event, payload));
                }
            }
            // What is queued by then is still read, in the same order.
            Say::Heard(Heard::CancelAsked) | Say::Cancelled => {
                cancelled = true;
                if let Some(interval) = intervals.last_mut().filter(|_| is_open) {
                    interval.until.get_or_insert(event);
                }
            }
            Say::Heard(Heard::Gap(_) | Heard::End | Heard::Drained) | Say::Dropped | Say::Ended { .. } => {
                if let Some(interval) = intervals.last_mut().filter(|_| is_open) {
                    interval.until.get_or_insert(event);
                }
                is_open = false;
            }
            _ => {}
        }
        if cancelled && !is_open {
            break;
        }
    }
    intervals
}

/// What was received is a run without holes of what was committed, and begins with the first of it.
fn in_order(interval: &Interval<'_>, queued: &[&Queued<'_>], found: &mut Vec<Violation>) {
    let mut last: Option<(usize, u32)> = None;
    for (event, payload) in &interval.received {
        let Some(place) = queued.iter().position(|queued| queued.payload == *payload) else {
            let text = format!("{payload} was delivered, and nobody sent it");
            found.push(Violation::new(Oracle::O9, text).with(*event));
            continue;
        };
        let node = queued[place].event.node;
        let from = match last {
            Some((before, on)) if on == node => before + 1,
            _ => 0,
        };
        let begun = |queued: &&&Queued<'_>| last.is_some() || queued.event.seq >= interval.from.after;
        let between = queued.get(from..place.max(from)).unwrap_or_default();
        let missed = between.iter().find(|queued| queued.event.node == node && begun(queued));
        if let Some(missed) = missed {
            let text = format!("{} is missing before {payload}, and no gap says so", missed.payload);
            let violation = Violation::new(Oracle::O9, text).with(interval.from);
            found.push(violation.with(missed.event).with(*event));
        }
        if place < from {
            let text = format!("{payload} was delivered after a later one");
            found.push(Violation::new(Oracle::O9, text).with(queued[place].event).with(*event));
        }
        last = Some((place, node));
    }
}

/// Between two gaps everything comes over one connection: another one begins where notifications may be missing.
fn over_one_connection(index: &Index<'_>, interval: &Interval<'_>, found: &mut Vec<Violation>) {
    let mut connections: Option<BTreeSet<i32>> = None;
    for (event, payload) in &interval.received {
        let sent = index.case.server.events().iter().filter_map(|event| match &event.kind {
            EventKind::NotifySent { pid, payload: sent, .. } if **sent == **payload => Some(*pid),
            _ => None,
        });
        let senders: BTreeSet<i32> = sent.collect();
        let both = match &connections {
            Some(before) => before & &senders,
            None => senders,
        };
        if both.is_empty() && connections.is_some() {
            let text = format!("{payload} came over another connection than those before it, and no gap says so");
            found.push(Violation::new(Oracle::O9, text).with(interval.from).with(*event));
            return;
        }
        connections = (!both.is_empty()).then_some(both);
    }
}

/// What was committed on the listener's node comes, or a gap does.
fn in_time(
    index: &Index<'_>,
    channel: &str,
    interval: &Interval<'_>,
    queued: &[&Queued<'_>],
    found: &mut Vec<Violation>,
) {
    let until = interval.until.map_or(index.case.end.finished, |event| event.at);
    let Some(node) = listening_node(index, channel, interval.from.after) else {
        return;
    };
    for queued in queued.iter().filter(|queued| queued.event.node == node) {
        let is_due = delivery(index, queued.event.at) < until;
        let inside = queued.event.seq >= interval.from.after;
        let came = || interval.received.iter().any(|(_, payload)| *payload == queued.payload);
        if inside && is_due && !came() {
            let text = format!(
                "{} was committed and never delivered, and no gap says so",
                queued.payload
            );
            found.push(Violation::new(Oracle::O9, text).with(interval.from).with(queued.event));
        }
    }
}

/// When it has to have come: soon where nothing is ever wrong.
fn delivery(index: &Index<'_>, at: Instant) -> Instant {
    if index.is_faultless() {
        // Latencies of these scenarios are some milliseconds, and their tails are cut.
        return at + Duration::from_millis(500);
    }
    at.max(index.case.end.healed) + DELIVERY
}

/// Where the one backend is that listens to the channel at this point of the server's order.
fn listening_node(index: &Index<'_>, channel: &str, at: u64) -> Option<u32> {
    let listening = index
        .sessions
        .values()
        .filter(|session| !session.has_marks && listens(&session.events, channel, at) && is_alive(session.closed, at));
    let nodes: Vec<u32> = listening.map(|session| session.node).collect();
    match nodes[..] {
        [node] => Some(node),
        // Which of several is the live one cannot be told.
        _ => None,
    }
}

fn is_alive(closed: Option<&Event>, at: u64) -> bool {
    closed.is_none_or(|event| event.seq >= at)
}

fn listens(events: &[&Event], wanted: &str, at: u64) -> bool {
    let changes = events.iter().filter(|event| event.seq < at);
    let mut last = changes.filter_map(|event| match &event.kind {
        EventKind::Listened { channel, .. } if **channel == *wanted => Some(true),
        EventKind::Unlistened { channel, .. } if **channel == *wanted => Some(false),
        _ => None,
    });
    last.next_back().unwrap_or(false)
}

/// The server's side of the barrier.
fn server_side(index: &Index<'_>, call: &CallView<'_>, channel: &str, found: &mut Vec<Violation>) {
    let Some(closed) = call.first(|say| *say == Say::Heard(Heard::Closed)) else {
        return;
    };
    if others_listen(index, call, channel, closed) {
        return;
    }
    for (pid, session) in index.sessions.iter().filter(|(_, session)| !session.has_marks) {
        if !listens(&session.events, channel, closed.after) || !is_alive(session.closed, closed.after) {
            continue;
        }
        // What was sent before a connection was given up may arrive long after.
        let mut after = session.events.iter().filter(|event| event.seq >= closed.after);
        let used = after.find(|event| {
            let is_statement = matches!(event.kind, EventKind::StatementBegan { .. });
            is_statement && !index.delivers_late()
        });
        let bound = closed.at.max(index.case.end.healed) + GOODBYE;
        let end = session.closed.map(|event| event.at);
        let text = match (used, end) {
            (Some(_), _) => format!("backend {pid} still listens to {channel} after the barrier, and is used"),
            (None, Some(end)) if end <= bound => continue,
            (None, None) if index.case.end.finished <= bound => continue,
            (None, _) => format!("backend {pid} still listens to {channel} long after the barrier"),
        };
        let violation = Violation::new(Oracle::O9, text).with(closed);
        found.push(match used {
            Some(event) => violation.with(*event),
            None => violation,
        });
    }
}

/// Whether the channel has another subscription that began before the barrier and may not be over by it.
fn others_listen(index: &Index<'_>, call: &CallView<'_>, wanted: &str, closed: &ClientEvent) -> bool {
    let is_other = |other: &&CallView<'_>| {
        let is_same = matches!(other.op(), Some(Op::Listen { channel, .. })
            if crate::scenario::CHANNELS[usize::from(*channel) % crate::scenario::CHANNELS.len()] == wanted);
        is_same && other.asked.call != call.asked.call
    };
    let mut others = index.calls.values().filter(is_other);
    others.any(|other| {
        let over = other.first(|say| matches!(say, Say::Heard(Heard::Closed)));
        // A dropped one ends without a word, some time later; so does one whose barrier falls together with this one.
        let is_over = over.is_some_and(|event| event.seq < closed.seq && event.after < closed.after);
        other.asked.seq < closed.seq && !is_over
    }) || probes(index, wanted, closed)
}

/// The runner's own subscription, which belongs to no call of the scenario.
fn probes(index: &Index<'_>, wanted: &str, closed: &ClientEvent) -> bool {
    let probe = call_of(crate::scenario::PROBE);
    wanted == crate::scenario::CHANNELS[0]
        && index
            .case
            .clients
            .events
            .iter()
            .any(|event| event.call == probe && event.seq < closed.seq)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::fault::Micros;

    fn listening() -> Bench {
        let mut bench = Bench::new(vec![Op::Listen {
            channel: 0,
            span: Micros(1),
            queue: false,
        }]);
        bench.open(1, "primary");
        bench.asked(0);
        bench.server(EventKind::Listened {
            pid: 1,
            channel: "alpha".into(),
        });
        bench.heard(0, Heard::Subscribed);
        bench
    }

    fn notification(payload: &str) -> Heard {
        Heard::Notification {
            channel: "alpha".into(),
            payload: payload.into(),
        }
    }

    #[test]
    fn holes_and_disorder_are_found() {
        for (order, wrong) in [
            (vec!["1000", "1001", "1002"], false),
            (vec!["1000", "1002"], true),
            (vec!["1001", "1002"], true),
            (vec!["1000", "1000"], true),
            (vec!["1001", "1000"], true),
            (vec!["1000", "7777"], true),
        ] {
            let mut bench = listening();
            for payload in ["1000", "1001", "1002"] {
                bench.queued("alpha", payload);
            }
            for payload in &order {
                bench.heard(0, notification(payload));
            }
            bench.finds(if wrong { &[Oracle::O9] } else { &[] });
        }
    }

    #[test]
    fn a_gap_excuses_what_is_missing() {
        let mut bench = listening();
        bench.queued("alpha", "1000");
        bench.queued("alpha", "1001");
        bench.heard(0, notification("1000"));
        bench.heard(0, Heard::Gap(Instant::from_nanos(1)));
        bench.queued("alpha", "1002");
        bench.heard(0, Heard::Resumed);
        bench.queued("alpha", "1003");
        bench.heard(0, notification("1003"));
        bench.finds(&[]);
        bench.queued("alpha", "1004");
        bench.queued("alpha", "1005");
        bench.heard(0, notification("1005"));
        bench.finds(&[Oracle::O9]);
    }

    #[test]
    fn another_connection_without_a_gap_is_found() {
        for (gap, other, wrong) in [(false, 1, false), (false, 2, true), (true, 2, false)] {
            let mut bench = listening();
            for (payload, pid) in [("1000", 1), ("1001", other)] {
                bench.queued("alpha", payload);
                bench.server(EventKind::NotifySent {
                    pid,
                    channel: "alpha".into(),
                    payload: payload.into(),
                    ordinal: 0,
                });
            }
            bench.heard(0, notification("1000"));
            if gap {
                bench.heard(0, Heard::Gap(Instant::from_nanos(1)));
                bench.heard(0, Heard::Resumed);
            }
            bench.heard(0, notification("1001"));
            bench.finds(if wrong { &[Oracle::O9] } else { &[] });
        }
    }

    #[test]
    fn what_never_comes_is_found() {
        let mut bench = listening();
        bench.queued("alpha", "1000");
        bench.finds(&[]);
        bench.pass(Duration::from_secs(1));
        bench.heard(0, Heard::CancelAsked);
        bench.finds(&[Oracle::O9]);
    }

    #[test]
    fn delivery_after_the_barrier_is_found() {
        let mut bench = listening();
        bench.queued("alpha", "1000");
        bench.server(EventKind::Unlistened {
            pid: 1,
            channel: "alpha".into(),
        });
        bench.heard(0, Heard::CancelAsked);
        bench.heard(0, Heard::Closed);
        bench.heard(0, Heard::Drained);
        bench.finds(&[]);
        bench.heard(0, notification("1000"));
        bench.finds(&[Oracle::O9]);
    }

    #[test]
    fn a_server_that_still_has_the_channel_is_found() {
        let mut bench = listening();
        bench.heard(0, Heard::CancelAsked);
        bench.heard(0, Heard::Closed);
        bench.finds(&[]);
        bench.text(1, "SELECT 1", crate::history::Status::Idle);
        bench.finds(&[Oracle::O9]);
    }
}
