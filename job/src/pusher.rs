//! One task per gateway: connect, wait for the welcome, send batches, take acks, and do it
//! again for as long as the registry lists the gateway. It decides nothing: what goes out
//! next, what an ack releases and when waiting ends is the [ledger](crate::core::ledger)'s.
//!
//! Bounds: the lane (in the core) and [`BATCHES_AHEAD`] batches between this task and the
//! connection. A gateway that does not read fills both; its batches pass their deadline, its
//! duty ends, and the other gateways' tasks never noticed.

use std::sync::Arc;
use std::time::Duration;

use corecast_proto::push::gateway_client::GatewayClient;
use corecast_proto::push::{Batch, FromGateway, from_gateway::Message};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Endpoint;
use tracing::{debug, info, warn};

use crate::core::duty::Verdict;
use crate::core::ledger::LaneId;
use crate::core::retry::Retry;
use crate::desk::Desk;
use crate::metrics::LaneMetrics;

/// Batches handed to the connection and not yet written by it. When it is full this task
/// waits, and the next batch grows meanwhile.
const BATCHES_AHEAD: usize = 2;
/// A connection without traffic is asked this often whether it lives, and given as long to
/// answer: a gateway that vanished without a word is found before the next push needs it.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Why a stream ended, or did not begin.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("address {0:?} is no host:port")]
    Address(String),
    #[error("cannot connect: {0}")]
    Connect(tonic::transport::Error),
    #[error("{0}")]
    Status(Box<tonic::Status>),
    #[error("the gateway ended the stream")]
    Ended,
    #[error("no welcome in time")]
    WelcomeLate,
    #[error("the first message was no welcome")]
    NoWelcome,
    #[error("another gateway answered: {0:?}")]
    WrongGateway(String),
    #[error("ack of batch {0}, which was not sent")]
    AckBeyond(u64),
    #[error("no ack in time")]
    AckLate,
    #[error("duty ended")]
    Lapsed,
}

/// A stream whose gateway said who it is.
struct Stream {
    outgoing: mpsc::Sender<Batch>,
    incoming: Streaming<FromGateway>,
    incarnation: u64,
}

/// The task of one gateway.
pub(crate) struct Pusher {
    desk: Arc<Desk>,
    lane: LaneId,
    gateway: String,
    wakes: watch::Receiver<()>,
    metrics: LaneMetrics,
    retry: Retry,
}

impl Pusher {
    pub(crate) fn new(desk: Arc<Desk>, lane: LaneId, gateway: String) -> Self {
        let (wakes, metrics) = (desk.lane_wakes(), desk.metrics.lane(&gateway));
        Self { desk, lane, gateway, wakes, metrics, retry: Retry::default() }
    }

