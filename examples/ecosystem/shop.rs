//! Rust types for PostgreSQL's, by the derives of `postgres-types`, and rows into structs by `postgres-from-row`.

use std::error::Error as StdError;

use gdbpool::{BadInput, Column, Error, FromRow, InteractionPool, Row};
use postgres_types::{FromSql, ToSql, Type};

/// An enum: its labels are the variants.
#[derive(Clone, Copy, Debug, FromSql, PartialEq, Eq, ToSql)]
#[postgres(name = "mood", rename_all = "lowercase")]
pub(crate) enum Mood {
    Sad,
    Happy,
}

/// A composite type: its fields go by name.
#[derive(Clone, Debug, FromSql, PartialEq, Eq, ToSql)]
#[postgres(name = "address")]
pub(crate) struct Address {
    pub(crate) street: String,
    pub(crate) number: i32,
}

/// A domain. The server names it for a parameter, which is what the derive knows, and describes a column by the type
/// beneath, which the derive of `FromSql` would not take.
#[derive(Clone, Debug, PartialEq, Eq, ToSql)]
#[postgres(name = "email")]
pub(crate) struct Email(pub(crate) String);

impl<'a> FromSql<'a> for Email {
    fn from_sql(column: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        String::from_sql(column, raw).map(Self)
    }

    fn accepts(column: &Type) -> bool {
        <String as FromSql>::accepts(column)
    }
}

/// A row, its columns by name.
#[derive(Clone, Debug, PartialEq, Eq, postgres_from_row::FromRow)]
pub(crate) struct Customer {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) mood: Mood,
    pub(crate) address: Option<Address>,
    pub(crate) email: Email,
}

/// For [`typed`](gdbpool::Run::typed): whatever `postgres-from-row` can read.
///
/// What does not fit is found when the rows are read; `gdbpool::FromRow` written by hand can name it before anything runs.
pub(crate) struct ByName<T>(pub(crate) T);

impl<T: postgres_from_row::FromRow + Send + 'static> FromRow for ByName<T> {
    fn check(_: &[Column]) -> Result<(), BadInput> {
        Ok(())
    }

    fn from_row(row: &Row) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        Ok(Self(T::try_from_row(row)?))
    }
}

pub(crate) async fn add(db: &InteractionPool, customer: &Customer) -> Result<u64, Error> {
    let Customer {
        id,
        name,
        mood,
        address,
        email,
    } = customer;
    let insert = "INSERT INTO customers (id, name, mood, address, email) VALUES ($1, $2, $3, $4, $5)";
    let values: [&(dyn ToSql + Sync); 5] = [id, name, mood, address, email];
    db.run(insert).args(&values).execute().await
}

pub(crate) async fn all(db: &InteractionPool) -> Result<Vec<Customer>, Error> {
    let rows = db.run("SELECT * FROM customers ORDER BY id").read();
    let customers = rows.typed::<ByName<Customer>>().await?;
    Ok(customers.into_iter().map(|ByName(customer)| customer).collect())
}
