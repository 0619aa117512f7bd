//! Every signal of a lost or refused call, by how far the call had got: nothing sent, in a transaction, where it may have
//! committed, or only reading.

use gdbpool::{Error, Outcome};
use gdbpool_sim::wire::{Report, Severity};
use gdbpool_sim::{Answer, ConnectMode, Kill, StartUp, Type};

use super::stage::{BOUND, DEADLINE, READ, Stage, judge, said};

/// How far the call has got when the signal comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// Nothing of it was sent.
    Nothing,
    /// In a transaction that was not asked to commit.
    Begun,
    /// At COMMIT.
    Commit,
    /// In a statement that commits by itself.
    Statement,
    /// In a statement that only reads.
    Read,
}

const COLUMNS: [Column; 5] = [Nothing, Begun, Commit, Statement, Read];

#[derive(Clone, Copy, Debug)]
enum Signal {
    Answer(&'static str),
    Close,
    Fatal(&'static str),
    /// A WARNING as a notice, then the end.
    Notice,
    Refused,
    TooMany,
    Turned,
}

use Column::{Begun, Commit, Nothing, Read, Statement};
use Outcome::{Committed, NotExecuted, RolledBack, Unknown};

/// What must be said, by signal and column; "committed" means that the call succeeded, if need be on another session.
/// The last two: whether it may be done again when it comes back from `Begun`, and from `Statement`.
type Row = (Signal, [Option<Outcome>; 5], [bool; 2]);

const LOST: [Option<Outcome>; 5] = [
    Some(Committed),
    Some(RolledBack),
    Some(Unknown),
    Some(Unknown),
    Some(Committed),
];
const ERROR: [Option<Outcome>; 5] = [
    None,
    Some(RolledBack),
    Some(RolledBack),
    Some(RolledBack),
    Some(RolledBack),
];
const NO_SESSION: [Option<Outcome>; 5] = [Some(NotExecuted), None, None, None, None];

fn rows() -> Vec<Row> {
    let mut rows = vec![
        (Signal::Refused, NO_SESSION, [true; 2]),
        (Signal::TooMany, NO_SESSION, [true; 2]),
        (Signal::Turned, NO_SESSION, [true; 2]),
        (Signal::Close, LOST, [true, false]),
        (Signal::Notice, LOST, [true, false]),
    ];
    for state in ["57P01", "57P05", "25P03", "25P04", "57P02", "08P01", "40001"] {
        rows.push((Signal::Fatal(state), LOST, [true, false]));
    }
    for state in ["40001", "40P01"] {
        rows.push((Signal::Answer(state), ERROR, [true, true]));
    }
    for state in ["25006", "57014", "55P03", "23505", "42501", "53100"] {
        rows.push((Signal::Answer(state), ERROR, [false, false]));
    }
    rows
}

/// Makes the signal come at the column's place.
fn afflict(stage: &Stage, signal: Signal, column: Column) {
    let at = match column {
        Nothing => "",
        Begun | Statement => BOUND,
        Commit => "COMMIT",
        Read => READ,
    };
    let answer = match signal {
        Signal::Answer(state) => Answer::error(state, "a signal"),
        Signal::Fatal(state) => Answer::fatal(state, "a signal"),
        Signal::Close | Signal::Notice => Answer::CloseConnection,
        Signal::Refused | Signal::TooMany | Signal::Turned => Answer::Default,
    };
    let answer = if at == BOUND {
        answer.typed(&[Type::Int4])
    } else {
        answer
    };
    match (signal, column) {
        (Signal::Refused, _) => stage
            .sim
            .set_connect_mode(&stage.server.endpoint(), ConnectMode::Refused),
        (Signal::TooMany, _) => stage.server.set_max_sessions(0),
        (Signal::Turned, _) => stage.server.set_start_up(StartUp::RefusePassword),
        // The idle session is gone.
        (Signal::Notice, Nothing) => stage.server.kill_session(0, Kill::Notice),
        (Signal::Fatal(_), Nothing) => stage.server.kill_session(0, Kill::Fatal),
        (_, Nothing) => stage.server.kill_session(0, Kill::Silent),
        (Signal::Notice, _) => {
            let text = "terminating connection because of crash of another server process";
            let report = Report::new(Severity::Warning, "57P02", text);
            stage.server.once(at, answer.notice(report));
        }
        _ => stage.server.once(at, answer),
    }
    stage.sim.run_until_idle();
}

fn call(stage: &Stage, column: Column) -> Result<(), Error> {
    let db = &stage.db;
    stage.sim.block_on(async {
        match column {
            Read => db.run(READ).read().timeout(DEADLINE).await.map(|_| ()),
            Statement => db.run(BOUND).bind(1i32).timeout(DEADLINE).execute().await.map(|_| ()),
            Nothing | Begun | Commit => {
                let work = db.transact(|tx| async move { tx.execute(BOUND, &[&1i32]).await.map(|_| ()) });
                work.reruns(0).timeout(DEADLINE).await
            }
        }
    })
}

#[test]
fn every_signal_by_how_far_the_call_had_got() {
    let mut cells = 0;
    for (signal, expected, safe) in rows() {
        for (column, expected) in COLUMNS.into_iter().zip(expected) {
            let Some(expected) = expected else { continue };
            let case = format!("{signal:?} at {column:?}");
            let stage = Stage::new(cells);
            if expected != NotExecuted {
                stage.warm();
            }
            afflict(&stage, signal, column);
            let result = call(&stage, column);
            judge(
                &result,
                if column == Read {
                    usize::from(result.is_ok())
                } else {
                    stage.truth()
                },
                &case,
            );
            assert_eq!(said(&result), expected, "{case}: {result:?}");
            if let Err(error) = &result {
                let safe = match column {
                    Nothing => true,
                    Begun => safe[0],
                    Commit | Statement => safe[1],
                    Read => error.is_retryable(),
                };
                assert_eq!(error.is_retryable(), safe, "{case}: {error:?}");
                if let (Signal::Answer(state) | Signal::Fatal(state), Begun | Commit | Statement) = (signal, column) {
                    // Joined with the session's own last word.
                    let told = error.database().map(|report| report.code().code().to_owned());
                    assert_eq!(told.as_deref(), Some(state), "{case}: {error:?}");
                }
            }
            cells += 1;
        }
    }
    println!("{cells} cells of signals and columns, each as the table has it");
    assert!(cells > 60);
}

#[test]
fn whatever_may_be_run_again_is() {
    let mut signals = vec![Signal::Close, Signal::Notice];
    signals.extend(["57P01", "25P03", "57P02", "40001"].map(Signal::Fatal));
    signals.extend(["40001", "40P01"].map(Signal::Answer));
    for signal in signals {
        for column in [Begun, Commit] {
            let again = column == Begun || matches!(signal, Signal::Answer(_));
            let stage = Stage::new(1);
            stage.warm();
            afflict(&stage, signal, column);
            let work = stage.db.transact(|tx| async move { tx.execute(BOUND, &[&1i32]).await });
            let result = stage.sim.block_on(work.timeout(DEADLINE).into_future());
            let case = format!("{signal:?} at {column:?}");
            judge(&result, stage.truth(), &case);
            assert_eq!(
                said(&result),
                if again { Committed } else { Unknown },
                "{case}: {result:?}"
            );
            stage.is_left_clean();
        }
    }
}

#[test]
fn what_a_proxy_does_not_know_is_unknown() {
    for state in ["08007", "40003"] {
        for column in [Commit, Statement] {
            let stage = Stage::new(1);
            stage.warm();
            afflict(&stage, Signal::Answer(state), column);
            let result = call(&stage, column);
            judge(&result, stage.truth(), state);
            assert_eq!(said(&result), Unknown, "{state} at {column:?}: {result:?}");
        }
    }
}

#[test]
fn a_dropped_call_is_undone_before_commit_and_at_most_once_after() {
    let mut undone = 0;
    for polls in 0..40 {
        let stage = Stage::new(polls);
        stage.warm();
        let work = stage.db.transact(|tx| async move { tx.execute(BOUND, &[&1i32]).await });
        let mut calling = stage.sim.manual(work.into_future());
        let mut done = false;
        for _ in 0..polls {
            if calling.poll().is_ready() {
                done = true;
                break;
            }
            stage.sim.run_until_idle();
        }
        drop(calling);
        let asked = stage.was_asked_to_commit();
        let truth = stage.truth();
        assert!(truth <= 1 && (!done || truth == 1), "{polls} polls");
        assert!(asked || truth == 0, "{polls} polls: committed without being asked to");
        undone += usize::from(truth == 0);
        stage.is_left_clean();
    }
    assert!(undone > 0, "no drop was early");
}
