//! The limits a campaign must keep, and which of them it kept. Pure.

use super::campaign::Outcome;
use super::ledger::Message;

/// What is asked of a campaign.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Acknowledged messages at least.
    pub acked_least: u64,
    /// Share of messages offered outside fault windows that are acknowledged in time.
    pub acked_share: f64,
    /// Share of deliveries that are live.
    pub live_share: f64,
    /// ms from a fault's end until service is back.
    pub recovery_ms: u64,
}

/// One limit and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub name: &'static str,
    /// The limit, in words.
    pub limit: String,
    /// What was found, in words.
    pub found: String,
    /// It was kept.
    pub kept: bool,
}

/// Offers outside all fault windows, and how many of them were acknowledged in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Messages.
    pub offered: u64,
    /// Of these.
    pub acked: u64,
}

impl Limits {
    /// A fault's window reaches so many ms beyond its end.
    pub const WINDOW_MS: u64 = 15_000;
}

impl Default for Limits {
    fn default() -> Self {
        Self { acked_least: 100_000, acked_share: 0.999, live_share: 0.9, recovery_ms: 15_000 }
    }
}

/// Holds an outcome against the limits.
pub fn check(outcome: &Outcome, limits: &Limits) -> Vec<Check> {
    let (verdict, audit, book) = (&outcome.verdict, &outcome.audit, &outcome.book);
    let none =
        |name, found: u64| Check { name, limit: "0".into(), found: found.to_string(), kept: found == 0 };
    let acked = book.messages.iter().filter(|message| message.acked_ms.is_some()).count() as u64;
    let refused: u64 = book.refused.values().sum();
    let mut checks = vec![
        Check {
            name: "messages acknowledged",
            limit: format!("≥ {}", limits.acked_least),
            found: acked.to_string(),
            kept: acked >= limits.acked_least,
        },
        none("lost", verdict.lost + audit.missing),
        none("duplicated", verdict.duplicated),
        none("reordered", verdict.reordered),
        none("gaps, an unpaged cut counts", verdict.gaps + verdict.uncaught + audit.holes),
        none("answers that contradict each other", verdict.conflicting + book.unreadable),
        none("stored more than once", audit.repeated),
        none("refused for good", refused),
        none("clients told to log in again", book.signed_out),
    ];
    let windows: Vec<(u64, u64)> =
        outcome.faults.iter().map(|fault| (fault.injected_ms, fault.ended_ms + Limits::WINDOW_MS)).collect();
    let outside = outside(&book.messages, &windows);
    checks.push(share(
        "acknowledged of offered outside fault windows",
        limits.acked_share,
        outside.acked,
        outside.offered,
    ));
    let (live, resumed) = book.deliveries();
    checks.push(share("deliveries live, not by resume", limits.live_share, live, live + resumed));
    let recoveries: Option<Vec<u64>> = outcome.faults.iter().map(|fault| fault.recovery_ms()).collect();
    let worst = recoveries.map(|all| all.into_iter().max().unwrap_or(0));
    checks.push(Check {
        name: "longest recovery",
        limit: format!("≤ {} s", limits.recovery_ms as f64 / 1000.0),
        found: worst.map_or("never".into(), |ms| format!("{:.2} s", ms as f64 / 1000.0)),
        kept: worst.is_some_and(|ms| ms <= limits.recovery_ms),
    });
    let incomplete: usize = outcome.faults.iter().map(|fault| fault.incomplete.len()).sum();
    checks.push(none("connected clients incomplete after the silence", incomplete as u64));
    let planned = outcome.plan.faults;
    let mended = outcome.faults.iter().filter(|fault| fault.trouble.is_none()).count();
    checks.push(Check {
        name: "faults made and mended",
        limit: planned.to_string(),
        found: mended.to_string(),
        kept: mended >= planned,
    });
    checks
}

/// A message counts when it was offered in no window. It was acknowledged in time when that
/// took at most [`ACK_MS`], or, where a fault began sooner, until that fault's window ended.
pub fn outside(messages: &[Message], windows: &[(u64, u64)]) -> Outside {
    let mut found = Outside::default();
    for message in messages {
        let at = message.offered_ms;
        if windows.iter().any(|(from, to)| (*from..=*to).contains(&at)) {
            continue;
        }
        found.offered += 1;
        let next = windows.iter().filter(|(from, _)| *from > at && *from < at + ACK_MS);
        let until = next.map(|(_, to)| *to).max().unwrap_or(at + ACK_MS);
        found.acked += u64::from(message.acked_ms.is_some_and(|acked| acked <= until));
    }
    found
}

fn share(name: &'static str, least: f64, part: u64, whole: u64) -> Check {
    let found = if whole == 0 { 1.0 } else { part as f64 / whole as f64 };
    Check {
        name,
        limit: format!("≥ {} %", least * 100.0),
        found: format!("{:.3} % ({part} of {whole})", found * 100.0),
        kept: found >= least,
    }
}

