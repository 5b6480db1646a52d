//! At the end everything is read back through history: what is stored, under which numbers,
//! and whether that agrees with the offers and the acks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::client;
use super::frames;
use super::ledger::{self, Ledger};

/// What is stored, held against what was offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Messages of the campaign that are stored, repeats counted.
    pub stored: u64,
    /// Acknowledged and not stored, or stored under another number.
    pub missing: u64,
    /// Stored more than once.
    pub repeated: u64,
    /// Stored once without an acknowledgement: allowed.
    pub unacknowledged: u64,
    /// Numbers of a room that are not there, or not in a row.
    pub holes: u64,
    /// One sentence per defect, a few.
    pub details: Vec<String>,
}

/// Numbers and contents of one room, as history has them.
type Stored = Vec<(u64, String)>;

/// Reads all rooms from their beginning and compares. The checker sees every page.
///
/// # Errors
/// History cannot be read.
pub async fn read_back(entry: SocketAddr, sid: &str, rooms: &[String], ledger: &Ledger) -> Result<Audit> {
    let mut socket = client::connect(entry, sid).await?;
    let record = ledger.recorder.connected("auditor");
    socket.send(Message::text(frames::resume([]))).await?;
    let mut whole = Vec::with_capacity(rooms.len());
    for room in rooms {
        let (mut stored, mut after) = (Stored::new(), 0);
        loop {
            let text = page(&mut socket, room, after).await.with_context(|| format!("history of {room}"))?;
            record.frame(&text);
            let page = serde_json::from_str::<Page>(&text).context("a page of history")?.payload;
            after = page.messages.last().map_or(after, |last| last.seq);
            let more = page.has_more_messages && !page.messages.is_empty();
            stored.extend(page.messages.into_iter().map(|message| (message.seq, message.content)));
            if !more {
                break;
            }
        }
        whole.push(stored);
    }
    Ok(compare(&ledger.run, &whole, &ledger.book().messages))
}

/// One page; asked again while the system says that it cannot answer now.
async fn page(socket: &mut client::Socket, room: &str, after: u64) -> Result<String> {
    for _ in 0..ATTEMPTS {
        socket.send(Message::text(frames::page(room, after))).await?;
        let answer = async {
            while let Some(message) = socket.next().await {
                let Message::Text(text) = message? else { continue };
                match frames::Frame::read(text.as_str()) {
                    Some(frames::Frame::Page { room: of, .. }) if of == room => {
                        return Ok(Some(text.to_string()));
                    }
                    Some(frames::Frame::Error(refused)) if refused.retry_after_ms.is_some() => {
                        return Ok(None);
                    }
                    Some(frames::Frame::Error(refused)) => bail!("{refused:?}"),
                    _ => {}
                }
            }
            bail!("the connection ended")
        };
        if let Some(text) = timeout(PAGE_TIME, answer).await.context("no page in time")?? {
            return Ok(text);
        }
        sleep(Duration::from_secs(1)).await;
    }
    bail!("refused {ATTEMPTS} times")
}

fn compare(run: &str, rooms: &[Stored], messages: &[ledger::Message]) -> Audit {
    let mut audit = Audit::default();
    let mut places: HashMap<u64, Vec<(usize, u64)>> = HashMap::new();
    for (room, stored) in rooms.iter().enumerate() {
        let mut before = 0;
        for (seq, content) in stored {
            if *seq != before + 1 {
                audit.holes += 1;
                audit.explain(format!("room {room}: {seq} follows {before}"));
            }
            before = *seq;
            let number = content.strip_prefix(run).and_then(|rest| rest.strip_prefix(' '));
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                places.entry(number).or_default().push((room, *seq));
                audit.stored += 1;
            }
        }
    }
    for (number, message) in messages.iter().enumerate() {
        let found = places.get(&(number as u64)).map_or(&[][..], Vec::as_slice);
        if found.len() > 1 {
            audit.repeated += 1;
            audit.explain(format!("message {number} is stored as {found:?}"));
        }
        match message.seq {
            Some(seq) if !found.contains(&(message.room, seq)) => {
                audit.missing += 1;
                audit.explain(format!("message {number} was acknowledged as {seq}, stored as {found:?}"));
            }
            None if found.len() == 1 => audit.unacknowledged += 1,
            Some(_) | None => {}
        }
    }
    audit
}

impl Audit {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.missing + self.repeated + self.holes == 0
    }

    fn explain(&mut self, sentence: String) {
        if self.details.len() < DETAILS_MAX {
            self.details.push(sentence);
        }
    }
}

#[derive(Deserialize)]
struct Page {
    payload: PagePayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PagePayload {
    has_more_messages: bool,
    messages: Vec<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    seq: u64,
    content: String,
}

const ATTEMPTS: usize = 20;
const PAGE_TIME: Duration = Duration::from_secs(20);
const DETAILS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: Option<u64>) -> ledger::Message {
        ledger::Message { room: 0, offered_ms: 0, acked_ms: seq, seq }
    }

    fn stored(entries: &[(u64, u64)]) -> Vec<Stored> {
        vec![entries.iter().map(|(seq, number)| (*seq, format!("run {number}"))).collect()]
    }

    #[test]
    fn what_was_not_acknowledged_may_be_stored_once() {
        let audit =
            compare("run", &stored(&[(1, 0), (2, 1)]), &[message(Some(1)), message(None), message(None)]);
        assert!(audit.is_clean(), "{audit:?}");
        assert_eq!((audit.stored, audit.unacknowledged), (2, 1));
    }

    #[test]
    fn repeats_losses_and_holes_are_found() {
        let offers = [message(Some(1)), message(Some(3)), message(None)];
        let audit = compare("run", &stored(&[(1, 0), (2, 2), (4, 2)]), &offers);
        assert_eq!((audit.repeated, audit.missing, audit.holes), (1, 1, 1), "{audit:?}");
    }

    #[test]
    fn messages_of_an_earlier_campaign_are_passed_over() {
        let whole = vec![vec![(1, "before 0".to_owned()), (2, "run 0".to_owned())]];
        let audit = compare("run", &whole, &[message(Some(2))]);
        assert!(audit.is_clean(), "{audit:?}");
        assert_eq!(audit.stored, 1);
    }

    #[test]
    fn an_ack_of_another_number_is_a_loss() {
        assert_eq!(compare("run", &stored(&[(1, 0)]), &[message(Some(2))]).missing, 1);
    }
}
