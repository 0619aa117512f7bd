//! The session task: reads a client's messages, asks the model and the rules, sends what comes of it.
//!
//! One per connection, beside a small task that writes the output. Everything it waits for can be interrupted by the
//! test: cancel, kill, cut.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, MutexGuard};
use std::task::Poll;

use futures::{AsyncRead, AsyncWriteExt};
use gdbpool::Instant;

use super::answer::{Answer, Step};
use super::book::{Book, Halt};
use super::model::{Portal, Prepared};
use super::reply::{Rest, Run, described, unsupported};
use super::statement::{Statement, write_command};
use super::{SharedBook, lock};
use crate::executor::{Origin, Shared};
use crate::pipe::{PipeEnd, PipeReader, PipeWriter};
use crate::runtime::Sleep;
use crate::sql;
use crate::value::Type;
use crate::wire::{Backend, Decoder, Frontend, Report, Target};

pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) line: usize,
    book: SharedBook,
    reader: PipeReader,
    decoder: Decoder,
    /// After an error in the extended protocol everything up to the Sync is skipped.
    skipping: bool,
}

/// Serves one connection from its first byte to its end.
pub(crate) async fn serve(shared: Arc<Shared>, book: SharedBook, end: PipeEnd) {
    let control = end.control();
    control.mask();
    let (reader, writer) = end.split();
    let line = lock(&book).open(control);
    shared.spawn(Box::pin(write_out(Arc::clone(&book), line, writer)), Origin::World);
    let mut session = Session {
        shared,
        line,
        book,
        reader,
        decoder: Decoder::new(),
        skipping: false,
    };
    if session.start().await.is_ok() {
        session.work().await;
    }
    session.lock().close(line);
    // The reader goes only when all is written, else the client's next write would fail before it read the last words.
    poll_fn(|cx| session.lock().poll_finished(line, cx)).await;
}

async fn write_out(book: SharedBook, line: usize, mut writer: PipeWriter) {
    while let Some(bytes) = poll_fn(|cx| lock(&book).poll_output(line, cx)).await {
        let delivered = writer.write_all(&bytes).await.is_ok();
        lock(&book).written(line, delivered);
    }
    drop(writer);
    lock(&book).finish(line);
}

impl Session {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    pub(crate) fn book(&self) -> SharedBook {
        Arc::clone(&self.book)
    }

    pub(crate) fn send(&self, message: &Backend) {
        self.lock().emit(self.line, message);
    }

    /// Sends a last error; the session is over.
    pub(crate) fn refuse(&self, report: &Report) -> Halt {
        self.send(&Backend::ErrorResponse(report.clone()));
        Halt::Over
    }

    /// The client broke the protocol: noted for the test, and the session is over.
    pub(crate) fn violation(&self, what: String) -> Halt {
        self.lock().violations.push(what.clone());
        self.refuse(&Report::fatal("08P01", what))
    }

