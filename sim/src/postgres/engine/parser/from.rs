//! What stands after FROM: tables, functions, subqueries, joins.
//!
//! A part of the parser. A plain machine.

use super::Parser;
use crate::postgres::engine::ast::{From, JoinCondition, JoinKind};
use crate::postgres::engine::lexer::Kind;
use crate::wire::Report;

impl Parser<'_> {
    pub(super) fn source_item(&mut self) -> Result<From, Report> {
        let mut left = self.source_primary()?;
        while let Some((kind, natural)) = self.join_words()? {
            let right = self.nested(Self::source_primary)?;
            let condition = if natural {
                JoinCondition::Natural
            } else if kind == JoinKind::Cross {
                JoinCondition::None
            } else if self.take_word("on") {
                JoinCondition::On(self.expression()?)
            } else if self.take_word("using") {
                JoinCondition::Using(self.name_list()?)
            } else {
                return Err(self.unexpected());
            };
            left = From::Join {
                left: Box::new(left),
                right: Box::new(right),
                kind,
                condition,
            };
        }
        Ok(left)
    }

    fn join_words(&mut self) -> Result<Option<(JoinKind, bool)>, Report> {
        if self.take_words(&["cross", "join"]) {
            return Ok(Some((JoinKind::Cross, false)));
        }
        let natural = self.take_word("natural");
        let mut kind = JoinKind::Inner;
        for (word, outer) in [
            ("left", JoinKind::Left),
            ("right", JoinKind::Right),
            ("full", JoinKind::Full),
        ] {
            if self.is_word(word) && (self.is_word_at(1, "join") || self.is_word_at(1, "outer")) {
                self.advance();
                self.take_word("outer");
                kind = outer;
            }
        }
        if kind == JoinKind::Inner && !self.take_word("inner") && !self.is_word("join") && !natural {
            return Ok(None);
        }
        self.expect_word("join")?;
        Ok(Some((kind, natural)))
    }

    fn source_primary(&mut self) -> Result<From, Report> {
        self.take_word("lateral");
        if self.is_operator("(") {
            return self.parenthesised();
        }
        let at = self.position();
        self.take_word("only");
        if self.is_word("rows") && self.is_word_at(1, "from") {
            return Err(super::judge::unsupported("ROWS FROM"));
        }
        let function = match self.kind_at(1) {
            Kind::Operator(mark) if mark == "(" => true,
            Kind::Operator(mark) if mark == "." => self.is_operator_at(3, "("),
            _ => false,
        };
        if function {
            let name = self.object_name()?;
            let call = self.call(name.schema, name.name)?;
            let ordinality = self.take_words(&["with", "ordinality"]);
            if self.is_word("as") && self.is_operator_at(1, "(") {
                return Err(super::judge::unsupported("column definition lists"));
            }
            let (alias, columns) = self.alias()?;
            return Ok(From::Function {
                call,
                alias,
                columns,
                ordinality,
                at,
            });
        }
        let name = self.object_name()?;
        self.take_operator("*");
        let (alias, columns) = self.alias()?;
        if self.is_word("tablesample") {
            return Err(super::judge::unsupported("TABLESAMPLE"));
        }
        Ok(From::Table { name, alias, columns })
    }

    /// A subquery, or a join in parentheses.
    fn parenthesised(&mut self) -> Result<From, Report> {
        if self.starts_query() {
            self.advance();
            let query = Box::new(self.query()?);
            self.expect_operator(")")?;
            let at = self.position();
            let (alias, columns) = self.alias()?;
            if alias.is_none() {
                return Err(Report::error("42601", "subquery in FROM must have an alias")
                    .hint("For example, FROM (SELECT ...) [AS] foo.")
                    .position(crate::postgres::engine::lexer::characters(self.sql, at)));
            }
            return Ok(From::Query { query, alias, columns });
        }
        self.advance();
        let item = self.nested(Self::source_item)?;
        self.expect_operator(")")?;
        Ok(item)
    }

    /// `AS name (columns)`.
    pub(super) fn alias(&mut self) -> Result<(Option<String>, Vec<String>), Report> {
        let alias = if self.take_word("as") {
            Some(self.name()?)
        } else {
            match self.kind() {
                Kind::Word(word) if !super::is_reserved(word) && word != "set" => Some(self.name()?),
                Kind::Quoted(_) => Some(self.name()?),
                _ => None,
            }
        };
        let columns = if alias.is_some() && self.is_operator("(") {
            self.name_list()?
        } else {
            Vec::new()
        };
        Ok((alias, columns))
    }
}
