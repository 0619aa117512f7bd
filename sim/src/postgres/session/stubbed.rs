//! Statements with registered answers, in both forms of the query protocol.
//!
//! The engine never sees them, so they change no row; the state of the transaction, faults and the history hold for
//! them too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Session;
use super::extended::{Bind, check_count, format_of};
use super::halt::Halt;
use crate::history::End;
use crate::postgres::cluster::Stub;
use crate::value::Value;
use crate::wire::{Backend as Message, Column, Report, Target};

/// Statements and portals of a session that the engine does not know.
#[derive(Default)]
pub(crate) struct Stubbed {
    statements: BTreeMap<String, Arc<Stub>>,
    portals: BTreeMap<String, Portal>,
}

struct Portal {
    stub: Arc<Stub>,
    parameters: Vec<Option<String>>,
    formats: Vec<i16>,
    rest: Option<VecDeque<Vec<Value>>>,
}

impl Stubbed {
    pub(crate) fn statement(&self, name: &str) -> Option<Arc<Stub>> {
        self.statements.get(name).cloned()
    }

    pub(crate) fn portal(&self, name: &str) -> bool {
        self.portals.contains_key(name)
    }

    pub(crate) fn forget_statement(&mut self, name: &str) {
        self.statements.remove(name);
    }

    pub(crate) fn forget_portal(&mut self, name: &str) {
        self.portals.remove(name);
    }

    pub(crate) fn forget_portals(&mut self) {
        self.portals.clear();
    }
}

impl Session {
    pub(crate) fn parse_stub(&mut self, name: String, stub: Arc<Stub>) {
        self.stubs.statements.insert(name, stub);
        self.send(&Message::ParseComplete);
    }

    /// A text without a statement: its answer is EmptyQueryResponse.
    pub(crate) fn parse_empty(&mut self, name: String) {
        self.stubs.statements.insert(name, Arc::new(Stub::empty()));
    }

    pub(crate) fn bind_stub(&mut self, stub: Arc<Stub>, bind: Bind) -> Result<(), Halt> {
        check_count(&bind, stub.parameters().len())?;
        let values = bind.parameters.iter().zip(stub.parameters()).enumerate();
        let parameters = values.map(|(place, (value, of))| {
            let binary = format_of(&bind.parameter_formats, place) == 1;
            value.as_deref().map(|bytes| Stub::text(*of, binary, bytes)).transpose()
        });
        let parameters: Vec<Option<String>> = parameters.collect::<Result<_, Report>>()?;
        let portal = Portal {
            stub,
            parameters,
            formats: bind.result_formats,
            rest: None,
        };
        self.portals.remove(&bind.portal);
        self.stubs.portals.insert(bind.portal, portal);
        self.send(&Message::BindComplete);
        Ok(())
    }

    /// Whether the name is one of a stub; then it is described.
    pub(crate) fn describe_stub(&mut self, target: Target, name: &str) -> bool {
        let (stub, formats) = match target {
            Target::Statement => {
                let Some(stub) = self.stubs.statement(name) else {
                    return false;
                };
                let types = stub.parameters().iter().map(|of| of.oid()).collect();
                self.send(&Message::ParameterDescription(types));
                (stub, Vec::new())
            }
            Target::Portal => {
                let Some(portal) = self.stubs.portals.get(name) else {
                    return false;
                };
                (Arc::clone(&portal.stub), portal.formats.clone())
            }
        };
        match stub.columns() {
            [] => self.send(&Message::NoData),
            columns => self.send(&Message::RowDescription(described(columns, &formats))),
        }
        true
    }

    pub(crate) async fn simple_stub(&mut self, text: &str, stub: &Arc<Stub>) -> Result<(), Halt> {
        self.refuse_in_failed(text)?;
        let rows = self.answer(text, stub, &[]).await?;
        self.send(&Message::RowDescription(described(stub.columns(), &[])));
        let count = rows.len();
        self.stub_rows(stub, rows, &[]).await?;
        self.send(&Message::CommandComplete(stub.tag(count)));
        Ok(())
    }

    pub(crate) async fn execute_stub(&mut self, name: &str, max_rows: i32) -> Result<(), Halt> {
        let Some(mut portal) = self.stubs.portals.remove(name) else {
            return Err(Report::error("34000", format!("portal \"{name}\" does not exist")).into());
        };
        if portal.stub.columns().is_empty() {
            self.send(&Message::EmptyQueryResponse);
            self.stubs.portals.insert(name.to_owned(), portal);
            return Ok(());
        }
        self.refuse_in_failed("")?;
        let stub = Arc::clone(&portal.stub);
        let mut rows = match portal.rest.take() {
            Some(rest) => rest,
            None => self.answer(stub.pattern(), &stub, &portal.parameters).await?.into(),
        };
        let limit = usize::try_from(max_rows).ok().filter(|limit| *limit > 0);
        let suspended = limit.is_some_and(|limit| rows.len() >= limit);
        let count = limit.unwrap_or(usize::MAX).min(rows.len());
        let now: Vec<_> = rows.drain(..count).collect();
        self.stub_rows(&stub, now, &portal.formats).await?;
        if suspended {
            self.send(&Message::PortalSuspended);
        } else {
            self.send(&Message::CommandComplete(stub.tag(count)));
        }
        portal.rest = Some(rows);
        self.stubs.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    async fn answer(
        &mut self,
        text: &str,
        stub: &Stub,
        parameters: &[Option<String>],
    ) -> Result<Vec<Vec<Value>>, Halt> {
        self.arm_statement();
        self.began(&text.into());
        if let Err(halt) = self.obstruct(text).await {
            if let Halt::Fail(report) = &halt {
                self.gave_up(text, &report.sqlstate);
            }
            return Err(halt);
        }
        let name = self.lock().nodes[self.node].name.clone();
        // The user's function runs without any lock of the simulator.
        let rows = stub.rows(parameters, &name);
        match rows {
            Ok(rows) => {
                self.finished(text, End::Tag(stub.tag(rows.len()).into()), 0, None);
                Ok(rows)
            }
            Err(report) => {
                self.gave_up(text, &report.sqlstate);
                Err(report.into())
            }
        }
    }

    async fn stub_rows(&mut self, stub: &Stub, rows: Vec<Vec<Value>>, formats: &[i16]) -> Result<(), Halt> {
        for row in rows {
            let values = row.iter().zip(stub.columns()).enumerate();
            let values = values.map(|(place, (value, (_, of)))| value.encode(*of, format_of(formats, place) == 1));
            self.send(&Message::DataRow(values.collect()));
            self.room().await?;
        }
        Ok(())
    }
}

fn described(columns: &[(String, crate::value::Type)], formats: &[i16]) -> Vec<Column> {
    let columns = columns.iter().enumerate();
    columns
        .map(|(place, (name, of))| Column::expression(name.clone(), *of, format_of(formats, place) == 1))
        .collect()
}
