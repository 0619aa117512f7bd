//! What a connection beside a pool's own needs to know of the pool: how to dial, the bounds to keep, when to end.
//!
//! For the listener, whose connections are in no ledger and take no slot. Values only; it keeps no pool open.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::cancel::Cancel;
use crate::runtime::Runtime;
use crate::session::DialPlan;

#[derive(Clone)]
pub(crate) struct Beside {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) plan: DialPlan,
    /// The pool's.
    pub(crate) name: Arc<str>,
    /// Set when the pool is closed.
    pub(crate) closed: Cancel,
    pub(crate) connect_timeout: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) listen_heartbeat: Duration,
    pub(crate) listen_self_test: bool,
}

impl Beside {
    pub(super) fn of(shared: &Shared) -> Self {
        let config = &shared.config;
        Self {
            runtime: Arc::clone(&shared.runtime),
            plan: shared.plan.clone(),
            name: Arc::clone(&config.name),
            closed: shared.closed.clone(),
            connect_timeout: config.connect_timeout,
            ping_timeout: config.ping_timeout,
            close_timeout: config.close_timeout,
            backoff: config.backoff,
            listen_heartbeat: config.listen_heartbeat,
            listen_self_test: config.listen_self_test,
        }
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside")
            .field("name", &self.name)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}
