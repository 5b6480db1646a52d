//! The write path: numbers, keys, texts, outbox rows.

use std::collections::HashMap;

use corecast_backends::store::*;
use corecast_proto::job::push_msg::Type;
use corecast_proto::limits::OUTBOX_FRAME_BYTES;
use corecast_proto::op;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{
    EPOCH, OWNER, all_messages, frame, on_every_store, push_of, rows_of, seeded, send, seqs, stored,
};

on_every_store!(
    numbers_run_without_gaps_in_frame_order,
    each_room_has_its_own_line,
    a_refused_frame_does_not_fail_its_neighbours,
    timestamps_never_run_backwards,
    the_head_and_the_update_time_follow_the_last_message,
    a_key_is_stored_once_within_a_frame,
    a_key_is_stored_once_within_a_batch,
    a_key_is_stored_once_for_ever,
    keys_of_other_users_and_rooms_do_not_meet,
    a_frame_of_repeats_writes_nothing,
    any_text_comes_back_as_it_was_sent,
    one_row_covers_the_frames_of_a_room_and_the_last_reports_it,
    a_row_carries_what_is_read_later,
    commits_at_the_same_time_make_one_line,
    random_batches_keep_numbers_keys_and_rows_together,
);

async fn numbers_run_without_gaps_in_frame_order<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let first = send(&store, frame("a", "u", &[("1", "x"), ("2", "y")])).await;
    let batch = vec![frame("a", "v", &[("3", "x")]), frame("a", "u", &[("4", "x"), ("5", "x")])];
    let outcomes = store.commit(batch).await.expect("commits");
    let mut all = first;
    all.extend(outcomes.iter().flat_map(stored));
    assert_eq!(all.iter().map(|m| m.id.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(all.iter().all(|m| !m.repeated));
    assert_eq!(seqs(&all_messages(&store, "a").await), [1, 2, 3, 4, 5]);
}

async fn each_room_has_its_own_line<S: Store>(store: S) {
    seeded(&store, &["a", "b"]).await;
    let batch =
        vec![frame("a", "u", &[("1", "x")]), frame("b", "u", &[("1", "x")]), frame("a", "u", &[("2", "x")])];
    let outcomes = store.commit(batch).await.expect("commits");
    let numbers: Vec<_> = outcomes.iter().map(|outcome| stored(outcome)[0].id.seq).collect();
    assert_eq!(numbers, [1, 1, 2]);
}

async fn a_refused_frame_does_not_fail_its_neighbours<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let batch = vec![
        frame("nowhere", "u", &[("1", "x")]),
        frame("a", "u", &[("1", "x")]),
        frame("nowhere", "u", &[("2", "x")]),
        frame("a", "u", &[("2", "x")]),
    ];
    let outcomes = store.commit(batch).await.expect("commits");
    let unknown: Vec<_> = outcomes.iter().map(|o| matches!(o, FrameOutcome::UnknownRoom)).collect();
    assert_eq!(unknown, [true, false, true, false]);
    assert_eq!(seqs(&all_messages(&store, "a").await), [1, 2]);
}

async fn timestamps_never_run_backwards<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    for n in 0..20 {
        send(&store, frame("a", "u", &[(&n.to_string(), "x")])).await;
    }
    let messages = all_messages(&store, "a").await;
    assert!(messages.is_sorted_by_key(|message| message.id.ms));
    assert!(messages[0].id.ms > 1_500_000_000_000, "milliseconds since 1970");
}

async fn the_head_and_the_update_time_follow_the_last_message<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let last = send(&store, frame("a", "u", &[("1", "x"), ("2", "y")])).await[1].id;
    let room = store.room("a").await.expect("reads").expect("exists");
    assert_eq!((room.head.epoch, room.head.seq, room.update_time), (EPOCH, 2, last.ms));
}

async fn a_key_is_stored_once_within_a_frame<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let all = send(&store, frame("a", "u", &[("k", "first"), ("j", "other"), ("k", "second")])).await;
    assert_eq!(all.iter().map(|m| m.repeated).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(all[2].id, all[0].id);
    let contents: Vec<_> = all_messages(&store, "a").await.into_iter().map(|m| m.content).collect();
    assert_eq!(contents, ["first", "other"]);
}

async fn a_key_is_stored_once_within_a_batch<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let batch = vec![frame("a", "u", &[("k", "x")]), frame("a", "u", &[("k", "x"), ("l", "y")])];
    let outcomes = store.commit(batch).await.expect("commits");
    let second = stored(&outcomes[1]);
    assert_eq!((second[0].id, second[0].repeated), (stored(&outcomes[0])[0].id, true));
    assert_eq!((second[1].id.seq, second[1].repeated), (2, false));
}

