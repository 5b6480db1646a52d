//! The people of a campaign: accounts, rooms, who is where, and who says what when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt, TryStreamExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::client::{self, Client, Person};
use super::frames::{self, Frame};
use super::ledger::Ledger;
use crate::http;

/// How many, and how busy.
#[derive(Clone, Debug)]
pub struct Size {
    /// Clients, an account each.
    pub clients: usize,
    /// Rooms besides the one where everybody is.
    pub rooms: usize,
    /// Rooms each client joins.
    pub rooms_per_client: usize,
    /// Messages a second, over all clients.
    pub rate: u64,
}

/// Everybody, connected.
pub struct Crowd {
    /// Ids of all rooms; the last is the default one, where everybody is.
    pub rooms: Vec<String>,
    /// Session of the first account, for the read-back.
    pub sid: String,
    /// Where clients come in.
    pub entry: SocketAddr,
    clients: Vec<Client>,
    /// Indices of clients by room.
    members: Vec<Vec<usize>>,
    ledger: Ledger,
}

/// Lets the crowd talk at a steady rate; dropping it ends that.
pub struct Talk {
    paused: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Crowd {
    /// Makes accounts and rooms, connects everybody, and waits until all are in their rooms.
    ///
    /// # Errors
    /// An account or a room cannot be made, created rooms are default rooms, or not everybody
    /// gets in.
    pub async fn gather(entry: SocketAddr, size: &Size, seed: u64, ledger: &Ledger) -> Result<Arc<Self>> {
        let sids = accounts(entry, size.clients, seed).await?;
        let sid = sids.first().context("at least one client")?.clone();
        let mut rooms = create_rooms(entry, &sid, size.rooms, seed).await?;
        rooms.push(DEFAULT_ROOM.to_owned());
        let general = rooms.len() - 1;
        let mut members = vec![Vec::new(); rooms.len()];
        let mut clients = Vec::with_capacity(size.clients);
        for (index, sid) in sids.into_iter().enumerate() {
            let mut places = rooms_of(index, size);
            let home = places.iter().map(|place| rooms[*place].clone()).collect();
            places.push(general);
            for place in &places {
                members[*place].push(index);
            }
            let person = Person {
                name: format!("client-{index}"),
                sid,
                entry,
                home,
                rooms: places,
                seed: seed.wrapping_mul(1_000_003).wrapping_add(index as u64),
            };
            clients.push(Client::start(person, ledger.clone()));
            // Two hundred hellos in one moment are no part of the trial.
            sleep(Duration::from_millis(2)).await;
        }
        let crowd = Self { rooms, sid, entry, clients, members, ledger: ledger.clone() };
        let all = crowd.clients.len();
        for _ in 0..GATHER_TIME.as_millis() / 50 {
            if crowd.connected() == all {
                return Ok(Arc::new(crowd));
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!(
            "{} of {all} clients are in their rooms after {GATHER_TIME:?}: {:?}",
            crowd.connected(),
            ledger.book().ends
        )
    }

    /// Clients that are in all their rooms now.
    pub fn connected(&self) -> usize {
        self.clients.iter().filter(|client| client.connection().is_some()).count()
    }

    /// All clients.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Somebody of the room says something now; answers the message's number.
    pub fn say(&self, room: usize, who: usize) -> u64 {
        let number = self.ledger.offer(room);
        let speaker = &self.clients[self.members[room][who % self.members[room].len()]];
        let content = format!("{} {number}", self.ledger.run);
        if !speaker.say(number, &self.rooms[room], content) {
            self.ledger.note(|book| book.skipped += 1);
        }
        number
    }

    /// A member of the room who is connected, else any.
    pub fn speaker(&self, room: usize) -> usize {
        let members = &self.members[room];
        members.iter().position(|index| self.clients[*index].connection().is_some()).unwrap_or(0)
    }

    /// Does every member of the room who is connected hold it up to `number`?
    pub fn have_reached(&self, room: usize, number: u64) -> bool {
        let members = self.members[room].iter().map(|index| &self.clients[*index]);
        let mut connected = members.filter(|client| client.connection().is_some());
        connected.all(|client| self.ledger.recorder.has_reached(&client.name, &self.rooms[room], number))
    }

    /// Rooms of a client in which it stands below `heads`.
    pub fn behind<'a>(&'a self, client: &'a Client, heads: &'a [u64]) -> impl Iterator<Item = usize> + 'a {
        client
            .rooms
            .iter()
            .copied()
            .filter(|room| !self.ledger.recorder.has_reached(&client.name, &self.rooms[*room], heads[*room]))
    }

    /// Begins to talk.
    pub fn talk(self: &Arc<Self>, rate: u64, seed: u64) -> Talk {
        let paused = Arc::new(AtomicBool::new(false));
        let (crowd, is_paused) = (self.clone(), paused.clone());
        let task = tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut tick = interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut due = 0.0;
            loop {
                let late_ms = tick.tick().await.elapsed().as_millis() as u64;
                if late_ms > TICK.as_millis() as u64 {
                    crowd.ledger.note(|book| book.late_ms = book.late_ms.max(late_ms));
                }
                if is_paused.load(Ordering::Acquire) {
                    continue;
                }
                due += rate as f64 * TICK.as_secs_f64();
                while due >= 1.0 {
                    due -= 1.0;
                    let general = random.random_range(0..GENERAL_ONE_IN) == 0;
                    let last = crowd.rooms.len() - 1;
                    let room = if general || last == 0 { last } else { random.random_range(0..last) };
                    crowd.say(room, random.random_range(0..crowd.members[room].len()));
                }
            }
        });
        Talk { paused, task }
    }
}

