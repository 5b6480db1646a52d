//! `corecast-bench accept`: how many messages a second one logic node makes durable, one
//! message per request over gRPC, first in many rooms, then in one. A closed loop of many
//! callers: the node is never without work, so this is its limit, not its latency.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use corecast_proto::logic::logic_client::LogicClient;
use corecast_proto::logic::{ClientFrame, CreateRoomRequest, NewMessage, SendRequest};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use crate::chaos::command::{Place, interrupted};
use crate::http;
use crate::load::Latency;

/// Flags of `corecast-bench accept`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    pub place: Place,
    /// Rooms of the first measurement; the second has one.
    #[arg(long, default_value_t = 200)]
    pub rooms: usize,
    /// Calls under way at a time.
    #[arg(long, default_value_t = 400)]
    pub callers: usize,
    /// Seconds that count of each measurement, after two that do not.
    #[arg(long, default_value_t = 15)]
    pub seconds: u64,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Found {
    /// Messages answered with success in a second.
    pub per_second: f64,
    /// Messages of one transaction, on the average.
    pub per_transaction: f64,
    /// Outbox rows that waited for the log when the last call was answered.
    pub backlog_rows: f64,
    /// The most that the oldest outbox row had waited for the log at any look, seconds.
    pub oldest_seconds: f64,
    /// Outbox rows that the log took in a second.
    pub rows_per_second: f64,
    /// Calls that failed or were refused.
    pub failed: u64,
    /// Of a call.
    pub latency: Latency,
}

/// Measures, prints, and answers whether the limits were kept.
///
/// # Errors
/// The system cannot be used.
pub fn run(options: &Options, head: &str) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let system = options.place.open_with(1, &[])?;
    let (http, grpc) = (system.logic()?, system.logic_grpc()?);
    println!(
        "{head}\n{}; one logic node is called, {} calls under way.\n",
        system.describe(),
        options.callers
    );
    // What an acceptance means here. A fault that it finds is part of the figure.
    println!("{}\n", system.doctor().unwrap_or_else(|error| error.to_string()).trim_end());
    let author = author(http)?;
    let mut kept = true;
    for (rooms, least) in [(options.rooms, MANY_LEAST), (1, ONE_LEAST)] {
        let found = runtime.block_on(async {
            tokio::select! {
                found = measure(options, rooms, http, grpc, &author) => found,
                found = interrupted() => found,
            }
        })?;
        let good = found.keeps(least);
        kept &= good;
        println!("### {rooms} {}\n", if rooms == 1 { "room" } else { "rooms" });
        println!(
            "{:.0} messages a second accepted (at least {least:.0}), {:.1} a transaction; outbox at the end {:.0} rows, {:.2} s of what the log takes ({:.0} rows a second), its oldest row never older than {:.2} s; failed {}: {}\n",
            found.per_second,
            found.per_transaction,
            found.backlog_rows,
            found.backlog_seconds(),
            found.rows_per_second,
            found.oldest_seconds,
            found.failed,
            if good { "kept" } else { "MISSED" }
        );
        println!("{}", super::histogram(&found.latency));
    }
    Ok(kept)
}

impl Found {
    fn backlog_seconds(&self) -> f64 {
        if self.backlog_rows == 0.0 { 0.0 } else { self.backlog_rows / self.rows_per_second.max(1.0) }
    }

    fn keeps(&self, least: f64) -> bool {
        // Rows are counted once they are old; what is young shows by its age.
        let waits = self.backlog_seconds().max(self.oldest_seconds);
        self.per_second >= least && waits <= BACKLOG_SECONDS && self.failed == 0
    }
}

/// Measures one number of rooms.
///
/// # Errors
/// Rooms cannot be made, or logic does not tell its metrics.
pub async fn measure(
    options: &Options,
    rooms: usize,
    http: SocketAddr,
    grpc: SocketAddr,
    author: &(String, String),
) -> Result<Found> {
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(Endpoint::new(format!("http://{grpc}"))?.connect().await.context("logic's gRPC")?);
    }
    let rooms = Arc::new(create_rooms(channels[0].clone(), rooms, author).await?);
    let load = Load {
        stop: AtomicBool::new(false),
        counting: AtomicBool::new(false),
        accepted: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    };
    let load = Arc::new(load);
    let mut callers = Vec::with_capacity(options.callers);
    for index in 0..options.callers {
        let caller = Caller {
            client: LogicClient::new(channels[index % channels.len()].clone()),
            load: load.clone(),
            room: rooms[index % rooms.len()].clone(),
            author: author.clone(),
        };
        callers.push(tokio::spawn(caller.run()));
    }
    sleep(WARM_UP).await;
    let (before, start) = (Metrics::read(http).await?, Instant::now());
    load.counting.store(true, Ordering::Release);
    let mut oldest_seconds = before.oldest;
    for _ in 0..options.seconds * LOOKS {
        sleep(Duration::from_secs(1) / LOOKS as u32).await;
        oldest_seconds = Metrics::read(http).await?.oldest.max(oldest_seconds);
    }
    load.counting.store(false, Ordering::Release);
    let (took, after) = (start.elapsed().as_secs_f64(), Metrics::read(http).await?);
    load.stop.store(true, Ordering::Release);
    let mut latency = Latency::new();
    for caller in callers {
        latency.add(&caller.await.context("a caller's task")?);
    }
    let transactions = after.commits - before.commits;
    Ok(Found {
        per_second: load.accepted.load(Ordering::Acquire) as f64 / took,
        per_transaction: (after.messages - before.messages) / transactions.max(1.0),
        backlog_rows: after.backlog,
        oldest_seconds: oldest_seconds.max(after.oldest),
        rows_per_second: (after.appended - before.appended) / took,
        failed: load.failed.load(Ordering::Acquire),
        latency,
    })
}

