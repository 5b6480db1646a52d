//! A load with an outage in its middle: every message has its intended moment, and what
//! happened to it is told by the phase in which that lay.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::sleep;

use super::finding::{Finding, none};
use crate::chaos::schedule::{Deed, Fault, Part};
use crate::chaos::system::System;
use crate::clock::now_ns;
use crate::figures::crew::{self, Crew, Heard};

/// How much, for how long.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Messages a second.
    pub(super) rate: u64,
    /// Load before the outage, after [`WARM_UP`].
    pub(super) before: Duration,
    /// From the moment the part is gone until its return is ordered.
    pub(super) outage: Duration,
    /// Load from that order on.
    pub(super) after: Duration,
}

/// Intended moments, ns of this process's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Phases {
    pub(super) before: Range<u64>,
    /// Ends when the part's return is ordered.
    pub(super) outage: Range<u64>,
    pub(super) after: Range<u64>,
}

/// A trial that is over.
pub(super) struct Course {
    pub(super) phases: Phases,
    /// Messages.
    pub(super) said: u64,
    pub(super) heard: Heard,
}

impl Plan {
    /// Load in all, about: taking a part away and a trial that wants more make it longer.
    pub(super) fn whole(&self) -> Duration {
        WARM_UP + self.before + self.outage + self.after
    }
}

/// The fault of a trial; how long it lasts is the plan's.
pub(super) fn fault(deed: Deed, part: &str) -> Fault {
    Fault { deed, part: Part::of(part), lasts_ms: 0 }
}

/// When a load ends, ns of this process's clock; it may be moved while it runs.
pub(super) type End = Arc<AtomicU64>;

/// Lets the crew talk, takes the part away in the middle and brings it back; `ordered` is
/// called at the moment at which its return is ordered, with the load's end.
///
/// # Errors
/// The fault could not be made or ended, or the crew could not say anything.
pub(super) async fn through(
    system: &mut System,
    crew: Crew,
    plan: &Plan,
    fault: &Fault,
    ordered: impl FnOnce(End),
) -> Result<Course> {
    let start_ns = now_ns() + LEAD_NS;
    let counted_ns = start_ns + ns(WARM_UP);
    let (rate, end) = (plan.rate, End::new(AtomicU64::new(u64::MAX)));
    let talk_end = end.clone();
    // A task of its own: scripts block this one for a moment.
    let talk = tokio::spawn(async move { (crew.talk(rate, start_ns, &talk_end).await, crew) });
    let away = async {
        until(counted_ns + ns(plan.before)).await;
        let from_ns = now_ns();
        block_in_place(|| system.inject(fault))?;
        until(now_ns() + ns(plan.outage)).await;
        let to_ns = now_ns();
        end.store(to_ns + ns(plan.after), Ordering::Release);
        Ok((from_ns, to_ns, block_in_place(|| system.mend(fault))?))
    };
    let away: Result<_> = away.await;
    if away.is_err() {
        talk.abort();
    }
    let (from_ns, to_ns, mending) = away.with_context(|| fault.to_string())?;
    ordered(end);
    let mending = spawn_blocking(mending);
    let (said, crew) = talk.await.context("the task that talks")?;
    let end_ns = now_ns();
    mending.await.context("the thread that mends")??;
    let phases = Phases { before: counted_ns..from_ns, outage: from_ns..to_ns, after: to_ns..end_ns };
    Ok(Course { phases, said, heard: crew.end(said).await? })
}

impl Course {
    /// Acks and deliveries of each phase, and what must never happen.
    pub(super) fn report(&self, finding: &mut Finding) {
        let Self { phases, heard, .. } = self;
        let phases = [("before", &phases.before), ("away", &phases.outage), ("after", &phases.after)];
        for (kind, times) in [("acks", &heard.acks), ("deliveries", &heard.deliveries)] {
            for (name, phase) in phases {
                finding.time(format!("{kind}, {name}"), crew::within(times, phase));
            }
        }
        finding.check(none("sends refused or without an answer", heard.failed));
        finding.check(none("deliveries lost", heard.lost));
        finding.check(none("out of order, doubled, or behind a gap", heard.disordered));
        finding.check(none("connections that ended", heard.ended.len() as u64));
        for (code, count) in &heard.refused {
            finding.note(format!("{count} × refused with {code}"));
        }
        if let Some(why) = heard.ended.first() {
            finding.note(format!("the first connection that ended: {why}"));
        }
    }

    /// The longest time from a message's intended moment to a member who read it, in s.
    pub(super) fn longest_stall(&self) -> f64 {
        let counted = self.heard.deliveries.iter().filter(|(at, _)| *at >= self.phases.before.start);
        counted.map(|(_, took_ns)| *took_ns).max().unwrap_or(0) as f64 / 1e9
    }
}

/// Sleeps until this moment of the process's clock.
pub(super) async fn until(at_ns: u64) {
    sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns()))).await;
}

pub(super) fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// Not counted: caches fill, the first batch meets a cold database.
pub(super) const WARM_UP: Duration = Duration::from_secs(3);
/// A member who reads nothing for so long reads nothing more. Above the longest stall that is
/// allowed.
pub(super) const TAIL: Duration = Duration::from_secs(12);
/// From the decision to talk to the first message.
const LEAD_NS: u64 = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn course(deliveries: Vec<(u64, u64)>) -> Course {
        let heard = Heard { deliveries, ..Heard::default() };
        Course { phases: Phases { before: 10..20, outage: 20..30, after: 30..40 }, said: 3, heard }
    }

    #[test]
    fn the_longest_stall_is_of_any_counted_phase() {
        let deliveries = vec![(5, 9_000_000_000), (15, 1_000_000_000), (25, 3_000_000_000), (35, 2)];
        assert!((course(deliveries).longest_stall() - 3.0).abs() < 1e-9, "what came while warming up is not");
        assert_eq!(course(Vec::new()).longest_stall(), 0.0);
    }

    #[test]
    fn each_defect_misses_its_limit_and_times_go_to_their_phase() {
        let missed = |spoil: fn(&mut Heard)| {
            let mut course = course(vec![(15, 1_000_000), (25, 2_000_000), (26, 3_000_000)]);
            spoil(&mut course.heard);
            let mut finding = Finding::new("x".into());
            course.report(&mut finding);
            let text = finding.render();
            assert!(text.contains("| deliveries, away | 2 |"), "{text}");
            finding.checks.into_iter().filter(|check| !check.kept).map(|check| check.name).collect::<Vec<_>>()
        };
        assert_eq!(missed(|_| ()), [""; 0]);
        assert_eq!(missed(|heard| heard.failed = 1), ["sends refused or without an answer"]);
        assert_eq!(missed(|heard| heard.lost = 1), ["deliveries lost"]);
        assert_eq!(missed(|heard| heard.disordered = 1), ["out of order, doubled, or behind a gap"]);
        assert_eq!(missed(|heard| heard.ended.push("x".into())), ["connections that ended"]);
    }
}
