//! COPY: rows from and to text lines.
//!
//! A part of execution, with the verb that starts it. A plain machine. Lines are collected and put in when the client is done.

use std::sync::Arc;

use super::{Context, Row, Stop, made};
use crate::postgres::engine::analyse::Analyser;
use crate::postgres::engine::ast::{self, CopySource};
use crate::postgres::engine::control::plain;
use crate::postgres::engine::door::{Completion, Moment, Progress};
use crate::postgres::engine::locks::TableLock;
use crate::postgres::engine::parser::judge_unsupported as unsupported;
use crate::postgres::engine::run::Answer;
use crate::postgres::engine::session::CopyIn;
use crate::postgres::engine::types::binary::utf8;
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::{Type, text};
use crate::postgres::engine::{Engine, Statement};
use crate::wire::Report;

/// More bytes than this in one COPY FROM are refused.
const MAX_BYTES: usize = 64 << 20;

impl Engine {
    pub(in crate::postgres::engine) fn copy_verb(
        &mut self,
        pid: i32,
        statement: &Arc<Statement>,
        at: Moment,
    ) -> Result<Answer, Stop> {
        let ast::Statement::Copy { source, from, csv } = &statement.parsed else {
            return Ok(Answer::Done(plain("")));
        };
        if *csv && *from {
            return Err(unsupported("COPY FROM in CSV format").into());
        }
        match (source, from) {
            (CopySource::Table(name, columns), true) => {
                let table = self.existing_table(pid, name)?;
                let temporary = self
                    .catalog
                    .table(table)
                    .is_some_and(|(table, _)| table.temporary.is_some());
                if !temporary {
                    self.require_writable(pid, "COPY FROM")?;
                }
                self.lock_table(pid, table, TableLock::RowExclusive)?;
                let columns = self.copy_columns(table, columns)?;
                let count = columns.len();
                self.session_mut(pid).copy = Some(CopyIn {
                    table,
                    columns,
                    data: Vec::new(),
                });
                Ok(Answer::CopyIn(count))
            }
            (CopySource::Query(_), true) => Err(Report::error("42601", "syntax error at or near \"FROM\"").into()),
            (CopySource::Table(name, columns), false) => {
                let oid = self.existing_table(pid, name)?;
                let places = self.copy_columns(oid, columns)?;
                let types: Vec<Type> = self.catalog.table(oid).map_or_else(Vec::new, |(table, _)| {
                    places.iter().map(|at| table.columns[*at].of).collect()
                });
                self.lock_table(pid, oid, TableLock::AccessShare)?;
                let view = self.view(pid);
                let rows: Vec<Row> = self.catalog.table(oid).map_or_else(Vec::new, |(_, heap)| {
                    let visible = heap
                        .rows
                        .keys()
                        .filter_map(|row| heap.visible(*row, &self.transactions, view));
                    visible
                        .map(|version| places.iter().map(|at| version.data[*at].clone()).collect())
                        .collect()
                });
                Ok(copied_out(&rows, &types, *csv))
            }
            (CopySource::Query(query), false) => {
                let (select, _) = Analyser::new(self, pid, &statement.text).fixed().standalone(query)?;
                let view = self.view(pid);
                let rows = Context::new(self, pid, at, &[], view).query(&select, &[])?;
                let types: Vec<Type> = select.columns.iter().map(|column| column.of).collect();
                Ok(copied_out(&rows, &types, *csv))
            }
        }
    }

    /// Bytes of a CopyData message.
    pub(crate) fn copy_data(&mut self, pid: i32, bytes: &[u8]) {
        if let Some(copy) = self.session_mut(pid).copy.as_mut()
            && copy.data.len() <= MAX_BYTES
        {
            copy.data.extend_from_slice(bytes);
        }
    }

    /// The client is done: the rows are put in.
    pub(crate) fn copy_done(&mut self, pid: i32, at: Moment) -> Progress {
        self.begin_copy(pid, at)
    }

    /// The client gives up.
    pub(crate) fn copy_fail(&mut self, pid: i32, why: &str) -> Progress {
        let report = Report::error("57014", format!("COPY from stdin failed: {why}"));
        self.fail(pid);
        Progress::Failed(report)
    }

