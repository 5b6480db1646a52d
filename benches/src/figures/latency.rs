//! `corecast-bench latency`: one message per request on a schedule, rooms of ten members;
//! the time from the intended moment of a send until each member has read the frame. Inside
//! the timer: client, front door, gateway, logic, database, the way back, and the reading.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::chaos::client::{self, Socket};
use crate::chaos::command::{Place, interrupted};
use crate::chaos::crowd;
use crate::chaos::frames::{self, Frame};
use crate::clock::now_ns;
use crate::load::Latency;
use crate::procfs::Cpu;

/// Flags of `corecast-bench latency`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    pub place: Place,
    /// Messages a second, one per request, over all clients.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// Rooms.
    #[arg(long, default_value_t = 20)]
    pub rooms: usize,
    /// Members of each room; each is a connection in that room alone.
    #[arg(long, default_value_t = 10)]
    pub members: usize,
    /// Seconds that count, after three that do not.
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// Seconds over which the idle system's CPU is taken, with everybody connected.
    #[arg(long, default_value_t = 10)]
    pub idle_seconds: u64,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Found {
    /// From the intended moment to the frame, per delivery.
    pub latency: Latency,
    /// Deliveries that should have come and did not.
    pub lost: u64,
    /// Numbers that did not follow the one before.
    pub disordered: u64,
    /// Messages refused or without an answer.
    pub failed: u64,
    /// CPU of our processes while nothing happens, in cores.
    pub idle_cores: f64,
    /// The same under the load.
    pub busy_cores: f64,
    /// CPU of this process under the load, in cores.
    pub client_cores: f64,
}

/// Measures, prints, and answers whether the limits were kept. Without the fast path
/// (`--set bus.url=none:`) the limit is that of the log path.
///
/// # Errors
/// The system cannot be used.
pub fn run(options: &Options, head: &str) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let system = options.place.open()?;
    let (entry, pids) = (system.entry()?, system.pids());
    let found = runtime.block_on(async {
        tokio::select! {
            found = measure(options, entry, &pids) => found,
            found = interrupted() => found,
        }
    })?;
    let log_only = options.place.sets.iter().any(|set| set.starts_with("bus.url=none:"));
    let (p50_ms, p99_ms) = if log_only { (f64::MAX, LOG_P99_MS) } else { (FAST_P50_MS, FAST_P99_MS) };
    let quantile = |share| found.latency.quantile_ms(share);
    let kept = quantile(0.5) <= p50_ms
        && quantile(0.99) <= p99_ms
        && found.lost + found.disordered + found.failed == 0
        && found.idle_cores < IDLE_CORES;
    let path = if log_only { "log path alone" } else { "fast path, log path behind it" };
    println!("{head}\n{}: {path}.\n", system.describe());
    println!(
        "{} messages a second, one per request, {} rooms of {} members, {} s.\n",
        options.rate, options.rooms, options.members, options.seconds
    );
    println!("{}", super::histogram(&found.latency));
    println!(
        "lost {}, out of order {}, refused or unanswered {}\n\
         our processes: idle {:.3} cores, under this load {:.2}; this client {:.2}\n\
         {}",
        found.lost,
        found.disordered,
        found.failed,
        found.idle_cores,
        found.busy_cores,
        found.client_cores,
        if kept { "every limit was kept" } else { "A LIMIT WAS MISSED" }
    );
    Ok(kept)
}

