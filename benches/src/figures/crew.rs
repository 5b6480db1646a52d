//! People who talk on a schedule: each is a connection in one room, says what it is told to
//! at the moment it is told to, and times everything it reads. Light on purpose: parsing ten
//! thousand frames a second as JSON would be the client's time, not the system's.
//!
//! ```text
//!   gather ──▶ talk (each message at its moment) ──▶ end (all fall silent) ──▶ Heard
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::chaos::client::{self, Socket};
use crate::chaos::crowd;
use crate::chaos::frames::{self, Frame};
use crate::clock::now_ns;
use crate::load::Latency;

/// Everybody, connected, each in one room.
pub struct Crew {
    /// Ids of the rooms.
    pub rooms: Vec<String>,
    people: Vec<Member>,
    /// In each room.
    members: usize,
}

/// A connection in one room.
struct Member {
    say: mpsc::Sender<u64>,
    task: tokio::task::JoinHandle<Result<Seen>>,
}

/// What all of them saw.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// (intended moment, ns until it was read), of each message at each member.
    pub deliveries: Vec<(u64, u64)>,
    /// (intended moment, ns until its ack was read), of each message.
    pub acks: Vec<(u64, u64)>,
    /// Deliveries that should have come and did not.
    pub lost: u64,
    /// Numbers that did not follow the one before: a gap, a repeat, a wrong order.
    pub disordered: u64,
    /// Messages refused or without an answer.
    pub failed: u64,
    /// Refusals by code.
    pub refused: BTreeMap<String, u64>,
    /// Why connections ended.
    pub ended: Vec<String>,
    /// The highest number that anybody read, by room.
    pub heads: Vec<u64>,
}

/// What a member saw.
#[derive(Default)]
struct Seen {
    deliveries: Vec<(u64, u64)>,
    acks: Vec<(u64, u64)>,
    disordered: u64,
    failed: u64,
    refused: BTreeMap<String, u64>,
    ended: Option<String>,
    last: Option<u64>,
    unanswered: u64,
}

impl Crew {
    /// Makes accounts and rooms and connects everybody. `tail`: how long a member that is told
    /// nothing more waits for the next frame, before nothing comes any more.
    ///
    /// # Errors
    /// An account or a room cannot be made, or somebody does not get into the room.
    pub async fn gather(entry: SocketAddr, rooms: usize, members: usize, tail: Duration) -> Result<Self> {
        // Names of its own: the rooms and accounts of an earlier run stay as they are.
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
        let sids = crowd::accounts(entry, rooms * members, seed).await?;
        let first = sids.first().context("at least one client")?;
        let rooms = crowd::create_rooms(entry, first, rooms, seed).await?;
        let mut people = Vec::with_capacity(sids.len());
        for (index, sid) in sids.iter().enumerate() {
            people.push(Member::start(entry, sid, &rooms[index % rooms.len()], tail).await?);
        }
        Ok(Self { rooms, people, members })
    }

    /// Says `rate` messages a second from `start_ns` on and until `end_ns`, which may change
    /// meanwhile, each at its moment, whatever the system does. Answers how many.
    pub async fn talk(&self, rate: u64, start_ns: u64, end_ns: &AtomicU64) -> u64 {
        let begin = Instant::now() + Duration::from_nanos(start_ns.saturating_sub(now_ns()));
        for index in 0.. {
            let after_ns = index * 1_000_000_000 / rate;
            if start_ns + after_ns >= end_ns.load(Ordering::Acquire) {
                return index;
            }
            sleep_until(begin + Duration::from_nanos(after_ns)).await;
            // A member whose queue is full lags seconds behind: waiting shows in its latencies.
            // One whose connection ended is told nothing; what it did not say is lost.
            let _ = self.people[index as usize % self.people.len()].say.send(start_ns + after_ns).await;
        }
        unreachable!("numbers do not end before time does")
    }

    /// All of them fall silent together; answers what they saw of the `said` messages.
    ///
    /// # Errors
    /// A member could not say what it was told to.
    pub async fn end(self, said: u64) -> Result<Heard> {
        let mut heard = Heard { heads: vec![0; self.rooms.len()], ..Heard::default() };
        // Dropping one after the other would let the first wait for the last.
        let tasks: Vec<_> = self.people.into_iter().map(|member| member.task).collect();
        for (index, task) in tasks.into_iter().enumerate() {
            let seen = task.await.context("a member's task")??;
            let head = &mut heard.heads[index % self.rooms.len()];
            *head = seen.last.unwrap_or(0).max(*head);
            heard.add(seen);
        }
        heard.lost = (said * self.members as u64).saturating_sub(heard.deliveries.len() as u64);
        Ok(heard)
    }
}

