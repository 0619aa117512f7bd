//! The bounds of a pool's settings, checked once, when the pool is opened or added.

use std::fmt;
use std::time::Duration;

use super::{DAY, OnConnect, PoolConfig};
use crate::error::{BadInput, Error};

impl PoolConfig {
    /// Names the first setting that is outside its bounds.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let counts = [
            ("size", self.max, 1, 10_000, "1 to 10,000"),
            ("min_size", self.min, 0, self.max, "at most size"),
            ("max_connecting", self.max_connecting, 1, 1_000, "1 to 1,000"),
            ("max_waiters", self.max_waiters, 1, 1_000_000, "1 to 1,000,000"),
        ];
        for (setting, given, least, most, bounds) in counts {
            if !(least..=most).contains(&given) {
                return Err(out_of_bounds(setting, &given, bounds));
            }
        }
        if !(1..=1_000_000).contains(&self.listen_capacity) {
            return Err(out_of_bounds(
                "listen_capacity",
                &self.listen_capacity,
                "1 to 1,000,000",
            ));
        }
        self.check_spans()?;
        for text in &self.on_connect {
            if let OnConnect::Sql(text) = text
                && text.contains('\0')
            {
                return Err(Error::bad_input(BadInput::Name {
                    what: "on_connect_sql text",
                    name: (&**text).into(),
                }));
            }
        }
        for (name, value) in &self.settings {
            if name.is_empty() || name.contains(['\0', '=']) || value.contains('\0') {
                return Err(Error::bad_input(BadInput::Name {
                    what: "server setting",
                    name: name.clone(),
                }));
            }
        }
        self.check_pooler()?;
        if self.duties.default && self.duties.read && !self.duties.write {
            let reason = format!(
                "pool \"{}\" is default_pool and default_read but not default_write: the default pool takes writes",
                self.name
            );
            return Err(Error::bad_input(BadInput::Conflict { reason }));
        }
        Ok(())
    }

    fn check_spans(&self) -> Result<(), Error> {
        const MILLI: Duration = Duration::from_millis(1);
        let spans = [
            (
                "checkout_timeout",
                Some(self.checkout_timeout),
                MILLI,
                DAY,
                "1 ms to 1 day",
            ),
            (
                "connect_timeout",
                Some(self.connect_timeout),
                MILLI,
                DAY,
                "1 ms to 1 day",
            ),
            (
                "max_lifetime",
                self.max_lifetime,
                Duration::from_secs(1),
                Duration::MAX,
                "at least 1 s",
            ),
            ("idle_timeout", self.idle_timeout, MILLI, Duration::MAX, "at least 1 ms"),
            ("ping_timeout", Some(self.ping_timeout), MILLI, DAY, "1 ms to 1 day"),
            ("hold_warning", self.hold_warning, MILLI, Duration::MAX, "at least 1 ms"),
            ("settle_timeout", Some(self.settle_timeout), MILLI, DAY, "1 ms to 1 day"),
            (
                "cancel_after",
                Some(self.cancel_after),
                Duration::ZERO,
                DAY,
                "at most 1 day",
            ),
            (
                "cancel_grace",
                Some(self.cancel_grace),
                Duration::ZERO,
                DAY,
                "at most 1 day",
            ),
            ("close_timeout", Some(self.close_timeout), MILLI, DAY, "1 ms to 1 day"),
            (
                "listen_heartbeat",
                Some(self.listen_heartbeat),
                MILLI,
                DAY,
                "1 ms to 1 day",
            ),
            (
                "answer_timeout",
                self.answer_timeout,
                MILLI,
                Duration::MAX,
                "at least 1 ms",
            ),
            (
                "interaction_timeout",
                self.interaction_timeout,
                MILLI,
                Duration::MAX,
                "at least 1 ms",
            ),
            ("pin_timeout", Some(self.pin_timeout), MILLI, DAY, "1 ms to 1 day"),
            ("shed target", self.shed.map(|shed| shed.0), MILLI, DAY, "1 ms to 1 day"),
            (
                "shed interval",
                self.shed.map(|shed| shed.1),
                self.shed.map_or(MILLI, |shed| shed.0),
                DAY,
                "at least the target, at most 1 day",
            ),
            (
                "connect_backoff base",
                Some(self.backoff.0),
                MILLI,
                DAY,
                "1 ms to 1 day",
            ),
            (
                "connect_backoff cap",
                Some(self.backoff.1),
                self.backoff.0,
                DAY,
                "at least the base, at most 1 day",
            ),
        ];
        for (setting, given, least, most, bounds) in spans {
            if let Some(given) = given.filter(|given| *given < least || *given > most) {
                return Err(out_of_bounds(setting, &format_args!("{given:?}"), bounds));
            }
        }
        Ok(())
    }
}

fn out_of_bounds(setting: &'static str, given: &dyn fmt::Display, bounds: &'static str) -> Error {
    Error::bad_input(BadInput::OutOfBounds {
        setting,
        given: given.to_string(),
        bounds,
    })
}
