//! Promise: with the feature `metrics`, the pools' numbers reach the `metrics` facade under OpenTelemetry's names.
#![cfg(feature = "metrics")]

#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::poll;
use gdbpool::{ConnectionPool, PoolConfig};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use runtimes::{on_each, until};
use support::{Server, shared_cluster};

/// Keeps everything by name and labels, as `name{label=value,…}`.
#[derive(Clone, Default)]
struct Kept {
    numbers: Arc<Mutex<BTreeMap<String, Arc<Number>>>>,
    units: Arc<Mutex<BTreeMap<String, Unit>>>,
}

#[derive(Default)]
struct Number {
    level: AtomicU64,
    samples: Mutex<Vec<f64>>,
}

impl Kept {
    fn number(&self, key: &Key) -> Arc<Number> {
        let mut labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        labels.sort_unstable();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.numbers.lock().expect("no panic").entry(name).or_default())
    }

    fn get(&self, name: &str) -> Arc<Number> {
        let numbers = self.numbers.lock().expect("no panic");
        let known = || numbers.keys().cloned().collect::<Vec<_>>().join("\n");
        Arc::clone(
            numbers
                .get(name)
                .unwrap_or_else(|| panic!("{name} is not among\n{}", known())),
        )
    }
}

impl CounterFn for Number {
    fn increment(&self, value: u64) {
        self.level.fetch_add(value, Ordering::SeqCst);
    }

    fn absolute(&self, value: u64) {
        self.level.store(value, Ordering::SeqCst);
    }
}

impl GaugeFn for Number {
    fn increment(&self, _value: f64) {
        panic!("gauges are set");
    }

    fn decrement(&self, _value: f64) {
        panic!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.level.store(value as u64, Ordering::SeqCst);
    }
}

impl HistogramFn for Number {
    fn record(&self, value: f64) {
        self.samples.lock().expect("no panic").push(value);
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        let unit = unit.expect("a time has a unit");
        self.units.lock().expect("no panic").insert(name.as_str().into(), unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.number(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.number(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.number(key))
    }
}

fn recorder() -> Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    let install = || {
        let kept = Kept::default();
        metrics::set_global_recorder(kept.clone()).expect("the only recorder");
        kept
    };
    KEPT.get_or_init(install).clone()
}

#[test]
fn the_numbers_of_a_pool() {
    static POOLS: AtomicU32 = AtomicU32::new(0);
    let kept = recorder();
    for server in [Server::V15, Server::V18] {
        let pair = shared_cluster(server);
        on_each(|runtime| {
            let kept = kept.clone();
            Box::pin(async move {
                let name = format!("pool{}", POOLS.fetch_add(1, Ordering::SeqCst));
                let config = PoolConfig::new(&name, &pair.primary.dsn()).expect("a sound DSN");
                let config = config.size(3).min_size(2).ping_after(None);
                let pool = ConnectionPool::open(Arc::clone(&runtime), config).expect("sound settings");
                let number = |what: &str, state: &str| {
                    let state = if state.is_empty() {
                        String::new()
                    } else {
                        format!(",db.client.connection.state={state}")
                    };
                    kept.get(&format!(
                        "db.client.connection.{what}{{db.client.connection.pool.name={name}{state}}}"
                    ))
                };
                let level = |what, state| number(what, state).level.load(Ordering::SeqCst);
                let samples = |what| number(what, "").samples.lock().expect("no panic").clone();
                until(&*runtime, "two are idle", || level("count", "idle") == 2).await;
                assert_eq!(
                    (level("max", ""), level("idle.max", ""), level("idle.min", "")),
                    (3, 3, 2)
                );
                assert_eq!((samples("create_time").len(), samples("wait_time").len()), (2, 0));
                assert!(
                    samples("create_time")
                        .iter()
                        .all(|span| (0.0..60.0).contains(span) && *span > 0.0)
                );

                let leases = [
                    pool.checkout().await.expect("a session"),
                    pool.checkout().await.expect("a session"),
                    pool.checkout().await.expect("a session"),
                ];
                let mut waiter = Box::pin(pool.checkout());
                assert!(poll!(&mut waiter).is_pending());
                until(&*runtime, "it shows", || {
                    (
                        level("count", "used"),
                        level("count", "idle"),
                        level("pending_requests", ""),
                    ) == (3, 0, 1)
                })
                .await;
                let late = pool.checkout_within(Duration::from_millis(1)).await.map(drop);
                late.expect_err("all are held");
                assert_eq!(level("timeouts", ""), 1);
                drop(leases);
                drop(waiter.await.expect("a session"));
                assert_eq!((samples("wait_time").len(), samples("use_time").len()), (4, 4));
                // Two were there, one was made for its caller, and the last had to wait.
                assert!(samples("wait_time")[3] > 0.0);
                until(&*runtime, "all are idle", || {
                    (
                        level("count", "used"),
                        level("count", "idle"),
                        level("pending_requests", ""),
                    ) == (0, 3, 0)
                })
                .await;
                pool.close(Duration::from_secs(20)).await;
                until(&*runtime, "none are left", || level("count", "idle") == 0).await;
            })
        });
    }
    let units = kept.units.lock().expect("no panic");
    for time in ["create_time", "wait_time", "use_time"] {
        assert_eq!(units.get(&format!("db.client.connection.{time}")), Some(&Unit::Seconds));
    }
}
