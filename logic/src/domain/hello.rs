//! How the rooms of a hello share its size.
//!
//! Max-min fair: a room that needs less than an equal share gets all it needs, what it
//! leaves goes to the others. So one busy room never empties the quiet ones. Trimming drops
//! the oldest messages and never changes the number where a room's contents stop.

use corecast_proto::frame;
use corecast_proto::ids::Position;
use corecast_proto::logic::{HelloReply, RoomSnapshot};

use super::frames::Encoded;
use super::room::kind_of_number;

/// What one room would like to say.
pub struct Wish<'a> {
    /// Its messages.
    pub messages: &'a Encoded,
    /// Must be whole or the client's place is void: it told a place and these follow it.
    pub resumed: bool,
    /// Newest messages at most, where they are not what follows a place.
    pub newest_max: usize,
}

/// What a room may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// First message to show; the rest are the newest.
    pub start: usize,
    /// A resumed room did not fit.
    pub cut: bool,
}

/// Shares `bytes_max` among the rooms, in their order.
pub fn share(wishes: &[Wish<'_>], bytes_max: usize) -> Vec<Share> {
    let newest = |wish: &Wish<'_>| wish.messages.len().saturating_sub(wish.newest_max);
    let mut shares: Vec<Share> = wishes
        .iter()
        .map(|wish| Share { start: if wish.resumed { 0 } else { newest(wish) }, cut: false })
        .collect();
    let need = |index: usize, share: Share| {
        let messages = wishes[index].messages;
        messages.array_bytes(share.start..messages.len())
    };
    let mut by_need: Vec<usize> = (0..wishes.len()).collect();
    by_need.sort_by_key(|&index| need(index, shares[index]));

    let mut left = bytes_max;
    for (done, &index) in by_need.iter().enumerate() {
        let equal = left / (by_need.len() - done);
        let wish = &wishes[index];
        if need(index, shares[index]) > equal {
            let fits = wish.messages.newest_within(equal);
            shares[index] = Share { start: fits.max(newest(wish)), cut: wish.resumed };
        }
        left = left.saturating_sub(need(index, shares[index]));
    }
    shares
}

/// The whole `hello` frame of a reply.
pub fn frame(user_id: &str, username: &str, reply: &HelloReply) -> Vec<u8> {
    let mut out = frame::hello_head(user_id, username);
    for (index, room) in reply.rooms.iter().chain(&reply.listed).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        frame::room_object(&mut out, &room_object(room));
    }
    out.extend_from_slice(frame::hello_tail());
    out
}

fn room_object(room: &RoomSnapshot) -> frame::RoomObject<'_> {
    frame::RoomObject {
        id: &room.room_id,
        name: &room.name,
        creator_id: &room.creator_id,
        has_more: room.has_more,
        messages: &room.messages,
        last: Position { epoch: room.epoch, seq: room.last_seq },
        kind: kind_of_number(room.kind),
        cut: room.cut,
    }
}

#[cfg(test)]
mod tests {
    use corecast_backends::store::Message;
    use corecast_proto::ids::MessageId;

    use super::*;

    fn room_of(count: u64) -> Encoded {
        let messages: Vec<Message> = (1..=count)
            .map(|seq| Message {
                id: MessageId { ms: 1_690_000_000_000, seq },
                user_id: "7".into(),
                username: "ann".into(),
                content: "x".repeat(100),
            })
            .collect();
        Encoded::of(&messages)
    }

    fn total(wishes: &[Wish<'_>], shares: &[Share]) -> usize {
        wishes.iter().zip(shares).map(|(w, s)| w.messages.array_bytes(s.start..w.messages.len())).sum()
    }

    #[test]
    fn everything_is_shown_where_it_fits() {
        let (a, b) = (room_of(3), room_of(5));
        let wishes = [
            Wish { messages: &a, resumed: true, newest_max: 2 },
            Wish { messages: &b, resumed: false, newest_max: 2 },
        ];
        let shares = share(&wishes, 1 << 20);
        assert_eq!(shares, [Share { start: 0, cut: false }, Share { start: 3, cut: false }]);
    }

    #[test]
    fn a_busy_room_does_not_empty_a_quiet_one() {
        let (busy, quiet) = (room_of(200), room_of(2));
        let wishes = [
            Wish { messages: &busy, resumed: false, newest_max: 200 },
            Wish { messages: &quiet, resumed: false, newest_max: 200 },
        ];
        let shares = share(&wishes, 4096);
        assert_eq!(shares[1], Share { start: 0, cut: false });
        assert!(shares[0].start > 0 && shares[0].start < 200);
        assert!(total(&wishes, &shares) <= 4096);
    }

    #[test]
    fn a_resumed_room_that_does_not_fit_is_cut_to_its_newest() {
        let room = room_of(50);
        let wishes = [Wish { messages: &room, resumed: true, newest_max: 5 }];
        let whole = room.array_bytes(0..50);
        assert_eq!(share(&wishes, whole), [Share { start: 0, cut: false }]);
        assert_eq!(share(&wishes, whole - 1), [Share { start: 45, cut: true }]);
        let two = room.array_bytes(48..50);
        assert_eq!(share(&wishes, two), [Share { start: 48, cut: true }]);
    }

    #[test]
    fn the_size_is_kept_to_whatever_it_is() {
        let rooms: Vec<Encoded> = (0..20).map(room_of).collect();
        let wishes: Vec<Wish<'_>> = rooms
            .iter()
            .enumerate()
            .map(|(i, messages)| Wish { messages, resumed: i % 3 == 0, newest_max: 7 })
            .collect();
        // Two bytes a room are the empty arrays, which nothing can trim.
        for bytes_max in (40..20_000).step_by(97) {
            assert!(total(&wishes, &share(&wishes, bytes_max)) <= bytes_max, "{bytes_max}");
        }
    }
}
