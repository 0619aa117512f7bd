//! Nothing but a home for `tests/trap.rs`, which stands in the way of the system's randomness, clocks and threads.
