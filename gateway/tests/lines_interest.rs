//! Setup: the lines of a gateway whose job leaves out what it was not asked for. Claim: what
//! job tells of a room that was asked for late is read at once, whatever the line's state;
//! a default room whose frames never come is found by the tail check, and not before the
//! creations that `global` still has to bring. Why: without a frame nothing else tells of it.

use corecast_gateway::core::lines::Lines;
use corecast_gateway::core::lines::types::{
    Action, Head, HeadsFor, LinesLimits, Placement, PlacementKind, RangeAnswer, RangeFor, SnapshotFor,
    SnapshotRoom,
};
use corecast_gateway::core::sequencer::{Ask, Frame};
use corecast_gateway::core::{ConnId, Wire};
use corecast_proto::ids::{GLOBAL, Position, RoomId};

const CONN: ConnId = ConnId { shard: 0, slot: 1, generation: 0 };

fn at(epoch: u64, seq: u64) -> Position {
    Position { epoch, seq }
}

fn head(id: &str, place: Position) -> Head {
    Head { room_id: RoomId::from(id), at: place, everyone: true }
}

/// Ready, with `global` at 3.
fn lines() -> Lines {
    let mut lines = Lines::new(1, LinesLimits::default(), 0);
    lines.handle_defaults(Some(vec![head(GLOBAL, at(7, 3))]), 0);
    actions(&mut lines);
    lines
}

fn join(lines: &mut Lines, id: &str, place: Position) -> Vec<Action> {
    let rooms = vec![SnapshotRoom { room_id: RoomId::from(id), everyone: false, at: place }];
    let reply = vec![Wire::text(b"joined")];
    let kind = PlacementKind::Join;
    lines.place(Placement { id: 1, conn: CONN, reply, kind, rooms, deadline_ms: 5_000 }, 0);
    actions(lines)
}

fn actions(lines: &mut Lines) -> Vec<Action> {
    std::iter::from_fn(|| lines.poll_action()).collect()
}

fn asked(actions: &[Action]) -> Option<(String, Ask)> {
    actions.iter().find_map(|action| match action {
        Action::Range { room_id, ask, why: RangeFor::Line } => Some((room_id.to_string(), *ask)),
        _ => None,
    })
}

#[test]
fn what_was_left_out_is_read_as_soon_as_job_tells() {
    let mut lines = lines();
    join(&mut lines, "r", at(7, 5));
    lines.handle_told_heads(vec![("r".into(), at(7, 5)), ("r".into(), at(6, 9))], 1);
    assert_eq!(asked(&actions(&mut lines)), None, "nothing is missing");
    lines.handle_told_heads(vec![("r".into(), at(7, 8))], 1);
    assert_eq!(asked(&actions(&mut lines)), Some(("r".to_owned(), Ask { after: 5, up_to: 8 })));
}

#[test]
fn job_may_tell_before_the_line_opens() {
    let mut lines = lines();
    lines.handle_told_heads(vec![("r".into(), at(7, 8))], 1);
    let Some(Action::Heads { rooms, why: HeadsFor::Unknown }) = actions(&mut lines).into_iter().next() else {
        panic!("nobody asks what kind of room it is");
    };
    join(&mut lines, "r", at(7, 5));
    let of_room = Head { everyone: false, ..head("r", at(7, 8)) };
    lines.handle_heads(&rooms, HeadsFor::Unknown, Some(vec![head(GLOBAL, at(7, 3)), of_room]), 2);
    lines.handle_timeout(2);
    assert_eq!(asked(&actions(&mut lines)), Some(("r".to_owned(), Ask { after: 5, up_to: 8 })));
}

#[test]
fn told_head_of_a_later_epoch_resets_the_line() {
    let mut lines = lines();
    join(&mut lines, "r", at(7, 5));
    lines.handle_told_heads(vec![("r".into(), at(8, 2))], 1);
    let reset = |action: &Action| matches!(action, Action::Snapshot { why: SnapshotFor::Reset, .. });
    assert!(actions(&mut lines).iter().any(reset));
}

#[test]
fn default_room_that_no_frame_tells_of_is_found_by_the_tail_check() {
    let mut lines = lines();
    lines.handle_timeout(2_000);
    let asked_tails = actions(&mut lines);
    let Some(Action::Heads { rooms, why }) = asked_tails.into_iter().next() else { panic!("no tail check") };
    // `global` is at 4 by now: its creation may be that of the room.
    let heads = vec![head(GLOBAL, at(7, 4)), head("d", at(7, 2))];
    lines.handle_heads(&rooms, why, Some(heads), 2_001);
    let next = actions(&mut lines);
    assert_eq!(asked(&next), Some((GLOBAL.to_owned(), Ask { after: 3, up_to: 4 })));
    assert_eq!(lines.default_rooms().count(), 0, "opened here it would lack what came before");
    let frames = vec![Frame { first: 4, last: 4, wire: Wire::text(b"another room"), creates: None }];
    let answer = RangeAnswer { at: Some(at(7, 4)), frames };
    lines.handle_range(&RoomId::from(GLOBAL), RangeFor::Line, Ask { after: 3, up_to: 4 }, answer, 2_002);
    assert_eq!(lines.line(&RoomId::from("d")), Some((at(7, 2), 2)), "no creation: it begins here");
    let watched =
        |action: &Action| matches!(action, Action::Watch { room_id, on: true } if room_id.as_str() == "d");
    assert!(actions(&mut lines).iter().any(watched));
}
