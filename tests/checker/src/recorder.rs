//! What a test tells the checker: connections, offers, frames. Cheap to clone; every
//! client of a run writes into the same record.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Deserialize;
use serde_json::Value;

use crate::line::Line;
use crate::verdict::{self, Verdict};

/// The record of a run.
#[derive(Clone, Default)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
}

/// One connection of a client; dropping it says nothing, [`Connection::closed`] does.
pub struct Connection {
    recorder: Recorder,
    client: String,
    number: u64,
    /// What the client said it has, for the hello that follows.
    cursors: Mutex<HashMap<String, u64>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) connections: u64,
    pub(crate) offers: Vec<Offer>,
    /// Index of an offer by its room and content.
    pub(crate) by_content: HashMap<(String, String), usize>,
    /// Index of an offer by its client, room and key.
    by_key: HashMap<(String, String, String), usize>,
    /// Per (client, room).
    pub(crate) lines: BTreeMap<(String, String), Line>,
    /// What is known of each message, by (room, number).
    pub(crate) messages: BTreeMap<(String, u64), Message>,
    /// Numbers under which a content was seen.
    pub(crate) numbers: HashMap<(String, String), Vec<u64>>,
    pub(crate) conflicts: Vec<String>,
    pub(crate) unreadable: Vec<String>,
}

/// A message that somebody wanted to send.
pub(crate) struct Offer {
    pub(crate) client: String,
    pub(crate) room: String,
    pub(crate) content: String,
    /// Connection of each attempt.
    pub(crate) attempts: Vec<u64>,
    pub(crate) acknowledged: bool,
    /// Number in the acknowledgement, where that tells it.
    pub(crate) number: Option<u64>,
}

/// A message as somebody saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: String,
    /// `None`: known from an acknowledgement only.
    pub(crate) seen: Option<(String, String)>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    payload: Value,
}

#[derive(Deserialize)]
struct Shown {
    id: String,
    content: String,
    seq: u64,
    user: Author,
}

#[derive(Deserialize)]
struct Author {
    id: String,
}

impl Recorder {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection of `client` opened. A client has one connection at a time: two browser
    /// windows of a user are two clients.
    pub fn connected(&self, client: &str) -> Connection {
        let mut state = self.lock();
        state.connections += 1;
        let number = state.connections;
        drop(state);
        Connection { recorder: self.clone(), client: client.to_owned(), number, cursors: Mutex::default() }
    }

    /// A message is about to be sent by other means than a connection.
    pub fn offered(&self, client: &str, room: &str, key: Option<&str>, content: &str) {
        self.lock().offered(client, room, key, content, 0);
    }

    /// It was answered with success.
    pub fn acknowledged(&self, room: &str, content: &str) {
        self.lock().acknowledged_content(room, content);
    }

    /// Highest acknowledged or seen number of a room.
    pub fn head(&self, room: &str) -> u64 {
        let state = self.lock();
        let acked = state.offers.iter().filter(|offer| offer.room == room).filter_map(|offer| offer.number);
        let seen = state.messages.keys().filter(|(name, _)| name == room).map(|(_, number)| *number);
        acked.chain(seen).max().unwrap_or(0)
    }

    /// How many offers were acknowledged.
    pub fn acknowledged_count(&self) -> u64 {
        self.lock().offers.iter().filter(|offer| offer.acknowledged).count() as u64
    }

    /// The client holds everything of the room up to `number`.
    pub fn has_reached(&self, client: &str, room: &str, number: u64) -> bool {
        let state = self.lock();
        let line = state.lines.get(&(client.to_owned(), room.to_owned()));
        line.and_then(Line::highest).is_some_and(|highest| highest >= number)
    }

    /// Looks at everything told so far.
    pub fn judge(&self) -> Verdict {
        verdict::judge(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it told something has failed anyway.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Connection {
    /// The client sends its `resume` (or `join`) with these (room, number) cursors.
    pub fn resumed<'a>(&self, cursors: impl IntoIterator<Item = (&'a str, u64)>) {
        let mut held = self.cursors.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        held.extend(cursors.into_iter().map(|(room, number)| (room.to_owned(), number)));
    }

    /// The client is about to send a message, for the first time or again.
    pub fn offered(&self, room: &str, key: Option<&str>, content: &str) {
        self.recorder.lock().offered(&self.client, room, key, content, self.number);
    }

    /// A text frame arrived. Frames that are none of ours (a push) are passed over.
    pub fn frame(&self, text: &str) {
        let Ok(envelope) = serde_json::from_str::<Envelope>(text) else { return };
        let mut state = self.recorder.lock();
        if state.take_frame(self, &envelope).is_none() {
            let line = format!("{}: unreadable {} frame", self.client, envelope.kind);
            state.unreadable.push(line);
        }
    }

    /// The client left the room.
    pub fn left(&self, room: &str) {
        self.recorder.lock().line(&self.client, room).end();
    }

    /// The connection is gone.
    pub fn closed(&self) {
        let mut state = self.recorder.lock();
        for ((client, _), line) in &mut state.lines {
            if *client == self.client {
                line.end();
            }
        }
    }

    fn has_cursor(&self, room: &str) -> bool {
        self.cursors.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).contains_key(room)
    }

    fn take_cursor(&self, room: &str) -> Option<u64> {
        self.cursors.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(room)
    }
}

impl State {
    fn line(&mut self, client: &str, room: &str) -> &mut Line {
        self.lines.entry((client.to_owned(), room.to_owned())).or_default()
    }