    /// The next message of the client, whatever the session's state.
    pub(crate) async fn read_message(&mut self) -> Result<Frontend, Halt> {
        let mut buffer = [0; 4096];
        loop {
            match self.decoder.next_message() {
                Ok(Some(message)) => {
                    self.lock().trace(self.line, &message);
                    return Ok(message);
                }
                Ok(None) => {}
                Err(error) => return Err(self.violation(error.to_string())),
            }
            let (book, line, reader) = (&self.book, self.line, &mut self.reader);
            let read = poll_fn(|cx| {
                let mut open = lock(book);
                if let Err(halt) = open.interrupts(line) {
                    return Poll::Ready(Err(halt));
                }
                open.lines[line].worker = Some(cx.waker().clone());
                drop(open);
                Pin::new(&mut *reader)
                    .poll_read(cx, &mut buffer)
                    .map(|read| read.map_err(|_| Halt::Over))
            });
            match read.await? {
                0 => return Err(Halt::Over),
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }

    /// Waits in virtual time; a cancel request or the session's end interrupts.
    pub(crate) async fn pause(&self, until: Instant) -> Result<(), Halt> {
        let mut sleep = pin!(Sleep::new(&self.shared, until, Origin::World));
        poll_fn(|cx| {
            let mut open = self.lock();
            if let Err(halt) = open.interrupts(self.line) {
                return Poll::Ready(Err(halt));
            }
            open.lines[self.line].worker = Some(cx.waker().clone());
            drop(open);
            sleep.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Waits until the network has taken most of the output.
    pub(crate) async fn room(&self) -> Result<(), Halt> {
        poll_fn(|cx| {
            let mut open = self.lock();
            if let Err(halt) = open.interrupts(self.line) {
                return Poll::Ready(Err(halt));
            }
            if open.has_room(self.line) {
                return Poll::Ready(Ok(()));
            }
            open.lines[self.line].worker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn work(&mut self) {
        loop {
            {
                // A cancel that arrives between two requests is lost, as it is in PostgreSQL.
                let mut open = self.lock();
                let line = &mut open.lines[self.line];
                line.active = false;
                line.cancel = false;
            }
            let Ok(message) = self.read_message().await else { return };
            self.lock().lines[self.line].active = true;
            if self.skipping && !matches!(message, Frontend::Sync | Frontend::Terminate) {
                continue;
            }
            match self.handle(message).await {
                Ok(()) => {}
                Err(Halt::Over) => return,
                Err(Halt::Fail(report)) => {
                    self.fail(report);
                    self.skipping = true;
                }
            }
        }
    }

    fn fail(&self, report: Report) {
        self.lock().lines[self.line].model.fail();
        self.send(&Backend::ErrorResponse(report));
    }

    async fn handle(&mut self, message: Frontend) -> Result<(), Halt> {
        match message {
            Frontend::Query(sql) => self.simple(&sql).await,
            Frontend::Parse { name, sql, types } => self.parse(name, sql, types).await,
            Frontend::Bind {
                portal,
                statement,
                parameters,
                result_formats,
                ..
            } => self.bind(portal, &statement, parameters.len(), result_formats).await,
            Frontend::Describe(target, name) => self.describe(target, &name),
            Frontend::Execute { portal, max_rows } => self.execute_portal(&portal, max_rows).await,
            Frontend::Close(target, name) => {
                let mut open = self.lock();
                let model = &mut open.lines[self.line].model;
                match target {
                    Target::Statement => drop(model.prepared.remove(&name)),
                    Target::Portal => drop(model.portals.remove(&name)),
                }
                open.emit(self.line, &Backend::CloseComplete);
                Ok(())
            }
            Frontend::Sync => {
                self.skipping = false;
                let mut open = self.lock();
                open.lines[self.line].model.finish_implicit();
                open.ready(self.line);
                Ok(())
            }
            // Output is never kept back, so there is nothing to flush; stray COPY messages are ignored by the server.
            Frontend::Flush | Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_) => Ok(()),
            Frontend::Terminate => Err(Halt::Over),
            Frontend::FunctionCall => {
                let text = "gdbpool-sim does not support the function call protocol";
                Err(Report::error("0A000", text).into())
            }
            other => Err(self.violation(format!("{other:?} in a running session"))),
        }
    }

    async fn simple(&mut self, text: &str) -> Result<(), Halt> {
        self.lock().lines[self.line].model.prepared.remove("");
        let statements = sql::split(text);
        if statements.is_empty() {
            self.send(&Backend::EmptyQueryResponse);
        }
        if let Some(report) = self.syntax_error(&statements) {
            self.fail(report);
            self.lock().ready(self.line);
            return Ok(());
        }
        for statement in &statements {
            let run = Run {
                sql: statement,
                formats: &[],
                simple: true,
                alone: statements.len() == 1,
                limit: 0,
            };
            match self.execute(run).await {
                Ok(_) => {}
                Err(Halt::Over) => return Err(Halt::Over),
                Err(Halt::Fail(report)) => {
                    self.fail(report);
                    break;
                }
            }
        }
        let mut open = self.lock();
        open.lines[self.line].model.finish_implicit();
        open.ready(self.line);
        Ok(())
    }

    async fn parse(&mut self, name: String, text: String, mut types: Vec<u32>) -> Result<(), Halt> {
        let statements = sql::split(&text);
        if statements.len() > 1 {
            return Err(Report::error("42601", "cannot insert multiple commands into a prepared statement").into());
        }
        let known = Statement::parse(&text);
        let plan = {
            let mut open = self.lock();
            let model = &mut open.lines[self.line].model;
            model.enter();
            model.admit(known.as_ref(), None)?;
            open.rules.take(&text, Some(Step::Parse))
        };
        if plan.is_none() && known.is_none() {
            return Err(unsupported(&text).into());
        }
        if let Some(plan) = plan.as_ref().filter(|plan| plan.step == Step::Parse) {
            self.hinder(plan).await?;
            self.spoil(&plan.outcome).await?;
        }
        let inferred = plan.map(|plan| plan.parameters).unwrap_or_default();
        types.resize(sql::parameters(&text).max(types.len()), 0);
        for (place, of) in types.iter_mut().enumerate().filter(|(_, of)| **of == 0) {
            *of = inferred.get(place).copied().unwrap_or(Type::Text).oid();
        }
        let mut open = self.lock();
        let model = &mut open.lines[self.line].model;
        if !name.is_empty() && model.prepared.contains_key(&name) {
            return Err(Report::error("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        model.prepared.insert(name, Prepared { sql: text, types });
        open.emit(self.line, &Backend::ParseComplete);
        Ok(())
    }

    /// A scripted syntax error: the server reads the whole message before it runs any of it.
    fn syntax_error(&self, statements: &[String]) -> Option<Report> {
        let mut open = self.lock();
        let broken = statements.iter().find(|text| {
            let outcome = open.rules.find(text).map(|plan| plan.outcome);
            matches!(outcome, Some(Answer::Error(sqlstate, _)) if sqlstate == "42601")
        })?;
        match open.rules.take(broken, None)?.outcome {
            Answer::Error(sqlstate, message) => Some(Report::error(&sqlstate, message)),
            _ => None,
        }
    }

    fn prepared(&self, name: &str) -> Result<Prepared, Report> {
        let found = self.lock().lines[self.line].model.prepared.get(name).cloned();
        found.ok_or_else(|| match name {
            "" => Report::error("26000", "unnamed prepared statement does not exist"),
            _ => Report::error("26000", format!("prepared statement \"{name}\" does not exist")),
        })
    }

    async fn bind(&mut self, portal: String, name: &str, count: usize, formats: Vec<i16>) -> Result<(), Halt> {
        self.lock().lines[self.line].model.enter();
        let Prepared { sql, types } = self.prepared(name)?;
        if types.len() != count {
            let needed = types.len();
            let text = format!(
                "bind message supplies {count} parameters, but prepared statement \"{name}\" requires {needed}"
            );
            return Err(Report::error("08P01", text).into());
        }
        let plan = {
            let mut open = self.lock();
            open.lines[self.line]
                .model
                .admit(Statement::parse(&sql).as_ref(), None)?;
            open.rules.take(&sql, Some(Step::Bind))
        };
        if let Some(plan) = plan.filter(|plan| plan.step == Step::Bind) {
            self.hinder(&plan).await?;
            self.spoil(&plan.outcome).await?;
        }
        let mut open = self.lock();
        let model = &mut open.lines[self.line].model;
        if !portal.is_empty() && model.portals.contains_key(&portal) {
            return Err(Report::error("42P03", format!("cursor \"{portal}\" already exists")).into());
        }
        model.portals.insert(
            portal,
            Portal {
                sql,
                formats,
                rest: None,
                done: false,
            },
        );
        open.emit(self.line, &Backend::BindComplete);
        Ok(())
    }

    fn portal(&self, name: &str) -> Result<Portal, Report> {
        let found = self.lock().lines[self.line].model.portals.get(name).cloned();
        found.ok_or_else(|| Report::error("34000", format!("portal \"{name}\" does not exist")))
    }

    fn columns(&self, text: &str) -> Option<Vec<(String, Type)>> {
        match self.lock().rules.find(text) {
            Some(plan) if plan.outcome != Answer::Default => plan.columns().map(<[_]>::to_vec),
            _ => Statement::parse(text).and_then(|statement| statement.columns()),
        }
    }

    fn describe(&self, target: Target, name: &str) -> Result<(), Halt> {
        self.lock().lines[self.line].model.enter();
        let (text, formats) = match target {
            Target::Statement => {
                let Prepared { sql, types } = self.prepared(name)?;
                self.send(&Backend::ParameterDescription(types));
                (sql, Vec::new())
            }
            Target::Portal => {
                let portal = self.portal(name)?;
                (portal.sql, portal.formats)
            }
        };
        self.send(&match self.columns(&text) {
            Some(columns) => Backend::RowDescription(described(&columns, &formats)),
            None => Backend::NoData,
        });
        Ok(())
    }

    async fn execute_portal(&mut self, name: &str, max_rows: i32) -> Result<(), Halt> {
        let portal = self.portal(name)?;
        let limit = usize::try_from(max_rows).unwrap_or(0);
        let rest = if portal.done {
            let Some(columns) = self.columns(&portal.sql) else {
                return Err(Report::error("55000", format!("portal \"{name}\" cannot be run")).into());
            };
            let empty = super::answer::RowSet {
                columns,
                rows: Vec::new(),
            };
            self.rows((empty, 0), &portal.sql, &portal.formats, limit).await?
        } else if let Some(rest) = portal.rest {
            self.rows(rest, &portal.sql, &portal.formats, limit).await?
        } else {
            let run = Run {
                sql: &portal.sql,
                formats: &portal.formats,
                simple: false,
                alone: true,
                limit,
            };
            self.execute(run).await?
        };
        if let Some(portal) = self.lock().lines[self.line].model.portals.get_mut(name) {
            portal.done = rest.is_none();
            portal.rest = rest;
        }
        Ok(())
    }

    /// Runs one statement up to its CommandComplete, or up to the row limit: then the rest is given back.
    async fn execute(&mut self, run: Run<'_>) -> Result<Option<Rest>, Halt> {
        let statement = Statement::parse(run.sql);
        let write = write_command(run.sql);
        let plan = {
            let mut open = self.lock();
            let Book {
                lines,
                parameters,
                rules,
                ..
            } = &mut *open;
            let line = &mut lines[self.line];
            line.model.refresh(parameters);
            line.statements.push(run.sql.to_owned());
            line.model.enter();
            line.model.admit(statement.as_ref(), write.as_deref())?;
            rules.take(run.sql, (!run.simple).then_some(Step::Execute))
        };
        let Some(plan) = plan else {
            let statement = statement.ok_or_else(|| unsupported(run.sql))?;
            return self.model_answer(&statement, &run).await;
        };
        let takes_effect = run.simple || plan.step == Step::Execute;
        if takes_effect {
            self.hinder(&plan).await?;
            if let (Answer::Error(..), Some(Statement::Commit { .. })) = (&plan.outcome, &statement) {
                // A COMMIT that fails has rolled back.
                self.apply(&Statement::Rollback { chain: false }, true)?;
            }
            self.spoil(&plan.outcome).await?;
        }
        match (plan.outcome, statement) {
            (Answer::Default, None) => Err(unsupported(run.sql).into()),
            (Answer::Default, Some(statement)) => self.model_answer(&statement, &run).await,
            (outcome, statement) => {
                // The script words the reply; what the statement does to the session stays true, but for a tag that says
                // that a transaction began or ended: then it did.
                let told = match &outcome {
                    Answer::Tag(tag) if matches!(&**tag, "BEGIN" | "COMMIT" | "ROLLBACK") => Statement::parse(tag),
                    _ => None,
                };
                if write.is_some() {
                    self.lock().lines[self.line].model.wrote(run.sql);
                }
                if let Some(known) = told.or(statement) {
                    self.apply(&known, run.alone)?;
                }
                self.scripted(outcome, &run).await
            }
        }
    }
}
