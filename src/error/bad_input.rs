//! Input that cannot be used, each kind with its offender by name. Values only; never a parameter's value.

use std::fmt;
use std::sync::Arc;

use super::Error;

/// What is wrong with the caller's input. Nothing was sent to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadInput {
    /// Values were given to a batch, whose statements have no placeholders.
    BatchParameters,
    /// A statement gives another number of columns than the type its rows are read into has.
    ColumnCount {
        /// How many the type has.
        wanted: usize,
        /// How many the statement gives.
        given: usize,
    },
    /// A column of a type that cannot be read as what was asked for.
    ColumnType {
        /// Which column, counted from 1.
        position: usize,
        /// Its name.
        name: String,
        /// Its PostgreSQL type.
        given: String,
        /// The Rust type it was to be read as.
        wanted: String,
    },
    /// A connection string that cannot be used; the reason names the key.
    Dsn {
        /// What is wrong, naming the key (never its value).
        reason: String,
    },
    /// A named placeholder was given two values.
    DuplicateName {
        /// The name, without its colon.
        name: String,
    },
    /// A second pool of one name.
    DuplicatePool {
        /// The name.
        name: Arc<str>,
    },
    /// A name that is empty or holds a NUL.
    Name {
        /// What the name is for.
        what: &'static str,
        /// The name given.
        name: String,
    },
    /// A name that cannot name a channel of LISTEN and NOTIFY.
    Channel {
        /// The name given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A default pool that is not a write pool, or other settings that exclude each other.
    Conflict {
        /// The settings and why they exclude each other.
        reason: String,
    },
    /// No pool was configured.
    NoPool,
    /// A statement's text holds a NUL, which PostgreSQL's protocol cannot carry.
    NulInText {
        /// Where, in bytes from the start of the text.
        at: usize,
    },
    /// The statement has another number of `$n` placeholders than values were given.
    ParameterCount {
        /// How many the statement has.
        placeholders: usize,
        /// How many values were given.
        given: usize,
    },
    /// A parameter of a type that the statement's placeholder does not take.
    ParameterType {
        /// Which parameter, counted from 1 as in `$1`.
        position: usize,
        /// The Rust type given.
        given: String,
        /// The PostgreSQL type of the placeholder.
        expected: String,
    },
    /// A parameter whose value cannot be sent as the placeholder's type; the source says why.
    ParameterValue {
        /// Which parameter, counted from 1 as in `$1`.
        position: usize,
        /// The PostgreSQL type of the placeholder.
        expected: String,
    },
    /// More than one of `.bind()`, `.args()` and `.bind_named()` was used.
    MixedParameters,
    /// A numbered placeholder in a text whose values are bound by name.
    MixedPlaceholders {
        /// The placeholder, such as `$1`.
        placeholder: String,
    },
    /// A setting outside its bounds.
    OutOfBounds {
        /// The setting's name.
        setting: &'static str,
        /// The value given.
        given: String,
        /// Its bounds, in words.
        bounds: &'static str,
    },
    /// A payload that NOTIFY cannot carry.
    Payload {
        /// What is wrong with it.
        reason: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A statement that changes or uses a session beyond its transaction, on a pool behind a
    /// [`transaction_pooler`](crate::PoolConfig::transaction_pooler): the session is another client's next.
    SessionState {
        /// The statement's words that say so.
        words: String,
    },
    /// Several statements in one text that runs as one statement.
    SeveralStatements,
    /// A statement that begins, ends or divides a transaction, where the library runs one: in a function, a pinned
    /// transaction, a `.read()` batch.
    TransactionControl {
        /// The statement's first words.
        words: String,
    },
    /// A `:name` in the text for which no value was bound.
    UnboundName {
        /// The name, without its colon.
        name: String,
    },
    /// A value was bound to a name that the text does not have.
    UnusedName {
        /// The name, without its colon.
        name: String,
    },
    /// A queue without a bound, where one is filled for the caller.
    UnboundedQueue,
    /// A pool that does not exist.
    UnknownPool {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<Arc<str>>,
    },
}

/// Names what makes a name one that cannot be listened to. PostgreSQL would cut it, or not take it.
pub(crate) fn check_channel(name: &str) -> Result<(), Error> {
    let reason = match name.len() {
        0 => "it is empty",
        64.. => "it is over 63 bytes long",
        _ if name.contains('\0') => "it holds a NUL",
        _ => return Ok(()),
    };
    Err(Error::bad_input(BadInput::Channel {
        name: name.into(),
        reason,
    }))
}

/// Names what makes a payload one that cannot be sent.
pub(crate) fn check_payload(payload: &str) -> Result<(), Error> {
    let reason = match payload.len() {
        8_000.. => "the longest is 7,999 bytes",
        _ if payload.contains('\0') => "it holds a NUL",
        _ => return Ok(()),
    };
    Err(Error::bad_input(BadInput::Payload {
        reason,
        bytes: payload.len(),
    }))
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BatchParameters => f.write_str("a batch takes no values: its statements have no placeholders"),
            Self::ColumnCount { wanted, given } => {
                write!(
                    f,
                    "the statement gives {given} columns, and its rows are to be read as {wanted}"
                )
            }
            Self::ColumnType {
                position,
                name,
                given,
                wanted,
            } => {
                write!(
                    f,
                    "column {position} (\"{name}\") is PostgreSQL's {given}, which a Rust {wanted} cannot hold"
                )
            }
            Self::Dsn { reason } => write!(f, "bad connection string: {reason}"),
            Self::DuplicateName { name } => write!(f, "two values were bound to :{name}"),
            Self::DuplicatePool { name } => write!(f, "there is already a pool named \"{name}\""),
            Self::Name { what, name } => write!(f, "{name:?} cannot name a {what}"),
            Self::Channel { name, reason } => write!(f, "{name:?} cannot name a channel: {reason}"),
            Self::Conflict { reason } => f.write_str(reason),
            Self::NoPool => f.write_str("no pool was configured"),
            Self::NulInText { at } => write!(f, "the statement has a NUL in it, at byte {at}"),
            Self::ParameterCount { placeholders, given } => {
                write!(
                    f,
                    "the statement has {placeholders} placeholders, {given} values were given"
                )
            }
            Self::ParameterType {
                position,
                given,
                expected,
            } => {
                write!(
                    f,
                    "parameter ${position} is a Rust {given}, which PostgreSQL's {expected} does not take"
                )
            }
            Self::ParameterValue { position, expected } => {
                write!(f, "parameter ${position} cannot be sent as PostgreSQL's {expected}")
            }
            Self::MixedParameters => f.write_str("bind(), args() and bind_named() cannot be mixed in one call"),
            Self::MixedPlaceholders { placeholder } => {
                write!(
                    f,
                    "the statement has {placeholder} in it, but its values are bound by name"
                )
            }
            Self::OutOfBounds { setting, given, bounds } => {
                write!(f, "{setting} is {given}, but must be {bounds}")
            }
            Self::Payload { reason, bytes } => write!(f, "a payload of {bytes} bytes cannot be sent: {reason}"),
            Self::SessionState { words } => write!(
                f,
                "{words} would outlive its transaction, in a session that the transaction pooler lends to other clients: use \
                 what ends with the transaction (SET LOCAL, pg_advisory_xact_lock, ON COMMIT DROP), or a direct address"
            ),
            Self::SeveralStatements => f.write_str(
                "several statements in one text: run() takes one, because values and results belong to one statement; \
                 .batch() runs several without values",
            ),
            Self::TransactionControl { words } => write!(
                f,
                "{words} where the library runs the transaction: return from the function, or use savepoint(), commit() or rollback()"
            ),
            Self::UnboundName { name } => write!(
                f,
                "no value was bound to :{name} (an array slice is written with blanks: [1 : n])"
            ),
            Self::UnusedName { name } => write!(f, "a value was bound to :{name}, which the statement does not have"),
            Self::UnboundedQueue => f.write_str("the queue has no bound: make it with async_channel::bounded"),
            Self::UnknownPool { name, known } => {
                write!(f, "there is no pool named {name:?}; there are: ")?;
                for (at, name) in known.iter().enumerate() {
                    write!(f, "{}\"{name}\"", if at == 0 { "" } else { ", " })?;
                }
                if known.is_empty() {
                    f.write_str("none")?;
                }
                Ok(())
            }
        }
    }
}
