//! The answering half of the session task: waits, errors, rows, tags, COPY.
//!
//! Behind the choice of an answer, in front of the wire.

use bytes::Bytes;
use gdbpool::Instant;

use super::answer::{Answer, Hinder, Plan, RowSet};
use super::book::{Halt, Limit};
use super::model::Reply;
use super::session::Session;
use super::statement::Statement;
use crate::sql::{Token, tokens};
use crate::value::Type;
use crate::wire::{Backend, Column, Frontend, Report};

/// One statement to run.
pub(crate) struct Run<'a> {
    pub(crate) sql: &'a str,
    pub(crate) formats: &'a [i16],
    /// In a simple query, so the rows are described first.
    pub(crate) simple: bool,
    /// No other statement shares the implicit transaction.
    pub(crate) alone: bool,
    /// The most rows wanted, zero for all.
    pub(crate) limit: usize,
}

/// Rows that an Execute with a limit left over, and how many were sent before.
pub(crate) type Rest = (RowSet, usize);

impl Session {
    /// Lets what gets in the way of the answer happen.
    pub(crate) async fn hinder(&self, plan: &Plan) -> Result<(), Halt> {
        for hinder in &plan.hinders {
            match hinder {
                Hinder::Cut(0) => return Err(Halt::Over),
                Hinder::Cut(bytes) => self.lock().lines[self.line].limit = Some((*bytes, Limit::Cut)),
                Hinder::Notice(report) => self.send(&Backend::NoticeResponse(report.clone())),
                Hinder::Stall(0) => self.lock().lines[self.line].stalled = true,
                Hinder::Stall(bytes) => self.lock().lines[self.line].limit = Some((*bytes, Limit::Stall)),
                Hinder::Wait(span) => self.pause(self.shared.now() + *span).await?,
            }
        }
        Ok(())
    }

    /// Carries out an outcome that is no success; the others pass.
    pub(crate) async fn spoil(&self, outcome: &Answer) -> Result<(), Halt> {
        match outcome {
            Answer::CloseConnection => Err(Halt::Over),
            Answer::Error(sqlstate, message) => Err(Report::error(sqlstate, message.clone()).into()),
            Answer::Fatal(sqlstate, message) => Err(self.refuse(&Report::fatal(sqlstate, message.clone()))),
            Answer::Never => self.pause(Instant::FAR_FUTURE).await,
            _ => Ok(()),
        }
    }

    /// Changes the session as the statement says; its warnings go out.
    pub(crate) fn apply(&self, statement: &Statement, alone: bool) -> Result<Reply, Report> {
        let reply = self.lock().lines[self.line].model.apply(statement, alone);
        self.send_notices();
        reply
    }

    fn send_notices(&self) {
        let mut open = self.lock();
        for notice in std::mem::take(&mut open.lines[self.line].model.notices) {
            open.emit(self.line, &Backend::NoticeResponse(notice));
        }
    }

    pub(crate) async fn model_answer(&self, statement: &Statement, run: &Run<'_>) -> Result<Option<Rest>, Halt> {
        let reply = self.lock().lines[self.line].model.apply(statement, run.alone);
        if let Ok(Reply::Rows(set)) = reply {
            // Functions warn while the row is made, so behind the description.
            self.describe_rows(&set, run);
            self.send_notices();
            return self.rows((set, 0), run.sql, run.formats, run.limit).await;
        }
        if let (Err(_), Statement::Select(_), Some(columns)) = (&reply, statement, statement.columns()) {
            // A function fails while the row is made, too.
            self.describe_rows(
                &RowSet {
                    columns,
                    rows: Vec::new(),
                },
                run,
            );
        }
        self.send_notices();
        match reply? {
            Reply::Tag(tag) => self.send(&Backend::CommandComplete(tag.to_owned())),
            Reply::Empty | Reply::Rows(_) => self.send(&Backend::EmptyQueryResponse),
        }
        Ok(None)
    }

    pub(crate) async fn scripted(&mut self, outcome: Answer, run: &Run<'_>) -> Result<Option<Rest>, Halt> {
        match outcome {
            Answer::Rows(set) => {
                self.describe_rows(&set, run);
                return self.rows((set, 0), run.sql, run.formats, run.limit).await;
            }
            Answer::RowsThenStall(mut set, count) => {
                set.rows.truncate(count);
                self.describe_rows(&set, run);
                self.data_rows(&set, run.formats).await?;
                self.pause(Instant::FAR_FUTURE).await?;
            }
            Answer::CopyIn => self.copy_in(run).await?,
            Answer::CopyOut(chunks) => self.copy_out(&chunks).await?,
            Answer::Tag(tag) => self.send(&Backend::CommandComplete(tag)),
            // What fails or hinders has happened by now, at this step or an earlier one.
            _ => return Err(unsupported(run.sql).into()),
        }
        Ok(None)
    }

