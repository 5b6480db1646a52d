//! One server: a connection that is kept by a task, and a breaker around it.
//!
//! ```text
//! connecting ──attempt ends──▶ up | down        down ──attempt succeeds──▶ up
//! up ──connection broke──▶ connecting           up ──no answer in time──▶ down ──probe ends──▶ up
//! ```
//!
//! Calls wait only while *connecting*, never longer than a call may take, and fail at once
//! while *down*; the task alone tries again, every 50 ms at first and every second later. So
//! a dead server costs each caller at most one time-out, once. An idle connection is probed
//! every second. One log line per change of state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Answer, CallError, RedisSettings, RedisTimeouts, connection_config};

const PROBE_EVERY: Duration = Duration::from_secs(1);
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A kept connection to one server. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    _end: Arc<DropGuard>,
}

struct Shared {
    address: String,
    timeouts: RedisTimeouts,
    /// A call failed: look at the connection now.
    broken: Notify,
    /// A call took too long: the server may be dead, or only slow.
    suspect: AtomicBool,
    /// Something was answered since the last probe.
    answered: AtomicBool,
}

#[derive(Clone)]
enum State {
    Connecting,
    Up(Up),
    Down,
}

#[derive(Clone)]
struct Up {
    connection: MultiplexedConnection,
    run_id: Arc<str>,
}

/// What went wrong inside a call, with the library's error where there is one.
#[derive(Debug)]
pub(super) enum LinkError {
    Down(String),
    Unanswered(String, String),
    Refused(RedisError),
}

impl From<LinkError> for CallError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Down(address) => Self::Down(address),
            LinkError::Unanswered(address, why) => Self::Unanswered(address, why),
            LinkError::Refused(error) => Self::Refused(refusal(&error)),
        }
    }
}

fn refusal(error: &RedisError) -> String {
    format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or(error.category()))
}

impl Link {
    pub(super) fn open(settings: &RedisSettings, address: String) -> Self {
        let shared = Arc::new(Shared {
            address,
            timeouts: settings.timeouts,
            broken: Notify::new(),
            suspect: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        });
        let (sender, state) = watch::channel(State::Connecting);
        let end = CancellationToken::new();
        let keeper = keep(Arc::clone(&shared), settings.clone(), sender);
        tokio::spawn(end.clone().run_until_cancelled_owned(keeper));
        Self { shared, state, _end: Arc::new(end.drop_guard()) }
    }

