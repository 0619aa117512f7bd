//! Which faults wait for which trigger, which are in force, and when they end.
//!
//! A plain machine, part of the run's state: events in, deeds out. The deeds are carried out by `fault/deeds.rs`.

use std::collections::{BTreeMap, VecDeque};

use gdbpool::Instant;

use super::{Connections, Fault, FaultKind, NetworkFault, ServerEvent, Trigger};
use crate::pipe::Direction;
use crate::random::Stream;

/// The faults of one run.
pub(crate) struct Injector {
    planned: Vec<Planned>,
    agenda: BTreeMap<(Instant, u64), Deed>,
    entries: u64,
    ready: VecDeque<Deed>,
    shuffles: Stream,
}

struct Planned {
    fault: Fault,
    /// How many events of its trigger were seen.
    seen: u64,
    began: Option<Instant>,
    ended: bool,
    applied: bool,
}

/// Something to be done, between two polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A fault begins, by an event of this connection.
    Begin(usize, Option<u64>),
    /// A host is clogged, or no longer.
    Clog(String, bool),
    /// A fault ends.
    End(usize),
}

/// What became of a fault so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultReport {
    /// The fault.
    pub fault: Fault,
    /// When its trigger fired.
    pub began: Option<Instant>,
    /// It found something to apply itself to.
    pub applied: bool,
    /// It was ended, by its span or with all others.
    pub ended: bool,
}

/// A connection as triggers see it.
#[derive(Clone, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) to: &'a str,
    /// Its place among all connections of the run, and among those to its host; from one.
    pub(crate) nth: u64,
    pub(crate) nth_to: u64,
    pub(crate) newest: bool,
    pub(crate) newest_to: bool,
}

impl Injector {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            planned: Vec::new(),
            agenda: BTreeMap::new(),
            entries: 0,
            ready: VecDeque::new(),
            shuffles: Stream::new(seed, "swizzle", 0),
        }
    }

    /// Adds a fault and gives its number.
    pub(crate) fn plan(&mut self, fault: Fault) -> usize {
        let id = self.planned.len();
        if let Trigger::At(at) = fault.trigger {
            let at = Instant::from_nanos(0) + at.span();
            self.note(at, Deed::Begin(id, None));
        }
        self.planned.push(Planned {
            fault,
            seen: 0,
            began: None,
            ended: false,
            applied: false,
        });
        id
    }

    pub(crate) fn fault(&self, id: usize) -> &Fault {
        &self.planned[id].fault
    }

    /// Somebody waits for messages.
    pub(crate) fn watches_messages(&self) -> bool {
        let waiting = self.planned.iter().filter(|planned| planned.waits());
        waiting
            .map(|planned| &planned.fault.trigger)
            .any(|trigger| matches!(trigger, Trigger::Message { .. }))
    }

    pub(crate) fn message(&mut self, seen: &Sight<'_>, lane: Direction, of: Option<char>) -> Vec<usize> {
        self.count(|trigger| match trigger {
            Trigger::Message {
                connections,
                direction,
                kind,
                nth,
            } if *direction == lane && of.is_some() && (kind.is_none() || *kind == of) && seen.is(connections) => {
                Some(*nth)
            }
            _ => None,
        })
    }

    pub(crate) fn server_event(&mut self, at: &str, of: ServerEvent) -> Vec<usize> {
        self.count(|trigger| match trigger {
            Trigger::Server { event, node, nth } if *event == of && node.as_deref().is_none_or(|node| node == at) => {
                Some(*nth)
            }
            _ => None,
        })
    }

    pub(crate) fn point(&mut self, of: &str) -> Vec<usize> {
        self.count(|trigger| match trigger {
            Trigger::Point { name, nth } if name == of => Some(*nth),
            _ => None,
        })
    }

    /// Counts an event for every waiting trigger that it is one of; gives those for which it is the one.
    fn count(&mut self, nth: impl Fn(&Trigger) -> Option<u64>) -> Vec<usize> {
        let waiting = self
            .planned
            .iter_mut()
            .enumerate()
            .filter(|(_, planned)| planned.waits());
        let mut fired = Vec::new();
        for (id, planned) in waiting {
            if let Some(nth) = nth(&planned.fault.trigger) {
                planned.seen += 1;
                if planned.seen == nth.max(1) {
                    fired.push(id);
                }
            }
        }
        fired
    }

    /// To be done between two polls.
    pub(crate) fn queue(&mut self, deed: Deed) {
        self.ready.push_back(deed);
    }

    pub(crate) fn take(&mut self) -> Option<Deed> {
        self.ready.pop_front()
    }

    /// When time next brings something.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.agenda.keys().next().map(|&(at, _)| at)
    }

    /// Moves to the queue what is due.
    pub(crate) fn due(&mut self, now: Instant) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let deed = entry.remove();
            self.ready.push_back(deed);
        }
    }

    /// A fault begins now; false if it began before. Its end, and its further steps, go on the agenda.
    pub(crate) fn begin(&mut self, id: usize, now: Instant) -> bool {
        let planned = &mut self.planned[id];
        if !planned.waits() {
            return false;
        }
        planned.began = Some(now);
        let span = planned.fault.span;
        let what = planned.fault.what.clone();
        if let FaultKind::Network(NetworkFault::Swizzle { hosts, stagger }) = what {
            let mut at = now;
            for host in hosts {
                self.note(at, Deed::Clog(host, true));
                at = at + stagger.span();
            }
            // Those due now are done at once.
            self.due(now);
        }
        if let Some(span) = span {
            self.note(now + span.span(), Deed::End(id));
        }
        true
    }

    /// A fault ends; false if it did not last any more.
    pub(crate) fn end(&mut self, id: usize, now: Instant) -> bool {
        let planned = &mut self.planned[id];
        if planned.began.is_none() || std::mem::replace(&mut planned.ended, true) {
            return false;
        }
        if let FaultKind::Network(NetworkFault::Swizzle { hosts, stagger }) = planned.fault.what.clone() {
            let mut hosts = hosts;
            let mut at = now;
            while !hosts.is_empty() {
                let place = usize::try_from(self.shuffles.below(hosts.len() as u64)).unwrap_or(0);
                let host = hosts.remove(place);
                if self.forget_clog(&host) {
                    continue;
                }
                self.note(at, Deed::Clog(host, false));
                at = at + stagger.span();
            }
            self.due(now);
        }
        true
    }

    /// Calls off a clog that has yet to come; false if there is none.
    fn forget_clog(&mut self, host: &str) -> bool {
        let to_come = |deed: &Deed| matches!(deed, Deed::Clog(name, true) if name == host);
        let key = self.agenda.iter().find(|(_, deed)| to_come(deed)).map(|(key, _)| *key);
        if let Some(key) = key {
            self.agenda.remove(&key);
            return true;
        }
        let place = self.ready.iter().position(to_come);
        place.is_some_and(|place| self.ready.remove(place).is_some())
    }

    /// No fault begins any more; gives those that last.
    pub(crate) fn stop(&mut self) -> Vec<usize> {
        for planned in self.planned.iter_mut().filter(|planned| planned.waits()) {
            planned.ended = true;
        }
        self.agenda.retain(|_, deed| matches!(deed, Deed::Clog(_, false)));
        self.ready
            .retain(|deed| !matches!(deed, Deed::Begin(..) | Deed::Clog(_, true)));
        let lasting = self
            .planned
            .iter()
            .enumerate()
            .filter(|(_, planned)| planned.began.is_some() && !planned.ended);
        lasting.map(|(id, _)| id).collect()
    }

    /// It found something to apply itself to. True the first time.
    pub(crate) fn applied(&mut self, id: usize) -> bool {
        !std::mem::replace(&mut self.planned[id].applied, true)
    }

    pub(crate) fn reports(&self) -> Vec<FaultReport> {
        let report = |planned: &Planned| FaultReport {
            fault: planned.fault.clone(),
            began: planned.began,
            applied: planned.applied,
            ended: planned.ended,
        };
        self.planned.iter().map(report).collect()
    }

    fn note(&mut self, at: Instant, deed: Deed) {
        self.agenda.insert((at, self.entries), deed);
        self.entries += 1;
    }
}

