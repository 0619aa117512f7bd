//! Why a session's task stops what it does: the statement failed, or the session is over.
//!
//! What all steps of a session give instead of a result; the last words that belong to each are here.

use crate::postgres::server::Goodbye;
use crate::wire::{Backend as Message, Report, WireError};

/// Why a step did not come to its end.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The statement failed; the session goes on.
    Fail(Report),
    /// The session ends with this error.
    Fatal(Report),
    /// The session was told to end.
    Goodbye(Goodbye),
    /// The client's bytes are no message.
    Illegal(WireError),
    /// The session is over: the client has left, or nothing is to be said.
    Over,
}

impl Halt {
    /// What the client is told.
    pub(crate) fn last_words(&self) -> Option<Message> {
        match self {
            Self::Fail(report) | Self::Fatal(report) => Some(Message::ErrorResponse(report.clone())),
            Self::Goodbye(goodbye) => goodbye.words(),
            Self::Illegal(error) => match error.illegal() {
                crate::wire::Illegal::Length => None,
                _ => Some(Message::ErrorResponse(Report::fatal(
                    error.sqlstate(),
                    error.to_string(),
                ))),
            },
            Self::Over => None,
        }
    }
}

impl From<Report> for Halt {
    fn from(report: Report) -> Self {
        Self::Fail(report)
    }
}

impl Goodbye {
    fn words(self) -> Option<Message> {
        let administrator = "terminating connection due to administrator command";
        match self {
            Self::Administrator => Some(Message::ErrorResponse(Report::fatal("57P01", administrator))),
            Self::CrashElsewhere => {
                let report = Report::warning(
                    "57P02",
                    "terminating connection because of crash of another server process",
                );
                let detail = "The postmaster has commanded this server process to roll back the current transaction and \
                              exit, because another server process exited abnormally and possibly corrupted shared memory.";
                let hint = "In a moment you should be able to reconnect to the database and repeat your command.";
                Some(Message::NoticeResponse(report.detail(detail).hint(hint)))
            }
            Self::Immediate => {
                let text = "terminating connection due to immediate shutdown command";
                Some(Message::NoticeResponse(Report::warning("57P01", text)))
            }
            Self::Silent => None,
        }
    }
}
