//! Bytes of peers: request heads until the upgrade, frames after it.

use std::net::IpAddr;

use corecast_proto::close::CloseCode;

use super::{Action, Connections, Key, Urgency};
use crate::core::counters::Ended;
use crate::core::handshake::{Decision, decide};
use crate::core::outbox::{Kind, Segment};
use crate::core::session::{Around, Closing, Phase, Stamp, Verdict};
use crate::core::wire::Wire;

impl Connections {
    /// Bytes arrived; they are changed in place. `false`: do not read this connection
    /// before [`Action::Resume`].
    pub fn handle_bytes(&mut self, key: Key, bytes: &mut [u8]) -> bool {
        let Some(slot) = self.find(key) else { return false };
        self.counters.bytes_read += bytes.len() as u64;
        match self.slots[slot as usize].phase {
            Phase::Head(_) => self.read_head(slot, bytes),
            Phase::Free | Phase::Handing(_) => false,
            Phase::Upgraded | Phase::Open(_) | Phase::Echo | Phase::Closing(_) => {
                self.read_frames(slot, bytes)
            }
        }
    }

    fn read_head(&mut self, slot: u32, bytes: &mut [u8]) -> bool {
        let Phase::Head(head) = &mut self.slots[slot as usize].phase else { return false };
        let peer = head.peer;
        if head.read.is_empty() {
            return self.read_requests(slot, bytes, peer);
        }
        // The request began in an earlier read.
        let before = head.read.len();
        head.read.extend_from_slice(bytes);
        if !is_worth_a_look(before, &head.read) {
            return true;
        }
        let mut read = std::mem::take(&mut head.read);
        self.read_requests(slot, &mut read, peer)
    }

    fn read_requests(&mut self, slot: u32, bytes: &mut [u8], peer: Option<IpAddr>) -> bool {
        let mut rest = bytes;
        loop {
            match decide(rest, &self.rules, peer) {
                Decision::NeedMore => {
                    if let Phase::Head(head) = &mut self.slots[slot as usize].phase {
                        head.read = rest.to_vec();
                    }
                    return self.rest_or_read(slot);
                }
                Decision::Upgrade { request, response, consumed } => {
                    // Who must say something first (`resume`), and who never hears anything by
                    // itself, needs its 101 now. For everybody else it waits for the hello, a
                    // moment behind it: one packet, and half the cost of sending, see
                    // [`Due::Answer`](crate::core::session::Due::Answer).
                    let waits = !request.v1 && !request.echo;
                    self.queue_http(slot, response);
                    self.upgrade(slot, request);
                    if !waits {
                        self.mark(slot);
                    }
                    let frames = &mut rest[consumed..];
                    return frames.is_empty() || self.read_frames(slot, frames);
                }
                Decision::Answer { response, close, consumed } => {
                    self.answer(slot, response);
                    if close {
                        self.close_http(slot);
                        return true;
                    }
                    // Another request may follow, and gets the whole time again.
                    self.slots[slot as usize].since = Stamp::at(self.now_ms);
                    rest = &mut rest[consumed..];
                    if rest.is_empty() {
                        return self.rest_or_read(slot);
                    }
                }
                Decision::HandOver => {
                    let conn = &mut self.slots[slot as usize];
                    if let Phase::Head(mut head) = std::mem::replace(&mut conn.phase, Phase::Free) {
                        head.read = rest.to_vec();
                        conn.phase = Phase::Handing(head);
                    }
                    self.mark(slot);
                    return false;
                }
            }
        }
    }

    fn answer(&mut self, slot: u32, response: Vec<u8>) {
        self.queue_http(slot, response);
        self.mark(slot);
    }

    fn queue_http(&mut self, slot: u32, response: Vec<u8>) {
        let segment = Segment { bytes: response.into(), kind: Kind::Http };
        self.slots[slot as usize].outbox.push(segment);
    }

    fn close_http(&mut self, slot: u32) {
        let conn = &mut self.slots[slot as usize];
        conn.since = Stamp::at(self.now_ms);
        conn.alive = conn.since;
        conn.phase = Phase::Closing(Box::new(Closing {
            why: Ended::Http,
            session: None,
            known: false,
            rooms: Vec::new(),
            peer_closed: false,
            shut: false,
        }));
        self.wind(slot);
    }

