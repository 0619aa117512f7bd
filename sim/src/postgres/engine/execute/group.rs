//! GROUP BY and aggregates.
//!
//! A part of execution. A plain machine.

use std::collections::BTreeMap;

use super::{Context, Stop, Tuple, joined, made, select};
use crate::postgres::engine::plan::{AggregateCall, Grouping};
use crate::postgres::engine::types::datum::Datum;

impl Context<'_> {
    /// One row for each group: its keys, its aggregates, its first row. Groups come in the order of their keys.
    pub(super) fn grouped(&mut self, grouping: &Grouping, rows: Vec<Tuple>, width: usize) -> Result<Vec<Tuple>, Stop> {
        let mut groups = BTreeMap::<Vec<Datum>, Vec<Tuple>>::new();
        if grouping.keys.is_empty() {
            groups.insert(Vec::new(), rows);
        } else {
            for row in rows {
                let key: Result<Vec<Datum>, Stop> =
                    grouping.keys.iter().map(|key| self.value(key, &row.data)).collect();
                groups.entry(key?).or_default().push(row);
            }
        }
        let mut results = Vec::with_capacity(groups.len());
        for (mut values, rows) in groups {
            for call in &grouping.aggregates {
                values.push(self.aggregate(call, &rows)?);
            }
            let first = rows
                .first()
                .map_or_else(|| made(vec![Datum::Null; width]), |row| row.data.clone());
            let data = joined(&values, &first);
            if self.holds(grouping.having.as_ref(), &data)? {
                results.push(Tuple::plain(data));
            }
        }
        Ok(results)
    }

    fn aggregate(&mut self, call: &AggregateCall, rows: &[Tuple]) -> Result<Datum, Stop> {
        let mut inputs = Vec::with_capacity(rows.len());
        for row in rows {
            if !self.holds(call.filter.as_ref(), &row.data)? {
                continue;
            }
            let values: Result<Vec<Datum>, Stop> = call
                .arguments
                .iter()
                .map(|argument| self.value(argument, &row.data))
                .collect();
            let mut keys = Vec::with_capacity(call.order.len());
            for (key, ..) in &call.order {
                keys.push(self.value(key, &row.data)?);
            }
            inputs.push((keys, values?));
        }
        if !call.order.is_empty() {
            inputs.sort_by(|(a, _), (b, _)| {
                let keys = call.order.iter().zip(a.iter().zip(b));
                let mut orders =
                    keys.map(|((_, descending, nulls_first), (a, b))| select::compare(a, b, *descending, *nulls_first));
                orders.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
            });
        } else if call.distinct {
            inputs.sort_by(|(_, a), (_, b)| a.cmp(b));
        }
        let inputs: Vec<Vec<Datum>> = inputs.into_iter().map(|(_, values)| values).collect();
        call.function.apply(&inputs, call.result, call.distinct)
    }
}
