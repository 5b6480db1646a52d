//! How long does a connection wait for its echo while a large room on its core is served?
//!
//! A process of its own ([`probe`](crate::probe)) is echoed on one connection; beside it the
//! members of a room get a message at each moment of a schedule. Compared is the same server
//! with the same members and no message. The figure is the probe's p99.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{ARRIVAL, all_there, fleet, judged, payloads};
use crate::clock::sleep_until;
use crate::measure::{Meter, Rule, Run};
use crate::probe::Answer;
use crate::subject::{Kind, Server};

/// The workload.
#[derive(Clone, Debug)]
pub struct BesideRoom {
    /// This program, which contains the probe.
    pub bench: std::path::PathBuf,
    /// Members of the room.
    pub members: usize,
    /// Bytes of a payload of the room.
    pub bytes: usize,
    /// Time between two messages of the room.
    pub interval: Duration,
    /// Messages of the room.
    pub moments: u64,
    /// Time between two echoes.
    pub echo_interval: Duration,
}

impl BesideRoom {
    /// 128 bytes every 120 ms for six seconds; 500 echoes a second.
    pub fn of(bench: &std::path::Path, members: usize) -> Self {
        Self {
            bench: bench.to_owned(),
            members,
            bytes: 128,
            interval: Duration::from_millis(120),
            moments: 50,
            echo_interval: Duration::from_millis(2),
        }
    }

    /// One run on a fresh server, which echoes on [`ECHO_PATH`](crate::subject::ECHO_PATH).
    ///
    /// # Errors
    /// The server refuses or loses connections or messages.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let fleet = fleet(server, self.members)?;
        let served = if server.kind == Kind::Undisturbed { 0 } else { self.moments };
        fleet.begin(0, 1)?;
        server.entry.send(payloads(0, 1, 0, self.bytes))?;
        fleet.wait_received(self.members as u64, ARRIVAL);
        all_there(&fleet)?;

        fleet.begin(1, 1)?;
        let meter = Meter::start(server)?;
        let time = self.interval * u32::try_from(self.moments)?;
        let echoes = time.as_nanos() / self.echo_interval.as_nanos().max(1);
        let mut child = Command::new(&self.bench)
            .args(["probe", "--server", &server.knock.server.to_string()])
            .args(["--sid", server.knock.sids.first().map_or("", String::as_str)])
            .args(["--interval-us", &self.echo_interval.as_micros().to_string()])
            .args(["--echoes", &echoes.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("the probe does not start")?;
        let mut told = BufReader::new(child.stdout.take().context("its output is piped")?);
        // It is open now, and begins.
        told.read_line(&mut String::new())?;
        let start_ns = crate::clock::now_ns();
        for moment in 0..self.moments {
            let intended_ns = start_ns + moment * self.interval.as_nanos() as u64;
            sleep_until(intended_ns);
            if moment < served {
                server.entry.send(payloads(1 + moment, 1, intended_ns, self.bytes))?;
            }
        }
        let mut text = String::new();
        told.read_to_string(&mut text)?;
        if !child.wait()?.success() {
            bail!("the probe failed");
        }
        fleet.wait_received(served * self.members as u64, ARRIVAL);
        let cost = meter.stop(server)?;
        all_there(&fleet)?;
        let answer: Answer = text.parse()?;
        let mut found = fleet.judge(Some(1 + served))?;
        let of_room = std::mem::replace(&mut found.latency, answer.latency);
        found.tally.add(answer.tally);
        let mut run = Run::new(server, answer.tally.delivered, cost, found);
        run.facts.push((
            format!("probe's own lateness, p99 ms ({})", answer.priority),
            answer.late.quantile_ms(0.99),
        ));
        if served > 0 {
            run.facts.push(("delivery to the room, p50 ms".into(), of_room.quantile_ms(0.5)));
            run.facts.push(("delivery to the room, p99 ms".into(), of_room.quantile_ms(0.99)));
        }
        run.rejected = cost.reject(Rule::Latency);
        Ok(judged(run))
    }
}