async fn a_key_is_stored_once_for_ever<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let first = send(&store, frame("a", "u", &[("k", "x")])).await[0].id;
    for n in 0..5 {
        send(&store, frame("a", "v", &[(&n.to_string(), "noise")])).await;
    }
    let again = send(&store, frame("a", "u", &[("k", "another content")])).await;
    assert_eq!(again, [StoredMessage { id: first, repeated: true }]);
    assert_eq!(all_messages(&store, "a").await[0].content, "x", "the first one wins");
}

async fn keys_of_other_users_and_rooms_do_not_meet<S: Store>(store: S) {
    seeded(&store, &["a", "b"]).await;
    for (room, user, key) in
        [("a", "u", "k"), ("a", "v", "k"), ("b", "u", "k"), ("a", "u", "K"), ("a", "u", "k ")]
    {
        let stored = send(&store, frame(room, user, &[(key, "x")])).await;
        assert!(!stored[0].repeated, "{room} {user} {key:?}");
    }
}

async fn a_frame_of_repeats_writes_nothing<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send(&store, frame("a", "u", &[("k", "x"), ("l", "y")])).await;
    let (room, rows) =
        (store.room("a").await.expect("reads"), store.outbox(OWNER, 0, 9).await.expect("reads"));
    let outcomes = store.commit(vec![frame("a", "u", &[("l", "y"), ("k", "x")])]).await.expect("commits");
    assert_eq!(
        stored(&outcomes[0]).iter().map(|m| (m.id.seq, m.repeated)).collect::<Vec<_>>(),
        [(2, true), (1, true)]
    );
    assert_eq!(rows_of(&outcomes[0]), []);
    assert_eq!(store.room("a").await.expect("reads"), room);
    assert_eq!(store.outbox(OWNER, 0, 9).await.expect("reads"), rows);
}

async fn any_text_comes_back_as_it_was_sent<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let texts = [
        "NUL \0 in the middle",
        "\0",
        "quotes ' \" ` ''; DROP TABLE messages; --",
        "line\r\nends\r\nand \u{2028} too",
        "emoji 👩‍👩‍👧‍👦 and 𝒜 beyond the basic plane",
        "accent e\u{301} stays two characters",
        "\u{fffd} \u{feff} \u{202e}",
        " spaces at both ends ",
        "%_\\ %s {} $1 ?1",
    ];
    for (n, text) in texts.iter().enumerate() {
        // The same text as content, key, user id and name: none of them may change.
        let mut sent = frame("a", &format!("{text}{n}"), &[(&format!("{text}{n}"), text)]);
        sent.username = (*text).to_owned();
        let first = send(&store, sent.clone()).await;
        let again = send(&store, sent).await;
        assert_eq!((again[0].id, again[0].repeated), (first[0].id, true), "{text:?} as a key");
    }
    for (n, (message, text)) in all_messages(&store, "a").await.iter().zip(texts).enumerate() {
        let expected = (format!("{text}{n}"), text.to_owned(), text.to_owned());
        let read = (message.user_id.clone(), message.username.clone(), message.content.clone());
        assert_eq!(read, expected);
    }
    for row in store.outbox(OWNER, 0, 100).await.expect("reads") {
        let message = &messages_of(&row)[0];
        let text = texts[usize::try_from(message["seq"].as_u64().expect("number")).expect("small") - 1];
        assert_eq!(message["content"], text);
    }
}

fn messages_of(row: &OutboxRow) -> Vec<serde_json::Value> {
    let frame: serde_json::Value = serde_json::from_slice(&push_of(row).msg).expect("a JSON frame");
    assert_eq!(frame["type"], "serverMessages");
    assert_eq!(frame["payload"]["roomId"], row.room_id.as_str());
    frame["payload"]["messages"].as_array().expect("a list").clone()
}

