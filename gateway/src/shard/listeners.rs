//! One listening socket per core on one address (SO_REUSEPORT): the kernel spreads new
//! peers over the cores, and no core ever waits for another one's accept.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::Error;
use crate::config::{Config, Cores, Limits};

/// Bound sockets, each with the cpu of its shard.
pub struct Listeners {
    addr: SocketAddr,
    pub(super) sockets: Vec<(usize, OwnedFd)>,
}

impl Listeners {
    /// Binds `config.http_addr` once per core of `config.cores`. With port 0 the first
    /// socket draws a port and the others share it. Peers that connect before the shards
    /// run wait in the backlog.
    ///
    /// # Errors
    /// [`Error::Listen`], or a cpu that is not ours.
    pub fn bind(config: &Config) -> Result<Self, Error> {
        let cpus = cpus(&config.cores)?;
        let mut addr = config.http_addr;
        let mut sockets = Vec::with_capacity(cpus.len());
        let listen = |source| Error::Listen { addr: config.http_addr, source };
        if addr.port() != 0 {
            refuse_company(addr).map_err(listen)?;
        }
        for cpu in cpus {
            let socket = open(addr, &config.limits).map_err(listen)?;
            if addr.port() == 0 {
                addr = bound(&socket).map_err(listen)?;
            }
            sockets.push((cpu, OwnedFd::from(socket)));
        }
        Ok(Self { addr, sockets })
    }

    /// The real address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many shards there will be.
    pub fn shards(&self) -> usize {
        self.sockets.len()
    }
}

/// SO_REUSEPORT would let another process of ours share the port, and with it the peers, in
/// silence. A bind without it fails where somebody listens, and only there.
fn refuse_company(addr: SocketAddr) -> io::Result<()> {
    let probe = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    probe.set_reuse_address(true)?;
    probe.bind(&addr.into())
}

fn open(addr: SocketAddr, limits: &Limits) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // All are inherited by accepted sockets on Linux, which saves three system calls a peer. The
    // window a peer may fill is agreed on when it connects: later would be too late.
    socket.set_tcp_nodelay(true)?;
    if limits.socket_send_bytes > 0 {
        socket.set_send_buffer_size(limits.socket_send_bytes)?;
    }
    if limits.socket_receive_bytes > 0 {
        socket.set_recv_buffer_size(limits.socket_receive_bytes)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bound(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an internet socket"))
}

fn cpus(cores: &Cores) -> Result<Vec<usize>, Error> {
    let known: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    match cores {
        Cores::Auto(_) if known.is_empty() => Err(Error::NoCores),
        Cores::Auto(_) => Ok(known),
        Cores::List(list) => {
            // One core may be listed twice: two shards share it, which tests use.
            match list.iter().find(|cpu| !known.is_empty() && !known.contains(cpu)) {
                Some(cpu) => Err(Error::Core(*cpu)),
                None => Ok(list.clone()),
            }
        }
    }
}

/// Peers that may wait for an accept. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_refused() {
        let mut config = Config { http_addr: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() };
        let first = Listeners::bind(&config).expect("a free port");
        config.http_addr = first.local_addr();
        assert!(matches!(Listeners::bind(&config), Err(Error::Listen { .. })));
        drop(first);
        Listeners::bind(&config).expect("free again");
    }
}
