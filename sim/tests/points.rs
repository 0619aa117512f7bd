//! Every named point of the library is passed, and can trigger a fault, when it is built with `--cfg gdbpool_points`; in
//! any other build there are none.

#[path = "support/program.rs"]
mod program;

use std::time::Duration;

use gdbpool_sim::fault::{Connections, Fault, FaultKind, NetworkFault, Trigger};
use gdbpool_sim::{Coverage, POINTS, Sim};

#[test]
fn every_point_is_passed_or_there_is_none() {
    let mut coverage = Coverage::default();
    for point in POINTS {
        coverage.declare(&format!("point.{point}"));
    }
    for seed in 0..5 {
        let sim = Sim::new(seed);
        program::run(&sim);
        coverage.merge(&sim.coverage());
    }
    let points: Vec<(&str, u64)> = coverage.iter().filter(|(name, _)| name.starts_with("point.")).collect();
    let passed = points.iter().filter(|&&(_, count)| count > 0).count();
    let expected = if cfg!(gdbpool_points) { POINTS.len() } else { 0 };
    assert_eq!((points.len(), passed), (POINTS.len(), expected), "{coverage}");
}

#[test]
fn a_point_triggers_a_fault_at_its_nth_passing() {
    let sim = Sim::new(1);
    let server = program::server(&sim);
    let runtime = sim.runtime();
    sim.set_faults([Fault {
        trigger: Trigger::Point {
            name: "fence.admitted".to_owned(),
            nth: 2,
        },
        what: FaultKind::Network(NetworkFault::Reset {
            connections: Connections::All { to: None },
        }),
        span: None,
    }]);
    sim.block_on(async {
        let db = program::open(&runtime).await;
        for _ in 0..3 {
            // A lost read is sent again, on another connection.
            db.run("SELECT 1").read().execute().await.unwrap();
        }
        db.close(Duration::from_secs(1)).await;
    });
    let began = sim.fault_reports()[0].began.is_some();
    assert_eq!(began, cfg!(gdbpool_points));
    assert_eq!(server.sessions().len(), 1 + usize::from(began));
}
