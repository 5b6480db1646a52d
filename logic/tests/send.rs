//! Setup: a node on a fresh store, frames sent over gRPC. Claim: an acknowledged message has
//! one number, the same at every repeat, and a room's numbers have no holes. Why it matters:
//! everything downstream trusts these numbers.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::collections::HashSet;

use corecast_proto::logic::{ClientFrame, FrameResult, SendRequest};
use support::{GENERAL, frame, node, node_with, seqs};

fn numbers(result: &FrameResult) -> Vec<u64> {
    assert_eq!(result.refusal, None);
    result.messages.iter().map(|message| message.seq).collect()
}

fn repeated(result: &FrameResult) -> Vec<bool> {
    result.messages.iter().map(|message| message.repeated_key).collect()
}

fn code(result: &FrameResult) -> &str {
    assert!(result.messages.is_empty(), "a refused frame has no messages");
    &result.refusal.as_ref().expect("must be refused").code
}

#[tokio::test]
async fn a_key_is_stored_once_in_a_frame_a_batch_and_a_later_one() {
    let node = node().await;
    let user = node.user().await;
    // Twice in one frame.
    let first = node.send(vec![frame(GENERAL, &user, &[("a", "c:1"), ("b", "c:1"), ("c", "c:2")])]).await;
    assert_eq!(numbers(&first[0]), [1, 1, 2]);
    assert_eq!(repeated(&first[0]), [false, true, false]);
    // In two frames of one batch, beside new ones.
    let batch = node
        .send(vec![
            frame(GENERAL, &user, &[("x", "c:2"), ("d", "c:3")]),
            frame(GENERAL, &user, &[("y", "c:3"), ("e", "c:4")]),
        ])
        .await;
    assert_eq!(numbers(&batch[0]), [2, 3]);
    assert_eq!(numbers(&batch[1]), [3, 4]);
    assert_eq!((repeated(&batch[0]), repeated(&batch[1])), (vec![true, false], vec![true, false]));
    // In a later one, whole: the same ids and times.
    let again = node.send(vec![frame(GENERAL, &user, &[("z", "c:1"), ("z", "c:4")])]).await;
    assert_eq!(numbers(&again[0]), [1, 4]);
    assert_eq!(again[0].messages[0].id, first[0].messages[0].id);
    assert_eq!(again[0].messages[0].timestamp, first[0].messages[0].timestamp);
    assert_eq!(again[0].messages[1].id, batch[1].messages[1].id);
    // The first content won.
    let page = node.newest(GENERAL, &user, 10).await;
    let contents: Vec<&str> =
        page["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(contents, ["a", "c", "d", "e"]);
}

#[tokio::test]
async fn a_key_is_kept_over_a_restart() {
    let node = node().await;
    let user = node.user().await;
    let first = node.send(vec![frame(GENERAL, &user, &[("a", "c:1")])]).await;
    let node = node.reopen().await;
    let again = node.send(vec![frame(GENERAL, &user, &[("b", "c:1"), ("c", "c:2")])]).await;
    assert_eq!(numbers(&again[0]), [1, 2]);
    assert_eq!(again[0].messages[0].id, first[0].messages[0].id);
    assert_eq!(again[0].epoch, first[0].epoch);
}

#[tokio::test]
async fn a_key_belongs_to_one_user_and_one_room() {
    let node = node().await;
    let (ann, bob) = (node.user().await, node.user().await);
    let room = node.create_room("other", &ann, "g:1").await.room_id;
    let results = node
        .send(vec![
            frame(GENERAL, &ann, &[("a", "c:1")]),
            frame(GENERAL, &bob, &[("b", "c:1")]),
            frame(&room, &ann, &[("c", "c:1")]),
        ])
        .await;
    assert_eq!([numbers(&results[0]), numbers(&results[1]), numbers(&results[2])], [[1], [2], [1]]);
}

#[tokio::test]
async fn a_bad_frame_is_refused_whole_and_alone() {
    let node = node().await;
    let user = node.user().await;
    let stranger = ClientFrame { user_id: "nobody".into(), ..frame(GENERAL, &user, &[("x", "c:8")]) };
    let too_long = "x".repeat(4097);
    let results = node
        .send(vec![
            frame(GENERAL, &user, &[("a", "c:1")]),
            frame(GENERAL, &user, &[("good", "c:2"), (&too_long, "c:3")]),
            frame("room-404", &user, &[("x", "c:4")]),
            frame("global", &user, &[("x", "c:5")]),
            stranger,
            frame(GENERAL, &user, &[("", "c:6")]),
            frame(GENERAL, &user, &[("b", "c:7")]),
        ])
        .await;
    assert_eq!(numbers(&results[0]), [1]);
    assert_eq!(code(&results[1]), "BAD_INPUT");
    assert!(results[1].refusal.as_ref().unwrap().message.contains("messages[1].content"));
    assert_eq!(code(&results[2]), "UNKNOWN_ROOM");
    assert_eq!(code(&results[3]), "UNKNOWN_ROOM");
    assert_eq!(code(&results[4]), "UNKNOWN_USER");
    assert_eq!(code(&results[5]), "BAD_INPUT");
    assert_eq!(numbers(&results[6]), [2]);
    // Nothing of the refused frames was stored, not even the good message.
    let page = node.newest(GENERAL, &user, 10).await;
    assert_eq!(seqs(&page["messages"]), [1, 2]);
}

#[tokio::test]
async fn nobody_sends_to_a_private_room() {
    let node = node_with(|config| {
        config.rooms.create_kind = corecast_logic::config::CreateKind::Private;
    })
    .await;
    let user = node.user().await;
    let room = node.create_room("secret", &user, "g:1").await;
    assert_eq!(room.global, None, "never on the line of room creations");
    let results = node.send(vec![frame(&room.room_id, &user, &[("x", "c:1")])]).await;
    assert_eq!(code(&results[0]), "UNKNOWN_ROOM");
}

#[tokio::test]
async fn concurrent_sends_to_a_room_are_gapless_and_keep_each_sender_s_order() {
    let node = node().await;
    let (senders, rounds) = (16, 25);
    let users = futures::future::join_all((0..senders).map(|_| node.user())).await;
    let sends = users.iter().map(|user| {
        let node = &node;
        async move {
            let mut numbers_seen = Vec::new();
            for round in 0..rounds {
                let keys = [format!("c:{round}a"), format!("c:{round}b")];
                let messages = [("first", keys[0].as_str()), ("second", keys[1].as_str())];
                let results = node.send(vec![frame(GENERAL, user, &messages)]).await;
                numbers_seen.extend(numbers(&results[0]));
            }
            numbers_seen
        }
    });
    let by_sender = futures::future::join_all(sends).await;
    for numbers in &by_sender {
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
        assert!(numbers.chunks(2).all(|pair| pair[0] + 1 == pair[1]), "a frame was split: {numbers:?}");
    }
    let all: HashSet<u64> = by_sender.iter().flatten().copied().collect();
    let expected = (senders * rounds * 2) as u64;
    assert_eq!(all, (1..=expected).collect::<HashSet<u64>>());
    // Under load commits are shared.
    let commits = node.metric("corecast_logic_commit_seconds_count");
    assert!(commits < f64::from(senders * rounds), "{commits} commits");
    assert_eq!(node.metric("corecast_logic_lane_frames"), 0.0);
}

#[tokio::test]
async fn any_unicode_comes_back_as_it_was_sent() {
    let node = node().await;
    let user = node.user_named("Zoë \u{1F642}", "z@x").await;
    let contents = [
        "\0",
        "\"quoted\" \\ back",
        "line\r\nline\n\u{85}\u{2028}",
        "🙂👩‍👩‍👧‍👦",
        "e\u{301} is not é",
        "\u{feff}\u{fffd}\u{10ffff}",
        "'; DROP TABLE messages; --",
        " ",
    ];
    let keys: Vec<String> = (0..contents.len()).map(|n| format!("c:\0\"{n}")).collect();
    let messages: Vec<(&str, &str)> =
        contents.iter().zip(&keys).map(|(content, key)| (*content, key.as_str())).collect();
    let results = node.send(vec![frame(GENERAL, &user, &messages)]).await;
    assert_eq!(numbers(&results[0]).len(), contents.len());
    let node = node.reopen().await;
    // From the store, and then from the cache.
    for _ in 0..2 {
        let page = node.newest(GENERAL, &user, 50).await;
        let read: Vec<&str> =
            page["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect();
        assert_eq!(read, contents);
        assert_eq!(page["messages"][0]["user"]["username"], "Zoë \u{1F642}");
    }
}

#[tokio::test]
async fn ids_are_times_and_numbers_that_never_run_backwards() {
    let node = node().await;
    let user = node.user().await;
    let ids = node.fill(GENERAL, &user, 130).await;
    let mut last = (0, 0);
    for id in ids {
        let (ms, seq) = id.split_once('-').unwrap();
        let (ms, seq): (i64, u64) = (ms.parse().unwrap(), seq.parse().unwrap());
        assert!(ms >= last.0 && seq == last.1 + 1, "{id}");
        last = (ms, seq);
    }
}

#[tokio::test]
async fn a_request_holds_at_most_1024_frames() {
    let node = node().await;
    let user = node.user().await;
    let frames = |count: usize| -> Vec<ClientFrame> {
        (0..count).map(|n| frame(GENERAL, &user, &[("x", format!("c:{n}"))])).collect()
    };
    let results = node.send(frames(1024)).await;
    assert_eq!(results.len(), 1024);
    assert_eq!(numbers(&results[1023]), [1024]);
    let refused = node.grpc.clone().send(SendRequest { frames: frames(1025) }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(node.send(Vec::new()).await.is_empty());
}

#[tokio::test]
async fn committed_frames_are_published_as_they_were_encoded() {
    use corecast_backends::bus::{Bus, BusEvent, Subscription};
    let node = node().await;
    let user = node.user().await;
    let mut subscription = node.backends.bus.subscribe().await;
    subscription.watch(&[GENERAL.into()]).await;
    let results = node.send(vec![frame(GENERAL, &user, &[("a", "c:1"), ("b", "c:2")])]).await;
    // A repeat writes nothing, so there is nothing to publish.
    node.send(vec![frame(GENERAL, &user, &[("a", "c:1")])]).await;
    node.send(vec![frame(GENERAL, &user, &[("a", "c:1"), ("c", "c:3")])]).await;
    let mut published = Vec::new();
    while published.len() < 2 {
        let next = tokio::time::timeout(support::DEADLINE, subscription.next()).await.unwrap();
        let Some(BusEvent::Frame(frame)) = next else { panic!("{next:?}") };
        let json: serde_json::Value = serde_json::from_slice(&frame.frame).unwrap();
        assert_eq!(json["type"], "serverMessages");
        assert_eq!(json["payload"]["roomId"], GENERAL);
        assert_eq!((frame.op, frame.epoch), (corecast_proto::op::ROOM_MESSAGE, results[0].epoch));
        published.push((frame.first_seq, frame.count, seqs(&json["payload"]["messages"])));
    }
    assert_eq!(published, [(1, 2, vec![1, 2]), (3, 1, vec![3])]);
}