impl Talk {
    /// Stops or goes on.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Rooms of a client: each room gets as many members, and two rooms share few of them.
fn rooms_of(index: usize, size: &Size) -> Vec<usize> {
    let (rooms, each) = (size.rooms.max(1), size.rooms_per_client.min(size.rooms));
    // The same stretch of rooms shifted by what fits into one round of all rooms.
    let round = index * each / rooms;
    let mut places: Vec<usize> =
        (0..each).map(|place| (index * each + place * (1 + round % 7)) % rooms).collect();
    places.sort_unstable();
    places.dedup();
    let mut next = index;
    while places.len() < each {
        if !places.contains(&(next % rooms)) {
            places.push(next % rooms);
        }
        next += 1;
    }
    places
}

/// Registers everybody over HTTP, or logs in who exists; answers the sessions.
///
/// # Errors
/// An account cannot be made.
pub async fn accounts(entry: SocketAddr, count: usize, seed: u64) -> Result<Vec<String>> {
    let one = move |index: usize| async move {
        tokio::task::spawn_blocking(move || account(entry, &format!("c{seed:x}-{index}")))
            .await
            .context("an account's thread")?
    };
    // Password hashes cost 20 ms of a core each: a few at a time.
    futures::stream::iter(0..count).map(one).buffered(ACCOUNTS_AT_ONCE).try_collect().await
}

fn account(entry: SocketAddr, name: &str) -> Result<String> {
    let (email, password) = (format!("{name}@example.org"), format!("password of {name}"));
    let body = json!({"username": name, "email": email, "password": password});
    let answer = http::post(entry, "/api/register", &body)?;
    if answer.status == 204 {
        return answer.sid();
    }
    let answer = http::post(entry, "/api/login", &json!({"email": email, "password": password}))?;
    if answer.status != 204 {
        bail!("login of {name}: {} {}", answer.status, answer.body);
    }
    answer.sid()
}

/// Creates public rooms over one WebSocket.
///
/// # Errors
/// A room cannot be made, or is not public.
pub async fn create_rooms(entry: SocketAddr, sid: &str, count: usize, seed: u64) -> Result<Vec<String>> {
    let mut socket = client::connect(entry, sid).await?;
    socket.send(Message::text(frames::resume([]))).await?;
    let run = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let mut rooms = Vec::new();
    for index in 0..count {
        let wanted = format!("chaos {seed:x} {run} {index}");
        socket.send(Message::text(frames::create_room(&wanted))).await?;
        let created = async {
            while let Some(message) = socket.next().await {
                let Message::Text(text) = message? else { continue };
                match Frame::read(text.as_str()) {
                    Some(Frame::Created(id, name, kind)) if name == wanted => return Ok((id, kind)),
                    Some(Frame::Error(refused)) => bail!("room {wanted}: {refused:?}"),
                    _ => {}
                }
            }
            bail!("the connection ended")
        };
        let (id, kind) =
            timeout(http::PATIENCE, created).await.context("no answer to clientCreateRoom")??;
        if kind != "public" {
            bail!("created rooms are of kind {kind}: start the system with rooms.create_kind = \"public\"");
        }
        rooms.push(id);
    }
    Ok(rooms)
}

/// The room of the configuration, where everybody is.
const DEFAULT_ROOM: &str = "room-001";
/// Share of messages that go there: two hundred deliveries each.
const GENERAL_ONE_IN: u32 = 100;
const TICK: Duration = Duration::from_millis(10);
const ACCOUNTS_AT_ONCE: usize = 8;
/// Time for everybody to connect.
const GATHER_TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_get_about_as_many_members_each() {
        let size = Size { clients: 200, rooms: 60, rooms_per_client: 3, rate: 1 };
        let mut members = vec![0; size.rooms];
        for index in 0..size.clients {
            let places = rooms_of(index, &size);
            assert_eq!(places.len(), 3, "{index}: {places:?}");
            places.iter().for_each(|place| members[*place] += 1);
        }
        assert!(members.iter().all(|count| (5..=20).contains(count)), "{members:?}");
        assert_eq!(members.iter().sum::<usize>(), 600);
    }

    #[test]
    fn fewer_rooms_than_asked_for_are_all_of_them() {
        let size = Size { clients: 3, rooms: 2, rooms_per_client: 5, rate: 1 };
        let mut places = rooms_of(1, &size);
        places.sort_unstable();
        assert_eq!(places, [0, 1]);
    }
}
