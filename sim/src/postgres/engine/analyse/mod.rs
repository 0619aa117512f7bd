//! Analysis: parsed statements to plans. Names are resolved, types inferred, functions chosen, wrong statements refused.
//!
//! Between parser and execution. A plain machine: it reads the catalog and changes nothing.

mod call;
mod coerce;
mod expression;
mod from;
mod grouping;
mod lookups;
mod modify;
mod query;
mod scope;
mod sets;

use std::sync::Arc;

use super::ast::{self, TypeName};
use super::catalog::{Default, TableDefinition};
use super::door::ColumnDescription;
use super::functions;
use super::parser::judge_unsupported as unsupported;
use super::plan::{Ex, ModifyPlan, OutputColumn, Plan, PlanBody, SelectPlan};
use super::types::cast::Context;
use super::types::datum::Datum;
use super::types::{INT8, Scalar, TEXT, Type, UNKNOWN};
use super::{Engine, Statement};
use crate::wire::Report;

use self::scope::Scope;

/// An expression and its type.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub(crate) ex: Ex,
    pub(crate) of: Type,
    pub(crate) modifier: i32,
}

impl Typed {
    fn new(ex: Ex, of: Type) -> Self {
        Self { ex, of, modifier: -1 }
    }
}

/// What there is to run, and the columns of its rows.
struct Body {
    plan: PlanBody,
    columns: Option<Arc<[ColumnDescription]>>,
}

pub(super) struct Analyser<'a> {
    engine: &'a Engine,
    pid: i32,
    /// The query text, for positions in errors.
    text: &'a str,
    parameters: Vec<Option<Type>>,
    /// EXECUTE's arguments and the like have no parameters of their own.
    fixed: bool,
    scopes: Vec<Scope>,
    depth: usize,
}

/// Makes a plan for a statement that gives or changes rows; of the others, only the columns of their rows are found out.
pub(super) fn analyse(engine: &Engine, pid: i32, statement: &Arc<Statement>, given: &[u32]) -> Result<Plan, Report> {
    let mut analyser = Analyser::new(engine, pid, &statement.text);
    for oid in given {
        let of = match oid {
            0 | 705 => None,
            oid => Some(Type::from_oid(*oid).ok_or_else(|| unsupported(&format!("parameters of type {oid}")))?),
        };
        analyser.parameters.push(of);
    }
    let Body { plan: body, columns } = analyser.body(&statement.parsed)?;
    let parameters = analyser.parameter_types()?;
    let stamp = (
        engine.catalog.version,
        engine.session(pid).values.hot().search_path.clone(),
    );
    Ok(Plan::new(
        Arc::clone(statement),
        given.to_vec(),
        parameters,
        columns,
        body,
        stamp,
    ))
}

impl<'a> Analyser<'a> {
    pub(super) fn new(engine: &'a Engine, pid: i32, text: &'a str) -> Self {
        Self {
            engine,
            pid,
            text,
            parameters: Vec::new(),
            fixed: false,
            scopes: Vec::new(),
            depth: 0,
        }
    }

    /// Without parameters.
    pub(super) fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    fn body(&mut self, statement: &ast::Statement) -> Result<Body, Report> {
        let described = |columns: &[OutputColumn]| columns.iter().map(OutputColumn::described).collect();
        let modified = |plan: ModifyPlan| Body {
            columns: (!plan.returning.is_empty()).then(|| described(&plan.columns)),
            plan: PlanBody::Modify(plan),
        };
        Ok(match statement {
            ast::Statement::Query(query) => {
                let plan = self.query(query, None)?;
                Body {
                    columns: Some(described(&plan.columns)),
                    plan: PlanBody::Query(plan),
                }
            }
            ast::Statement::Insert(insert) => modified(self.insert(insert)?),
            ast::Statement::Update(update) => modified(self.update(update)?),
            ast::Statement::Delete(delete) => modified(self.delete(delete)?),
            other => {
                if let ast::Statement::CreateTableAs { query, .. } = other {
                    self.query(query, None)?;
                }
                Body {
                    plan: PlanBody::Control,
                    columns: self.engine.control_columns(self.pid, other)?,
                }
            }
        })
    }

    fn parameter_types(&self) -> Result<Vec<u32>, Report> {
        let oid = |(at, of): (usize, &Option<Type>)| match of {
            Some(of) => Ok(of.oid()),
            None => Err(Report::error(
                "42P18",
                format!("could not determine data type of parameter ${}", at + 1),
            )),
        };
        self.parameters.iter().enumerate().map(oid).collect()
    }

    /// A report with a place in the text.
    fn at(&self, at: usize, sqlstate: &str, message: impl Into<String>) -> Report {
        Report::error(sqlstate, message).position(super::lexer::characters(self.text, at))
    }

