//! Setup: frames written by hand. Claim: each kind of defect is found, and what is right is
//! not blamed. Why it matters: a judge that cannot fail proves nothing.

use corecast_checker::{Connection, Recorder, Verdict};
use serde_json::{Value, json};

fn message(seq: u64) -> Value {
    named(seq, &format!("text {seq}"))
}

fn named(seq: u64, content: &str) -> Value {
    json!({"id": format!("{}-{seq}", 1000 + seq), "content": content, "timestamp": 1000 + seq,
        "user": {"id": "u1", "username": "ann"}, "seq": seq})
}

fn room(numbers: impl IntoIterator<Item = u64>, last: u64) -> Value {
    let messages: Vec<Value> = numbers.into_iter().map(message).collect();
    json!({"id": "r", "name": "R", "creator_id": "", "hasMoreMessages": false,
        "messages": messages, "epoch": 1, "lastSeq": last, "kind": "default"})
}

fn hello(conn: &Connection, room: Value) {
    let me = json!({"id": "u1", "username": "ann"});
    conn.frame(&json!({"type": "hello", "payload": {"me": me, "rooms": [room]}}).to_string());
}

fn live(conn: &Connection, numbers: impl IntoIterator<Item = u64>) {
    let messages: Vec<Value> = numbers.into_iter().map(message).collect();
    show(conn, messages);
}

fn show(conn: &Connection, messages: Vec<Value>) {
    conn.frame(
        &json!({"type": "serverMessages", "payload": {"roomId": "r", "messages": messages}}).to_string(),
    );
}

fn ack(conn: &Connection, key: &str, seq: u64) {
    let entry = json!({"clientMessageId": key, "id": format!("{}-{seq}", 1000 + seq), "seq": seq,
        "timestamp": 1000 + seq});
    conn.frame(&json!({"type": "ack", "payload": {"roomId": "r", "messages": [entry]}}).to_string());
}

fn cut(conn: &Connection, numbers: impl IntoIterator<Item = u64>, last: u64) {
    let messages: Vec<Value> = numbers.into_iter().map(message).collect();
    conn.frame(
        &json!({"type": "cut", "payload": {"roomId": "r", "epoch": 2, "lastSeq": last,
            "hasMoreMessages": true, "messages": messages}})
        .to_string(),
    );
}

/// Two clients in a room that stands at 2.
fn two() -> (Recorder, Connection, Connection) {
    let recorder = Recorder::new();
    let (ann, bob) = (recorder.connected("ann"), recorder.connected("bob"));
    hello(&ann, room(1..=2, 2));
    hello(&bob, room(1..=2, 2));
    (recorder, ann, bob)
}

/// (lost, duplicated, reordered, gaps, conflicting).
fn counts(verdict: &Verdict) -> (u64, u64, u64, u64, u64) {
    (verdict.lost, verdict.duplicated, verdict.reordered, verdict.gaps, verdict.conflicting)
}

#[test]
fn a_run_without_defects_is_clean() {
    let (recorder, ann, bob) = two();
    for seq in 3..=5u64 {
        let key = format!("k{seq}");
        ann.offered("r", Some(&key), &format!("text {seq}"));
        ack(&ann, &key, seq);
    }
    live(&ann, 3..=5);
    live(&bob, 3..=3);
    live(&bob, 4..=5);
    let verdict = recorder.judge();
    verdict.expect_clean();
    assert_eq!((verdict.offered, verdict.acknowledged, verdict.delivered), (3, 3, 6));
    assert_eq!(
        verdict.to_string(),
        "offered 3 acknowledged 3 delivered 6 lost 0 duplicated 0 reordered 0 gaps 0 conflicting 0"
    );
}

