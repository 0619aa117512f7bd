//! Analysed statements: names resolved to places, types known, ready to run.
//!
//! Made by analysis, run by execution, kept in caches. A plain machine: nothing here runs. A plan holds no rows and is only good for
//! the catalog version it was made with.

use std::sync::Arc;

use super::ast::{self, JoinKind, LockWait, RowLock, SetOperator};
use super::door::ColumnDescription;
use super::functions::Function;
use super::types::Type;
use super::types::cast::Context;
use super::types::datum::Datum;
use super::views::SystemView;

/// A statement with everything known about it before it runs.
#[derive(Clone, Debug)]
pub(crate) struct Plan(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    statement: Arc<super::Statement>,
    /// As given with Parse, zeros where not.
    given: Vec<u32>,
    parameters: Vec<u32>,
    columns: Option<Arc<[ColumnDescription]>>,
    body: PlanBody,
    version: u64,
    search_path: String,
}

/// What there is to run.
#[derive(Debug)]
pub(crate) enum PlanBody {
    /// Read from the statement when it runs.
    Control,
    Query(SelectPlan),
    Modify(ModifyPlan),
}

impl Plan {
    pub(crate) fn new(
        statement: Arc<super::Statement>,
        given: Vec<u32>,
        parameters: Vec<u32>,
        columns: Option<Arc<[ColumnDescription]>>,
        body: PlanBody,
        (version, search_path): (u64, String),
    ) -> Self {
        Self(Arc::new(Inner {
            statement,
            given,
            parameters,
            columns,
            body,
            version,
            search_path,
        }))
    }

    pub(crate) fn parameters(&self) -> &[u32] {
        &self.0.parameters
    }

    /// The columns of its rows; `None` when it gives none.
    pub(crate) fn columns(&self) -> Option<&[ColumnDescription]> {
        self.0.columns.as_deref()
    }

    pub(crate) fn shared_columns(&self) -> Option<Arc<[ColumnDescription]>> {
        self.0.columns.clone()
    }

    pub(crate) fn text(&self) -> &Arc<str> {
        &self.0.statement.text
    }

    pub(crate) fn statement(&self) -> &Arc<super::Statement> {
        &self.0.statement
    }

    pub(crate) fn given(&self) -> &[u32] {
        &self.0.given
    }

    pub(crate) fn body(&self) -> &PlanBody {
        &self.0.body
    }

    pub(crate) fn search_path(&self) -> &str {
        &self.0.search_path
    }

