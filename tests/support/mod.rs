//! What the tests over real servers share: throwaway clusters, a proxy that misbehaves on request, waiting.
//!
//! Include it with `mod support;`. Nothing here knows the library under test; it uses only std, so that examples and
//! benches can take single files of it through `#[path]`.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test binary uses its own part of the support"
)]

mod cluster;
mod proxy;
mod shared;

pub(crate) use self::cluster::{
    Auth, Cluster, ClusterOptions, Mode, PgBouncer, Server, eventually, free_port, try_psql_at,
};
pub(crate) use self::proxy::Proxy;
pub(crate) use self::shared::{Pair, fresh_database, shared_cluster};
