//! The configuration of the whole system: one file for every tier.
//!
//! | module | what |
//! |---|---|
//! | [`layers`] | file < environment < `--set`; a wrong key names the nearest right one |
//! | [`apart`] | what must not live inside a process when tiers run apart |
//! | `default.toml` | what `corecast default-config` prints; a test holds it to the code |

pub mod apart;
pub mod layers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use corecast_backends::log::Settings as LogSettings;
use corecast_backends::store::StoreOptions;
use corecast_backends::url::{LEASE_TTL, Urls};
use corecast_logic::config::CreateKind;
use serde::{Deserialize, Serialize};

/// Every key, with its default, unit and range as comments.
pub const DEFAULT_TOML: &str = include_str!("config/default.toml");

/// More would only take turns.
const THREADS_MAX: usize = 256;

/// The whole configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of everything that is kept: the embedded store, node ids. Relative paths of
    /// other keys lie in it. Made when it is absent. Default `data`.
    pub data_dir: PathBuf,
    /// Threads of everything but the connections, 0–256; 0, the default: as many as cores.
    pub threads: usize,
    /// What this process writes to stderr.
    pub telemetry: Telemetry,
    /// The WebSocket tier.
    pub gateway: corecast_gateway::config::Config,
    /// Accounts, rooms, messages.
    pub logic: corecast_logic::config::Config,
    /// Log to gateways.
    pub job: corecast_job::Config,
    /// Rooms that exist from the start, and what a created one is.
    pub rooms: corecast_logic::config::Rooms,
    /// The truth. Default `sqlite:corecast.db`.
    pub store: Store,
    /// Caches and routes. Default `memory:`.
    pub hotset: Backend,
    /// The complete path. Default `embedded:`.
    pub log: Log,
    /// The fast path. Default `memory:`.
    pub bus: Backend,
    /// Who is there. Default `static:`.
    pub registry: Registry,
    /// Off in production.
    pub debug: Debug,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// `scheme:…`.
    #[serde(default)]
    pub url: String,
    /// A file that holds the URL, so that a password need not stand in the configuration.
    /// Where it is set it wins over `url`.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
}

/// Where the store is, and how a server is used. A file needs no more than its URL.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// As [`Backend::url`].
    pub url: String,
    /// As [`Backend::url_file`].
    pub url_file: Option<PathBuf>,
    /// A server that follows the primary: pages of history are read there as far as it has
    /// followed. Absent: the primary alone.
    pub replica_url: Option<String>,
    /// As [`Backend::url_file`], for `replica_url`.
    pub replica_url_file: Option<PathBuf>,
    /// Connections at most, to each server; 2–1,000, default 16. Higher: more of the server's
    /// memory. Lower: calls wait. Keep the sum over all nodes below its `max_connections`.
    pub pool_max: u32,
    /// Milliseconds that a call waits for a free connection before it is refused for now,
    /// 10–30,000, default 3,000.
    pub pool_wait_ms: u64,
}

impl Default for Store {
    fn default() -> Self {
        let StoreOptions { replica_url, pool_max, pool_wait } = StoreOptions::default();
        Self {
            url: Urls::default().store,
            url_file: None,
            replica_url,
            replica_url_file: None,
            pool_max,
            pool_wait_ms: pool_wait.as_secs() * 1_000,
        }
    }
}

impl Store {
    fn validate(&self) -> Result<(), ConfigError> {
        if !(2..=1_000).contains(&self.pool_max) {
            let reason = "must be 2 to 1000";
            return Err(ConfigError::Value(format!("store.pool_max = {}: {reason}", self.pool_max)));
        }
        if !(10..=30_000).contains(&self.pool_wait_ms) {
            let reason = "must be 10 to 30000";
            return Err(ConfigError::Value(format!("store.pool_wait_ms = {}: {reason}", self.pool_wait_ms)));
        }
        Ok(())
    }