#[test]
fn an_acknowledged_message_that_a_member_never_saw_is_lost() {
    let (recorder, ann, bob) = two();
    ann.offered("r", Some("k"), "text 3");
    ack(&ann, "k", 3);
    live(&ann, [3]);
    assert_eq!(counts(&recorder.judge()), (1, 0, 0, 0, 0));
    let verdict = recorder.judge();
    assert_eq!(verdict.lines.keys().next().map(|(client, _)| client.as_str()), Some("bob"));
    assert!(verdict.details[0].contains("bob") && verdict.details[0].contains('3'), "{:?}", verdict.details);
    live(&bob, [3]);
    recorder.judge().expect_clean();
}

#[test]
fn an_acknowledged_message_that_nobody_saw_is_lost() {
    let (recorder, ann, bob) = two();
    ann.offered("r", Some("k"), "text 3");
    ack(&ann, "k", 3);
    ann.closed();
    bob.closed();
    assert_eq!(counts(&recorder.judge()), (1, 0, 0, 0, 0));
    recorder.offered("carol", "r", None, "by http");
    recorder.acknowledged("r", "by http");
    assert_eq!(counts(&recorder.judge()), (2, 0, 0, 0, 0));
}

#[test]
fn an_offer_without_an_ack_may_be_lost() {
    let (recorder, ann, _bob) = two();
    ann.offered("r", Some("k"), "text 3");
    let verdict = recorder.judge();
    verdict.expect_clean();
    assert_eq!((verdict.offered, verdict.acknowledged), (1, 0));
}

#[test]
fn a_client_that_is_gone_is_owed_nothing_more() {
    let (recorder, ann, bob) = two();
    bob.closed();
    ann.offered("r", Some("k"), "text 3");
    ack(&ann, "k", 3);
    live(&ann, [3]);
    recorder.judge().expect_clean();
}

#[test]
fn a_number_that_comes_twice_is_duplicated() {
    let (recorder, ann, _bob) = two();
    live(&ann, [3]);
    live(&ann, [3, 4]);
    assert_eq!(counts(&recorder.judge()), (0, 1, 0, 0, 0));
}

#[test]
fn a_number_of_hello_that_comes_again_is_duplicated() {
    let (recorder, ann, _bob) = two();
    live(&ann, [2, 3]);
    assert_eq!(counts(&recorder.judge()), (0, 1, 0, 0, 0));
}

#[test]
fn an_offer_that_is_stored_twice_is_duplicated() {
    let (recorder, ann, bob) = two();
    ann.offered("r", Some("k"), "once");
    ack(&ann, "k", 3);
    for conn in [&ann, &bob] {
        show(conn, vec![named(3, "once"), named(4, "once")]);
    }
    assert_eq!(counts(&recorder.judge()), (0, 1, 0, 0, 0));
}

#[test]
fn a_number_after_a_later_one_is_reordered_and_no_gap() {
    let (recorder, ann, _bob) = two();
    live(&ann, [4]);
    live(&ann, [3]);
    assert_eq!(counts(&recorder.judge()), (0, 0, 1, 0, 0));
}

#[test]
fn messages_of_a_connection_numbered_against_their_order_are_reordered() {
    let (recorder, ann, bob) = two();
    ann.offered("r", Some("first"), "text 4");
    ann.offered("r", Some("second"), "text 3");
    ack(&ann, "first", 4);
    ack(&ann, "second", 3);
    live(&ann, 3..=4);
    live(&bob, 3..=4);
    assert_eq!(counts(&recorder.judge()), (0, 0, 1, 0, 0));
}

#[test]
fn a_message_sent_again_may_come_after_its_successor() {
    let (recorder, ann, bob) = two();
    ann.offered("r", Some("first"), "text 4");
    ann.offered("r", Some("second"), "text 3");
    ann.offered("r", Some("first"), "text 4");
    ack(&ann, "second", 3);
    ack(&ann, "first", 4);
    live(&ann, 3..=4);
    live(&bob, 3..=4);
    recorder.judge().expect_clean();
}

