//! The extended query protocol: Parse, Bind, Describe, Execute, Close, Sync.
//!
//! Statements and portals live in the engine, which shares them with SQL's PREPARE and DECLARE; only what the client
//! said about result formats is kept here.

use std::sync::Arc;

use super::Session;
use super::halt::Halt;
use super::run::Ran;
use crate::fault::FailAt;
use crate::postgres::engine::{ColumnDescription, Completion, Datum, Plan};
use crate::wire::{Backend as Message, Column, Report, Target};

/// What a session remembers of a portal.
pub(crate) struct Portal {
    text: Arc<str>,
    formats: Vec<i16>,
    ends_transaction: bool,
    started: bool,
}

/// The parts of a Bind message.
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    pub(crate) parameter_formats: Vec<i16>,
    pub(crate) parameters: Vec<Option<Vec<u8>>>,
    pub(crate) result_formats: Vec<i16>,
}

impl Session {
    pub(crate) async fn parse(&mut self, name: String, text: &str, types: &[u32]) -> Result<(), Halt> {
        self.arm_statement();
        let pid = self.pid;
        let (stub, failure) = {
            let mut open = self.lock();
            (
                open.stubs.find(text),
                open.nodes[self.node].faults.fail_at(FailAt::Parse),
            )
        };
        if let Some(report) = failure {
            self.lock().felt("server.fail");
            return Err(report.into());
        }
        if let Some(stub) = stub {
            self.refuse_in_failed(text)?;
            self.parse_stub(name, stub);
            return Ok(());
        }
        let statements = self.engine(|engine, _| engine.parse(text))?;
        if statements.len() > 1 {
            let text = "cannot insert multiple commands into a prepared statement";
            return Err(Report::error("42601", text).into());
        }
        match statements.first() {
            Some(statement) => {
                let plan = self.engine(|engine, _| engine.prepare(pid, statement, types))?;
                self.engine(|engine, moment| engine.store_statement(pid, &name, plan, moment.wall))?;
                self.stubs.forget_statement(&name);
            }
            None => self.parse_empty(name),
        }
        self.send(&Message::ParseComplete);
        Ok(())
    }

    pub(crate) async fn bind(&mut self, bind: Bind) -> Result<(), Halt> {
        self.arm_statement();
        if let Some(stub) = self.stubs.statement(&bind.statement) {
            self.refuse_in_failed(&bind.statement)?;
            return self.bind_stub(stub, bind);
        }
        let pid = self.pid;
        let plan = self.engine(|engine, _| engine.statement(pid, &bind.statement))?;
        check_count(&bind, plan.parameters().len())?;
        self.refuse_in_failed(plan.text())?;
        let mut parameters = Vec::with_capacity(bind.parameters.len());
        for (place, (value, of)) in bind.parameters.iter().zip(plan.parameters()).enumerate() {
            let binary = format_of(&bind.parameter_formats, place) == 1;
            parameters.push(Datum::decode(*of, binary, value.as_deref())?);
        }
        check_formats(&bind, &plan)?;
        self.engine(|engine, moment| engine.bind(pid, &bind.portal, &plan, parameters, moment))?;
        self.stubs.forget_portal(&bind.portal);
        let portal = Portal {
            text: Arc::clone(plan.text()),
            formats: bind.result_formats,
            ends_transaction: ends_transaction(plan.text()),
            started: false,
        };
        self.portals.insert(bind.portal, portal);
        self.send(&Message::BindComplete);
        Ok(())
    }

