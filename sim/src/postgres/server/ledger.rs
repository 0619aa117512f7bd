//! Which marked statements a session's transaction consists of, for the history.
//!
//! A plain machine. It follows savepoints by what the statements that succeeded say; it never looks into the engine.

use crate::sql::{Token, tokens};

/// The marks of one session's open transaction.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The mark of the last marked statement, in whatever transaction.
    pub(crate) last: Option<u64>,
    pub(crate) xid: Option<u64>,
    ops: Vec<u64>,
    savepoints: Vec<(String, usize)>,
    /// Something ran since the last end of a transaction.
    used: bool,
}

/// What a savepoint statement does.
#[derive(Debug, PartialEq, Eq)]
enum Verb {
    Back,
    Release,
    Set,
}

impl Ledger {
    /// A statement has begun.
    pub(crate) fn began(&mut self, op: Option<u64>) {
        self.used = true;
        self.ops.extend(op);
        self.last = op.or(self.last);
    }

    /// A statement has ended well; gives the marks whose effects it took back.
    pub(crate) fn ended(&mut self, text: &str, tag: &str) -> Vec<u64> {
        if !matches!(tag, "SAVEPOINT" | "RELEASE" | "ROLLBACK") {
            return Vec::new();
        }
        let Some((verb, name)) = savepoint(text) else {
            return Vec::new();
        };
        let place = self.savepoints.iter().rposition(|(known, _)| *known == name);
        match (verb, place) {
            (Verb::Set, _) => self.savepoints.push((name, self.ops.len())),
            (Verb::Release, Some(place)) => self.savepoints.truncate(place),
            (Verb::Back, Some(place)) => {
                self.savepoints.truncate(place + 1);
                return self.ops.split_off(self.savepoints[place].1.min(self.ops.len()));
            }
            (Verb::Back | Verb::Release, None) => {}
        }
        Vec::new()
    }

    /// The transaction has ended; gives its number and marks, if anything ran in it.
    pub(crate) fn end(&mut self) -> Option<(Option<u64>, Vec<u64>)> {
        self.savepoints.clear();
        let (xid, ops) = (self.xid.take(), std::mem::take(&mut self.ops));
        std::mem::take(&mut self.used).then_some((xid, ops))
    }
}

fn savepoint(text: &str) -> Option<(Verb, String)> {
    let mut words = tokens(text).into_iter().filter_map(|token| match token {
        Token::Word(word) | Token::Quoted(word) => Some(word),
        _ => None,
    });
    let verb = match words.next()?.as_str() {
        "savepoint" => return Some((Verb::Set, words.next()?)),
        "release" => Verb::Release,
        "rollback" => {
            words.find(|word| word == "to")?;
            Verb::Back
        }
        _ => return None,
    };
    let name = words.next()?;
    let name = if name == "savepoint" {
        words.next().unwrap_or(name)
    } else {
        name
    };
    Some((verb, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_behind_a_savepoint_are_given_back() {
        let mut ledger = Ledger::default();
        ledger.began(Some(1));
        ledger.began(None);
        assert_eq!(ledger.ended("SAVEPOINT a", "SAVEPOINT"), [0u64; 0]);
        ledger.began(Some(2));
        ledger.began(Some(3));
        assert_eq!(ledger.ended("ROLLBACK TO SAVEPOINT a", "ROLLBACK"), [2, 3]);
        ledger.began(Some(4));
        assert_eq!(ledger.ended("RELEASE a", "RELEASE"), [0u64; 0]);
        ledger.xid = Some(7);
        assert_eq!(ledger.end(), Some((Some(7), vec![1, 4])));
        assert_eq!(ledger.end(), None);
    }
}
