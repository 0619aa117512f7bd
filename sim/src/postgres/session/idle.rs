//! What happens to a session while it waits for a request: notifications, conflicts, idle timeouts.
//!
//! Called by the reading of messages; it runs no statement.

use gdbpool::Instant;

use super::Session;
use super::halt::Halt;
use crate::postgres::server::Activity;
use crate::wire::Report;

impl Session {
    /// When the session has been idle too long, counted from now, and what it hears then.
    pub(crate) fn idle_deadline(&self) -> Option<(Instant, Report)> {
        let open = self.lock();
        let engine = &open.nodes[self.node].engine;
        let timeout = |name| engine.timeout(self.pid, name);
        let now = open.now();
        if engine.status(self.pid) == b'I' {
            let text = "terminating connection due to idle-session timeout";
            return timeout("idle_session_timeout").map(|span| (now + span, Report::fatal("57P05", text)));
        }
        let idle = timeout("idle_in_transaction_session_timeout").map(|span| {
            let text = "terminating connection due to idle-in-transaction timeout";
            (now + span, Report::fatal("25P03", text))
        });
        let began = open.nodes[self.node]
            .backends
            .get(&self.pid)
            .and_then(|backend| backend.began);
        let whole = timeout("transaction_timeout").map(|span| {
            let text = "terminating connection due to transaction timeout";
            (began.unwrap_or(now) + span, Report::fatal("25P04", text))
        });
        idle.into_iter().chain(whole).min_by_key(|(at, _)| *at)
    }

    /// The session waits for the client from now on, and shows it.
    pub(crate) fn idle(&self) {
        let mut open = self.lock();
        let wall = open.wall();
        let node = &mut open.nodes[self.node];
        if let Some(backend) = node.backends.get_mut(&self.pid) {
            backend.activity = Activity::Idle;
        }
        node.engine.set_activity(self.pid, |activity| {
            activity.state.clear();
            activity.state_change = wall;
        });
    }

    /// Somebody woke the session while it waits for a message.
    pub(crate) async fn roused(&mut self, idle: bool) -> Result<(), Halt> {
        let status = self.status();
        let conflict = self.backend(|backend| std::mem::take(&mut backend.conflict));
        if conflict == Some(true) && status != b'I' {
            return Err(Halt::Fatal(conflict_report(true)));
        }
        if idle && self.send_notifications(status) {
            self.flush().await?;
        }
        Ok(())
    }
}

/// What a session hears that stands in the way of recovery: its statement is cancelled, or, when it is idle in a
/// transaction, the session ends.
pub(crate) fn conflict_report(fatal: bool) -> Report {
    let report = if fatal {
        let hint = "In a moment you should be able to reconnect to the database and repeat your command.";
        Report::fatal("40001", "terminating connection due to conflict with recovery").hint(hint)
    } else {
        Report::error("40001", "canceling statement due to conflict with recovery")
    };
    report.detail("User query might have needed to see row versions that must be removed.")
}
