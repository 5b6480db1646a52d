//! Kafka away: sends are acknowledged and the fast path delivers as before; the outbox fills,
//! and is empty again soon after Kafka answers; nothing lies on the log more than twice.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Options;
use super::backlog::{self, Watch};
use super::finding::{Finding, none, seconds};
use super::topic::{self, Topic};
use super::trial::{self, End, Plan, TAIL};
use crate::chaos::judge::Check;
use crate::chaos::schedule::Deed;
use crate::chaos::system::System;
use crate::figures::crew::{self, Crew};

pub(super) async fn try_out(
    system: &mut System,
    options: &Options,
    plan: &Plan,
    title: String,
) -> Result<Finding> {
    let brokers = system.faces("kafka-", "http")?;
    let topic = Topic::of(brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    let crew = Crew::gather(system.entry()?, options.rooms, options.members, TAIL).await?;
    let rooms = crew.rooms.clone();
    let begin = blocking(&topic, Topic::ends).await?;
    let watch = Watch::start(system.faces("logic-", "http")?);
    let answered = Arc::new(OnceLock::new());
    let ask = {
        let (topic, answered) = (topic.clone(), answered.clone());
        move |end: End| {
            // The outbox has to be emptied beside the load, however long Kafka takes to start.
            let planned_ns = end.swap(u64::MAX, Ordering::AcqRel);
            drop(spawn_blocking(move || {
                let answer = topic.first_answer(PATIENCE);
                let least_ns = answer.as_ref().map_or(0, |at| at.map_or(0, |at| at + trial::ns(BESIDE)));
                end.store(planned_ns.max(least_ns), Ordering::Release);
                // Set once: nobody else does.
                let _ = answered.set(answer);
            }));
        }
    };
    let course = trial::through(system, crew, plan, &trial::fault(Deed::Kill, "kafka"), ask).await?;
    // The last rows are deleted once the log has them; nothing is said any more.
    sleep(SETTLE).await;
    let samples = watch.end().await?;
    let records = blocking(&topic, move |topic| topic.read(&begin)).await?;

    let phases = &course.phases;
    let answer_ns = match answered.get() {
        Some(Ok(answer)) => *answer,
        Some(Err(error)) => return Err(anyhow::anyhow!("asking Kafka: {error:#}")),
        None => None,
    };
    let normal = backlog::appended_per_second(&samples, phases.before.start, phases.before.end);
    let drained_ns = answer_ns
        .and_then(|answer_ns| backlog::drained(&samples, answer_ns, normal).map(|at| at - answer_ns));
    let repeats = topic::repeats(&records);
    let mut finding = Finding::new(title);
    course.report(&mut finding);
    let away = crew::within(&course.heard.deliveries, &phases.outage);
    finding.check(seconds("p99 of deliveries while away", AT_ONCE_S, Some(away.quantile_ms(0.99) / 1e3)));
    finding.check(seconds(
        "outbox back at a second of traffic, from Kafka's first metadata answer",
        DRAINED_S,
        drained_ns.map(|ns| ns as f64 / 1e9),
    ));
    finding.check(Check {
        name: "times a record lies on the log",
        limit: "≤ 2".into(),
        found: repeats.most.to_string(),
        kept: repeats.most <= 2,
    });
    finding.check(none(
        "messages that are not on the log",
        course.said.saturating_sub(topic::messages(&records, &rooms)),
    ));
    finding.note(format!(
        "records on the log: {} once, {} twice, {} more often",
        repeats.once, repeats.twice, repeats.more
    ));
    finding.note(format!(
        "outbox rows: before at most {:.0}, then at most {:.0} (a node counts to 10,000); a second of traffic is {normal:.0} rows",
        backlog::peak(&samples, phases.before.start, phases.before.end),
        backlog::peak(&samples, phases.outage.start, u64::MAX),
    ));
    if let Some(answer_ns) = answer_ns {
        finding.note(format!(
            "Kafka's first metadata answer {:.2} s after the restart was ordered; the load went on for {:.2} s after it",
            answer_ns.saturating_sub(phases.outage.end) as f64 / 1e9,
            phases.after.end.saturating_sub(answer_ns) as f64 / 1e9
        ));
    }
    Ok(finding)
}

/// What blocks, on a thread where it may.
async fn blocking<T: Send + 'static>(
    topic: &Topic,
    work: impl FnOnce(&Topic) -> Result<T> + Send + 'static,
) -> Result<T> {
    let topic = topic.clone();
    spawn_blocking(move || work(&topic)).await.context("a thread for Kafka")?
}

/// Limits: of the time to normal, and of what still is "at once". A message that neither path
/// brought would be found by a tail check, up to two seconds later.
const DRAINED_S: f64 = 10.0;
const AT_ONCE_S: f64 = 1.0;
/// From the last frame to the last look at the outbox.
const SETTLE: Duration = Duration::from_secs(3);
/// A cluster that was killed starts again in this time, or it is never.
const PATIENCE: Duration = Duration::from_secs(90);
/// Load beside the emptying of the outbox, at least: longer than that may take.
const BESIDE: Duration = Duration::from_secs(15);
