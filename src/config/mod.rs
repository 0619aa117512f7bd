//! Settings of a pool: what each means, its unit, bounds, default and cost.
//!
//! Values, checked once, when the pool is opened; nothing here does I/O. The whole list of bounds of the library stands
//! in [`PoolConfig`].

mod check;
mod conninfo;
mod environment;
#[cfg(fuzzing)]
mod fuzz;
mod hooks;
mod pooler;
mod resolve;
mod socket;
pub(crate) mod target;
mod tls;

pub use self::environment::Environment;
#[cfg(fuzzing)]
pub use self::fuzz::fuzz_dsn;
pub(crate) use self::hooks::{OnConnect, PasswordSource, SetupSession};
pub use self::hooks::{PasswordRequest, Setup};
pub(crate) use self::pooler::{Pooler, Pooling};
pub use self::socket::SocketOptions;
pub use self::target::TlsVersion;
pub use self::tls::{TlsConnection, TlsHandshake, TlsRequest, TlsVerification};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::target::Target;
use crate::error::{BadInput, Error};

const DAY: Duration = Duration::from_secs(86_400);

/// How one named pool is made: where its sessions go and every bound it keeps.
///
/// Values outside their bounds are reported, by the setting's name, when the pool is opened or added.
///
/// ```
/// use std::time::Duration;
/// use gdbpool::PoolConfig;
///
/// let config = PoolConfig::new("primary", "host=db1 user=app dbname=shop")?
///     .size(10)
///     .checkout_timeout(Duration::from_secs(5))
///     .default_write();
/// assert_eq!(config.name(), "primary");
/// # Ok::<(), gdbpool::Error>(())
/// ```
#[derive(Clone)]
pub struct PoolConfig {
    pub(crate) name: Arc<str>,
    pub(crate) target: Target,
    pub(crate) max: u32,
    pub(crate) min: u32,
    pub(crate) duties: Duties,
    pub(crate) max_connecting: u32,
    pub(crate) max_waiters: u32,
    pub(crate) checkout_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) ping_after: Option<Duration>,
    pub(crate) ping_timeout: Duration,
    pub(crate) hold_warning: Option<Duration>,
    pub(crate) settle_timeout: Duration,
    pub(crate) cancel_after: Duration,
    pub(crate) cancel_grace: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) answer_timeout: Option<Duration>,
    pub(crate) pin_timeout: Duration,
    pub(crate) interaction_timeout: Option<Duration>,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) statement_cache: (usize, usize),
    pub(crate) listen_capacity: usize,
    pub(crate) listen_heartbeat: Duration,
    pub(crate) listen_self_test: bool,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) on_connect: Vec<OnConnect>,
    pub(crate) password: Option<PasswordSource>,
    pub(crate) shed: Option<(Duration, Duration)>,
    pub(crate) tls: Option<Arc<dyn TlsHandshake>>,
    pub(crate) pooler: Pooler,
}

