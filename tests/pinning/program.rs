//! Random programs over a few pinned transactions, as data.
//!
//! Below both players: the simulated server's and the real ones'. It runs nothing.

use proptest::prelude::*;

/// How many pinned transactions a program has a hand on.
pub(crate) const PINS: usize = 3;

/// One step; the number names a pin, if there is one by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Begins one in an empty place, by a statement or by a function.
    Pin(usize, How),
    /// A statement within.
    Statement(usize),
    /// A function within, which may fail: then it is taken back.
    Function(usize, bool),
    /// A statement within that the server turns down: the transaction is aborted.
    Fail(usize),
    /// A few rows by a cursor.
    Cursor(usize),
    /// A statement within whose future is dropped after so many polls.
    Drop(usize, u8),
    /// A statement of somebody else.
    Elsewhere,
    /// A function of somebody else.
    ElsewhereFunction,
    /// Its session is ended from outside.
    Kill(usize),
    /// Nobody does anything for a while.
    Wait(Span),
    Commit(usize),
    Rollback(usize),
    Abandon(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Statement,
    Function,
}

/// Measured against the lease time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Short,
    Whole,
}

fn step() -> impl Strategy<Value = Step> {
    let pin = || 0..PINS;
    let how = prop_oneof![Just(How::Statement), Just(How::Function)];
    let span = prop_oneof![3 => Just(Span::Short), 1 => Just(Span::Whole)];
    prop_oneof![
        6 => (pin(), how).prop_map(|(pin, how)| Step::Pin(pin, how)),
        6 => pin().prop_map(Step::Statement),
        4 => (pin(), any::<bool>()).prop_map(|(pin, fails)| Step::Function(pin, fails)),
        1 => pin().prop_map(Step::Fail),
        3 => pin().prop_map(Step::Cursor),
        2 => (pin(), 1u8..4).prop_map(|(pin, polls)| Step::Drop(pin, polls)),
        3 => Just(Step::Elsewhere),
        2 => Just(Step::ElsewhereFunction),
        1 => pin().prop_map(Step::Kill),
        2 => span.prop_map(Step::Wait),
        2 => pin().prop_map(Step::Commit),
        1 => pin().prop_map(Step::Rollback),
        1 => pin().prop_map(Step::Abandon),
    ]
}

/// A program of at most so many steps.
pub(crate) fn programs(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..longest)
}