impl Planned {
    fn waits(&self) -> bool {
        self.began.is_none() && !self.ended
    }
}

impl Sight<'_> {
    pub(crate) fn is(&self, connections: &Connections) -> bool {
        let host = |to: &Option<String>| to.as_deref().is_none_or(|to| to == self.to);
        match connections {
            Connections::All { to } => host(to),
            Connections::Newest { to: None } => self.newest,
            Connections::Newest { to } => host(to) && self.newest_to,
            Connections::Nth { to: None, nth } => self.nth == *nth,
            Connections::Nth { to, nth } => host(to) && self.nth_to == *nth,
            Connections::Trigger => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Micros, TimeFault};

    fn fault(trigger: Trigger, span: Option<u64>) -> Fault {
        Fault {
            trigger,
            what: FaultKind::Time(TimeFault::SpuriousWakes { percent: 1 }),
            span: span.map(Micros),
        }
    }

    #[test]
    fn a_trigger_fires_at_its_nth_event_and_once() {
        let mut injector = Injector::new(1);
        let commit = |node: Option<&str>, nth| Trigger::Server {
            event: ServerEvent::CommitDurable,
            node: node.map(str::to_owned),
            nth,
        };
        injector.plan(fault(commit(Some("n1"), 2), None));
        injector.plan(fault(commit(None, 2), None));
        let mut fired = Vec::new();
        for node in ["n0", "n1", "n1", "n1"] {
            fired.push(injector.server_event(node, ServerEvent::CommitDurable));
            assert!(injector.server_event(node, ServerEvent::Crashed).is_empty());
        }
        assert_eq!(fired, [vec![], vec![1], vec![0], vec![]]);
    }

    #[test]
    fn spans_end_and_stopping_disarms() {
        let mut injector = Injector::new(1);
        let at = |micros| Trigger::At(Micros(micros));
        let first = injector.plan(fault(at(5), Some(10)));
        injector.plan(fault(at(100), None));
        let instant = |micros: u64| Instant::from_nanos(micros * 1_000);
        assert_eq!(injector.next_at(), Some(instant(5)));
        injector.due(instant(5));
        assert_eq!(injector.take(), Some(Deed::Begin(first, None)));
        assert!(injector.begin(first, instant(5)) && !injector.begin(first, instant(6)));
        assert_eq!(injector.next_at(), Some(instant(15)));
        assert_eq!(injector.stop(), [first]);
        assert!(injector.end(first, instant(7)) && !injector.end(first, instant(8)));
        assert_eq!((injector.next_at(), injector.take()), (None, None));
    }
}
