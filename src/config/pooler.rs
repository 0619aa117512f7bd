//! What stands between the pool and its server: nothing, or a connection pooler that lends server connections by the
//! transaction; and what a pool may not ask for behind one.
//!
//! Values. How sessions behave behind a pooler is the session's.

use super::{OnConnect, PoolConfig};
use crate::error::{BadInput, Error};

/// How sessions reach the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// One session is one server connection for as long as it lives.
    #[default]
    Direct,
    /// Each transaction may run on another server connection; the pooler follows named statements over them.
    Tracked,
    /// Each transaction may run on another server connection, and a named statement stays behind on the one it was made on.
    Unnamed,
}

/// What was said about a pooler, in whatever order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pooler {
    transaction: bool,
    tracks_statements: bool,
}

impl Pooler {
    pub(crate) fn pooling(self) -> Pooling {
        match (self.transaction, self.tracks_statements) {
            (false, _) => Pooling::Direct,
            (true, false) => Pooling::Unnamed,
            (true, true) => Pooling::Tracked,
        }
    }
}

impl PoolConfig {
    /// Declares that the pool's address is that of a connection pooler which lends its server connections by the
    /// transaction: PgBouncer with `pool_mode = transaction`, PgCat, Odyssey, Supavisor, or a service's own. A pooler in
    /// *session* mode needs nothing of the kind.
    ///
    /// Nothing tells a client that such a pooler is there, and without this call, what the library does to keep sessions
    /// clean and fast reaches sessions of other clients. With it, nothing of the library's stays on a server connection:
    /// no setting, no named statement, no LISTEN, no clean-up of what is not ours. Default: off.
    ///
    /// # What changes
    ///
    /// | | behind a transaction pooler |
    /// |---|---|
    /// | `run(sql)`, all outputs | one statement, committed by itself, in one round trip after the first on a session; parsed anew by the server each time |
    /// | `.read()` | in `BEGIN READ ONLY` and `COMMIT`, in the same flight of bytes; a statement that the server refuses in a transaction block (`VACUUM`) cannot be read-only |
    /// | `.stream()` | the pooler lends its server connection until the stream's end |
    /// | `.batch()` | one simple message, as ever; what begins a transaction has to end it in the same text |
    /// | `.dry_run()`, `.typed()`, named parameters | as ever |
    /// | functions, `.partial()`, `.within()`, savepoints, cursors | as ever: a transaction stays on one server connection |
    /// | COPY on a [`Lease`](crate::Lease) or in a transaction | as ever |
    /// | `notify()` | as ever |
    /// | `listen_on()` | refused: [`ErrorKind::ListenUnsupported`](crate::ErrorKind::ListenUnsupported) |
    /// | [`setting`](Self::setting) but `application_name`, `options` in the connection string | refused when the pool is opened: poolers refuse unknown start-up parameters. `ALTER ROLE … SET` or `ALTER DATABASE … SET` serve instead |
    /// | [`on_connect`](Self::on_connect), [`on_connect_sql`](Self::on_connect_sql) | refused when the pool is opened |
    /// | `VACUUM`, `CREATE DATABASE`, `CREATE INDEX CONCURRENTLY` | `run` or `batch`, without `.read()` |
    /// | a [`Lease`](crate::Lease) | a connection to the pooler, not a session of the server: outside a transaction, each statement may run on another server connection, and nothing is kept between two of them |
    /// | [`backend_pid`](crate::Lease::backend_pid) | a number of the pooler's |
    ///
    /// Statements whose first words show that they change or use a session beyond their transaction are refused before they
    /// are sent, with [`BadInput::SessionState`]: `SET` without `LOCAL`, `RESET`, `LISTEN`, `UNLISTEN`, `PREPARE`,
    /// `DEALLOCATE`, `DISCARD`, `LOAD`, temporary tables without `ON COMMIT DROP`, `DECLARE … WITH HOLD`, session-level
    /// advisory locks. What hides in functions is not seen: `set_config(…, false)`, `nextval` for a later `currval`, a
    /// procedure that takes an advisory lock; nor is what goes through [`Lease::raw`](crate::Lease::raw). Those stay behind on a server connection that the next client gets. Use
    /// `SET LOCAL`, `set_config(…, true)` and `pg_advisory_xact_lock`, in a function.
    ///
    /// # Timeouts
    ///
    /// A pooler queues what it has no server connection for. [`ping_timeout`](Self::ping_timeout) and
    /// [`settle_timeout`](Self::settle_timeout) have to be longer than that queue: a session that does not answer in time is
    /// closed. A statement that waits in the pooler cannot be cancelled there.
    ///
    /// ```
    /// use gdbpool::PoolConfig;
    ///
    /// let config = PoolConfig::new("main", "host=pgbouncer port=6432 user=app dbname=shop")?.transaction_pooler();
    /// # Ok::<(), gdbpool::Error>(())
    /// ```
    #[must_use]
    pub fn transaction_pooler(mut self) -> Self {
        self.pooler.transaction = true;
        self
    }

