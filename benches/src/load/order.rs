//! One line of numbers on one connection: what came once, what is missing, what came twice
//! or too late.

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

/// The line of one connection.
#[derive(Clone, Debug, Default)]
pub struct Line {
    last: u64,
    /// Numbers below `last` that did not come, ascending. Empty on every healthy connection.
    missing: Vec<u64>,
    tally: Tally,
}

impl Line {
    /// Begins behind `last`, with nothing counted.
    pub fn begin(&mut self, last: u64) {
        *self = Self { last, ..Self::default() };
    }

    /// The highest number that came.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// A number came.
    pub fn take(&mut self, number: u64) {
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
    pub fn judge(&self, last: u64) -> Tally {
        let lost = self.tally.lost + self.missing.len() as u64 + last.saturating_sub(self.last);
        Tally { lost, ..self.tally }
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
}
