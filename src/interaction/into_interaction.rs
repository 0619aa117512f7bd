//! What `run` takes: SQL text, or a function over a transaction.
//!
//! Between the user's handle and the two builders. It only tells them apart, by type.

use std::borrow::Cow;
use std::panic::Location;
use std::sync::Arc;

use super::function::Transact;
use super::run::Run;
use super::transaction::Transaction;
use crate::error::Error;
use crate::route::NamedPools;

/// What [`InteractionPool::run`](crate::InteractionPool::run) takes: SQL text of any kind, or a function of a
/// [`Transaction`]. Implemented by the library only.
///
/// The second parameter tells the two apart and is always inferred.
pub trait IntoInteraction<'db, Kind>: sealed::Sealed<Kind> {
    /// The builder it turns into: [`Run`](crate::Run) or [`Transact`](crate::Transact).
    type Interaction;

    #[doc(hidden)]
    fn into_interaction(self, db: Door<'db>, at: &'static Location<'static>) -> Self::Interaction;
}

/// The pools, on their way to a builder.
#[derive(Debug)]
pub struct Door<'db>(pub(crate) &'db Arc<NamedPools>);

/// Marks SQL text.
#[derive(Debug)]
pub struct Sql(());

/// Marks functions.
#[derive(Debug)]
pub struct Function<Fut>(std::marker::PhantomData<Fut>);

mod sealed {
    #[expect(unnameable_types, reason = "the sealing trait of IntoInteraction")]
    pub trait Sealed<Kind> {}
}

macro_rules! sql_text {
    ($($text:ty),*) => {$(
        impl<'v> sealed::Sealed<Sql> for $text {}
        impl<'db, 'v> IntoInteraction<'db, Sql> for $text {
            type Interaction = Run<'db, 'v>;

            fn into_interaction(self, db: Door<'db>, at: &'static Location<'static>) -> Run<'db, 'v> {
                Run::new(db.0, Cow::from(self), at)
            }
        }
    )*};
}

sql_text!(&'v str, &'v String, Cow<'v, str>);

impl sealed::Sealed<Sql> for String {}
impl<'db> IntoInteraction<'db, Sql> for String {
    type Interaction = Run<'db, 'static>;

    fn into_interaction(self, db: Door<'db>, at: &'static Location<'static>) -> Run<'db, 'static> {
        Run::new(db.0, Cow::Owned(self), at)
    }
}

impl<F, Fut, T> sealed::Sealed<Function<Fut>> for F
where
    F: FnMut(Transaction) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
}

impl<'db, F, Fut, T> IntoInteraction<'db, Function<Fut>> for F
where
    F: FnMut(Transaction) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    type Interaction = Transact<'db, 'static, F>;

    fn into_interaction(self, db: Door<'db>, at: &'static Location<'static>) -> Transact<'db, 'static, F> {
        Transact::new(db.0, self, at)
    }
}
