//! Peers and their sockets: they come, stall, talk, and are lost.

use super::client::{Client, masked};
use super::world::World;

impl World {
    pub(crate) fn connect(&mut self) {
        let peer = self.shard.driver_mut().connect();
        let v1 = self.below(3) > 0;
        let protocol = if v1 { "Sec-WebSocket-Protocol: corecast.v1\r\n" } else { "" };
        let request = format!(
            "GET /api/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\
             Cookie: sid=c{peer}\r\n\r\n"
        );
        self.shard.driver_mut().send(peer, request.as_bytes());
        self.clients.push(Client::new(peer, v1));
    }

    pub(crate) fn stall(&mut self) {
        let live: Vec<usize> = self.clients.iter().filter(|c| !c.gone).map(|c| c.peer).collect();
        let Some(peer) = self.pick(&live) else { return };
        let room = match self.below(4) {
            0 => 0,
            1 => self.below(700),
            _ => usize::MAX,
        };
        self.shard.driver_mut().set_room(peer, room);
    }

    pub(crate) fn lose(&mut self) {
        let live: Vec<usize> = self.clients.iter().filter(|c| !c.gone).map(|c| c.peer).collect();
        let Some(peer) = self.pick(&live) else { return };
        if self.below(2) == 0 {
            self.shard.driver_mut().break_off(peer);
        } else {
            self.shard.driver_mut().end(peer);
        }
        self.client(peer).gone = true;
    }

    /// Clients send some texts.
    pub(crate) fn say(&mut self) {
        let live: Vec<usize> =
            self.clients.iter().filter(|c| !c.gone && c.upgraded).map(|c| c.peer).collect();
        let Some(peer) = self.pick(&live) else { return };
        for _ in 0..1 + self.below(4) {
            let client = self.client(peer);
            client.sent += 1;
            let text = format!("t{}", client.sent);
            self.shard.driver_mut().send(peer, &masked(0x1, text.as_bytes()));
        }
    }
}
