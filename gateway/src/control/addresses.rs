//! Connections by the client's address, where their number is limited.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::ConnId;

/// How many connections each address has. Holds nothing where any number is allowed.
pub(super) struct Addresses {
    max: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: HashMap<IpAddr, u32>,
    /// What to give back when a connection ends.
    entered: HashMap<ConnId, IpAddr>,
}

impl Addresses {
    /// At most `max` each, 0: any number.
    pub(super) fn new(max: u32) -> Self {
        Self { max, state: Mutex::default() }
    }

    /// One more connection of an address. `false`: it has as many as it may, and this one is
    /// not counted.
    pub(super) fn enter(&self, conn: ConnId, address: Option<IpAddr>) -> bool {
        let (1.., Some(address)) = (self.max, address) else { return true };
        let address = household(address);
        let mut state = self.state();
        let count = state.counts.entry(address).or_insert(0);
        if *count >= self.max {
            return false;
        }
        *count += 1;
        state.entered.insert(conn, address);
        true
    }

    /// The connection is gone.
    pub(super) fn leave(&self, conn: ConnId) {
        if self.max == 0 {
            return;
        }
        let mut state = self.state();
        let Some(address) = state.entered.remove(&conn) else { return };
        let Some(count) = state.counts.get_mut(&address) else { return };
        *count -= 1;
        if *count == 0 {
            state.counts.remove(&address);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one customer has of the address space: an IPv4 address, or an IPv6 /64 (RFC 6177).
fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(slot: u32) -> ConnId {
        ConnId { shard: 0, slot, generation: 0 }
    }

    fn address(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn an_address_has_so_many_connections_and_another_when_one_leaves() {
        let addresses = Addresses::new(2);
        assert!(
            addresses.enter(conn(1), address("10.0.0.1")) && addresses.enter(conn(2), address("10.0.0.1"))
        );
        assert!(!addresses.enter(conn(3), address("10.0.0.1")));
        assert!(addresses.enter(conn(4), address("10.0.0.2")), "another address");
        addresses.leave(conn(3));
        assert!(!addresses.enter(conn(5), address("10.0.0.1")), "who was refused gives nothing back");
        addresses.leave(conn(1));
        assert!(addresses.enter(conn(6), address("10.0.0.1")));
        [2, 4, 6].into_iter().for_each(|slot| addresses.leave(conn(slot)));
        let state = addresses.state();
        assert!(state.counts.is_empty() && state.entered.is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let addresses = Addresses::new(1);
        assert!(addresses.enter(conn(1), address("2001:db8:0:1::1")));
        assert!(!addresses.enter(conn(2), address("2001:db8:0:1:ffff::2")));
        assert!(addresses.enter(conn(3), address("2001:db8:0:2::1")));
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let addresses = Addresses::new(0);
        assert!((0..100).all(|slot| addresses.enter(conn(slot), address("10.0.0.1"))));
        assert!(addresses.state().entered.is_empty());
    }
}
