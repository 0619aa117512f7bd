//! Execution: analysed statements over the rows of a node.
//!
//! Below the session's verbs, above catalog, heap and locks. A plain machine: what must wait stops with the reason and starts over
//! later; nothing here waits.

mod changes;
mod constraints;
pub(crate) mod copy;
mod evaluate;
mod group;
mod modify;
mod rows;
mod scan;
mod select;

use std::sync::Arc;

use super::Engine;
use super::door::{Moment, Row, Wait};
use super::heap::View;
use super::session::Session;
use super::types::datum::Datum;
use crate::wire::Report;

pub(crate) use self::constraints::check_deferred;

/// More rows than this in one step of a statement are refused.
pub(crate) const MAX_ROWS: usize = 500_000;

/// How deep queries may be nested when they run.
const MAX_DEPTH: usize = 60;

/// Why a statement does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    Fail(Box<Report>),
    Wait(Wait),
}

impl From<Report> for Stop {
    fn from(report: Report) -> Self {
        Self::Fail(Box::new(report))
    }
}

/// What an evaluation needs beside its expression and row.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) engine: &'a mut Engine,
    pub(crate) pid: i32,
    pub(crate) at: Moment,
    pub(crate) parameters: &'a [Datum],
    pub(crate) view: View,
    /// The rows of the queries around the present one, the nearest last.
    outer: Vec<Row>,
    /// The WITH queries of the present query and those around it.
    commons: Vec<Vec<Arc<Vec<Row>>>>,
    /// What the set-returning functions among the targets give for the row at hand.
    sets: Vec<Datum>,
    /// Whether rows remember where they come from, for locking.
    tracking: bool,
}

/// A row on its way through a query, and the table rows it was made of.
#[derive(Clone, Debug)]
pub(crate) struct Tuple {
    pub(crate) data: Row,
    pub(crate) origins: Vec<(u32, u64)>,
}

impl Tuple {
    fn plain(data: Row) -> Self {
        Self {
            data,
            origins: Vec::new(),
        }
    }
}

impl<'a> Context<'a> {
    pub(crate) fn new(engine: &'a mut Engine, pid: i32, at: Moment, parameters: &'a [Datum], view: View) -> Self {
        Self {
            engine,
            pid,
            at,
            parameters,
            view,
            outer: Vec::new(),
            commons: Vec::new(),
            sets: Vec::new(),
            tracking: false,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        self.engine.session(self.pid)
    }

    pub(crate) fn session_mut(&mut self) -> &mut Session {
        self.engine.session_mut(self.pid)
    }

    /// When the transaction began, in microseconds since 2000.
    pub(crate) fn started(&self) -> i64 {
        self.session()
            .transaction
            .as_ref()
            .map_or(self.at.wall, |transaction| transaction.started)
    }

    pub(crate) fn xid(&self) -> Option<u64> {
        self.session()
            .transaction
            .as_ref()
            .and_then(|transaction| transaction.xid)
    }

    /// The transaction's number, given now if it has none; the view then knows it as its own.
    pub(crate) fn own(&mut self) -> u64 {
        let xid = self.engine.assign_xid(self.pid);
        self.view.own = xid;
        xid
    }
}

/// A row from values.
pub(crate) fn made(values: Vec<Datum>) -> Row {
    Arc::from(values)
}

/// Two rows side by side.
fn joined(left: &[Datum], right: &[Datum]) -> Row {
    left.iter().chain(right).cloned().collect()
}