impl Heard {
    fn add(&mut self, seen: Seen) {
        self.deliveries.extend(seen.deliveries);
        self.acks.extend(seen.acks);
        self.disordered += seen.disordered;
        self.failed += seen.failed + seen.unanswered;
        self.ended.extend(seen.ended);
        for (code, count) in seen.refused {
            *self.refused.entry(code).or_default() += count;
        }
    }
}

/// Those of them that were intended in this time.
pub fn within(times: &[(u64, u64)], intended: &Range<u64>) -> Latency {
    let mut latency = Latency::new();
    for (_, took_ns) in times.iter().filter(|(intended_ns, _)| intended.contains(intended_ns)) {
        latency.record(*took_ns, 1);
    }
    latency
}

impl Member {
    async fn start(entry: SocketAddr, sid: &str, room: &str, tail: Duration) -> Result<Self> {
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
        Ok(Self { say, task: tokio::spawn(live(socket, room.to_owned(), words, tail)) })
    }
}

/// Says each intended moment when it is told to, reads all the time; ends when there is no
/// more to say and nothing came for a while.
async fn live(socket: Socket, room: String, mut words: mpsc::Receiver<u64>, tail: Duration) -> Result<Seen> {
    let (mut sink, mut stream) = socket.split();
    let mut seen = Seen::default();
    let mut talking = true;
    loop {
        let silence = sleep(if talking { Duration::from_secs(3_600) } else { tail });
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
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| u16::from(frame.code));
                    seen.ended = Some(format!("closed with {code}"));
                    return Ok(seen);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    seen.ended = Some("connection lost".to_owned());
                    return Ok(seen);
                }
            },
            () = silence => return Ok(seen),
        }
    }
}

async fn say(sink: &mut SplitSink<Socket, Message>, room: &str, intended_ns: u64) -> Result<()> {
    let text = frames::message(room, &intended_ns.to_string(), &format!("t{intended_ns}"));
    timeout(Duration::from_secs(10), sink.send(Message::text(text))).await.context("takes no byte")??;
    Ok(())
}

impl Seen {
    /// Looks for the few marks it needs.
    fn read(&mut self, text: &str, now_ns: u64) {
        if text.starts_with(r#"{"type":"ack""#) {
            for intended_ns in numbers_after(text, r#""clientMessageId":""#) {
                self.unanswered = self.unanswered.saturating_sub(1);
                self.acks.push((intended_ns, now_ns.saturating_sub(intended_ns)));
            }
        } else if text.starts_with(r#"{"type":"error""#) {
            self.unanswered = self.unanswered.saturating_sub(1);
            self.failed += 1;
            *self.refused.entry(word_after(text, r#""code":""#).to_owned()).or_default() += 1;
        } else if text.starts_with(r#"{"type":"serverMessages""#) {
            for intended_ns in numbers_after(text, r#""content":"t"#) {
                self.deliveries.push((intended_ns, now_ns.saturating_sub(intended_ns)));
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

fn word_after<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default()
}

/// Messages that wait for one member's task.
const WAITING_MAX: usize = 1_024;

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
        assert_eq!(seen.deliveries, [(100, 1_000), (200, 900)]);
        assert_eq!(seen.disordered, 0);
        seen.read(TWO, 2_000);
        assert_eq!(seen.disordered, 1, "4 does not follow 5");
    }

    #[test]
    fn each_message_has_one_answer_and_refusals_and_silence_are_failures() {
        let mut seen = Seen { unanswered: 3, ..Seen::default() };
        let ack =
            r#"{"type":"ack","payload":{"roomId":"r","messages":[{"clientMessageId":"70","id":"1-4"}]}}"#;
        seen.read(ack, 100);
        seen.read(r#"{"type":"error","payload":{"code":"UNAVAILABLE","message":"m"}}"#, 0);
        assert_eq!((seen.unanswered, seen.failed), (1, 1));
        assert_eq!(seen.acks, [(70, 30)]);
        assert_eq!(seen.refused.get("UNAVAILABLE"), Some(&1));
        let mut heard = Heard::default();
        heard.add(seen);
        assert_eq!(heard.failed, 2, "one refused, one without an answer");
    }

    #[test]
    fn times_are_split_by_the_intended_moment() {
        let latency = within(&[(9, 1_000_000), (10, 2_000_000), (19, 3_000_000), (20, 9_000_000)], &(10..20));
        assert_eq!(latency.count(), 2);
        assert!((latency.max_ms() - 3.0).abs() < 0.01);
    }
}
