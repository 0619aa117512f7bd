//! Why a dial failed: each attempt with its reason, and what they mean together. Values only.
//!
//! Made by `dial`, shown by the pool. Texts name hosts and addresses, never credentials, and are bounded in number and
//! length.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::order::GoOn;
use super::role::Question;
use super::ways::WayEnd;
use crate::runtime::Endpoint;
use crate::session::TemplateError;
use crate::session::auth_gate::AuthRefusal;
use crate::session::tls::TlsFault;

/// Failed attempts that are kept; of those beyond only the number and the last are.
const MAX_FAILURES: usize = 16;
/// Bytes of one attempt's reason that are shown when there are several.
const MAX_REASON: usize = 300;

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum DialError {
    /// No attempt led to one.
    Failed(Failures),
    /// The session ended, or the time was over, before its template had been run.
    SetUp(Option<Arc<tokio_postgres::Error>>),
    /// A part of the session template failed.
    Template(TemplateError),
}

/// The failed attempts of one dial, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    kept: Vec<Failure>,
    /// Further ones, before the last of `kept`.
    more: usize,
    /// The deadline over all of them passed.
    is_overdue: bool,
}

/// One failed attempt.
#[derive(Debug)]
struct Failure {
    host: HostName,
    endpoint: Option<Endpoint>,
    fault: Fault,
}

/// A host as the user calls it.
#[derive(Clone, Debug)]
pub(super) struct HostName {
    /// Certificates go by it, too.
    pub(super) name: Arc<str>,
    pub(super) port: u16,
}

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The name could not be looked up.
    LookUp(io::Error),
    /// The function that gives passwords failed.
    Password(Box<dyn std::error::Error + Send + Sync>),
    /// No stream to the address.
    Connect(io::Error),
    /// `connect_timeout` passed, at this step.
    Overdue(Duration, Doing),
    /// The dial's deadline passed, at this step.
    Unfinished(Doing),
    Tls(TlsFault),
    /// The way of authentication is not one that `require_auth` allows.
    Auth(AuthRefusal),
    /// The server refused, or broke off, the start-up.
    StartUp {
        source: tokio_postgres::Error,
        was_encrypted: bool,
    },
    /// The start-up ended, but not as PostgreSQL ends it.
    Strange(&'static str),
    /// The session is not what `target_session_attrs` asks for.
    Role(&'static str),
    /// The server did not say what it is.
    NoRole(Question, Option<tokio_postgres::Error>),
}

/// A step of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    LookUp,
    Password,
    Connect,
    Tls,
    StartUp,
    Role,
}

impl Fault {
    /// Where libpq would go on.
    pub(super) fn go_on(&self) -> GoOn {
        match self {
            Self::Connect(_) | Self::Overdue(..) => GoOn::NextAddress,
            Self::LookUp(_) | Self::Role(_) | Self::NoRole(..) => GoOn::NextHost,
            Self::StartUp { source, .. } if is_not_ready(source) => GoOn::NextHost,
            _ => GoOn::Stop,
        }
    }

    /// Whether the same address may be tried in another way.
    pub(super) fn way_end(&self) -> WayEnd {
        match self {
            Self::Tls(TlsFault::Handshake(_)) => WayEnd::Handshake,
            Self::StartUp { source, was_encrypted } if source.code().is_some() && !is_not_ready(source) => {
                WayEnd::Refused {
                    encrypted: *was_encrypted,
                }
            }
            _ => WayEnd::Other,
        }
    }

    fn server_error(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::StartUp { source, .. } => Some(source),
            Self::NoRole(_, source) => source.as_ref(),
            _ => None,
        }
    }

    fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::LookUp(source) | Self::Connect(source) => Some(source),
            Self::Password(source) => Some(&**source),
            Self::Tls(source) => Some(source),
            Self::Auth(source) => Some(source),
            Self::StartUp { source, .. } => Some(source),
            Self::NoRole(_, source) => source.as_ref().map(|source| source as _),
            Self::Overdue(..) | Self::Unfinished(_) | Self::Strange(_) | Self::Role(_) => None,
        }
    }
}

/// 57P03: the server starts up, shuts down, or is a standby that takes no sessions.
fn is_not_ready(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::CANNOT_CONNECT_NOW)
}

impl Failures {
    pub(super) fn push(&mut self, host: HostName, endpoint: Option<Endpoint>, fault: Fault) {
        if self.kept.len() == MAX_FAILURES {
            self.kept.pop();
            self.more += 1;
        }
        self.kept.push(Failure { host, endpoint, fault });
    }

    pub(super) fn set_overdue(&mut self) {
        self.is_overdue = true;
    }

    /// The one that says most about all: the last on which a server spoke, else the last.
    fn telling(&self) -> Option<&Failure> {
        let spoken = self
            .kept
            .iter()
            .rev()
            .find(|failure| failure.fault.server_error().is_some_and(|error| error.code().is_some()));
        spoken.or(self.kept.last())
    }
}

