//! Parsed statements: plain data, close to the text.
//!
//! Made by the parser, read by analysis and by the session verbs. A plain machine: nothing here knows a catalog.

/// A type as written: its name, its modifiers, whether it is an array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TypeName {
    pub(crate) name: String,
    pub(crate) modifiers: Vec<i32>,
    pub(crate) array: bool,
    pub(crate) at: usize,
}

/// A name, perhaps with a schema in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectName {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
    pub(crate) at: usize,
}

/// An expression and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expression {
    pub(crate) node: Node,
    pub(crate) at: usize,
}

/// The kinds of expressions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    And(Box<Expression>, Box<Expression>),
    Array(Vec<Expression>),
    ArrayQuery(Box<Query>),
    Between {
        value: Box<Expression>,
        low: Box<Expression>,
        high: Box<Expression>,
        negated: bool,
        symmetric: bool,
    },
    Binary(String, Box<Expression>, Box<Expression>),
    Bits(String),
    Bool(bool),
    Call(Box<Call>),
    Case {
        operand: Option<Box<Expression>>,
        branches: Vec<(Expression, Expression)>,
        otherwise: Option<Box<Expression>>,
    },
    Cast(Box<Expression>, TypeName),
    Column(Vec<String>),
    Default,
    Exists(Box<Query>),
    /// `IN (…)` with a list.
    In {
        value: Box<Expression>,
        list: Vec<Expression>,
        negated: bool,
    },
    InQuery {
        value: Box<Expression>,
        query: Box<Query>,
        negated: bool,
    },
    Index(Box<Expression>, Box<Expression>),
    IsBool(Box<Expression>, Option<bool>, bool),
    IsDistinct(Box<Expression>, Box<Expression>, bool),
    IsNull(Box<Expression>, bool),
    Like {
        value: Box<Expression>,
        pattern: Box<Expression>,
        escape: Option<Box<Expression>>,
        insensitive: bool,
        negated: bool,
    },
    Not(Box<Expression>),
    Null,
    Number(String),
    Or(Box<Expression>, Box<Expression>),
    Parameter(usize),
    /// `value op ANY (array or query)`, or ALL.
    Quantified {
        operator: String,
        value: Box<Expression>,
        array: Quantity,
        all: bool,
    },
    Row(Vec<Expression>),
    /// `*` or `t.*`.
    Star(Option<String>),
    Subquery(Box<Query>),
    Text(String),
    Unary(String, Box<Expression>),
}

/// What stands after ANY or ALL.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Quantity {
    Array(Box<Expression>),
    Query(Box<Query>),
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
    pub(crate) arguments: Vec<Expression>,
    /// `count(*)`.
    pub(crate) star: bool,
    pub(crate) distinct: bool,
    pub(crate) order: Vec<Order>,
    pub(crate) filter: Option<Expression>,
}

/// One key of ORDER BY.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) key: Expression,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// A query with everything around its body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    pub(crate) with: Vec<CommonTable>,
    pub(crate) recursive: bool,
    pub(crate) body: Body,
    pub(crate) order: Vec<Order>,
    pub(crate) limit: Option<Expression>,
    pub(crate) offset: Option<Expression>,
    pub(crate) locking: Vec<Locking>,
}

/// `name AS (…)`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CommonTable {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) statement: Box<Statement>,
}

