//! Which offset of a partition is safe to record as done, and how much may be in flight.
//!
//! ```text
//!  offsets   40   43   44   47        (they grow, with gaps)
//!  holds      0    2    0    1        40 is safe; 44 waits for 43
//! ```
//! A record is *held* by everybody who still has to do something with it: whoever plans it,
//! then each gateway duty. An offset is safe once no record at or below it is held.

use std::collections::{BTreeMap, VecDeque};

use corecast_backends::log::Token;

use super::Time;

/// A record in flight. Names one assignment of its partition: a ticket from before a
/// revocation never touches the same offset after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Which consumer read it.
    pub consumer: usize,
    /// Where it lies.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
    generation: u64,
}

/// The records in flight of one consumer.
#[derive(Debug)]
pub struct Window {
    consumer: usize,
    records_max: usize,
    bytes_max: usize,
    records: usize,
    bytes: usize,
    generations: u64,
    partitions: BTreeMap<i32, Partition>,
}

#[derive(Debug)]
struct Partition {
    generation: u64,
    last: i64,
    safe: Option<i64>,
    records: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    offset: i64,
    bytes: usize,
    holds: u32,
    since: Time,
}

impl Window {
    /// An empty window. Both bounds at least 1.
    pub fn new(consumer: usize, records_max: usize, bytes_max: usize) -> Self {
        Self {
            consumer,
            records_max,
            bytes_max,
            records: 0,
            bytes: 0,
            generations: 0,
            partitions: BTreeMap::new(),
        }
    }

    /// How many more records may be read. 0: stop reading until something is safe. The bytes
    /// of the next answer are not known before it is there, so their bound may be passed by
    /// one answer.
    pub fn room(&self) -> usize {
        if self.bytes >= self.bytes_max { 0 } else { self.records_max.saturating_sub(self.records) }
    }

    /// Records and bytes in flight.
    pub fn in_flight(&self) -> (usize, usize) {
        (self.records, self.bytes)
    }

    /// When the oldest record in flight was read.
    pub fn oldest(&self) -> Option<Time> {
        self.partitions
            .values()
            .filter_map(|partition| partition.records.front())
            .map(|held| held.since)
            .min()
    }

    /// A record was read; its reader holds it. `None`: this assignment has seen the offset
    /// or a later one, the record is in flight or done and must not be planned again.
    pub fn insert(&mut self, token: Token, bytes: usize, now: Time) -> Option<Ticket> {
        let partition = self.partitions.entry(token.partition).or_insert_with(|| {
            self.generations += 1;
            Partition { generation: self.generations, last: i64::MIN, safe: None, records: VecDeque::new() }
        });
        if token.offset <= partition.last {
            return None;
        }
        partition.last = token.offset;
        partition.records.push_back(Held { offset: token.offset, bytes, holds: 1, since: now });
        self.records += 1;
        self.bytes += bytes;
        Some(Ticket {
            consumer: self.consumer,
            partition: token.partition,
            offset: token.offset,
            generation: partition.generation,
        })
    }

    /// One more holder.
    pub fn hold(&mut self, ticket: Ticket) {
        if let Some(held) = self.held(ticket) {
            held.holds += 1;
        }
    }

    /// One holder less. A ticket of a revoked partition is ignored. True: an offset became
    /// safe, ask [`poll_done`](Self::poll_done).
    pub fn release(&mut self, ticket: Ticket) -> bool {
        match self.held(ticket) {
            Some(held) => held.holds = held.holds.saturating_sub(1),
            None => return false,
        }
        let Some(partition) = self.partitions.get_mut(&ticket.partition) else { return false };
        let mut advanced = false;
        while partition.records.front().is_some_and(|held| held.holds == 0) {
            let Some(held) = partition.records.pop_front() else { break };
            self.records -= 1;
            self.bytes -= held.bytes;
            partition.safe = Some(held.offset);
            advanced = true;
        }
        advanced
    }