impl DialError {
    /// The time was over: that for all of it, or that of each address in turn.
    pub(crate) fn is_overdue(&self) -> bool {
        let Self::Failed(failures) = self else { return false };
        let mut faults = failures.kept.iter().map(|failure| &failure.fault);
        failures.is_overdue || !failures.kept.is_empty() && faults.all(|fault| matches!(fault, Fault::Overdue(..)))
    }

    /// The SQLSTATE with which a server refused the start-up, if one did.
    pub(crate) fn refusal(&self) -> Option<&SqlState> {
        let Self::Failed(failures) = self else { return None };
        failures.telling()?.fault.server_error()?.code()
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failures) => failures.fmt(f),
            Self::SetUp(_) => f.write_str("the session template (on_connect) was not run to its end"),
            Self::Template(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kept[..] {
            [] => f.write_str("nothing was tried"),
            [failure] => failure.fmt(f),
            several => {
                write!(f, "{} attempts failed", several.len() + self.more)?;
                for (at, failure) in several.iter().enumerate() {
                    f.write_str(if at == 0 { ": " } else { "; " })?;
                    if self.more > 0 && at + 1 == several.len() {
                        write!(f, "{} more; ", self.more)?;
                    }
                    f.write_str(&failure.reason())?;
                }
                Ok(())
            }
        }
    }
}

impl Failure {
    /// All that is known, in one line of bounded length.
    fn reason(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.fault.cause();
        while let Some(next) = cause {
            let words = next.to_string();
            // What wraps an error often repeats it.
            if !text.contains(&words) {
                let _ = write!(text, ": {words}");
            }
            cause = next.source();
        }
        if text.len() > MAX_REASON {
            let end = (0..=MAX_REASON)
                .rev()
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Place(self);
        match &self.fault {
            Fault::LookUp(_) => write!(f, "could not look up the host \"{}\"", self.host.name),
            Fault::Password(_) => f.write_str("the function that gives the password failed"),
            Fault::Connect(_) => write!(f, "could not connect to {place}"),
            Fault::Overdue(span, doing) => write!(f, "connect_timeout ({span:?}) passed while {doing} {place}"),
            Fault::Unfinished(doing) => write!(f, "the time was over while {doing} {place}"),
            Fault::Tls(_) => write!(f, "could not encrypt the connection to {place}"),
            Fault::Auth(_) => write!(f, "the authentication that {place} asks for is refused"),
            Fault::StartUp { .. } => write!(f, "the server at {place} refused the start-up"),
            Fault::Strange(what) => write!(f, "the server at {place} does not speak as PostgreSQL: {what}"),
            Fault::Role(what) => write!(f, "{place} is not wanted: {what} (target_session_attrs)"),
            Fault::NoRole(question, _) => {
                write!(f, "the server at {place} did not answer \"{}\"", question.sql())
            }
        }
    }
}

/// The host and the address that was tried, as far as they say different things.
struct Place<'a>(&'a Failure);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { host, endpoint, .. } = self.0;
        match endpoint {
            None => host.fmt(f),
            Some(endpoint @ Endpoint::Tcp(_)) => {
                let address = endpoint.to_string();
                if address == host.to_string() {
                    f.write_str(&address)
                } else {
                    write!(f, "{host} ({address})")
                }
            }
            Some(endpoint) => endpoint.fmt(f),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LookUp => "looking up",
            Self::Password => "asking for the password of",
            Self::Connect => "connecting to",
            Self::Tls => "encrypting the connection to",
            Self::StartUp => "starting a session at",
            Self::Role => "asking for the role of",
        })
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(failures) => failures.telling()?.fault.cause(),
            Self::SetUp(reason) => reason.as_ref().map(|reason| reason as _),
            Self::Template(error) => error.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_and_shown_is_bounded() {
        let mut failures = Failures::default();
        for number in 0..100_000_u32 {
            let fault = Fault::Connect(io::Error::other(format!("{number} {}", "ä".repeat(10_000))));
            let host = HostName {
                name: format!("db{number}").into(),
                port: 5432,
            };
            failures.push(host, None, fault);
        }
        let text = failures.to_string();
        assert!(text.len() < 2 * MAX_FAILURES * MAX_REASON, "{}", text.len());
        for part in ["100000 attempts failed", "db0:5432", "99984 more", "db99999:5432"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn only_what_another_host_may_do_better_goes_on() {
        let io = || io::Error::other("x");
        for (fault, go_on) in [
            (Fault::LookUp(io()), GoOn::NextHost),
            (Fault::Connect(io()), GoOn::NextAddress),
            (
                Fault::Overdue(Duration::from_secs(1), Doing::StartUp),
                GoOn::NextAddress,
            ),
            (Fault::Role("x"), GoOn::NextHost),
            (Fault::NoRole(Question::ReadOnly, None), GoOn::NextHost),
            (Fault::Tls(TlsFault::NotOffered), GoOn::Stop),
            (Fault::Auth(AuthRefusal::Incomplete), GoOn::Stop),
            (Fault::Strange("x"), GoOn::Stop),
            (Fault::Password("x".into()), GoOn::Stop),
        ] {
            assert_eq!(fault.go_on(), go_on, "{fault:?}");
        }
    }
}
