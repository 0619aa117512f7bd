//! Definitions: CREATE, ALTER, DROP, TRUNCATE.
//!
//! A part of the parser. A plain machine.

use super::Parser;
use super::judge::unsupported;
use crate::postgres::engine::ast::{
    Action, Alteration, ColumnDefinition, Constraint, ConstraintKind, CreateTable, Node, ObjectKind, OnCommit,
    Statement,
};
use crate::postgres::engine::lexer::Kind;
use crate::wire::Report;

impl Parser<'_> {
    pub(super) fn definition(&mut self) -> Result<Statement, Report> {
        if self.take_word("create") {
            self.create()
        } else if self.take_word("drop") {
            self.drop_objects()
        } else if self.take_words(&["alter", "table"]) {
            self.alter_table()
        } else if self.take_word("truncate") {
            self.truncate()
        } else {
            self.advance();
            Err(self.unexpected())
        }
    }

    fn create(&mut self) -> Result<Statement, Report> {
        let unique = self.take_word("unique");
        if self.take_word("index") {
            return self.create_index(unique);
        }
        let mut temporary = false;
        if !unique {
            self.take_word("global");
            self.take_word("local");
            temporary = self.take_word("temp") || self.take_word("temporary");
            self.take_word("unlogged");
            if self.take_word("table") {
                return self.create_table(temporary);
            }
            if self.take_word("sequence") {
                return self.create_sequence(temporary);
            }
        }
        if !temporary && !unique && self.take_word("schema") {
            let if_not_exists = self.take_words(&["if", "not", "exists"]);
            return Ok(Statement::CreateSchema {
                name: self.name()?,
                if_not_exists,
            });
        }
        Err(self.unexpected())
    }

    fn create_table(&mut self, temporary: bool) -> Result<Statement, Report> {
        let if_not_exists = self.take_words(&["if", "not", "exists"]);
        let name = self.object_name()?;
        let mut names = Vec::new();
        if self.is_word("as") || self.names_before_as() {
            if self.is_operator("(") {
                names = self.name_list()?;
            }
            let on_commit = self.on_commit()?;
            self.expect_word("as")?;
            let query = self.query()?;
            let with_data = !self.take_words(&["with", "no", "data"]);
            self.take_words(&["with", "data"]);
            return Ok(Statement::CreateTableAs {
                name,
                temporary,
                if_not_exists,
                columns: names,
                query,
                with_data,
                on_commit,
                select_into: false,
            });
        }
        let mut table = CreateTable {
            name,
            temporary,
            if_not_exists,
            columns: Vec::new(),
            constraints: Vec::new(),
            on_commit: OnCommit::PreserveRows,
        };
        self.expect_operator("(")?;
        if !self.is_operator(")") {
            loop {
                if self.starts_constraint() {
                    let constraint = self.table_constraint()?;
                    table.constraints.push(constraint);
                } else {
                    let column = self.column_definition()?;
                    table.columns.push(column);
                }
                if !self.take_operator(",") {
                    break;
                }
            }
        }
        self.expect_operator(")")?;
        if self.take_word("with") {
            // Storage parameters change nothing that can be seen.
            self.expect_operator("(")?;
            while !self.take_operator(")") {
                if matches!(self.kind(), Kind::End) {
                    return Err(self.unexpected());
                }
                self.advance();
            }
        }
        table.on_commit = self.on_commit()?;
        Ok(Statement::CreateTable(Box::new(table)))
    }

    /// `(a, b) AS` or ON COMMIT … AS, as opposed to column definitions.
    fn names_before_as(&self) -> bool {
        if self.is_word("on") {
            return true;
        }
        if !self.is_operator("(") {
            return false;
        }
        let mut ahead = 2;
        while self.is_operator_at(ahead, ",") {
            ahead += 2;
        }
        self.is_operator_at(ahead, ")")
    }

    fn on_commit(&mut self) -> Result<OnCommit, Report> {
        if !self.take_words(&["on", "commit"]) {
            return Ok(OnCommit::PreserveRows);
        }
        if self.take_word("drop") {
            Ok(OnCommit::Drop)
        } else if self.take_words(&["delete", "rows"]) {
            Ok(OnCommit::DeleteRows)
        } else {
            self.expect_words(&["preserve", "rows"])?;
            Ok(OnCommit::PreserveRows)
        }
    }

    fn starts_constraint(&self) -> bool {
        ["constraint", "primary", "unique", "check", "foreign"]
            .iter()
            .any(|word| self.is_word(word))
            || (self.is_word("exclude") && self.is_word_at(1, "using"))
    }

    fn table_constraint(&mut self) -> Result<Constraint, Report> {
        let name = if self.take_word("constraint") {
            Some(self.name()?)
        } else {
            None
        };
        let kind = if self.take_words(&["primary", "key"]) {
            ConstraintKind::Primary(self.name_list()?)
        } else if self.take_word("unique") {
            ConstraintKind::Unique(self.name_list()?)
        } else if self.is_word("check") {
            self.check()?
        } else if self.take_words(&["foreign", "key"]) {
            let columns = self.name_list()?;
            self.references(columns)?
        } else {
            return Err(self.unexpected());
        };
        self.constraint(name, kind)
    }

    fn constraint(&mut self, name: Option<String>, kind: ConstraintKind) -> Result<Constraint, Report> {
        let mut constraint = Constraint {
            name,
            kind,
            deferrable: false,
            deferred: false,
        };
        loop {
            if self.take_word("deferrable") {
                constraint.deferrable = true;
            } else if self.take_words(&["not", "deferrable"]) {
                constraint.deferrable = false;
            } else if self.take_words(&["initially", "deferred"]) {
                constraint.deferrable = true;
                constraint.deferred = true;
            } else if !self.take_words(&["initially", "immediate"]) {
                return Ok(constraint);
            }
        }
    }

    fn check(&mut self) -> Result<ConstraintKind, Report> {
        self.advance();
        self.expect_operator("(")?;
        let start = self.position();
        let condition = self.expression()?;
        let end = self.position();
        self.expect_operator(")")?;
        let text = self.sql[start..end].trim().to_owned();
        Ok(ConstraintKind::Check(condition, text))
    }

    fn references(&mut self, columns: Vec<String>) -> Result<ConstraintKind, Report> {
        self.expect_word("references")?;
        let table = self.object_name()?;
        let referenced = if self.is_operator("(") {
            self.name_list()?
        } else {
            Vec::new()
        };
        if self.take_word("match") && !self.take_word("simple") {
            return Err(unsupported("MATCH FULL"));
        }
        let (mut on_delete, mut on_update) = (Action::Nothing, Action::Nothing);
        while self.is_word("on") && (self.is_word_at(1, "delete") || self.is_word_at(1, "update")) {
            self.advance();
            let delete = self.take_word("delete");
            if !delete {
                self.advance();
            }
            let action = if self.take_word("cascade") {
                Action::Cascade
            } else if self.take_words(&["set", "null"]) {
                Action::SetNull
            } else if self.take_words(&["set", "default"]) {
                Action::SetDefault
            } else if self.take_word("restrict") {
                Action::Restrict
            } else {
                self.expect_words(&["no", "action"])?;
                Action::Nothing
            };
            if delete {
                on_delete = action;
            } else {
                on_update = action;
            }
        }
        Ok(ConstraintKind::ForeignKey {
            columns,
            table,
            referenced,
            on_delete,
            on_update,
        })
    }

    fn column_definition(&mut self) -> Result<ColumnDefinition, Report> {
        let mut column = ColumnDefinition {
            name: self.name()?,
            of: self.type_name()?,
            default: None,
            identity: None,
            not_null: false,
            constraints: Vec::new(),
        };
        loop {
            let name = if self.take_word("constraint") {
                Some(self.name()?)
            } else {
                None
            };
            let kind = if self.take_words(&["not", "null"]) {
                column.not_null = true;
                continue;
            } else if self.take_word("null") {
                continue;
            } else if self.take_word("default") {
                column.default = Some(self.expression()?);
                continue;
            } else if self.take_word("generated") {
                self.identity(&mut column)?;
                continue;
            } else if self.take_words(&["primary", "key"]) {
                ConstraintKind::Primary(vec![column.name.clone()])
            } else if self.take_word("unique") {
                ConstraintKind::Unique(vec![column.name.clone()])
            } else if self.is_word("check") {
                self.check()?
            } else if self.is_word("references") {
                self.references(vec![column.name.clone()])?
            } else if self.is_word("collate") {
                return Err(unsupported("COLLATE"));
            } else {
                return Ok(column);
            };
            let constraint = self.constraint(name, kind)?;
            column.constraints.push(constraint);
        }
    }

    fn identity(&mut self, column: &mut ColumnDefinition) -> Result<(), Report> {
        let always = self.take_word("always");
        if !always {
            self.expect_words(&["by", "default"])?;
        }
        self.expect_word("as")?;
        if self.is_operator("(") {
            return Err(unsupported("generated columns"));
        }
        self.expect_word("identity")?;
        if self.is_operator("(") {
            return Err(unsupported("options of identity columns"));
        }
        column.identity = Some(always);
        column.not_null = true;
        Ok(())
    }

    fn create_index(&mut self, unique: bool) -> Result<Statement, Report> {
        self.take_word("concurrently");
        let if_not_exists = self.take_words(&["if", "not", "exists"]);
        let name = if self.is_word("on") { None } else { Some(self.name()?) };
        self.expect_word("on")?;
        self.take_word("only");
        let table = self.object_name()?;
        if self.take_word("using") {
            self.name()?;
        }
        self.expect_operator("(")?;
        let columns = self.list(|parser| {
            let key = parser.expression()?;
            if !parser.take_word("asc") {
                parser.take_word("desc");
            }
            match key.node {
                Node::Column(mut parts) if parts.len() == 1 => Ok(parts.remove(0)),
                _ => Err(unsupported("indexes on expressions")),
            }
        })?;
        self.expect_operator(")")?;
        if self.is_word("where") {
            return Err(unsupported("partial indexes"));
        }
        Ok(Statement::CreateIndex {
            name,
            table,
            columns,
            unique,
            if_not_exists,
        })
    }

    fn create_sequence(&mut self, temporary: bool) -> Result<Statement, Report> {
        let if_not_exists = self.take_words(&["if", "not", "exists"]);
        let name = self.object_name()?;
        let (mut start, mut increment) = (None, None);
        loop {
            if self.take_word("start") {
                self.take_word("with");
                start = Some(self.signed_integer()?);
            } else if self.take_word("increment") {
                self.take_word("by");
                increment = Some(self.signed_integer()?);
            } else if self.is_word("cache") && self.kind_at(1) == &Kind::Number("1".to_owned()) {
                self.advance();
                self.advance();
            } else {
                break;
            }
        }
        Ok(Statement::CreateSequence {
            name,
            temporary,
            if_not_exists,
            start,
            increment,
        })
    }

    fn drop_objects(&mut self) -> Result<Statement, Report> {
        let kind = if self.take_word("table") {
            ObjectKind::Table
        } else if self.take_word("index") {
            self.take_word("concurrently");
            ObjectKind::Index
        } else if self.take_word("sequence") {
            ObjectKind::Sequence
        } else if self.take_word("schema") {
            ObjectKind::Schema
        } else {
            return Err(self.unexpected());
        };
        let if_exists = self.take_words(&["if", "exists"]);
        let names = self.list(Self::object_name)?;
        let cascade = self.take_word("cascade");
        if !cascade {
            self.take_word("restrict");
        }
        Ok(Statement::Drop {
            kind,
            names,
            if_exists,
            cascade,
        })
    }

    fn truncate(&mut self) -> Result<Statement, Report> {
        self.take_word("table");
        let tables = self.list(|parser| {
            parser.take_word("only");
            parser.object_name()
        })?;
        let restart = self.take_words(&["restart", "identity"]);
        if !restart {
            self.take_words(&["continue", "identity"]);
        }
        let cascade = self.take_word("cascade");
        if !cascade {
            self.take_word("restrict");
        }
        Ok(Statement::Truncate {
            tables,
            restart,
            cascade,
        })
    }

    fn alter_table(&mut self) -> Result<Statement, Report> {
        let if_exists = self.take_words(&["if", "exists"]);
        self.take_word("only");
        let name = self.object_name()?;
        let actions = self.list(Self::alteration)?;
        Ok(Statement::AlterTable {
            name,
            if_exists,
            actions,
        })
    }

    fn alteration(&mut self) -> Result<Alteration, Report> {
        if self.take_word("add") {
            if self.starts_constraint() {
                return self.table_constraint().map(Alteration::AddConstraint);
            }
            self.take_word("column");
            let if_not_exists = self.take_words(&["if", "not", "exists"]);
            return Ok(Alteration::AddColumn(self.column_definition()?, if_not_exists));
        }
        if self.take_word("drop") {
            let constraint = self.take_word("constraint");
            if !constraint {
                self.take_word("column");
            }
            let if_exists = self.take_words(&["if", "exists"]);
            let name = self.name()?;
            if !self.take_word("cascade") {
                self.take_word("restrict");
            }
            return Ok(match constraint {
                true => Alteration::DropConstraint(name, if_exists),
                false => Alteration::DropColumn(name, if_exists),
            });
        }
        if self.take_word("rename") {
            if self.take_word("to") {
                return self.name().map(Alteration::RenameTable);
            }
            self.take_word("column");
            let from = self.name()?;
            self.expect_word("to")?;
            return Ok(Alteration::RenameColumn(from, self.name()?));
        }
        if self.take_word("alter") {
            self.take_word("column");
            let name = self.name()?;
            if self.take_words(&["set", "default"]) {
                return Ok(Alteration::SetDefault(name, self.expression()?));
            } else if self.take_words(&["drop", "default"]) {
                return Ok(Alteration::DropDefault(name));
            } else if self.take_words(&["set", "not", "null"]) {
                return Ok(Alteration::SetNotNull(name));
            } else if self.take_words(&["drop", "not", "null"]) {
                return Ok(Alteration::DropNotNull(name));
            }
        }
        Err(self.unexpected())
    }
}
