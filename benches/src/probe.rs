//! The probe: a process with one connection of `/debug/echo`, which asks at fixed moments
//! how long its echo takes.
//!
//! It shares the client's core and must not wait for the client there, or it would measure
//! that. So it runs at a real-time priority where the machine allows it (root), else at the
//! best nice value it gets: the client, which naps between its rounds and has nothing urgent
//! to do, gives way. What is left of the core's share in the figure is told: the *lateness*
//! is how long after its moment the probe itself began to send. Latency counts from the
//! moment, so lateness is in it.
//!
//! ```text
//!  stdout:  ready | priority P | latency NS COUNT … | late NS COUNT … | tally D L D R
//! ```

use std::fmt::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::clock::now_ns;
use crate::load::connection::{Connection, Knock, Phase, Seen};
use crate::load::{Latency, Tally};
use crate::subject::ECHO_PATH;
use crate::sys::{self, Epoll, Interest};
use crate::wire::{self, MARKER_BYTES, Marker};

/// What a probe is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Probe {
    /// Where.
    #[arg(long)]
    pub server: SocketAddr,
    /// Session; empty: none.
    #[arg(long, default_value = "")]
    pub sid: String,
    /// Microseconds between two echoes.
    #[arg(long)]
    pub interval_us: u64,
    /// Echoes.
    #[arg(long)]
    pub echoes: u64,
}

/// What a probe found.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its priority, in words.
    pub priority: String,
    /// Echoes, from their moments.
    pub latency: Latency,
    /// How long after its moment each send began.
    pub late: Latency,
    /// Loss, repeats, order.
    pub tally: Tally,
}

/// Measures and prints an [`Answer`]; nothing of it before the last echo is there.
///
/// # Errors
/// The server refuses, closes, or does not echo.
pub fn probe(options: &Probe) -> Result<()> {
    let mut answer = Answer { priority: sys::prefer(), ..Answer::default() };
    let sids = Some(options.sid.clone()).filter(|sid| !sid.is_empty());
    let knock =
        Knock { path: ECHO_PATH.into(), sids: sids.into_iter().collect(), ..Knock::to(options.server) };
    let mut epoll = Epoll::new(4)?;
    let mut connection = Connection::begin(&knock, 0, now_ns())?;
    epoll.add(connection.stream().as_fd(), Interest::ConnectThenRead, PEER)?;
    let (mut scratch, mut seen) = (vec![0; 4 << 10], Seen::default());
    let until = Instant::now() + PATIENCE;
    while connection.phase() != Phase::Open {
        if Instant::now() > until {
            bail!("not open");
        }
        let ready = epoll.wait(Some(PATIENCE))?;
        if ready > 0 && connection.phase() == Phase::Connecting {
            connection.upgrade(&knock)?;
        } else if ready > 0 {
            connection.read(&knock, &mut scratch, &mut seen)?;
        }
    }
    println!("ready");

    let interval_ns = options.interval_us * 1_000;
    let time = Duration::from_nanos(interval_ns * options.echoes);
    let until = Instant::now() + time + PATIENCE;
    let start_ns = now_ns();
    let timer = sys::ticker(Duration::from_nanos(interval_ns))?;
    epoll.add(timer.as_fd(), Interest::Read, TICK)?;
    let (mut sent, mut received, mut frame) = (0, 0, Vec::new());
    while received < options.echoes {
        if Instant::now() > until {
            bail!("{received} of {} echoes came", options.echoes);
        }
        for index in 0..epoll.wait(Some(PATIENCE))? {
            if epoll.token(index) == PEER {
                connection.read(&knock, &mut scratch, &mut seen)?;
                let now = now_ns();
                received += std::mem::take(&mut seen.received);
                for (intended_ns, count) in seen.intended.drain(..) {
                    answer.latency.record(now.saturating_sub(intended_ns), count);
                }
                continue;
            }
            let mut times = [0; 8];
            let read = rustix::io::read(&timer, &mut times);
            let times = read.map_or(0, |_| u64::from_ne_bytes(times));
            for _ in 0..times.min(options.echoes - sent) {
                sent += 1;
                let intended_ns = start_ns + sent * interval_ns;
                answer.late.record(now_ns().saturating_sub(intended_ns), 1);
                frame.clear();
                let marker = Marker { counter: sent, intended_ns };
                wire::push_masked(&mut frame, 1, &marker.payload(MARKER_BYTES));
                connection.write(&frame)?;
            }
        }
    }
    answer.tally = connection.lines.judge(sent);
    print!("{}", answer.lines());
    Ok(())
}

impl Answer {
    fn lines(&self) -> String {
        let mut out = format!("priority {}\n", self.priority);
        for (name, latency) in [("latency", &self.latency), ("late", &self.late)] {
            for (ns, count) in latency.records() {
                writeln!(out, "{name} {ns} {count}").expect(INTO_STRING);
            }
        }
        let Tally { delivered, lost, duplicated, reordered } = self.tally;
        writeln!(out, "tally {delivered} {lost} {duplicated} {reordered}").expect(INTO_STRING);
        out
    }
}

impl FromStr for Answer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut answer = Self::default();
        for line in text.lines() {
            let (name, rest) = line.split_once(' ').context("a line without a value")?;
            if name == "priority" {
                answer.priority = rest.to_owned();
                continue;
            }
            let numbers = rest.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
            match (name, numbers[..].as_ref()) {
                ("latency", [ns, count]) => answer.latency.record(*ns, *count),
                ("late", [ns, count]) => answer.late.record(*ns, *count),
                ("tally", [delivered, lost, duplicated, reordered]) => {
                    answer.tally = Tally {
                        delivered: *delivered,
                        lost: *lost,
                        duplicated: *duplicated,
                        reordered: *reordered,
                    };
                }
                _ => bail!("a line that no probe prints: {line}"),
            }
        }
        Ok(answer)
    }
}

const PEER: u64 = 0;
const TICK: u64 = 1;
/// Time for what comes at once on a healthy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const INTO_STRING: &str = "a String takes every byte";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_back() {
        let mut answer = Answer { priority: "real time".into(), ..Answer::default() };
        answer.latency.record(2_000_000, 7);
        answer.late.record(50_000, 1);
        answer.tally.delivered = 8;
        let read: Answer = answer.lines().parse().unwrap();
        assert_eq!((read.latency.count(), read.late.count(), read.tally), (7, 1, answer.tally));
        assert!((read.latency.quantile_ms(0.5) - 2.0).abs() < 0.01);
        assert!("latency x".parse::<Answer>().is_err() && "other 1 2".parse::<Answer>().is_err());
    }
}
