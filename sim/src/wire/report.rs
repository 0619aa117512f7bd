//! Errors and notices: severity, SQLSTATE, message, and the further fields a server may add.
//!
//! What every part of a server fails with; encoded by the messages that carry it. It knows no session.

/// How bad a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The session ends.
    Fatal,
    /// A note.
    Notice,
    /// A warning.
    Warning,
}

/// The fields of an error or notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How bad it is.
    pub severity: Severity,
    /// Five characters.
    pub sqlstate: String,
    /// For people.
    pub message: String,
    /// Further fields by their letters in the protocol, in the order in which they were added.
    pub further: Vec<(u8, String)>,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
        }
    }
}

impl Report {
    /// A report with the three fields every report has.
    ///
    /// # Panics
    /// If `sqlstate` has not five characters.
    #[must_use]
    pub fn new(severity: Severity, sqlstate: &str, message: impl Into<String>) -> Self {
        assert_eq!(sqlstate.len(), 5, "an SQLSTATE has five characters: {sqlstate:?}");
        Self {
            severity,
            sqlstate: sqlstate.to_owned(),
            message: message.into(),
            further: Vec::new(),
        }
    }

    /// An error.
    #[must_use]
    pub fn error(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, sqlstate, message)
    }

    /// An error that ends the session.
    #[must_use]
    pub fn fatal(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, sqlstate, message)
    }

    /// A note.
    #[must_use]
    pub fn notice(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Notice, sqlstate, message)
    }

    /// A warning.
    #[must_use]
    pub fn warning(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, sqlstate, message)
    }

    /// Adds a second, longer message.
    #[must_use]
    pub fn detail(self, text: impl Into<String>) -> Self {
        self.with(b'D', text)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, text: impl Into<String>) -> Self {
        self.with(b'H', text)
    }

    /// Adds the place in the query text, in characters, from one.
    #[must_use]
    pub fn position(self, character: usize) -> Self {
        self.with(b'P', character.to_string())
    }

    /// Adds where it happened.
    #[must_use]
    pub fn context(self, text: impl Into<String>) -> Self {
        self.with(b'W', text)
    }

    /// Adds the schema and table it is about.
    #[must_use]
    pub fn table(self, schema: impl Into<String>, table: impl Into<String>) -> Self {
        self.with(b's', schema).with(b't', table)
    }

    /// Adds the column it is about.
    #[must_use]
    pub fn column(self, name: impl Into<String>) -> Self {
        self.with(b'c', name)
    }

    /// Adds the data type it is about.
    #[must_use]
    pub fn data_type(self, name: impl Into<String>) -> Self {
        self.with(b'd', name)
    }

    /// Adds the constraint it is about.
    #[must_use]
    pub fn constraint(self, name: impl Into<String>) -> Self {
        self.with(b'n', name)
    }

    /// The text of a further field, by its letter in the protocol.
    #[must_use]
    pub fn field(&self, letter: u8) -> Option<&str> {
        let found = self.further.iter().find(|(of, _)| *of == letter);
        found.map(|(_, text)| text.as_str())
    }

    fn with(mut self, letter: u8, text: impl Into<String>) -> Self {
        self.further.push((letter, text.into()));
        self
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (field, text) in [
            (b'S', self.severity.word()),
            (b'V', self.severity.word()),
            (b'C', &self.sqlstate),
            (b'M', &self.message),
        ] {
            out.push(field);
            string(out, text);
        }
        for (field, text) in &self.further {
            out.push(*field);
            string(out, text);
        }
        out.push(0);
    }
}

/// A text and the zero byte that ends it.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    assert!(!text.contains('\0'), "a string on the wire has no zero byte: {text:?}");
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}
