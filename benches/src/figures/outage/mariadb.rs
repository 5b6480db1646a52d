//! MariaDB away: every send is answered in time, with an acknowledgement or with an error
//! that says "later"; the client says it again under the same key until it is acknowledged,
//! and in the end it is stored once.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use super::Options;
use super::finding::{Finding, all, none};
use super::trial::{self, Plan, WARM_UP};
use crate::chaos::audit;
use crate::chaos::campaign;
use crate::chaos::crowd::{Crowd, Size};
use crate::chaos::ledger::{Book, Ledger};
use crate::chaos::schedule::Deed;
use crate::chaos::system::System;
use crate::load::Latency;

pub(super) async fn try_out(
    system: &mut System,
    options: &Options,
    plan: &Plan,
    title: String,
) -> Result<Finding> {
    let ledger = Ledger::new();
    let size = Size {
        clients: options.rooms * options.members,
        rooms: options.rooms,
        rooms_per_client: 1,
        rate: plan.rate.min(RATE_MAX),
    };
    let seed = rand::random::<u32>().into();
    let crowd = Crowd::gather(system.entry()?, &size, seed, &ledger).await?;
    let fault = trial::fault(Deed::Kill, "mariadb");
    let talk = crowd.talk(size.rate, seed);
    sleep(WARM_UP).await;
    let counted_ms = ledger.now_ms();
    sleep(plan.before).await;
    let from_ms = ledger.now_ms();
    block_in_place(|| system.inject(&fault)).with_context(|| fault.to_string())?;
    sleep(plan.outage).await;
    let to_ms = ledger.now_ms();
    let mending = spawn_blocking(block_in_place(|| system.mend(&fault)).with_context(|| fault.to_string())?);
    sleep_until(Instant::from_std(ledger.instant(to_ms)) + plan.after).await;
    drop(talk);
    mending.await.context("the thread that mends")??;
    campaign::all_settled(&crowd, &ledger).await;
    let audit = audit::read_back(crowd.entry, &crowd.sid, &crowd.rooms, &ledger).await?;
    let (verdict, book) = (ledger.recorder.judge(), ledger.book());

    let mut finding = Finding::new(title);
    for (name, phase) in
        [("before", counted_ms..from_ms), ("away", from_ms..to_ms), ("after", to_ms..u64::MAX)]
    {
        finding.time(format!("acks, {name}"), acks(&book, &phase));
    }
    let (offered, acked) = ledger.totals();
    finding.check(all("sends acknowledged in the end", acked, offered));
    finding.check(none("answers that are no \"later\"", not_later(&book.refused, &book.repeated)));
    finding.check(none("sends without an answer for 10 s", book.unanswered));
    finding.check(none("connections that ended", book.ends.values().sum()));
    finding.check(none("lost", verdict.lost + audit.missing));
    finding.check(none("doubled", verdict.duplicated));
    finding.check(none("stored more than once", audit.repeated));
    finding.check(none("out of order", verdict.reordered));
    finding.check(none("gaps, an unpaged cut counts", verdict.gaps + verdict.uncaught + audit.holes));
    finding.check(none("answers that contradict each other", verdict.conflicting + book.unreadable));
    for (kind, answers) in [("for now", &book.repeated), ("for good", &book.refused)] {
        for (code, count) in answers {
            finding.note(format!("{count} × refused {kind} with {code}"));
        }
    }
    for (why, count) in &book.ends {
        finding.note(format!("{count} × {why}"));
    }
    let offered_away = book.messages.iter().filter(|message| (from_ms..to_ms).contains(&message.offered_ms));
    finding.note(format!(
        "{} messages were said first while it was away; the last ack of them came {:.2} s after the restart was ordered",
        offered_away.clone().count(),
        offered_away.filter_map(|message| message.acked_ms).max().unwrap_or(to_ms).saturating_sub(to_ms) as f64
            / 1e3
    ));
    if book.skipped > 0 {
        finding.note(format!("{} messages were not said: their client had too many waiting", book.skipped));
    }
    for sentence in verdict.details.iter().chain(&audit.details).take(DETAILS_MAX) {
        finding.note(sentence.clone());
    }
    Ok(finding)
}

/// Of the messages that were offered in this time, repeats included.
fn acks(book: &Book, offered_ms: &Range<u64>) -> Latency {
    let mut latency = Latency::new();
    for message in book.messages.iter().filter(|message| offered_ms.contains(&message.offered_ms)) {
        if let Some(acked_ms) = message.acked_ms {
            latency.record(acked_ms.saturating_sub(message.offered_ms) * 1_000_000, 1);
        }
    }
    latency
}

/// Refused for good, or with a code that does not mean "later".
fn not_later(refused: &BTreeMap<String, u64>, repeated: &BTreeMap<String, u64>) -> u64 {
    let others = repeated.iter().filter(|(code, _)| !LATER.contains(&code.as_str()));
    refused.values().sum::<u64>() + others.map(|(_, count)| *count).sum::<u64>()
}

/// Messages a second at most: whatever is refused is said again about every second, so a
/// thousand would be several thousand.
pub(super) const RATE_MAX: u64 = 250;
/// Codes of a send that may be repeated: a part is down, or too much is under way.
const LATER: [&str; 2] = ["UNAVAILABLE", "TOO_MANY"];
const DETAILS_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::ledger::Message;

    #[test]
    fn only_what_may_be_repeated_is_later() {
        let codes = |code: &str| BTreeMap::from([(code.to_owned(), 3)]);
        assert_eq!(not_later(&BTreeMap::new(), &codes("UNAVAILABLE")), 0);
        assert_eq!(not_later(&BTreeMap::new(), &codes("INTERNAL")), 3);
        assert_eq!(not_later(&codes("UNAVAILABLE"), &BTreeMap::new()), 3, "without a time it is for good");
    }

    #[test]
    fn acks_belong_to_the_phase_of_the_offer() {
        let message = |offered_ms, acked_ms| Message { room: 0, offered_ms, acked_ms, seq: None };
        let messages =
            vec![message(5, Some(6)), message(10, Some(25)), message(11, None), message(20, Some(21))];
        let book = Book { messages, ..Book::default() };
        let latency = acks(&book, &(10..20));
        assert_eq!(latency.count(), 1);
        assert!((latency.max_ms() - 15.0).abs() < 0.1);
    }
}
