//! Many users who talk at once. Each is a task with a browser of its own; everything is told
//! to the delivery checker.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use corecast_checker::{Recorder, Verdict};
use serde_json::json;

use super::{Account, Browser, GENERAL, Seen, eventually, in_time};

/// Users in rooms that all of them are members of.
pub struct Chatter {
    /// What the checker knows.
    pub recorder: Recorder,
    /// Rooms, the first is the default one.
    pub rooms: Vec<String>,
    speakers: Vec<Speaker>,
}

/// One user with one browser.
pub struct Speaker {
    /// Who.
    pub account: Account,
    /// Through what.
    pub browser: Browser,
    /// Key of the next message.
    next: u64,
}

impl Chatter {
    /// Registers `users` and connects them, spread over `gateways`; creates rooms until
    /// there are `rooms`, and waits until everybody has seen them.
    pub async fn gather(gateways: &[SocketAddr], logic: SocketAddr, users: usize, rooms: usize) -> Self {
        let recorder = Recorder::new();
        let mut speakers = Vec::new();
        for index in 0..users {
            let gateway = gateways[index % gateways.len()];
            let account = Account::register(gateway, logic, &format!("user-{index}")).await;
            let knock = Browser::knock(gateway, &account.sid).v1().recorded(&recorder, &account.username);
            let mut browser = knock.open().await;
            browser.hello().await;
            speakers.push(Speaker { account, browser, next: 0 });
        }
        let mut chatter = Self { recorder, rooms: vec![GENERAL.to_owned()], speakers };
        while chatter.rooms.len() < rooms {
            let name = format!("room number {}", chatter.rooms.len());
            chatter.speakers[0].browser.send("clientCreateRoom", json!({ "roomName": name })).await;
            let mut created = String::new();
            for speaker in &mut chatter.speakers {
                let frame =
                    speaker.browser.frame_where("serverCreateRoom", |payload| payload["roomName"] == *name);
                created = frame.await["roomId"].as_str().expect("an id").to_owned();
            }
            chatter.rooms.push(created);
        }
        chatter
    }

    /// Everybody sends their share of `messages`, round the rooms, all at the same time, and
    /// waits for the acks.
    pub async fn talk(&mut self, messages: usize) {
        let share = messages / self.speakers.len();
        assert_eq!(share * self.speakers.len(), messages, "everybody sends as many");
        let rooms = &self.rooms;
        let talking = self.speakers.iter_mut().map(|speaker| speaker.talk(rooms, share));
        in_time("everything is acknowledged", futures::future::join_all(talking)).await;
    }

    /// Only these send, as many together; waits for the acks.
    pub async fn talk_by(&mut self, users: &[usize], messages: usize) {
        let share = messages / users.len();
        assert_eq!(share * users.len(), messages, "each of them sends as many");
        let rooms = &self.rooms;
        let chosen = self.speakers.iter_mut().enumerate().filter(|(index, _)| users.contains(index));
        let talking = chosen.map(|(_, speaker)| speaker.talk(rooms, share));
        in_time("everything is acknowledged", futures::future::join_all(talking)).await;
    }

    /// The user's gateway is gone: connects to this one and resumes.
    pub async fn move_to(&mut self, user: usize, gateway: SocketAddr) {
        let speaker = &mut self.speakers[user];
        let knock = Browser::knock(gateway, &speaker.account.sid).resume(speaker.browser.cursors());
        speaker.browser = knock.recorded(&self.recorder, &speaker.account.username).open().await;
        speaker.browser.hello().await;
    }

    /// Waits until everybody has reached the end of every room.
    pub async fn all_complete(&self) {
        let everybody: Vec<_> = (0..self.speakers.len()).collect();
        self.complete(&everybody).await;
    }

    /// The same for these, in this time.
    pub async fn complete_within(&self, users: &[usize], time: Duration) {
        let complete = tokio::time::timeout(time, self.complete(users)).await;
        assert!(complete.is_ok(), "not complete within {time:?}: {}", self.recorder.judge());
    }

    async fn complete(&self, users: &[usize]) {
        for room in &self.rooms {
            let head = self.recorder.head(room);
            for user in users {
                let name = &self.speakers[*user].account.username;
                let what = format!("{name} reaches {head} of {room}; {}", self.recorder.judge());
                eventually(&what, || async { self.recorder.has_reached(name, room, head) }).await;
            }
        }
    }

    /// What the checker says, printed.
    pub fn verdict(&self, what: &str) -> Verdict {
        let verdict = self.recorder.judge();
        println!("{what}: {verdict}");
        verdict
    }
}

impl Speaker {
    /// Sends `count` keyed messages round the rooms, at most [`UNACKED_MAX`] of them without
    /// an ack. A message that is refused for now is sent again with its key.
    pub async fn talk(&mut self, rooms: &[String], count: usize) {
        let mut waiting: VecDeque<(String, String, String)> = VecDeque::new();
        let mut sent = 0;
        while sent < count || !waiting.is_empty() {
            if sent < count && waiting.len() < UNACKED_MAX {
                let key = format!("key-{}", self.next);
                let content = format!("{} says {}", self.account.username, self.next);
                let room = rooms[self.next as usize % rooms.len()].clone();
                self.browser.say_keyed(&room, &key, &content).await;
                waiting.push_back((key, room, content));
                self.next += 1;
                sent += 1;
                continue;
            }
            self.settle(&mut waiting).await;
        }
    }

    /// Waits for an ack or an error frame.
    async fn settle(&mut self, waiting: &mut VecDeque<(String, String, String)>) {
        let seen = self.browser.next().await;
        let Seen::Text(text) = &seen else { panic!("{}: {seen:?}", self.account.username) };
        let frame: serde_json::Value = serde_json::from_str(text).expect("frames are JSON");
        match frame["type"].as_str() {
            Some("ack") => {
                for acked in frame["payload"]["messages"].as_array().expect("a list") {
                    waiting.retain(|(key, ..)| acked["clientMessageId"] != key.as_str());
                }
            }
            Some("error") => {
                let pause = frame["payload"]["retryAfterMs"].as_u64();
                let pause = pause.unwrap_or_else(|| panic!("refused for good: {text}"));
                tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                for (key, room, content) in &*waiting {
                    self.browser.say_keyed(room, key, content).await;
                }
            }
            _ => {}
        }
    }
}

/// Messages of one user that wait for their ack: enough to be combined, and fewer than a
/// connection may have in flight.
const UNACKED_MAX: usize = 8;
