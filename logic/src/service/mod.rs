//! What logic does, one file per use case. Both faces (`grpc`, `http`) call these functions
//! and add nothing but their own spelling.
//!
//! | module | what |
//! |---|---|
//! | `register` `login` `logout` `verify` | accounts and sessions |
//! | `hello` `history` `range` `heads` `rooms` | reads |
//! | `send` `create_room` | writes that take a number |
//! | `routes` | who is connected where |
//! | `lane` | sends that wait together are committed together |
//! | `publish` | what follows a commit: fast path and cache |
//! | `password` `stretch` | argon2id off the async threads, bounded in number and memory |
//! | `known` | small bounded memories of what never changes |
//! | `reach` | one log line per change of state of a backend |

mod create_room;
mod heads;
mod hello;
mod history;
mod known;
mod lane;
mod login;
mod logout;
mod password;
mod publish;
mod range;
mod reach;
mod register;
mod rooms;
mod routes;
mod send;
mod stretch;
mod verify;

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corecast_backends::bus::Bus;
use corecast_backends::hotset::{CachedSession, HotSet, HotSetError, SessionEntry};
use corecast_backends::store::{RoomKind, SeedRoom, SessionHash, Store, StoreError, User};
use corecast_proto::logic::SessionReply;
use corecast_proto::refusal::Code;

use crate::config::{Config, Rooms};
use crate::domain::{account, message, session};
use crate::error::Failure;
use crate::metrics::Metrics;

use known::Known;
use lane::Lanes;
use password::Passwords;
use reach::Reach;

pub use send::Sent;

/// A read or a small write of the store; far above what a healthy one needs.
const STORE_DEADLINE: Duration = Duration::from_secs(5);
/// A call of the hot set: beyond this the store is the quicker way.
const HOTSET_DEADLINE: Duration = Duration::from_millis(500);
/// Users and rooms whose existence is remembered: ids of ~40 bytes, so some 20 MiB at most.
const KNOWN_MAX: usize = 65_536;

/// Lanes on a server, where none are configured: while one waits for the disk another works.
/// More of them make smaller batches.
const SERVER_LANES: usize = 4;

