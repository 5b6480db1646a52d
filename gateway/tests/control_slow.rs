//! Setup: a gateway on real sockets, a client that stops reading while much is published,
//! and one that reads; the ring of the room is long, or too short for what was missed.
//! Claim: the slow one is told that it lags, catches up in the same connection from the ring
//! or from history, by pages of 64 KiB, and gets every message exactly once and in order;
//! nobody waits for it.
//! Why it matters: a phone in a tunnel must neither lose a message nor see one twice.

mod control_support;

use control_support::{ROOM, World};

const MESSAGES: u64 = 240;
const BYTES: usize = 4 << 10;
/// A page lies in the memory of a peer that may not read it.
const PAGE_BYTES: usize = 64 << 10;

/// A ring that is too short.
const RING_FRAMES: usize = 16;

#[derive(Clone, Copy, PartialEq)]
enum From {
    Ring,
    History,
}

async fn stalls_and_catches_up(from: From) {
    let world = World::start_with(|config| {
        // What the kernel takes for a peer is little beside what is published.
        config.limits.socket_send_bytes = 16 << 10;
        config.limits.ring_frames = if from == From::Ring { 512 } else { RING_FRAMES };
    })
    .await;
    let mut slow = world.small_v1_client().await;
    let mut quick = world.v1_client().await;
    for number in 1..=MESSAGES {
        world.logic.publish(ROOM, BYTES).await;
        assert_eq!(quick.next_of("serverMessages").await["messages"][0]["seq"], number, "nobody waits");
    }
    let before = ranges(&world).len();

    let (mut reached, mut lagging, mut caught_up) = (0, Vec::new(), Vec::new());
    while reached < MESSAGES + 1 || caught_up.is_empty() {
        let frame = slow.next_frame().await;
        let payload = &frame["payload"];
        match frame["type"].as_str() {
            Some("serverMessages") => {
                for message in payload["messages"].as_array().expect("messages") {
                    reached += 1;
                    assert_eq!(message["seq"], reached, "each once, in order");
                }
            }
            Some("lagging") => lagging.push((payload["seq"].as_u64().expect("a number"), reached)),
            Some("caughtUp") => {
                caught_up.push((payload["seq"].as_u64().expect("a number"), reached));
                // Live again: the next one comes by itself.
                world.logic.publish(ROOM, BYTES).await;
            }
            _ => panic!("{frame}"),
        }
    }
    assert_eq!((lagging.len(), caught_up.len()), (1, 1));
    assert!(lagging[0].0 == lagging[0].1 && lagging[0].0 < MESSAGES, "{lagging:?}");
    assert_eq!(caught_up[0], (MESSAGES, MESSAGES));
    let read = ranges(&world).split_off(before);
    assert_eq!(!read.is_empty(), from == From::History, "{} reads of history", read.len());
    assert!(read.iter().all(|bytes| *bytes as usize == PAGE_BYTES), "pages of {read:?} bytes");
    if from == From::History {
        // The newest lie in the ring.
        let missed = (MESSAGES - lagging[0].0) as usize - RING_FRAMES;
        assert!(read.len() >= missed * BYTES / PAGE_BYTES, "{missed} messages in {} pages", read.len());
    }
}

/// The bytes that reads of history were asked to keep to.
fn ranges(world: &World) -> Vec<u32> {
    world.logic.ranges.lock().expect("lock").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_client_catches_up_from_the_ring_and_gets_everything_once() {
    stalls_and_catches_up(From::Ring).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_client_catches_up_from_history_when_the_ring_is_too_short() {
    stalls_and_catches_up(From::History).await;
}
