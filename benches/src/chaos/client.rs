//! The shell of a client: one socket after the other, back-off between them as the close
//! codes say, everything told to ledger and checker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use corecast_checker::Connection;
use futures::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::frames::Frame;
use super::ledger::Ledger;
use super::session::{Request, Session};

/// What a read takes. The default of 128 KiB is set to zero before each read, a sixth of what
/// a client costs that shares the machine with what it measures.
const READ_BYTES: usize = 8 << 10;

/// A WebSocket over plain TCP.
pub type Socket = WebSocketStream<TcpStream>;

/// A client that runs; dropping it ends it.
pub struct Client {
    /// Its name towards the checker.
    pub name: String,
    /// Indices of the rooms it is a member of.
    pub rooms: Vec<usize>,
    status: Arc<Status>,
    offers: mpsc::Sender<Offer>,
    task: tokio::task::JoinHandle<()>,
}

/// What others may look at.
#[derive(Default)]
struct Status {
    /// Connected, and in all its rooms.
    settled: AtomicBool,
    /// Pages for what a `cut` left out.
    paging: AtomicBool,
    /// Connections so far.
    connection: AtomicU64,
    /// Messages without an ack.
    pending: AtomicUsize,
}

/// What is said by whom to where.
struct Offer {
    number: u64,
    room: String,
    content: String,
}

/// Who a client is and where it goes.
pub struct Person {
    /// Name towards the checker.
    pub name: String,
    /// Session cookie.
    pub sid: String,
    /// Address of nginx or of a gateway.
    pub entry: SocketAddr,
    /// Ids of the rooms it wants to be in.
    pub home: Vec<String>,
    /// Indices of all its rooms.
    pub rooms: Vec<usize>,
    /// Seed of its pauses.
    pub seed: u64,
}

/// What happens after a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    AtOnce,
    BackOff,
    Within(u64, u64),
    Never,
}

impl Client {
    /// Starts it.
    pub fn start(person: Person, ledger: Ledger) -> Self {
        let (offers, inbox) = mpsc::channel(OFFERS_MAX);
        let status = Arc::new(Status::default());
        let (name, rooms) = (person.name.clone(), person.rooms.clone());
        let session = Session::new(person.home.clone(), ledger.run.clone(), person.seed);
        let random = StdRng::seed_from_u64(person.seed.wrapping_add(1));
        let life = Life { person, ledger, session, random, inbox, status: status.clone() };
        Self { name, rooms, status, offers, task: tokio::spawn(life.run()) }
    }

    /// Lets it say something, at once or when it can; false: too much waits already.
    pub fn say(&self, number: u64, room: &str, content: String) -> bool {
        self.offers.try_send(Offer { number, room: room.to_owned(), content }).is_ok()
    }

    /// The number of its connection, while that one is in all its rooms.
    pub fn connection(&self) -> Option<u64> {
        let number = self.status.connection.load(Ordering::Acquire);
        self.status.settled.load(Ordering::Acquire).then_some(number)
    }

