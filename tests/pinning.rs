//! Promise: a pinned transaction stays on its connection. Every statement of it runs there, between its BEGIN and its end, and
//! nothing foreign does; a lost one is reported and never moved; an expired one is rolled back on time without anybody
//! polling it, and every later use says where it was made; and the next borrower finds the session clean.

#[path = "pinning/program.rs"]
mod program;
#[path = "pinning/real.rs"]
mod real;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;
#[path = "pinning/virtual_time.rs"]
mod virtual_time;