    fn options(&self, data_dir: &Path) -> Result<StoreOptions, ConfigError> {
        let replica_url = match (&self.replica_url, &self.replica_url_file) {
            (None, None) => None,
            (url, file) => {
                let url = url.clone().unwrap_or_default();
                Some(Backend { url, url_file: file.clone() }.resolve(data_dir)?)
            }
        };
        let pool_wait = Duration::from_millis(self.pool_wait_ms);
        Ok(StoreOptions { replica_url, pool_max: self.pool_max, pool_wait })
    }
}

/// [`Log::linger_ms`] beside a fast path: half the requests of a busy broker.
const LINGER_MS: u32 = 50;

/// Where the log is, and what it is called there. The embedded log has no names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// As [`Backend::url`].
    pub url: String,
    /// As [`Backend::url_file`].
    pub url_file: Option<PathBuf>,
    /// Topic of the records. Default `my-topic`.
    pub topic: String,
    /// Consumer group of the jobs. Default `job-service-group`.
    pub group: String,
    /// Partitions of a topic that has to be made, 4–1,000, default 8: at most as many
    /// consumers share the work. More cost open files at the brokers.
    pub partitions: u32,
    /// Milliseconds that a record waits for others of its partition, 0–1,000: one request at
    /// the broker for all of them. Absent: 50 beside a fast path, whose deliveries do not
    /// wait for it, and 25 where the log alone delivers.
    pub linger_ms: Option<u32>,
    /// Topic of the records that nobody can read. Absent: the topic's name and
    /// `.dead-letter`.
    pub dead_letter_topic: Option<String>,
}

impl Default for Log {
    fn default() -> Self {
        let LogSettings { topic, group, partitions, dead_letter_topic, .. } = LogSettings::default();
        let url = Urls::default().log;
        Self { url, url_file: None, topic, group, partitions, linger_ms: None, dead_letter_topic }
    }
}

impl Log {
    fn settings(&self, has_fast_path: bool) -> LogSettings {
        let linger_ms = if has_fast_path { LINGER_MS } else { LogSettings::default().linger_ms };
        LogSettings {
            topic: self.topic.clone(),
            group: self.group.clone(),
            partitions: self.partitions,
            linger_ms: self.linger_ms.unwrap_or(linger_ms),
            dead_letter_topic: self.dead_letter_topic.clone(),
        }
    }
}

/// Where the registry is, and how long it keeps who vanished.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// As [`Backend::url`].
    pub url: String,
    /// As [`Backend::url_file`].
    pub url_file: Option<PathBuf>,
    /// Milliseconds, whole seconds, after which etcd drops a node that does not renew its
    /// lease; 2,000–60,000, default 5,000. Higher: a dead node is asked for longer. Lower: a
    /// slow machine is taken for dead. Lists have no leases.
    pub lease_ttl_ms: u64,
}

impl Default for Registry {
    fn default() -> Self {
        let lease_ttl_ms = LEASE_TTL.as_secs() * 1_000;
        Self { url: Urls::default().registry, url_file: None, lease_ttl_ms }
    }
}

/// What this process writes to stderr.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives as `info,corecast_job=debug`.
    /// Default `info`.
    pub level: String,
    /// Lines for people or for machines. Default `pretty`.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Off in production.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Debug {
    /// Serve `/debug/echo`, for conformance suites. Default false.
    pub echo: bool,
    /// One send for each room and member instead of one for each member, to measure what the
    /// latter saves. Default false.
    pub send_per_room: bool,
}

impl Default for Config {
    fn default() -> Self {
        let urls = Urls::default();
        let backend = |url| Backend { url, url_file: None };
        Self {
            data_dir: "data".into(),
            threads: 0,
            telemetry: Telemetry::default(),
            gateway: Default::default(),
            logic: Default::default(),
            job: Default::default(),
            rooms: Default::default(),
            store: Store::default(),
            hotset: backend(urls.hotset),
            log: Log::default(),
            bus: backend(urls.bus),
            registry: Registry::default(),
            debug: Debug::default(),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Pretty }
    }
}

