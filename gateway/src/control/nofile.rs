//! File descriptors: every connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

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

/// Connections that so many descriptors allow (DESIGN §8).
pub(super) fn connections_max(nofile: u64) -> usize {
    let connections = (nofile / 2).max(nofile.saturating_sub(KEPT));
    usize::try_from(connections).unwrap_or(usize::MAX).min(CONNECTIONS_MAX)
}

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
    fn raising_reaches_the_hard_limit() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(raise(), hard);
    }
}
