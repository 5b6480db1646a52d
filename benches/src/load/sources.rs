//! Source addresses of the client: each loopback address has its own ports, so that their
//! number does not bound the connections.

use std::net::{IpAddr, Ipv4Addr};

/// The address of connection `number`: 127.0.0.2, .3 … with [`PER_SOURCE`] each; `None` for
/// a server that is not on loopback, where the kernel chooses.
pub fn source(server: IpAddr, number: usize) -> Option<IpAddr> {
    if !server.is_ipv4() || !server.is_loopback() {
        return None;
    }
    let last = 2 + (number / PER_SOURCE) % 250;
    Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last as u8)))
}

/// Far below the 28,000 ports of the default `ip_local_port_range`.
const PER_SOURCE: usize = 2_500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_change_before_the_ports_run_out_and_only_on_loopback() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(source(local, 2_499), Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))));
        assert_eq!(source(local, 2_500), Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3))));
        assert_eq!(source(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0), None);
    }
}
