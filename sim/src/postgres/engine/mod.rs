//! The engine of one simulated node: SQL, catalog, row versions, locks, the write-ahead log. A plain machine: no await, lock, clock
//! or I/O; time comes in with each call, and what must wait is answered with what it waits for.
//!
//! Below the sessions and the server of a node, which own sockets, timers and replication. `door` says what goes in and out.
//!
//! What differs from PostgreSQL, in short: rows of a statement are made all at once; there is no planner, no physical log, no
//! privileges; a serializable transaction aborts more often; times with zones are shown in UTC only; names and texts compare
//! byte by byte.

mod alter;
mod analyse;
mod ast;
mod blocks;
mod catalog;
mod configure;
mod control;
mod cursors;
mod define;
mod door;
mod drops;
mod execute;
mod functions;
mod heap;
mod lexer;
mod locks;
mod names;
mod notify;
mod parser;
mod plan;
mod prepared;
mod relations;
mod replay;
mod run;
mod serializable;
mod session;
mod settings;
mod transaction;
mod types;
mod view_rows;
mod views;
mod wal;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use self::door::{
    Activity, ColumnDescription, Completion, EngineEvent, Facts, Moment, NodeSettings, Progress, Receiver, Request,
    Role, Wait, WalReceiver,
};
pub(crate) use self::plan::Plan;
pub(crate) use self::types::datum::Datum;
pub(crate) use self::wal::{Lsn, WalKind, WalRecord};

use self::catalog::Catalog;
use self::heap::Transactions;
use self::locks::Locks;
use self::serializable::Serializable;
use self::session::Session;
use self::wal::Wal;
use crate::wire::Report;

/// How many texts are kept parsed and planned.
const MAX_CACHED: usize = 2_000;

/// A parsed statement with its own text.
#[derive(Debug)]
pub(crate) struct Statement {
    parsed: ast::Statement,
    pub(crate) text: Arc<str>,
}

/// Where a standby is, or a primary was when it still was one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recovery {
    received: Option<Lsn>,
    replayed: Option<Lsn>,
    /// When the last replayed commit was made on the primary.
    last_commit: Option<i64>,
    paused: bool,
    checkpoint: Lsn,
    checkpoint_timeline: u32,
}

/// Plans of one text: for a database, a search path and given types.
#[derive(Clone, Debug, Default)]
struct Cached {
    plans: Vec<(PlanKey, Plan)>,
}

/// What names in a text mean depends on these.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlanKey {
    database: String,
    search_path: String,
    /// If the path has `$user` in it.
    user: Option<String>,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Engine {
    catalog: Catalog,
    events: Vec<EngineEvent>,
    locks: Locks,
    node: NodeSettings,
    notified: u64,
    parsed: BTreeMap<String, Vec<Arc<Statement>>>,
    plans: BTreeMap<Arc<str>, Cached>,
    receivers: Vec<Receiver>,
    recovery: Recovery,
    requests: Vec<Request>,
    role: Role,
    serializable: Serializable,
    sessions: BTreeMap<i32, Session>,
    synchronous: bool,
    transactions: Transactions,
    /// How many random numbers have been drawn.
    drawn: u64,
    /// How many statements were refused because the simulator does not support them.
    unsupported: u64,
    wal: Wal,
    wal_receiver: Option<WalReceiver>,
}

impl Engine {
    /// An empty primary on timeline 1.
    pub(crate) fn new(node: NodeSettings) -> Self {
        let wal = Wal::new();
        let recovery = Recovery {
            checkpoint: wal.end(),
            checkpoint_timeline: 1,
            ..Recovery::default()
        };
        Self {
            catalog: Catalog::new(),
            events: Vec::new(),
            locks: Locks::default(),
            node,
            notified: 0,
            parsed: BTreeMap::new(),
            plans: BTreeMap::new(),
            receivers: Vec::new(),
            recovery,
            requests: Vec::new(),
            role: Role::Primary { timeline: 1 },
            serializable: Serializable::default(),
            sessions: BTreeMap::new(),
            synchronous: false,
            transactions: Transactions::new(),
            drawn: 0,
            unsupported: 0,
            wal,
            wal_receiver: None,
        }
    }

    /// The statements of a query text. They are kept, since texts come again.
    pub(crate) fn parse(&mut self, sql: &str) -> Result<Vec<Arc<Statement>>, Report> {
        if let Some(known) = self.parsed.get(sql) {
            return Ok(known.clone());
        }
        let parsed = parser::parse(sql).inspect_err(|report| self.count(report))?;
        let statement = |parsed: parser::Parsed| {
            Arc::new(Statement {
                parsed: parsed.statement,
                text: parsed.text.into(),
            })
        };
        let statements: Vec<Arc<Statement>> = parsed.into_iter().map(statement).collect();
        if self.parsed.len() >= MAX_CACHED {
            self.parsed.clear();
        }
        self.parsed.insert(sql.to_owned(), statements.clone());
        Ok(statements)
    }

