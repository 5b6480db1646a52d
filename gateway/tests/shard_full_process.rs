//! Setup: a process that is filled with connections to its last file descriptor. Alone in its
//! file, because the limit is the whole process's.
//! Claim: one more is refused cleanly, who is connected notices nothing, and others get the
//! places of those who leave.
//! Why it matters: the limit is reached on the busiest day there is.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use corecast_gateway::config::{Config, Cores, DriverChoice};
use corecast_gateway::shard::{self, Listeners, ShardHandle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

const PEERS: usize = 40;
const LEFT: u64 = 8;

#[test]
fn a_full_process_serves_who_is_in_and_takes_others_when_some_leave() {
    let (addr, shards) = start();
    let counters = || shards[0].metrics.snapshot();
    let sockets: Vec<Socket> =
        (0..PEERS).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")).collect();
    let next = File::open("/dev/null").expect("a file").as_raw_fd() as u64;
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + LEFT), ..before }).expect("lowered");

    // One after the other, until there is no place.
    let mut knocking = sockets.into_iter();
    let mut inside: Vec<TcpStream> = Vec::new();
    for socket in knocking.by_ref() {
        match upgraded(socket, addr) {
            Some(stream) => inside.push(stream),
            None => break,
        }
    }
    assert!((1..=LEFT as usize).contains(&inside.len()), "{}", inside.len());
    assert!(counters().exhausted > 0);
    for stream in &mut inside {
        echo(stream);
    }
    // Two leave: two more may come, and those who stayed notice nothing of either.
    for left in [2, 1] {
        let stay = inside.split_off(left);
        let gone = std::mem::replace(&mut inside, stay).len();
        until("they have left", || counters().connections == inside.len() as u64);
        for _ in 0..gone {
            let stream = knocking.by_ref().find_map(|socket| upgraded(socket, addr));
            inside.push(stream.expect("there is a place"));
        }
        inside.iter_mut().for_each(echo);
    }
    setrlimit(Resource::Nofile, before).expect("raised");
}

/// Connects and upgrades; `None`: told that there is no place, or not served for a while.
fn upgraded(socket: Socket, addr: SocketAddr) -> Option<TcpStream> {
    socket.connect(&addr.into()).expect("the backlog takes it");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let request = "GET /debug/echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let _ = stream.write_all(request.as_bytes());
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // A reset behind the answer may overtake it: the peer was refused all the same.
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    match &head[9..12] {
        b"101" => Some(stream),
        b"503" => None,
        _ => panic!("{}", String::from_utf8_lossy(&head)),
    }
}

fn echo(stream: &mut TcpStream) {
    let frame = [0x82, 0x81, 0, 0, 0, 0, b'x'];
    stream.write_all(&frame).expect("sent");
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).expect("an echo");
    assert_eq!(answer, [0x82, 1, b'x']);
}

fn start() -> (SocketAddr, Vec<ShardHandle>) {
    let core = core_affinity::get_core_ids().expect("cores")[0].id;
    let config = Config {
        http_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        cores: Cores::List(vec![core]),
        driver: DriverChoice::Epoll,
        ..Config::default()
    };
    let listeners = Listeners::bind(&config).expect("a free port");
    let addr = listeners.local_addr();
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    // A shard ends with the receiver: it lives as long as the process.
    std::mem::forget(events);
    (addr, shard::spawn(&config, listeners, true, sender).expect("shards start"))
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
