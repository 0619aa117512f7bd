//! Input that cannot be used, each kind with its offender by name. Values only; never a parameter's value.

use std::fmt;
use std::sync::Arc;

/// What is wrong with the caller's input. Nothing was sent to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadInput {
    /// A connection string that cannot be used; the reason names the key.
    Dsn {
        /// What is wrong, naming the key (never its value).
        reason: String,
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
    /// Both `.bind()` and `.args()` were used.
    MixedParameters,
    /// A setting outside its bounds.
    OutOfBounds {
        /// The setting's name.
        setting: &'static str,
        /// The value given.
        given: String,
        /// Its bounds, in words.
        bounds: &'static str,
    },
    /// Several statements in one text that runs as one statement.
    SeveralStatements,
    /// A pool that does not exist.
    UnknownPool {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<Arc<str>>,
    },
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dsn { reason } => write!(f, "bad connection string: {reason}"),
            Self::DuplicatePool { name } => write!(f, "there is already a pool named \"{name}\""),
            Self::Name { what, name } => write!(f, "{name:?} cannot name a {what}"),
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
            Self::MixedParameters => f.write_str("bind() and args() cannot be mixed in one call"),
            Self::OutOfBounds { setting, given, bounds } => {
                write!(f, "{setting} is {given}, but must be {bounds}")
            }
            Self::SeveralStatements => f.write_str(
                "several statements in one text: run() takes one, because values and results belong to one statement",
            ),
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