    /// Declares that the pooler of [`transaction_pooler`](Self::transaction_pooler) follows prepared statements over its
    /// server connections: PgBouncer 1.21 and later with `max_prepared_statements` above 0. Default: off.
    ///
    /// Statements are then parsed once, as without a pooler, and kept by name. Where the pooler does not do so, statements
    /// fail with SQLSTATE 26000 or 42P05. After a change to a table, PgBouncer gives out the old plan until its server
    /// connections are renewed (`RECONNECT`), and `SELECT *` fails with SQLSTATE 0A000 for so long; without this
    /// declaration it does not.
    #[must_use]
    pub fn pooler_tracks_statements(mut self) -> Self {
        self.pooler.tracks_statements = true;
        self
    }

    /// Names the first setting that cannot be kept behind a pooler.
    pub(super) fn check_pooler(&self) -> Result<(), Error> {
        let refused = |what: &str, why: &str| {
            let reason = format!("pool \"{}\": {what}, and {why}", self.name);
            Err(Error::bad_input(BadInput::Conflict { reason }))
        };
        if self.pooler.pooling() == Pooling::Direct {
            return match self.pooler.tracks_statements {
                true => refused("pooler_tracks_statements is set", "transaction_pooler is not"),
                false => Ok(()),
            };
        }
        const SHARED: &str =
            "transaction_pooler shares its sessions with other clients: what one begins with cannot be kept";
        if let Some(step) = self.on_connect.first() {
            return match step {
                OnConnect::Hook(_) => refused("on_connect is set", SHARED),
                OnConnect::Sql(_) => refused("on_connect_sql is set", SHARED),
            };
        }
        const START_UP: &str = "poolers refuse start-up options: use ALTER ROLE … SET or ALTER DATABASE … SET";
        let of_sessions = |(name, _): &&(String, String)| !name.eq_ignore_ascii_case("application_name");
        if let Some((name, _)) = self.settings.iter().find(of_sessions) {
            return refused(
                &format!("setting \"{name}\" is given with transaction_pooler"),
                START_UP,
            );
        }
        let options = self.target.start_up.options.as_deref();
        if options.is_some_and(|options| !options.trim().is_empty()) {
            return refused("options are given for the start-up, with transaction_pooler", START_UP);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{PoolConfig, Pooling};

    fn config(more: &str) -> PoolConfig {
        PoolConfig::new("shop", &format!("host=a user=u {more}")).expect("a sound DSN")
    }

    #[test]
    fn what_a_pooler_cannot_keep_is_named_with_its_pool() {
        let hook = |_| async { Ok::<(), crate::Error>(()) };
        for (config, names) in [
            (
                config("").transaction_pooler().on_connect_sql("SET a.b = 'c'"),
                "on_connect_sql",
            ),
            (config("").transaction_pooler().on_connect(hook), "on_connect is"),
            (
                config("").transaction_pooler().setting("search_path", "a"),
                "search_path",
            ),
            (config("options='-c geqo=off'").transaction_pooler(), "options"),
            (config("").pooler_tracks_statements(), "pooler_tracks_statements"),
        ] {
            let text = config.check().expect_err(names).to_string();
            assert!(text.contains(names) && text.contains("\"shop\""), "{text}");
        }
    }

    #[test]
    fn the_declarations_come_in_any_order() {
        let pooling = |config: PoolConfig| {
            config.check().expect("sound settings");
            config.pooler.pooling()
        };
        assert_eq!(pooling(config("").setting("search_path", "a")), Pooling::Direct);
        assert_eq!(
            pooling(config("").transaction_pooler().application_name("a")),
            Pooling::Unnamed
        );
        let both = config("").pooler_tracks_statements().transaction_pooler();
        assert_eq!(pooling(both), Pooling::Tracked);
    }
}