    /// Runs until the gateway left the registry and is owed nothing, or until `stop`.
    pub(crate) async fn drive(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.drive_streams() => {
                // Unless it is back already, with a new lane that uses the same names.
                if self.desk.ledger().lanes().all(|(node, _)| node.id != self.gateway) {
                    self.desk.metrics.forget(&self.gateway);
                }
            }
        }
    }

    async fn drive_streams(&mut self) {
        let mut told = false;
        loop {
            let Some(addr) = self.desk.ledger().address(self.lane).map(str::to_owned) else { return };
            let opened = tokio::select! {
                opened = open(&addr, &self.gateway, self.desk.deadline) => opened,
                () = self.keep_time() => return,
            };
            let lost = match opened {
                Ok(stream) => {
                    info!(gateway = self.gateway, addr, incarnation = stream.incarnation, "push stream up");
                    told = false;
                    self.drive_stream(stream).await
                }
                Err(lost) => lost,
            };
            if self.desk.ledger().retire(self.lane) {
                info!(gateway = self.gateway, "gateway left, nothing is owed to it");
                return;
            }
            let pause = self.retry.handle_failure(self.desk.now());
            match told {
                true => debug!(gateway = self.gateway, addr, %lost, "no push stream"),
                false => warn!(gateway = self.gateway, addr, %lost, "no push stream, trying on"),
            }
            told = true;
            tokio::select! {
                () = sleep(pause) => {}
                () = self.keep_time() => return,
            }
        }
    }

    /// One stream from its welcome to its end.
    async fn drive_stream(&mut self, stream: Stream) -> Lost {
        self.desk.ledger().handle_welcome(self.lane, stream.incarnation);
        self.desk.tell_consumers();
        self.retry.handle_up(self.desk.now());
        self.metrics.up.set(1);
        let lost = self.exchange(stream).await;
        self.metrics.up.set(0);
        let lapsed = self.desk.ledger().handle_stream_lost(self.lane, self.desk.now());
        self.desk.tell_consumers();
        if lapsed {
            self.tell_lapsed();
        }
        lost
    }

    async fn exchange(&mut self, mut stream: Stream) -> Lost {
        let mut idle = false;
        loop {
            let due = self.due();
            tokio::select! {
                message = stream.incoming.message() => match message {
                    Ok(Some(FromGateway { message: Some(Message::Ack(ack)) })) => {
                        if let Err(lost) = self.handle_ack(ack.id) {
                            return lost;
                        }
                    }
                    Ok(Some(FromGateway { message: Some(Message::Interest(told)) })) => {
                        self.desk.ledger().handle_interest(self.lane, told);
                        // There may be heads to tell.
                        idle = false;
                    }
                    // A message this version does not know changes nothing.
                    Ok(Some(_)) => {}
                    Ok(None) => return Lost::Ended,
                    Err(status) => return Lost::Status(Box::new(status)),
                },
                room = stream.outgoing.reserve(), if !idle => {
                    let Ok(room) = room else { return Lost::Ended };
                    match self.next_batch() {
                        Some(batch) => room.send(batch),
                        None => idle = true,
                    }
                }
                _ = self.wakes.changed() => idle = false,
                () = sleep_until(due) => match self.handle_timeout() {
                    Verdict::Keep => {}
                    Verdict::Reconnect => return Lost::AckLate,
                    Verdict::Lapsed => return Lost::Lapsed,
                },
            }
            if self.desk.ledger().retire(self.lane) {
                return Lost::Ended;
            }
        }
    }

    /// Ends duties on time while there is no stream. Returns when the lane is over.
    async fn keep_time(&self) {
        let mut wakes = self.wakes.clone();
        loop {
            if self.desk.ledger().retire(self.lane) {
                return;
            }
            let due = self.due();
            tokio::select! {
                () = sleep_until(due) => {
                    self.handle_timeout();
                }
                _ = wakes.changed() => {}
            }
        }
    }

    fn next_batch(&self) -> Option<Batch> {
        let transmit = self.desk.ledger().poll_transmit(self.lane, self.desk.now())?;
        self.metrics.pushes.inc_by(transmit.pushes.len() as u64);
        self.metrics.retries.inc_by(transmit.again as u64);
        let pushes = transmit.pushes.iter().map(|planned| planned.push.clone()).collect();
        Some(Batch { id: transmit.id, pushes })
    }

    fn handle_ack(&mut self, id: u64) -> Result<(), Lost> {
        let acked = self.desk.ledger().handle_ack(self.lane, id, self.desk.now());
        let waits = acked.map_err(|beyond| Lost::AckBeyond(beyond.0))?;
        if !waits.is_empty() {
            self.retry.handle_progress();
            self.metrics.acks.inc_by(waits.len() as u64);
            waits.iter().for_each(|wait| self.metrics.latency.observe(wait.as_secs_f64()));
            self.desk.tell_consumers();
        }
        Ok(())
    }

    fn handle_timeout(&self) -> Verdict {
        let verdict = self.desk.ledger().handle_timeout(self.lane, self.desk.now());
        if verdict == Verdict::Lapsed {
            self.tell_lapsed();
            self.desk.tell_consumers();
        }
        verdict
    }

    fn tell_lapsed(&self) {
        self.metrics.lapsed.inc();
        warn!(gateway = self.gateway, "duty ended without an ack, the gateway will check its tails");
    }

    fn due(&self) -> Instant {
        let due = self.desk.ledger().poll_timeout(self.lane);
        due.map_or_else(|| Instant::now() + Duration::from_secs(3600), |time| self.desk.at(time))
    }
}

/// A new connection and a new stream on it, each time: what is wrong with a connection
/// often stays wrong.
async fn open(addr: &str, gateway: &str, deadline: Duration) -> Result<Stream, Lost> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|_| Lost::Address(addr.to_owned()))?
        .connect_timeout(deadline)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    let (outgoing, batches) = mpsc::channel(BATCHES_AHEAD);
    let welcome = async {
        let channel = endpoint.connect().await.map_err(Lost::Connect)?;
        let status = |status| Lost::Status(Box::new(status));
        let answer = GatewayClient::new(channel).push(ReceiverStream::new(batches)).await.map_err(status)?;
        let mut incoming = answer.into_inner();
        match incoming.message().await.map_err(status)? {
            Some(FromGateway { message: Some(Message::Welcome(welcome)) }) => Ok((incoming, welcome)),
            Some(_) => Err(Lost::NoWelcome),
            None => Err(Lost::Ended),
        }
    };
    let (incoming, welcome) = timeout(deadline, welcome).await.map_err(|_| Lost::WelcomeLate)??;
    // Acks of another gateway must not be counted as this one's.
    if welcome.gateway_id != gateway {
        return Err(Lost::WrongGateway(welcome.gateway_id));
    }
    Ok(Stream { outgoing, incoming, incarnation: welcome.incarnation })
}
