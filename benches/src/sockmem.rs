//! What the kernel holds for sockets: the question behind `ss -m`, sock_diag(7).

use std::net::SocketAddr;

use anyhow::{Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::{MemInfo, Nla};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as Kernel};

/// Sockets with unsent or unacknowledged bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// How many.
    pub sockets: u64,
    /// Bytes of kernel memory in their queues, the room reserved for them included.
    pub bytes: u64,
}

/// The established connections of a server that hold bytes which their peers did not take.
///
/// # Errors
/// The kernel does not answer, or not in the known form.
pub fn holding(server: SocketAddr) -> Result<Holding> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&Kernel::new(0, 0))?;
    socket.send(&question(server), 0)?;
    let mut found = Holding::default();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => bail!("sock_diag refuses: {error}"),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response))
                    if response.header.socket_id.source_port == server.port() =>
                {
                    response.nlas.iter().for_each(|nla| found.take(nla));
                }
                _ => {}
            }
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(1)..).unwrap_or_default();
        }
    }
}

impl Holding {
    fn take(&mut self, nla: &Nla) {
        let Nla::MemInfo(MemInfo { receive_queue, send_queue, cache, options, backlog_queue_length, .. }) =
            nla
        else {
            return;
        };
        if *send_queue > 0 {
            self.sockets += 1;
            let parts = [receive_queue, send_queue, cache, options, backlog_queue_length];
            self.bytes += parts.into_iter().map(|bytes| u64::from(*bytes)).sum::<u64>();
        }
    }
}

fn question(server: SocketAddr) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family: if server.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::SKMEMINFO,
        states: StateFlags::ESTABLISHED,
        // The port of a dump is not looked at by every kernel: answers are told apart here.
        socket_id: if server.is_ipv4() { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    let mut packet = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_connection_holds_what_its_peer_does_not_take() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let mut peer = std::net::TcpStream::connect(server).unwrap();
        let (mut ours, _) = listener.accept().unwrap();
        assert_eq!(holding(server).unwrap(), Holding::default());
        ours.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = ours.write(&[7; 64 << 10]) {
            written += count;
        }
        let full = holding(server).unwrap();
        assert!(full.sockets == 1 && full.bytes > 64 << 10, "{full:?} of {written}");
        peer.read_exact(&mut vec![0; written]).unwrap();
    }
}
