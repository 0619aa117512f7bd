//! Listens to everything that is said through `tracing` and `log` in this process, at every level, and keeps it as text.

use std::fmt::{self, Debug, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What was said so far.
#[derive(Debug)]
pub(crate) struct Watch;

static SEEN: Mutex<String> = Mutex::new(String::new());

/// Starts listening, to all threads, for the rest of the process.
pub(crate) fn everything() -> Watch {
    tracing::subscriber::set_global_default(Listener).expect("the only listener");
    log::set_logger(&Listener).expect("the only listener");
    log::set_max_level(log::LevelFilter::Trace);
    Watch
}

impl Watch {
    /// Line by line.
    pub(crate) fn seen(&self) -> String {
        lock().clone()
    }
}

fn lock() -> MutexGuard<'static, String> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Listener;

/// Writes the fields of one event or span into a line.
struct Line(String);

impl Line {
    fn of(metadata: &Metadata<'_>) -> Self {
        Self(format!(
            "{} {} {}:",
            metadata.level(),
            metadata.target(),
            metadata.name()
        ))
    }

    fn end(self) {
        // One entry is one line, whatever it says.
        let _ = writeln!(lock(), "{}", self.0.replace('\n', " "));
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let _ = write!(self.0, " {}={value} {value:?}", field.name());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line::of(span.metadata());
        span.record(&mut line);
        line.end();
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line(String::from("later:"));
        values.record(&mut line);
        line.end();
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::of(event.metadata());
        event.record(&mut line);
        line.end();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl log::Log for Listener {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        Line(format!("{} {}: {}", record.level(), record.target(), record.args())).end();
    }

    fn flush(&self) {}
}

impl Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
