//! Connections cut, reset or silenced at every byte, in both directions, from the first byte of the work to the last.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gdbpool::{Error, Outcome};
use gdbpool_sim::{Cut, Direction, PipeControl, PipeOptions};

use super::stage::{BOUND, DEADLINE, READ, Stage, judge, said};

/// The message with COMMIT in it: its kind, its length, its text, a zero.
const MESSAGE: u64 = 1 + 4 + "SELECT pg_catalog.pg_current_xact_id_if_assigned(); COMMIT".len() as u64 + 1;
/// The answer up to the end of the tag COMMIT: description, row, two tags.
const ANSWER: u64 = (7 + 31 + 18) + (7 + 4 + 3) + (5 + 9) + (5 + 7);
const NOT_YET: u64 = u64::MAX;

const HOWS: [Cut; 3] = [Cut::Eof, Cut::Reset, Cut::Stall];
const DIRECTIONS: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Function,
    Pinned,
    Read,
    Write,
}

/// How much a client learns of what it wrote: the kernel takes all at once, or the other end takes byte by byte.
const CAPACITIES: [usize; 2] = [64 * 1024, 1];

#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    capacity: usize,
    direction: Direction,
    how: Cut,
    at: u64,
}

/// What the calls of many cases said, by how far the request for a commit had got.
#[derive(Debug, Default)]
struct Tally {
    cuts: u64,
    before: Said,
    /// COMMIT had left in full, and its tag was not there.
    between: Said,
    /// The tag was there.
    after: Said,
    unknown: u64,
    warranted: u64,
    truly_asked: u64,
}

#[derive(Debug, Default)]
struct Said {
    committed: u64,
    undone: u64,
    unknown: u64,
}

impl Said {
    fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Committed => &mut self.committed,
            Outcome::Unknown => &mut self.unknown,
            _ => &mut self.undone,
        } += 1;
    }
}

