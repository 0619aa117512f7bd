//! What the library tells about itself: through `tracing`, to readers of events, and through the `metrics` facade. Values
//! out; no clock, no other I/O.
//!
//! Beside every path. Names are OpenTelemetry's for databases. Statement texts are shown at trace level only, parameters
//! and passwords never.

mod broadcast;
mod metrics;

pub(crate) use self::broadcast::{Broadcast, Heard, Reader};
pub(crate) use self::metrics::{Levels, PoolMetrics};

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tracing::field::{Empty, display};
use tracing::{Instrument as _, Level, Span};

/// The span of an interaction: of this statement, or of a function.
pub(crate) fn interaction(sql: Option<&str>) -> Span {
    // Each call comes here: the verb is looked for only where somebody looks at it.
    if !tracing::enabled!(Level::DEBUG) {
        return Span::none();
    }
    if let Some(sql) = sql {
        tracing::trace!(db.system.name = "postgresql", db.query.text = sql, "interaction");
    }
    tracing::debug_span!(
        "interaction",
        otel.kind = "client",
        db.system.name = "postgresql",
        db.operation.name = operation(sql),
        db.namespace = Empty,
        db.client.connection.pool.name = Empty,
        server.address = Empty,
    )
}

/// Runs `work` in the span, if anybody looks at it.
pub(crate) fn within<'a, T>(
    span: Span,
    work: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
) -> Pin<Box<dyn Future<Output = T> + Send + 'a>>
where
    T: 'a,
{
    if span.is_disabled() {
        return work;
    }
    Box::pin(work.instrument(span))
}

/// The interaction under way has got a session of this pool, here.
pub(crate) fn checked_out(pool: &str, namespace: Option<&str>, address: &dyn fmt::Display) {
    if !tracing::enabled!(Level::DEBUG) {
        return;
    }
    let span = Span::current();
    span.record("db.client.connection.pool.name", pool);
    span.record("db.namespace", namespace);
    span.record("server.address", display(address));
}

/// The statement's verb, if it begins with a word; never more of its text.
fn operation(sql: Option<&str>) -> Option<&str> {
    let sql = sql?.trim_start();
    let end = sql.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(sql.len());
    (1..=16).contains(&end).then(|| &sql[..end])
}

/// A session was made.
pub(crate) fn connected(pool: &str, namespace: Option<&str>, address: &dyn fmt::Display, pid: i32, took: Duration) {
    tracing::debug!(
        db.system.name = "postgresql",
        db.namespace = namespace,
        db.client.connection.pool.name = pool,
        server.address = %address,
        pid,
        ?took,
        "connected"
    );
}
