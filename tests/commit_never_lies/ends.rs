//! Ways a transaction ends that are not "COMMIT, and its tag", on the scripted server.

use gdbpool::{Error, ErrorKind, Outcome, Phase, Transaction};
use gdbpool_sim::wire::{Report, Severity};
use gdbpool_sim::{Answer, Type};

use super::stage::{BOUND, DEADLINE, GRACE, Stage, WRITE, XID, judge, said};

/// What a test looks at: how a call is made does not matter to what became of it.
type How = fn(&Stage, &[&'static str]) -> Result<(), Error>;

/// A failure that the caller keeps to itself.
type Swallow = fn(&Stage) -> Result<(), Error>;

async fn each(tx: &Transaction, statements: &[&'static str]) -> Result<(), Error> {
    for sql in statements {
        match *sql {
            BOUND => drop(tx.execute(BOUND, &[&1i32]).await?),
            sql => tx.batch(sql).await?,
        }
    }
    Ok(())
}

fn in_a_function(stage: &Stage, statements: &[&'static str]) -> Result<(), Error> {
    let work = stage.db.transact(|tx| async move { each(&tx, statements).await });
    stage.sim.block_on(work.reruns(0).timeout(DEADLINE).into_future())
}

fn in_a_pinned_function(stage: &Stage, statements: &[&'static str]) -> Result<(), Error> {
    let work = stage.db.transact(|tx| async move { each(&tx, statements).await });
    stage.sim.block_on(async {
        let open = work.timeout(DEADLINE).partial().await?.transaction;
        open.commit().await.map(|_| ())
    })
}

fn in_pinned_statements(stage: &Stage, statements: &[&'static str]) -> Result<(), Error> {
    stage.sim.block_on(async {
        let mut open = stage.db.run("SELECT 1").partial().await?.transaction;
        for sql in statements {
            match *sql {
                BOUND => drop(stage.db.run(BOUND).bind(1i32).execute().within(&mut open).await?),
                sql => open.handle().batch(sql).await?,
            }
        }
        open.commit().await.map(|_| ())
    })
}

const HOWS: [How; 3] = [in_a_function, in_a_pinned_function, in_pinned_statements];

/// Runs `statements` in every way and gives each error, held against the truth.
fn fails(hows: &[How], prepare: fn(&Stage), statements: &[&'static str]) -> Vec<(Error, usize)> {
    let run = |(number, how): (usize, &How)| {
        let stage = Stage::new(number as u64);
        stage.server.on("SELECT 1", Answer::Default);
        prepare(&stage);
        stage.warm();
        let result = how(&stage, statements);
        let truth = stage.truth();
        judge(&result, truth, &format!("way {number} of {statements:?}"));
        stage.server.clear_rules();
        (result.expect_err("no success"), truth)
    };
    hows.iter().enumerate().map(run).collect()
}

#[test]
fn what_is_committed_is_said_to_be() {
    for how in HOWS {
        for statements in [&[WRITE][..], &[BOUND], &["SELECT 1", BOUND]] {
            let stage = Stage::new(1);
            stage.server.on("SELECT 1", Answer::Default);
            let result = how(&stage, statements);
            judge(&result, stage.truth(), "nothing is in the way");
            assert_eq!(said(&result), Outcome::Committed);
            stage.is_left_clean();
        }
    }
}

#[test]
fn a_commit_that_the_server_turns_down_is_an_error() {
    let answers: [fn(&Stage); 5] = [
        // A deferred constraint.
        |stage| stage.server.on("COMMIT", Answer::error("23505", "late")),
        |stage| stage.server.on("COMMIT", Answer::error("40001", "no order")),
        |stage| {
            stage
                .server
                .on("COMMIT", Answer::error("57014", "cancelled by an operator"))
        },
        // Turned down without a word, which tokio-postgres reports as a success.
        |stage| stage.server.on("COMMIT", Answer::tag("ROLLBACK")),
        // The message's first part failed: COMMIT behind it is not run.
        |stage| stage.server.on(XID, Answer::error("25P02", "aborted")),
    ];
    for answer in answers {
        for (error, truth) in fails(&HOWS, answer, &[BOUND]) {
            assert_eq!(
                (error.outcome(), error.phase(), truth),
                (Outcome::RolledBack, Phase::Committing, 0)
            );
        }
    }
}

#[test]
fn a_commit_of_nothing_is_an_error() {
    // The transaction ends in the very message that should commit it: tag COMMIT, but with a warning.
    for (error, truth) in fails(&HOWS, |stage| stage.server.on(XID, Answer::tag("ROLLBACK")), &[BOUND]) {
        assert!(
            matches!(error.outcome(), Outcome::RolledBack | Outcome::Unknown),
            "{error:?}"
        );
        assert_eq!(truth, 0);
    }
    let warning = Report::new(Severity::Warning, "25P01", "there is no transaction in progress");
    let stage = Stage::new(1);
    stage.server.on("COMMIT", Answer::tag("COMMIT").notice(warning));
    let result = in_a_function(&stage, &[BOUND]);
    assert_ne!(said(&result), Outcome::Committed, "{result:?}");
}

#[test]
fn a_statement_that_failed_is_not_forgotten() {
    let swallowed: [Swallow; 2] = [
        |stage| {
            let work = stage.db.transact(|tx| async move {
                tx.execute(BOUND, &[&1i32]).await?;
                tx.batch("SELECT 1/0").await.expect_err("division by zero");
                Ok(())
            });
            stage.sim.block_on(work.reruns(0).into_future())
        },
        |stage| {
            stage.sim.block_on(async {
                let open = stage.db.run(BOUND).bind(1i32).partial().await?.transaction;
                let mut open = open;
                open.handle().batch("SELECT 1/0").await.expect_err("division by zero");
                open.commit().await.map(|_| ())
            })
        },
    ];
    for swallow in swallowed {
        let stage = Stage::new(1);
        stage
            .server
            .on("SELECT 1/0", Answer::error("22012", "division by zero"));
        let result = swallow(&stage);
        let truth = stage.truth();
        judge(&result, truth, "a failure that is kept quiet");
        let error = result.expect_err("an aborted transaction");
        assert!(matches!(error.kind(), ErrorKind::TransactionFailed), "{error:?}");
        assert_eq!((error.outcome(), truth), (Outcome::RolledBack, 0));
        stage.is_left_clean();
    }
}

#[test]
fn a_statement_behind_a_refused_begin_ran_alone() {
    for sql in [WRITE, BOUND] {
        let refuse: fn(&Stage) = |stage| stage.server.on_prefix("BEGIN", Answer::error("53200", "out of memory"));
        for (error, truth) in fails(&HOWS[..2], refuse, &[sql]) {
            // The statement travelled with it, and was committed by itself: the error says so.
            assert_eq!((error.outcome(), truth), (Outcome::Committed, 1), "{error:?}");
            assert_eq!(
                error.database().map(|report| report.code().code()),
                Some("53200"),
                "{error:?}"
            );
        }
        let and_fails: fn(&Stage) = |stage| {
            stage.server.on_prefix("BEGIN", Answer::error("53200", "out of memory"));
            stage.server.on(WRITE, Answer::error("23505", "there already"));
            stage
                .server
                .on(BOUND, Answer::error("23505", "there already").typed(&[Type::Int4]));
        };
        for (error, truth) in fails(&HOWS[..2], and_fails, &[sql]) {
            assert_eq!((error.outcome(), truth), (Outcome::RolledBack, 0), "{error:?}");
        }
    }
}

#[test]
fn a_transaction_that_ends_from_inside_is_not_vouched_for() {
    // A statement behind which the server begins or ends a transaction, in whatever way that was brought about.
    for (tag, expected) in [("ROLLBACK", 0), ("COMMIT", 1), ("BEGIN", 0)] {
        for statements in [&[BOUND, "SELECT end_it()"][..], &[BOUND, "SELECT end_it()", "SELECT 2"]] {
            let prepare: fn(&Stage) = match tag {
                "ROLLBACK" => |stage| stage.server.on("SELECT end_it()", Answer::tag("ROLLBACK")),
                "COMMIT" => |stage| stage.server.on("SELECT end_it()", Answer::tag("COMMIT")),
                _ => |stage| stage.server.on("SELECT end_it()", Answer::tag("BEGIN")),
            };
            for (error, truth) in fails(&HOWS, prepare, statements) {
                assert!(
                    matches!(error.kind(), ErrorKind::TransactionControl),
                    "{tag}: {error:?}"
                );
                assert_eq!(
                    (error.outcome(), truth),
                    (Outcome::Unknown, expected),
                    "{tag}: {error:?}"
                );
            }
        }
    }
}

#[test]
fn a_commit_that_outlives_its_lease_time_is_not_taken_for_the_next_ones() {
    // Its COMMIT fails late; meanwhile the session went on to another, who commits. Nobody polls the first one's future.
    let stage = Stage::new(1);
    stage
        .server
        .once("COMMIT", Answer::error("23505", "late").after(DEADLINE));
    let insert = stage.db.run(BOUND).bind(1i32).partial().lease_time(GRACE);
    let open = stage.sim.block_on(insert.into_future()).expect("begun").transaction;
    let mut committing = stage.sim.manual(open.commit());
    assert!(committing.poll().is_pending());
    stage.sim.advance(DEADLINE + GRACE);
    let other = stage
        .db
        .transact(|tx| async move { tx.batch("INSERT INTO other VALUES (1)").await });
    stage
        .server
        .on("INSERT INTO other VALUES (1)", Answer::tag("INSERT 0 1"));
    stage.sim.block_on(other.into_future()).expect("committed");
    let result = stage.sim.block_on(&mut committing);
    judge(&result, stage.truth(), "the next one committed");
    result.expect_err("its own COMMIT failed");
    stage.is_left_clean();
}

#[test]
fn a_deadline_before_begin_was_answered_is_no_mystery() {
    // The statement waits behind a BEGIN that never comes back: nothing was asked to commit.
    let stage = Stage::new(1);
    stage.server.on_prefix("BEGIN", Answer::Never);
    let insert = stage.db.run(BOUND).bind(1i32).timeout(GRACE).partial();
    let result = stage.sim.block_on(insert.into_future());
    judge(&result, stage.truth(), "BEGIN was not answered");
    assert_eq!(said(&result), Outcome::RolledBack, "{result:?}");
}
