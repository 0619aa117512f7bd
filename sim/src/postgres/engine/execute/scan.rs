//! Rows from their sources: tables, by index or one by one, functions, joins, system views.
//!
//! A part of execution. A plain machine. What a serializable transaction reads is noted here.

use std::collections::BTreeMap;

use super::{Context, MAX_ROWS, Row, Stop, Tuple, joined, made};
use crate::postgres::engine::ast::JoinKind;
use crate::postgres::engine::locks::TableLock;
use crate::postgres::engine::plan::{Ex, Lookup, Source};
use crate::postgres::engine::serializable::Read;
use crate::postgres::engine::types::datum::Datum;
use crate::wire::Report;

/// Rows by the values that a join compares.
#[derive(Default)]
struct Hashed(BTreeMap<Vec<Datum>, Vec<usize>>);

impl Context<'_> {
    /// All rows of a source. `left` is the row at hand where the source may look at what stands before it.
    pub(super) fn source(&mut self, source: &Source, left: &[Datum]) -> Result<Vec<Tuple>, Stop> {
        match source {
            Source::Nothing => Ok(vec![Tuple::plain(made(Vec::new()))]),
            Source::Table { oid, lookup, .. } => self.table(*oid, lookup.as_ref(), left),
            Source::Query(query) => {
                let tracking = std::mem::replace(&mut self.tracking, false);
                let rows = self.query(query, left);
                self.tracking = tracking;
                Ok(rows?.into_iter().map(Tuple::plain).collect())
            }
            Source::Common { level, at, .. } => {
                let frame = self
                    .commons
                    .len()
                    .checked_sub(1 + level)
                    .and_then(|found| self.commons.get(found));
                let rows = frame.and_then(|frame| frame.get(*at)).cloned().unwrap_or_default();
                Ok(rows.iter().cloned().map(Tuple::plain).collect())
            }
            Source::Function {
                function,
                arguments,
                ordinality,
                ..
            } => {
                let rows = self.rows_of(function, arguments, left)?;
                let number = |at: usize| Datum::Int8(i64::try_from(at + 1).unwrap_or(i64::MAX));
                Ok(rows
                    .into_iter()
                    .enumerate()
                    .map(|(at, row)| Tuple::plain(if *ordinality { joined(&row, &[number(at)]) } else { row }))
                    .collect())
            }
            Source::View(view) => {
                let rows = (view.rows)(self.engine, self.pid);
                Ok(rows.into_iter().map(Tuple::plain).collect())
            }
            Source::Sequence(oid) => {
                let found = self.engine.catalog.sequence(*oid);
                let row = |sequence: &crate::postgres::engine::catalog::Sequence| {
                    made(vec![
                        Datum::Int8(sequence.last),
                        Datum::Int8(sequence.logged),
                        Datum::Bool(sequence.is_called),
                    ])
                };
                Ok(found.map(row).map(Tuple::plain).into_iter().collect())
            }
            Source::Join { .. } => self.join(source, left),
        }
    }

    fn table(&mut self, oid: u32, lookup: Option<&Lookup>, left: &[Datum]) -> Result<Vec<Tuple>, Stop> {
        self.engine.lock_table(self.pid, oid, TableLock::AccessShare)?;
        let numbers: Option<Vec<u64>> = match lookup {
            None => {
                self.engine.note_read(self.pid, Read::Table(oid))?;
                None
            }
            Some(lookup) => {
                let key: Result<Vec<Datum>, Stop> = lookup.key.iter().map(|part| self.value(part, left)).collect();
                let key = key?;
                if key.iter().any(Datum::is_null) {
                    return Ok(Vec::new());
                }
                let heap = self.engine.catalog.table(oid).map(|(_, heap)| heap);
                let found = heap.map_or(&[][..], |heap| heap.lookup(lookup.index, &key)).to_vec();
                if self.engine.is_serializable(self.pid) {
                    self.engine.note_read(self.pid, Read::Key(oid, lookup.index, key))?;
                }
                Some(found)
            }
        };
        let (view, tracking) = (self.view, self.tracking);
        let Some((_, heap)) = self.engine.catalog.table(oid) else {
            return Ok(Vec::new());
        };
        let transactions = &self.engine.transactions;
        let tuple = |row: u64, data: &Row| Tuple {
            data: data.clone(),
            origins: if tracking { vec![(oid, row)] } else { Vec::new() },
        };
        Ok(match numbers {
            Some(mut numbers) => {
                numbers.sort_unstable();
                let seen = numbers
                    .into_iter()
                    .filter_map(|row| Some((row, heap.visible(row, transactions, view)?)));
                seen.map(|(row, version)| tuple(row, &version.data)).collect()
            }
            None => {
                let seen = heap.rows.iter().filter_map(|(row, versions)| {
                    let version = versions.iter().rev().find(|version| transactions.sees(view, version))?;
                    Some(tuple(*row, &version.data))
                });
                seen.collect()
            }
        })
    }

    fn join(&mut self, source: &Source, outside: &[Datum]) -> Result<Vec<Tuple>, Stop> {
        let Source::Join {
            kind,
            left,
            right,
            condition,
            equal,
        } = source
        else {
            return Ok(Vec::new());
        };
        let (left_width, right_width) = (left.width(), right.width());
        let lefts = self.source(left, outside)?;
        let depends = depends_on_left(right);
        let fixed = if depends {
            Vec::new()
        } else {
            self.source(right, outside)?
        };
        let index = if depends {
            None
        } else {
            self.hashed(&fixed, equal, left_width)?
        };
        let mut matched = vec![false; fixed.len()];
        let mut rows = Vec::new();
        for left in &lefts {
            let own;
            let candidates: Vec<usize>;
            let rights: &[Tuple] = if depends {
                own = self.source(right, &left.data)?;
                candidates = (0..own.len()).collect();
                &own
            } else {
                candidates = match &index {
                    Some(index) => {
                        let key: Result<Vec<Datum>, Stop> =
                            equal.iter().map(|(part, _)| self.value(part, &left.data)).collect();
                        index.0.get(&key?).cloned().unwrap_or_default()
                    }
                    None => (0..fixed.len()).collect(),
                };
                &fixed
            };
            let mut found = false;
            for at in candidates {
                let data = joined(&left.data, &rights[at].data);
                if self.holds(condition.as_ref(), &data)? {
                    found = true;
                    if let Some(matched) = matched.get_mut(at) {
                        *matched = true;
                    }
                    rows.push(Tuple {
                        data,
                        origins: [left.origins.clone(), rights[at].origins.clone()].concat(),
                    });
                    if rows.len() > MAX_ROWS {
                        let message = format!("gdbpool-sim does not support joins of more than {MAX_ROWS} rows");
                        return Err(Report::error("0A000", message).into());
                    }
                }
            }
            if !found && matches!(kind, JoinKind::Left | JoinKind::Full) {
                rows.push(Tuple {
                    data: joined(&left.data, &vec![Datum::Null; right_width]),
                    origins: left.origins.clone(),
                });
            }
        }
        if matches!(kind, JoinKind::Right | JoinKind::Full) {
            let alone = fixed.iter().zip(matched).filter(|(_, matched)| !matched);
            rows.extend(alone.map(|(right, _)| Tuple {
                data: joined(&vec![Datum::Null; left_width], &right.data),
                origins: right.origins.clone(),
            }));
        }
        Ok(rows)
    }

    /// The rows of the right side by the values that must equal the left's.
    fn hashed(&mut self, rows: &[Tuple], equal: &[(Ex, Ex)], left_width: usize) -> Result<Option<Hashed>, Stop> {
        // A few rows are looked through faster than they are sorted.
        const FEW: usize = 8;
        if equal.is_empty() || rows.len() <= FEW {
            return Ok(None);
        }
        let mut index = Hashed::default();
        let padding = vec![Datum::Null; left_width];
        for (at, row) in rows.iter().enumerate() {
            let data = joined(&padding, &row.data);
            let key: Result<Vec<Datum>, Stop> = equal.iter().map(|(_, part)| self.value(part, &data)).collect();
            index.0.entry(key?).or_default().push(at);
        }
        Ok(Some(index))
    }
}

/// Whether a source's rows follow from the row that stands before it.
fn depends_on_left(source: &Source) -> bool {
    let column = |ex: &Ex| matches!(ex, Ex::Column { level: 0, .. });
    match source {
        Source::Function { arguments, .. } => arguments.iter().any(|argument| argument.any(&column)),
        Source::Table {
            lookup: Some(lookup), ..
        } => lookup.key.iter().any(|part| part.any(&column)),
        _ => false,
    }
}