/// An ack comes in this time when nothing is wrong.
const ACK_MS: u64 = 5_000;

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::campaign::{Back, FaultRecord, Plan};
    use super::super::crowd::Size;
    use super::super::ledger::{Book, Second};
    use super::super::schedule::{Deed, Fault, Part};
    use super::*;

    pub(in super::super) fn outcome() -> Outcome {
        let fault = Fault { deed: Deed::Kill, part: Part::of("redis"), lasts_ms: 1_000 };
        let message = Message { room: 0, offered_ms: 100, acked_ms: Some(110), seq: Some(1) };
        Outcome {
            plan: Plan {
                seed: 7,
                size: Size { clients: 2, rooms: 1, rooms_per_client: 1, rate: 1 },
                faults: 1,
                calm: Duration::ZERO,
                settle: Duration::ZERO,
                window: Duration::ZERO,
                silence: Duration::ZERO,
                patience: Duration::ZERO,
                undisturbed: Duration::ZERO,
            },
            system: "nothing".into(),
            cuts_links: true,
            faults: vec![FaultRecord {
                fault,
                injected_ms: 1_000,
                ended_ms: 2_000,
                back: Back { acked_ms: Some(2_100), delivered_ms: Some(2_500), connected_ms: Some(2_000) },
                looked_at: 2,
                incomplete: Vec::new(),
                away: 0,
                trouble: None,
            }],
            verdict: Default::default(),
            audit: Default::default(),
            book: Book {
                messages: vec![message],
                seconds: vec![Second { offered: 1, acked: 1, live: 99, resumed: 1 }],
                ..Book::default()
            },
            rooms: vec!["room-a".into(), "room-001".into()],
            took: Duration::from_secs(3),
        }
    }

    fn limits() -> Limits {
        Limits { acked_least: 1, ..Limits::default() }
    }

    fn broken(outcome: &Outcome) -> Vec<&'static str> {
        check(outcome, &limits()).into_iter().filter(|check| !check.kept).map(|check| check.name).collect()
    }

    #[test]
    fn a_good_campaign_keeps_every_limit() {
        assert_eq!(broken(&outcome()), Vec::<&str>::new());
    }

    #[test]
    fn each_defect_breaks_its_limit() {
        let spoilt = |spoil: fn(&mut Outcome)| {
            let mut outcome = outcome();
            spoil(&mut outcome);
            broken(&outcome)
        };
        assert_eq!(spoilt(|o| o.verdict.lost = 1), ["lost"]);
        assert_eq!(spoilt(|o| o.audit.missing = 1), ["lost"]);
        assert_eq!(spoilt(|o| o.verdict.duplicated = 1), ["duplicated"]);
        assert_eq!(spoilt(|o| o.verdict.uncaught = 1), ["gaps, an unpaged cut counts"]);
        assert_eq!(spoilt(|o| o.audit.repeated = 1), ["stored more than once"]);
        assert_eq!(spoilt(|o| o.book.signed_out = 1), ["clients told to log in again"]);
        assert_eq!(spoilt(|o| o.faults[0].back.acked_ms = None), ["longest recovery"]);
        assert_eq!(spoilt(|o| o.faults[0].back.acked_ms = Some(17_001)), ["longest recovery"]);
        assert_eq!(spoilt(|o| o.faults[0].back.acked_ms = Some(17_000)), Vec::<&str>::new());
        assert_eq!(spoilt(|o| o.book.seconds[0].resumed = 12), ["deliveries live, not by resume"]);
        assert_eq!(
            spoilt(|o| o.faults[0].incomplete = vec!["client-1".into()]),
            ["connected clients incomplete after the silence"]
        );
        assert_eq!(spoilt(|o| o.faults[0].trouble = Some("x".into())), ["faults made and mended"]);
    }

    #[test]
    fn only_offers_outside_windows_count_and_they_must_be_acknowledged_in_time() {
        let message = |offered_ms, acked_ms| Message { room: 0, offered_ms, acked_ms, seq: None };
        let windows = [(10_000, 20_000)];
        let of = |offered, acked| outside(&[message(offered, acked)], &windows);
        assert_eq!(of(10_000, None), Outside { offered: 0, acked: 0 });
        assert_eq!(of(20_000, None), Outside { offered: 0, acked: 0 });
        assert_eq!(of(20_001, Some(25_001)), Outside { offered: 1, acked: 1 });
        assert_eq!(of(20_001, Some(25_002)), Outside { offered: 1, acked: 0 });
        // In flight when the fault came: its window is its time.
        assert_eq!(of(9_999, Some(20_000)), Outside { offered: 1, acked: 1 });
        assert_eq!(of(9_999, Some(20_001)), Outside { offered: 1, acked: 0 });
    }
}
