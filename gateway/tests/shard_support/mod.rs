//! Real shards on loopback sockets, on every host and driver this machine allows, and a test
//! that plays the control side.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corecast_gateway::config::{Config, Cores, DriverChoice, Limits};
use corecast_gateway::core::counters::Counters;
use corecast_gateway::core::{Command, ConnId, Event, Joined, RoomFrame, Session, Wire};
use corecast_gateway::shard::driver::uring::probe_uring;
use corecast_gateway::shard::{self, Listeners, ShardHandle};
use corecast_proto::ids::Position;
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

pub(crate) type Browser = WebSocketStream<TcpStream>;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Running shards; the test is their control side.
pub(crate) struct Gateway {
    pub(crate) addr: SocketAddr,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) events: UnboundedReceiver<Event>,
}

/// Runs a test on every host and way of sending that this machine allows.
pub(crate) async fn on_each_host(limits: Limits, shards: usize, test: impl AsyncFn(Gateway)) {
    // What is asked for, and what must come of it.
    let mut hosts = vec![(DriverChoice::Epoll, true, "thread", "epoll")];
    match probe_uring() {
        Ok(()) => hosts.extend([
            (DriverChoice::Uring, true, "glommio", "uring"),
            (DriverChoice::Uring, false, "glommio", "epoll"),
        ]),
        Err(error) => eprintln!("not run on glommio and the ring: io_uring is refused ({error})"),
    }
    for (driver, uring_sends, host, sends) in hosts {
        let gateway = start(driver, uring_sends, limits.clone(), shards);
        let metrics = gateway.shards.iter().map(|shard| &shard.metrics);
        assert!(metrics.into_iter().all(|metrics| metrics.host == host && metrics.driver == sends));
        test(gateway).await;
    }
}

/// Runs a test on what the default configuration chooses here: for what no driver changes.
pub(crate) async fn on_the_default_host(limits: Limits, test: impl AsyncFn(Gateway)) {
    test(start(DriverChoice::Auto, true, limits, 1)).await;
}

fn start(driver: DriverChoice, uring_sends: bool, limits: Limits, shards: usize) -> Gateway {
    let core = core_affinity::get_core_ids().expect("cores")[0].id;
    let config = Config {
        http_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        cores: Cores::List(vec![core; shards]),
        driver,
        uring_sends,
        limits,
        ..Config::default()
    };
    let listeners = Listeners::bind(&config).expect("a free port");
    let addr = listeners.local_addr();
    assert_ne!(addr.port(), 0);
    let (sender, events) = unbounded_channel();
    let shards = shard::spawn(&config, listeners, true, sender).expect("shards start");
    Gateway { addr, shards, events }
}

impl Gateway {
    pub(crate) async fn event(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("shards live")
    }

    pub(crate) async fn upgraded(&mut self) -> ConnId {
        match self.event().await {
            Event::Upgraded { conn, .. } => conn,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn command(&self, shard: u16, command: Command) {
        assert!(self.shards[usize::from(shard)].mailbox.offer(command).is_ok());
    }

    pub(crate) fn command_all(&self, command: impl Fn() -> Command) {
        (0..self.shards.len()).for_each(|shard| self.command(shard as u16, command()));
    }

    /// Connects and opens, as a member of `rooms`.
    pub(crate) async fn browser(&mut self, v1: bool, rooms: &[&str]) -> (Browser, ConnId) {
        let mut browser = connect(self.addr, "/api/ws", v1).await;
        let conn = self.upgraded().await;
        self.open(conn, rooms);
        assert_eq!(text(&mut browser).await, "hello");
        (browser, conn)
    }

    pub(crate) fn open(&self, conn: ConnId, rooms: &[&str]) {
        let at = Position { epoch: 1, seq: 0 };
        let rooms = rooms.iter().map(|room| Joined { room_id: (*room).into(), at }).collect();
        let name = format!("{}-{}", conn.shard, conn.slot);
        let session = Arc::new(Session::new(&name, &name, "ann"));
        self.command(conn.shard, Command::Open { conn, session, frames: vec![wire("hello")], rooms });
    }

    /// Numbers of all shards together.
    pub(crate) fn counters(&self) -> Counters {
        let all: Vec<Counters> = self.shards.iter().map(|shard| shard.metrics.snapshot()).collect();
        let values: Vec<Vec<u64>> = all.iter().map(|counters| counters.values().collect()).collect();
        Counters::from_values((0..values[0].len()).map(|at| values.iter().map(|shard| shard[at]).sum()))
    }

    pub(crate) async fn until(&self, what: &str, reached: impl Fn(&Counters) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !reached(&self.counters()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.counters());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(crate) async fn connect(addr: SocketAddr, path: &str, v1: bool) -> Browser {
    let mut request = format!("ws://{addr}{path}").into_client_request().expect("a request");
    if v1 {
        request.headers_mut().insert("Sec-WebSocket-Protocol", "corecast.v1".parse().expect("a value"));
    }
    let stream = TcpStream::connect(addr).await.expect("connected");
    stream.set_nodelay(true).expect("a socket");
    timeout(PATIENCE, client_async(request, stream)).await.expect("in time").expect("upgraded").0
}

pub(crate) async fn next(browser: &mut Browser) -> Message {
    timeout(PATIENCE, browser.next()).await.expect("in time").expect("not ended").expect("no error")
}

pub(crate) async fn text(browser: &mut Browser) -> String {
    loop {
        match next(browser).await {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The code of the close that comes next, `None` without one. Answers it and reads to the
/// end of the stream, so that the shard sees the whole closing handshake.
pub(crate) async fn close_code(browser: &mut Browser) -> Option<u16> {
    let mut code = None;
    loop {
        match timeout(PATIENCE, browser.next()).await.expect("in time") {
            Some(Ok(Message::Close(frame))) => code = frame.map(|frame| frame.code.into()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return code,
        }
    }
}

pub(crate) fn wire(text: &str) -> Wire {
    Wire::text(text.as_bytes())
}

pub(crate) fn frame(room: &str, everyone: bool, number: u64, wire: Wire) -> RoomFrame {
    RoomFrame { room_id: room.into(), everyone, epoch: 1, first: number, last: number, wire }
}
