//! The rows and channels of a scenario, and the marks by which a statement is found in the server's history.
//!
//! Values. A mark is written into a statement's text as a comment and names client, step and statement.

/// Rows of the table `items`: few, so that clients meet.
pub const ROWS: u8 = 8;

/// The channels of notifications.
pub const CHANNELS: [&str; 3] = ["alpha", "Beta \"b\"", "gamma"];

/// The mark of the runner's own probe at the end, which belongs to no client of the scenario.
pub const PROBE: u64 = 99 * STEPS * STATEMENTS;

/// Statements of one step.
const STATEMENTS: u64 = 100;
/// Steps of one client.
const STEPS: u64 = 1_000;

/// The mark of a client's step's statement.
#[must_use]
pub fn mark(client: usize, step: usize, statement: u64) -> u64 {
    (client as u64 * STEPS + step as u64) * STATEMENTS + statement
}

/// The call that a mark belongs to: the same for all statements of one step, whatever the statement.
#[must_use]
pub fn call_of(mark: u64) -> u64 {
    mark / STATEMENTS
}

/// The client that a mark belongs to.
pub(super) fn client_of(mark: u64) -> i32 {
    i32::try_from(mark / STATEMENTS / STEPS).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_its_call() {
        assert_eq!(call_of(mark(2, 3, 0)), call_of(mark(2, 3, 99)));
        assert_ne!(call_of(mark(2, 3, 0)), call_of(mark(2, 4, 0)));
    }
}
