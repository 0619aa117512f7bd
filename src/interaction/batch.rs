//! Batches: several statements without values in one text, sent as one message.
//!
//! Beside single statements, in the same loop. It parses nothing but what a read-only batch must not contain.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, SimpleColumn, SimpleQueryMessage, SimpleQueryRow};

use super::attempt::{Order, Tries};
use super::failure::{self, Circumstance};
use super::statement::{check_scope, on};
use crate::error::{BadInput, Error, ErrorKind, Outcome, Phase};
use crate::pool::{ConnectionPool, Lease};
use crate::route::Access;
use crate::session::Mode;
use crate::sql::{self, Commits};

/// What one statement of a batch gave; see [`Run::batch`](crate::Run::batch).
#[derive(Default)]
pub struct BatchResult {
    columns: Option<Arc<[SimpleColumn]>>,
    rows: Vec<SimpleQueryRow>,
    affected: u64,
}

impl BatchResult {
    /// The rows, their values as the server writes them as text. Empty for a statement that gives none.
    #[must_use]
    pub fn rows(&self) -> &[SimpleQueryRow] {
        &self.rows
    }

    /// The names of the columns; `None` for a statement that gives no rows.
    #[must_use]
    pub fn columns(&self) -> Option<impl Iterator<Item = &str>> {
        Some(self.columns.as_ref()?.iter().map(SimpleColumn::name))
    }

    /// How many rows the statement changed or gave.
    #[must_use]
    pub fn rows_affected(&self) -> u64 {
        self.affected
    }
}

/// Runs the order's text as a batch.
pub(super) async fn run(order: &Order<'_, '_>) -> Result<Vec<BatchResult>, Error> {
    order.asked.parameters.check_none()?;
    if order.asked.access == Access::Read
        && let Some(words) = leaves_read_only(&order.asked.sql)
    {
        return Err(Error::bad_input(BadInput::TransactionControl { words }));
    }
    let mut tries = Tries::default();
    loop {
        let pool = order.prepare(&mut tries)?;
        match once(order, &pool, &mut tries).await {
            Ok(results) => return Ok(results),
            Err(error) => tries.after(order, error)?,
        }
    }
}

/// What in the text could take the batch out of its READ ONLY transaction.
fn leaves_read_only(sql: &str) -> Option<String> {
    // Up to version 15, the server lets a RESET of it pass in the midst of a transaction, and so does set_config with NULL.
    const SETTING: &str = "transaction_read_only";
    let names_it = sql.to_ascii_lowercase().contains(SETTING).then(|| SETTING.to_owned());
    sql::transaction_control(sql).or(names_it)
}

/// One try on one session.
async fn once(order: &Order<'_, '_>, pool: &ConnectionPool, tries: &mut Tries) -> Result<Vec<BatchResult>, Error> {
    let lease = &order.check_out(pool, tries).await?;
    let mut running = pin!(send(lease, &order.asked.sql, order.asked.access));
    match order.unless_stopped(lease, tries.deadline, running.as_mut()).await {
        Ok(done) => done,
        Err(stop) => order.give_up(lease, pool, tries, running, stop).await,
    }
}

async fn send(lease: &Lease, sql: &str, access: Access) -> Result<Vec<BatchResult>, Error> {
    let session = lease.session();
    let commits = sql::commits(sql);
    check_scope(lease, sql)?;
    session.mark_dirty();
    let whole = async {
        let client = session.client();
        if access == Access::Write {
            return results(client, sql).await;
        }
        // A transaction can be made read-write until it has taken a snapshot: this one has.
        let (snapshot, results) =
            futures_util::future::join(client.batch_execute("SELECT 1"), results(client, sql)).await;
        snapshot.and(results)
    };
    let mode = match access {
        Access::Read => Mode::ReadOnlyBlock,
        Access::Write => Mode::Template,
    };
    let answer = session.request_whole(lease.ticket(), mode, pin!(whole)).await;
    let results = answer.map_err(|failure| {
        let at = Circumstance {
            phase: Phase::Executing,
            access,
            in_transaction: false,
            commits,
            statement: None,
        };
        on(lease, failure::error(failure, at))
    })?;
    match access {
        Access::Write if session.is_in_transaction() => {
            let outcome = match commits {
                Commits::Never => Outcome::RolledBack,
                Commits::AtItsEnd | Commits::OnItsWay => Outcome::Unknown,
            };
            Err(on(lease, Error::new(ErrorKind::LeftOpen, outcome, Phase::Executing)))
        }
        Access::Read if !session.is_read_only() => {
            // The setting did not take, or the text took it back.
            session.mark_broken();
            let error = Error::new(ErrorKind::Protocol, Outcome::Unknown, Phase::Executing);
            Err(on(lease, error.with_source("the session did not stay read only")))
        }
        _ => Ok(results),
    }
}

async fn results(client: &Client, sql: &str) -> Result<Vec<BatchResult>, tokio_postgres::Error> {
    let mut messages = pin!(client.simple_query_raw(sql).await?);
    let mut results = Vec::new();
    let mut next = BatchResult::default();
    while let Some(message) = messages.try_next().await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => next.columns = Some(columns),
            SimpleQueryMessage::Row(row) => next.rows.push(row),
            SimpleQueryMessage::CommandComplete(affected) => {
                next.affected = affected;
                results.push(std::mem::take(&mut next));
            }
            _ => {}
        }
    }
    Ok(results)
}

impl fmt::Debug for BatchResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // How many, never what.
        f.debug_struct("BatchResult")
            .field("columns", &self.columns)
            .field("rows", &self.rows.len())
            .field("affected", &self.affected)
            .finish()
    }
}