struct Load {
    stop: AtomicBool,
    counting: AtomicBool,
    accepted: AtomicU64,
    failed: AtomicU64,
}

/// One call after the other.
struct Caller {
    client: LogicClient<Channel>,
    load: Arc<Load>,
    room: String,
    author: (String, String),
}

impl Caller {
    async fn run(mut self) -> Latency {
        let mut latency = Latency::new();
        let unique = uuid_like();
        let mut sent: u64 = 0;
        while !self.load.stop.load(Ordering::Acquire) {
            let begin = Instant::now();
            let key = format!("c:{unique}-{sent}");
            sent += 1;
            let messages = vec![NewMessage { content: CONTENT.to_owned(), key }];
            let (user_id, username) = self.author.clone();
            let frame = ClientFrame { room_id: self.room.clone(), user_id, username, messages };
            let answer = timeout(CALL_TIME, self.client.send(SendRequest { frames: vec![frame] })).await;
            let accepted = matches!(answer, Ok(Ok(reply))
                if reply.get_ref().results.first().is_some_and(|result| result.refusal.is_none()));
            if !self.load.counting.load(Ordering::Acquire) {
                continue;
            }
            if accepted {
                self.load.accepted.fetch_add(1, Ordering::AcqRel);
                latency.record(begin.elapsed().as_nanos() as u64, 1);
            } else {
                self.load.failed.fetch_add(1, Ordering::AcqRel);
            }
        }
        latency
    }
}

/// What logic counts.
struct Metrics {
    commits: f64,
    messages: f64,
    backlog: f64,
    oldest: f64,
    appended: f64,
}

impl Metrics {
    async fn read(http: SocketAddr) -> Result<Self> {
        let answer = tokio::task::spawn_blocking(move || http::get(http, "/metrics")).await??;
        let sum = |name: &str| http::sum_of(&answer.body, &format!("corecast_logic_{name}"));
        let metrics = Self {
            commits: sum("commit_messages_count"),
            messages: sum("commit_messages_sum"),
            backlog: sum("relay_backlog_rows"),
            oldest: sum("relay_backlog_seconds"),
            appended: sum("relay_appended_records_total"),
        };
        if answer.status != 200 || metrics.commits == 0.0 {
            bail!("logic tells no commits: {} at {http}/metrics", answer.status);
        }
        Ok(metrics)
    }
}

/// A user: (id, name).
fn author(logic: SocketAddr) -> Result<(String, String)> {
    let name = format!("a{}", uuid_like());
    let body = json!({"username": name, "email": format!("{name}@example.org"), "password": "of a bench"});
    let sid = http::post(logic, "/logic/register", &body)?.sid()?;
    let verified = http::post(logic, "/logic/verify", &json!({ "cookie": sid }))?;
    let verified: Value = serde_json::from_str(&verified.body).context("verify")?;
    let id = verified["user_id"].as_str().context("a session has a user")?;
    Ok((id.to_owned(), name))
}

async fn create_rooms(channel: Channel, count: usize, author: &(String, String)) -> Result<Vec<String>> {
    let mut client = LogicClient::new(channel);
    let mut rooms = Vec::with_capacity(count);
    for _ in 0..count {
        let key = uuid_like();
        let request = CreateRoomRequest {
            room_name: format!("accept {key}"),
            creator_id: author.0.clone(),
            creator_username: author.1.clone(),
            key,
        };
        let reply = client.create_room(request).await?.into_inner();
        if let Some(refusal) = reply.refusal {
            bail!("a room: {} {}", refusal.code, refusal.message);
        }
        rooms.push(reply.room_id);
    }
    Ok(rooms)
}

/// Unique among all runs: 16 hexadecimal digits.
fn uuid_like() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Bytes of a message: those of the gateway's own benchmark.
const CONTENT: &str = "a message of about as many bytes as people write in one line of a chat, which is what this system is there for, over and again..";
const CHANNELS: usize = 4;
const WARM_UP: Duration = Duration::from_secs(2);
/// Looks at the node's metrics in a second.
const LOOKS: u64 = 2;
const CALL_TIME: Duration = Duration::from_secs(10);
/// Limits: messages a second in many rooms and in one, and seconds of traffic in the outbox.
const MANY_LEAST: f64 = 5_000.0;
const ONE_LEAST: f64 = 2_000.0;
const BACKLOG_SECONDS: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_judged_by_what_the_log_takes() {
        let found = Found {
            per_second: 5_000.0,
            per_transaction: 40.0,
            backlog_rows: 500.0,
            oldest_seconds: 1.0,
            rows_per_second: 500.0,
            failed: 0,
            latency: Latency::new(),
        };
        assert!(found.keeps(5_000.0));
        assert!(!Found { backlog_rows: 501.0, ..found.clone() }.keeps(5_000.0));
        assert!(!Found { oldest_seconds: 1.1, ..found.clone() }.keeps(5_000.0));
        assert!(!Found { per_second: 4_999.0, ..found.clone() }.keeps(5_000.0));
        assert!(!Found { failed: 1, ..found.clone() }.keeps(5_000.0));
        assert!(Found { backlog_rows: 0.0, rows_per_second: 0.0, ..found }.keeps(5_000.0));
    }
}
