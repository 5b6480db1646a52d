//! Calls to etcd: one connection at a time, the next address when it fails.
//!
//! The library spreads calls over all addresses, where one to a dead address may wait; here
//! an address that fails is left for the next one, and every call ends in time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, KeyValue};
use tokio::time::timeout;

use crate::registry::RegistryError;

/// A connection without traffic is asked whether it lives after this time, and has
/// [`PING_TIMEOUT`] to answer. A server ends a connection that asks oftener than every 5 s.
const PING_PERIOD: Duration = Duration::from_secs(7);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// No call gets less or more time than this.
const DEADLINE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3);

/// The addresses, and the connection to the one whose turn it is.
pub(super) struct Endpoints {
    urls: Vec<String>,
    login: Option<Login>,
    deadline: Duration,
    current: Mutex<Current>,
}

/// A user of etcd.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

#[derive(Default)]
struct Current {
    /// Counts the addresses that were tried; says whose failure a failure is.
    turn: usize,
    client: Option<Client>,
}

/// A connection and the turn it belongs to.
pub(super) struct Connection {
    turn: usize,
    pub(super) client: Client,
}

/// What one address did instead of answering.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Etcd(#[from] Error),
    #[error("no answer in {0:?}")]
    Late(Duration),
    #[error("{0}")]
    Broken(&'static str),
}

impl Endpoints {
    /// `hosts` as `host:port`, at least one. `deadline` of a call; it is kept between 1 and 3 s.
    pub(super) fn new(hosts: &[&str], login: Option<Login>, deadline: Duration) -> Self {
        let urls = hosts.iter().map(|host| format!("http://{host}")).collect();
        let deadline = deadline.clamp(*DEADLINE.start(), *DEADLINE.end());
        // Processes that start together do not all begin with the same address.
        let current = Current { turn: rand::random_range(0..hosts.len()), client: None };
        Self { urls, login, deadline, current: Mutex::new(current) }
    }

    /// Asks the address whose turn it is, and each other one if it fails. `ask` may reach
    /// etcd more than once.
    ///
    /// # Errors
    /// Every address failed; the last one's reason.
    pub(super) async fn call<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tried = 0;
        loop {
            let failure = match self.connection().await {
                Ok(connection) => match self.in_time(ask(connection.client.clone())).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => {
                        self.leave(&connection);
                        failure
                    }
                },
                Err(failure) => failure,
            };
            tried += 1;
            if tried >= self.urls.len() {
                return Err(RegistryError::Unavailable(failure.to_string()));
            }
        }
    }

    /// The value of one key, read from a majority.
    ///
    /// # Errors
    /// See [`call`](Self::call).
    pub(super) async fn read(&self, key: &str) -> Result<Option<KeyValue>, RegistryError> {
        self.call(|client| async move {
            let mut answer = client.kv_client().get(key, None).await?;
            Ok(answer.take_kvs().into_iter().next())
        })
        .await
    }

    /// The connection to the address whose turn it is; made here if there is none.
    ///
    /// # Errors
    /// A login that fails; the next address has its turn then.
    pub(super) async fn connection(&self) -> Result<Connection, Failure> {
        let turn = {
            let current = self.current();
            if let Some(client) = &current.client {
                return Ok(Connection { turn: current.turn, client: client.clone() });
            }
            current.turn
        };
        // Connects with the first call; only a login asks etcd here.
        let url = &self.urls[turn % self.urls.len()];
        let connected = self.in_time(Client::connect([url.as_str()], Some(self.options()))).await;
        let mut current = self.current();
        let is_ours = current.turn == turn;
        match connected {
            Ok(client) => {
                if is_ours {
                    current.client = Some(client.clone());
                }
                Ok(Connection { turn, client })
            }
            Err(failure) => {
                if is_ours {
                    *current = Current { turn: turn.wrapping_add(1), client: None };
                }
                Err(failure)
            }
        }
    }

    /// The address of this connection failed: the next one has its turn, unless somebody else
    /// found that out before.
    pub(super) fn leave(&self, connection: &Connection) {
        let mut current = self.current();
        if current.turn == connection.turn {
            *current = Current { turn: current.turn.wrapping_add(1), client: None };
        }
    }

    /// The answer, or a failure when it is late.
    pub(super) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        match timeout(self.deadline, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::Late(self.deadline)),
        }
    }

    fn options(&self) -> ConnectOptions {
        let options = ConnectOptions::new()
            .with_connect_timeout(self.deadline)
            .with_keep_alive(PING_PERIOD, PING_TIMEOUT)
            // A member that lost the others says so instead of answering with what it had.
            .with_require_leader(true);
        match &self.login {
            Some(login) => {
                options.with_user(login.user.as_str(), login.password.as_str()).with_auto_token_refresh(true)
            }
            None => options,
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
