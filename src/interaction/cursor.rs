//! Server-side cursors: the rows of a query in batches, inside a transaction.
//!
//! Beside the transaction's other calls. The server keeps the place; nothing is read ahead.

use std::fmt;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::transaction::Transaction;
use crate::error::{BadInput, Error};

/// A server-side cursor; made by [`Transaction::cursor`] and
/// [`PinnedTransaction::cursor`](crate::PinnedTransaction::cursor).
///
/// It ends with its transaction. Dropped before, it costs the server a little until then.
pub struct Cursor {
    transaction: Transaction,
    name: String,
    fetch: String,
    batch: u32,
    ended: bool,
}

impl Transaction {
    /// A server-side cursor (`DECLARE … NO SCROLL CURSOR`) over the rows of `sql`, which gives them in batches of `batch`
    /// rows.
    ///
    /// # Errors
    /// As [`query`](Self::query); [`BadInput::OutOfBounds`] for batches of no rows.
    ///
    /// # Cancel safety
    /// As [`query`](Self::query).
    pub async fn cursor(&self, sql: &str, values: &[&(dyn ToSql + Sync)], batch: u32) -> Result<Cursor, Error> {
        if batch == 0 {
            return Err(Error::bad_input(BadInput::OutOfBounds {
                setting: "batch",
                given: batch.to_string(),
                bounds: "at least 1",
            }));
        }
        let name = self.new_name();
        self.run_once(&format!("DECLARE {name} NO SCROLL CURSOR FOR {sql}"), values)
            .await?;
        Ok(Cursor {
            transaction: self.clone(),
            fetch: format!("FETCH FORWARD {batch} FROM {name}"),
            name,
            batch,
            ended: false,
        })
    }
}

impl Cursor {
    /// The next batch; `None` after the last row.
    ///
    /// # Errors
    /// As [`Transaction::query`].
    ///
    /// # Cancel safety
    /// No: a batch that was asked for and not waited for is lost.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let rows = self.transaction.run_rows_once(&self.fetch).await?;
        self.ended = rows.len() < self.batch as usize;
        Ok((!rows.is_empty()).then_some(rows))
    }

    /// Closes the cursor before its transaction ends.
    ///
    /// # Errors
    /// As [`Transaction::query`].
    ///
    /// # Cancel safety
    /// Yes: at worst the cursor ends with its transaction.
    pub async fn close(self) -> Result<(), Error> {
        self.transaction.batch(&format!("CLOSE {}", self.name)).await
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("name", &self.name)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
