//! Which host is tried next, and which of its addresses. A plain machine: outcomes of attempts in, the next step out.
//!
//! Under `dial`, which looks names up, connects, and says how it went. The rules are libpq's (`PQconnectPoll`): hosts in the
//! order given, or shuffled once per dial; a host's addresses in the resolver's order, or shuffled; a name looked up anew at
//! each visit; and, where a standby is only preferred, all hosts once more in the same order, whatever they are.

/// Addresses of one host that are tried at a visit; a resolver that gives more is not followed further.
pub(super) const MAX_ADDRESSES: usize = 64;

/// The course of one dial over its hosts.
#[derive(Debug)]
pub(super) struct Order {
    hosts: Vec<usize>,
    /// Of `hosts`, the one that is next or being tried.
    at: usize,
    /// Addresses of that host still to be tried, the next one last; `None` before they are known.
    addresses: Option<Vec<usize>>,
    is_balanced: bool,
    second_pass: SecondPass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecondPass {
    Never,
    Due,
    Now,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Find the addresses of this host and report their number with [`Order::found`].
    LookUp { host: usize },
    /// Connect to this one of the addresses that were found.
    Try { host: usize, address: usize },
    /// Nothing is left.
    Over,
}

/// Where to go on after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoOn {
    NextAddress,
    NextHost,
    /// Nowhere: another host would say the same, or must not be asked.
    Stop,
}

impl Order {
    /// `twice`: go over the hosts a second time when the first was in vain.
    pub(super) fn new(hosts: usize, is_balanced: bool, twice: bool, random: &mut dyn FnMut() -> u64) -> Self {
        let mut hosts: Vec<usize> = (0..hosts).collect();
        if is_balanced {
            shuffle(&mut hosts, random);
        }
        Self {
            hosts,
            at: 0,
            addresses: None,
            is_balanced,
            second_pass: if twice { SecondPass::Due } else { SecondPass::Never },
        }
    }

    pub(super) fn step(&mut self) -> Step {
        if self.at >= self.hosts.len() && self.second_pass == SecondPass::Due {
            self.second_pass = SecondPass::Now;
            self.at = 0;
        }
        let Some(&host) = self.hosts.get(self.at) else {
            return Step::Over;
        };
        match &self.addresses {
            None => Step::LookUp { host },
            Some(left) => match left.last() {
                Some(&address) => Step::Try { host, address },
                None => {
                    self.next_host();
                    self.step()
                }
            },
        }
    }

    /// The host has so many addresses; none is a reason to go on with the next host.
    pub(super) fn found(&mut self, addresses: usize, random: &mut dyn FnMut() -> u64) {
        let mut found: Vec<usize> = (0..addresses).collect();
        if self.is_balanced {
            shuffle(&mut found, random);
        }
        found.truncate(MAX_ADDRESSES);
        found.reverse();
        self.addresses = Some(found);
    }

    /// The last step failed.
    pub(super) fn failed(&mut self, go_on: GoOn) {
        match go_on {
            GoOn::NextAddress => {
                if let Some(left) = &mut self.addresses {
                    left.pop();
                }
            }
            GoOn::NextHost => self.next_host(),
            GoOn::Stop => {
                self.second_pass = SecondPass::Never;
                self.at = self.hosts.len();
            }
        }
    }

    /// The second time over the hosts, where any of them will do.
    pub(super) fn is_second_pass(&self) -> bool {
        self.second_pass == SecondPass::Now
    }

    fn next_host(&mut self) {
        self.at += 1;
        self.addresses = None;
    }
}

