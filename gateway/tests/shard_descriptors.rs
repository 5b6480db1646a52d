//! Setup: a shard whose process has fewer file descriptors left than peers knock. Alone in
//! its file, because the limit is the whole process's.
//! Claim: peers without a descriptor are told so or wait, the core does not turn in a
//! circle, and everything goes on as soon as there are descriptors again.
//! Why it matters: a listener that stays readable at EMFILE otherwise eats the core.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use corecast_gateway::config::{Config, Cores, DriverChoice};
use corecast_gateway::shard::{self, Listeners};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

const PEERS: usize = 20;
const LEFT: u64 = 8;

#[test]
fn peers_without_a_descriptor_neither_hang_the_core_nor_are_forgotten() {
    let core = core_affinity::get_core_ids().expect("cores")[0].id;
    let config = Config {
        http_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        cores: Cores::List(vec![core]),
        driver: DriverChoice::Epoll,
        ..Config::default()
    };
    let listeners = Listeners::bind(&config).expect("a free port");
    let addr = listeners.local_addr();
    let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
    let shards = shard::spawn(&config, listeners, false, sender).expect("shards start");
    let counters = || shards[0].metrics.snapshot();

    // The peers' own descriptors exist before the limit falls.
    let peers: Vec<Socket> =
        (0..PEERS).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")).collect();
    let next = File::open("/dev/null").expect("a file").as_raw_fd() as u64;
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + LEFT), ..before }).expect("lowered");
    for peer in &peers {
        peer.connect(&addr.into()).expect("the backlog takes it");
    }
    until("refusals", || counters().exhausted >= 3);
    let accepted = counters().accepted;
    assert!((1..=LEFT).contains(&accepted), "{accepted}");
    let (tries, begun) = (counters().exhausted, Instant::now());
    std::thread::sleep(Duration::from_millis(300));
    let tries = counters().exhausted - tries;
    assert!(tries as u128 <= begun.elapsed().as_millis() / 50 + 1, "{tries} tries: the core spins");

    setrlimit(Resource::Nofile, before).expect("raised");
    until("the rest", || counters().accepted > accepted);
    let mut told = 0;
    let mut served = 0;
    for peer in peers {
        let mut stream = TcpStream::from(peer);
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        match answer.get(9..12) {
            Some(b"200") => served += 1,
            Some(b"503") => told += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told + served, PEERS);
    assert!(told >= 3 && served as u64 > accepted, "{told} told, {served} served");
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
