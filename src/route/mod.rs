//! The route: which pool an interaction runs on. Needs and a list of pools in, a choice out.
//!
//! The station between interaction and pool. It knows duties, names and how busy each pool is, by the numbers it is given;
//! it opens and checks out nothing.

mod budget;
mod named;

pub(crate) use self::named::NamedPools;

use std::sync::Arc;

use crate::error::{BadInput, Error};

/// What an interaction needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A pool, as far as routing looks at it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: Arc<str>,
    pub(crate) is_default: bool,
    pub(crate) is_read: bool,
    pub(crate) is_write: bool,
}

/// The pools an interaction may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This one.
    One(usize),
    /// The less busy of these two.
    Either(usize, usize),
}

/// Finds the pool for an interaction.
///
/// A name decides alone. Reads go to the default read set, of which two are drawn and the less busy one is taken (the
/// power of two choices: Mitzenmacher, 2001); without one, and for writes without a default write pool, the default pool
/// serves.
pub(crate) fn route(
    pools: &[Candidate],
    access: Access,
    name: Option<&str>,
    random: impl FnOnce() -> u64,
) -> Result<Choice, Error> {
    if let Some(name) = name {
        return match pools.iter().position(|pool| &*pool.name == name) {
            Some(at) => Ok(Choice::One(at)),
            None => Err(unknown(pools, name)),
        };
    }
    let set: Vec<usize> = match access {
        Access::Read => indices(pools, |pool| pool.is_read),
        Access::Write => indices(pools, |pool| pool.is_write),
    };
    match set[..] {
        [] => default(pools),
        [only] => Ok(Choice::One(only)),
        _ => Ok(draw_two(&set, random())),
    }
}

fn indices(pools: &[Candidate], serves: impl Fn(&Candidate) -> bool) -> Vec<usize> {
    pools
        .iter()
        .enumerate()
        .filter(|(_, pool)| serves(pool))
        .map(|(at, _)| at)
        .collect()
}

/// Without a pool declared as default, the first one is.
fn default(pools: &[Candidate]) -> Result<Choice, Error> {
    if pools.is_empty() {
        return Err(Error::bad_input(BadInput::NoPool));
    }
    let at = pools.iter().position(|pool| pool.is_default).unwrap_or_default();
    Ok(Choice::One(at))
}

/// Two different members, each pair equally likely.
fn draw_two(set: &[usize], random: u64) -> Choice {
    let size = set.len() as u64;
    let first = (random >> 32) % size;
    let second = (first + 1 + (random & u64::from(u32::MAX)) % (size - 1)) % size;
    Choice::Either(set[first as usize], set[second as usize])
}

fn unknown(pools: &[Candidate], name: &str) -> Error {
    let known = pools.iter().map(|pool| Arc::clone(&pool.name)).collect();
    Error::bad_input(BadInput::UnknownPool {
        name: name.into(),
        known,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{Access, Candidate, Choice, route};

    fn pools() -> impl Strategy<Value = Vec<Candidate>> {
        let candidate = (any::<bool>(), any::<bool>(), any::<bool>());
        proptest::collection::vec(candidate, 1..6).prop_map(|duties| {
            let name = |(at, (is_default, is_read, is_write))| Candidate {
                name: Arc::from(format!("p{at}")),
                is_default,
                is_read,
                is_write,
            };
            duties.into_iter().enumerate().map(name).collect()
        })
    }

    fn members(choice: &Choice) -> Vec<usize> {
        match *choice {
            Choice::One(at) => vec![at],
            Choice::Either(a, b) => vec![a, b],
        }
    }

    proptest! {
        #[test]
        fn a_name_decides_alone(pools in pools(), at in 0usize..6, random: u64) {
            let at = at % pools.len();
            let name = pools[at].name.clone();
            for access in [Access::Read, Access::Write] {
                prop_assert_eq!(route(&pools, access, Some(&name), || random).ok(), Some(Choice::One(at)));
            }
        }

        #[test]
        fn only_members_of_the_set_are_drawn_and_two_different_ones(pools in pools(), random: u64) {
            for (access, serves) in
                [(Access::Read, (|p: &Candidate| p.is_read) as fn(&Candidate) -> bool), (Access::Write, |p| p.is_write)]
            {
                let choice = route(&pools, access, None, || random).unwrap();
                let drawn = members(&choice);
                if pools.iter().any(serves) {
                    prop_assert!(drawn.iter().all(|at| serves(&pools[*at])));
                } else {
                    let default = pools.iter().position(|p| p.is_default).unwrap_or(0);
                    prop_assert_eq!(&drawn[..], &[default][..]);
                }
                prop_assert!(drawn.len() == 1 || drawn[0] != drawn[1]);
            }
        }
    }

    #[test]
    fn every_member_is_drawn_equally_often() {
        let candidate = |at: usize| Candidate {
            name: Arc::from(format!("r{at}")),
            is_default: false,
            is_read: true,
            is_write: false,
        };
        let pools: Vec<_> = (0..3).map(candidate).collect();
        let mut drawn = [0u32; 3];
        for round in 0..3_000u64 {
            let random = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for at in members(&route(&pools, Access::Read, None, || random).unwrap()) {
                drawn[at] += 1;
            }
        }
        assert!(drawn.iter().all(|count| (1_800..2_200).contains(count)), "{drawn:?}");
    }
}