    pub(super) fn address(&self) -> &str {
        &self.shared.address
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    pub(super) async fn run_id(&self) -> Option<Arc<str>> {
        self.up().await.ok().map(|up| up.run_id)
    }

    /// Sends one command.
    pub(super) async fn call(&self, command: &Cmd) -> Result<Answer, LinkError> {
        self.within(async |mut connection| command.query_async::<Value>(&mut connection).await).await
    }

    /// Sends one command that the slot's new owner takes although the slot is still moving.
    pub(super) async fn call_asking(&self, command: &Cmd) -> Result<Answer, LinkError> {
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(command.clone());
        self.within(async |mut connection| {
            let (value,) = both.query_async::<(Value,)>(&mut connection).await?;
            Ok(value)
        })
        .await
    }

    async fn within(
        &self,
        send: impl AsyncFnOnce(MultiplexedConnection) -> Result<Value, RedisError>,
    ) -> Result<Answer, LinkError> {
        let Up { connection, run_id } = self.up().await?;
        match timeout(self.shared.timeouts.call, send(connection)).await {
            Ok(Ok(value)) => {
                self.shared.answered.store(true, Ordering::Relaxed);
                Ok(Answer { value, run_id })
            }
            Ok(Err(error)) if error.is_unrecoverable_error() => {
                self.shared.broken.notify_one();
                Err(LinkError::Unanswered(self.shared.address.clone(), error.to_string()))
            }
            Ok(Err(error)) => Err(LinkError::Refused(error)),
            Err(_) => {
                // The task tells a dead server from a slow moment by a probe of its own.
                self.shared.suspect.store(true, Ordering::Relaxed);
                self.shared.broken.notify_one();
                let why = format!("{:?} are over", self.shared.timeouts.call);
                Err(LinkError::Unanswered(self.shared.address.clone(), why))
            }
        }
    }

    async fn up(&self) -> Result<Up, LinkError> {
        let known = |state: &State| match state {
            State::Up(up) => Some(Ok(up.clone())),
            State::Down => Some(Err(LinkError::Down(self.shared.address.clone()))),
            State::Connecting => None,
        };
        if let Some(known) = known(&self.state.borrow()) {
            return known;
        }
        let mut state = self.state.clone();
        let changed = state.wait_for(|state| !matches!(state, State::Connecting));
        match timeout(self.shared.timeouts.call, changed).await {
            Ok(Ok(state)) => known(&state).expect("no longer connecting"),
            _ => Err(LinkError::Down(self.shared.address.clone())),
        }
    }
}

/// Connects, watches the connection, connects again; until it is dropped.
async fn keep(shared: Arc<Shared>, settings: RedisSettings, state: watch::Sender<State>) {
    let mut backoff = BACKOFF_MIN;
    let mut logged_down = false;
    loop {
        match open(&settings, &shared.address).await {
            Ok(up) => {
                if logged_down {
                    tracing::info!(address = %shared.address, "redis answers again");
                    logged_down = false;
                }
                shared.suspect.store(false, Ordering::Relaxed);
                state.send_replace(State::Up(up.clone()));
                let why = watch_over(&shared, &up, &state).await;
                // One that was cut may be back at once; one that is silent will not.
                let silent = shared.suspect.load(Ordering::Relaxed);
                state.send_replace(if silent { State::Down } else { State::Connecting });
                tracing::debug!(address = %shared.address, why, "redis connection lost");
                backoff = BACKOFF_MIN;
            }
            Err(error) => {
                state.send_replace(State::Down);
                if !logged_down {
                    tracing::warn!(address = %shared.address, %error, "redis does not answer");
                    logged_down = true;
                }
                backoff = pause(backoff).await;
            }
        }
    }
}

/// Waits about so long, 80–120 %, so that many do not come back at the same moment; answers
/// how long to wait next time.
pub(crate) async fn pause(backoff: Duration) -> Duration {
    let spread = rand::rng().random_range(0.8..=1.2);
    tokio::time::sleep(backoff.mul_f64(spread)).await;
    (backoff * 2).min(BACKOFF_MAX)
}

async fn open(settings: &RedisSettings, address: &str) -> Result<Up, String> {
    let config = connection_config(settings.timeouts);
    let mut connection = super::connect(settings, address, false, config).await?;
    let info = async { redis::cmd("INFO").arg("server").query_async::<String>(&mut connection).await };
    let info = match timeout(settings.timeouts.connect, info).await {
        Ok(result) => result.map_err(|error| error.to_string())?,
        Err(_) => return Err("no answer to INFO".to_owned()),
    };
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    let run_id = run_id.ok_or("INFO tells no run_id")?.trim().into();
    Ok(Up { connection, run_id })
}

/// Ends when the connection is of no use any more, with the reason. Calls fail at once while
/// it is probed because a call took too long.
async fn watch_over(shared: &Shared, up: &Up, state: &watch::Sender<State>) -> &'static str {
    let mut connection = up.connection.clone();
    loop {
        let idle = timeout(PROBE_EVERY, shared.broken.notified()).await.is_err();
        if idle && shared.answered.swap(false, Ordering::Relaxed) {
            continue;
        }
        if shared.suspect.load(Ordering::Relaxed) {
            state.send_replace(State::Down);
        }
        let ping = redis::cmd("PING");
        match timeout(shared.timeouts.call, ping.query_async::<Value>(&mut connection)).await {
            Ok(Err(error)) if error.is_unrecoverable_error() => return "it broke",
            Ok(_) => {
                if shared.suspect.swap(false, Ordering::Relaxed) {
                    state.send_replace(State::Up(up.clone()));
                }
            }
            Err(_) => {
                shared.suspect.store(true, Ordering::Relaxed);
                return "no answer in time";
            }
        }
    }
}
