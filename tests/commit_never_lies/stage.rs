//! A scripted server of one pool that knows what it committed, and the judgement of what a call said about it.
//!
//! Below the tests in virtual time. The truth is the server's: the writes of transactions that it committed.

use std::time::Duration;

use gdbpool::{Error, InteractionPool, Outcome};
use gdbpool_sim::{Answer, PipeControl, PipeOptions, ScriptedServer, Sim, Type, Value};

use super::scripted;

/// The write whose fate is asked for, with and without parameters.
pub(crate) const WRITE: &str = "INSERT INTO t VALUES (1)";
pub(crate) const BOUND: &str = "INSERT INTO t VALUES ($1)";
pub(crate) const READ: &str = "SELECT n FROM t";
/// The first part of the message with COMMIT in it.
pub(crate) const XID: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned()";

pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
pub(crate) const GRACE: Duration = Duration::from_millis(250);

pub(crate) struct Stage {
    pub(crate) sim: Sim,
    pub(crate) server: ScriptedServer,
    pub(crate) db: InteractionPool,
}

impl Stage {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_capacity(seed, PipeOptions::default().capacity)
    }

    /// A link of so many bytes: with one byte, a client knows how many the other end has taken.
    pub(crate) fn with_capacity(seed: u64, capacity: usize) -> Self {
        let sim = Sim::new(seed);
        sim.set_pipe_options(PipeOptions {
            capacity,
            ..PipeOptions::default()
        });
        let server = scripted::server(&sim, 1);
        server.on(WRITE, Answer::tag("INSERT 0 1"));
        server.on(BOUND, Answer::tag("INSERT 0 1").typed(&[Type::Int4]));
        server.on(READ, Answer::rows(&[("n", Type::Int4)], vec![vec![Value::Int(7)]]));
        let xid = [("pg_current_xact_id_if_assigned", Type::Text)];
        server.on(XID, Answer::rows(&xid, vec![vec![Value::Text("742".into())]]));
        let config = scripted::config("one", 1)
            .size(1)
            .cancel_grace(GRACE)
            .connect_backoff(Duration::from_millis(10), Duration::from_millis(100));
        let db = sim.block_on(InteractionPool::builder(sim.runtime()).pool(config).open());
        Self {
            db: db.expect("sound settings"),
            sim,
            server,
        }
    }

    /// A session is there and idle, and has nothing of the case in its cache.
    pub(crate) fn warm(&self) {
        let one = self.db.pool("one").expect("a pool");
        drop(self.sim.block_on(one.checkout()).expect("a session"));
        self.sim.advance(Duration::from_millis(60));
    }

    /// The link of the session that was made last.
    pub(crate) fn link(&self) -> PipeControl {
        self.server.session_control(self.server.sessions().len() - 1)
    }

    /// How often the case's write was committed. Whatever is under way has come to its end.
    pub(crate) fn truth(&self) -> usize {
        self.sim.advance(Duration::from_secs(20));
        let sessions = self.server.sessions();
        let committed = sessions.iter().flat_map(|session| &session.committed);
        committed.filter(|sql| [WRITE, BOUND].contains(&sql.as_str())).count()
    }

    /// Whether the server was asked to commit.
    pub(crate) fn was_asked_to_commit(&self) -> bool {
        let sessions = self.server.sessions();
        sessions
            .iter()
            .any(|session| session.statements.iter().any(|sql| sql == "COMMIT"))
    }

    /// The slots are back and the next call succeeds on a clean session.
    pub(crate) fn is_left_clean(&self) {
        self.sim.advance(Duration::from_secs(20));
        let status = &self.db.status()[0];
        assert!(status.idle == status.size && status.waiting == 0, "{status}");
        self.server.release();
        let next = self.sim.block_on(self.db.run(READ).timeout(DEADLINE).into_future());
        assert_eq!(next.expect("a healthy server").len(), 1);
        self.sim.advance(Duration::from_secs(1));
        for session in self.server.sessions().iter().filter(|session| !session.closed) {
            assert_eq!(session.status, 'I', "{session:?}");
        }
        assert_eq!(self.server.violations(), [""; 0]);
    }
}

/// What a call said of its work.
pub(crate) fn said<T>(result: &Result<T, Error>) -> Outcome {
    result.as_ref().err().map_or(Outcome::Committed, Error::outcome)
}

/// Holds what a call said against the truth.
///
/// # Panics
/// When it lied.
pub(crate) fn judge<T: std::fmt::Debug>(result: &Result<T, Error>, truth: usize, case: &str) {
    assert!(truth <= 1, "{case}: the write was committed {truth} times: {result:?}");
    match said(result) {
        Outcome::Committed => assert_eq!(truth, 1, "{case}: false \"committed\": {result:?}"),
        Outcome::RolledBack | Outcome::NotExecuted => assert_eq!(truth, 0, "{case}: false \"undone\": {result:?}"),
        _ => {}
    }
    if let Err(error) = result {
        let safe = error.is_retryable();
        assert!(!(safe && truth != 0), "{case}: false \"safe\": {error:?}");
        let unknown = error.outcome() == Outcome::Unknown;
        let code = error.sqlstate().map(|state| state.code().to_owned());
        let public = matches!(code.as_deref(), Some("08007" | "40003"));
        assert_eq!(
            unknown,
            public && !safe,
            "{case}: a lost outcome has a code of its own: {error:?}"
        );
    }
}
