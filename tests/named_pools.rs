//! Promise: named pools do what their settings and duties say, from the start and while they are changed, grown, shrunk,
//! retired, removed and closed; whatever is cut is reported, and nobody is left waiting.

#[path = "named_pools/duties.rs"]
mod duties;
#[path = "named_pools/in_use.rs"]
mod in_use;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;
#[path = "named_pools/upkeep.rs"]
mod upkeep;
