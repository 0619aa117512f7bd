//! What the history is told of a session's statements.
//!
//! Beside the running of statements; it changes nothing but the session's ledger.

use std::sync::Arc;

use super::Session;
use crate::fault::ServerEvent;
use crate::history::{End, EventKind, Leftover, Role, op_of};
use crate::postgres::cluster::status_kind;
use crate::postgres::engine::Completion;

impl Session {
    /// Something that faults may wait for, and that the history does not have.
    pub(crate) fn happened(&self, event: ServerEvent) {
        self.lock().happened(self.node, event, Some(self.pid));
    }

    pub(crate) fn began(&self, text: &Arc<str>) {
        let (node, pid, op) = (self.node, self.pid, op_of(text));
        let mut open = self.lock();
        let now = open.now();
        let target = &mut open.nodes[node];
        let status = target.engine.status(pid);
        let role = if target.standby.is_some() {
            Role::Standby
        } else {
            Role::Primary
        };
        let read_only = target.engine.is_read_only(pid);
        let snapshot = target.position().0;
        let last = target.backends.get(&pid).and_then(|backend| backend.ledger.last);
        if let Some(op) = op.filter(|op| status == b'I' && last != Some(*op)) {
            let leftovers: Vec<Leftover> = target
                .engine
                .leftovers(pid)
                .iter()
                .filter_map(|words| leftover(words))
                .collect();
            if !leftovers.is_empty() {
                open.record(node, EventKind::Found { pid, op, leftovers });
            }
        }
        open.feel_lag(node, snapshot);
        let wall = open.wall();
        open.nodes[node].engine.set_activity(pid, |activity| {
            (**text).clone_into(&mut activity.query);
            "active".clone_into(&mut activity.state);
            (activity.query_start, activity.state_change) = (wall, wall);
        });
        if let Some(backend) = open.nodes[node].backends.get_mut(&pid) {
            backend.ledger.began(op);
            backend.began.get_or_insert(now);
        }
        let kind = EventKind::StatementBegan {
            pid,
            text: Arc::clone(text),
            op,
            status: status_kind(status),
            role,
            read_only,
            snapshot,
        };
        open.record(node, kind);
    }

    pub(crate) fn ended(&self, text: &str, completion: &Completion) {
        let pid = self.pid;
        if matches!(&*completion.tag, "BEGIN" | "START TRANSACTION") {
            self.happened(ServerEvent::TransactionBegan);
        }
        let taken_back = self.backend(|backend| backend.ledger.ended(text, &completion.tag));
        if let Some(ops) = taken_back.filter(|ops| !ops.is_empty()) {
            self.record(EventKind::RolledBackTo { pid, ops });
        }
        self.finished(
            text,
            End::Tag(completion.tag.as_str().into()),
            changed_rows(&completion.tag),
            completion.facts.xid,
        );
    }

    pub(crate) fn gave_up(&self, text: &str, sqlstate: &str) {
        // Whoever fails outside a transaction block has none afterwards; the engine may not have been told yet.
        let mut open = self.lock();
        open.failed(self.node, self.pid);
        if open.nodes[self.node].faults.setting && matches!(sqlstate, "55P03" | "57014") {
            open.felt("server.setting");
        }
        drop(open);
        self.finished(text, End::Failed(sqlstate.into()), 0, None);
    }

    pub(crate) fn finished(&self, text: &str, end: End, changed: u64, xid: Option<u64>) {
        self.record(EventKind::StatementEnded {
            pid: self.pid,
            op: op_of(text),
            end,
            changed,
            xid,
            status: status_kind(self.status()),
        });
    }
}

/// How many rows a statement has changed, by its tag.
fn changed_rows(tag: &str) -> u64 {
    let (verb, count) = tag.rsplit_once(' ').unwrap_or((tag, ""));
    match verb.split(' ').next() {
        Some("COPY" | "DELETE" | "INSERT" | "MERGE" | "UPDATE") => count.parse().unwrap_or(0),
        _ => 0,
    }
}

/// What the engine has found in a session, in the history's words.
fn leftover(words: &str) -> Option<Leftover> {
    // A name in quotes may hold spaces.
    let end = words.find(" \"").or_else(|| words.rfind(' '));
    let (kind, name) = words.split_at(end.unwrap_or(words.len()));
    let name: Arc<str> = name.trim_start().trim_matches('"').into();
    Some(match kind {
        "advisory" => Leftover::AdvisoryLock(name),
        "channel" => Leftover::Listen(name),
        "cursor" => Leftover::Cursor(name),
        "prepared statement" => Leftover::Prepared(name),
        "setting" => Leftover::Setting(name),
        "temporary table" => Leftover::TempTable(name),
        _ => return None,
    })
}
