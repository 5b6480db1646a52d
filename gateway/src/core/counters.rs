//! What a shard counts: plain numbers, written by one core and published once per turn.

use corecast_proto::close::CloseCode;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Numbers of one shard. Totals only grow; gauges are marked.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Closed connections by cause, labelled by [`Counters::closed_label`].
            pub closed: [u64; CLOSED],
            /// Turns by duration: how many took at most [`TURN_US`]`[i]` µs, the last: longer.
            pub turns: [u64; TURN_US.len() + 1],
            /// How long all of them took together, µs.
            pub turns_us: u64,
        }

        impl Counters {
            /// Names of the single numbers, in the order of [`Counters::values`].
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Every number: the single ones, then causes, then durations and their sum.
            pub fn values(&self) -> impl Iterator<Item = u64> {
                [$(self.$name),+].into_iter().chain(self.closed).chain(self.turns).chain([self.turns_us])
            }

            /// The reverse of [`Counters::values`]; what is missing is 0.
            pub fn from_values(mut values: impl Iterator<Item = u64>) -> Self {
                let mut next = || values.next().unwrap_or(0);
                Self {
                    $($name: next(),)+
                    closed: std::array::from_fn(|_| next()),
                    turns: std::array::from_fn(|_| next()),
                    turns_us: next(),
                }
            }
        }
    };
}

counters! {
    /// Gauge: sockets, whatever their phase.
    connections,
    /// Gauge: connections with a session, members of the default rooms.
    open,
    /// Gauge: memberships of rooms that are not default ones.
    memberships,
    /// Gauge: connections that have missed frames and catch up.
    lagging,
    /// Gauge: bytes of text that control has not settled.
    unsettled_bytes,
    /// Gauge: bytes of frames that wait in feeds.
    feed_bytes,
    /// Peers accepted.
    accepted,
    /// Peers refused because of the limit of connections.
    refused,
    /// Upgrades granted.
    handshakes,
    /// Sockets handed to the HTTP server.
    handed_over,
    /// Text messages read.
    texts,
    /// Bytes read.
    bytes_read,
    /// Frames given to the kernel or queued behind a full socket, all kinds.
    frames,
    /// Room frames among them: one for each frame and connection.
    deliveries,
    /// Bytes the kernel took.
    bytes_written,
    /// Sends, each one connection.
    writes,
    /// Sends that the socket did not take whole.
    writes_short,
    /// Batches of sends.
    slices,
    /// Batches that were one system call.
    ring_batches,
    /// Commands taken from the mailbox.
    commands,
    /// Connections that began to miss frames of a room, counted per room.
    demoted,
    /// Room frames not queued for a connection that will read them as a page.
    skipped,
    /// Rooms in which a connection is live again.
    caught_up,
    /// Pages received.
    pages,
    /// Unnumbered pushes not queued because a connection's queue was full.
    dropped,
    /// Cut frames given to connections.
    cuts,
    /// Commands for connections that were gone.
    stale,
    /// Pings sent.
    pings,
    /// Turns in which the mailbox was not drained because feeds held too many bytes.
    held_back,
    /// Turns without reading because control held too many bytes of text.
    unread,
    /// Times the core slept.
    parks,
    /// Accepts that failed for want of a file descriptor.
    exhausted,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// This side closed it.
    By(CloseCode),
    /// The peer sent a close frame.
    Peer,
    /// The socket ended or failed without one.
    Lost,
    /// No request head in time.
    Handshake,
    /// No sign of life in time.
    Dead,
    /// Plain HTTP: answered or refused before an upgrade.
    Http,
}

/// Causes that are not close codes of ours.
const OTHER: usize = 5;
const CLOSED: usize = CloseCode::ALL.len() + OTHER;

/// Upper ends of the turn durations, µs.
pub const TURN_US: [u64; 8] = [50, 100, 250, 500, 1_000, 2_500, 10_000, 50_000];

impl Counters {
    /// Label of `closed[at]`.
    pub fn closed_label(at: usize) -> &'static str {
        const OTHERS: [&str; OTHER] = ["peer", "lost", "handshake_timeout", "dead", "http"];
        match CloseCode::ALL.get(at) {
            Some(code) => code.name(),
            None => OTHERS.get(at - CloseCode::ALL.len()).copied().unwrap_or("other"),
        }
    }

    /// Counts an end.
    pub fn count_end(&mut self, why: Ended) {
        let codes = CloseCode::ALL.len();
        let at = match why {
            Ended::By(code) => CloseCode::ALL.iter().position(|c| *c == code).unwrap_or(0),
            Ended::Peer => codes,
            Ended::Lost => codes + 1,
            Ended::Handshake => codes + 2,
            Ended::Dead => codes + 3,
            Ended::Http => codes + 4,
        };
        self.closed[at] += 1;
    }

    /// Counts a turn of this many µs.
    pub fn count_turn(&mut self, us: u64) {
        let at = TURN_US.iter().position(|end| us <= *end).unwrap_or(TURN_US.len());
        self.turns[at] += 1;
        self.turns_us += us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let mut counters = Counters { connections: 3, exhausted: 9, ..Counters::default() };
        counters.count_end(Ended::By(CloseCode::TryLater));
        counters.count_end(Ended::Http);
        counters.count_turn(51);
        counters.count_turn(9_000_000);
        assert_eq!(Counters::from_values(counters.values()), counters);
        let at = (0..CLOSED).position(|at| Counters::closed_label(at) == "try_later").unwrap();
        assert_eq!(counters.closed[at], 1);
        assert_eq!((counters.turns[1], counters.turns[TURN_US.len()], counters.turns_us), (1, 1, 9_000_051));
    }
}