/// Where the link stood when the work was done and COMMIT was about to be asked for.
#[derive(Clone)]
struct Mark {
    link: PipeControl,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Mark {
    fn new(link: PipeControl) -> Self {
        let at = || Arc::new(AtomicU64::new(NOT_YET));
        Self {
            link,
            sent: at(),
            received: at(),
        }
    }

    /// On the session that the case cuts, and no other.
    fn set(&self, is_this_session: bool) {
        if is_this_session {
            self.sent
                .store(self.link.accepted(Direction::ToServer), Ordering::SeqCst);
            self.received
                .store(self.link.delivered(Direction::ToClient), Ordering::SeqCst);
        }
    }

    fn work_was_done(&self) -> bool {
        self.sent.load(Ordering::SeqCst) != NOT_YET
    }

    fn commit_left(&self) -> bool {
        let sent = self.sent.load(Ordering::SeqCst);
        sent != NOT_YET && self.link.accepted(Direction::ToServer) >= sent + MESSAGE
    }

    fn tag_came(&self) -> bool {
        let received = self.received.load(Ordering::SeqCst);
        received != NOT_YET && self.link.delivered(Direction::ToClient) >= received + ANSWER
    }
}

/// The work of one case.
fn work(stage: &Stage, kind: Kind, mark: &Mark) -> Result<(), Error> {
    let db = &stage.db;
    let pid = stage.server.sessions().last().map(|session| session.pid);
    stage.sim.block_on(async {
        match kind {
            Kind::Function => {
                let insert = db.transact(|tx| async move {
                    tx.execute(BOUND, &[&1i32]).await?;
                    mark.set(Some(tx.backend_pid()) == pid);
                    Ok(())
                });
                insert.reruns(0).timeout(DEADLINE).await
            }
            Kind::Pinned => {
                let insert = db.run(BOUND).bind(1i32).timeout(DEADLINE);
                let open = insert.partial().lease_time(DEADLINE).await?.transaction;
                mark.set(Some(open.backend_pid()) == pid);
                open.commit().await.map(|_| ())
            }
            Kind::Read => db.run(READ).read().timeout(DEADLINE).await.map(|_| ()),
            Kind::Write => db.run(BOUND).bind(1i32).timeout(DEADLINE).execute().await.map(|_| ()),
        }
    })
}

/// How many bytes the work takes in each direction.
fn lengths(kind: Kind) -> [u64; 2] {
    let stage = Stage::new(0);
    stage.warm();
    let link = stage.link();
    let before = DIRECTIONS.map(|direction| link.accepted(direction));
    let mark = Mark::new(link.clone());
    work(&stage, kind, &mark).expect("nothing is in the way");
    let after = DIRECTIONS.map(|direction| link.accepted(direction));
    if matches!(kind, Kind::Function | Kind::Pinned) {
        assert!(
            mark.commit_left() && mark.tag_came(),
            "the lengths are those of the protocol"
        );
    }
    // Some more, for names of statements that are longer elsewhere.
    [after[0] - before[0] + 40, after[1] - before[1] + 40]
}

fn run(case: Case, last: bool, tally: &mut Tally) {
    let text = format!("{case:?}");
    let stage = Stage::with_capacity(case.at, case.capacity);
    stage.warm();
    let link = stage.link();
    link.cut_at(case.direction, link.accepted(case.direction) + case.at, case.how);
    let mark = Mark::new(link.clone());
    let result = work(&stage, case.kind, &mark);
    let (commit_left, tag_came) = (mark.commit_left(), mark.tag_came());
    let truth = stage.truth();
    let asked = stage.was_asked_to_commit();
    if case.kind != Kind::Read {
        judge(&result, truth, &text);
    }
    let outcome = said(&result);
    assert!(
        !last || result.is_ok(),
        "{text}: cut behind the end of the work: {result:?}"
    );
    tally.cuts += 1;
    tally.unknown += u64::from(outcome == Outcome::Unknown);
    match case.kind {
        Kind::Read => {
            let again = outcome == Outcome::Committed || (case.how == Cut::Stall && outcome != Outcome::Unknown);
            assert!(again, "{text}: a read is safe to send again: {result:?}");
            tally.between.add(outcome);
        }
        Kind::Write => {
            // A statement commits with its Sync, right behind its Execute: what the server took of it, the client sent.
            let executed = stage
                .server
                .sessions()
                .iter()
                .any(|session| session.statements.contains(&BOUND.into()));
            let warranted = outcome == Outcome::Unknown && (executed || case.capacity != 1);
            tally.warranted += u64::from(warranted);
            tally.truly_asked += u64::from(outcome == Outcome::Unknown && executed);
            tally.between.add(outcome);
        }
        Kind::Function | Kind::Pinned => {
            if tag_came {
                // A call that stops waiting does not look whether the tag is there, and says that it does not know.
                let known = outcome == Outcome::Committed || (case.how == Cut::Stall && outcome == Outcome::Unknown);
                assert!(known, "{text}: the tag was there: {result:?}");
                tally.after.add(outcome);
            } else if commit_left {
                tally.between.add(outcome);
            } else {
                // Of a link that is only silent, the rest may still leave after the call has given up.
                let under_way = case.how == Cut::Stall && mark.work_was_done();
                let known = outcome != Outcome::Unknown || under_way;
                assert!(known, "{text}: COMMIT had not left: {result:?}");
                tally.before.add(outcome);
            }
            let unknown = outcome == Outcome::Unknown;
            let may_leave = commit_left || (case.how == Cut::Stall && mark.work_was_done());
            tally.warranted += u64::from(unknown && may_leave && !tag_came);
            tally.truly_asked += u64::from(unknown && asked);
        }
    }
    if case.at.is_multiple_of(7) && case.how != Cut::Stall {
        stage.is_left_clean();
    }
}

/// Cuts at every byte of the work.
fn cut_everywhere(kind: Kind) {
    let mut tally = Tally::default();
    let mut byte_by_byte = Tally::default();
    let lengths = lengths(kind);
    for capacity in CAPACITIES {
        let tally = if capacity == 1 { &mut byte_by_byte } else { &mut tally };
        for (direction, length) in DIRECTIONS.into_iter().zip(lengths) {
            for how in HOWS {
                for at in 0..=length {
                    let case = Case {
                        kind,
                        capacity,
                        direction,
                        how,
                        at,
                    };
                    run(case, at == length, tally);
                }
            }
        }
    }
    for (name, tally) in [("taken by the kernel", tally), ("byte by byte", byte_by_byte)] {
        println!("{kind:?}, {name}: {tally}");
        assert!(tally.cuts > 300);
        if kind != Kind::Read {
            assert!(tally.unknown > 0, "no cut was between COMMIT and its answer");
        }
        // A statement that left in part is called unknown too: only COMMIT is looked at byte by byte.
        if matches!(kind, Kind::Function | Kind::Pinned) {
            assert!(tally.precision() >= 0.9, "{tally}");
        }
    }
}

impl Tally {
    /// How many of the outcomes called unknown a client could not have known.
    fn precision(&self) -> f64 {
        self.warranted as f64 / self.unknown as f64
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cuts, false \"committed\", \"undone\" and \"safe\": 0", self.cuts)?;
        let stages = [
            ("before COMMIT had left", &self.before),
            ("before its tag", &self.between),
            ("after", &self.after),
        ];
        for (stage, said) in stages {
            let Said {
                committed,
                undone,
                unknown,
            } = said;
            write!(
                f,
                "; {stage}: {committed} committed, {undone} undone, {unknown} unknown"
            )?;
        }
        if self.unknown > 0 {
            let asked = self.truly_asked as f64 / self.unknown as f64;
            write!(
                f,
                "; precision of \"unknown\": {:.3}, the server had COMMIT: {asked:.3}",
                self.precision()
            )?;
        }
        Ok(())
    }
}

#[test]
fn a_function_is_cut_at_every_byte() {
    cut_everywhere(Kind::Function);
}

#[test]
fn a_pinned_transaction_is_cut_at_every_byte() {
    cut_everywhere(Kind::Pinned);
}

#[test]
fn a_statement_that_reads_is_cut_at_every_byte() {
    cut_everywhere(Kind::Read);
}

#[test]
fn a_statement_that_writes_is_cut_at_every_byte() {
    cut_everywhere(Kind::Write);
}

#[test]
fn a_function_that_may_run_again_is_committed_once_or_unknown() {
    let [length, _] = lengths(Kind::Function);
    for capacity in CAPACITIES {
        for at in 0..=length {
            let stage = Stage::with_capacity(at, capacity);
            stage.warm();
            let link = stage.link();
            link.cut_at(Direction::ToServer, link.accepted(Direction::ToServer) + at, Cut::Reset);
            let insert = stage.db.transact(|tx| async move { tx.execute(BOUND, &[&1i32]).await });
            let result = stage.sim.block_on(insert.timeout(DEADLINE).into_future());
            let case = format!("cut at {at}, {capacity} bytes");
            judge(&result, stage.truth(), &case);
            assert!(
                matches!(said(&result), Outcome::Committed | Outcome::Unknown),
                "{case}: run again as long as that is safe: {result:?}"
            );
        }
    }
    let default = PipeOptions::default().capacity;
    assert!(CAPACITIES.contains(&default), "what the kernel takes at once");
}
