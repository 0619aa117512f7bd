//! Promise: a call that runs out of time says why. Each injected cause has its own variant, and each report its facts:
//! the phase, how long each phase took, the pool's counts, who holds the sessions, the last connect error.

#[path = "timeouts_say_why/real.rs"]
mod real;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;
#[path = "timeouts_say_why/virtual_time.rs"]
mod virtual_time;

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::Duration;

use gdbpool::{CheckoutReport, Error, ErrorKind, Outcome, Phase};

/// One injected cause and what the caller was told.
#[derive(Debug)]
struct Row {
    injected: &'static str,
    said: String,
    text: String,
}

/// What was injected and what came of it, printed as a table and held against what it should be.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// An error must be of this kind, which is the cause for checkouts that ran out of time.
    fn says(&mut self, injected: &'static str, expected: &str, error: &Error) {
        let said = match error.kind() {
            ErrorKind::CheckoutTimeout(report) => format!("{:?}", report.cause),
            other => format!("{other:?}")
                .split([' ', '('])
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        assert_eq!(said, expected, "{injected}: {error:?}");
        assert!(error.pool().is_some(), "{injected} does not name its pool: {error}");
        let text = with_causes(error);
        self.rows.push(Row { injected, said, text });
    }

    /// As `says`, for a checkout that ran out of time after at least `spent`: also looks through its report.
    fn reports(&mut self, injected: &'static str, expected: &str, error: &Error, spent: Duration) {
        self.says(injected, expected, error);
        let report = report(error);
        assert_eq!(error.outcome(), Outcome::NotExecuted, "{injected}");
        assert_eq!(error.phase(), report.phase, "{injected}");
        assert!(error.is_retryable(), "{injected}");
        assert!(report.queued + report.validating >= spent, "{injected}: {report:?}");
        let sum = report.idle + report.leased + report.settling + report.connecting + report.closing;
        assert!(sum <= report.max, "{injected}: {report:?}");
        assert_eq!(
            report.holders.len(),
            report.leased.min(5) as usize,
            "{injected}: {report:?}"
        );
        let text = error.to_string();
        for fact in [
            report.cause.to_string(),
            format!("queued {:?}", report.queued),
            format!("validating {:?}", report.validating),
            format!("{} of {} leased", report.leased, report.max),
        ] {
            assert!(text.contains(&fact), "{injected}: {fact:?} is missing in {text}");
        }
        for holder in report.holders.iter().take(1) {
            assert!(text.contains(&holder.at.to_string()), "{injected}: {text}");
        }
        if let Some(last) = &report.last_connect_error {
            assert_eq!(last.phase(), Phase::Connecting, "{injected}");
            assert!(text.contains(&last.to_string()), "{injected}: {text}");
        }
    }

    /// Prints the table; how many different things were said.
    fn print(&self, title: &str) -> usize {
        println!("{title}");
        for row in &self.rows {
            println!("  {:<44} {:<22} {}", row.injected, row.said, row.text);
        }
        self.rows.iter().map(|row| &row.said).collect::<BTreeSet<_>>().len()
    }
}

fn report(error: &Error) -> &CheckoutReport {
    match error.kind() {
        ErrorKind::CheckoutTimeout(report) => report,
        other => panic!("no report in {other:?}"),
    }
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