/// Why a configuration cannot be used. The operator's to mend; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read, or a folder that cannot be made.
    #[error("cannot use {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, or `--set` without `=`.
    #[error("{origin}: {reason}")]
    Syntax {
        /// Where it stands.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown key {key:?} in {origin}: did you mean {nearest:?}?")]
    UnknownKey {
        /// With its path.
        key: String,
        /// Where it stands.
        origin: String,
        /// The known key that looks most like it, with its path.
        nearest: String,
    },
    /// A value of the wrong type or out of its range; names key, value and what is allowed.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`ConfigError::Value`], the first one found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let logic = corecast_logic::Config { rooms: self.rooms.clone(), ..self.logic.clone() };
        self.gateway.validate().map_err(ConfigError::Value)?;
        logic.validate().map_err(ConfigError::Value)?;
        self.job.validate().map_err(ConfigError::Value)?;
        // The store keeps such rooms apart already, but has no list of their members.
        if self.rooms.create_kind == CreateKind::Private {
            let reason = "nobody could open such a room yet; use \"default\" or \"public\"";
            return Err(ConfigError::Value(format!("rooms.create_kind = \"private\": {reason}")));
        }
        self.store.validate()?;
        self.log.settings(true).validate().map_err(ConfigError::Value)?;
        let lease_ttl_ms = self.registry.lease_ttl_ms;
        if !(2_000..=60_000).contains(&lease_ttl_ms) || !lease_ttl_ms.is_multiple_of(1_000) {
            return Err(ConfigError::Value(format!(
                "registry.lease_ttl_ms = {lease_ttl_ms} is not allowed: it must be 2000 to 60000, in whole seconds"
            )));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::Value("data_dir = \"\": must name a folder".into()));
        }
        if self.threads > THREADS_MAX {
            return Err(ConfigError::Value(format!(
                "threads = {}: must be 0 to {THREADS_MAX}",
                self.threads
            )));
        }
        crate::telemetry::check_level(&self.telemetry.level).map_err(ConfigError::Value)
    }

    /// The backends' URLs as they were given or as their files hold them.
    ///
    /// # Errors
    /// [`ConfigError::Read`].
    pub fn urls(&self) -> Result<Urls, ConfigError> {
        let url = |backend: &Backend| backend.resolve(&self.data_dir);
        let bus = url(&self.bus)?;
        Ok(Urls {
            store: url(&Backend { url: self.store.url.clone(), url_file: self.store.url_file.clone() })?,
            store_options: self.store.options(&self.data_dir)?,
            hotset: url(&self.hotset)?,
            log: url(&Backend { url: self.log.url.clone(), url_file: self.log.url_file.clone() })?,
            log_settings: self.log.settings(bus != "none:"),
            bus,
            registry: url(&Backend {
                url: self.registry.url.clone(),
                url_file: self.registry.url_file.clone(),
            })?,
            lease_ttl: Duration::from_millis(self.registry.lease_ttl_ms),
        })
    }

    /// As TOML, without secrets: what is printed at start.
    pub fn effective(&self) -> String {
        let mut shown = self.clone();
        for url in [
            &mut shown.store.url,
            &mut shown.hotset.url,
            &mut shown.log.url,
            &mut shown.bus.url,
            &mut shown.registry.url,
        ] {
            *url = without_secrets(url);
        }
        shown.store.replica_url = shown.store.replica_url.as_deref().map(without_secrets);
        toml::to_string(&shown).expect("the configuration has a TOML form")
    }
}

impl Backend {
    fn resolve(&self, data_dir: &Path) -> Result<String, ConfigError> {
        let Some(file) = &self.url_file else { return Ok(self.url.clone()) };
        let path = data_dir.join(file);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }
}

/// `scheme://***@host?password=***`: whoever is named before the `@`, and query values whose
/// name speaks of a secret, are hidden.
pub fn without_secrets(url: &str) -> String {
    let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let mut shown =
        match place.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
            Some((scheme, host)) => format!("{scheme}://***@{host}"),
            None => place.to_owned(),
        };
    let secret = |name: &str| {
        let name = name.to_lowercase();
        ["password", "passwd", "secret", "token"].iter().any(|word| name.contains(word))
    };
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    for (index, pair) in pairs.enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if secret(name) => {
                shown.push_str(name);
                shown.push_str("=***");
            }
            _ => shown.push_str(pair),
        }
    }
    shown
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
