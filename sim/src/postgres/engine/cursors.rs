//! Portals and cursors: Bind and Execute, DECLARE, FETCH, MOVE, CLOSE.
//!
//! Parts of the runner. A plain machine. All rows are made at the first fetch, from what was seen when the cursor was declared.

use std::sync::Arc;

use super::Engine;
use super::analyse::Analyser;
use super::ast::{Declare, Direction};
use super::door::{ColumnDescription, Completion, Moment, Row};
use super::execute::{Context, Stop};
use super::plan::{OutputColumn, Plan, PlanBody};
use super::run::Answer;
use super::session::{Kind, Portal};
use super::types::datum::Datum;
use super::{Statement, ast};
use crate::wire::Report;

impl Engine {
    /// The protocol's Bind.
    pub(crate) fn bind(
        &mut self,
        pid: i32,
        name: &str,
        plan: &Plan,
        parameters: Vec<Datum>,
        at: Moment,
    ) -> Result<(), Report> {
        self.usable(pid, &plan.statement().parsed)?;
        let wanted = plan.parameters().len();
        if parameters.len() != wanted {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"\" requires {wanted}",
                parameters.len()
            );
            return Err(Report::error("08P01", message));
        }
        self.new_portal(pid, name, false)?;
        let plan = self.refreshed(pid, plan)?;
        self.fold(pid, &plan, &parameters, at)?;
        let depth = self.depth(pid);
        let portal = Portal {
            columns: plan.shared_columns(),
            text: Arc::clone(plan.text()),
            plan,
            parameters: parameters.into(),
            rows: None,
            at: 0,
            tag: None,
            view: None,
            scroll: Some(false),
            hold: false,
            from_sql: false,
            created: at.wall,
            depth,
        };
        self.session_mut(pid).portals.insert(name.to_owned(), portal);
        Ok(())
    }

    /// Errors of constant parts, such as a division by zero, come out when the plan is chosen, before it runs.
    fn fold(&mut self, pid: i32, plan: &Plan, parameters: &[Datum], at: Moment) -> Result<(), Report> {
        use super::functions::Run;
        use super::plan::{BodyPlan, Ex};
        let PlanBody::Query(select) = plan.body() else {
            return Ok(());
        };
        let BodyPlan::Select(core) = &select.body else {
            return Ok(());
        };
        let varies = |part: &Ex| match part {
            Ex::Column { .. } | Ex::Set(_) | Ex::Aggregate(_) | Ex::Case { .. } | Ex::Coalesce(_) => true,
            Ex::Call(function, _) => !function.immutable || !matches!(function.run, Run::Plain(_)),
            Ex::Cast { to, .. } => to.category() == b'N' && to.number_rank().is_none(),
            other => other.query().is_some(),
        };
        let constant = core.targets.iter().chain(&core.filter).filter(|ex| !ex.any(&varies));
        let constant: Vec<Ex> = constant
            .filter(|ex| matches!(ex, Ex::Call(..) | Ex::Cast { .. } | Ex::Compare(..)))
            .cloned()
            .collect();
        let view = super::heap::View {
            commits: 0,
            own: u64::MAX,
            command: 0,
        };
        for ex in constant {
            if let Err(Stop::Fail(report)) = Context::new(self, pid, at, parameters, view).value(&ex, &[]) {
                return Err(*report);
            }
        }
        Ok(())
    }

    fn new_portal(&mut self, pid: i32, name: &str, from_sql: bool) -> Result<(), Report> {
        let portals = &self.session(pid).portals;
        if !name.is_empty() && portals.contains_key(name) {
            let what = if from_sql { "cursor" } else { "portal" };
            // PostgreSQL calls both a cursor.
            let what = if what == "portal" { "cursor" } else { what };
            return Err(Report::error("42P03", format!("{what} \"{name}\" already exists")));
        }
        Ok(())
    }

    fn depth(&self, pid: i32) -> usize {
        self.session(pid)
            .transaction
            .as_ref()
            .map_or(0, |transaction| transaction.savepoints.len())
    }

    /// What Describe says of a portal.
    pub(crate) fn portal_columns(&self, pid: i32, name: &str) -> Result<Option<Arc<[ColumnDescription]>>, Report> {
        let portal = self.session(pid).portals.get(name);
        portal
            .map(|portal| portal.columns.clone())
            .ok_or_else(|| no_portal(name, "portal"))
    }

    /// The protocol's Close of a portal; nothing if there is none.
    pub(crate) fn drop_portal(&mut self, pid: i32, name: &str) {
        self.session_mut(pid).portals.remove(name);
    }

    /// One attempt of Execute.
    pub(super) fn portal(&mut self, pid: i32, name: &str, most: usize, at: Moment) -> Result<Answer, Stop> {
        let portal = self.session(pid).portals.get(name);
        let portal = portal.ok_or_else(|| no_portal(name, "portal"))?;
        let (plan, columns) = (portal.plan.clone(), portal.columns.clone());
        let (is_new, has_run, from_sql) = (portal.rows.is_none(), portal.tag.is_some(), portal.from_sql);
        let parsed = &plan.statement().parsed;
        self.usable(pid, parsed)?;
        let gives_rows = Self::is_query(parsed) || columns.is_some();
        if has_run && !gives_rows {
            return Err(Report::error("55000", format!("portal \"{name}\" cannot be run")).into());
        }
        if is_new {
            let answer = if from_sql {
                self.filled(pid, name, at)?;
                None
            } else {
                let parameters = self.session(pid).portals.get(name);
                let parameters = parameters.map_or_else(|| Arc::from([]), |portal| Arc::clone(&portal.parameters));
                Some(self.statement_once(pid, &plan, &parameters, false, at)?)
            };
            match answer {
                None => {}
                Some(Answer::Done(mut completion)) if gives_rows => {
                    let Some(portal) = self.session_mut(pid).portals.get_mut(name) else {
                        // The statement has closed its own portal, as a transaction's end does.
                        return Ok(Answer::Done(completion));
                    };
                    portal.tag = Some(completion.tag.clone());
                    // Nobody comes back for rows that are all given now.
                    let kept = if most == 0 {
                        Vec::new()
                    } else {
                        std::mem::take(&mut completion.rows)
                    };
                    portal.rows = Some(kept);
                    if most == 0 {
                        portal.at = 1;
                        completion.columns = columns;
                        return Ok(Answer::Done(completion));
                    }
                    return Ok(Answer::Done(self.portion(pid, name, most, Some(completion))));
                }
                Some(Answer::Done(completion)) => {
                    if let Some(portal) = self.session_mut(pid).portals.get_mut(name) {
                        portal.tag = Some(completion.tag.clone());
                    }
                    return Ok(Answer::Done(completion));
                }
                Some(other) => return Ok(other),
            }
        }
        Ok(Answer::Done(self.portion(pid, name, most, None)))
    }

    /// The next rows of a portal.
    fn portion(&mut self, pid: i32, name: &str, most: usize, first: Option<Completion>) -> Completion {
        let facts = first.as_ref().map(|completion| completion.facts).unwrap_or_default();
        let Some(portal) = self.session_mut(pid).portals.get_mut(name) else {
            // The statement has closed its own portal, as a transaction's end does.
            return first.unwrap_or_default();
        };
        let rows = portal.rows.as_deref().unwrap_or_default();
        let start = portal.at.min(rows.len());
        let end = if most == 0 {
            rows.len()
        } else {
            rows.len().min(start.saturating_add(most))
        };
        let given = rows[start..end].to_vec();
        // A full batch does not tell whether there is more.
        let suspended = most > 0 && given.len() == most;
        portal.at = if suspended { end } else { rows.len() + 1 };
        let words = portal.tag.as_deref().unwrap_or("SELECT 0");
        let tag = if words.starts_with("SELECT") || portal.from_sql {
            format!("SELECT {}", given.len())
        } else {
            words.to_owned()
        };
        Completion {
            tag,
            columns: portal.columns.clone(),
            rows: given,
            suspended,
            facts,
        }
    }

    pub(super) fn declare(
        &mut self,
        pid: i32,
        statement: &Arc<Statement>,
        declare: &Declare,
        at: Moment,
    ) -> Result<(), Stop> {
        let kind = self
            .session(pid)
            .transaction
            .as_ref()
            .map(|transaction| transaction.kind);
        if kind == Some(Kind::Implicit) && !declare.hold {
            return Err(Report::error("25P01", "DECLARE CURSOR can only be used in transaction blocks").into());
        }
        self.new_portal(pid, &declare.name, true)?;
        let (select, _) = Analyser::new(self, pid, &statement.text)
            .fixed()
            .standalone(&declare.query)?;
        if !select.locks.is_empty() {
            self.require_writable(pid, "SELECT FOR UPDATE")?;
            if declare.hold {
                let message = "DECLARE CURSOR WITH HOLD ... FOR UPDATE is not supported";
                return Err(Report::error("0A000", message)
                    .detail("Holdable cursors must be READ ONLY.")
                    .into());
            }
        }
        let columns: Arc<[ColumnDescription]> = select.columns.iter().map(OutputColumn::described).collect();
        let view = self.view(pid);
        let stamp = (self.catalog.version, self.session(pid).values.hot().search_path.clone());
        let plan = Plan::new(
            Arc::clone(statement),
            Vec::new(),
            Vec::new(),
            Some(Arc::clone(&columns)),
            PlanBody::Query(select),
            stamp,
        );
        let portal = Portal {
            plan,
            parameters: Arc::from([]),
            columns: Some(columns),
            rows: None,
            at: 0,
            tag: None,
            view: Some(view),
            scroll: declare.scroll,
            hold: declare.hold,
            from_sql: true,
            text: statement.text.clone(),
            created: at.wall,
            depth: self.depth(pid),
        };
        self.session_mut(pid).portals.insert(declare.name.clone(), portal);
        Ok(())
    }

    /// Makes a cursor's rows, if it has none yet.
    fn filled(&mut self, pid: i32, name: &str, at: Moment) -> Result<(), Stop> {
        let Some(portal) = self.session(pid).portals.get(name) else {
            return Ok(());
        };
        if portal.rows.is_some() {
            return Ok(());
        }
        let (plan, parameters) = (portal.plan.clone(), Arc::clone(&portal.parameters));
        let view = portal.view.unwrap_or(super::heap::View {
            commits: self.transactions.commits(),
            own: u64::MAX,
            command: 0,
        });
        let PlanBody::Query(select) = plan.body() else {
            return Ok(());
        };
        let rows = Context::new(self, pid, at, &parameters, view).query(select, &[])?;
        if let Some(portal) = self.session_mut(pid).portals.get_mut(name) {
            portal.rows = Some(rows);
        }
        Ok(())
    }

    /// Cursors that outlive the transaction get their rows before it ends.
    pub(super) fn hold_cursors(&mut self, pid: i32, at: Moment) -> Result<(), Stop> {
        let portals = self.session(pid).portals.iter();
        let names: Vec<String> = portals
            .filter(|(_, portal)| portal.hold)
            .map(|(name, _)| name.clone())
            .collect();
        names.iter().try_for_each(|name| self.filled(pid, name, at))
    }

    pub(super) fn fetch(
        &mut self,
        pid: i32,
        name: &str,
        direction: Direction,
        only_move: bool,
        at: Moment,
    ) -> Result<Completion, Stop> {
        if !self.session(pid).portals.contains_key(name) {
            return Err(no_portal(name, "cursor").into());
        }
        self.filled(pid, name, at)?;
        let Some(portal) = self.session_mut(pid).portals.get_mut(name) else {
            return Err(no_portal(name, "cursor").into());
        };
        let rows = moved(portal, direction)?;
        let verb = if only_move { "MOVE" } else { "FETCH" };
        Ok(Completion {
            tag: format!("{verb} {}", rows.len()),
            columns: if only_move { None } else { portal.columns.clone() },
            rows: if only_move { Vec::new() } else { rows },
            ..Completion::default()
        })
    }

    pub(super) fn close_cursor(&mut self, pid: i32, name: Option<&str>) -> Result<(), Report> {
        let portals = &mut self.session_mut(pid).portals;
        match name {
            None => portals.clear(),
            Some(name) if portals.remove(name).is_none() => return Err(no_portal(name, "cursor")),
            Some(_) => {}
        }
        Ok(())
    }

    /// The statement inside PREPARE, by itself.
    pub(super) fn inner(statement: &ast::Statement, text: &str) -> Arc<Statement> {
        Arc::new(Statement {
            parsed: statement.clone(),
            text: text.into(),
        })
    }
}

