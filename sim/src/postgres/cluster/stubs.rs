//! Registered answers: statements that the engine never sees.
//!
//! Data given by a test and read by sessions; the functions in it are the test's.

use std::fmt;
use std::sync::Arc;

use crate::value::{Type, Value};
use crate::wire::Report;

type Answer = dyn Fn(&[Option<String>], &str) -> Result<Vec<Vec<Value>>, Report> + Send + Sync;

/// The registered answers of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Stubs(Vec<Arc<Stub>>);

/// One registered answer.
pub(crate) struct Stub {
    start: String,
    parameters: Vec<Type>,
    columns: Vec<(String, Type)>,
    answer: Box<Answer>,
}

impl Stubs {
    pub(crate) fn add(&mut self, stub: Stub) {
        self.0.retain(|known| known.start != stub.start);
        self.0.push(Arc::new(stub));
    }

    /// The answer of a statement: that of the longest beginning.
    pub(crate) fn find(&self, sql: &str) -> Option<Arc<Stub>> {
        if self.0.is_empty() {
            return None;
        }
        let sql = normal(sql);
        let matching = self.0.iter().filter(|stub| sql.starts_with(&stub.start));
        matching.max_by_key(|stub| stub.start.len()).cloned()
    }
}

impl Stub {
    pub(crate) fn new(
        start: &str,
        parameters: &[Type],
        columns: &[(&str, Type)],
        answer: impl Fn(&[Option<String>], &str) -> Result<Vec<Vec<Value>>, Report> + Send + Sync + 'static,
    ) -> Self {
        Self {
            start: normal(start).to_owned(),
            parameters: parameters.to_vec(),
            columns: columns.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect(),
            answer: Box::new(answer),
        }
    }

    /// A text without a statement.
    pub(crate) fn empty() -> Self {
        Self::new("", &[], &[], |_, _| Ok(Vec::new()))
    }

    pub(crate) fn pattern(&self) -> &str {
        &self.start
    }

    pub(crate) fn parameters(&self) -> &[Type] {
        &self.parameters
    }

    pub(crate) fn columns(&self) -> &[(String, Type)] {
        &self.columns
    }

    pub(crate) fn rows(&self, parameters: &[Option<String>], node: &str) -> Result<Vec<Vec<Value>>, Report> {
        (self.answer)(parameters, node)
    }

    pub(crate) fn tag(&self, rows: usize) -> String {
        format!("SELECT {rows}")
    }

    /// A parameter as text.
    ///
    /// # Errors
    /// The bytes are no value of that type, or the type has no text here.
    pub(crate) fn text(of: Type, binary: bool, bytes: &[u8]) -> Result<String, Report> {
        let broken = || Report::error("22P03", "incorrect binary data format in a parameter");
        let textual = matches!(of, Type::Text | Type::Varchar | Type::Name | Type::Other(_));
        if !binary || textual {
            return String::from_utf8(bytes.to_vec()).map_err(|_| broken());
        }
        Ok(match of {
            Type::Bool => (if bytes == [1] { "t" } else { "f" }).to_owned(),
            Type::Int2 => i16::from_be_bytes(bytes.try_into().map_err(|_| broken())?).to_string(),
            Type::Int4 => i32::from_be_bytes(bytes.try_into().map_err(|_| broken())?).to_string(),
            Type::Oid => u32::from_be_bytes(bytes.try_into().map_err(|_| broken())?).to_string(),
            Type::Int8 | Type::TimestampTz | Type::PgLsn => {
                i64::from_be_bytes(bytes.try_into().map_err(|_| broken())?).to_string()
            }
            Type::Float8 => f64::from_be_bytes(bytes.try_into().map_err(|_| broken())?).to_string(),
            Type::Bytea => bytes
                .iter()
                .fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
            Type::Void | Type::Text | Type::Varchar | Type::Name | Type::Other(_) => String::new(),
        })
    }
}

impl fmt::Debug for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stub({:?})", self.start)
    }
}

fn normal(sql: &str) -> &str {
    sql.trim().trim_end_matches(';').trim_end()
}
