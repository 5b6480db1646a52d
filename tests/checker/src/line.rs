//! One client in one room, across all its connections: the numbers it got, and what broke
//! their order.

use std::collections::BTreeSet;

/// What was found wrong, in the order it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A number that the connection had already.
    Duplicated(u64),
    /// A number that came after a higher one.
    Reordered(u64),
    /// A hello or page that claims to reach a number and does not.
    Short {
        /// Where its messages end.
        ends: u64,
        /// Where they should.
        claimed: u64,
    },
}

/// Numbers of one client in one room.
#[derive(Debug, Default)]
pub struct Line {
    /// Nothing up to here is owed: the room was so far when the client came.
    floor: Option<u64>,
    /// Numbers it got above the floor.
    got: BTreeSet<u64>,
    /// Numbers left out with a word: `cut`, or a reconnect without cursors.
    excused: Vec<(u64, u64)>,
    /// Excused numbers that the client paged for afterwards.
    paged: BTreeSet<u64>,
    /// Highest number of the connection that is open now.
    top: u64,
    /// The connection that is open now is a member.
    live: bool,
    defects: Vec<Defect>,
}

impl Line {
    /// The line begins on a connection with the newest messages (`numbers`) and claims to
    /// stand at `last`: a first hello, a `cut`, or a hello without cursor after a reconnect.
    pub fn begin(&mut self, numbers: &[u64], last: u64) {
        let before = self.highest();
        self.live = true;
        self.claim(numbers, last, numbers.first().map_or(last, |first| first - 1));
        if self.floor.is_none() {
            self.floor = Some(last);
        } else if let Some(before) = before {
            let next = numbers.first().copied().unwrap_or(last + 1);
            if next > before + 1 {
                self.excused.push((before + 1, next - 1));
            }
            self.got.extend(numbers.iter().filter(|number| **number > before));
        }
        self.top = last;
    }

    /// The line goes on behind `cursor`, which the client named; `numbers` follow it and
    /// claim to reach `last`.
    pub fn resume(&mut self, cursor: u64, numbers: &[u64], last: u64) {
        self.live = true;
        self.floor.get_or_insert(cursor);
        self.top = cursor;
        for number in numbers {
            self.deliver(*number);
        }
        if self.top != last {
            self.defects.push(Defect::Short { ends: self.top, claimed: last });
        }
        self.top = self.top.max(last);
    }

    /// A live message. One of a room without a beginning (joined by sending) begins it.
    pub fn deliver(&mut self, number: u64) {
        let floor = *self.floor.get_or_insert(number.saturating_sub(1));
        if !self.live {
            self.live = true;
            self.top = self.top.max(number.saturating_sub(1));
        }
        if number > self.top {
            self.top = number;
        } else if number <= floor || self.got.contains(&number) {
            self.defects.push(Defect::Duplicated(number));
        } else {
            self.defects.push(Defect::Reordered(number));
        }
        if number > floor {
            self.got.insert(number);
        }
    }

    /// A page of history: it is no delivery, but it catches up what a `cut` left out.
    pub fn page(&mut self, numbers: &[u64]) {
        for number in numbers {
            if self.is_excused(*number) {
                self.paged.insert(*number);
            }
        }
    }

    /// Runs of numbers that were left out with a word and never paged.
    pub fn uncaught(&self) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        for (from, to) in &self.excused {
            let mut next = *from;
            for number in self.paged.range(from..=to) {
                if *number > next {
                    runs.push((next, number - 1));
                }
                next = number + 1;
            }
            if next <= *to {
                runs.push((next, *to));
            }
        }
        runs
    }

    /// The connection closed, or the client left.
    pub fn end(&mut self) {
        self.live = false;
    }

    /// Is a connection a member now?
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Messages it got while it was a member.
    pub fn delivered(&self) -> u64 {
        self.got.len() as u64
    }

    /// What broke the order.
    pub fn defects(&self) -> &[Defect] {
        &self.defects
    }

    /// Runs of numbers between the floor and the highest number got that are missing.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut next = self.floor.unwrap_or(0) + 1;
        for number in &self.got {
            if *number > next {
                self.push_unexcused(next, *number - 1, &mut gaps);
            }
            next = number + 1;
        }
        gaps
    }

    /// Was this number owed to the client, and did it not get it? Numbers above what it
    /// got are owed only to a client that is still there.
    pub fn lost(&self, number: u64) -> bool {
        let Some(floor) = self.floor else { return false };
        let owed = number > floor && (self.live || self.highest().is_some_and(|top| number < top));
        owed && !self.got.contains(&number) && !self.is_excused(number)
    }

    /// The highest number it holds on any connection.
    pub fn highest(&self) -> Option<u64> {
        self.got.last().copied().or(self.floor)
    }

    fn claim(&mut self, numbers: &[u64], last: u64, start: u64) {
        let mut at = start;
        for number in numbers {
            match number.checked_sub(at) {
                Some(1) => {}
                Some(0) => self.defects.push(Defect::Duplicated(*number)),
                None => self.defects.push(Defect::Reordered(*number)),
                Some(_) => self.defects.push(Defect::Short { ends: at, claimed: *number - 1 }),
            }
            at = at.max(*number);
        }
        if at != last || (numbers.is_empty() && last > 0) {
            let ends = if numbers.is_empty() { 0 } else { at };
            self.defects.push(Defect::Short { ends, claimed: last });
        }
    }

    fn is_excused(&self, number: u64) -> bool {
        self.excused.iter().any(|(from, to)| (*from..=*to).contains(&number))
    }

    /// The parts of `from..=to` that nobody excused.
    fn push_unexcused(&self, from: u64, to: u64, gaps: &mut Vec<(u64, u64)>) {
        let mut next = from;
        while next <= to {
            let covering = self.excused.iter().find(|(first, last)| (*first..=*last).contains(&next));
            if let Some((_, last)) = covering {
                next = last + 1;
                continue;
            }
            let until = self.excused.iter().map(|(first, _)| *first).filter(|first| *first > next).min();
            let end = until.map_or(to, |first| to.min(first - 1));
            gaps.push((next, end));
            next = end + 1;
        }
    }
}
