//! refinery's migrations on a lease.
//!
//! refinery's own drivers want a `&mut tokio_postgres::Client`, which this library gives to nobody: who has one can swap it.
//! Its traits ask for little, and are written here once, for a lease. One lease for all of it also holds the lock that
//! keeps two programs from migrating at once.

use async_trait::async_trait;
use gdbpool::{ConnectionPool, Error, Lease};
use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use refinery_core::{Migration, Report, Runner};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::BoxError;

/// The files in `sql/`, as part of the program.
pub(crate) mod embedded {
    refinery::embed_migrations!("examples/ecosystem/sql");
}

/// Any number, the same in all programs that migrate this database.
const LOCK: i64 = 0x6764_6270;

/// A lease that refinery can work on.
pub(crate) struct OnLease(Lease);

/// Brings the database to the newest version; does nothing to one that is there.
pub(crate) async fn migrate(pool: &ConnectionPool, runner: &Runner) -> Result<Report, BoxError> {
    let lease = pool.checkout().await?;
    // Given back with the lease, whatever happens.
    lease.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    Ok(runner.run_async(&mut OnLease(lease)).await?)
}

#[async_trait]
impl AsyncTransaction for OnLease {
    type Error = Error;

    /// One transaction. A migration must not end it by itself.
    async fn execute<'a, T: Iterator<Item = &'a str> + Send>(&mut self, texts: T) -> Result<usize, Error> {
        let Self(lease) = self;
        lease.batch("BEGIN").await?;
        let mut count = 0;
        for text in texts {
            if let Err(error) = lease.batch(text).await {
                // Its own words say more than those of a session that is gone.
                let _ = lease.batch("ROLLBACK").await;
                return Err(error);
            }
            count += 1;
        }
        lease.batch("COMMIT").await?;
        Ok(count)
    }
}

#[async_trait]
impl AsyncQuery<Vec<Migration>> for OnLease {
    /// The migrations that were applied: number, name, time and checksum.
    async fn query(&mut self, sql: &str) -> Result<Vec<Migration>, Error> {
        let rows = self.0.query(sql, &[]).await?;
        let read = rows.iter().map(|row| {
            let applied_on = OffsetDateTime::parse(row.try_get(2)?, &Rfc3339)?;
            let checksum = row.try_get::<_, &str>(3)?.parse()?;
            Ok(Migration::applied(
                row.try_get(0)?,
                row.try_get(1)?,
                applied_on,
                checksum,
            ))
        });
        read.collect::<Result<_, BoxError>>().map_err(Error::user)
    }
}

impl AsyncMigrate for OnLease {}