    /// Whether it was made for this catalog version and search path.
    pub(crate) fn is_fresh(&self, version: u64, search_path: &str) -> bool {
        matches!(self.0.body, PlanBody::Control) || (self.0.version == version && self.0.search_path == search_path)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    NotEqual,
}

impl Comparison {
    pub(crate) fn of(operator: &str) -> Option<Self> {
        Some(match operator {
            "=" => Self::Equal,
            "<>" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    pub(crate) fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// An expression to evaluate over a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ex {
    /// The result of an aggregate, by its place in the query's list; replaced by a column before it runs.
    Aggregate(usize),
    And(Vec<Ex>),
    Array(Type, Vec<Ex>),
    ArrayQuery(Arc<SelectPlan>, Type),
    Call(&'static Function, Vec<Ex>),
    Case {
        operand: Option<Box<Ex>>,
        branches: Vec<(Ex, Ex)>,
        otherwise: Option<Box<Ex>>,
    },
    Cast {
        value: Box<Ex>,
        from: Type,
        to: Type,
        modifier: i32,
        context: Context,
    },
    Coalesce(Vec<Ex>),
    /// How many queries further out, and where in its row.
    Column {
        level: usize,
        at: usize,
    },
    Compare(Comparison, Box<Ex>, Box<Ex>),
    Const(Datum),
    Distinct(Box<Ex>, Box<Ex>, bool),
    Exists(Arc<SelectPlan>),
    /// `true` for GREATEST.
    Extreme(bool, Vec<Ex>),
    In {
        value: Box<Ex>,
        list: Vec<Ex>,
        negated: bool,
    },
    Index(Box<Ex>, Box<Ex>),
    IsBool(Box<Ex>, Option<bool>, bool),
    IsNull(Box<Ex>, bool),
    Like {
        value: Box<Ex>,
        pattern: Box<Ex>,
        escape: Option<Box<Ex>>,
        insensitive: bool,
        negated: bool,
    },
    Not(Box<Ex>),
    NullIf(Box<Ex>, Box<Ex>),
    Or(Vec<Ex>),
    Parameter(usize),
    Quantified {
        comparison: Comparison,
        value: Box<Ex>,
        array: Box<Ex>,
        all: bool,
    },
    QuantifiedQuery {
        comparison: Comparison,
        value: Box<Ex>,
        query: Arc<SelectPlan>,
        all: bool,
    },
    Row(Vec<Ex>),
    /// A set-returning function among the targets, by its place in the list.
    Set(usize),
    Subquery(Arc<SelectPlan>),
}

impl Ex {
    pub(crate) fn column(at: usize) -> Self {
        Self::Column { level: 0, at }
    }

    /// Calls `visit` on each part directly below.
    pub(crate) fn for_each_child<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        match self {
            Self::Aggregate(_) | Self::Column { .. } | Self::Const(_) | Self::Parameter(_) | Self::Set(_) => {}
            Self::ArrayQuery(..) | Self::Exists(_) | Self::Subquery(_) => {}
            Self::And(parts)
            | Self::Or(parts)
            | Self::Array(_, parts)
            | Self::Call(_, parts)
            | Self::Coalesce(parts) => {
                parts.iter().for_each(visit);
            }
            Self::Extreme(_, parts) | Self::Row(parts) => parts.iter().for_each(visit),
            Self::Case {
                operand,
                branches,
                otherwise,
            } => {
                operand.iter().for_each(|part| visit(part));
                for (condition, value) in branches {
                    visit(condition);
                    visit(value);
                }
                otherwise.iter().for_each(|part| visit(part));
            }
            Self::Cast { value, .. } | Self::IsBool(value, ..) | Self::IsNull(value, _) | Self::Not(value) => {
                visit(value)
            }
            Self::Compare(_, a, b) | Self::Distinct(a, b, _) | Self::Index(a, b) | Self::NullIf(a, b) => {
                visit(a);
                visit(b);
            }
            Self::In { value, list, .. } => {
                visit(value);
                list.iter().for_each(visit);
            }
            Self::Like {
                value, pattern, escape, ..
            } => {
                visit(value);
                visit(pattern);
                escape.iter().for_each(|part| visit(part));
            }
            Self::Quantified { value, array, .. } => {
                visit(value);
                visit(array);
            }
            Self::QuantifiedQuery { value, .. } => visit(value),
        }
    }

    /// Calls `change` on each part directly below.
    pub(crate) fn for_each_child_mut(&mut self, change: &mut dyn FnMut(&mut Self)) {
        match self {
            Self::Aggregate(_) | Self::Column { .. } | Self::Const(_) | Self::Parameter(_) | Self::Set(_) => {}
            Self::ArrayQuery(..) | Self::Exists(_) | Self::Subquery(_) => {}
            Self::And(parts)
            | Self::Or(parts)
            | Self::Array(_, parts)
            | Self::Call(_, parts)
            | Self::Coalesce(parts) => {
                parts.iter_mut().for_each(change);
            }
            Self::Extreme(_, parts) | Self::Row(parts) => parts.iter_mut().for_each(change),
            Self::Case {
                operand,
                branches,
                otherwise,
            } => {
                operand.iter_mut().for_each(|part| change(part));
                for (condition, value) in branches {
                    change(condition);
                    change(value);
                }
                otherwise.iter_mut().for_each(|part| change(part));
            }
            Self::Cast { value, .. } | Self::IsBool(value, ..) | Self::IsNull(value, _) | Self::Not(value) => {
                change(value)
            }
            Self::Compare(_, a, b) | Self::Distinct(a, b, _) | Self::Index(a, b) | Self::NullIf(a, b) => {
                change(a);
                change(b);
            }
            Self::In { value, list, .. } => {
                change(value);
                list.iter_mut().for_each(change);
            }
            Self::Like {
                value, pattern, escape, ..
            } => {
                change(value);
                change(pattern);
                escape.iter_mut().for_each(|part| change(part));
            }
            Self::Quantified { value, array, .. } => {
                change(value);
                change(array);
            }
            Self::QuantifiedQuery { value, .. } => change(value),
        }
    }

    /// The queries inside, directly.
    pub(crate) fn query(&self) -> Option<&Arc<SelectPlan>> {
        match self {
            Self::ArrayQuery(query, _) | Self::Exists(query) | Self::Subquery(query) => Some(query),
            Self::QuantifiedQuery { query, .. } => Some(query),
            _ => None,
        }
    }

    /// Whether some part, this one included, is one for which `is` holds.
    pub(crate) fn any(&self, is: &dyn Fn(&Self) -> bool) -> bool {
        if is(self) {
            return true;
        }
        let mut found = false;
        self.for_each_child(&mut |part| found = found || part.any(is));
        found
    }
}

/// A column of a query's result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutputColumn {
    pub(crate) name: String,
    pub(crate) of: Type,
    pub(crate) modifier: i32,
    /// The table and attribute it comes from, zeros for an expression.
    pub(crate) origin: (u32, i16),
}

impl OutputColumn {
    pub(crate) fn described(&self) -> ColumnDescription {
        ColumnDescription {
            name: self.name.clone(),
            type_oid: self.of.oid(),
            size: self.of.size(),
            typmod: self.modifier,
            table_oid: self.origin.0,
            attribute: self.origin.1,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SortKey {
    pub(crate) key: usize,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SelectPlan {
    pub(crate) with: Vec<CommonPlan>,
    pub(crate) body: BodyPlan,
    pub(crate) order: Vec<SortKey>,
    pub(crate) limit: Option<Ex>,
    pub(crate) offset: Option<Ex>,
    pub(crate) columns: Vec<OutputColumn>,
    pub(crate) locks: Vec<LockPlan>,
}

/// A WITH query; its rows are made once, before the rest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CommonPlan {
    Modify(Arc<ModifyPlan>),
    /// The part without and, for a recursive one, the part with a reference to itself; `true` for UNION ALL.
    Select(Arc<SelectPlan>, Option<(Arc<SelectPlan>, bool)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BodyPlan {
    Combined {
        operator: SetOperator,
        all: bool,
        left: Box<SelectPlan>,
        right: Box<SelectPlan>,
    },
    Select(Box<SelectCore>),
    Values(Vec<Vec<Ex>>),
}

/// One SELECT. Its targets may be more than the columns it gives: those behind are sort keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SelectCore {
    pub(crate) from: Source,
    pub(crate) filter: Option<Ex>,
    pub(crate) grouping: Option<Grouping>,
    pub(crate) targets: Vec<Ex>,
    pub(crate) sets: Vec<(&'static Function, Vec<Ex>)>,
    pub(crate) distinct: Distinct,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Distinct {
    All,
    None,
    /// By these targets.
    On(Vec<usize>),
}

/// Rows after it: the keys, the aggregates, then the group's first source row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grouping {
    pub(crate) keys: Vec<Ex>,
    pub(crate) aggregates: Vec<AggregateCall>,
    pub(crate) having: Option<Ex>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AggregateCall {
    pub(crate) function: super::functions::aggregates::Aggregate,
    pub(crate) arguments: Vec<Ex>,
    pub(crate) result: Type,
    pub(crate) distinct: bool,
    pub(crate) order: Vec<(Ex, bool, bool)>,
    pub(crate) filter: Option<Ex>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LockPlan {
    /// Which of the query's tables; all if `None`.
    pub(crate) tables: Option<Vec<u32>>,
    pub(crate) strength: RowLock,
    pub(crate) wait: LockWait,
}

/// Where rows come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// A WITH query: how many queries further out, and its place there; its width.
    Common {
        level: usize,
        at: usize,
        width: usize,
    },
    Function {
        function: &'static Function,
        arguments: Vec<Ex>,
        ordinality: bool,
        width: usize,
    },
    /// One row without columns.
    Nothing,
    Join {
        kind: JoinKind,
        left: Box<Source>,
        right: Box<Source>,
        condition: Option<Ex>,
        /// Columns of both that are equal in every row of the result.
        equal: Vec<(Ex, Ex)>,
    },
    Query(Arc<SelectPlan>),
    Sequence(u32),
    Table {
        oid: u32,
        width: usize,
        /// An index whose columns all have a value from outside of the table.
        lookup: Option<Lookup>,
    },
    View(&'static SystemView),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lookup {
    pub(crate) index: u32,
    pub(crate) key: Vec<Ex>,
}

impl Source {
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Common { width, .. } | Self::Table { width, .. } => *width,
            Self::Function { width, ordinality, .. } => *width + usize::from(*ordinality),
            Self::Nothing => 0,
            Self::Join { left, right, .. } => left.width() + right.width(),
            Self::Query(query) => query.columns.len(),
            Self::Sequence(_) => 3,
            Self::View(view) => view.columns.len(),
        }
    }
}

/// INSERT, UPDATE or DELETE.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModifyPlan {
    pub(crate) with: Vec<CommonPlan>,
    pub(crate) table: u32,
    pub(crate) kind: ModifyKind,
    /// Over the new row (the old one for DELETE), and behind it the row of FROM or USING.
    pub(crate) returning: Vec<Ex>,
    pub(crate) columns: Vec<OutputColumn>,
    /// CHECK conditions by name, over the new row.
    pub(crate) checks: Vec<(String, Ex)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ModifyKind {
    Delete {
        from: Source,
        filter: Option<Ex>,
    },
    Insert {
        source: Option<Box<SelectPlan>>,
        /// For each column of the table: a column of the source, or a default.
        columns: Vec<InsertColumn>,
        conflict: Option<ConflictPlan>,
    },
    Update {
        /// The table's row, and behind it that of FROM.
        from: Source,
        filter: Option<Ex>,
        assignments: Vec<(usize, Ex)>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InsertColumn {
    Default(Ex),
    /// A column of the source, cast to the table's.
    Source(Ex),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConflictPlan {
    /// The indexes whose conflicts count; empty is any.
    pub(crate) indexes: Vec<u32>,
    /// Over the old row and behind it the one that was to be inserted; `None` is DO NOTHING.
    pub(crate) update: Option<ConflictUpdate>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConflictUpdate {
    pub(crate) assignments: Vec<(usize, Ex)>,
    pub(crate) filter: Option<Ex>,
}

/// Whether the plan is the same for every session and at any time: nothing is looked up, and no rows come.
pub(crate) fn is_fixed(statement: &ast::Statement) -> bool {
    matches!(
        statement,
        ast::Statement::Begin(_)
            | ast::Statement::Close(_)
            | ast::Statement::Commit { .. }
            | ast::Statement::Deallocate(_)
            | ast::Statement::Discard(_)
            | ast::Statement::Listen(_)
            | ast::Statement::Notify { .. }
            | ast::Statement::Reset(_)
            | ast::Statement::Rollback { .. }
            | ast::Statement::Set { .. }
            | ast::Statement::Unlisten(_)
    )
}

/// Whether a parsed statement gives rows or changes them, and so has a plan of its own.
pub(crate) fn is_planned(statement: &ast::Statement) -> bool {
    matches!(
        statement,
        ast::Statement::Query(_) | ast::Statement::Insert(_) | ast::Statement::Update(_) | ast::Statement::Delete(_)
    )
}
