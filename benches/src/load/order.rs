//! Lines of numbers on one connection: what came once, what is missing, what came twice or
//! too late.
//!
//! A connection has one line, or one per room it joined. Then a counter says which:
//! ```text
//!  counter:  line's key, 24 bits, 0 for the only one | number in it, 40 bits
//! ```

/// What a check found, summed over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames that came in their turn.
    pub delivered: u64,
    /// Numbers that never came.
    pub lost: u64,
    /// Numbers that came again.
    pub duplicated: u64,
    /// Numbers that came after a higher one.
    pub reordered: u64,
}

/// One line.
#[derive(Clone, Debug, Default)]
struct Line {
    last: u64,
    /// Numbers below `last` that did not come, ascending. Empty on every healthy connection.
    missing: Vec<u64>,
    tally: Tally,
}

impl Line {
    /// Begins behind `last`, with nothing counted.
    fn begin(&mut self, last: u64) {
        *self = Self { last, ..Self::default() };
    }

    /// A number came.
    fn take(&mut self, number: u64) {
        if number == self.last + 1 {
            self.last = number;
            self.tally.delivered += 1;
        } else if number > self.last {
            // More than this is no longer a line, and must not fill the memory.
            let known = (number - self.last - 1).min(MISSING_MAX.saturating_sub(self.missing.len() as u64));
            self.tally.lost += number - self.last - 1 - known;
            self.missing.extend(number - known..number);
            self.last = number;
            self.tally.delivered += 1;
        } else if let Ok(at) = self.missing.binary_search(&number) {
            self.missing.remove(at);
            self.tally.reordered += 1;
        } else {
            self.tally.duplicated += 1;
        }
    }

    /// What was found, when `last` was the last number that was sent.
    fn judge(&self, last: u64) -> Tally {
        let lost = self.tally.lost + self.missing.len() as u64 + last.saturating_sub(self.last);
        Tally { lost, ..self.tally }
    }
}

/// The lines of one connection.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    only: Line,
    keyed: Vec<(u64, Line)>,
}

/// The counter of message `number` of the line `key`.
pub fn counter(key: u64, number: u64) -> u64 {
    key << NUMBER_BITS | number
}

impl Lines {
    /// One line for each key; without any, the only one. They begin behind 0.
    pub fn of(keys: impl Iterator<Item = u64>) -> Self {
        Self { only: Line::default(), keyed: keys.map(|key| (key, Line::default())).collect() }
    }

    /// All begin behind `last`, with nothing counted.
    pub fn begin(&mut self, last: u64) {
        self.only.begin(last);
        self.keyed.iter_mut().for_each(|(_, line)| line.begin(last));
    }

    /// The highest number of the only line.
    pub fn last(&self) -> u64 {
        self.only.last
    }

    /// Numbers of the only line that came in their turn.
    pub fn in_turn(&self) -> u64 {
        self.only.tally.delivered
    }

    /// A counter came. One of a line that is not this connection's is a surplus and counts
    /// as a repeat.
    pub fn take(&mut self, counter: u64) {
        match counter >> NUMBER_BITS {
            0 => self.only.take(counter),
            key => match self.keyed.iter_mut().find(|(own, _)| *own == key) {
                Some((_, line)) => line.take(counter & ((1 << NUMBER_BITS) - 1)),
                None => self.only.tally.duplicated += 1,
            },
        }
    }

    /// All numbers of `first..=last` of the only line came, one after the other.
    ///
    /// `false`: they do not follow what came before; take them one by one.
    pub fn take_run(&mut self, first: u64, last: u64) -> bool {
        let line = &mut self.only;
        let follows = first == line.last + 1;
        if follows {
            line.tally.delivered += last + 1 - first;
            line.last = last;
        }
        follows
    }

    /// What was found, when `last` was the last number of each line.
    pub fn judge(&self, last: u64) -> Tally {
        if self.keyed.is_empty() {
            return self.only.judge(last);
        }
        let mut tally = self.only.tally;
        self.keyed.iter().for_each(|(_, line)| tally.add(line.judge(last)));
        tally
    }
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }

    /// Nothing is missing and nothing came twice or late.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0
    }
}

/// Missing numbers remembered one by one, to tell a late one from a repeated one.
const MISSING_MAX: u64 = 4_096;
/// Bits of a counter below the key of its line.
const NUMBER_BITS: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(numbers: &[u64], last: u64) -> Tally {
        let mut line = Line::default();
        line.begin(10);
        numbers.iter().for_each(|number| line.take(*number));
        line.judge(last)
    }

    #[test]
    fn a_whole_line_is_clean() {
        let tally = judged(&[11, 12, 13], 13);
        assert_eq!(tally, Tally { delivered: 3, ..Tally::default() });
        assert!(tally.is_clean());
    }

    #[test]
    fn loss_is_seen_in_the_middle_and_at_the_end() {
        assert_eq!(judged(&[11, 13], 13).lost, 1);
        assert_eq!(judged(&[11, 12], 14).lost, 2);
        assert_eq!(judged(&[], 11).lost, 1);
        assert_eq!(judged(&[11, 10_000_000], 10_000_000).lost, 10_000_000 - 12, "beyond what is remembered");
    }

    #[test]
    fn a_late_number_is_not_lost_and_not_a_repeat() {
        let tally = judged(&[11, 13, 12, 14], 14);
        assert_eq!(tally, Tally { delivered: 3, reordered: 1, ..Tally::default() });
    }

    #[test]
    fn a_repeat_is_told() {
        assert_eq!(judged(&[11, 12, 12, 11], 12).duplicated, 2);
        assert_eq!(judged(&[10], 10).duplicated, 1, "from before the beginning");
    }

    #[test]
    fn each_room_has_a_line_and_a_message_of_another_room_is_a_surplus() {
        let mut lines = Lines::of([7, 9].into_iter());
        lines.begin(10);
        for (key, number) in [(7, 11), (9, 11), (9, 12), (7, 13), (8, 11)] {
            lines.take(counter(key, number));
        }
        // 12 and 14 of the first room and 13 and 14 of the second never came.
        let expected = Tally { delivered: 4, lost: 4, duplicated: 1, reordered: 0 };
        assert_eq!(lines.judge(14), expected);
    }

    #[test]
    fn a_run_is_taken_whole_and_only_where_it_follows() {
        let mut lines = Lines::default();
        lines.begin(10);
        assert!(lines.take_run(11, 14) && !lines.take_run(14, 15) && !lines.take_run(16, 17));
        assert_eq!(lines.judge(14), Tally { delivered: 4, ..Tally::default() });
    }
}
