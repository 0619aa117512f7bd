//! Names to objects: search paths, qualified names, the OID aliases `regclass` and its kin.
//!
//! Asked by analysis, definitions and casts. A plain machine.

use super::Engine;
use super::ast::ObjectName;
use super::catalog::ObjectBody;
use super::lexer::{Kind, tokens};
use super::types::{Scalar, Type};
use super::views;
use crate::wire::Report;

/// OIDs that PostgreSQL gives to its own objects.
pub(super) const PG_CATALOG: u32 = 11;
pub(super) const PUBLIC: u32 = 2_200;
const FIRST_DATABASE: u32 = 5;
const FIRST_ROLE: u32 = 10;

impl Engine {
    /// The schemas that bare names are looked for in, those that exist, without the implied ones.
    pub(super) fn search_path(&self, pid: i32) -> Vec<String> {
        let own = self.xid(pid).unwrap_or(u64::MAX);
        let Some(session) = self.sessions.get(&pid) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for part in session.values.hot().search_path.split(',') {
            let part = part.trim();
            let name = match part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(quoted) => quoted.replace("\"\"", "\""),
                None => part.to_ascii_lowercase(),
            };
            let name = if name == "$user" {
                self.current_user(pid).to_owned()
            } else {
                name
            };
            if self
                .catalog
                .has_schema(&session.database, &name, &self.transactions, own)
            {
                found.push(name);
            }
        }
        found
    }

    /// The relation of a name, as this session sees it.
    pub(super) fn find_relation(&self, pid: i32, schema: Option<&str>, name: &str) -> Option<u32> {
        let session = self.sessions.get(&pid)?;
        let own = self.xid(pid).unwrap_or(u64::MAX);
        let find = |schema: &str| {
            self.catalog
                .find(&session.database, schema, name, &self.transactions, own)
        };
        match schema {
            Some("pg_temp") => find(&session.temporary_schema()),
            Some(schema) => find(schema),
            None => {
                let temporary = if session.temporary.is_empty() {
                    None
                } else {
                    find(&session.temporary_schema())
                };
                temporary.or_else(|| self.search_path(pid).iter().find_map(|schema| find(schema)))
            }
        }
    }

    /// The schema in which a new object of that name goes.
    pub(super) fn creation_schema(&self, pid: i32, name: &ObjectName, temporary: bool) -> Result<String, Report> {
        let session = self.session(pid);
        if temporary || name.schema.as_deref() == Some("pg_temp") {
            return match name.schema.as_deref() {
                None | Some("pg_temp") => Ok(session.temporary_schema()),
                Some(_) => Err(Report::error(
                    "42P16",
                    "cannot create temporary relation in non-temporary schema",
                )),
            };
        }
        let own = self.xid(pid).unwrap_or(u64::MAX);
        match &name.schema {
            Some(schema)
                if self
                    .catalog
                    .has_schema(&session.database, schema, &self.transactions, own) =>
            {
                Ok(schema.clone())
            }
            Some(schema) => Err(Report::error("3F000", format!("schema \"{schema}\" does not exist"))),
            None => {
                let path = self.search_path(pid);
                let none = || Report::error("3F000", "no schema has been selected to create in");
                path.into_iter().find(|schema| schema != "pg_catalog").ok_or_else(none)
            }
        }
    }

    /// The OID that a text stands for as `regclass`.
    pub(super) fn regclass(&self, pid: i32, text: &str) -> Result<u32, Report> {
        if let Ok(oid) = text.trim().parse() {
            return Ok(oid);
        }
        let (schema, name) = split_name(text)?;
        if let Some(view) = views::named(schema.as_deref(), &name) {
            return Ok(view.oid);
        }
        self.find_relation(pid, schema.as_deref(), &name)
            .ok_or_else(|| Report::error("42P01", format!("relation \"{text}\" does not exist")))
    }

    pub(super) fn regtype(&self, text: &str) -> Result<u32, Report> {
        if let Ok(oid) = text.trim().parse() {
            return Ok(oid);
        }
        let missing = || Report::error("42704", format!("type \"{text}\" does not exist"));
        let bare = text.trim().trim_start_matches("pg_catalog.");
        let (bare, array) = match bare.strip_suffix("[]") {
            Some(element) => (element, true),
            None => (bare, false),
        };
        let scalar = Scalar::named(&bare.to_ascii_lowercase()).ok_or_else(missing)?;
        Ok(Type { scalar, array }.oid())
    }

    pub(super) fn regnamespace(&self, pid: i32, text: &str) -> Result<u32, Report> {
        match text.trim() {
            "pg_catalog" => Ok(PG_CATALOG),
            "public" => Ok(PUBLIC),
            other => {
                let database = &self.session(pid).database;
                let found = self
                    .catalog
                    .schemas()
                    .position(|(of, name)| of == database && name == other);
                let missing = || Report::error("3F000", format!("schema \"{text}\" does not exist"));
                let at = found.ok_or_else(missing)?;
                Ok(PUBLIC + 1 + u32::try_from(at).unwrap_or(0))
            }
        }
    }

    /// The OID of a schema by its name.
    pub(super) fn schema_oid(&self, database: &str, name: &str) -> u32 {
        match name {
            "pg_catalog" => PG_CATALOG,
            "public" => PUBLIC,
            other => {
                let found = self
                    .catalog
                    .schemas()
                    .position(|(of, name)| of == database && name == other);
                PUBLIC + 1 + u32::try_from(found.unwrap_or(1_000)).unwrap_or(0)
            }
        }
    }

    /// The bare name of a table, sequence, index or system view.
    pub(super) fn relation_name(&self, oid: u32) -> Option<String> {
        match self.catalog.object(oid).map(|object| &object.kind) {
            Some(ObjectBody::Table(table, _)) => Some(table.name.clone()),
            Some(ObjectBody::Sequence(sequence)) => Some(sequence.name.clone()),
            Some(ObjectBody::Index(table)) => {
                let (table, _) = self.catalog.table(*table)?;
                table.index(oid).map(|index| index.name.clone())
            }
            None => views::by_oid(oid).map(|view| view.name.to_owned()),
        }
    }

    pub(super) fn database_oid(&self, pid: i32) -> u32 {
        let database = &self.session(pid).database;
        self.database_number(database)
    }

    pub(super) fn database_number(&self, database: &str) -> u32 {
        let at = self.node.databases.iter().position(|known| known == database);
        FIRST_DATABASE + u32::try_from(at.unwrap_or(0)).unwrap_or(0)
    }

    /// All roles that the node knows of, superusers first.
    pub(super) fn roles(&self) -> Vec<String> {
        let mut roles: Vec<String> = self.node.superusers.clone();
        let logins = self.sessions.values().map(|session| session.login.clone());
        for role in self.node.roles.iter().cloned().chain(logins) {
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        roles
    }

    pub(super) fn role_oid(&self, name: &str) -> u32 {
        let at = self.roles().iter().position(|role| role == name);
        at.map_or(0, |at| FIRST_ROLE + u32::try_from(at).unwrap_or(0))
    }

    pub(super) fn role_name(&self, oid: u32) -> String {
        let at = oid.checked_sub(FIRST_ROLE).and_then(|at| usize::try_from(at).ok());
        let found = at.and_then(|at| self.roles().get(at).cloned());
        found.unwrap_or_else(|| format!("unknown (OID={oid})"))
    }
}

/// `schema.name` or `name`, with quotes where needed.
fn split_name(text: &str) -> Result<(Option<String>, String), Report> {
    let wrong = || Report::error("42602", "invalid name syntax");
    let parts: Vec<Kind> = tokens(text)?.into_iter().map(|token| token.kind).collect();
    let name = |kind: &Kind| match kind {
        Kind::Word(name) | Kind::Quoted(name) => Ok(name.clone()),
        _ => Err(wrong()),
    };
    match parts.as_slice() {
        [only, Kind::End] => Ok((None, name(only)?)),
        [schema, Kind::Operator(dot), last, Kind::End] if dot == "." => Ok((Some(name(schema)?), name(last)?)),
        _ => Err(wrong()),
    }
}