    /// One attempt to put in the rows.
    pub(in crate::postgres::engine) fn copy_once(&mut self, pid: i32, at: Moment) -> Result<Answer, Stop> {
        let Some(copy) = self.session(pid).copy.clone() else {
            return Ok(Answer::Done(plain("COPY 0")));
        };
        if copy.data.len() > MAX_BYTES {
            return Err(unsupported("COPY of more than 64 MB").into());
        }
        let Some((table, _)) = self.catalog.table(copy.table) else {
            return Ok(Answer::Done(plain("COPY 0")));
        };
        let table = Arc::clone(table);
        let checks = Analyser::new(self, pid, "").fixed().table_checks(&table)?;
        let mut defaults = Vec::with_capacity(table.columns.len());
        for column in 0..table.columns.len() {
            let given = copy.columns.contains(&column);
            defaults.push(if given {
                None
            } else {
                Some(Analyser::new(self, pid, "").fixed().default(&table, column)?)
            });
        }
        let view = self.view(pid);
        let mut context = Context::new(self, pid, at, &[], view);
        let mut rows = Vec::new();
        let body = utf8(&copy.data)?;
        for (number, line) in body.lines().enumerate() {
            if line == "\\." {
                break;
            }
            let fields = fields(line);
            let place = || format!("COPY {}, line {}: \"{line}\"", table.name, number + 1);
            if fields.len() != copy.columns.len() {
                let message = match fields.len() < copy.columns.len() {
                    true => format!(
                        "missing data for column \"{}\"",
                        table.columns[copy.columns[fields.len()]].name
                    ),
                    false => "extra data after last expected column".to_owned(),
                };
                return Err(Report::error("22P04", message).context(place()).into());
            }
            let mut values = vec![Datum::Null; table.columns.len()];
            for (at, default) in defaults.iter().enumerate() {
                if let Some(default) = default {
                    values[at] = context.value(default, &[])?;
                }
            }
            for (at, field) in copy.columns.iter().zip(fields) {
                if let Some(field) = field {
                    let column = &table.columns[*at];
                    let read = text::read(column.of, &field).map_err(|report| report.context(place()))?;
                    let assignment = crate::postgres::engine::types::cast::Context::Assignment;
                    values[*at] =
                        crate::postgres::engine::types::cast::fit(read, column.of, column.modifier, assignment)?;
                }
            }
            rows.push(made(values));
        }
        let count = context.copy_rows(&table, &checks, rows)?;
        if let Some(transaction) = self.session_mut(pid).transaction.as_mut() {
            transaction.command += 1;
        }
        self.session_mut(pid).copy = None;
        Ok(Answer::Done(plain(&format!("COPY {count}"))))
    }
}

/// A line's fields; `None` is NULL.
fn fields(line: &str) -> Vec<Option<String>> {
    line.split('\t')
        .map(|field| {
            if field == "\\N" {
                return None;
            }
            let mut out = String::with_capacity(field.len());
            let mut chars = field.chars();
            while let Some(c) = chars.next() {
                if c != '\\' {
                    out.push(c);
                    continue;
                }
                match chars.next() {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some('b') => out.push('\u{8}'),
                    Some('f') => out.push('\u{c}'),
                    Some('v') => out.push('\u{b}'),
                    Some(other) => out.push(other),
                    None => out.push('\\'),
                }
            }
            Some(out)
        })
        .collect()
}

fn copied_out(rows: &[Row], types: &[Type], csv: bool) -> Answer {
    let (delimiter, null) = if csv { (',', "") } else { ('\t', "\\N") };
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let mut line = String::new();
        for (at, (value, of)) in row.iter().zip(types).enumerate() {
            if at > 0 {
                line.push(delimiter);
            }
            if value.is_null() {
                line.push_str(null);
            } else if csv {
                quote(&text::write(value, *of), types.len() == 1, &mut line);
            } else {
                escape(&text::write(value, *of), &mut line);
            }
        }
        line.push('\n');
        lines.push(line.into_bytes());
    }
    let completion = Completion {
        tag: format!("COPY {}", rows.len()),
        ..Completion::default()
    };
    Answer::CopyOut(types.len(), lines, completion)
}

/// A field of the text format.
fn escape(field: &str, line: &mut String) {
    for c in field.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c => line.push(c),
        }
    }
}

/// A field in CSV: in quotes where it could be read as something else, as PostgreSQL does it.
fn quote(field: &str, alone: bool, line: &mut String) {
    let special = |c: char| matches!(c, ',' | '"' | '\n' | '\r');
    if !(field.is_empty() || field.contains(special) || (alone && field == "\\.")) {
        line.push_str(field);
        return;
    }
    line.push('"');
    line.push_str(&field.replace('"', "\"\""));
    line.push('"');
}