#[test]
fn missing_numbers_are_one_gap_per_run() {
    let (recorder, ann, _bob) = two();
    live(&ann, [5, 6, 9]);
    assert_eq!(counts(&recorder.judge()), (0, 0, 0, 2, 0));
    assert!(recorder.judge().details.iter().any(|line| line.contains("3 to 4 missing")));
}

#[test]
fn a_hello_that_does_not_reach_its_head_is_a_gap() {
    let recorder = Recorder::new();
    let ann = recorder.connected("ann");
    hello(&ann, room(1..=2, 3));
    assert_eq!(counts(&recorder.judge()), (0, 0, 0, 1, 0));
}

#[test]
fn a_hello_with_a_hole_inside_is_a_gap() {
    let recorder = Recorder::new();
    let ann = recorder.connected("ann");
    hello(&ann, room([1, 3], 3));
    assert_eq!(counts(&recorder.judge()), (0, 0, 0, 1, 0));
}

#[test]
fn an_empty_hello_of_a_room_with_messages_is_a_gap() {
    let recorder = Recorder::new();
    let ann = recorder.connected("ann");
    hello(&ann, room([], 3));
    assert_eq!(counts(&recorder.judge()), (0, 0, 0, 1, 0));
}

/// ann got up to 3, was away while 4 and 5 were acknowledged to bob, and comes back.
fn ann_was_away() -> (Recorder, Connection) {
    let (recorder, ann, bob) = two();
    live(&ann, [3]);
    live(&bob, [3]);
    ann.closed();
    for seq in 4..=5u64 {
        let key = format!("k{seq}");
        bob.offered("r", Some(&key), &format!("text {seq}"));
        ack(&bob, &key, seq);
    }
    live(&bob, 4..=5);
    let ann = recorder.connected("ann");
    ann.resumed([("r", 3)]);
    (recorder, ann)
}

#[test]
fn a_resume_with_exactly_what_was_missed_is_clean() {
    let (recorder, ann) = ann_was_away();
    hello(&ann, room(4..=5, 5));
    let verdict = recorder.judge();
    verdict.expect_clean();
    assert_eq!(verdict.delivered, 6);
}

#[test]
fn a_resume_that_leaves_something_out_is_found() {
    let (recorder, ann) = ann_was_away();
    hello(&ann, room([5], 5));
    assert_eq!(counts(&recorder.judge()), (1, 0, 0, 1, 0));
}

#[test]
fn a_resume_that_repeats_is_found() {
    let (recorder, ann) = ann_was_away();
    hello(&ann, room(3..=5, 5));
    assert_eq!(counts(&recorder.judge()), (0, 1, 0, 0, 0));
}

#[test]
fn a_resume_that_stops_short_is_found() {
    let (recorder, ann) = ann_was_away();
    hello(&ann, room([4], 5));
    assert_eq!(counts(&recorder.judge()), (1, 0, 0, 1, 0));
}

#[test]
fn a_cut_excuses_what_it_leaves_out_and_nothing_else() {
    let (recorder, ann, _bob) = two();
    live(&ann, [3]);
    cut(&ann, 8..=9, 9);
    live(&ann, [10]);
    recorder.judge().expect_clean();
    live(&ann, [12]);
    assert_eq!(counts(&recorder.judge()), (0, 0, 0, 1, 0));
}

#[test]
fn a_cut_that_does_not_reach_its_head_is_found() {
    let (recorder, ann, _bob) = two();
    cut(&ann, 8..=9, 10);
    assert_eq!(counts(&recorder.judge()).3, 1);
}

#[test]
fn two_answers_about_one_message_conflict() {
    let (recorder, ann, bob) = two();
    live(&ann, [3]);
    show(&bob, vec![named(3, "something else")]);
    assert_eq!(counts(&recorder.judge()).4, 1);
}

#[test]
fn a_key_acked_under_two_numbers_conflicts() {
    let (recorder, ann, bob) = two();
    ann.offered("r", Some("k"), "text 3");
    ack(&ann, "k", 3);
    ack(&ann, "k", 4);
    live(&ann, 3..=4);
    live(&bob, 3..=4);
    assert_eq!(counts(&recorder.judge()).4, 1);
}

