//! File descriptors: every connection is one.

use std::fs::File;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Descriptors kept for everything that is not a connection, where there are many.
const KEPT: u64 = 1_000;

/// Raises the limit of open files to its hard limit and answers it. A refusal is no error:
/// the old limit then bounds the connections.
pub(super) fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        warn!(%error, "limit of open files not raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Lets the table of descriptors grow once, now, to what this many connections need. Later it
/// would grow at each power of two, and a process with threads waits then for every core to
/// have passed a quiet moment (`expand_files` in the kernel's fs/file.c, 10 to 30 ms): all
/// connections of the shard that accepts would wait with it. It never shrinks; an entry is 8 B.
pub(super) fn widen_table(nofile: u64, connections: usize) {
    let wanted = (connections as u64).saturating_add(KEPT).min(nofile).min(TABLE_MAX);
    let highest = i32::try_from(wanted.saturating_sub(1)).unwrap_or(i32::MAX);
    // Dropped at once: only the place it took counts.
    let widened = File::open("/dev/null").and_then(|file| Ok(fcntl_dupfd_cloexec(&file, highest)?));
    if let Err(error) = widened {
        debug!(%error, "table of open files not widened");
    }
}

/// Connections that so many descriptors allow (DESIGN §8).
pub(super) fn connections_max(nofile: u64) -> usize {
    let connections = (nofile / 2).max(nofile.saturating_sub(KEPT));
    usize::try_from(connections).unwrap_or(usize::MAX).min(CONNECTIONS_MAX)
}

/// Descriptors for which a place is made beforehand: 8 MiB of table.
const TABLE_MAX: u64 = 1 << 20;

/// Slots of a shard are numbered by u32; a system without a limit still has this one.
const CONNECTIONS_MAX: usize = u32::MAX as usize / 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_is_halved_and_a_large_one_keeps_a_thousand() {
        assert_eq!(connections_max(1_024), 512);
        assert_eq!(connections_max(2_000), 1_000);
        assert_eq!(connections_max(1_000_000), 999_000);
        assert_eq!(connections_max(u64::MAX), CONNECTIONS_MAX);
    }

    #[test]
    fn the_table_of_descriptors_is_as_wide_as_asked_for() {
        let nofile = raise();
        widen_table(nofile, 3_000);
        let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("FDSize");
        assert!(size.trim().parse::<u64>().expect("a number") >= nofile.min(4_000), "{size}");
    }

    #[test]
    fn raising_reaches_the_hard_limit() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(raise(), hard);
    }
}