    /// The next partition whose safe offset grew since it was last answered here.
    pub fn poll_done(&mut self) -> Option<Token> {
        self.partitions
            .iter_mut()
            .find_map(|(&partition, state)| state.safe.take().map(|offset| Token { partition, offset }))
    }

    /// The partitions went to another consumer: their records are forgotten, nothing of them
    /// will be answered as done.
    pub fn revoke(&mut self, partitions: &[i32]) {
        for partition in partitions {
            let Some(state) = self.partitions.remove(partition) else { continue };
            self.records -= state.records.len();
            self.bytes -= state.records.iter().map(|held| held.bytes).sum::<usize>();
        }
    }

    fn held(&mut self, ticket: Ticket) -> Option<&mut Held> {
        let partition = self.partitions.get_mut(&ticket.partition)?;
        if partition.generation != ticket.generation {
            return None;
        }
        let index = partition.records.binary_search_by_key(&ticket.offset, |held| held.offset).ok()?;
        partition.records.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(partition: i32, offset: i64) -> Token {
        Token { partition, offset }
    }

    #[test]
    fn offset_is_safe_only_when_everything_below_is() {
        let mut window = Window::new(0, 10, 1000);
        let [a, b, c] = [40, 43, 47].map(|offset| window.insert(token(0, offset), 1, Time::ZERO).unwrap());
        window.hold(b);
        assert!(!window.release(c));
        assert!(window.release(a));
        assert_eq!(window.poll_done(), Some(token(0, 40)));
        assert_eq!(window.poll_done(), None);
        assert!(!window.release(b), "one of two holders");
        assert!(window.release(b));
        assert_eq!(window.poll_done(), Some(token(0, 47)), "across the gaps");
        assert_eq!(window.in_flight(), (0, 0));
    }

    #[test]
    fn partitions_do_not_wait_for_each_other() {
        let mut window = Window::new(0, 10, 1000);
        let _held = window.insert(token(0, 1), 1, Time::ZERO).unwrap();
        let free = window.insert(token(1, 1), 1, Time::ZERO).unwrap();
        assert!(window.release(free));
        assert_eq!(window.poll_done(), Some(token(1, 1)));
    }

    #[test]
    fn seen_offset_is_not_planned_again() {
        let mut window = Window::new(0, 10, 1000);
        assert!(window.insert(token(0, 5), 1, Time::ZERO).is_some());
        assert!(window.insert(token(0, 5), 1, Time::ZERO).is_none());
        assert!(window.insert(token(0, 4), 1, Time::ZERO).is_none());
        assert!(window.insert(token(0, 6), 1, Time::ZERO).is_some());
    }

    #[test]
    fn ticket_from_before_a_revocation_does_not_touch_the_same_offset_after_it() {
        let mut window = Window::new(0, 10, 1000);
        let old = window.insert(token(0, 5), 3, Time::ZERO).unwrap();
        window.revoke(&[0]);
        assert_eq!(window.in_flight(), (0, 0));
        let new = window.insert(token(0, 5), 3, Time::ZERO).unwrap();
        assert!(!window.release(old));
        assert_eq!(window.poll_done(), None);
        assert!(window.release(new));
    }

    #[test]
    fn revoked_partition_is_never_answered_as_done() {
        let mut window = Window::new(0, 10, 1000);
        let ticket = window.insert(token(0, 5), 1, Time::ZERO).unwrap();
        assert!(window.release(ticket));
        window.revoke(&[0]);
        assert_eq!(window.poll_done(), None);
    }

    #[test]
    fn window_stops_at_its_records_and_at_its_bytes() {
        let mut window = Window::new(0, 2, 10);
        let first = window.insert(token(0, 1), 9, Time::ZERO).unwrap();
        assert_eq!(window.room(), 1);
        let _second = window.insert(token(0, 2), 1, Time::ZERO).unwrap();
        assert_eq!(window.room(), 0);
        assert!(window.release(first));
        assert_eq!(window.room(), 1);
        window.insert(token(0, 3), 100, Time::ZERO).unwrap();
        assert_eq!(window.room(), 0);
    }
}
