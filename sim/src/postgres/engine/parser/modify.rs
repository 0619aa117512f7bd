//! INSERT, UPDATE and DELETE.
//!
//! A part of the parser. A plain machine.

use super::Parser;
use crate::postgres::engine::ast::{
    Assignment, CommonTable, Conflict, Delete, Insert, Node, Statement, Target, Update,
};
use crate::wire::Report;

impl Parser<'_> {
    pub(super) fn modification(&mut self, with: Vec<CommonTable>) -> Result<Statement, Report> {
        if self.take_word("insert") {
            self.insert(with)
        } else if self.take_word("update") {
            self.update(with)
        } else {
            self.expect_word("delete")?;
            self.delete(with)
        }
    }

    fn insert(&mut self, with: Vec<CommonTable>) -> Result<Statement, Report> {
        self.expect_word("into")?;
        let table = self.object_name()?;
        let alias = if self.take_word("as") { Some(self.name()?) } else { None };
        let mut columns = Vec::new();
        if self.is_operator("(") && !self.starts_query() {
            self.advance();
            columns = self.list(|parser| {
                let at = parser.position();
                Ok((parser.name()?, at))
            })?;
            self.expect_operator(")")?;
        }
        let overriding = if self.take_word("overriding") {
            let system = self.take_word("system");
            if !system {
                self.expect_word("user")?;
            }
            self.expect_word("value")?;
            Some(system)
        } else {
            None
        };
        let source = if self.take_words(&["default", "values"]) {
            None
        } else {
            if !self.starts_query() && !self.is_word("table") {
                return Err(self.unexpected());
            }
            Some(self.query()?)
        };
        let conflict = if self.take_words(&["on", "conflict"]) {
            Some(self.conflict()?)
        } else {
            None
        };
        let returning = self.returning()?;
        Ok(Statement::Insert(Box::new(Insert {
            with,
            table,
            alias,
            columns,
            overriding,
            source,
            conflict,
            returning,
        })))
    }

    fn conflict(&mut self) -> Result<Conflict, Report> {
        let mut conflict = Conflict {
            columns: Vec::new(),
            constraint: None,
            update: None,
        };
        if self.take_words(&["on", "constraint"]) {
            conflict.constraint = Some(self.name()?);
        } else if self.is_operator("(") {
            conflict.columns = self.name_list()?;
            if self.is_word("where") {
                return Err(super::judge::unsupported("partial indexes"));
            }
        }
        self.expect_word("do")?;
        if self.take_word("nothing") {
            return Ok(conflict);
        }
        self.expect_words(&["update", "set"])?;
        let assignments = self.assignments()?;
        let filter = if self.take_word("where") {
            Some(self.expression()?)
        } else {
            None
        };
        conflict.update = Some((assignments, filter));
        Ok(conflict)
    }

    fn assignments(&mut self) -> Result<Vec<Assignment>, Report> {
        let groups = self.list(|parser| {
            let at = parser.position();
            if !parser.is_operator("(") {
                let column = parser.name()?;
                if parser.is_operator("[") || parser.is_operator(".") {
                    return Err(super::judge::unsupported("assignment to a part of a column"));
                }
                parser.expect_operator("=")?;
                let value = parser.expression()?;
                return Ok(vec![Assignment { column, value, at }]);
            }
            let columns = parser.name_list()?;
            parser.expect_operator("=")?;
            let value = parser.expression()?;
            let Node::Row(values) = value.node else {
                return Err(super::judge::unsupported("assignment of a subquery to several columns"));
            };
            if values.len() != columns.len() {
                return Err(Report::error(
                    "42601",
                    "number of columns does not match number of values",
                ));
            }
            let pairs = columns.into_iter().zip(values);
            Ok(pairs.map(|(column, value)| Assignment { column, value, at }).collect())
        })?;
        Ok(groups.into_iter().flatten().collect())
    }

    fn update(&mut self, with: Vec<CommonTable>) -> Result<Statement, Report> {
        self.take_word("only");
        let table = self.object_name()?;
        let (alias, _) = self.alias()?;
        self.expect_word("set")?;
        let assignments = self.assignments()?;
        let from = if self.take_word("from") {
            self.list(Self::source_item)?
        } else {
            Vec::new()
        };
        let filter = self.filter()?;
        let returning = self.returning()?;
        Ok(Statement::Update(Box::new(Update {
            with,
            table,
            alias,
            assignments,
            from,
            filter,
            returning,
        })))
    }

    fn delete(&mut self, with: Vec<CommonTable>) -> Result<Statement, Report> {
        self.expect_word("from")?;
        self.take_word("only");
        let table = self.object_name()?;
        let (alias, _) = self.alias()?;
        let using = if self.take_word("using") {
            self.list(Self::source_item)?
        } else {
            Vec::new()
        };
        let filter = self.filter()?;
        let returning = self.returning()?;
        Ok(Statement::Delete(Box::new(Delete {
            with,
            table,
            alias,
            using,
            filter,
            returning,
        })))
    }

    fn filter(&mut self) -> Result<Option<crate::postgres::engine::ast::Expression>, Report> {
        if !self.take_word("where") {
            return Ok(None);
        }
        if self.is_word("current") && self.is_word_at(1, "of") {
            return Err(super::judge::unsupported("WHERE CURRENT OF"));
        }
        self.expression().map(Some)
    }

    fn returning(&mut self) -> Result<Vec<Target>, Report> {
        if self.take_word("returning") {
            self.targets()
        } else {
            Ok(Vec::new())
        }
    }
}
