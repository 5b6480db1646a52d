//! One job dies in mid-partition, with the log path alone: the partitions it had are stalled
//! until the group gives them to the other job, or a gateway's tail check finds the messages.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Options;
use super::finding::{Finding, seconds};
use super::trial::{self, Plan, TAIL};
use crate::chaos::judge::Check;
use crate::chaos::schedule::Deed;
use crate::chaos::system::System;
use crate::figures::crew::Crew;
use crate::http;

pub(super) async fn try_out(
    system: &mut System,
    options: &Options,
    plan: &Plan,
    title: String,
) -> Result<Finding> {
    let victim = system.names("job-").into_iter().next().context("the cluster has no job")?;
    let metrics = system.address(&victim, "http")?;
    let crew = Crew::gather(system.entry()?, options.rooms, options.members, TAIL).await?;
    let before = records(metrics).await?;
    let work = tokio::spawn(last_records(metrics));
    let course = trial::through(system, crew, plan, &trial::fault(Deed::Kill, &victim), |_| ()).await?;
    let read = work.await.context("the task that looks at the job")? - before;
    let mut finding = Finding::new(title);
    course.report(&mut finding);
    finding.check(seconds("longest stall of a delivery", super::STALL_S, Some(course.longest_stall())));
    // Without it nothing was taken away.
    finding.check(Check {
        name: "records of this load that it had read",
        limit: "≥ 1".into(),
        found: format!("{read:.0}"),
        kept: read >= 1.0,
    });
    Ok(finding)
}

/// Records that a job has read so far.
async fn records(metrics: SocketAddr) -> Result<f64> {
    let answer = spawn_blocking(move || http::get(metrics, "/metrics")).await??;
    Ok(http::sum_of(&answer.body, "corecast_job_records_total"))
}

/// The last that it told before it was gone.
async fn last_records(metrics: SocketAddr) -> f64 {
    let mut last = 0.0;
    while let Ok(read) = records(metrics).await {
        last = read;
        sleep(LOOK).await;
    }
    last
}

const LOOK: Duration = Duration::from_millis(200);
