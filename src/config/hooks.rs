//! What a pool asks its owner for, or runs for it: passwords at each dial, and what a session begins with.
//!
//! Values: texts and boxed functions, kept until the session calls them. Nothing here runs anything.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PoolConfig;
use crate::error::Error;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// For which session a password is asked for; see [`PoolConfig::password_from`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PasswordRequest {
    /// The pool's name.
    pub pool: Arc<str>,
    /// The host, or the directory of the Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The database, if the connection string names one.
    pub dbname: Option<String>,
}

/// A session on its way into the pool, for an [`on_connect`](PoolConfig::on_connect) hook.
///
/// Cheap to clone. It ends with the hook: calls through a clone that was taken along fail with
/// [`ErrorKind::LeaseEnded`](crate::ErrorKind::LeaseEnded).
#[derive(Clone)]
pub struct Setup {
    session: Arc<dyn SetupSession>,
}

/// What stands behind a [`Setup`].
pub(crate) trait SetupSession: Send + Sync {
    fn batch<'a>(&'a self, sql: &'a str) -> Boxed<'a, Result<(), Error>>;
    fn query<'a>(&'a self, sql: &'a str, args: &'a [&'a (dyn ToSql + Sync)]) -> Boxed<'a, Result<Vec<Row>, Error>>;
    fn execute<'a>(&'a self, sql: &'a str, args: &'a [&'a (dyn ToSql + Sync)]) -> Boxed<'a, Result<u64, Error>>;
    fn pid(&self) -> i32;
}

/// One thing that is run on each new session, and again after each full clean-up.
#[derive(Clone)]
pub(crate) enum OnConnect {
    Hook(Hook),
    Sql(Arc<str>),
}

/// A function over a [`Setup`].
#[derive(Clone)]
pub(crate) struct Hook(Arc<dyn Fn(Setup) -> Boxed<'static, Result<(), AnyError>> + Send + Sync>);

/// A function that gives passwords.
#[derive(Clone)]
pub(crate) struct PasswordSource(
    Arc<dyn Fn(PasswordRequest) -> Boxed<'static, Result<String, AnyError>> + Send + Sync>,
);

/// A function of the user's panicked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panicked;

impl PoolConfig {
    /// SQL that is run on each new session before anybody gets it, and again after each full clean-up, so that what it
    /// sets survives: a session always returns to this state. Several statements may be given, separated by semicolons, and
    /// several texts, which run in order. Default none; the cost is one round trip per connect, and one more request per
    /// clean-up, in the background.
    ///
    /// When it fails on a new session, no session is made, and the connect error names the text; when it fails after a
    /// clean-up, the session is closed. It runs outside a transaction, and must not leave one open. Plain settings are
    /// better given with [`setting`](Self::setting), which costs nothing, and `default_transaction_read_only` only there.
    #[must_use]
    pub fn on_connect_sql(mut self, sql: impl Into<String>) -> Self {
        self.on_connect.push(OnConnect::Sql(Arc::from(sql.into())));
        self
    }

    /// Like [`on_connect_sql`](Self::on_connect_sql), with a function that may look before it acts. Texts and functions run
    /// in the order they were given.
    ///
    /// It has the connect's deadline on a new session, and the settling's after a clean-up. It must leave the session
    /// outside a transaction, with every answer read. A panic in it is a failure of its session and nothing else.
    ///
    /// ```
    /// # gdbpool_sim::doc::with_runtime(async |runtime| {
    /// use gdbpool::{PoolConfig, Setup};
    ///
    /// let config = PoolConfig::new("primary", "host=db1 user=app dbname=shop")?.on_connect(|setup: Setup| async move {
    ///     let tenants = setup.query("SELECT schema FROM tenants WHERE host = $1", &[&"db1"]).await?;
    ///     for tenant in tenants {
    ///         setup.execute("SELECT set_config('search_path', $1, false)", &[&tenant.get::<_, &str>(0)]).await?;
    ///     }
    ///     Ok::<(), gdbpool::Error>(())
    /// });
    /// # let db = gdbpool::InteractionPool::builder(runtime).pool(config).open().await?;
    /// # assert_eq!(db.run("SHOW search_path").scalar::<String>().await?, "tenant1");
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn on_connect<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: Fn(Setup) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<AnyError> + 'static,
    {
        let hook = Arc::new(hook);
        let boxed = move |setup| -> Boxed<'static, Result<(), AnyError>> {
            let hook = Arc::clone(&hook);
            Box::pin(guarded(async move { hook(setup).await }))
        };
        self.on_connect.push(OnConnect::Hook(Hook(Arc::new(boxed))));
        self
    }

    /// Asks `source` for the password at each dial, instead of the one in the connection string: for tokens that rotate.
    ///
    /// It is called once for each host that a dial tries, before the host is connected to, and has the connect's deadline
    /// with it. When it fails or panics, that is a connect error with its error as the source. The password is shown nowhere.
    ///
    /// ```
    /// use gdbpool::PoolConfig;
    ///
    /// let config = PoolConfig::new("primary", "host=db1 user=app dbname=shop")?
    ///     .password_from(|_request| async { std::fs::read_to_string("/run/secrets/db-token") });
    /// # Ok::<(), gdbpool::Error>(())
    /// ```
    #[must_use]
    pub fn password_from<F, Fut, E>(mut self, source: F) -> Self
    where
        F: Fn(PasswordRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<AnyError> + 'static,
    {
        let source = Arc::new(source);
        let boxed = move |request| -> Boxed<'static, Result<String, AnyError>> {
            let source = Arc::clone(&source);
            Box::pin(guarded(async move { source(request).await }))
        };
        self.password = Some(PasswordSource(Arc::new(boxed)));
        self
    }
}

/// A panic becomes an error: it would end the task that dials, or drives the session.
async fn guarded<T, E: Into<AnyError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, AnyError> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(Box::new(Panicked)),
    }
}

impl Setup {
    pub(crate) fn new(session: Arc<dyn SetupSession>) -> Self {
        Self { session }
    }

    /// Runs one or more statements without parameters.
    ///
    /// # Errors
    /// The server's, or the session's end.
    ///
    /// # Cancel safety
    /// No: a future dropped before its answer fails the hook, and with it the session.
    pub async fn batch(&self, sql: &str) -> Result<(), Error> {
        self.session.batch(sql).await
    }

    /// Runs one statement and gives its rows.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    ///
    /// # Cancel safety
    /// As [`batch`](Self::batch).
    pub async fn query(&self, sql: &str, args: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.session.query(sql, args).await
    }

    /// Runs one statement and gives the number of rows it concerned.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    ///
    /// # Cancel safety
    /// As [`batch`](Self::batch).
    pub async fn execute(&self, sql: &str, args: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.session.execute(sql, args).await
    }

    /// The process id of the server's backend.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.session.pid()
    }
}

impl Hook {
    pub(crate) fn call(&self, setup: Setup) -> Boxed<'static, Result<(), AnyError>> {
        (self.0)(setup)
    }
}

impl PasswordSource {
    pub(crate) fn ask(&self, request: PasswordRequest) -> Boxed<'static, Result<String, AnyError>> {
        (self.0)(request)
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("pid", &self.backend_pid())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the function panicked")
    }
}

impl std::error::Error for Panicked {}
