//! What the visitor sees: one line per step, the errors in full, the count of surprises.
//!
//! Below every chapter of the tour. It prints and counts; it never talks to a server.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::process::ExitCode;

use gdbpool::{Error, Lease, Row};

use crate::BoxError;

/// Asks the server itself where a statement runs; [`Guide::place`] reads it.
pub(crate) const HERE: &str = "split_part(current_setting('application_name'), '/', 2) AS pool, \
    pg_backend_pid() AS pid, pg_is_in_recovery() AS standby";

/// Where a step ran.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) pool: String,
    pub(crate) pid: Option<i32>,
    pub(crate) role: Option<Role>,
}

/// What a node was when it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Primary,
    Standby,
}

/// Prints the tour and counts what did not go as expected.
#[derive(Debug, Default)]
pub(crate) struct Guide {
    chapters: u32,
    /// Whether this chapter's rows still want their heads.
    heads_due: bool,
    /// The last role seen behind each pool, for errors, which bring none.
    roles: BTreeMap<String, Role>,
    steps: u32,
    surprises: u32,
}

impl Guide {
    /// Begins a chapter.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        println!("\n{}. {title}", self.chapters);
        self.heads_due = true;
    }

    /// Ends a chapter; an error that came through to here was not expected.
    pub(crate) fn finish(&mut self, chapter: Result<(), BoxError>) {
        if let Err(error) = chapter {
            self.count(false);
            println!("   !! the chapter ended early");
            print_causes(&with_causes(&*error));
        }
    }

    /// One step that came to its end.
    pub(crate) fn step(&mut self, what: &str, place: &Place, outcome: &str, result: &str, expected: bool) {
        if std::mem::take(&mut self.heads_due) {
            print_row("", ["step", "pool", "backend", "role", "outcome", "result"]);
        }
        let mark = self.count(expected);
        let pid = place.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let role = match place.role.or_else(|| self.roles.get(&place.pool).copied()) {
            Some(Role::Primary) => "primary",
            Some(Role::Standby) => "standby",
            None => "-",
        };
        print_row(mark, [what, &place.pool, &pid, role, outcome, result]);
    }

    /// One step that has to fail, with the error and its causes in full.
    pub(crate) fn refusal<T>(&mut self, what: &str, result: Result<T, Error>, expected: impl FnOnce(&Error) -> bool) {
        let error = match result {
            Ok(_) => return self.step(what, &Place::nowhere(), "done", "was not refused", false),
            Err(error) => error,
        };
        let place = Place {
            pool: error.pool().unwrap_or("-").to_owned(),
            pid: error.backend_pid(),
            role: None,
        };
        let result = match error.sqlstate() {
            Some(state) => format!("{}, SQLSTATE {}", error.phase(), state.code()),
            None => error.phase().to_string(),
        };
        let outcome = error.outcome().to_string();
        self.step(what, &place, &outcome, &result, expected(&error));
        print_causes(&with_causes(&error));
    }

    /// A line that is no call.
    pub(crate) fn note(&mut self, note: &str, expected: bool) {
        let mark = self.count(expected);
        println!("   {mark:2} {note}");
    }

    /// Where the server says a row was made.
    pub(crate) fn place(&mut self, row: &Row) -> Result<Place, BoxError> {
        let standby: bool = row.try_get("standby")?;
        let place = Place {
            pool: row.try_get("pool")?,
            pid: Some(row.try_get("pid")?),
            role: Some(if standby { Role::Standby } else { Role::Primary }),
        };
        self.roles.extend(place.role.map(|role| (place.pool.clone(), role)));
        Ok(place)
    }

    /// The last word, and the exit status.
    pub(crate) fn verdict(&self) -> ExitCode {
        if self.surprises == 0 {
            println!("\nAll {} steps went as expected.", self.steps);
            return ExitCode::SUCCESS;
        }
        println!(
            "\n{} of {} steps did not go as expected; they are marked !!",
            self.surprises, self.steps
        );
        ExitCode::FAILURE
    }

    fn count(&mut self, expected: bool) -> &'static str {
        self.steps += 1;
        self.surprises += u32::from(!expected);
        if expected { "ok" } else { "!!" }
    }
}

impl Place {
    /// On a lease, which knows its session.
    pub(crate) fn of_lease(pool: &str, lease: &Lease) -> Self {
        let role = lease
            .is_standby()
            .map(|standby| if standby { Role::Standby } else { Role::Primary });
        Self {
            pool: pool.to_owned(),
            pid: Some(lease.backend_pid()),
            role,
        }
    }

    /// On a pool, by a session that the call does not tell.
    pub(crate) fn on_pool(pool: &str) -> Self {
        Self {
            pool: pool.to_owned(),
            pid: None,
            role: None,
        }
    }

    fn nowhere() -> Self {
        Self::on_pool("-")
    }
}

/// An error and what it came from, outermost first.
pub(crate) fn with_causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut told = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        told.push(error.to_string());
        next = error.source();
    }
    told
}

fn print_causes(causes: &[String]) {
    for (depth, cause) in causes.iter().enumerate() {
        let word = if depth == 0 { "error:" } else { "cause:" };
        println!("        {word} {cause}");
    }
}

fn print_row(mark: &str, [what, pool, pid, role, outcome, result]: [&str; 6]) {
    println!("   {mark:2} {what:<36} {pool:<10} {pid:<8} {role:<8} {outcome:<13} {result}");
}
