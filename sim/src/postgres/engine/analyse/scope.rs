//! Scopes: which columns and WITH queries an expression can name.
//!
//! A part of analysis. A plain machine.

use super::{Analyser, Typed, unsupported};
use crate::postgres::engine::catalog::TableDefinition;
use crate::postgres::engine::functions::Function;
use crate::postgres::engine::plan::{AggregateCall, Ex, OutputColumn};
use crate::postgres::engine::types::{RECORD, Type};
use crate::wire::Report;

/// A column of what stands after FROM.
#[derive(Clone, Debug)]
pub(super) struct ScopeColumn {
    pub(super) relation: String,
    pub(super) name: String,
    pub(super) of: Type,
    pub(super) modifier: i32,
    pub(super) origin: (u32, i16),
    /// Its place in the row.
    pub(super) at: usize,
    /// The second of two that USING has made one.
    pub(super) merged: bool,
}

/// A WITH query.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) name: String,
    pub(super) columns: Vec<OutputColumn>,
}

/// One query's names.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) columns: Vec<ScopeColumn>,
    pub(super) commons: Vec<Common>,
    pub(super) aggregates: Vec<AggregateCall>,
    pub(super) sets: Vec<(&'static Function, Vec<Ex>)>,
    /// Where in the query the expression at hand stands.
    pub(super) clause: &'static str,
    pub(super) in_aggregate: bool,
}

impl Scope {
    pub(super) fn clause(clause: &'static str) -> Self {
        Self {
            columns: Vec::new(),
            commons: Vec::new(),
            aggregates: Vec::new(),
            sets: Vec::new(),
            clause,
            in_aggregate: false,
        }
    }
}

/// The columns of a table under a name.
pub(super) fn columns_of(table: &TableDefinition, alias: &str) -> Vec<ScopeColumn> {
    let columns = table.columns.iter().enumerate().filter(|(_, column)| !column.dropped);
    columns
        .map(|(at, column)| ScopeColumn {
            relation: alias.to_owned(),
            name: column.name.clone(),
            of: column.of,
            modifier: column.modifier,
            origin: (table.oid, i16::try_from(at + 1).unwrap_or(0)),
            at,
            merged: false,
        })
        .collect()
}

/// Columns moved to the right.
pub(super) fn shifted(columns: Vec<ScopeColumn>, by: usize) -> Vec<ScopeColumn> {
    columns
        .into_iter()
        .map(|mut column| {
            column.at += by;
            column
        })
        .collect()
}

impl Analyser<'_> {
    pub(super) fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::clause("this place"));
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    /// The column of that name, in this query or the nearest one around it that has it.
    pub(super) fn column(&mut self, parts: &[String], at: usize) -> Result<Typed, Report> {
        let (relation, name) = match parts {
            [name] => (None, name),
            [relation, name] => (Some(relation), name),
            [_, relation, name] => (Some(relation), name),
            _ => return Err(unsupported("names of four parts")),
        };
        let mut relation_seen = false;
        for (level, scope) in self.scopes.iter().rev().enumerate() {
            let matching = |column: &&ScopeColumn| {
                column.name == *name
                    && match relation {
                        Some(relation) => column.relation == *relation,
                        None => !column.merged,
                    }
            };
            let mut found = scope.columns.iter().filter(matching);
            if let Some(column) = found.next() {
                if found.next().is_some() {
                    return Err(self.at(at, "42702", format!("column reference \"{name}\" is ambiguous")));
                }
                return Ok(Typed {
                    ex: Ex::Column { level, at: column.at },
                    of: column.of,
                    modifier: column.modifier,
                });
            }
            relation_seen = relation_seen
                || relation.is_some_and(|relation| scope.columns.iter().any(|column| column.relation == *relation));
        }
        if relation.is_none()
            && let Some(whole) = self.whole_row(name)
        {
            return Ok(whole);
        }
        const SYSTEM: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];
        if SYSTEM.contains(&name.as_str()) {
            return Err(unsupported(&format!("the system column {name}")));
        }
        Err(match relation {
            Some(relation) if !relation_seen => self.at(
                at,
                "42P01",
                format!("missing FROM-clause entry for table \"{relation}\""),
            ),
            Some(relation) => self.at(at, "42703", format!("column {relation}.{name} does not exist")),
            None => self.at(at, "42703", format!("column \"{name}\" does not exist")),
        })
    }

    /// A table's name stands for its row.
    fn whole_row(&self, name: &str) -> Option<Typed> {
        for (level, scope) in self.scopes.iter().rev().enumerate() {
            let columns: Vec<Ex> = scope
                .columns
                .iter()
                .filter(|column| column.relation == name)
                .map(|column| Ex::Column { level, at: column.at })
                .collect();
            if !columns.is_empty() {
                return Some(Typed::new(Ex::Row(columns), RECORD));
            }
        }
        None
    }

    /// The columns that `*` or `t.*` stands for.
    pub(super) fn star(&mut self, relation: Option<&str>, at: usize) -> Result<Vec<ScopeColumn>, Report> {
        let scope = self.scope();
        let found: Vec<ScopeColumn> = match relation {
            None => scope.columns.iter().filter(|column| !column.merged).cloned().collect(),
            Some(relation) => scope
                .columns
                .iter()
                .filter(|column| column.relation == relation)
                .cloned()
                .collect(),
        };
        if !found.is_empty() {
            return Ok(found);
        }
        Err(match relation {
            None => self.at(at, "42601", "SELECT * with no tables specified is not valid"),
            Some(relation) => self.at(
                at,
                "42P01",
                format!("missing FROM-clause entry for table \"{relation}\""),
            ),
        })
    }
}