/// Measures against whoever answers at `entry`.
///
/// # Errors
/// Accounts or rooms cannot be made, or a connection ends.
pub async fn measure(options: &Options, entry: SocketAddr, pids: &[u32]) -> Result<Found> {
    let clients = options.rooms * options.members;
    // Names of its own: the rooms and accounts of an earlier run stay as they are.
    let seed = now_unix_ms()?;
    let sids = crowd::accounts(entry, clients, seed).await?;
    let first = sids.first().context("at least one client")?;
    let rooms = crowd::create_rooms(entry, first, options.rooms, seed).await?;
    let mut people = Vec::with_capacity(clients);
    for (index, sid) in sids.iter().enumerate() {
        people.push(Member::start(entry, sid, &rooms[index % rooms.len()]).await?);
    }
    sleep(Duration::from_secs(1)).await;
    let idle_cores = cores(pids, Duration::from_secs(options.idle_seconds)).await?;
    let load = Duration::from_secs(options.seconds);
    let start_ns = now_ns() + 50_000_000;
    let counted = (start_ns + WARM_UP.as_nanos() as u64)..(start_ns + (WARM_UP + load).as_nanos() as u64);
    let watch = async {
        sleep(WARM_UP).await;
        let own = [std::process::id()];
        tokio::join!(cores(pids, load), cores(&own, load))
    };
    let total = options.rate * (WARM_UP + load).as_secs();
    let ((), (busy, client)) = tokio::join!(send_all(&people, options.rate, total, start_ns), watch);
    let expected = total * options.members as u64;
    let mut found = Found {
        latency: Latency::new(),
        lost: 0,
        disordered: 0,
        failed: 0,
        idle_cores,
        busy_cores: busy?,
        client_cores: client?,
    };
    let mut delivered = 0;
    // All of them fall silent together.
    let tasks: Vec<_> = people.into_iter().map(|member| member.task).collect();
    for task in tasks {
        let seen = task.await.context("a member's task")??;
        delivered += seen.deliveries;
        found.disordered += seen.disordered;
        found.failed += seen.failed;
        for (intended_ns, took_ns) in seen.times {
            if counted.contains(&intended_ns) {
                found.latency.record(took_ns, 1);
            }
        }
    }
    found.lost = expected.saturating_sub(delivered);
    Ok(found)
}

/// A connection in one room.
struct Member {
    say: mpsc::Sender<u64>,
    task: tokio::task::JoinHandle<Result<Seen>>,
}

/// What a member saw.
#[derive(Default)]
struct Seen {
    /// (intended moment, ns until it was read).
    times: Vec<(u64, u64)>,
    deliveries: u64,
    disordered: u64,
    failed: u64,
    last: Option<u64>,
    unanswered: u64,
}

impl Member {
    async fn start(entry: SocketAddr, sid: &str, room: &str) -> Result<Self> {
        let mut socket = client::connect(entry, sid).await?;
        socket.send(Message::text(frames::resume([]))).await?;
        socket.send(Message::text(frames::join(room, None))).await?;
        let joined = async {
            while let Some(message) = socket.next().await {
                if let Message::Text(text) = message?
                    && matches!(Frame::read(text.as_str()), Some(Frame::Joined(_)))
                {
                    return Ok(());
                }
            }
            bail!("the connection ended before it was in its room")
        };
        timeout(Duration::from_secs(20), joined).await.context("no answer to the join")??;
        let (say, words) = mpsc::channel(WAITING_MAX);
        Ok(Self { say, task: tokio::spawn(live(socket, room.to_owned(), words)) })
    }
}

/// Says each intended moment when it is told to, reads all the time; ends when there is no
/// more to say and nothing came for a while.
async fn live(socket: Socket, room: String, mut words: mpsc::Receiver<u64>) -> Result<Seen> {
    let (mut sink, mut stream) = socket.split();
    let mut seen = Seen::default();
    let mut talking = true;
    loop {
        let silence = sleep(if talking { Duration::from_secs(3_600) } else { TAIL });
        tokio::select! {
            word = words.recv(), if talking => match word {
                Some(intended_ns) => {
                    seen.unanswered += 1;
                    say(&mut sink, &room, intended_ns).await?;
                }
                None => talking = false,
            },
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) => seen.read(text.as_str(), now_ns()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => bail!("a connection ended under load"),
            },
            () = silence => {
                seen.failed += seen.unanswered;
                return Ok(seen);
            }
        }
    }
}

async fn say(sink: &mut SplitSink<Socket, Message>, room: &str, intended_ns: u64) -> Result<()> {
    let text = frames::message(room, &intended_ns.to_string(), &format!("t{intended_ns}"));
    timeout(Duration::from_secs(10), sink.send(Message::text(text))).await.context("takes no byte")??;
    Ok(())
}