fn no_portal(name: &str, what: &str) -> Report {
    Report::error("34000", format!("{what} \"{name}\" does not exist"))
}

/// Moves a cursor; the rows it passed.
fn moved(portal: &mut Portal, direction: Direction) -> Result<Vec<Row>, Report> {
    let rows = portal.rows.as_deref().unwrap_or_default();
    let (length, at) = (rows.len(), portal.at);
    let size = |count: i64| usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let (forward, count) = match direction {
        Direction::All => (true, usize::MAX),
        Direction::BackwardAll => (false, usize::MAX),
        Direction::Forward(count) => (count >= 0, size(count)),
        Direction::Backward(count) => (count < 0, size(count)),
        Direction::Absolute(count) => {
            let target = if count >= 0 {
                size(count)
            } else {
                (length + 1).saturating_sub(size(count))
            };
            return to(portal, target);
        }
        Direction::Relative(count) => {
            let target = if count >= 0 {
                at.saturating_add(size(count))
            } else {
                at.saturating_sub(size(count))
            };
            return to(portal, target);
        }
    };
    if count == 0 {
        return to(portal, at);
    }
    if !forward && portal.scroll == Some(false) {
        return Err(backward());
    }
    if forward {
        let start = at.min(length);
        let end = length.min(start.saturating_add(count));
        let passed = rows[start..end].to_vec();
        portal.at = if passed.len() < count { length + 1 } else { end };
        Ok(passed)
    } else {
        let last = at.saturating_sub(1).min(length);
        let first = last.saturating_sub(count);
        let passed: Vec<Row> = rows[first..last].iter().rev().cloned().collect();
        portal.at = if passed.len() < count { 0 } else { first + 1 };
        Ok(passed)
    }
}

/// Stands on one row; the row, if it is one.
fn to(portal: &mut Portal, target: usize) -> Result<Vec<Row>, Report> {
    let rows = portal.rows.as_deref().unwrap_or_default();
    if target < portal.at && portal.scroll == Some(false) {
        return Err(backward());
    }
    portal.at = target.min(rows.len() + 1);
    let on = portal.at.checked_sub(1).and_then(|at| rows.get(at));
    Ok(on.cloned().into_iter().collect())
}

fn backward() -> Report {
    Report::error("55000", "cursor can only scan forward")
        .hint("Declare it with SCROLL option to enable backward scan.")
}
