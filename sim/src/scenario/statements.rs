//! The statements of clients: the tables they use, and the texts with their marks.
//!
//! Values, for those who play clients.

use super::marks::{CHANNELS, ROWS, client_of};

/// Makes the tables, on the primary, before anything else.
pub(super) const SCHEMA: [&str; 3] = [
    "CREATE TABLE items (id int4 PRIMARY KEY, value int8 NOT NULL)",
    "CREATE TABLE ledger (op int8 NOT NULL, client int4 NOT NULL)",
    "INSERT INTO items (id, value) VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0)",
];

pub(super) fn channel(number: u8) -> &'static str {
    CHANNELS[usize::from(number) % CHANNELS.len()]
}

pub(super) fn row(number: u8) -> i32 {
    i32::from(number % ROWS)
}

/// Reads a row, and gives the mark back as a third column.
pub(super) fn read(mark: u64) -> String {
    format!("/* op={mark} */ SELECT id, value, {mark}::int8 FROM items WHERE id = $1")
}

/// Reads a row with a text that every read shares.
pub(super) const READ: &str = "SELECT id, value, 0::int8 FROM items WHERE id = $1";

pub(super) fn update(mark: u64) -> String {
    format!("/* op={mark} */ UPDATE items SET value = value + 1 WHERE id = $1")
}

pub(super) fn insert(mark: u64) -> String {
    format!(
        "/* op={mark} */ INSERT INTO ledger (op, client) VALUES ({mark}, {})",
        client_of(mark)
    )
}

pub(super) fn slow(mark: u64, seconds: f64) -> String {
    format!("/* op={mark} */ SELECT {mark}::int8 FROM pg_sleep({seconds})")
}

/// Fails: there is such a row.
pub(super) const FAILS: &str = "INSERT INTO items (id, value) VALUES (0, 0)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::mark;

    #[test]
    fn a_statement_carries_its_mark() {
        assert_eq!(crate::op_of(&update(mark(1, 2, 3))), Some(mark(1, 2, 3)));
        assert!(insert(mark(2, 3, 5)).ends_with(", 2)"));
    }
}
