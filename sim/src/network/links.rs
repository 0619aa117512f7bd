//! What the faults in force make of each link: the conditions of its lanes, the fate of connects, the answers to look-ups.
//!
//! A plain machine under the network. It knows hosts by name and no connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fault::{Answer, ConnectFate, Delay, Link, NetworkFault, Ways};
use crate::pipe::{Conditions, Direction};

/// The link faults in force.
#[derive(Default)]
pub(crate) struct Links {
    active: BTreeMap<usize, NetworkFault>,
    clogged: BTreeMap<String, u32>,
}

/// What a connect meets on its way.
pub(crate) struct Way {
    /// Neither packets nor their replies get through for now.
    pub(crate) held: bool,
    /// The conditions of both directions, for the time it takes.
    pub(crate) lanes: [Conditions; 2],
}

impl Links {
    pub(crate) fn begin(&mut self, id: usize, fault: NetworkFault) {
        self.active.insert(id, fault);
    }

    pub(crate) fn end(&mut self, id: usize) {
        self.active.remove(&id);
    }

    /// Clogs a host, or undoes that once.
    pub(crate) fn clog(&mut self, host: &str, on: bool) {
        let count = self.clogged.entry(host.to_owned()).or_default();
        *count = if on { *count + 1 } else { count.saturating_sub(1) };
        self.clogged.retain(|_, count| *count > 0);
    }

    pub(crate) fn way(&self, hosts: &[Arc<str>; 2]) -> Way {
        let lanes = self.conditions(hosts);
        Way {
            held: lanes.iter().any(|lane| lane.held),
            lanes,
        }
    }

    /// The conditions of the lanes to the server and to the client, between the connecting host and the accepting one.
    pub(crate) fn conditions(&self, hosts: &[Arc<str>; 2]) -> [Conditions; 2] {
        let mut both = [Direction::ToServer, Direction::ToClient].map(|direction| self.lane(hosts, direction));
        if hosts.iter().any(|host| self.clogged.contains_key(&**host)) {
            for lane in &mut both {
                lane.held = true;
                lane.by.push("network.swizzle");
            }
        }
        both
    }

    fn lane(&self, hosts: &[Arc<str>; 2], direction: Direction) -> Conditions {
        let mut lane = Conditions::default();
        for fault in self.active.values() {
            if fault.link().is_some_and(|link| link.has(hosts)) && fault.add_to(&mut lane, direction) {
                lane.by.push(fault.name());
            }
        }
        lane
    }

    pub(crate) fn fate(&self, to: &str) -> Option<ConnectFate> {
        self.active.values().rev().find_map(|fault| match fault {
            NetworkFault::Connect { to: host, fate } if host == to => Some(*fate),
            _ => None,
        })
    }

    pub(crate) fn answer(&self, looked_up: &str) -> Option<&Answer> {
        self.active.values().rev().find_map(|fault| match fault {
            NetworkFault::Resolve { name, answer } if name == looked_up => Some(answer),
            _ => None,
        })
    }
}

impl Link {
    fn has(&self, hosts: &[Arc<str>; 2]) -> bool {
        match self {
            Self::All => true,
            Self::Of(host) => hosts.iter().any(|has| **has == **host),
            Self::Between(from, to) => *hosts[0] == **from && *hosts[1] == **to,
        }
    }
}

impl Ways {
    fn has(self, direction: Direction) -> bool {
        match self {
            Self::Both => true,
            Self::Replies => direction == Direction::ToClient,
            Self::Requests => direction == Direction::ToServer,
        }
    }
}

impl NetworkFault {
    /// The links of a link fault.
    pub(crate) fn link(&self) -> Option<&Link> {
        match self {
            Self::Bandwidth { link, .. }
            | Self::Clog { link, .. }
            | Self::Latency { link, .. }
            | Self::Partition { link, .. }
            | Self::PendingStorm { link, .. }
            | Self::ShortReads { link, .. }
            | Self::ShortWrites { link, .. }
            | Self::Slice { link, .. }
            | Self::SlowClose { link, .. } => Some(link),
            _ => None,
        }
    }

    /// Adds a link fault to the conditions of a lane; false if it does not concern this direction.
    fn add_to(&self, lane: &mut Conditions, direction: Direction) -> bool {
        let bytes = |max: u32| usize::try_from(max.max(1)).unwrap_or(usize::MAX);
        let least = |old: Option<usize>, new: usize| Some(old.map_or(new, |old| old.min(new)));
        match *self {
            Self::Bandwidth { bytes_per_second, .. } => {
                let rate = bytes_per_second.max(1);
                lane.bandwidth = Some(lane.bandwidth.map_or(rate, |old| old.min(rate)));
            }
            Self::Clog { ways, .. } => {
                if !ways.has(direction) {
                    return false;
                }
                lane.held = true;
            }
            Self::Latency { delay, .. } => lane.delays.push(delay),
            Self::Partition { ways, .. } => {
                if !ways.has(direction) {
                    return false;
                }
                lane.held = true;
                lane.lost = true;
            }
            Self::PendingStorm { percent, .. } => lane.storm = lane.storm.max(percent),
            Self::ShortReads { max, .. } => lane.max_read = least(lane.max_read, bytes(max)),
            Self::ShortWrites { max, .. } => lane.max_write = least(lane.max_write, bytes(max)),
            Self::Slice { max, gap, .. } => lane.slice = Some((max, gap.span())),
            Self::SlowClose { delay, .. } => lane.close_delay = lane.close_delay.max(delay.span()),
            _ => return false,
        }
        true
    }
}

/// The delays of a connect: there and back.
pub(crate) fn delays(way: &Way) -> impl Iterator<Item = &Delay> {
    way.lanes.iter().flat_map(|lane| &lane.delays)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> [Arc<str>; 2] {
        ["app".into(), "n1".into()]
    }

    #[test]
    fn a_one_way_partition_holds_one_lane_of_the_links_it_names() {
        let mut links = Links::default();
        let link = Link::Between("app".to_owned(), "n1".to_owned());
        links.begin(
            0,
            NetworkFault::Partition {
                link,
                ways: Ways::Replies,
            },
        );
        let [requests, replies] = links.conditions(&hosts());
        assert!(requests.are_none() && replies.held && replies.lost);
        assert!(links.way(&hosts()).held, "a connect needs both ways");
        assert!(links.conditions(&["app".into(), "n0".into()])[1].are_none());
        links.end(0);
        assert!(links.conditions(&hosts()).iter().all(Conditions::are_none));
    }

    #[test]
    fn a_clogged_host_is_free_when_every_clog_is_undone() {
        let mut links = Links::default();
        links.clog("n1", true);
        links.clog("n1", true);
        links.clog("n1", false);
        assert!(links.way(&hosts()).held);
        links.clog("n1", false);
        assert!(!links.way(&hosts()).held);
    }
}