#[test]
fn an_ack_of_a_number_that_shows_another_text_conflicts() {
    let (recorder, ann, bob) = two();
    ann.offered("r", Some("k"), "what I wrote");
    ack(&ann, "k", 3);
    live(&ann, [3]);
    live(&bob, [3]);
    assert_eq!(counts(&recorder.judge()).4, 1);
}

#[test]
fn a_frame_without_its_fields_is_not_passed_over() {
    let (recorder, ann, _bob) = two();
    ann.frame(r#"{"type":"serverMessages","payload":{"roomId":"r","messages":[{"id":"1-1"}]}}"#);
    assert_eq!(counts(&recorder.judge()).4, 1);
}

#[test]
fn a_created_default_room_is_owed_from_its_first_message() {
    let (recorder, ann, bob) = two();
    let created = json!({"type": "serverCreateRoom", "payload": {"roomId": "n", "roomName": "N",
        "creatorId": "u1", "creatorUsername": "ann", "kind": "default"}});
    ann.frame(&created.to_string());
    bob.frame(&created.to_string());
    ann.offered("n", Some("k"), "text 1");
    let entry = json!({"clientMessageId": "k", "id": "1001-1", "seq": 1, "timestamp": 1001});
    ann.frame(&json!({"type": "ack", "payload": {"roomId": "n", "messages": [entry]}}).to_string());
    ann.frame(
        &json!({"type": "serverMessages", "payload": {"roomId": "n", "messages": [message(1)]}}).to_string(),
    );
    assert_eq!(counts(&recorder.judge()), (1, 0, 0, 0, 0), "bob lacks it");
}

#[test]
fn history_pages_are_no_deliveries_but_must_agree() {
    let (recorder, ann, _bob) = two();
    let page = |messages: Vec<Value>| {
        json!({"type": "serverRoomHistory", "payload": {"roomId": "r", "name": "", "hasMoreMessages": false,
            "messages": messages, "epoch": 1}})
        .to_string()
    };
    ann.frame(&page(vec![message(1), message(2)]));
    recorder.judge().expect_clean();
    ann.frame(&page(vec![named(2, "not what was said")]));
    assert_eq!(counts(&recorder.judge()).4, 1);
}

#[test]
fn what_a_cut_leaves_out_is_uncaught_until_it_is_paged() {
    let (recorder, ann, bob) = two();
    live(&bob, 3..=9);
    cut(&ann, 8..=9, 9);
    let verdict = recorder.judge();
    assert_eq!((counts(&verdict), verdict.uncaught), ((0, 0, 0, 0, 0), 1));
    let page = |numbers: std::ops::RangeInclusive<u64>| {
        let messages: Vec<Value> = numbers.map(message).collect();
        json!({"type": "serverRoomHistory", "payload": {"roomId": "r", "name": "", "hasMoreMessages": false,
            "messages": messages, "epoch": 1}})
        .to_string()
    };
    ann.frame(&page(3..=5));
    assert_eq!(recorder.judge().uncaught, 1, "6 and 7 are missing");
    ann.frame(&page(6..=7));
    let verdict = recorder.judge();
    assert_eq!((counts(&verdict), verdict.uncaught), ((0, 0, 0, 0, 0), 0));
}

#[test]
fn a_public_room_that_is_only_listed_is_owed_to_nobody() {
    let recorder = Recorder::new();
    let (ann, bob) = (recorder.connected("ann"), recorder.connected("bob"));
    let mut listed = room([], 2);
    listed["kind"] = json!("public");
    hello(&ann, listed.clone());
    bob.resumed([("r", 2)]);
    hello(&bob, listed);
    bob.offered("r", Some("k"), "text 3");
    ack(&bob, "k", 3);
    live(&bob, 3..=3);
    recorder.judge().expect_clean();
}
