//! Which tables can be read by an index: all columns of it equal something that is known before the table is read.
//!
//! The last part of analysis. A plain machine. It only makes things faster: the conditions are looked at all the same.

use super::Analyser;
use crate::postgres::engine::ast::JoinKind;
use crate::postgres::engine::functions::Run;
use crate::postgres::engine::plan::{Comparison, Ex, Lookup, Source};

impl Analyser<'_> {
    pub(super) fn choose_lookups(&self, source: &mut Source, filter: Option<&Ex>) {
        let conditions: Vec<&Ex> = filter.into_iter().flat_map(conjuncts).collect();
        self.choose(source, &conditions, 0);
    }

    /// `before` columns stand left of the source and are known when it is read.
    fn choose(&self, source: &mut Source, conditions: &[&Ex], before: usize) {
        match source {
            Source::Table { oid, width, lookup } => {
                let Some((table, _)) = self.engine.catalog.table(*oid) else {
                    return;
                };
                let range = before..before + *width;
                let equal: Vec<(usize, &Ex)> = conditions.iter().filter_map(|ex| equality(ex, range.clone())).collect();
                let mut indexes: Vec<_> = table.indexes.iter().collect();
                indexes.sort_by_key(|index| !index.unique);
                for index in indexes {
                    let part = |column: &usize| {
                        equal
                            .iter()
                            .find(|(at, _)| at == column)
                            .map(|(_, value)| (*value).clone())
                    };
                    if let Some(key) = index.columns.iter().map(part).collect::<Option<Vec<Ex>>>() {
                        *lookup = Some(Lookup { index: index.oid, key });
                        return;
                    }
                }
            }
            Source::Join {
                kind,
                left,
                right,
                condition,
                equal,
            } => {
                let inner = matches!(kind, JoinKind::Cross | JoinKind::Inner);
                let width = left.width();
                if inner || *kind == JoinKind::Left {
                    self.choose(left, conditions, before);
                }
                // Conditions of nested joins are about rows that begin with them.
                if before > 0 {
                    return;
                }
                let mut for_right: Vec<&Ex> = condition.as_ref().into_iter().flat_map(conjuncts).collect();
                if inner {
                    for_right.extend(conditions);
                    if equal.is_empty() {
                        *equal = conditions.iter().flat_map(|ex| equalities(ex, width)).collect();
                        let total = width + right.width();
                        equal.retain(|(_, right)| {
                            !right.any(&|part| matches!(part, Ex::Column { level: 0, at } if *at >= total))
                        });
                    }
                }
                if inner || *kind == JoinKind::Left {
                    let for_right: Vec<Ex> = for_right.into_iter().cloned().collect();
                    let for_right: Vec<&Ex> = for_right.iter().collect();
                    if let Source::Table { .. } = **right {
                        self.choose(right, &for_right, width);
                    }
                }
            }
            _ => {}
        }
    }
}

fn conjuncts(ex: &Ex) -> Vec<&Ex> {
    match ex {
        Ex::And(parts) => parts.iter().flat_map(conjuncts).collect(),
        other => vec![other],
    }
}

/// `column = value` with the column in the range and a value that is known before it: the column's place in its table.
fn equality(ex: &Ex, range: std::ops::Range<usize>) -> Option<(usize, &Ex)> {
    let Ex::Compare(Comparison::Equal, left, right) = ex else {
        return None;
    };
    let side = |column: &Ex| match column {
        Ex::Column { level: 0, at } if range.contains(at) => Some(at - range.start),
        _ => None,
    };
    let known = |value: &Ex| !value.any(&|part| !is_known(part, range.start));
    match (side(left), side(right)) {
        (Some(at), _) if known(right) => Some((at, right)),
        (_, Some(at)) if known(left) => Some((at, left)),
        _ => None,
    }
}

fn is_known(part: &Ex, before: usize) -> bool {
    match part {
        Ex::Column { level: 0, at } => *at < before,
        Ex::Call(function, _) => !matches!(function.run, Run::Once(_)),
        Ex::Set(_) | Ex::Aggregate(_) => false,
        other => other.query().is_none(),
    }
}

/// Pairs of expressions over the left and the right side of a join that are equal where the condition holds.
pub(super) fn equalities(condition: &Ex, width: usize) -> Vec<(Ex, Ex)> {
    let mut pairs = Vec::new();
    for part in conjuncts(condition) {
        let Ex::Compare(Comparison::Equal, a, b) = part else {
            continue;
        };
        let side = |ex: &Ex| {
            let left = ex.any(&|part| matches!(part, Ex::Column { level: 0, at } if *at < width));
            let right = ex.any(&|part| matches!(part, Ex::Column { level: 0, at } if *at >= width));
            let plain = !ex.any(&|part| {
                part.query().is_some() || matches!(part, Ex::Call(function, _) if matches!(function.run, Run::Once(_)))
            });
            (left && plain, right && plain)
        };
        match (side(a), side(b)) {
            ((true, false), (false, true)) => pairs.push(((**a).clone(), (**b).clone())),
            ((false, true), (true, false)) => pairs.push(((**b).clone(), (**a).clone())),
            _ => {}
        }
    }
    pairs
}