/// Fisher and Yates. The bias of the remainder is far below anything that can be seen for lists of hosts.
fn shuffle(items: &mut [usize], random: &mut dyn FnMut() -> u64) {
    for last in (1..items.len()).rev() {
        let other = usize::try_from(random() % (last as u64 + 1)).unwrap_or(0);
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn counter(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        }
    }

    /// Every visit of a host, in order, with the addresses tried, when each attempt ends as `outcome` says.
    fn course(
        hosts: &[usize],
        is_balanced: bool,
        twice: bool,
        seed: u64,
        mut outcome: impl FnMut(usize, usize) -> GoOn,
    ) -> Vec<(usize, Vec<usize>, bool)> {
        let mut random = counter(seed);
        let mut order = Order::new(hosts.len(), is_balanced, twice, &mut random);
        let mut visits: Vec<(usize, Vec<usize>, bool)> = Vec::new();
        loop {
            match order.step() {
                Step::LookUp { host } => {
                    visits.push((host, Vec::new(), order.is_second_pass()));
                    order.found(hosts[host], &mut random);
                }
                Step::Try { host, address } => {
                    let visit = visits.last_mut().expect("looked up first");
                    assert_eq!(visit.0, host);
                    visit.1.push(address);
                    order.failed(outcome(host, address));
                }
                Step::Over => return visits,
            }
        }
    }

    #[test]
    fn in_order_every_address_of_every_host() {
        let visits = course(&[2, 0, 1], false, false, 1, |_, _| GoOn::NextAddress);
        assert_eq!(
            visits,
            [(0, vec![0, 1], false), (1, vec![], false), (2, vec![0], false)]
        );
    }

    #[test]
    fn a_host_that_cannot_serve_is_left_with_its_other_addresses() {
        let visits = course(&[3, 2], false, false, 1, |host, _| match host {
            0 => GoOn::NextHost,
            _ => GoOn::NextAddress,
        });
        assert_eq!(visits, [(0, vec![0], false), (1, vec![0, 1], false)]);
    }

    #[test]
    fn a_refusal_that_counts_for_all_ends_both_passes() {
        let visits = course(&[2, 2], false, true, 1, |host, _| match host {
            0 => GoOn::NextAddress,
            _ => GoOn::Stop,
        });
        assert_eq!(visits, [(0, vec![0, 1], false), (1, vec![0], false)]);
    }

    #[test]
    fn the_second_pass_goes_the_same_way_once() {
        let visits = course(&[1, 1, 1], true, true, 7, |_, _| GoOn::NextHost);
        let hosts: Vec<usize> = visits.iter().map(|visit| visit.0).collect();
        assert_eq!(hosts[..3], hosts[3..]);
        assert_eq!(visits.iter().filter(|visit| visit.2).count(), 3);
        assert!(visits[..3].iter().all(|visit| !visit.2));
    }

    #[test]
    fn the_resolver_is_not_followed_for_ever() {
        let visits = course(&[100_000], true, false, 3, |_, _| GoOn::NextAddress);
        assert_eq!(visits[0].1.len(), MAX_ADDRESSES);
    }

    /// Each of the six orders of three hosts, and of three addresses, comes up in a sixth of 6,000 dials: within six
    /// standard deviations (29) of 1,000.
    #[test]
    fn at_random_means_every_order_alike() {
        let mut random = counter(42);
        for addresses in [1, 3] {
            let mut orders: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
            for _ in 0..6_000 {
                let hosts = vec![addresses; 3];
                let visits = course(&hosts, true, false, random(), |_, _| GoOn::NextAddress);
                let order = match addresses {
                    1 => visits.iter().map(|visit| visit.0).collect(),
                    _ => visits[0].1.clone(),
                };
                *orders.entry(order).or_default() += 1;
            }
            assert_eq!(orders.len(), 6);
            assert!(orders.values().all(|count| (826..=1_174).contains(count)), "{orders:?}");
        }
    }

    proptest! {
        /// Whatever happens, a dial ends, visits each host at most once per pass, each address at most once per visit, and
        /// leaves none out unless it was told to.
        #[test]
        fn each_once_and_none_left_out(
            hosts in prop::collection::vec(0_usize..5, 1..6),
            is_balanced: bool,
            twice: bool,
            seed: u64,
            outcomes in prop::collection::vec(0_u8..10, 60),
        ) {
            let mut at = 0;
            let mut stopped = false;
            let visits = course(&hosts, is_balanced, twice, seed, |_, _| {
                at += 1;
                match outcomes[at - 1] {
                    0 => { stopped = true; GoOn::Stop }
                    1 | 2 => GoOn::NextHost,
                    _ => GoOn::NextAddress,
                }
            });
            for pass in [false, true] {
                let mut seen: Vec<usize> = visits.iter().filter(|visit| visit.2 == pass).map(|visit| visit.0).collect();
                if !is_balanced {
                    prop_assert!(seen.is_sorted());
                }
                seen.sort_unstable();
                let all: Vec<usize> = (0..hosts.len()).collect();
                if pass && !twice {
                    prop_assert!(seen.is_empty());
                } else if !stopped {
                    prop_assert_eq!(&seen, &all);
                }
                seen.dedup();
                prop_assert_eq!(seen.len(), visits.iter().filter(|visit| visit.2 == pass).count());
            }
            for (host, mut tried, _) in visits {
                prop_assert!(is_balanced || tried.is_sorted());
                let count = tried.len();
                tried.sort_unstable();
                tried.dedup();
                prop_assert_eq!(tried.len(), count);
                prop_assert!(tried.iter().all(|address| *address < hosts[host]));
            }
        }
    }
}