    /// How many statements were refused because the simulator does not support them.
    pub(crate) fn unsupported(&self) -> u64 {
        self.unsupported
    }

    fn count(&mut self, report: &Report) {
        if report.sqlstate == "0A000" && report.message.starts_with("gdbpool-sim does not support") {
            self.unsupported += 1;
        }
    }

    /// The next number of the node's own stream.
    fn random(&mut self) -> u64 {
        self.drawn += 1;
        // SplitMix64: a counter and a mixer.
        let mut mixed = self
            .node
            .seed
            .wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn session(&self, pid: i32) -> &Session {
        self.sessions
            .get(&pid)
            .expect("the session is open while its statements run")
    }

    fn session_mut(&mut self, pid: i32) -> &mut Session {
        self.sessions
            .get_mut(&pid)
            .expect("the session is open while its statements run")
    }

    fn request(&mut self, request: Request) {
        self.requests.push(request);
    }

    /// What SQL asked the server for since the last call.
    pub(crate) fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// What became of channels and notifications since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<EngineEvent> {
        std::mem::take(&mut self.events)
    }

    /// Whose wait may be over, in the order in which they came: resume them in this order, after each call of the engine.
    pub(crate) fn take_wakes(&mut self) -> Vec<i32> {
        self.locks.take_wakes()
    }

    pub(crate) fn take_notices(&mut self, pid: i32) -> Vec<Report> {
        self.sessions
            .get_mut(&pid)
            .map_or_else(Vec::new, |session| std::mem::take(&mut session.notices))
    }

    /// `I`, `T` or `E`, as ReadyForQuery says it.
    pub(crate) fn status(&self, pid: i32) -> u8 {
        self.sessions.get(&pid).map_or(b'I', Session::status)
    }

    /// What the session's last statement or transaction's end did.
    pub(crate) fn facts(&self, pid: i32) -> Facts {
        self.sessions
            .get(&pid)
            .map_or_else(Facts::default, |session| session.facts)
    }

    /// The transaction's number, if it has one.
    pub(crate) fn xid(&self, pid: i32) -> Option<u64> {
        self.sessions.get(&pid)?.transaction.as_ref()?.xid
    }

    /// Whether the session is in a transaction that may not write.
    pub(crate) fn is_read_only(&self, pid: i32) -> bool {
        let transaction = self.sessions.get(&pid).and_then(|session| session.transaction.as_ref());
        match transaction {
            Some(transaction) => transaction.read_only,
            None => {
                let session = self.sessions.get(&pid);
                self.role.is_standby() || session.is_some_and(|session| session.values.hot().read_only)
            }
        }
    }

    /// The session's `synchronous_commit`.
    pub(crate) fn commit_level(&self, pid: i32) -> &str {
        let session = self.sessions.get(&pid);
        session.map_or("on", |session| &session.values.hot().commit_level)
    }

    /// Facts for `pg_stat_activity` that only the server knows.
    pub(crate) fn set_activity(&mut self, pid: i32, change: impl FnOnce(&mut Activity)) {
        if let Some(session) = self.sessions.get_mut(&pid) {
            change(&mut session.activity);
        }
    }

    /// Settings, temporary tables, cursors, channels, prepared statements and session locks that differ from a new session's,
    /// in words: what a clean checkout must not find.
    pub(crate) fn leftovers(&self, pid: i32) -> Vec<String> {
        let Some(session) = self.sessions.get(&pid) else {
            return Vec::new();
        };
        let keys = session.values.session_keys();
        let mut found: Vec<String> = keys.map(|key| format!("setting {key}")).collect();
        found.extend(
            session
                .temporary
                .iter()
                .map(|(oid, _)| format!("temporary table {}", self.relation_name(*oid).unwrap_or_default())),
        );
        // The unnamed portal is that of the statement which is about to run.
        let cursors = session.portals.keys().filter(|name| !name.is_empty());
        found.extend(cursors.map(|name| format!("cursor {name:?}")));
        found.extend(session.channels.iter().map(|channel| format!("channel {channel:?}")));
        let from_sql = session.statements.iter().filter(|(_, statement)| statement.from_sql);
        found.extend(from_sql.map(|(name, _)| format!("prepared statement {name:?}")));
        let locks = self.locks.lines();
        let advisory = locks.iter().filter(|line| {
            line.pid == pid && line.granted && matches!(line.resource, locks::Resource::Advisory { .. })
        });
        found.extend(advisory.map(|_| "advisory lock".to_owned()));
        found
    }
}
