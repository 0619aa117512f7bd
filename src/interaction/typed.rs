//! Rows read into types: tuples, and whatever a user says how to read.
//!
//! At both ends of a statement's run: its columns are checked before it is executed, its rows are read after. Values only.

use std::any::type_name;
use std::error::Error as StdError;
use std::fmt;

use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Column, Row};

use crate::error::{BadInput, Error, ErrorKind, Outcome, Phase};

/// A type that a row can be read into, by [`Run::typed`](crate::Run::typed).
///
/// Tuples of up to twelve columns are; for types of your own:
///
/// ```
/// # use std::error::Error;
/// use gdbpool::{FromRow, Row};
///
/// struct User {
///     id: i32,
///     name: Option<String>,
/// }
///
/// impl FromRow for User {
///     fn from_row(row: &Row) -> Result<Self, Box<dyn Error + Send + Sync>> {
///         Ok(Self { id: row.try_get("id")?, name: row.try_get("name")? })
///     }
/// }
///
/// # gdbpool_sim::doc::with_pools(async |db| {
/// let users = db.run("SELECT id, name FROM users").typed::<User>().await?;
/// # Ok(())
/// # });
/// ```
pub trait FromRow: Send + Sized + 'static {
    /// Looks at the statement's columns before it is executed. Default: nothing to say, rows are read as they come.
    ///
    /// # Errors
    /// The first thing that does not fit; [`BadInput::ColumnCount`] and [`BadInput::ColumnType`] are made for it.
    fn check(columns: &[Column]) -> Result<(), BadInput> {
        let _ = columns;
        Ok(())
    }

    /// Reads one row.
    ///
    /// # Errors
    /// Whatever keeps it from being read: the call's error is [`ErrorKind::Decode`] with this as its source. The statement
    /// itself has been executed by then.
    fn from_row(row: &Row) -> Result<Self, Box<dyn StdError + Send + Sync>>;
}

/// Reads a row that the server sent.
pub(super) fn read<T: FromRow>(row: &Row) -> Result<T, Error> {
    T::from_row(row)
        .map_err(|source| Error::new(ErrorKind::Decode, Outcome::Committed, Phase::Reading).with_source(source))
}

/// The column that could not be read.
#[derive(Debug)]
struct ColumnError {
    position: usize,
    name: String,
    given: String,
    wanted: &'static str,
    source: tokio_postgres::Error,
}

fn check_count(columns: &[Column], wanted: usize) -> Result<(), BadInput> {
    if columns.len() == wanted {
        return Ok(());
    }
    let given = columns.len();
    Err(BadInput::ColumnCount { wanted, given })
}

fn check_column<T: FromSqlOwned>(columns: &[Column], at: usize) -> Result<(), BadInput> {
    match columns.get(at) {
        Some(column) if !T::accepts(column.type_()) => Err(BadInput::ColumnType {
            position: at + 1,
            name: column.name().into(),
            given: column.type_().name().into(),
            wanted: type_name::<T>().into(),
        }),
        _ => Ok(()),
    }
}

fn column<T: FromSqlOwned>(row: &Row, at: usize) -> Result<T, ColumnError> {
    row.try_get(at).map_err(|source| {
        let column = row.columns().get(at);
        ColumnError {
            position: at + 1,
            name: column.map(|column| column.name().to_owned()).unwrap_or_default(),
            given: column
                .map(|column| column.type_().name().to_owned())
                .unwrap_or_default(),
            wanted: type_name::<T>(),
            source,
        }
    })
}

macro_rules! tuples {
    ($($count:literal: $($column:ident $at:literal),+;)*) => {$(
        impl<$($column: FromSqlOwned + Send + 'static),+> FromRow for ($($column,)+) {
            fn check(columns: &[Column]) -> Result<(), BadInput> {
                check_count(columns, $count)?;
                $(check_column::<$column>(columns, $at)?;)+
                Ok(())
            }

            fn from_row(row: &Row) -> Result<Self, Box<dyn StdError + Send + Sync>> {
                Ok(($(column::<$column>(row, $at)?,)+))
            }
        }
    )*};
}

tuples! {
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
    9: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8;
    10: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9;
    11: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10;
    12: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11;
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            position,
            name,
            given,
            wanted,
            ..
        } = self;
        write!(
            f,
            "column {position} (\"{name}\", PostgreSQL's {given}) cannot be read as a Rust {wanted}"
        )
    }
}

impl StdError for ColumnError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}