    pub(crate) fn refuse_in_failed(&self, text: &str) -> Result<(), Report> {
        if self.status() == b'E' && !ends_transaction(text) {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Report::error("25P02", text));
        }
        Ok(())
    }

    pub(crate) fn describe(&mut self, target: Target, name: &str) -> Result<(), Halt> {
        if self.describe_stub(target, name) {
            return Ok(());
        }
        let pid = self.pid;
        if target == Target::Statement {
            let plan = self.engine(|engine, _| engine.statement(pid, name))?;
            if plan.columns().is_some() {
                self.refuse_in_failed(plan.text())?;
            }
            self.send(&Message::ParameterDescription(plan.parameters().to_vec()));
            match plan.columns() {
                Some(columns) => self.describe_columns(columns, &[]),
                None => self.send(&Message::NoData),
            }
            return Ok(());
        }
        let columns = self.engine(|engine, _| engine.portal_columns(pid, name))?;
        let formats = self
            .portals
            .get(name)
            .map(|portal| portal.formats.clone())
            .unwrap_or_default();
        match columns {
            Some(columns) => {
                self.refuse_in_failed("")?;
                self.describe_columns(&columns, &formats);
            }
            None => self.send(&Message::NoData),
        }
        Ok(())
    }

    pub(crate) async fn execute(&mut self, name: &str, max_rows: i32) -> Result<(), Halt> {
        if self.stubs.portal(name) {
            return self.execute_stub(name, max_rows).await;
        }
        self.arm_statement();
        let limit = usize::try_from(max_rows).unwrap_or(0);
        let pid = self.pid;
        let known = self.portals.get_mut(name);
        let (text, formats, started) = match known {
            Some(portal) => {
                let before = std::mem::replace(&mut portal.started, true);
                (portal.text.clone(), portal.formats.clone(), before)
            }
            // A cursor made by DECLARE, or nothing at all: the engine knows.
            None => (Arc::from(""), Vec::new(), false),
        };
        if self.portals.get(name).is_some_and(|portal| !portal.ends_transaction) {
            self.refuse_in_failed(&text)?;
        }
        let start = |engine: &mut crate::postgres::engine::Engine, moment| engine.execute(pid, name, limit, moment);
        let ran = if started {
            let progress = self.engine(start);
            self.drive(progress).await?
        } else {
            self.run(&text, start).await?
        };
        let completion = match ran {
            Ran::Done(completion) => completion,
            Ran::CopyIn { columns } => self.copy_in(&text, columns).await?,
            Ran::CopyOut {
                columns,
                lines,
                completion,
            } => {
                self.copy_out(columns, lines).await?;
                self.ended(&text, &completion);
                completion
            }
        };
        self.statement_deadline = None;
        self.send_notices();
        let columns = match &completion.columns {
            Some(_) => None,
            None => self
                .engine(|engine, _| engine.portal_columns(pid, name))
                .unwrap_or(None),
        };
        self.send_rows(&completion, columns.as_deref(), &formats).await?;
        self.complete(&completion).await
    }

    async fn complete(&mut self, completion: &Completion) -> Result<(), Halt> {
        if completion.suspended {
            self.send(&Message::PortalSuspended);
        } else if completion.tag.is_empty() {
            self.send(&Message::EmptyQueryResponse);
        } else {
            self.send(&Message::CommandComplete(completion.tag.clone()));
        }
        if completion.tag == "COMMIT" {
            self.committed().await?;
        }
        Ok(())
    }

    pub(crate) fn close(&mut self, target: Target, name: &str) {
        let pid = self.pid;
        match target {
            Target::Portal => {
                self.portals.remove(name);
                self.stubs.forget_portal(name);
                self.engine(|engine, _| engine.drop_portal(pid, name));
            }
            Target::Statement => {
                self.stubs.forget_statement(name);
                self.engine(|engine, _| engine.drop_statement(pid, name));
            }
        }
        self.send(&Message::CloseComplete);
    }

    pub(crate) async fn sync(&mut self) -> Result<(), Halt> {
        if !std::mem::take(&mut self.skipping) {
            match self.end_implicit().await {
                Ok(()) => {}
                Err(Halt::Fail(report)) => self.fail(report).await?,
                Err(halt) => return Err(halt),
            }
        }
        self.forget_portals_outside();
        self.send_notices();
        self.ready().await
    }

    /// Outside a transaction there are no portals.
    pub(crate) fn forget_portals_outside(&mut self) {
        if self.status() == b'I' {
            self.portals.clear();
            self.stubs.forget_portals();
        }
    }

    /// A simple query does away with what has no name.
    pub(crate) fn forget_unnamed(&mut self) {
        self.portals.remove("");
        self.stubs.forget_portal("");
        self.stubs.forget_statement("");
        let pid = self.pid;
        self.engine(|engine, _| engine.drop_statement(pid, ""));
    }

    pub(crate) fn describe_columns(&mut self, columns: &[ColumnDescription], formats: &[i16]) {
        let columns = columns.iter().enumerate().map(|(place, column)| Column {
            name: column.name.clone(),
            table: column.table_oid,
            attribute: column.attribute,
            oid: column.type_oid,
            size: column.size,
            modifier: column.typmod,
            binary: format_of(formats, place) == 1,
        });
        let columns = columns.collect();
        self.send(&Message::RowDescription(columns));
    }

    /// The rows of an answer; its own columns say more than those it was planned with.
    pub(crate) async fn send_rows(
        &mut self,
        completion: &Completion,
        planned: Option<&[ColumnDescription]>,
        formats: &[i16],
    ) -> Result<(), Halt> {
        let columns = completion.columns.as_deref().or(planned).unwrap_or_default();
        for row in &completion.rows {
            let values = row.iter().zip(columns).enumerate();
            let values =
                values.map(|(place, (value, column))| value.encode(column.type_oid, format_of(formats, place) == 1));
            self.send(&Message::DataRow(values.collect()));
            self.room().await?;
        }
        Ok(())
    }
}

pub(crate) fn check_count(bind: &Bind, needed: usize) -> Result<(), Report> {
    let (given, name) = (bind.parameters.len(), &bind.statement);
    if given == needed {
        return Ok(());
    }
    let text = format!("bind message supplies {given} parameters, but prepared statement \"{name}\" requires {needed}");
    Err(Report::error("08P01", text))
}

fn check_formats(bind: &Bind, plan: &Plan) -> Result<(), Report> {
    let (given, columns) = (bind.result_formats.len(), plan.columns().map_or(0, <[_]>::len));
    if given > 1 && given != columns {
        let text = format!("bind message has {given} result formats but query has {columns} columns");
        return Err(Report::error("08P01", text));
    }
    Ok(())
}

/// No format is text for all, one is for all, more are one each.
pub(crate) fn format_of(formats: &[i16], place: usize) -> i16 {
    let format = if formats.len() == 1 {
        formats.first()
    } else {
        formats.get(place)
    };
    format.copied().unwrap_or(0)
}

/// Whether a statement may run in a failed transaction, because it ends it or goes back in it.
fn ends_transaction(text: &str) -> bool {
    let first = crate::sql::first_word(text);
    matches!(first.as_deref(), Some("abort" | "commit" | "end" | "rollback"))
}