/// The functions of logic over a store, a hot set and a bus.
pub struct Service<S, H, B> {
    store: S,
    hotset: H,
    bus: B,
    /// Who relays the outbox rows of this node.
    owner: String,
    rooms: Rooms,
    metrics: Metrics,
    lanes: Lanes,
    passwords: Passwords,
    /// User id → name. Accounts are never deleted, so a positive answer stays true.
    users: Known<String, String>,
    /// Room id → kind. Rooms are never deleted and keep their kind.
    kinds: Known<String, RoomKind>,
    /// Sessions whose expiry was looked at by this node → when, ms since 1970 UTC.
    extended: Known<SessionHash, i64>,
    store_reach: Reach,
    hotset_reach: Reach,
}

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Starts the lanes. `owner` is who relays the outbox rows.
    ///
    /// Must be called inside a tokio runtime; the lanes end when the service is dropped.
    pub fn new(config: &Config, store: S, hotset: H, bus: B, owner: String, metrics: Metrics) -> Self {
        let passwords = Passwords::new(config.password_waiters_max as usize, metrics.clone());
        let lanes = match config.lanes {
            // One writer: a second lane would only halve the batches.
            0 if store.pool().is_none() => 1,
            0 => SERVER_LANES,
            lanes => lanes as usize,
        };
        let lanes = lane::spawn(
            lanes,
            lane::Limits::default(),
            store.clone(),
            hotset.clone(),
            bus.clone(),
            metrics.clone(),
        );
        Self {
            store,
            hotset,
            bus,
            owner,
            rooms: config.rooms.clone(),
            metrics,
            lanes,
            passwords,
            users: Known::new(KNOWN_MAX),
            kinds: Known::new(KNOWN_MAX),
            extended: Known::new(KNOWN_MAX),
            store_reach: Reach::new("store"),
            hotset_reach: Reach::new("hot set"),
        }
    }

    /// What this node counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The text that `/metrics` answers, with what the backends count themselves.
    pub(crate) fn metrics_text(&self) -> String {
        self.metrics.note_backends(self.hotset.counters(), self.bus.counters());
        self.metrics.note_pool(self.store.pool());
        self.metrics.text()
    }

    /// Creates the rooms of the configuration that do not exist.
    ///
    /// # Errors
    /// As the store says; safe to repeat.
    pub async fn seed_rooms(&self) -> Result<(), StoreError> {
        let now = now_ms();
        let seeds: Vec<SeedRoom> = self
            .rooms
            .defaults
            .iter()
            .map(|room| SeedRoom {
                id: room.id.clone(),
                name: room.name.clone(),
                epoch: now.unsigned_abs(),
                now_ms: now,
            })
            .collect();
        self.ask(self.store.seed_rooms(&seeds)).await
    }

    /// Deletes sessions that ended; answers how many. They are refused anyway: this only
    /// keeps the table small.
    ///
    /// # Errors
    /// As the store says; safe to repeat.
    pub async fn sweep_sessions(&self) -> Result<u64, StoreError> {
        self.ask(self.store.delete_expired_sessions(now_ms())).await
    }

    /// Can the store be asked now?
    ///
    /// # Errors
    /// As the store says.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.ask(self.store.heads(&[], false)).await.map(|_| ())
    }

    /// Asks the store, with a deadline, and notes whether it answers.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let result = within(STORE_DEADLINE, call).await;
        self.store_reach.note(result.as_ref().err());
        result
    }

    /// Asks the hot set, with a deadline; `None` when it does not answer, which is never an
    /// error: the store knows all it knows.
    async fn hot<T>(&self, call: impl Future<Output = Result<T, HotSetError>>) -> Option<T> {
        hot(&self.hotset_reach, &self.metrics, call).await
    }

    /// What the hot set knows of these sessions; `None` for those it does not answer.
    async fn hot_sessions(&self, hashes: &[SessionHash]) -> Vec<Option<SessionEntry>> {
        let note = |answer| hot_answer(&self.hotset_reach, &self.metrics, answer);
        match tokio::time::timeout(HOTSET_DEADLINE, self.hotset.sessions(hashes)).await {
            Ok(answers) => answers.into_iter().map(note).collect(),
            Err(_) => {
                note(Err(late()));
                vec![None; hashes.len()]
            }
        }
    }

    /// The name of a user who exists.
    ///
    /// # Errors
    /// `UNKNOWN_USER`, `BAD_INPUT`, or the store's.
    async fn username(&self, user_id: &str) -> Result<String, Failure> {
        message::check_user_id(user_id)?;
        if let Some(username) = self.users.find(user_id) {
            return Ok(username);
        }
        match self.ask(self.store.user(user_id)).await? {
            Some(user) => {
                self.users.remember(user.user_id, user.username.clone());
                Ok(user.username)
            }
            None => Err(Code::UnknownUser.with("no such user").into()),
        }
    }

    /// The name to write on what a user does: the one given, else the account's.
    pub(crate) async fn username_or(&self, user_id: &str, given: &str) -> Result<String, Failure> {
        let known = self.username(user_id).await?;
        if given.is_empty() {
            return Ok(known);
        }
        account::check_username(given)?;
        Ok(given.to_owned())
    }

    /// The kind of a room, read from the store unless it is known.
    async fn kind(&self, room_id: &str) -> Result<Option<RoomKind>, Failure> {
        if let Some(kind) = self.kinds.find(room_id) {
            return Ok(Some(kind));
        }
        let Some(room) = self.ask(self.store.room(room_id)).await? else {
            return Ok(None);
        };
        self.kinds.remember(room_id.to_owned(), room.kind);
        Ok(Some(room.kind))
    }

    /// Opens a session for a user whose password was right.
    async fn open_session(&self, user: User) -> Result<SessionReply, Failure> {
        let sid = uuid::Uuid::new_v4().to_string();
        let hash = session::hash(&sid);
        let expires_ms = session::expires_ms(now_ms());
        self.ask(self.store.put_session(hash, &user.user_id, expires_ms)).await?;
        self.users.remember(user.user_id.clone(), user.username.clone());
        let reply = SessionReply {
            refusal: None,
            sid,
            user_id: user.user_id.clone(),
            username: user.username.clone(),
        };
        let cached =
            CachedSession { user_id: user.user_id, username: user.username, email: user.email, expires_ms };
        let lifetime = Duration::from_secs(session::LIFETIME_SECONDS.unsigned_abs());
        self.hot(self.hotset.fill_session(&hash, cached, lifetime)).await;
        Ok(reply)
    }
}

/// Milliseconds since 1970 UTC.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A store call that takes too long may still happen: its outcome is unknown.
async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unknown(format!("no answer in {deadline:?}"))),
    }
}

async fn hot<T>(
    reach: &Reach,
    metrics: &Metrics,
    call: impl Future<Output = Result<T, HotSetError>>,
) -> Option<T> {
    let result = match tokio::time::timeout(HOTSET_DEADLINE, call).await {
        Ok(result) => result,
        Err(_) => Err(late()),
    };
    hot_answer(reach, metrics, result)
}

fn late() -> HotSetError {
    HotSetError(format!("no answer in {HOTSET_DEADLINE:?}"))
}

fn hot_answer<T>(reach: &Reach, metrics: &Metrics, result: Result<T, HotSetError>) -> Option<T> {
    reach.note(result.as_ref().err());
    if result.is_err() {
        metrics.hotset_failed_calls.inc();
    }
    result.ok()
}
