//! The two histories, looked up by mark, call and backend: made once for all oracles.
//!
//! A plain machine.

use std::collections::{BTreeMap, BTreeSet};

use gdbpool::Instant;

use super::Case;
use crate::fault::{CancelFate, FaultKind, Micros, ProtocolFault, ServerFault, TimeFault};
use crate::history::{Event, EventKind};
use crate::scenario::{ClientEvent, Fate, Op, Say, Step, call_of, mark};

/// What oracles look up.
pub(super) struct Index<'a> {
    pub(super) case: Case<'a>,
    pub(super) calls: BTreeMap<u64, CallView<'a>>,
    pub(super) sessions: BTreeMap<i32, SessionView<'a>>,
    /// The commits that each mark is part of.
    pub(super) commits: BTreeMap<u64, Vec<&'a Event>>,
    /// The beginnings of statements with a mark, in order.
    pub(super) begun: BTreeMap<u64, Vec<&'a Event>>,
}

/// One call, as its client saw it.
pub(super) struct CallView<'a> {
    pub(super) asked: &'a ClientEvent,
    pub(super) events: Vec<&'a ClientEvent>,
    pub(super) step: Option<&'a Step>,
}

/// One backend.
pub(super) struct SessionView<'a> {
    pub(super) application: &'a str,
    pub(super) node: u32,
    /// When it ended, in the server's order; `None` for one that lives.
    pub(super) closed: Option<&'a Event>,
    pub(super) events: Vec<&'a Event>,
    /// Clients' calls ran on it: it is a pool's session, not a listener's.
    pub(super) has_marks: bool,
}

impl<'a> Index<'a> {
    pub(super) fn of(case: Case<'a>) -> Self {
        let mut index = Self {
            case,
            calls: BTreeMap::new(),
            sessions: BTreeMap::new(),
            commits: BTreeMap::new(),
            begun: BTreeMap::new(),
        };
        for event in case.server.events() {
            index.add(event);
        }
        let steps: BTreeMap<u64, &Step> = case
            .scenario
            .clients
            .iter()
            .enumerate()
            .flat_map(|(client, program)| {
                let steps = program.steps.iter().enumerate();
                steps.map(move |(number, step)| (call_of(mark(client, number, 0)), step))
            })
            .collect();
        for event in &case.clients.events {
            if let Say::Asked { .. } = event.say {
                let view = CallView {
                    asked: event,
                    events: Vec::new(),
                    step: steps.get(&event.call).copied(),
                };
                index.calls.entry(event.call).or_insert(view);
            }
            if let Some(call) = index.calls.get_mut(&event.call) {
                call.events.push(event);
            }
        }
        index
    }

    fn add(&mut self, event: &'a Event) {
        match &event.kind {
            EventKind::SessionOpened { pid, application, .. } => {
                let view = SessionView {
                    application,
                    node: event.node,
                    closed: None,
                    events: Vec::new(),
                    has_marks: false,
                };
                self.sessions.insert(*pid, view);
            }
            EventKind::Committed { ops, .. } => {
                for op in ops.iter().collect::<BTreeSet<_>>() {
                    self.commits.entry(*op).or_default().push(event);
                }
            }
            EventKind::StatementBegan { op: Some(op), .. } => self.begun.entry(*op).or_default().push(event),
            _ => {}
        }
        let Some(session) = event.kind.pid().and_then(|pid| self.sessions.get_mut(&pid)) else {
            return;
        };
        match event.kind {
            EventKind::SessionClosed { .. } => session.closed = Some(event),
            EventKind::StatementBegan { op: Some(_), .. } => session.has_marks = true,
            _ => {}
        }
        session.events.push(event);
    }

    /// The call of a mark.
    pub(super) fn call(&self, op: u64) -> Option<&CallView<'a>> {
        self.calls.get(&call_of(op))
    }

    /// Whether servers close the connections of cancel requests before these take effect.
    pub(super) fn has_late_cancels(&self) -> bool {
        let is_late = |what: &FaultKind| {
            matches!(
                what,
                FaultKind::Protocol(ProtocolFault::Cancel {
                    fate: CancelFate::Late(_),
                    ..
                })
            )
        };
        self.case.scenario.faults.iter().any(|fault| is_late(&fault.what))
    }

    /// Whether what a client sent may reach its server long after the client is gone.
    pub(super) fn delivers_late(&self) -> bool {
        let is_late = |what: &FaultKind| {
            matches!(
                what,
                FaultKind::Network(_) | FaultKind::Server(ServerFault::Pause { .. } | ServerFault::Slow { .. })
            )
        };
        self.case.scenario.faults.iter().any(|fault| is_late(&fault.what))
    }

    pub(super) fn is_faultless(&self) -> bool {
        self.case.scenario.faults.is_empty()
    }

    /// How far the clock may have jumped over deadlines.
    pub(super) fn jumps(&self) -> Micros {
        let jumps = self.case.scenario.faults.iter().map(|fault| match fault.what {
            FaultKind::Time(TimeFault::Jump { by }) => by.0,
            _ => 0,
        });
        Micros(jumps.sum())
    }
}

impl<'a> CallView<'a> {
    pub(super) fn op(&self) -> Option<&'a Op> {
        self.step.map(|step| &step.op)
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self.asked.say, Say::Asked { read: true, .. })
    }

    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.asked.say, Say::Asked { idempotent: true, .. })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.asked.say {
            Say::Asked { deadline, .. } => deadline,
            _ => None,
        }
    }

    /// How it ended, and the marks of its writes.
    pub(super) fn ended(&self) -> Option<(&'a ClientEvent, Fate, &'a [u64])> {
        self.events.iter().find_map(|event| match &event.say {
            Say::Ended { fate, kept, .. } => Some((*event, *fate, kept.as_slice())),
            _ => None,
        })
    }

    /// The first event of which this is true.
    pub(super) fn first(&self, of: impl Fn(&Say) -> bool) -> Option<&'a ClientEvent> {
        self.events.iter().find(|event| of(&event.say)).copied()
    }
}