    fn describe_rows(&self, set: &RowSet, run: &Run<'_>) {
        if run.simple {
            self.send(&Backend::RowDescription(described(&set.columns, run.formats)));
        }
    }

    /// Sends rows up to the limit; gives back what is left when the limit was reached.
    pub(crate) async fn rows(
        &self,
        rest: Rest,
        sql: &str,
        formats: &[i16],
        limit: usize,
    ) -> Result<Option<Rest>, Halt> {
        let (mut set, mut sent) = rest;
        let suspended = limit > 0 && set.rows.len() >= limit;
        let later = if suspended {
            set.rows.split_off(limit)
        } else {
            Vec::new()
        };
        self.data_rows(&set, formats).await?;
        sent += set.rows.len();
        if suspended {
            self.send(&Backend::PortalSuspended);
            return Ok(Some((
                RowSet {
                    columns: set.columns,
                    rows: later,
                },
                sent,
            )));
        }
        let tag = row_tag(sql, set.rows.len());
        self.send(&Backend::CommandComplete(tag));
        Ok(None)
    }

    async fn data_rows(&self, set: &RowSet, formats: &[i16]) -> Result<(), Halt> {
        for row in &set.rows {
            let values = row.iter().zip(&set.columns).enumerate();
            let values = values.map(|(place, (value, (_, of)))| value.encode(*of, binary(formats, place)));
            self.room().await?;
            self.send(&Backend::DataRow(values.collect()));
        }
        Ok(())
    }

    async fn copy_in(&mut self, run: &Run<'_>) -> Result<(), Halt> {
        self.send(&Backend::CopyInResponse {
            columns: 1,
            binary: false,
        });
        let mut lines = 0;
        let mut open_line = false;
        loop {
            match self.read_message().await? {
                Frontend::CopyData(bytes) => {
                    lines += bytes.iter().filter(|&&byte| byte == b'\n').count();
                    open_line = bytes.last().map_or(open_line, |&last| last != b'\n');
                }
                Frontend::CopyDone => break,
                Frontend::CopyFail(reason) => {
                    return Err(Report::error("57014", format!("COPY from stdin failed: {reason}")).into());
                }
                // A pipelined Sync arrives before the rows; the server ignores it in this mode.
                Frontend::Flush | Frontend::Sync => {}
                other => {
                    let text = format!("unexpected message during COPY from stdin of {:?}: {other:?}", run.sql);
                    return Err(Report::error("08P01", text).into());
                }
            }
        }
        self.send(&Backend::CommandComplete(format!(
            "COPY {}",
            lines + usize::from(open_line)
        )));
        Ok(())
    }

    async fn copy_out(&self, chunks: &[Bytes]) -> Result<(), Halt> {
        self.send(&Backend::CopyOutResponse {
            columns: 1,
            binary: false,
        });
        for chunk in chunks {
            self.room().await?;
            self.send(&Backend::CopyData(chunk.clone()));
        }
        self.send(&Backend::CopyDone);
        self.send(&Backend::CommandComplete(format!("COPY {}", chunks.len())));
        Ok(())
    }
}

/// What a client gets for a statement without a script that the model does not know.
pub(crate) fn unsupported(sql: &str) -> Report {
    let start: String = sql.chars().take(80).collect();
    Report::error(
        "0A000",
        format!("gdbpool-sim does not support {start:?} without a scripted answer"),
    )
}

pub(crate) fn described(columns: &[(String, Type)], formats: &[i16]) -> Vec<Column> {
    let columns = columns.iter().enumerate();
    columns
        .map(|(place, (name, of))| Column::expression(name.clone(), *of, binary(formats, place)))
        .collect()
}

/// No format is text for all, one is for all, more are one each.
fn binary(formats: &[i16], place: usize) -> bool {
    let format = if formats.len() == 1 {
        formats.first()
    } else {
        formats.get(place)
    };
    format == Some(&1)
}

fn row_tag(sql: &str, rows: usize) -> String {
    let verb = tokens(sql).into_iter().find_map(|token| match token {
        Token::Word(word) => Some(word),
        _ => None,
    });
    match verb.as_deref() {
        Some("insert") => format!("INSERT 0 {rows}"),
        Some(verb @ ("update" | "delete" | "merge" | "fetch" | "move")) => format!("{} {rows}", verb.to_uppercase()),
        Some("show") => "SHOW".to_owned(),
        _ => format!("SELECT {rows}"),
    }
}