    pub(super) fn read_frames(&mut self, slot: u32, bytes: &mut [u8]) -> bool {
        let conn_id = self.conn_id(slot);
        let accepts = !self.is_draining();
        let Self { slots, limits, held, unsettled_bytes, events, counters, .. } = self;
        let conn = &mut slots[slot as usize];
        conn.heard(self.now_ms);
        let mut around = Around { conn: conn_id, limits, held, unsettled_bytes, accepts, events, counters };
        let mut reader = std::mem::take(&mut conn.reader);
        let mut verdict = None;
        let broken = reader.feed(bytes, conn.message_max(around.limits), &mut |incoming| {
            if verdict.is_none() {
                verdict = conn.handle_incoming(incoming, &mut around);
            }
        });
        conn.reader = reader;
        if let (Err(violation), None) = (broken, &verdict) {
            verdict = Some(Verdict::Close(violation.code, violation.reason));
        }
        let wants_to_send = !conn.outbox.is_empty();
        if let Some(verdict) = verdict {
            self.act(slot, verdict);
        } else if wants_to_send {
            self.mark(slot);
        }
        self.rest_or_read(slot)
    }

    /// Control settled texts: held ones follow, and its socket is read again.
    pub(super) fn settle(&mut self, slot: u32, count: u32) {
        let conn_id = self.conn_id(slot);
        let accepts = !self.is_draining();
        let Self { slots, limits, held, unsettled_bytes, events, counters, .. } = self;
        let mut around = Around { conn: conn_id, limits, held, unsettled_bytes, accepts, events, counters };
        let verdict = slots[slot as usize].settle(count, &mut around);
        if let Some(verdict) = verdict {
            self.act(slot, verdict);
        }
        self.resume(slot);
    }

    /// Reads a paused connection again if nothing speaks against it any more.
    pub(super) fn resume(&mut self, slot: u32) {
        let key = self.key(slot);
        let must_pause = self.must_pause(slot);
        let conn = &mut self.slots[slot as usize];
        if conn.paused && !must_pause {
            conn.paused = false;
            // The silence was ours.
            conn.heard(self.now_ms);
            self.actions.push_back(Action::Resume(key));
        }
    }

    fn act(&mut self, slot: u32, verdict: Verdict) {
        match verdict {
            Verdict::Close(code, reason) => self.close(slot, code, reason, Urgency::Behind),
            Verdict::PeerClosed { code, mid_message } => self.peer_closed(slot, code, mid_message),
        }
    }

    /// The peer's close: the answer to ours, or answered with its own code.
    fn peer_closed(&mut self, slot: u32, code: Option<u16>, mid_message: bool) {
        if self.slots[slot as usize].is_upgraded() {
            let answer = match code {
                Some(_) if mid_message => Wire::close(CloseCode::Normal, ""),
                Some(code) => Wire::close_answer(code),
                None => Wire::close_empty(),
            };
            self.begin_close(slot, Ended::Peer, Urgency::Behind, &answer);
        }
        if let Phase::Closing(closing) = &mut self.slots[slot as usize].phase {
            closing.peer_closed = true;
        }
        // Everything may be written already.
        self.mark(slot);
    }

    fn rest_or_read(&mut self, slot: u32) -> bool {
        let must_pause = self.must_pause(slot);
        let conn = &mut self.slots[slot as usize];
        conn.paused |= must_pause;
        !conn.paused
    }

    /// Must its socket rest? While the shard drains nothing new is read before its close.
    fn must_pause(&self, slot: u32) -> bool {
        let conn = &self.slots[slot as usize];
        let drains = self.is_draining() && matches!(conn.phase, Phase::Upgraded | Phase::Open(_));
        drains || conn.must_pause(&self.limits)
    }
}

/// May a head that has grown from `before` bytes be decided now? Where its end came, or it
/// has doubled: a head that comes byte by byte is not parsed for every one of them.
fn is_worth_a_look(before: usize, read: &[u8]) -> bool {
    let ends = |tail: &[u8]| {
        tail.windows(2).any(|two| two == b"\n\n") || tail.windows(3).any(|three| three == b"\n\r\n")
    };
    ends(&read[before.saturating_sub(2)..]) || before.next_power_of_two() < read.len().next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_looked_at_where_it_ends_and_whenever_it_has_doubled() {
        for end in ["\r\n\r\n", "\n\n", "\n\r\n"] {
            let head = format!("GET / HTTP/1.1\r\nHost: h{}{end}", "x".repeat(500)).into_bytes();
            let looks: Vec<usize> =
                (1..=head.len()).filter(|at| is_worth_a_look(at - 1, &head[..*at])).collect();
            assert_eq!(looks.last(), Some(&head.len()), "{end:?}");
            assert!(looks.len() < 14, "{looks:?}");
            for cut in 1..head.len() {
                assert!(is_worth_a_look(cut, &head), "its end in a read of {} bytes", head.len() - cut);
            }
        }
        let limit = 64 << 10;
        assert!(is_worth_a_look(limit, &vec![b'x'; limit + 1]), "over the limit: refused at once");
    }
}
