//! Where a transaction stands and what became of its COMMIT, from the tags the tap has counted.
//!
//! A plain machine. tokio-postgres reports a COMMIT that the server answered with ROLLBACK as a success, and a refused
//! BEGIN lets the statement behind it run alone; the tap saw both.

use crate::error::Outcome;
use crate::session::TransactionFacts;

/// Follows one transaction by the counts of tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    before: TransactionFacts,
    /// Answers to our own ROLLBACK TO that may have come.
    own_rollbacks: u64,
}

/// What is known of the answer to BEGIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    Waiting,
    Accepted,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// BEGIN has not been answered yet.
    Beginning,
    /// Open, and only ours.
    Open,
    /// Open, but a statement failed in it: all it can do is end.
    Failed,
    /// A BEGIN, COMMIT or ROLLBACK that is not ours was in it.
    Foreign,
}

/// What came back for the message with COMMIT in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The answer was read to its end.
    Whole,
    /// The session was lost first. `alone`: nothing else was written since.
    Lost { untouched: bool, alone: bool },
}

impl Watch {
    /// Begins to watch, with what was counted right before BEGIN was queued.
    pub(super) fn new(before: TransactionFacts) -> Self {
        Self {
            before,
            own_rollbacks: 0,
        }
    }

    /// A ROLLBACK TO of our own is about to be sent.
    pub(super) fn expect_rollback(&mut self) {
        self.own_rollbacks += 1;
    }

    /// It failed: there will be no such tag.
    pub(super) fn no_rollback(&mut self) {
        self.own_rollbacks -= 1;
    }

    /// Whether tags were counted that are not ours.
    pub(super) fn counts_foreign(&self, now: TransactionFacts) -> bool {
        let (seen, before) = (now.seen, self.before.seen);
        let rollbacks = seen.rollbacks - before.rollbacks;
        seen.begins - before.begins > 1 || seen.commits != before.commits || rollbacks > self.own_rollbacks
    }

    pub(super) fn standing(&self, begun: Begun, now: TransactionFacts) -> Standing {
        if self.counts_foreign(now) {
            return Standing::Foreign;
        }
        let begins = now.seen.begins - self.before.seen.begins;
        match (begun, begins, now.is_failed, now.is_open) {
            (Begun::Waiting, ..) => Standing::Beginning,
            // Accepted without its tag, or ended without one: not our protocol.
            (Begun::Accepted, 0, ..) | (Begun::Accepted, _, false, false) => Standing::Foreign,
            (Begun::Accepted, _, true, _) => Standing::Failed,
            (Begun::Accepted, _, false, true) => Standing::Open,
        }
    }
}

/// What became of a COMMIT, from the counts right before it was queued, and the last ones.
///
/// Committed by the tag COMMIT without the warning that there was no transaction, and by nothing else. Rolled back when
/// the answer ended without it, and when the message never left in full: a server that reads half of one rolls back.
pub(super) fn of_commit(before: TransactionFacts, now: TransactionFacts, reply: Reply) -> Outcome {
    let committed = now.seen.commits > before.seen.commits && now.seen.missing == before.seen.missing;
    match reply {
        _ if committed => Outcome::Committed,
        Reply::Whole | Reply::Lost { untouched: true, .. } => Outcome::RolledBack,
        Reply::Lost { alone: true, .. } if now.sent == before.sent => Outcome::RolledBack,
        Reply::Lost { .. } => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::{Begun, Outcome, Reply, Standing, TransactionFacts, Watch, of_commit};
    use crate::session::Transactions;

    const BEFORE: Transactions = Transactions {
        begins: 7,
        commits: 3,
        rollbacks: 4,
        missing: 1,
    };

    fn facts(change: impl FnOnce(&mut TransactionFacts)) -> TransactionFacts {
        let mut facts = TransactionFacts {
            seen: BEFORE,
            sent: 20,
            is_open: true,
            is_failed: false,
        };
        change(&mut facts);
        facts
    }

    fn watch() -> Watch {
        Watch::new(TransactionFacts {
            seen: BEFORE,
            ..TransactionFacts::default()
        })
    }

    #[test]
    fn only_our_own_begin_makes_an_open_transaction() {
        let standing = |change: fn(&mut TransactionFacts)| watch().standing(Begun::Accepted, facts(change));
        assert_eq!(watch().standing(Begun::Waiting, facts(|_| {})), Standing::Beginning);
        assert_eq!(standing(|now| now.seen.begins += 1), Standing::Open);
        let failed = |now: &mut TransactionFacts| (now.seen.begins, now.is_failed) = (8, true);
        assert_eq!(standing(failed), Standing::Failed);
        assert_eq!(standing(|_| {}), Standing::Foreign, "no BEGIN was answered");
        assert_eq!(standing(|now| now.seen.begins += 2), Standing::Foreign);
        let commit = |now: &mut TransactionFacts| (now.seen.begins, now.seen.commits) = (8, 4);
        assert_eq!(standing(commit), Standing::Foreign);
        assert_eq!(watch().standing(Begun::Waiting, facts(commit)), Standing::Foreign);
        let gone = |now: &mut TransactionFacts| (now.seen.begins, now.is_open) = (8, false);
        assert_eq!(standing(gone), Standing::Foreign);
    }

    #[test]
    fn rolling_back_to_a_savepoint_of_ours_is_no_foreign_end() {
        let mut watch = watch();
        let now = facts(|now| (now.seen.begins, now.seen.rollbacks) = (8, 5));
        assert_eq!(watch.standing(Begun::Accepted, now), Standing::Foreign);
        watch.expect_rollback();
        assert_eq!(watch.standing(Begun::Accepted, now), Standing::Open);
        watch.no_rollback();
        assert_eq!(watch.standing(Begun::Accepted, now), Standing::Foreign);
    }

    #[test]
    fn a_commit_is_believed_by_its_tag_alone() {
        let before = facts(|_| {});
        let lost = |untouched, alone| Reply::Lost { untouched, alone };
        let sent = facts(|now| now.sent += 1);
        let committed = facts(|now| (now.sent, now.seen.commits) = (21, 4));
        let nothing_there = facts(|now| (now.sent, now.seen.commits, now.seen.missing) = (21, 4, 2));
        for reply in [Reply::Whole, lost(false, false), lost(false, true)] {
            assert_eq!(of_commit(before, committed, reply), Outcome::Committed, "{reply:?}");
        }
        assert_eq!(of_commit(before, nothing_there, Reply::Whole), Outcome::RolledBack);
        assert_eq!(of_commit(before, nothing_there, lost(false, true)), Outcome::Unknown);
        assert_eq!(of_commit(before, sent, Reply::Whole), Outcome::RolledBack);
        assert_eq!(
            of_commit(before, sent, lost(false, true)),
            Outcome::Unknown,
            "left, no answer"
        );
        assert_eq!(
            of_commit(before, before, lost(false, true)),
            Outcome::RolledBack,
            "never left in full"
        );
        assert_eq!(
            of_commit(before, before, lost(false, false)),
            Outcome::Unknown,
            "or another did"
        );
        assert_eq!(
            of_commit(before, before, lost(true, false)),
            Outcome::RolledBack,
            "not a byte left"
        );
    }
}
