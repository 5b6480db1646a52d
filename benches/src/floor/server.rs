//! The floor's one loop.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use anyhow::{Context, Result, bail};

use super::peer::{Greeting, Peer, hello_payload, send_whole};
use super::pings::Pings;
use crate::control;
use crate::sys::{self, Epoll, Interest, SendRing};
use crate::wire;

/// How a batch reaches the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mechanism {
    /// send(2), one after the other.
    Send,
    /// SEND entries of an io_uring, a batch per system call.
    Uring,
}

/// What the floor is asked for.
#[derive(Clone, Copy, Debug)]
pub struct FloorConfig {
    /// How a batch reaches the connections.
    pub mechanism: Mechanism,
    /// How a new peer gets its hello.
    pub greeting: Greeting,
    /// Bytes of the payload of the frame that follows the 101, at least 64; 0: none.
    pub hello_bytes: usize,
    /// Milliseconds between pings; 0: none.
    pub ping_ms: u64,
}

/// A bound floor.
pub struct Floor {
    http: TcpListener,
    control: TcpListener,
    epoll: Epoll,
    peers: Vec<Option<Peer>>,
    /// Descriptors of the upgraded peers, in the order of their coming.
    members: Vec<RawFd>,
    driver: Option<Driver>,
    ring: Option<SendRing>,
    pings: Option<Pings>,
    greeting: Greeting,
    hello: Vec<u8>,
    scratch: Box<[u8]>,
}

/// Who sends the batches.
struct Driver {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Floor {
    /// Binds two free ports of loopback.
    ///
    /// # Errors
    /// No port, or io_uring is refused.
    pub fn bind(config: FloorConfig) -> Result<Self> {
        let epoll = Epoll::new(EVENTS)?;
        let http = listener(&epoll, HTTP)?;
        let control = listener(&epoll, CONTROL)?;
        if config.greeting.defers() {
            sys::defer_accept(http.as_fd())?;
        }
        let ring = match config.mechanism {
            Mechanism::Send => None,
            Mechanism::Uring => Some(SendRing::new(RING_BATCH).context("io_uring is refused")?),
        };
        let mut hello = Vec::new();
        if config.hello_bytes > 0 {
            wire::push_frame(&mut hello, 1, hello_payload(config.hello_bytes).as_bytes());
        }
        Ok(Self {
            http,
            control,
            epoll,
            peers: Vec::new(),
            members: Vec::new(),
            driver: None,
            ring,
            pings: (config.ping_ms > 0).then(|| Pings::new(config.ping_ms)),
            greeting: config.greeting,
            hello,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
        })
    }