    fn nested<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Report>) -> Result<T, Report> {
        const MAX_DEPTH: usize = 150;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Report::error("54001", "stack depth limit exceeded"));
        }
        let result = run(self);
        self.depth -= 1;
        result
    }

    pub(super) fn type_named(&self, name: &TypeName) -> Result<(Type, i32), Report> {
        resolve_type(name).map_err(|report| {
            let at = super::lexer::characters(self.text, name.at);
            if report.sqlstate == "42704" {
                report.position(at)
            } else {
                report
            }
        })
    }

    /// A query by itself.
    pub(super) fn standalone(mut self, query: &ast::Query) -> Result<(SelectPlan, Vec<u32>), Report> {
        let plan = self.query(query, None)?;
        let parameters = self.parameter_types()?;
        Ok((plan, parameters))
    }

    /// An expression without columns, cast to a type as on assignment.
    pub(super) fn constant(mut self, value: &ast::Expression, of: Type, modifier: i32) -> Result<Ex, Report> {
        self.scopes.push(Scope::clause("DEFAULT expressions"));
        let typed = self.expression(value)?;
        self.coerce(typed, (of, modifier), Context::Assignment, value.at)
    }

    /// A CHECK condition over a table's row.
    pub(super) fn check(&mut self, table: &TableDefinition, condition: &ast::Expression) -> Result<Ex, Report> {
        let mut scope = Scope::clause("check constraints");
        scope.columns = scope::columns_of(table, &table.name);
        self.scopes.push(scope);
        let typed = self.expression(condition);
        let result = typed.and_then(|typed| self.boolean(typed, "CHECK", condition.at));
        self.scopes.pop();
        result
    }

    /// What a column gets when nothing is given.
    pub(super) fn default(&mut self, table: &TableDefinition, column: usize) -> Result<Ex, Report> {
        let column = &table.columns[column];
        match &column.default {
            None => Ok(Ex::Const(Datum::Null)),
            Some(Default::Sequence(oid)) => {
                let next = functions::named("nextval").next();
                let next = next.ok_or_else(|| unsupported("sequences"))?;
                let call = Typed::new(Ex::Call(next, vec![Ex::Const(Datum::Oid(*oid))]), INT8);
                self.coerce(call, (column.of, column.modifier), Context::Assignment, 0)
            }
            Some(Default::Expression(value)) => {
                self.scopes.push(Scope::clause("DEFAULT expressions"));
                let typed = self.expression(value);
                self.scopes.pop();
                self.coerce(typed?, (column.of, column.modifier), Context::Assignment, value.at)
            }
        }
    }
}

/// The type and modifier of a written type name.
pub(super) fn resolve_type(name: &TypeName) -> Result<(Type, i32), Report> {
    let plain = match name.name.as_str() {
        "serial" | "serial4" => "int4",
        "bigserial" | "serial8" => "int8",
        "smallserial" | "serial2" => "int2",
        other => other,
    };
    let Some(scalar) = Scalar::named(plain) else {
        const OTHERS: [&str; 24] = [
            "box",
            "cidr",
            "circle",
            "citext",
            "hstore",
            "inet",
            "int4range",
            "int8range",
            "line",
            "lseg",
            "macaddr",
            "money",
            "numrange",
            "path",
            "point",
            "polygon",
            "time",
            "timetz",
            "tsquery",
            "tsrange",
            "tstzrange",
            "tsvector",
            "varbit",
            "xml",
        ];
        if OTHERS.contains(&plain) {
            return Err(unsupported(&format!("the type {plain}")));
        }
        return Err(Report::error("42704", format!("type \"{}\" does not exist", name.name)));
    };
    let of = Type {
        scalar,
        array: name.array,
    };
    let modifier = match (scalar, name.modifiers.as_slice()) {
        (_, []) => -1,
        (Scalar::Varchar | Scalar::Bpchar, [length]) if *length > 0 => length + 4,
        (Scalar::Varchar | Scalar::Bpchar, _) => {
            return Err(Report::error(
                "22023",
                format!("length for type {} must be at least 1", name.name),
            ));
        }
        (Scalar::Numeric, [precision]) => (precision << 16) + 4,
        (Scalar::Numeric, [precision, scale]) => (precision << 16 | scale) + 4,
        (Scalar::Bit, [length]) => *length,
        (Scalar::Float8, [precision]) if *precision <= 24 => {
            return Ok((
                Type {
                    scalar: Scalar::Float4,
                    ..of
                },
                -1,
            ));
        }
        (Scalar::Float8, [_]) => -1,
        (Scalar::Timestamp | Scalar::TimestampTz, _) => return Err(unsupported("precisions of timestamps")),
        _ => {
            let message = format!("type modifier is not allowed for type \"{}\"", name.name);
            return Err(Report::error("42601", message));
        }
    };
    Ok((of, modifier))
}

/// Unknown becomes text where nothing says otherwise.
fn settled(of: Type) -> Type {
    if of == UNKNOWN { TEXT } else { of }
}
