//! Ports of loopback for servers that a test starts, and starts again at the same place.
//!
//! Who binds a socket himself binds port 0. A server that is a process of its own is told a
//! port beforehand, and it takes seconds until it binds it: a port that the kernel gave out
//! and got back is by then the local port of any outgoing connection of another test. So
//! these lie below what the kernel gives to connections
//! (`/proc/sys/net/ipv4/ip_local_port_range`, 32768 and up), and below what
//! `scripts/with-middleware` takes.

use std::net::TcpListener;
use std::ops::Range;

/// Where ranges begin. One that reaches 10,000 further, as a Redis Cluster's does, ends below
/// 32768 too.
const FIRST: Range<u16> = 12_800..19_800;
const ATTEMPTS: usize = 1000;

/// A port that nobody listens on now.
///
/// # Panics
/// As [`free_range`].
pub fn free() -> u16 {
    free_range([0])
}

/// The first port of a range in which nobody listens on those at the given offsets.
///
/// # Panics
/// When a thousand ranges are all in use.
pub fn free_range(offsets: impl IntoIterator<Item = u16> + Clone) -> u16 {
    let candidates = std::iter::repeat_with(|| rand::random_range(FIRST)).take(ATTEMPTS);
    first_free(candidates, &offsets).expect("a free range of ports")
}

fn first_free(
    mut candidates: impl Iterator<Item = u16>,
    offsets: &(impl IntoIterator<Item = u16> + Clone),
) -> Option<u16> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    candidates.find(|first| offsets.clone().into_iter().all(|offset| is_free(first + offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_asked_for_is_free_and_none_is_one_of_the_kernels() {
        let first = free_range([0, 1, 10_001]);
        let held = [0, 1, 10_001].map(|offset| TcpListener::bind(("127.0.0.1", first + offset)));
        assert!(held.iter().all(Result::is_ok), "{held:?}");
        let kernels = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux");
        let lowest: u16 = kernels.split_whitespace().next().expect("two numbers").parse().expect("a port");
        assert!(FIRST.end + 10_001 < lowest, "{kernels}");
    }

    #[test]
    fn a_range_with_a_listener_in_it_is_passed_over() {
        let (taken, other) = (free_range([0, 1]), free_range([0, 1]));
        let _held = TcpListener::bind(("127.0.0.1", taken + 1)).expect("free");
        assert_eq!(first_free([taken, other].into_iter(), &[0, 1]), Some(other));
        assert_eq!(first_free([taken].into_iter(), &[0, 1]), None);
        assert_eq!(first_free([taken].into_iter(), &[0]), Some(taken));
    }
}
