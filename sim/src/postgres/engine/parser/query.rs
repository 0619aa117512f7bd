//! Queries: SELECT, VALUES, set operations, WITH, and the clauses around them.
//!
//! A part of the parser. A plain machine.

use super::Parser;
use crate::postgres::engine::ast::{
    Body, CommonTable, Expression, Into, LockWait, Locking, Node, Query, RowLock, Select, SetOperator, Statement,
    Target,
};
use crate::postgres::engine::lexer::Kind;
use crate::wire::Report;

impl Parser<'_> {
    /// A statement that begins as a query; WITH may lead to a modification.
    pub(super) fn query_statement(&mut self) -> Result<Statement, Report> {
        let (with, recursive) = self.with()?;
        if ["insert", "update", "delete"].iter().any(|word| self.is_word(word)) {
            return self.modification(with);
        }
        let mut query = self.query_after_with(with, recursive)?;
        if let Body::Select(select) = &mut query.body
            && let Some(into) = select.into.take()
        {
            return Ok(Statement::CreateTableAs {
                name: into.name,
                temporary: into.temporary,
                if_not_exists: false,
                columns: Vec::new(),
                query,
                with_data: true,
                on_commit: crate::postgres::engine::ast::OnCommit::PreserveRows,
                select_into: true,
            });
        }
        Ok(Statement::Query(Box::new(query)))
    }

    pub(super) fn query(&mut self) -> Result<Query, Report> {
        self.nested(|parser| {
            let (with, recursive) = parser.with()?;
            parser.query_after_with(with, recursive)
        })
    }

    fn with(&mut self) -> Result<(Vec<CommonTable>, bool), Report> {
        if !self.take_word("with") {
            return Ok((Vec::new(), false));
        }
        let recursive = self.take_word("recursive");
        let tables = self.list(|parser| {
            let name = parser.name()?;
            let columns = if parser.is_operator("(") {
                parser.name_list()?
            } else {
                Vec::new()
            };
            parser.expect_word("as")?;
            if !parser.take_word("materialized") {
                parser.take_words(&["not", "materialized"]);
            }
            parser.expect_operator("(")?;
            let statement = parser.nested(Self::statement)?;
            parser.expect_operator(")")?;
            Ok(CommonTable {
                name,
                columns,
                statement: Box::new(statement),
            })
        })?;
        Ok((tables, recursive))
    }

    fn query_after_with(&mut self, with: Vec<CommonTable>, recursive: bool) -> Result<Query, Report> {
        let mut query = Query {
            with,
            recursive,
            body: self.combined(0)?,
            order: Vec::new(),
            limit: None,
            offset: None,
            locking: Vec::new(),
        };
        if self.take_words(&["order", "by"]) {
            query.order = self.order_keys()?;
        }
        loop {
            if query.limit.is_none() && self.take_word("limit") {
                query.limit = match self.take_word("all") {
                    true => None,
                    false => Some(self.expression()?),
                };
            } else if query.offset.is_none() && self.take_word("offset") {
                query.offset = Some(self.expression()?);
                if !self.take_word("rows") {
                    self.take_word("row");
                }
            } else if query.limit.is_none() && self.take_word("fetch") {
                query.limit = Some(self.fetch_first()?);
            } else if self.is_word("for") && !self.is_word_at(1, "update_") {
                let locking = self.locking()?;
                query.locking.push(locking);
            } else {
                return Ok(query);
            }
        }
    }

    fn fetch_first(&mut self) -> Result<Expression, Report> {
        if !self.take_word("first") {
            self.expect_word("next")?;
        }
        let at = self.position();
        let one = Expression {
            node: Node::Number("1".to_owned()),
            at,
        };
        let count = if self.is_word("row") || self.is_word("rows") {
            one
        } else {
            self.expression()?
        };
        if !self.take_word("rows") {
            self.expect_word("row")?;
        }
        self.expect_word("only")?;
        Ok(count)
    }

    fn locking(&mut self) -> Result<Locking, Report> {
        self.advance();
        let strength = if self.take_word("update") {
            RowLock::Update
        } else if self.take_words(&["no", "key", "update"]) {
            RowLock::NoKeyUpdate
        } else if self.take_word("share") {
            RowLock::Share
        } else if self.take_words(&["key", "share"]) {
            RowLock::KeyShare
        } else {
            return Err(self.unexpected());
        };
        let of = if self.take_word("of") {
            self.names()?
        } else {
            Vec::new()
        };
        let wait = if self.take_word("nowait") {
            LockWait::NoWait
        } else if self.take_words(&["skip", "locked"]) {
            LockWait::SkipLocked
        } else {
            LockWait::Wait
        };
        Ok(Locking { strength, of, wait })
    }

    /// UNION and EXCEPT bind less tightly than INTERSECT.
    fn combined(&mut self, least: u8) -> Result<Body, Report> {
        let mut left = self.body()?;
        loop {
            let (operator, level) = match self.kind() {
                Kind::Word(word) if word == "union" => (SetOperator::Union, 0),
                Kind::Word(word) if word == "except" => (SetOperator::Except, 0),
                Kind::Word(word) if word == "intersect" => (SetOperator::Intersect, 1),
                _ => return Ok(left),
            };
            if level < least {
                return Ok(left);
            }
            self.advance();
            let all = self.take_word("all");
            if !all {
                self.take_word("distinct");
            }
            let right = self.nested(|parser| parser.combined(level + 1))?;
            left = Body::Combined {
                operator,
                all,
                left: Box::new(left),
                right: Box::new(right),
            };
        }
    }

    fn body(&mut self) -> Result<Body, Report> {
        if self.take_operator("(") {
            let query = self.query()?;
            self.expect_operator(")")?;
            return Ok(Body::Query(Box::new(query)));
        }
        if self.take_word("values") {
            let rows = self.list(|parser| {
                parser.expect_operator("(")?;
                let row = parser.expressions()?;
                parser.expect_operator(")")?;
                Ok(row)
            })?;
            return Ok(Body::Values(rows));
        }
        if self.take_word("table") {
            let at = self.position();
            let name = self.object_name()?;
            return Ok(Body::Select(Box::new(Select {
                distinct: None,
                targets: vec![Target {
                    value: Expression {
                        node: Node::Star(None),
                        at,
                    },
                    name: None,
                }],
                into: None,
                from: vec![crate::postgres::engine::ast::From::Table {
                    name,
                    alias: None,
                    columns: Vec::new(),
                }],
                filter: None,
                group: Vec::new(),
                having: None,
            })));
        }
        self.expect_word("select")?;
        self.select().map(|select| Body::Select(Box::new(select)))
    }

    fn select(&mut self) -> Result<Select, Report> {
        let distinct = if self.take_word("distinct") {
            if self.take_word("on") {
                self.expect_operator("(")?;
                let keys = self.expressions()?;
                self.expect_operator(")")?;
                Some(keys)
            } else {
                Some(Vec::new())
            }
        } else {
            self.take_word("all");
            None
        };
        let ends = [
            "from", "where", "into", "group", "having", "order", "limit", "union", "for", "offset",
        ];
        let empty =
            matches!(self.kind(), Kind::End) || self.is_operator(")") || ends.iter().any(|word| self.is_word(word));
        let targets = if empty { Vec::new() } else { self.targets()? };
        let into = if self.take_word("into") {
            let temporary = self.take_word("temp") || self.take_word("temporary");
            if self.take_word("unlogged") {
                return Err(super::judge::unsupported("unlogged tables"));
            }
            self.take_word("table");
            Some(Into {
                name: self.object_name()?,
                temporary,
            })
        } else {
            None
        };
        let from = if self.take_word("from") {
            self.list(Self::source_item)?
        } else {
            Vec::new()
        };
        let filter = if self.take_word("where") {
            Some(self.expression()?)
        } else {
            None
        };
        let group = match self.take_words(&["group", "by"]) {
            true => {
                let grouping = ["rollup", "cube", "grouping"];
                if grouping.iter().any(|word| self.is_word(word)) {
                    return Err(super::judge::unsupported("grouping sets"));
                }
                self.expressions()?
            }
            false => Vec::new(),
        };
        let having = if self.take_word("having") {
            Some(self.expression()?)
        } else {
            None
        };
        if self.is_word("window") {
            return Err(super::judge::unsupported("window functions"));
        }
        Ok(Select {
            distinct,
            targets,
            into,
            from,
            filter,
            group,
            having,
        })
    }

    pub(super) fn targets(&mut self) -> Result<Vec<Target>, Report> {
        self.list(|parser| {
            let value = parser.expression()?;
            let name = if parser.take_word("as") {
                Some(parser.label()?)
            } else {
                match parser.kind() {
                    Kind::Word(word) if !super::is_reserved(word) && !is_bare_label_stop(word) => Some(parser.label()?),
                    Kind::Quoted(_) => Some(parser.label()?),
                    _ => None,
                }
            };
            Ok(Target { value, name })
        })
    }
}

/// Words that are no name for a column without AS.
fn is_bare_label_stop(word: &str) -> bool {
    const STOPS: [&str; 16] = [
        "char",
        "character",
        "day",
        "filter",
        "hour",
        "minute",
        "month",
        "over",
        "precision",
        "second",
        "varying",
        "within",
        "without",
        "year",
        "array",
        "overlaps",
    ];
    STOPS.contains(&word)
}