    /// It still has to read pages, or waits for acks.
    pub fn is_busy(&self) -> bool {
        self.status.paging.load(Ordering::Acquire) || self.status.pending.load(Ordering::Acquire) > 0
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens a WebSocket of `corecast.v1`.
///
/// # Errors
/// Nobody listens, the upgrade is refused, or no answer comes in time.
pub async fn connect(entry: SocketAddr, sid: &str) -> Result<Socket> {
    let mut request = format!("ws://{entry}/api/ws").into_client_request()?;
    request.headers_mut().insert("cookie", format!("sid={sid}").parse()?);
    request.headers_mut().insert("sec-websocket-protocol", "corecast.v1".parse()?);
    let open = async {
        let stream = TcpStream::connect(entry).await.context("connect")?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
        let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
        let (socket, _) = upgraded.context("upgrade")?;
        Ok(socket)
    };
    timeout(OPEN_TIME, open).await.context("no answer to the upgrade")?
}

struct Life {
    person: Person,
    ledger: Ledger,
    session: Session,
    random: StdRng,
    inbox: mpsc::Receiver<Offer>,
    status: Arc<Status>,
}

impl Life {
    async fn run(mut self) {
        let mut attempts = 0;
        loop {
            let opened = Instant::now();
            let next = match connect(self.person.entry, &self.person.sid).await {
                Ok(socket) => {
                    let next = self.converse(socket).await;
                    if opened.elapsed() > STABLE_TIME {
                        attempts = 0;
                    }
                    next
                }
                Err(error) => {
                    self.ledger.ended(&refusal_words(&error));
                    Next::BackOff
                }
            };
            let ceiling = (BACKOFF_MS << attempts.min(6)).min(BACKOFF_MAX_MS);
            let pause_ms = match next {
                Next::Never => return self.ledger.note(|book| book.signed_out += 1),
                // A second time in a row it is a pause like any other.
                Next::AtOnce if attempts == 0 => 0,
                Next::AtOnce | Next::BackOff => self.random.random_range(0..ceiling),
                Next::Within(from, to) => self.random.random_range(from..=to.max(from)),
            };
            attempts += 1;
            self.collect_for(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Waits, and takes what it is told to say meanwhile.
    async fn collect_for(&mut self, pause: Duration) {
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                offer = self.inbox.recv() => match offer {
                    Some(offer) => self.take(offer),
                    None => return end.await,
                }
            }
        }
    }

    /// One connection, to its end.
    async fn converse(&mut self, mut socket: Socket) -> Next {
        let record = self.ledger.recorder.connected(&self.person.name);
        self.status.connection.fetch_add(1, Ordering::AcqRel);
        self.ledger.note(|book| book.connections += 1);
        self.session.handle_open();
        let (next, why) = self.talk(&mut socket, &record).await;
        self.ledger.ended(&why);
        self.status.settled.store(false, Ordering::Release);
        self.session.handle_close();
        record.closed();
        next
    }

    async fn talk(&mut self, socket: &mut Socket, record: &Connection) -> (Next, String) {
        let mut window = None;
        loop {
            if let Err(error) = self.write(socket, record).await {
                return (Next::BackOff, error.to_string());
            }
            self.show();
            // Nothing to do without an event, but silence has a bound, too.
            let timer = self.session.poll_timeout().map(|ms| Instant::from_std(self.ledger.instant(ms)));
            let silence = Instant::now() + SILENCE_TIME;
            tokio::select! {
                arrived = socket.next() => match arrived {
                    Some(Ok(Message::Text(text))) => {
                        if let Some(draining) = self.read(text.as_str(), record) {
                            window = Some(draining);
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        let code = frame.map_or(1005, |frame| u16::from(frame.code));
                        let next = match window {
                            Some((from, to)) => Next::Within(from, to),
                            None => after_close(code),
                        };
                        return (next, format!("closed with {code}"));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return (Next::BackOff, "connection lost".to_owned()),
                },
                offer = self.inbox.recv() => match offer {
                    Some(offer) => self.take(offer),
                    None => return (Next::Never, "client dropped".to_owned()),
                },
                () = sleep_until(timer.unwrap_or(silence)) => {
                    if timer.is_none() {
                        return (Next::BackOff, "silence".to_owned());
                    }
                }
            }
        }
    }

    /// Everything the session wants to say now.
    async fn write(&mut self, socket: &mut Socket, record: &Connection) -> Result<()> {
        let mut wrote = false;
        while let Some((request, again)) = self.session.poll_request(self.ledger.now_ms()) {
            if again {
                self.ledger.note(|book| book.unanswered += 1);
            }
            match &request {
                Request::Resume(cursors) => {
                    record.resumed(cursors.iter().map(|(room, _, seq)| (room.as_str(), *seq)));
                }
                Request::Join(room, Some((_, seq))) => record.resumed([(room.as_str(), *seq)]),
                Request::Message { key, room, content, .. } => {
                    record.offered(room, Some(key), content);
                }
                Request::Join(_, None) | Request::Page(..) => {}
            }
            wrote = true;
            let fed = timeout(WRITE_TIME, socket.feed(Message::text(request.encode()))).await;
            match fed {
                Ok(Ok(())) => {}
                Ok(Err(_)) => bail!("connection lost"),
                Err(_) => bail!("takes no byte"),
            }
        }
        if wrote {
            match timeout(WRITE_TIME, socket.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => bail!("connection lost"),
                Err(_) => bail!("takes no byte"),
            }
        }
        Ok(())
    }

    fn read(&mut self, text: &str, record: &Connection) -> Option<(u64, u64)> {
        record.frame(text);
        let Some(frame) = Frame::read(text) else {
            self.ledger.note(|book| book.unreadable += 1);
            return None;
        };
        let taken = self.session.handle_frame(frame, self.ledger.now_ms());
        for (number, seq) in taken.acked {
            self.ledger.acked(number, seq);
        }
        if taken.live + taken.resumed > 0 {
            self.ledger.delivered(taken.live, taken.resumed);
        }
        if taken.cut || taken.lagging || taken.refused.is_some() || taken.repeated.is_some() {
            self.ledger.note(|book| {
                book.cuts += u64::from(taken.cut);
                book.lagging += u64::from(taken.lagging);
                taken.refused.into_iter().for_each(|(_, code)| *book.refused.entry(code).or_default() += 1);
                taken.repeated.into_iter().for_each(|code| *book.repeated.entry(code).or_default() += 1);
            });
        }
        taken.draining
    }

    fn take(&mut self, offer: Offer) {
        self.session.offer(offer.number, &offer.room, &offer.content);
        self.show();
    }

    fn show(&self) {
        self.status.settled.store(self.session.is_settled(), Ordering::Release);
        self.status.paging.store(self.session.is_paging(), Ordering::Release);
        self.status.pending.store(self.session.pending(), Ordering::Release);
    }
}

/// CONTRACT: which codes mean what.
fn after_close(code: u16) -> Next {
    match code {
        1012 => Next::AtOnce,
        1008 | 4500..=4599 => Next::Never,
        _ => Next::BackOff,
    }
}

/// Without addresses and ports, so that equal causes count together.
fn refusal_words(error: &anyhow::Error) -> String {
    use tokio_tungstenite::tungstenite::Error;
    let upgrade = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
    match upgrade {
        Some(Error::Http(response)) => format!("upgrade answered {}", response.status().as_u16()),
        Some(_) => "upgrade broken off".to_owned(),
        None => error.to_string(),
    }
}

/// Offers that wait for a client to look. At two a second this is minutes.
const OFFERS_MAX: usize = 1024;
/// Time for TCP and upgrade.
const OPEN_TIME: Duration = Duration::from_secs(10);
/// A connection takes some byte in this time, or it is dead.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// The gateway pings every 25 s: silence of twice that is a dead connection.
const SILENCE_TIME: Duration = Duration::from_secs(60);
/// A connection that lived so long lets the back-off begin anew.
const STABLE_TIME: Duration = Duration::from_secs(5);
/// First ceiling of the back-off with full jitter, and the last.
const BACKOFF_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 4_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_say_what_comes_next() {
        assert_eq!(after_close(1012), Next::AtOnce);
        assert_eq!(after_close(1013), Next::BackOff);
        assert_eq!(after_close(1006), Next::BackOff);
        assert_eq!(after_close(4429), Next::BackOff);
        assert_eq!(after_close(1008), Next::Never);
        assert_eq!(after_close(4501), Next::Never);
    }
}
