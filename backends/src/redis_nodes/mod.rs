//! Connections to Redis, one server or a cluster, for the hot set and the bus.
//!
//! | module | what |
//! |---|---|
//! | [`settings`] | URL → where, who, prefix, time-outs |
//! | [`link`] | one server: a pipelined connection that is kept, and fails fast while it is down |
//! | [`cluster`] | which server has which key; redirections |
//!
//! Why not the connection manager and the cluster client of the library: with them a call
//! waits for the reconnection, and a dead master holds up the calls of all slots while the
//! topology is read again. Here a call meets a link that is up, or fails at once.

mod cluster;
mod link;
mod settings;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Script, Value};
use tokio::time::timeout;

pub use settings::{RedisSettings, RedisTimeouts};

use cluster::Cluster;
use link::Link;
pub(crate) use link::{BACKOFF_MIN, pause};

/// Why a call has no answer. Nobody's fault who asks; the effect of a write may have happened
/// unless it is [`Down`](CallError::Down).
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No server to ask: nothing was sent.
    #[error("{0} is down")]
    Down(String),
    /// Nothing came back in time, or the connection broke.
    #[error("no answer from {0}: {1}")]
    Unanswered(String, String),
    /// The server answered with an error.
    #[error("refused: {0}")]
    Refused(String),
}

/// An answer, and which run of which server gave it: a server draws a new run id each time it
/// starts, so data it wrote in an earlier run may have been rolled back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) value: Value,
    pub(crate) run_id: std::sync::Arc<str>,
}

/// One server or a cluster. Clones share the connections, which end with the last of them.
#[derive(Clone)]
pub(crate) enum Nodes {
    One(Link),
    Cluster(Cluster),
}

impl Nodes {
    /// Starts to connect; must be called inside a tokio runtime. Calls made before the first
    /// attempt has ended wait for it.
    pub(crate) fn open(settings: &RedisSettings) -> Self {
        match settings.cluster {
            true => Self::Cluster(Cluster::open(settings)),
            false => Self::One(Link::open(settings, settings.addresses[0].clone())),
        }
    }

    /// Sends a command whose keys all lie in the slot of `key`.
    ///
    /// # Errors
    /// See [`CallError`].
    ///
    /// # Cancel safety
    /// The command may have been sent.
    pub(crate) async fn call(&self, key: &str, command: &Cmd) -> Result<Answer, CallError> {
        let result = match self {
            Self::One(link) => link.call(command).await,
            Self::Cluster(cluster) => cluster.call(key, command).await,
        };
        result.map_err(CallError::from)
    }

    /// Runs a script, by its hash where the server knows it. `arguments` adds what follows the
    /// number of keys: the keys, then the arguments.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn run(
        &self,
        key: &str,
        script: &LuaScript,
        arguments: impl Fn(&mut Cmd),
    ) -> Result<Answer, CallError> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&script.hash);
        arguments(&mut command);
        match self.call(key, &command).await {
            Err(CallError::Refused(text)) if text.starts_with(NO_SCRIPT) => {
                let mut command = redis::cmd("EVAL");
                command.arg(script.code);
                arguments(&mut command);
                self.call(key, &command).await
            }
            answer => answer,
        }
    }

    /// The run of the server that has this key, if it can be asked.
    pub(crate) async fn run_id(&self, key: &str) -> Option<std::sync::Arc<str>> {
        match self {
            Self::One(link) => link.run_id().await,
            Self::Cluster(cluster) => cluster.run_id(key).await,
        }
    }
}

/// Commands that wait for a connection's task; more wait in their callers, within their
/// time-out.
const COMMANDS: usize = 1024;
/// How the text of a refusal for an unknown script begins.
const NO_SCRIPT: &str = "NOSCRIPT";

/// A script and its hash.
pub(crate) struct LuaScript {
    code: &'static str,
    hash: String,
}

impl LuaScript {
    pub(crate) fn new(code: &'static str) -> Self {
        Self { code, hash: Script::new(code).get_hash().to_owned() }
    }
}

/// How the library connects within these times. Calls have their own time-out.
pub(crate) fn connection_config(timeouts: RedisTimeouts) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeouts.connect))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(COMMANDS)
}

/// Connects to one server and greets it. `resp3`: with push messages.
///
/// # Errors
/// A sentence for the log.
pub(crate) async fn connect(
    settings: &RedisSettings,
    address: &str,
    resp3: bool,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, String> {
    let client =
        Client::open(settings.connection_info(address, resp3)?).map_err(|error| error.to_string())?;
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    match timeout(settings.timeouts.connect, connecting).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no connection in {:?}", settings.timeouts.connect)),
    }
}
