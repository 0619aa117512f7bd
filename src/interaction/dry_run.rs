//! Dry runs: a statement's text with its values rendered by the server, without running it.
//!
//! Beside single statements, in the same loop: the statement is parsed for the types of its placeholders, a query of ours
//! renders the values, and their literals take the placeholders' places. Nothing here writes a value by itself.

use std::fmt;
use std::fmt::Write as _;
use std::pin::pin;

use tokio_postgres::types::Type;

use super::attempt::{self, Order, Tries};
use super::statement::{Keep, Ready, on};
use crate::error::{Error, ErrorKind, Outcome, Phase};
use crate::pool::ConnectionPool;
use crate::route::Access;
use crate::sql;

/// A statement's text with its values in it; made by [`Run::dry_run`](crate::Run::dry_run).
///
/// Each value stands as a literal with its type, in parentheses: `('O''Hara'::pg_catalog.text)`, `(NULL::pg_catalog.int4)`.
/// Executed on a session with the same search path, the text gives the same rows as the statement with its values. What
/// differs: a column that is nothing but a value gets another name, and a value of `money` depends on `lc_monetary`.
///
/// The text holds the values: treat it like them. `Debug` does not show it; `Display` does.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DryRun {
    text: String,
}

impl DryRun {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text, to keep.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }
}

/// Parses the order's statement and renders its values, on the pool where it would run.
pub(super) async fn run(mut order: Order<'_, '_>) -> Result<DryRun, Error> {
    let pool = order.db.choose(order.asked.access, order.asked.pool.as_deref())?;
    order.asked.pool = Some(pool.name().to_owned().into());
    // Nothing is changed, whatever the statement would do.
    order.asked.access = Access::Read;
    let mut tries = Tries::default();
    loop {
        let pool = order.prepare(&mut tries)?;
        match once(&order, &pool, &mut tries).await {
            Ok(text) => return Ok(DryRun { text }),
            Err(error) => tries.after(&order, error)?,
        }
    }
}

/// One try on one session.
async fn once(order: &Order<'_, '_>, pool: &ConnectionPool, tries: &mut Tries) -> Result<String, Error> {
    let lease = &order.check_out(pool, tries).await?;
    let parsing = pin!(order.ready(lease));
    let parsed = order.within(lease, tries, Phase::Preparing, parsing).await?;
    let types = parsed.statement().params();
    if types.is_empty() {
        return Ok(order.asked.sql.clone().into_owned());
    }
    let query = rendering(types);
    let parsing = pin!(Ready::new(lease, &query, &order.asked.parameters, Access::Read));
    let ready = order.within(lease, tries, Phase::Preparing, parsing).await?;
    let running = pin!(ready.run(lease, Keep::First));
    let answer = order.within(lease, tries, Phase::Executing, running).await;
    let answer = answer.inspect_err(|error| attempt::forget_stale(lease, &query, error))?;
    let unread = || {
        on(
            lease,
            Error::new(ErrorKind::Decode, Outcome::RolledBack, Phase::Reading),
        )
    };
    let row = answer.first.ok_or_else(unread)?;
    let values: Vec<String> = row.try_get(0).map_err(|source| unread().with_source(source))?;
    Ok(written(&order.asked.sql, &values, types))
}

/// The query that renders values of these types.
///
/// The settings hold for its own transaction only, and are made before anything is rendered: they are in the filter. They make
/// the texts ones that are read alike whatever the reader's settings, as `pg_dump` does it.
fn rendering(types: &[Type]) -> String {
    let mut query = String::from("SELECT ARRAY[");
    for (at, expected) in types.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(
            query,
            "{comma}pg_catalog.format('%L', ${}::{})",
            at + 1,
            type_name(expected)
        );
    }
    query.push_str(
        "]::pg_catalog.text[] WHERE pg_catalog.set_config('datestyle', 'ISO', true) IS NOT NULL \
         AND pg_catalog.set_config('intervalstyle', 'iso_8601', true) IS NOT NULL \
         AND pg_catalog.set_config('extra_float_digits', '1', true) IS NOT NULL \
         AND pg_catalog.set_config('search_path', 'pg_catalog', true) IS NOT NULL",
    );
    query
}

/// The text with a literal in place of each placeholder.
fn written(sql: &str, values: &[String], types: &[Type]) -> String {
    let mut text = String::with_capacity(sql.len() + 64);
    let mut copied = 0;
    for (at, token) in sql::positions(sql) {
        let Some((number, length)) = sql::placeholder(token) else {
            continue;
        };
        let index = number.wrapping_sub(1);
        if let (Some(value), Some(expected)) = (values.get(index), types.get(index)) {
            // In parentheses: `$1[1]`, `$1.field` and `-$1` stay what they are. A literal with a backslash has a blank in front.
            let _ = write!(
                text,
                "{}({}::{})",
                &sql[copied..at],
                value.trim_start(),
                type_name(expected)
            );
            copied = at + length;
        }
    }
    text.push_str(&sql[copied..]);
    text
}

/// The type's name as it stands in a query, whatever the search path.
fn type_name(expected: &Type) -> String {
    let schema = match expected.schema() {
        "pg_catalog" => "pg_catalog".into(),
        other => quoted(other),
    };
    let name = expected.name();
    // Behind a dot every word is a name.
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("{schema}.{name}")
    } else {
        format!("{schema}.{}", quoted(name))
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DryRun").finish_non_exhaustive()
    }
}