    fn offered(&mut self, client: &str, room: &str, key: Option<&str>, content: &str, attempt: u64) {
        let place = (room.to_owned(), content.to_owned());
        if let Some(index) = self.by_content.get(&place) {
            self.offers[*index].attempts.push(attempt);
            return;
        }
        self.by_content.insert(place, self.offers.len());
        if let Some(key) = key {
            self.by_key.insert((client.to_owned(), room.to_owned(), key.to_owned()), self.offers.len());
        }
        self.offers.push(Offer {
            client: client.to_owned(),
            room: room.to_owned(),
            content: content.to_owned(),
            attempts: vec![attempt],
            acknowledged: false,
            number: None,
        });
    }

    fn acknowledged_content(&mut self, room: &str, content: &str) {
        if let Some(index) = self.by_content.get(&(room.to_owned(), content.to_owned())) {
            self.offers[*index].acknowledged = true;
        }
    }

    /// `None`: the frame lacks a field it must have.
    fn take_frame(&mut self, conn: &Connection, frame: &Envelope) -> Option<()> {
        let payload = &frame.payload;
        match frame.kind.as_str() {
            "hello" => {
                for room in payload.get("rooms")?.as_array()? {
                    let id = room.get("id")?.as_str()?;
                    // A public room that the client did not name is only offered to it.
                    let listed = room.get("kind").and_then(Value::as_str) == Some("public");
                    if !listed || conn.has_cursor(id) {
                        self.take_room(conn, id, room)?;
                    }
                }
            }
            "joined" => self.take_room(conn, payload.get("id")?.as_str()?, payload)?,
            "cut" => {
                let room = payload.get("roomId")?.as_str()?;
                let numbers = self.take_messages(room, payload)?;
                self.line(&conn.client, room).begin(&numbers, payload.get("lastSeq")?.as_u64()?);
            }
            "serverMessages" => {
                let room = payload.get("roomId")?.as_str()?;
                let numbers = self.take_messages(room, payload)?;
                let line = self.line(&conn.client, room);
                numbers.into_iter().for_each(|number| line.deliver(number));
            }
            "serverRoomHistory" => {
                // Pages are no deliveries; they must agree with them.
                let room = payload.get("roomId")?.as_str()?;
                let numbers = self.take_messages(room, payload)?;
                self.line(&conn.client, room).page(&numbers);
            }
            "serverCreateRoom" => {
                let room = payload.get("roomId")?.as_str()?;
                if payload.get("kind").and_then(Value::as_str) == Some("default") {
                    let line = self.line(&conn.client, room);
                    if line.highest().is_none() {
                        line.resume(0, &[], 0);
                    }
                }
            }
            "ack" => {
                let room = payload.get("roomId")?.as_str()?.to_owned();
                for item in payload.get("messages")?.as_array()? {
                    self.take_ack(conn, &room, item)?;
                }
            }
            _ => {}
        }
        Some(())
    }

    /// A room object of `hello` or `joined`.
    fn take_room(&mut self, conn: &Connection, room: &str, object: &Value) -> Option<()> {
        let numbers = self.take_messages(room, object)?;
        let last = object.get("lastSeq")?.as_u64()?;
        let cut = object.get("cut").and_then(Value::as_bool).unwrap_or(false);
        let cursor = conn.take_cursor(room);
        let line = self.line(&conn.client, room);
        match cursor {
            Some(cursor) if !cut => line.resume(cursor, &numbers, last),
            _ => line.begin(&numbers, last),
        }
        Some(())
    }

    /// Remembers each message and answers their numbers.
    fn take_messages(&mut self, room: &str, holder: &Value) -> Option<Vec<u64>> {
        let mut numbers = Vec::new();
        for value in holder.get("messages")?.as_array()? {
            let shown = Shown::deserialize(value).ok()?;
            numbers.push(shown.seq);
            let place = (room.to_owned(), shown.content.clone());
            let known = self.numbers.entry(place).or_default();
            if !known.contains(&shown.seq) {
                known.push(shown.seq);
            }
            let message = Message { id: shown.id, seen: Some((shown.content, shown.user.id)) };
            self.remember(room, shown.seq, message);
        }
        Some(numbers)
    }

    fn take_ack(&mut self, conn: &Connection, room: &str, item: &Value) -> Option<()> {
        let key = item.get("clientMessageId")?.as_str()?;
        let id = item.get("id")?.as_str()?.to_owned();
        let number = item.get("seq")?.as_u64()?;
        self.remember(room, number, Message { id, seen: None });
        let place = (conn.client.clone(), room.to_owned(), key.to_owned());
        let Some(offer) = self.by_key.get(&place).map(|index| &mut self.offers[*index]) else {
            self.conflicts.push(format!("{}: ack of {key:?} in {room}, which it never sent", conn.client));
            return Some(());
        };
        offer.acknowledged = true;
        match offer.number {
            Some(before) if before != number => self
                .conflicts
                .push(format!("{}: {key:?} in {room} acked as {before} and as {number}", conn.client)),
            _ => offer.number = Some(number),
        }
        Some(())
    }

    fn remember(&mut self, room: &str, number: u64, message: Message) {
        let known = self.messages.entry((room.to_owned(), number)).or_insert_with(|| message.clone());
        let differs = known.id != message.id
            || (known.seen.is_some() && message.seen.is_some() && known.seen != message.seen);
        if differs {
            let line = format!("{room} {number}: {known:?} and {message:?}");
            self.conflicts.push(line);
        } else if known.seen.is_none() {
            known.seen = message.seen;
        }
    }
}
