//! A pool's numbers through the `metrics` facade, under the names of OpenTelemetry's semantic conventions for database
//! client connection pools. Without the cargo feature `metrics` all of this is nothing.
//!
//! Beside the pool's path: gauges are published by upkeep, times where they are known. The instruments are got once, when
//! the pool is opened: a recorder installed later is not seen.

#[cfg(feature = "metrics")]
pub(crate) use self::on::PoolMetrics;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::PoolMetrics;

/// What upkeep publishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) idle: u32,
    pub(crate) used: u32,
    pub(crate) waiting: u32,
    pub(crate) min: u32,
    pub(crate) max: u32,
}

#[cfg(feature = "metrics")]
mod on {
    use std::fmt;
    use std::time::Duration;

    use metrics::{Counter, Gauge, Histogram, Unit};

    use super::Levels;

    const POOL: &str = "db.client.connection.pool.name";
    const STATE: &str = "db.client.connection.state";

    /// The instruments of one pool.
    pub(crate) struct PoolMetrics {
        idle: Gauge,
        used: Gauge,
        waiting: Gauge,
        max: Gauge,
        idle_max: Gauge,
        idle_min: Gauge,
        timeouts: Counter,
        create: Histogram,
        wait: Histogram,
        hold: Histogram,
    }

    impl PoolMetrics {
        pub(crate) const ON: bool = true;

        pub(crate) fn new(pool: &str) -> Self {
            describe();
            let pool = || pool.to_owned();
            let count =
                |state: &'static str| metrics::gauge!("db.client.connection.count", POOL => pool(), STATE => state);
            Self {
                idle: count("idle"),
                used: count("used"),
                waiting: metrics::gauge!("db.client.connection.pending_requests", POOL => pool()),
                max: metrics::gauge!("db.client.connection.max", POOL => pool()),
                idle_max: metrics::gauge!("db.client.connection.idle.max", POOL => pool()),
                idle_min: metrics::gauge!("db.client.connection.idle.min", POOL => pool()),
                timeouts: metrics::counter!("db.client.connection.timeouts", POOL => pool()),
                create: metrics::histogram!("db.client.connection.create_time", POOL => pool()),
                wait: metrics::histogram!("db.client.connection.wait_time", POOL => pool()),
                hold: metrics::histogram!("db.client.connection.use_time", POOL => pool()),
            }
        }

        pub(crate) fn levels(&self, levels: Levels) {
            self.idle.set(levels.idle);
            self.used.set(levels.used);
            self.waiting.set(levels.waiting);
            self.max.set(levels.max);
            self.idle_max.set(levels.max);
            self.idle_min.set(levels.min);
        }

        /// A session was made in this time.
        pub(crate) fn created(&self, took: Duration) {
            self.create.record(took);
        }

        /// A caller got its session after this time.
        pub(crate) fn waited(&self, span: Duration) {
            self.wait.record(span);
        }

        /// A session came back after this time.
        pub(crate) fn used(&self, span: Duration) {
            self.hold.record(span);
        }

        /// A caller's time was up.
        pub(crate) fn timed_out(&self) {
            self.timeouts.increment(1);
        }
    }

    fn describe() {
        metrics::describe_gauge!("db.client.connection.count", "Sessions, by state");
        metrics::describe_gauge!("db.client.connection.pending_requests", "Callers in the queue");
        metrics::describe_gauge!("db.client.connection.max", "The most sessions there may be");
        metrics::describe_gauge!("db.client.connection.idle.max", "The most idle sessions there may be");
        metrics::describe_gauge!("db.client.connection.idle.min", "Sessions kept even when idle");
        metrics::describe_counter!("db.client.connection.timeouts", "Checkouts that timed out");
        let times = [
            ("db.client.connection.create_time", "How long it took to make a session"),
            ("db.client.connection.wait_time", "How long it took to get a session"),
            ("db.client.connection.use_time", "How long a session was held"),
        ];
        for (name, what) in times {
            metrics::describe_histogram!(name, Unit::Seconds, what);
        }
    }

    impl fmt::Debug for PoolMetrics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("PoolMetrics").finish_non_exhaustive()
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use std::time::Duration;

    use super::Levels;

    /// Nothing.
    #[derive(Debug)]
    pub(crate) struct PoolMetrics;

    impl PoolMetrics {
        pub(crate) const ON: bool = false;

        pub(crate) fn new(_pool: &str) -> Self {
            Self
        }

        pub(crate) fn levels(&self, _levels: Levels) {}

        pub(crate) fn created(&self, _took: Duration) {}

        pub(crate) fn waited(&self, _span: Duration) {}

        pub(crate) fn used(&self, _span: Duration) {}

        pub(crate) fn timed_out(&self) {}
    }
}
