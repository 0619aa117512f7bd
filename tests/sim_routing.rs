//! Routing, over generated clusters, programs and faults: a write never runs on a standby by our choice, a read never
//! changes rows, and pools by name and the balanced set are obeyed.

use gdbpool_sim::scenario::{prove, reads_and_writes, scenarios_of};

#[test]
fn interactions_run_where_they_should() {
    prove(scenarios_of(reads_and_writes()), 40);
}