/// What a query is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Combined {
        operator: SetOperator,
        all: bool,
        left: Box<Body>,
        right: Box<Body>,
    },
    Query(Box<Query>),
    Select(Box<Select>),
    Values(Vec<Vec<Expression>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetOperator {
    Except,
    Intersect,
    Union,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Select {
    pub(crate) distinct: Option<Vec<Expression>>,
    pub(crate) targets: Vec<Target>,
    pub(crate) into: Option<Into>,
    pub(crate) from: Vec<From>,
    pub(crate) filter: Option<Expression>,
    pub(crate) group: Vec<Expression>,
    pub(crate) having: Option<Expression>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) value: Expression,
    pub(crate) name: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Into {
    pub(crate) name: ObjectName,
    pub(crate) temporary: bool,
}

/// Something rows come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum From {
    Function {
        call: Call,
        alias: Option<String>,
        columns: Vec<String>,
        ordinality: bool,
        at: usize,
    },
    Join {
        left: Box<From>,
        right: Box<From>,
        kind: JoinKind,
        condition: JoinCondition,
    },
    Query {
        query: Box<Query>,
        alias: Option<String>,
        columns: Vec<String>,
    },
    Table {
        name: ObjectName,
        alias: Option<String>,
        columns: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Cross,
    Full,
    Inner,
    Left,
    Right,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JoinCondition {
    Natural,
    None,
    On(Expression),
    Using(Vec<String>),
}

/// FOR UPDATE and its kin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locking {
    pub(crate) strength: RowLock,
    pub(crate) of: Vec<String>,
    pub(crate) wait: LockWait,
}

/// From the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowLock {
    KeyShare,
    Share,
    NoKeyUpdate,
    Update,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockWait {
    NoWait,
    SkipLocked,
    Wait,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Insert {
    pub(crate) with: Vec<CommonTable>,
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<String>,
    pub(crate) columns: Vec<(String, usize)>,
    /// OVERRIDING SYSTEM VALUE (`true`) or USER VALUE.
    pub(crate) overriding: Option<bool>,
    /// `None` is DEFAULT VALUES.
    pub(crate) source: Option<Query>,
    pub(crate) conflict: Option<Conflict>,
    pub(crate) returning: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conflict {
    /// Columns of the index; empty means any.
    pub(crate) columns: Vec<String>,
    pub(crate) constraint: Option<String>,
    /// `None` is DO NOTHING.
    pub(crate) update: Option<(Vec<Assignment>, Option<Expression>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) column: String,
    pub(crate) value: Expression,
    pub(crate) at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) with: Vec<CommonTable>,
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<String>,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) from: Vec<From>,
    pub(crate) filter: Option<Expression>,
    pub(crate) returning: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Delete {
    pub(crate) with: Vec<CommonTable>,
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<String>,
    pub(crate) using: Vec<From>,
    pub(crate) filter: Option<Expression>,
    pub(crate) returning: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CreateTable {
    pub(crate) name: ObjectName,
    pub(crate) temporary: bool,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<ColumnDefinition>,
    pub(crate) constraints: Vec<Constraint>,
    pub(crate) on_commit: OnCommit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnCommit {
    DeleteRows,
    Drop,
    PreserveRows,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnDefinition {
    pub(crate) name: String,
    pub(crate) of: TypeName,
    pub(crate) default: Option<Expression>,
    /// GENERATED ALWAYS (`true`) or BY DEFAULT AS IDENTITY.
    pub(crate) identity: Option<bool>,
    pub(crate) not_null: bool,
    pub(crate) constraints: Vec<Constraint>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constraint {
    pub(crate) name: Option<String>,
    pub(crate) kind: ConstraintKind,
    pub(crate) deferrable: bool,
    pub(crate) deferred: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ConstraintKind {
    Check(Expression, String),
    ForeignKey {
        columns: Vec<String>,
        table: ObjectName,
        referenced: Vec<String>,
        on_delete: Action,
        on_update: Action,
    },
    Primary(Vec<String>),
    Unique(Vec<String>),
}

/// What happens to referencing rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Cascade,
    /// NO ACTION.
    Nothing,
    Restrict,
    SetDefault,
    SetNull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Index,
    Schema,
    Sequence,
    Table,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Alteration {
    AddColumn(ColumnDefinition, bool),
    AddConstraint(Constraint),
    DropColumn(String, bool),
    DropConstraint(String, bool),
    DropDefault(String),
    DropNotNull(String),
    RenameColumn(String, String),
    RenameTable(String),
    SetDefault(String, Expression),
    SetNotNull(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// The modes of BEGIN and SET TRANSACTION.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(crate) isolation: Option<Isolation>,
    pub(crate) read_only: Option<bool>,
    pub(crate) deferrable: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiscardKind {
    All,
    Plans,
    Sequences,
    Temp,
}

/// How far FETCH and MOVE go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Absolute(i64),
    All,
    Backward(i64),
    BackwardAll,
    Forward(i64),
    Relative(i64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CopySource {
    Query(Query),
    Table(ObjectName, Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declare {
    pub(crate) name: String,
    pub(crate) scroll: Option<bool>,
    pub(crate) hold: bool,
    pub(crate) query: Query,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    AlterTable {
        name: ObjectName,
        if_exists: bool,
        actions: Vec<Alteration>,
    },
    Analyze,
    Begin(Modes),
    Checkpoint,
    Close(Option<String>),
    Commit {
        chain: bool,
    },
    Copy {
        source: CopySource,
        /// COPY FROM STDIN, else TO STDOUT.
        from: bool,
        csv: bool,
    },
    CreateIndex {
        name: Option<String>,
        table: ObjectName,
        columns: Vec<String>,
        unique: bool,
        if_not_exists: bool,
    },
    CreateSchema {
        name: String,
        if_not_exists: bool,
    },
    CreateSequence {
        name: ObjectName,
        temporary: bool,
        if_not_exists: bool,
        start: Option<i64>,
        increment: Option<i64>,
    },
    CreateTable(Box<CreateTable>),
    CreateTableAs {
        name: ObjectName,
        temporary: bool,
        if_not_exists: bool,
        columns: Vec<String>,
        query: Query,
        with_data: bool,
        on_commit: OnCommit,
        /// Written as SELECT … INTO.
        select_into: bool,
    },
    Deallocate(Option<String>),
    Declare(Box<Declare>),
    Delete(Box<Delete>),
    Discard(DiscardKind),
    Drop {
        kind: ObjectKind,
        names: Vec<ObjectName>,
        if_exists: bool,
        cascade: bool,
    },
    Execute {
        name: String,
        arguments: Vec<Expression>,
    },
    Fetch {
        cursor: String,
        direction: Direction,
        only_move: bool,
    },
    Insert(Box<Insert>),
    Listen(String),
    Lock {
        tables: Vec<ObjectName>,
        mode: super::locks::TableLock,
        nowait: bool,
    },
    Notify {
        channel: String,
        payload: String,
    },
    Prepare {
        name: String,
        types: Vec<TypeName>,
        statement: Box<Statement>,
        /// From the first byte of the inner statement.
        text: String,
    },
    Query(Box<Query>),
    Release(String),
    Reset(Option<String>),
    Rollback {
        chain: bool,
    },
    RollbackTo(String),
    Savepoint(String),
    Set {
        name: String,
        /// `None` is DEFAULT.
        values: Option<Vec<String>>,
        local: bool,
    },
    SetConstraints {
        /// Empty is ALL.
        names: Vec<String>,
        deferred: bool,
    },
    SetTransaction {
        session: bool,
        modes: Modes,
    },
    Show(Option<String>),
    Truncate {
        tables: Vec<ObjectName>,
        restart: bool,
        cascade: bool,
    },
    Unlisten(Option<String>),
    Update(Box<Update>),
    Vacuum,
}
