//! What the library tells about itself through `tracing`. Values out; no clock, no other I/O.
//!
//! Beside every path. Statement texts are shown at trace level only, parameters and passwords never.

/// An interaction was ordered.
pub(crate) fn interaction(sql: &str) {
    tracing::trace!(db.system.name = "postgresql", db.query.text = sql, "interaction");
}
