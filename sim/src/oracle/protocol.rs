//! O17: the client never sends what the protocol does not allow at that point: the servers' strict state machines say so.

use super::index::Index;
use super::{Oracle, Violation};
use crate::history::EventKind;

pub(super) fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    for event in index.case.server.events() {
        if let EventKind::IllegalMessage { pid, text } = &event.kind {
            let words = format!("backend {pid} did not understand its client: {text}");
            found.push(Violation::new(Oracle::O17, words).with(event));
        }
    }
    if index.case.server.dropped() > 0 {
        let text = "the server's history overflowed: the scenario is too long to be judged";
        found.push(Violation::new(Oracle::O17, text));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    #[test]
    fn an_illegal_message_is_found() {
        let mut bench = Bench::new(Vec::new());
        bench.server(EventKind::IllegalMessage {
            pid: 1,
            text: "Bind before start-up".into(),
        });
        bench.finds(&[Oracle::O17]);
    }
}