async fn one_row_covers_the_frames_of_a_room_and_the_last_reports_it<S: Store>(store: S) {
    seeded(&store, &["a", "b"]).await;
    let batch = vec![
        frame("a", "u", &[("1", "x"), ("2", "x")]),
        frame("b", "u", &[("1", "x")]),
        frame("a", "v", &[("3", "x")]),
    ];
    let outcomes = store.commit(batch).await.expect("commits");
    let reported: Vec<_> = outcomes.iter().map(|outcome| rows_of(outcome).len()).collect();
    assert_eq!(reported, [0, 1, 1]);
    let push = push_of(&rows_of(&outcomes[2])[0]);
    assert_eq!((push.r#type(), push.operation, &*push.room), (Type::Room, op::ROOM_MESSAGE, "a"));
    assert_eq!((push.epoch as u64, push.first_seq, push.count), (EPOCH, 1, 3));
    let mut reported: Vec<_> = outcomes.iter().flat_map(rows_of).cloned().collect();
    reported.sort_by_key(|row| row.id);
    assert_eq!(store.outbox(OWNER, 0, 9).await.expect("reads"), reported);
}

async fn a_row_carries_what_is_read_later<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send(&store, frame("a", "u", &[("1", "x"), ("2", "y")])).await;
    let row = &store.outbox(OWNER, 0, 9).await.expect("reads")[0];
    let read = all_messages(&store, "a").await;
    for (pushed, read) in messages_of(row).iter().zip(&read) {
        assert_eq!(pushed["id"], read.id.to_string());
        assert_eq!(pushed["seq"], read.id.seq);
        assert_eq!(pushed["timestamp"], read.id.ms);
        assert_eq!(pushed["content"], read.content);
        assert_eq!(pushed["user"]["id"], read.user_id);
        assert_eq!(pushed["user"]["username"], read.username);
    }
    assert_eq!(messages_of(row).len(), read.len());
}

async fn commits_at_the_same_time_make_one_line<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..25 {
                    send(&store, frame("a", "u", &[(&format!("{task}-{n}"), "x")])).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(seqs(&all_messages(&store, "a").await), (1..=200).collect::<Vec<_>>());
}

/// What a store must answer, kept by hand.
#[derive(Default)]
struct Model {
    heads: HashMap<String, u64>,
    keys: HashMap<(String, String, String), u64>,
}

async fn random_batches_keep_numbers_keys_and_rows_together<S: Store>(store: S) {
    let seed: u64 = match std::env::var("CORECAST_SEED") {
        Ok(seed) => seed.parse().expect("CORECAST_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    println!("replay with CORECAST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    seeded(&store, &["a", "b", "c"]).await;
    let mut model = Model::default();
    for _ in 0..60 {
        let frames: Vec<_> = (0..random.random_range(1..8)).map(|_| random_frame(&mut random)).collect();
        let outcomes = store.commit(frames.clone()).await.expect("commits");
        for (frame, outcome) in frames.iter().zip(&outcomes) {
            model.check(frame, outcome);
        }
    }
    let rows = store.outbox(OWNER, 0, u32::MAX).await.expect("reads");
    assert!(rows.is_sorted_by(|one, next| one.id < next.id));
    for room in ["a", "b", "c"] {
        let head = model.heads.get(room).copied().unwrap_or(0);
        assert_eq!(seqs(&all_messages(&store, room).await), (1..=head).collect::<Vec<_>>());
        let mut covered = 0;
        for row in rows.iter().filter(|row| row.room_id.as_str() == room) {
            let push = push_of(row);
            assert_eq!(push.first_seq as u64, covered + 1, "neither gap nor overlap");
            covered += push.count as u64;
            let numbers =
                messages_of(row).iter().map(|m| m["seq"].as_u64().expect("number")).collect::<Vec<_>>();
            assert_eq!(numbers, (push.first_seq as u64..=covered).collect::<Vec<_>>());
            // A frame of the generator can be larger than a row only alone.
            assert!(push.msg.len() <= OUTBOX_FRAME_BYTES || push.count <= 4, "{} bytes", push.msg.len());
        }
        assert_eq!(covered, head);
    }
}

/// Few rooms, users and keys, so that repeats are common; now and then large.
fn random_frame(random: &mut StdRng) -> CommitFrame {
    let room = ["a", "b", "c", "nowhere"][random.random_range(0..4)];
    let user = ["u", "v"][random.random_range(0..2)];
    let bytes = if random.random_bool(0.2) { 20_000 } else { 10 };
    let content = "x".repeat(bytes);
    let keys: Vec<_> =
        (0..random.random_range(1..=4)).map(|_| random.random_range(0..200).to_string()).collect();
    let messages: Vec<_> = keys.iter().map(|key| (key.as_str(), content.as_str())).collect();
    frame(room, user, &messages)
}

impl Model {
    fn check(&mut self, frame: &CommitFrame, outcome: &FrameOutcome) {
        if frame.room_id.as_str() == "nowhere" {
            assert!(matches!(outcome, FrameOutcome::UnknownRoom));
            return;
        }
        let room = frame.room_id.as_str().to_owned();
        assert_eq!(stored(outcome).len(), frame.messages.len());
        for (message, stored) in frame.messages.iter().zip(stored(outcome)) {
            let key = (room.clone(), frame.user_id.clone(), message.key.clone());
            let known = self.keys.get(&key).copied();
            assert_eq!(stored.repeated, known.is_some());
            let head = self.heads.entry(room.clone()).or_default();
            let seq = known.unwrap_or(*head + 1);
            *head = seq.max(*head);
            self.keys.insert(key, seq);
            assert_eq!(stored.id.seq, seq);
        }
    }
}