    /// Where WebSockets and where batches come in.
    ///
    /// # Errors
    /// Never for bound sockets.
    pub fn addrs(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.http.local_addr()?, self.control.local_addr()?))
    }

    /// Serves until the driver has closed its connection.
    ///
    /// # Errors
    /// A socket is full: whoever reads is too slow for what is measured.
    pub fn run(mut self) -> Result<()> {
        loop {
            let ready = self.epoll.wait(self.pings.as_ref().and_then(Pings::wait))?;
            for index in 0..ready {
                match self.epoll.token(index) {
                    HTTP => self.accept()?,
                    CONTROL => self.take_driver()?,
                    DRIVER => {
                        if !self.fan_out()? {
                            return Ok(());
                        }
                    }
                    slot => self.serve(slot as usize)?,
                }
            }
            self.ping()?;
        }
    }

    fn accept(&mut self) -> Result<()> {
        // An accept that finds nobody costs nearly as much as one that does: who does as corecast
        // does asks for one, and again when the listener says so again.
        let most = if self.greeting.defers() { 1 } else { ACCEPTS };
        for _ in 0..most {
            match sys::accept(self.http.as_fd()) {
                Ok(socket) => self.take_peer(socket.into())?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take_peer(&mut self, stream: TcpStream) -> Result<()> {
        let slot = self.peers.len();
        self.peers.push(Some(Peer::new(stream)));
        if self.greeting.defers() {
            // Its request is there. Watched only then, its socket is empty and no event.
            self.serve(slot)?;
        }
        if let Some(peer) = &self.peers[slot] {
            self.epoll.add(peer.stream.as_fd(), Interest::Read, slot as u64)?;
        }
        Ok(())
    }

    fn take_driver(&mut self) -> Result<()> {
        let (stream, _) = self.control.accept()?;
        stream.set_nonblocking(true)?;
        self.epoll.add(stream.as_fd(), Interest::Read, DRIVER)?;
        self.driver = Some(Driver { stream, read: Vec::new() });
        Ok(())
    }

    /// Reads what the driver sent; every whole batch goes to everybody. `false`: no more comes.
    fn fan_out(&mut self) -> Result<bool> {
        let Some(driver) = &mut self.driver else { return Ok(true) };
        match driver.stream.read(&mut self.scratch) {
            Ok(0) => return Ok(false),
            Ok(count) => driver.read.extend_from_slice(&self.scratch[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let mut read = std::mem::take(&mut driver.read);
        let mut taken = 0;
        while let Some(head) = read[taken..].first_chunk() {
            let bytes = control::batch_bytes(*head);
            let Some(batch) = read.get(taken + 4..taken + 4 + bytes) else { break };
            self.send_batch(batch)?;
            taken += 4 + bytes;
        }
        read.drain(..taken);
        if let Some(driver) = &mut self.driver {
            driver.read = read;
        }
        Ok(true)
    }

    fn send_batch(&mut self, batch: &[u8]) -> Result<()> {
        let mut frames = Vec::with_capacity(batch.len() + 64);
        control::payloads(batch).for_each(|payload| wire::push_frame(&mut frames, 1, payload));
        if let Some(ring) = &mut self.ring {
            let failed = ring.send_all(&self.members, &frames)?;
            if failed > 0 {
                bail!("{failed} sockets are full");
            }
            return Ok(());
        }
        for peer in self.peers.iter().flatten().filter(|peer| peer.is_open()) {
            send_whole(&peer.stream, &frames)?;
        }
        Ok(())
    }

    fn serve(&mut self, slot: usize) -> Result<()> {
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let count = match peer.stream.read(&mut self.scratch) {
            Ok(count) if count > 0 => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            _ => {
                self.leave(slot);
                return Ok(());
            }
        };
        let was_open = peer.is_open();
        if peer.carry.is_empty() {
            let taken = peer.take(&mut self.scratch[..count], self.greeting, &self.hello)?;
            peer.carry.extend_from_slice(&self.scratch[taken..count]);
        } else {
            let mut carry = std::mem::take(&mut peer.carry);
            carry.extend_from_slice(&self.scratch[..count]);
            let taken = peer.take(&mut carry, self.greeting, &self.hello)?;
            carry.drain(..taken);
            peer.carry = carry;
        }
        if peer.is_open() && !was_open {
            self.members.push(peer.stream.as_raw_fd());
            if let Some(pings) = &mut self.pings {
                pings.insert(slot);
            }
        }
        Ok(())
    }

    /// One ping to everybody whose slot has come.
    fn ping(&mut self) -> Result<()> {
        let Some(pings) = &mut self.pings else { return Ok(()) };
        while let Some(due) = pings.take_due() {
            for slot in due {
                if let Some(Some(peer)) = self.peers.get(*slot) {
                    send_whole(&peer.stream, PING)?;
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self, slot: usize) {
        if let Some(peer) = self.peers[slot].take() {
            let fd = peer.stream.as_raw_fd();
            self.members.retain(|member| *member != fd);
        }
    }
}

fn listener(epoll: &Epoll, token: u64) -> Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    // Whoever is accepted has it too.
    socket.set_tcp_nodelay(true)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    epoll.add(listener.as_fd(), Interest::Read, token)?;
    Ok(listener)
}

/// Tokens that no slot has.
const HTTP: u64 = u64::MAX;
const CONTROL: u64 = u64::MAX - 1;
const DRIVER: u64 = u64::MAX - 2;
/// An empty ping.
const PING: &[u8] = &[0x89, 0];
const EVENTS: usize = 256;
const ACCEPTS: usize = 64;
const BACKLOG: i32 = 8_192;
const SCRATCH_BYTES: usize = 64 << 10;
/// Sends of one system call: more than this gains nothing and keeps others waiting.
const RING_BATCH: usize = 128;
