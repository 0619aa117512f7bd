//! Promise: behind PgBouncer everything works that the table at `PoolConfig::transaction_pooler` says, what cannot work is
//! refused by name, and no other client of the pooler ever sees anything of ours, wherever a call was dropped.
//!
//! On real servers and every runtime. In session mode the ordinary configuration works unchanged.

#[path = "pgbouncer/calls.rs"]
mod calls;
#[path = "pgbouncer/leaks.rs"]
mod leaks;
#[path = "pgbouncer/refused.rs"]
mod refused;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "pgbouncer/session_mode.rs"]
mod session_mode;
#[path = "pgbouncer/stage.rs"]
mod stage;
mod support;
#[path = "pgbouncer/trouble.rs"]
mod trouble;