/// For which interactions a pool stands by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Duties {
    pub(crate) default: bool,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl PoolConfig {
    /// A pool named `name` of sessions to the node that `dsn` names, in libpq's keyword or URI form.
    ///
    /// `dsn` has to name the user. Without a host it means `localhost`, without a port 5432. The page
    /// [`connecting`](crate::connecting) lists every key. Neither the environment nor the user's files are looked at, for
    /// which there is [`from_environment`](Self::from_environment): only the files of certificates that `dsn` names are
    /// read, here and once, which may block.
    ///
    /// # Errors
    /// [`BadInput::Name`] for a name that is empty or holds a NUL, [`BadInput::Dsn`] for a connection string that cannot be
    /// used; the message names the key, never its value (but the path of a file that cannot be used).
    pub fn new(name: &str, dsn: &str) -> Result<Self, Error> {
        check_name(name)?;
        Ok(Self::with_target(name, resolve::target(dsn, None)?))
    }

    /// Like [`new`](Self::new), with all that a libpq program takes from its surroundings: what `dsn` (which may be empty)
    /// does not say is taken from the service it names, then from the environment's variables; the password from the
    /// password file, for each host; certificates from `~/.postgresql`; the user's name from the system.
    ///
    /// The files are read here and once, which may block: call it where an application starts.
    ///
    /// ```no_run
    /// use gdbpool::{Environment, PoolConfig};
    ///
    /// let config = PoolConfig::from_environment("primary", "", &Environment::read()?)?.size(10);
    /// # Ok::<(), gdbpool::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new); the message also names the variable a bad value came from, or the line of the service file. A
    /// password file that others may read is ignored with a warning, as libpq does.
    pub fn from_environment(name: &str, dsn: &str, environment: &Environment) -> Result<Self, Error> {
        check_name(name)?;
        Ok(Self::with_target(
            name,
            resolve::target(dsn, Some(&environment.sources))?,
        ))
    }

    fn with_target(name: &str, target: Target) -> Self {
        // One attempt for each host, at least; the default covers short ones.
        let hosts = u32::try_from(target.hosts.len()).unwrap_or(u32::MAX);
        let all_hosts = target.connect_timeout.unwrap_or_default().saturating_mul(hosts);
        let connect_timeout = all_hosts.clamp(Duration::from_secs(10), DAY);
        Self {
            name: Arc::from(name),
            target,
            max: 10,
            min: 0,
            duties: Duties::default(),
            max_connecting: 4,
            max_waiters: 10_000,
            checkout_timeout: Duration::from_secs(30),
            connect_timeout,
            max_lifetime: Some(Duration::from_secs(30 * 60)),
            idle_timeout: Some(Duration::from_secs(10 * 60)),
            ping_after: Some(Duration::from_millis(500)),
            ping_timeout: Duration::from_secs(2),
            hold_warning: Some(Duration::from_secs(60)),
            settle_timeout: Duration::from_secs(5),
            cancel_after: Duration::from_millis(1),
            cancel_grace: Duration::from_millis(500),
            close_timeout: Duration::from_secs(2),
            answer_timeout: Some(Duration::from_secs(3_600)),
            pin_timeout: Duration::from_secs(60),
            interaction_timeout: Some(Duration::from_secs(3_600)),
            backoff: (Duration::from_millis(100), Duration::from_secs(10)),
            statement_cache: (256, 1 << 20),
            listen_capacity: 1_024,
            listen_heartbeat: Duration::from_secs(5),
            listen_self_test: true,
            settings: Vec::new(),
            on_connect: Vec::new(),
            password: None,
            shed: None,
            tls: None,
            pooler: Pooler::default(),
        }
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most sessions, counting those being opened and closed. 1 to 10,000; default 10.
    #[must_use]
    pub fn size(mut self, max: u32) -> Self {
        self.max = max;
        self
    }

    /// Sessions kept open even when idle. 0 to [`size`](Self::size); default 0.
    #[must_use]
    pub fn min_size(mut self, min: u32) -> Self {
        self.min = min;
        self
    }

    /// Makes this pool the one that `run()` uses when nothing else is said. The first pool is, without it.
    ///
    /// Such a pool takes writes, so it may not be a read pool only.
    #[must_use]
    pub fn default_pool(mut self) -> Self {
        self.duties.default = true;
        self
    }

    /// Makes this pool the one that writes go to. Without any, writes go to the default pool.
    #[must_use]
    pub fn default_write(mut self) -> Self {
        self.duties.write = true;
        self
    }

    /// Adds this pool to the set that `.read()` is balanced over. Without any, reads go to the default pool.
    #[must_use]
    pub fn default_read(mut self) -> Self {
        self.duties.read = true;
        self
    }

    /// How many sessions may be dialled at once. 1 to 1,000; default 4. A higher number fills the pool faster and hits
    /// the server harder after an outage.
    #[must_use]
    pub fn max_connecting(mut self, dials: u32) -> Self {
        self.max_connecting = dials;
        self
    }

    /// How many callers may queue; one more is refused at once. 1 to 1,000,000; default 10,000.
    #[must_use]
    pub fn max_waiters(mut self, waiters: u32) -> Self {
        self.max_waiters = waiters;
        self
    }

    /// Sheds load: when for a whole `interval` no session was idle and nobody in the queue was served within `target`,
    /// callers are refused with [`ErrorKind::Shed`](crate::ErrorKind::Shed) once they have waited longer than `target`, the
    /// oldest first, until an interval passes without any. At least 1 ms each, `interval` not below `target` and at most 1
    /// day; default off. A target near the longest wait that is of use to a caller, and an interval of a few times that,
    /// keep a pool that cannot keep up serving those it still can.
    #[must_use]
    pub fn shed(mut self, target: Duration, interval: Duration) -> Self {
        self.shed = Some((target, interval));
        self
    }

    /// How long a checkout may take, queue and validation together. 1 ms to 1 day; default 30 s. From 1 s on taken with a
    /// clock that may lag by 50 ms.
    #[must_use]
    pub fn checkout_timeout(mut self, span: Duration) -> Self {
        self.checkout_timeout = span;
        self
    }

    /// How long the whole of a connect may take, over all hosts: look-up, dial, encryption, start-up, authentication. 1 ms to
    /// 1 day; default 10 s, or the connection string's `connect_timeout`, which is for each address that is tried, times the
    /// number of hosts, if that is more.
    #[must_use]
    pub fn connect_timeout(mut self, span: Duration) -> Self {
        self.connect_timeout = span;
        self
    }

    /// Age at which a session is closed once nobody uses it; up to a tenth is taken off at its birth, at random, so that
    /// sessions opened together do not end together. At least 1 s; default 30 min; `None` never closes for age.
    #[must_use]
    pub fn max_lifetime(mut self, span: Option<Duration>) -> Self {
        self.max_lifetime = span;
        self
    }

    /// How long a session beyond [`min_size`](Self::min_size) may stay unused before it is closed. At least 1 ms; default
    /// 10 min; `None` keeps it.
    #[must_use]
    pub fn idle_timeout(mut self, span: Option<Duration>) -> Self {
        self.idle_timeout = span;
        self
    }

    /// A session unused for this long is asked for a sign of life before it is leased: one round trip. Any span; default
    /// 500 ms; zero always asks, `None` never. Taken with a clock that may lag by 50 ms.
    #[must_use]
    pub fn ping_after(mut self, span: Option<Duration>) -> Self {
        self.ping_after = span;
        self
    }

    /// How long that sign of life may take before the session is closed and another one taken. 1 ms to 1 day; default 2 s.
    #[must_use]
    pub fn ping_timeout(mut self, span: Duration) -> Self {
        self.ping_timeout = span;
        self
    }

    /// A session held for longer is reported once, with the place that took it, as a warning and in the pool's status.
    /// At least 1 ms; default 60 s; `None` never reports.
    #[must_use]
    pub fn hold_warning(mut self, span: Option<Duration>) -> Self {
        self.hold_warning = span;
        self
    }

    /// How long a returned session may take to prove clean (cancelling, draining, clean-up) before it is closed.
    /// 1 ms to 1 day; default 5 s.
    #[must_use]
    pub fn settle_timeout(mut self, span: Duration) -> Self {
        self.settle_timeout = span;
        self
    }

    /// How long a statement whose future was dropped may go on before a cancel request is sent. Up to 1 day; default
    /// 1 ms. Zero cancels at once, at the price of a connection to the server per dropped statement.
    #[must_use]
    pub fn cancel_after(mut self, span: Duration) -> Self {
        self.cancel_after = span;
        self
    }

    /// How long a call whose deadline passed, or that was cancelled, waits for the server's last word on a write: a late
    /// success counts, and a confirmed cancel is "rolled back"; without either the outcome is unknown. Up to 1 day;
    /// default 500 ms.
    #[must_use]
    pub fn cancel_grace(mut self, span: Duration) -> Self {
        self.cancel_grace = span;
        self
    }

    /// How long a session may take to say goodbye before its connection is dropped. 1 ms to 1 day; default 2 s.
    #[must_use]
    pub fn close_timeout(mut self, span: Duration) -> Self {
        self.close_timeout = span;
        self
    }

    /// How long a pinned transaction may stay open, unless its call says otherwise. 1 ms to 1 day; default 60 s.
    ///
    /// Then it is rolled back, whoever holds it; see [`PinnedTransaction`](crate::PinnedTransaction).
    #[must_use]
    pub fn pin_timeout(mut self, span: Duration) -> Self {
        self.pin_timeout = span;
        self
    }

    /// How long a call on a [`Lease`](crate::Lease), or the next piece of a stream or a COPY, may keep its caller waiting. At
    /// least 1 ms; default 1 hour; `None` waits for ever. What is still under way then is cancelled when the lease ends.
    #[must_use]
    pub fn answer_timeout(mut self, span: Option<Duration>) -> Self {
        self.answer_timeout = span;
        self
    }

    /// How long an interaction may take, checkout included, unless it says otherwise. At least 1 ms; default 1 hour, so that
    /// a peer that fell silent does not hold its caller for ever; `None` bounds only the checkout.
    #[must_use]
    pub fn interaction_timeout(mut self, span: Option<Duration>) -> Self {
        self.interaction_timeout = span;
        self
    }

    /// Pauses between failed attempts to connect: drawn at random from nearly nothing up to `base`, doubling with each
    /// failure up to `cap`. 1 ms to 1 day each; default 100 ms and 10 s.
    #[must_use]
    pub fn connect_backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.backoff = (base, cap);
        self
    }

    /// Bounds of each session's cache of prepared statements: how many, and how many bytes of text. Any numbers; default
    /// 256 and 1 MiB; zero entries prepares anew each time.
    #[must_use]
    pub fn statement_cache(mut self, entries: usize, bytes: usize) -> Self {
        self.statement_cache = (entries, bytes);
        self
    }

    /// How many events may wait in a subscription's queue, unless it says otherwise; a further notification is dropped, and
    /// a [`Gap`](crate::ListenEvent::Gap) tells it. 1 to 1,000,000; default 1,024. A notification takes up to 8 kB.
    #[must_use]
    pub fn listen_capacity(mut self, events: usize) -> Self {
        self.listen_capacity = events;
        self
    }

    /// A listener's connection that was silent for so long is asked for a sign of life, which may take
    /// [`ping_timeout`](Self::ping_timeout): together the longest time for which a dead link goes unnoticed. 1 ms to 1 day;
    /// default 5 s. Costs one round trip per interval.
    ///
    /// While there are subscriptions, a pool's listener has one connection of its own to the server, beyond
    /// [`size`](Self::size).
    #[must_use]
    pub fn listen_heartbeat(mut self, interval: Duration) -> Self {
        self.listen_heartbeat = interval;
        self
    }

    /// Whether a listener, once per connection, has a notification sent to itself from another connection: one that does not
    /// arrive within [`ping_timeout`](Self::ping_timeout) shows that a pooler voids LISTEN. Default true. Costs one short
    /// connection to the server.
    #[must_use]
    pub fn listen_self_test(mut self, on: bool) -> Self {
        self.listen_self_test = on;
        self
    }

    /// A server setting that every session of this pool starts with and returns to, such as `search_path` or
    /// `statement_timeout`. Sent at start-up.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.settings.push((name.into(), value.into()));
        self
    }

    /// The name the server shows for the pool's sessions, in `pg_stat_activity`. Default `gdbpool`.
    #[must_use]
    pub fn application_name(self, name: &str) -> Self {
        self.setting("application_name", name)
    }

    /// Socket settings of the pool's TCP connections, instead of those in the connection string.
    #[must_use]
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.target.socket = options;
        self
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::bad_input(BadInput::Name {
            what: "pool",
            name: name.into(),
        }));
    }
    Ok(())
}

impl fmt::Debug for PoolConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolConfig")
            .field("name", &self.name)
            .field("hosts", &self.target.hosts)
            .field("user", &self.target.user)
            .field("dbname", &self.target.dbname)
            .field("size", &self.max)
            .field("min_size", &self.min)
            .finish_non_exhaustive()
    }
}
