//! The counts, and the details that explain them.

use std::collections::BTreeMap;
use std::fmt;

use crate::line::Defect;
use crate::recorder::State;

/// What a run amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages somebody wanted to send; one that is sent again counts once.
    pub offered: u64,
    /// Messages that were answered with success.
    pub acknowledged: u64,
    /// (message, client) pairs.
    pub delivered: u64,
    /// Acknowledged and not delivered to a client they were owed to.
    pub lost: u64,
    /// Delivered twice on a connection, or stored twice.
    pub duplicated: u64,
    /// Delivered after a later one, or numbered against the order of sending.
    pub reordered: u64,
    /// Runs of missing numbers.
    pub gaps: u64,
    /// Runs of numbers that a `cut` left out and the client never paged. No defect of the
    /// server, which said so; a run whose clients page must have none.
    pub uncaught: u64,
    /// Answers about one message that differ, frames that cannot be read.
    pub conflicting: u64,
    /// The same per client and room, where anything is wrong.
    pub lines: BTreeMap<(String, String), Counts>,
    /// One sentence for each defect, at most [`DETAILS_MAX`].
    pub details: Vec<String>,
}

/// Defects of one client in one room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// See [`Verdict::lost`].
    pub lost: u64,
    /// See [`Verdict::duplicated`].
    pub duplicated: u64,
    /// See [`Verdict::reordered`].
    pub reordered: u64,
    /// See [`Verdict::gaps`].
    pub gaps: u64,
}

/// Sentences a verdict carries.
pub const DETAILS_MAX: usize = 50;

impl Verdict {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.gaps + self.conflicting == 0
    }

    /// Ends the test with the summary and the details unless nothing is wrong.
    ///
    /// # Panics
    /// When [`is_clean`](Self::is_clean) is false.
    #[track_caller]
    pub fn expect_clean(&self) {
        assert!(self.is_clean(), "{self}\n  {}", self.details.join("\n  "));
    }

    fn explain(&mut self, sentence: String) {
        if self.details.len() < DETAILS_MAX {
            self.details.push(sentence);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "offered {} acknowledged {} delivered {} lost {} duplicated {} reordered {} gaps {} conflicting {}",
            self.offered,
            self.acknowledged,
            self.delivered,
            self.lost,
            self.duplicated,
            self.reordered,
            self.gaps,
            self.conflicting
        )
    }
}

pub(crate) fn judge(state: &State) -> Verdict {
    let mut verdict = Verdict {
        offered: state.offers.len() as u64,
        acknowledged: state.offers.iter().filter(|offer| offer.acknowledged).count() as u64,
        conflicting: (state.conflicts.len() + state.unreadable.len()) as u64,
        ..Verdict::default()
    };
    for sentence in state.conflicts.iter().chain(&state.unreadable) {
        verdict.explain(sentence.clone());
    }
    judge_offers(state, &mut verdict);
    judge_lines(state, &mut verdict);
    judge_senders(state, &mut verdict);
    verdict
}

/// Each offer under one number, the one of its acknowledgement.
fn judge_offers(state: &State, verdict: &mut Verdict) {
    for offer in &state.offers {
        let place = (offer.room.clone(), offer.content.clone());
        let numbers = state.numbers.get(&place).map_or(&[][..], Vec::as_slice);
        if numbers.len() > 1 {
            verdict.duplicated += numbers.len() as u64 - 1;
            verdict.explain(format!("{}: {:?} stored as {numbers:?}", offer.room, offer.content));
        }
        let Some(number) = offer.number.filter(|_| offer.acknowledged) else {
            if offer.acknowledged && numbers.is_empty() {
                verdict.lost += 1;
                verdict
                    .explain(format!("{}: {:?} was acknowledged, nobody saw it", offer.room, offer.content));
            }
            continue;
        };
        let shown = state.messages.get(&(offer.room.clone(), number)).and_then(|known| known.seen.as_ref());
        if shown.is_some_and(|(content, _)| *content != offer.content) {
            verdict.conflicting += 1;
            verdict.explain(format!(
                "{} {number}: acknowledged {:?}, shows {shown:?}",
                offer.room, offer.content
            ));
        }
        if shown.is_none() {
            verdict.lost += 1;
            verdict.explain(format!(
                "{} {number}: {:?} was acknowledged, nobody saw it",
                offer.room, offer.content
            ));
        }
    }
}

/// Each client's numbers of each room.
fn judge_lines(state: &State, verdict: &mut Verdict) {
    let mut acknowledged: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for offer in state.offers.iter().filter(|offer| offer.acknowledged) {
        let place = (offer.room.clone(), offer.content.clone());
        let seen = || state.numbers.get(&place).and_then(|numbers| numbers.first().copied());
        if let Some(number) = offer.number.or_else(seen) {
            acknowledged.entry(&offer.room).or_default().push(number);
        }
    }
    for ((client, room), line) in &state.lines {
        let mut counts = Counts::default();
        verdict.delivered += line.delivered();
        for defect in line.defects() {
            match defect {
                Defect::Duplicated(number) => {
                    counts.duplicated += 1;
                    verdict.explain(format!("{client} in {room}: {number} again"));
                }
                Defect::Reordered(number) => {
                    counts.reordered += 1;
                    verdict.explain(format!("{client} in {room}: {number} after a later one"));
                }
                Defect::Short { ends, claimed } => {
                    counts.gaps += 1;
                    verdict.explain(format!("{client} in {room}: ends at {ends}, claims {claimed}"));
                }
            }
        }
        for (from, to) in line.gaps() {
            counts.gaps += 1;
            verdict.explain(format!("{client} in {room}: {from} to {to} missing"));
        }
        for (from, to) in line.uncaught() {
            verdict.uncaught += 1;
            verdict.explain(format!("{client} in {room}: {from} to {to} left out and never paged"));
        }
        let owed = acknowledged.get(room.as_str()).map_or(&[][..], Vec::as_slice);
        for number in owed.iter().filter(|number| line.lost(**number)) {
            counts.lost += 1;
            verdict.explain(format!("{client} in {room}: {number} was acknowledged and never came"));
        }
        verdict.lost += counts.lost;
        verdict.duplicated += counts.duplicated;
        verdict.reordered += counts.reordered;
        verdict.gaps += counts.gaps;
        if counts != Counts::default() {
            verdict.lines.insert((client.clone(), room.clone()), counts);
        }
    }
}

/// What one connection sent once, to one room, is numbered in the order it was sent. A
/// message that was sent again may rightly come after its successors.
fn judge_senders(state: &State, verdict: &mut Verdict) {
    let mut last: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    for offer in &state.offers {
        let ([attempt], Some(number)) = (offer.attempts.as_slice(), offer.number) else { continue };
        if *attempt == 0 {
            continue;
        }
        let before = last.entry((*attempt, &offer.room)).or_default();
        if number < *before {
            verdict.reordered += 1;
            verdict.explain(format!(
                "{} in {}: sent after {before}, stored as {number}",
                offer.client, offer.room
            ));
        }
        *before = (*before).max(number);
    }
}