impl Seen {
    /// Looks for the few marks it needs: parsing ten thousand frames a second as JSON would
    /// be the client's time, not the system's.
    fn read(&mut self, text: &str, now_ns: u64) {
        if text.starts_with(r#"{"type":"ack""#) {
            self.unanswered = self.unanswered.saturating_sub(text.matches("clientMessageId").count() as u64);
        } else if text.starts_with(r#"{"type":"error""#) {
            self.failed += 1;
        } else if text.starts_with(r#"{"type":"serverMessages""#) {
            for intended_ns in numbers_after(text, r#""content":"t"#) {
                self.deliveries += 1;
                self.times.push((intended_ns, now_ns.saturating_sub(intended_ns)));
            }
            for seq in numbers_after(text, r#""seq":"#) {
                self.disordered += u64::from(self.last.is_some_and(|last| seq != last + 1));
                self.last = Some(seq);
            }
        }
    }
}

fn numbers_after<'a>(text: &'a str, mark: &'static str) -> impl Iterator<Item = u64> + 'a {
    text.match_indices(mark).filter_map(move |(at, _)| {
        let digits = &text[at + mark.len()..];
        let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    })
}

/// Each message at its moment, whatever the system does.
async fn send_all(people: &[Member], rate: u64, total: u64, start_ns: u64) {
    let begin = Instant::now() + Duration::from_nanos(start_ns.saturating_sub(now_ns()));
    for index in 0..total {
        let after_ns = index * 1_000_000_000 / rate;
        sleep_until(begin + Duration::from_nanos(after_ns)).await;
        // A member whose queue is full lags seconds behind: waiting shows in its latencies.
        if people[index as usize % people.len()].say.send(start_ns + after_ns).await.is_err() {
            return;
        }
    }
}

/// CPU of these processes over a time, in cores.
async fn cores(pids: &[u32], over: Duration) -> Result<f64> {
    let read = || pids.iter().map(|pid| Cpu::of(*pid)).collect::<Result<Vec<Cpu>>>();
    let (before, start) = (read()?, Instant::now());
    sleep(over).await;
    let ns: u64 = read()?.iter().zip(&before).map(|(after, before)| after.since(before, "")).sum();
    Ok(ns as f64 / start.elapsed().as_nanos() as f64)
}

fn now_unix_ms() -> Result<u64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64)
}

/// Not counted: caches fill, the first batch meets a cold database.
const WARM_UP: Duration = Duration::from_secs(3);
/// Silence after which nothing comes any more.
const TAIL: Duration = Duration::from_secs(3);
/// Messages that wait for one member's task.
const WAITING_MAX: usize = 1_024;
/// Limits.
const FAST_P50_MS: f64 = 10.0;
const FAST_P99_MS: f64 = 50.0;
const LOG_P99_MS: f64 = 200.0;
const IDLE_CORES: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"type":"serverMessages","payload":{"roomId":"r","messages":[
        {"id":"1-4","content":"t100","timestamp":1,"user":{"id":"u","username":"n"},"seq":4},
        {"id":"1-5","content":"t200","timestamp":1,"user":{"id":"u","username":"n"},"seq":5}]}}"#;

    #[test]
    fn each_message_of_a_frame_is_timed() {
        let mut seen = Seen::default();
        seen.read(TWO, 1_100);
        assert_eq!(seen.times, [(100, 1_000), (200, 900)]);
        assert_eq!((seen.deliveries, seen.disordered), (2, 0));
        seen.read(TWO, 2_000);
        assert_eq!(seen.disordered, 1, "4 does not follow 5");
    }

    #[test]
    fn refusals_and_silence_are_failures() {
        let mut seen = Seen { unanswered: 2, ..Seen::default() };
        seen.read(r#"{"type":"ack","payload":{"roomId":"r","messages":[{"clientMessageId":"1"}]}}"#, 0);
        seen.read(r#"{"type":"error","payload":{"code":"UNAVAILABLE"}}"#, 0);
        assert_eq!((seen.unanswered, seen.failed), (1, 1));
    }
}
