//! How a transaction is begun: isolation, access mode, deferrable, and the server's own backstops for a pinned one.
//!
//! A plain machine: options in, texts out.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

/// How far a transaction is kept apart from others that run at the same time.
///
/// See PostgreSQL's manual, chapter 13.2. The default is the session's, which is read committed unless somebody set
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isolation {
    /// Every statement sees what was committed before it began.
    ReadCommitted,
    /// Every statement sees what was committed before the transaction's first one.
    RepeatableRead,
    /// As if transactions ran one after the other. The server ends those that cannot be put in an order, and the library
    /// runs them again.
    Serializable,
}

/// What follows BEGIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::interaction) struct Options {
    pub(in crate::interaction) isolation: Option<Isolation>,
    pub(in crate::interaction) read_only: bool,
    pub(in crate::interaction) deferrable: bool,
}

/// The server ends what the library should have ended, this much later.
const BACKSTOP: Duration = Duration::from_secs(5);
/// `transaction_timeout` came with PostgreSQL 17.
const TRANSACTION_TIMEOUT_SINCE: u32 = 170_000;

impl Options {
    /// The text that begins the transaction.
    pub(in crate::interaction) fn begin(&self) -> String {
        let mut sql = String::from("BEGIN");
        if let Some(isolation) = self.isolation {
            let _ = write!(sql, " ISOLATION LEVEL {isolation}");
        }
        if self.read_only {
            sql.push_str(" READ ONLY");
        }
        if self.deferrable {
            sql.push_str(" DEFERRABLE");
        }
        sql
    }

    /// Whether the server has a reason to refuse it: a standby knows no serializable transactions.
    pub(in crate::interaction) fn may_be_refused(&self, is_standby: Option<bool>) -> bool {
        self.isolation == Some(Isolation::Serializable) && is_standby != Some(false)
    }
}

/// What tells the server to end a transaction by itself, in case this process cannot when its lease time is over.
pub(in crate::interaction) fn backstop(lease_time: Duration, server_version: Option<u32>) -> String {
    // The settings count in milliseconds and take no more than fits 32 bits with a sign.
    let span = lease_time.saturating_add(BACKSTOP).as_millis().min(i32::MAX as u128);
    let mut sql = format!("SET LOCAL idle_in_transaction_session_timeout = {span}");
    if server_version.is_some_and(|version| version >= TRANSACTION_TIMEOUT_SINCE) {
        // Counted from the beginning of the transaction when it is set there, from now on when it is set later.
        let _ = write!(sql, "; SET LOCAL transaction_timeout = {span}");
    }
    sql
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Isolation, Options, backstop};

    #[test]
    fn the_text_says_what_was_asked_for() {
        assert_eq!(Options::default().begin(), "BEGIN");
        let all = Options {
            isolation: Some(Isolation::Serializable),
            read_only: true,
            deferrable: true,
        };
        assert_eq!(all.begin(), "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE");
    }

    #[test]
    fn the_server_is_told_to_wait_a_little_longer_than_the_library() {
        let idle = "SET LOCAL idle_in_transaction_session_timeout = 6000";
        let span = Duration::from_secs(1);
        assert_eq!(backstop(span, Some(150_018)), idle);
        let both = format!("{idle}; SET LOCAL transaction_timeout = 6000");
        assert_eq!(backstop(span, Some(180_004)), both);
        assert!(backstop(Duration::MAX, None).ends_with("= 2147483647"));
    }

    #[test]
    fn only_a_primary_is_known_to_take_serializable() {
        let serializable = Options {
            isolation: Some(Isolation::Serializable),
            ..Options::default()
        };
        assert!(!serializable.may_be_refused(Some(false)));
        assert!(serializable.may_be_refused(Some(true)));
        assert!(serializable.may_be_refused(None));
        assert!(!Options::default().may_be_refused(Some(true)));
    }
}
