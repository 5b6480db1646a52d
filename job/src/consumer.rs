//! Reads the log, plans, and records as done what is safe.
//!
//! One task per consumer, each with its own partitions and window. Back-pressure: while the
//! window (or the lane of a gateway that is owed) is full, `next` is asked for no records,
//! only for changes of the assignment. Offsets are recorded at most every [`PASS`] unless the
//! window is full; the log itself may hold them back for a second more.
//!
//! A partition that goes to another consumer is abandoned: its window is forgotten, pushes
//! under way end as they may, and nothing of it is recorded any more. Whoever owns it now
//! reads on from the last record; gateways drop what they know.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use corecast_backends::log::{LogConsumer, LogError, LogEvent, Record, Token};
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::core::duty::Planned;
use crate::core::plan::{Poison, plan};
use crate::core::window::Ticket;
use crate::desk::{Desk, Report};

/// Records in one answer of the log.
const READ_MAX: usize = 256;
/// Pause between two passes over the safe offsets while there is room to read.
const PASS: Duration = Duration::from_millis(50);
/// A call of the log may take this long before it counts as failed.
const LOG_DEADLINE: Duration = Duration::from_secs(5);
/// Pause after a failed call of the log.
const LOG_PAUSE: Duration = Duration::from_millis(200);
/// Between reports of how far behind this consumer is.
const REPORT: Duration = Duration::from_secs(1);
/// At the end, what is in flight gets this long to be acked; the rest is seen again after
/// the restart, where the gateways drop what they know.
const DRAIN: Duration = Duration::from_secs(1);

/// The task of one consumer.
pub(crate) struct Reader<C> {
    consumer: C,
    index: usize,
    desk: Arc<Desk>,
    wakes: watch::Receiver<()>,
    /// Safe offsets that the log has not taken yet. At most one per partition.
    safe: BTreeMap<i32, i64>,
    /// Poison that is not put aside yet. In flight until then, so the window bounds it.
    poison: VecDeque<(Record, Poison, Ticket)>,
    /// No call of the log before this, after one failed.
    resume_at: Option<Instant>,
    passed_at: Instant,
    report_at: Instant,
}

impl<C: LogConsumer> Reader<C> {
    pub(crate) fn new(consumer: C, index: usize, desk: Arc<Desk>) -> Self {
        let wakes = desk.consumer_wakes();
        Self {
            consumer,
            index,
            desk,
            wakes,
            safe: BTreeMap::new(),
            poison: VecDeque::new(),
            resume_at: None,
            passed_at: Instant::now(),
            report_at: Instant::now(),
        }
    }

    /// Runs until `stop`. Nothing is planned before the registry's first answer: with nobody
    /// known to owe it to, a record would be done at once and delivered to no one.
    pub(crate) async fn drive(mut self, stop: CancellationToken) {
        let mut listed = self.desk.listed();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = listed.wait_for(|listed| *listed) => {}
        }
        while !stop.is_cancelled() {
            self.pass().await;
            self.report();
            let room = match self.resume_at {
                Some(_) => 0,
                None => self.desk.ledger().room(self.index).min(READ_MAX),
            };
            let pass_at = if room > 0 { self.passed_at + PASS } else { Instant::now() };
            tokio::select! {
                () = stop.cancelled() => {}
                () = released(&mut self.wakes, pass_at) => {}
                () = sleep_until(self.resume_at.unwrap_or_else(Instant::now)), if self.resume_at.is_some() => {
                    self.resume_at = None;
                }
                () = sleep_until(self.report_at) => {}
                event = self.consumer.next(room), if self.resume_at.is_none() => match event {
                    Ok(event) => self.handle_event(event),
                    Err(error) => self.handle_failure("next", &error),
                },
            }
        }
        self.drain().await;
        self.consumer.close().await;
    }

    fn handle_event(&mut self, event: LogEvent) {
        match event {
            LogEvent::Records(records) => self.handle_records(records),
            LogEvent::Revoked(partitions) => {
                self.desk.ledger().handle_revoked(self.index, &partitions);
                self.safe.retain(|partition, _| !partitions.contains(partition));
                self.poison.retain(|(record, ..)| !partitions.contains(&record.token.partition));
            }
        }
    }

    fn handle_records(&mut self, records: Vec<Record>) {
        self.desk.metrics.records.inc_by(records.len() as u64);
        for record in records {
            let planned = plan(record.token, &record.value);
            let bytes = record.value.len();
            let mut ledger = self.desk.ledger();
            let now = self.desk.now();
            let Some(ticket) = ledger.insert(self.index, record.token, bytes, now) else { continue };
            match planned {
                Ok(push) => {
                    let bytes = push.encoded_len();
                    ledger.offer(ticket, &Arc::new(Planned { push, bytes }), now);
                }
                Err(poison) => self.poison.push_back((record, poison, ticket)),
            }
        }
        self.desk.tell_lanes();
    }

    /// Puts poison aside and records what is safe.
    async fn pass(&mut self) {
        self.passed_at = Instant::now();
        while self.resume_at.is_none()
            && let Some((record, poison, ticket)) = self.poison.front()
        {
            let (token, ticket) = (record.token, *ticket);
            match in_time(self.consumer.dead_letter(record, &poison.to_string())).await {
                Ok(()) => {
                    warn!(token.partition, token.offset, %poison, "record put aside");
                    self.desk.metrics.dead_letters.inc();
                }
                Err(LogError::Refused(reason)) => {
                    error!(token.partition, token.offset, %poison, reason, "record lost: not even a dead letter");
                    self.desk.metrics.dead_letters_lost.inc();
                }
                Err(error) => {
                    self.handle_failure("dead_letter", &error);
                    break;
                }
            }
            self.poison.pop_front();
            self.desk.ledger().release(ticket);
        }
        while let Some(token) = self.next_safe() {
            self.safe.insert(token.partition, token.offset);
        }
        while self.resume_at.is_none()
            && let Some((&partition, &offset)) = self.safe.first_key_value()
        {
            match in_time(self.consumer.done(Token { partition, offset })).await {
                Ok(()) => drop(self.safe.remove(&partition)),
                Err(error) => self.handle_failure("done", &error),
            }
        }
    }

    fn report(&mut self) {
        let now = Instant::now();
        if now >= self.report_at {
            self.report_at = now + REPORT;
            self.desk.tell_report(self.index, Report { up: self.consumer.is_up(), lag: self.consumer.lag() });
        }
    }

    fn next_safe(&self) -> Option<Token> {
        self.desk.ledger().poll_done(self.index)
    }

    /// Nothing more is read; what the gateways ack in time is recorded.
    async fn drain(&mut self) {
        let end = Instant::now() + DRAIN;
        loop {
            self.resume_at = None;
            self.pass().await;
            let idle = self.desk.ledger().in_flight().0 == 0 && self.safe.is_empty();
            if idle || timeout_at(end, self.wakes.changed()).await.is_err() {
                return;
            }
        }
    }

    fn handle_failure(&mut self, call: &str, error: &LogError) {
        self.desk.metrics.log_errors.inc();
        warn!(call, %error, "log call failed, trying again");
        self.resume_at = Some(Instant::now() + LOG_PAUSE);
    }
}

/// Something was released, and the time for the next pass has come.
async fn released(wakes: &mut watch::Receiver<()>, pass_at: Instant) {
    if wakes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    sleep_until(pass_at).await;
}

async fn in_time(call: impl Future<Output = Result<(), LogError>>) -> Result<(), LogError> {
    let late = |_| LogError::Unavailable("no answer in time".into());
    timeout(LOG_DEADLINE, call).await.map_err(late)?
}
