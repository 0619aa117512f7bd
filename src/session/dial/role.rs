//! Whether a session is of the kind asked for (`target_session_attrs`). A plain machine: what the server said in, a
//! judgement or a question out.
//!
//! Under `dial`, once the start-up is through. As in libpq, a server that reports `in_hot_standby` and
//! `default_transaction_read_only` (14 and later) is believed; another one is asked.

use crate::config::target::SessionAttributes;

/// What is known of a session's kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) read_only: Option<bool>,
    pub(super) in_hot_standby: Option<bool>,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Fits,
    /// Why it does not fit.
    Wrong(&'static str),
    /// Not to be told without an answer to this.
    Ask(Question),
}

/// What a server is asked that does not report it by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    InRecovery,
    ReadOnly,
}

/// Whether a session with these facts is what was asked for. `any_will_do`: a standby is preferred, and none was found.
pub(super) fn judge(wanted: SessionAttributes, any_will_do: bool, seen: Seen) -> Judgement {
    let (fact, question) = match wanted {
        SessionAttributes::Any => return Judgement::Fits,
        SessionAttributes::PreferStandby if any_will_do => return Judgement::Fits,
        SessionAttributes::ReadOnly | SessionAttributes::ReadWrite => {
            let both = seen.read_only.zip(seen.in_hot_standby);
            (
                both.map(|(read_only, standby)| read_only || standby),
                Question::ReadOnly,
            )
        }
        SessionAttributes::Primary | SessionAttributes::Standby | SessionAttributes::PreferStandby => {
            (seen.in_hot_standby, Question::InRecovery)
        }
    };
    let Some(fact) = fact else {
        return Judgement::Ask(question);
    };
    let (expected, otherwise) = match wanted {
        SessionAttributes::ReadWrite => (false, "the session is read only"),
        SessionAttributes::ReadOnly => (true, "the session is not read only"),
        SessionAttributes::Primary => (false, "the server is a hot standby"),
        _ => (true, "the server is not a hot standby"),
    };
    if fact == expected {
        Judgement::Fits
    } else {
        Judgement::Wrong(otherwise)
    }
}

impl Question {
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::InRecovery => "SELECT pg_catalog.pg_is_in_recovery()",
            Self::ReadOnly => "SHOW transaction_read_only",
        }
    }

    /// What the answer says. A read-only transaction may be so for either reason; which one makes no difference here.
    pub(super) fn answered(self, value: &str) -> Seen {
        match self {
            Self::InRecovery => Seen {
                read_only: None,
                in_hot_standby: Some(value == "t"),
            },
            Self::ReadOnly => {
                let fact = Some(value == "on");
                Seen {
                    read_only: fact,
                    in_hot_standby: fact,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [SessionAttributes; 6] = [
        SessionAttributes::Any,
        SessionAttributes::PreferStandby,
        SessionAttributes::Primary,
        SessionAttributes::ReadOnly,
        SessionAttributes::ReadWrite,
        SessionAttributes::Standby,
    ];

    /// Of libpq's documentation: what each value takes of a primary, a primary whose sessions are read only by default, and
    /// a standby.
    #[test]
    fn each_value_takes_what_it_names() {
        let kinds = [(false, false), (true, false), (false, true), (true, true)];
        for (wanted, takes) in [
            (SessionAttributes::Any, [true, true, true, true]),
            (SessionAttributes::ReadWrite, [true, false, false, false]),
            (SessionAttributes::ReadOnly, [false, true, true, true]),
            (SessionAttributes::Primary, [true, true, false, false]),
            (SessionAttributes::Standby, [false, false, true, true]),
            (SessionAttributes::PreferStandby, [false, false, true, true]),
        ] {
            for ((read_only, standby), takes) in kinds.into_iter().zip(takes) {
                let seen = Seen {
                    read_only: Some(read_only),
                    in_hot_standby: Some(standby),
                };
                let fits = judge(wanted, false, seen) == Judgement::Fits;
                assert_eq!(fits, takes, "{wanted:?} of read_only {read_only}, standby {standby}");
            }
        }
    }

    #[test]
    fn in_the_second_pass_a_preference_is_none() {
        for seen in [Seen::default(), Question::InRecovery.answered("f")] {
            assert_eq!(judge(SessionAttributes::PreferStandby, true, seen), Judgement::Fits);
            assert_ne!(judge(SessionAttributes::Standby, true, seen), Judgement::Fits);
        }
    }

    #[test]
    fn who_reports_nothing_is_asked_once() {
        for wanted in ALL {
            let Judgement::Ask(question) = judge(wanted, false, Seen::default()) else {
                assert_eq!(wanted, SessionAttributes::Any);
                continue;
            };
            for value in ["on", "off", "t", "f"] {
                let judged = judge(wanted, false, question.answered(value));
                assert!(!matches!(judged, Judgement::Ask(_)), "{wanted:?} {value}");
            }
        }
    }
}
