//! Backends by URL, chosen once at start.
//!
//! | seam | URL | |
//! |---|---|---|
//! | store | `sqlite:corecast.db` | a file; a relative path lies in the data folder |
//! | store | `mysql://user:pass@host:port/database[?init=SQL&begin=SQL]` | feature `mysql`; see `store/mysql/target.rs` |
//! | hotset | `memory:` | in process |
//! | hotset, bus | `redis://[user:pass@]host:port[/db][?prefix=…&timeout_ms=…]` | feature `redis`; defaults `corecast:` and 300 |
//! | hotset, bus | `redis-cluster://[user:pass@]host:port,host:port[?…]` | the same |
//! | log | `embedded:` | the store's outbox table |
//! | log | `kafka://host:port,host:port` | feature `kafka` |
//! | bus | `memory:` `none:` | in process; no fast path |
//! | registry | `static:gateway=ID@host:port,…;logic=ID@host:port,…` | a list, may be empty |
//! | registry | `etcd://[user:pass@]host:port,host:port[/prefix]` | feature `etcd` |

use std::path::Path;
use std::time::Duration;

#[cfg(feature = "redis")]
use crate::bus::redis::RedisBus;
use crate::bus::{AnyBus, memory::MemoryBus};
#[cfg(feature = "redis")]
use crate::hotset::redis::RedisHotSet;
use crate::hotset::{AnyHotSet, memory::MemoryHotSet};
use crate::log::embedded::EmbeddedLog;
#[cfg(feature = "kafka")]
use crate::log::kafka::KafkaLog;
use crate::log::{AnyConsumer, AnyProducer, Settings as LogSettings};
#[cfg(feature = "redis")]
use crate::redis_nodes::RedisSettings;
#[cfg(feature = "etcd")]
use crate::registry::etcd::EtcdRegistry;
use crate::registry::{AnyRegistry, fixed::FixedRegistry};
#[cfg(feature = "mysql")]
use crate::store::mysql::{self, MysqlStore};
use crate::store::server::{Inspection, Migration};
use crate::store::{AnyStore, StoreError, StoreOptions, sqlite::SqliteStore};

/// Where each backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    /// Accounts, sessions, rooms, messages, outbox.
    pub store: String,
    /// How it is used where it is a server's.
    pub store_options: StoreOptions,
    /// Caches and routes.
    pub hotset: String,
    /// The complete path.
    pub log: String,
    /// How it is called and cut where it is a server's.
    pub log_settings: LogSettings,
    /// The fast path.
    pub bus: String,
    /// Who is there.
    pub registry: String,
    /// How long the registry keeps a node that vanished: whole seconds, at least two. Lists
    /// have no leases.
    pub lease_ttl: Duration,
}

/// [`Urls::lease_ttl`] where nothing is said.
pub const LEASE_TTL: Duration = Duration::from_secs(5);

impl Default for Urls {
    /// Everything embedded: nothing to install.
    fn default() -> Self {
        Self {
            store: "sqlite:corecast.db".to_owned(),
            store_options: StoreOptions::default(),
            hotset: "memory:".to_owned(),
            log: "embedded:".to_owned(),
            log_settings: LogSettings::default(),
            bus: "memory:".to_owned(),
            registry: "static:".to_owned(),
            lease_ttl: LEASE_TTL,
        }
    }
}

/// Why a backend could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used: names the seam, the URL and what is allowed.
    #[error("{seam}.url = {url:?}: {reason}")]
    Url {
        /// `store`, `hotset`, `log`, `bus`, `registry`.
        seam: &'static str,
        /// As it was given, without a password.
        url: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All backends of a process.
#[derive(Clone)]
pub struct Backends {
    /// The truth.
    pub store: AnyStore,
    /// Caches and routes.
    pub hotset: AnyHotSet,
    /// The producing side of the log.
    pub producer: AnyProducer,
    /// The fast path.
    pub bus: AnyBus,
    /// Who is there.
    pub registry: AnyRegistry,
}

impl Urls {
    /// Reads all of them, their settings included, and opens nothing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn check(&self) -> Result<(), OpenError> {
        open_registry(&self.registry, self.lease_ttl)?;
        open_log(&self.log, &self.log_settings)?;
        check_redis(&BUS, &self.bus)?;
        check_redis(&HOTSET, &self.hotset)?;
        check_store(&self.store, &self.store_options)
    }

    /// Can one process use this log and this store?
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn check_together(&self) -> Result<(), OpenError> {
        if scheme(&self.log) == "embedded" && scheme(&self.store) == "mysql" {
            let reason = "only on a store in a file: rows of a server appear out of order, use kafka://…";
            return Err(LOG.error(&self.log, reason));
        }
        Ok(())
    }
}

impl Backends {
    /// Opens all of them. URLs are checked before anything is opened, so a wrong one leaves
    /// no file behind.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(urls: &Urls, data_dir: &Path) -> Result<Self, OpenError> {
        let registry = open_registry(&urls.registry, urls.lease_ttl)?;
        let bus = open_bus(&urls.bus)?;
        let hotset = open_hotset(&urls.hotset)?;
        let log = open_log(&urls.log, &urls.log_settings)?;
        urls.check_together()?;
        let store = open_store_with(&urls.store, &urls.store_options, data_dir).await?;
        let producer = log.unwrap_or_else(|| AnyProducer::Embedded(EmbeddedLog::new(store.clone())));
        Ok(Self { store, hotset, producer, bus, registry })
    }

    /// Another consumer of the log. The embedded log serves one at a time.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn consumer(&self) -> Result<AnyConsumer, OpenError> {
        Ok(self.producer.consumer())
    }

    /// Ends cleanly: see [`AnyStore::close`].
    pub async fn close(&self) {
        self.store.close().await;
    }
}

/// Opens the store; a relative path lies in `data_dir`.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_store(url: &str, data_dir: &Path) -> Result<AnyStore, OpenError> {
    open_store_with(url, &StoreOptions::default(), data_dir).await
}

/// Opens the store. A server that is away is not waited for: each call says so.
///
/// # Errors
/// See [`OpenError`].
#[cfg_attr(not(feature = "mysql"), allow(unused_variables, reason = "a file has no options"))]
pub async fn open_store_with(
    url: &str,
    options: &StoreOptions,
    data_dir: &Path,
) -> Result<AnyStore, OpenError> {
    let path = known(&STORE, url)?;
    #[cfg(feature = "mysql")]
    if scheme(url) == "mysql" {
        let store = MysqlStore::new(url, options).map_err(|reason| STORE.error(url, &reason))?;
        return Ok(AnyStore::Mysql(store));
    }
    let path = sqlite_path(url, path)?;
    // An absolute path replaces the folder.
    Ok(AnyStore::Sqlite(SqliteStore::open(data_dir.join(path)).await?))
}

/// Brings the tables of a server to the version of this build; `None`: the store is a file,
/// which is looked after when it is opened.
///
/// # Errors
/// See [`OpenError`]; a newer schema is one.
#[cfg_attr(not(feature = "mysql"), allow(clippy::unused_async, reason = "other builds have a server to ask"))]
pub async fn migrate_store(url: &str) -> Result<Option<Migration>, OpenError> {
    known(&STORE, url)?;
    #[cfg(feature = "mysql")]
    if scheme(url) == "mysql" {
        return Ok(Some(mysql::migrate(url).await?));
    }
    Ok(None)
}

/// Looks at the server of the store, where it is one; changes nothing.
///
/// # Errors
/// See [`OpenError`].
#[cfg_attr(not(feature = "mysql"), allow(clippy::unused_async, reason = "other builds have a server to ask"))]
pub async fn inspect_store(url: &str) -> Result<Option<Inspection>, OpenError> {
    known(&STORE, url)?;
    #[cfg(feature = "mysql")]
    if scheme(url) == "mysql" {
        return Ok(Some(mysql::inspect(url).await?));
    }
    Ok(None)
}

/// Opens the hot set. One that is away is not waited for; Redis needs a tokio runtime.
///
/// # Errors
/// See [`OpenError`].
pub fn open_hotset(url: &str) -> Result<AnyHotSet, OpenError> {
    known(&HOTSET, url)?;
    #[cfg(feature = "redis")]
    if let Some(settings) = redis_settings(&HOTSET, url)? {
        return Ok(AnyHotSet::Redis(RedisHotSet::open(&settings)));
    }
    Ok(AnyHotSet::Memory(MemoryHotSet::default()))
}

/// Opens the log's producing side; it connects when it is used. `None`: it lies in the store.
///
/// # Errors
/// See [`OpenError`].
#[cfg_attr(not(feature = "kafka"), allow(unused_variables, reason = "the embedded log has no settings"))]
pub fn open_log(url: &str, settings: &LogSettings) -> Result<Option<AnyProducer>, OpenError> {
    let place = known(&LOG, url)?;
    #[cfg(feature = "kafka")]
    if scheme(url) == "kafka" {
        let log = KafkaLog::parse(place, settings.clone()).map_err(|reason| LOG.error(url, &reason))?;
        return Ok(Some(AnyProducer::Kafka(log)));
    }
    Ok(None)
}

/// Opens the bus. One that is away is not waited for; Redis needs a tokio runtime.
///
/// # Errors
/// See [`OpenError`].
pub fn open_bus(url: &str) -> Result<AnyBus, OpenError> {
    known(&BUS, url)?;
    #[cfg(feature = "redis")]
    if let Some(settings) = redis_settings(&BUS, url)? {
        return Ok(AnyBus::Redis(RedisBus::open(&settings)));
    }
    Ok(if scheme(url) == "none" { AnyBus::None } else { AnyBus::Memory(MemoryBus::new()) })
}

/// Opens the registry; see [`Urls::lease_ttl`]. One that is away is waited for.
///
/// # Errors
/// See [`OpenError`].
#[cfg_attr(not(feature = "etcd"), allow(unused_variables, reason = "lists have no leases"))]
pub fn open_registry(url: &str, lease_ttl: Duration) -> Result<AnyRegistry, OpenError> {
    let list = known(&REGISTRY, url)?;
    #[cfg(feature = "etcd")]
    if scheme(url) == "etcd" {
        let registry = EtcdRegistry::parse(list, lease_ttl).map_err(|reason| REGISTRY.error(url, &reason))?;
        return Ok(AnyRegistry::Etcd(registry));
    }
    let registry = FixedRegistry::parse(list).map_err(|reason| REGISTRY.error(url, &reason))?;
    Ok(AnyRegistry::Fixed(registry))
}

/// Does this backend live inside the process, so that all tiers must share it?
pub fn needs_one_process(url: &str) -> bool {
    matches!(scheme(url), "memory" | "embedded")
}

/// A seam, what this build has for it and what exists besides.
struct Seam {
    name: &'static str,
    built: &'static [(&'static str, bool)],
    absent: &'static [&'static str],
}

/// Schemes with `true` take something behind the colon.
const STORE: Seam = Seam {
    name: "store",
    built: &[
        ("sqlite", true),
        #[cfg(feature = "mysql")]
        ("mysql", true),
    ],
    absent: &["mysql"],
};
const HOTSET: Seam = Seam {
    name: "hotset",
    built: &[
        ("memory", false),
        #[cfg(feature = "redis")]
        ("redis", true),
        #[cfg(feature = "redis")]
        ("redis-cluster", true),
    ],
    absent: &["redis", "redis-cluster", "rediss"],
};
const LOG: Seam = Seam {
    name: "log",
    built: &[
        ("embedded", false),
        #[cfg(feature = "kafka")]
        ("kafka", true),
    ],
    absent: &["kafka"],
};
const BUS: Seam = Seam {
    name: "bus",
    built: &[
        ("memory", false),
        ("none", false),
        #[cfg(feature = "redis")]
        ("redis", true),
        #[cfg(feature = "redis")]
        ("redis-cluster", true),
    ],
    absent: &["redis", "redis-cluster", "rediss"],
};
const REGISTRY: Seam = Seam {
    name: "registry",
    built: &[
        ("static", true),
        #[cfg(feature = "etcd")]
        ("etcd", true),
    ],
    absent: &["etcd"],
};

impl Seam {
    fn error(&self, url: &str, reason: &str) -> OpenError {
        OpenError::Url { seam: self.name, url: without_password(url), reason: reason.to_owned() }
    }
}

fn scheme(url: &str) -> &str {
    url.split_once(':').map_or("", |(scheme, _)| scheme)
}

/// What follows the scheme, if this build has a backend for it.
fn known<'a>(seam: &Seam, url: &'a str) -> Result<&'a str, OpenError> {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    if let Some((_, takes_more)) = seam.built.iter().find(|(built, _)| *built == scheme) {
        if !takes_more && !rest.is_empty() {
            return Err(seam.error(url, &format!("nothing may follow {scheme}:")));
        }
        return Ok(rest);
    }
    if seam.absent.contains(&scheme) {
        return Err(seam.error(url, &format!("this build has no {scheme} backend")));
    }
    let allowed: Vec<_> = seam.built.iter().map(|(scheme, _)| format!("{scheme}:")).collect();
    Err(seam.error(url, &format!("unknown scheme, allowed: {}", allowed.join(", "))))
}

/// Where Redis is, if this is it.
#[cfg(feature = "redis")]
fn redis_settings(seam: &Seam, url: &str) -> Result<Option<RedisSettings>, OpenError> {
    if !matches!(scheme(url), "redis" | "redis-cluster") {
        return Ok(None);
    }
    RedisSettings::parse(url).map(Some).map_err(|reason| seam.error(url, &reason))
}

/// Reads the URL of a seam that Redis may be behind.
fn check_redis(seam: &Seam, url: &str) -> Result<(), OpenError> {
    known(seam, url)?;
    #[cfg(feature = "redis")]
    redis_settings(seam, url)?;
    Ok(())
}

/// Reads the URLs of the store.
#[cfg_attr(not(feature = "mysql"), allow(unused_variables, reason = "a file has no options"))]
fn check_store(url: &str, options: &StoreOptions) -> Result<(), OpenError> {
    let path = known(&STORE, url)?;
    #[cfg(feature = "mysql")]
    if scheme(url) == "mysql" {
        return mysql::check(url, options).map_err(|reason| STORE.error(url, &reason));
    }
    sqlite_path(url, path).map(drop)
}

/// What follows `sqlite:`, if it names a file.
fn sqlite_path<'a>(url: &str, path: &'a str) -> Result<&'a str, OpenError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.starts_with(':') {
        return Err(STORE.error(url, "expected sqlite:PATH of a file"));
    }
    Ok(path)
}

/// `scheme://user:password@host` → `scheme://user:***@host`.
fn without_password(url: &str) -> String {
    let hidden = || {
        let (scheme, rest) = url.split_once("://")?;
        let (login, place) = rest.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{place}"))
    };
    hidden().unwrap_or_else(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T>(result: Result<T, OpenError>) -> String {
        result.err().expect("refused").to_string()
    }

    #[test]
    fn a_backend_of_another_build_is_named() {
        let text = refusal(open_hotset("rediss://127.0.0.1:6379"));
        assert!(text.contains("hotset.url") && text.contains("this build has no rediss backend"), "{text}");
        #[cfg(not(feature = "redis"))]
        for url in ["redis://h", "redis-cluster://h"] {
            assert!(refusal(open_hotset(url)).contains("this build has no redis"));
            assert!(refusal(open_bus(url)).contains("this build has no redis"));
        }
        #[cfg(not(feature = "etcd"))]
        assert!(refusal(open_registry("etcd://h:1", LEASE_TTL)).contains("this build has no etcd backend"));
    }

    #[test]
    fn an_unknown_scheme_names_the_allowed_ones() {
        assert!(refusal(open_bus("carrier-pigeon:")).contains("allowed: memory:, none:"));
        assert!(refusal(open_hotset("")).contains("allowed: memory:"));
        assert!(refusal(open_registry("memory:", LEASE_TTL)).contains("allowed: static:"));
    }

    #[cfg(feature = "etcd")]
    #[test]
    fn a_registry_that_cannot_be_read_names_its_form() {
        assert!(open_registry("etcd://h:1,h:2/staging", LEASE_TTL).is_ok());
        let text = refusal(open_registry("etcd://me:secret@h", LEASE_TTL));
        assert!(text.contains("expected etcd://") && !text.contains("secret"), "{text}");
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn a_log_that_cannot_be_read_names_its_form() {
        let settings = LogSettings::default();
        assert!(open_log("kafka://h:1,h:2", &settings).is_ok_and(|log| log.is_some()));
        assert!(refusal(open_log("kafka://h", &settings)).contains("expected kafka://host:port"));
        let few = LogSettings { partitions: 1, ..settings };
        assert!(refusal(open_log("kafka://h:1", &few)).contains("log.partitions"));
    }

    #[test]
    fn all_are_read_without_opening_any() {
        let checked = |change: &dyn Fn(&mut Urls)| {
            let mut urls = Urls::default();
            change(&mut urls);
            urls.check().map_err(|error| error.to_string())
        };
        // Outside a runtime, where nothing could be opened.
        assert_eq!(checked(&|_| {}), Ok(()));
        let refused = |change: &dyn Fn(&mut Urls), seam: &str| {
            let text = checked(change).expect_err("refused");
            assert!(text.contains(seam) && !text.contains("secret"), "{text}");
        };
        refused(&|urls| urls.store = "sqlite:".to_owned(), "store.url");
        refused(&|urls| urls.registry = "static:gateway=a".to_owned(), "registry.url");
        #[cfg(feature = "redis")]
        {
            let right = "redis://me:secret@h:1/2?prefix=a:&timeout_ms=500";
            let fits = |urls: &mut Urls| (urls.bus, urls.hotset) = (right.to_owned(), right.to_owned());
            assert_eq!(checked(&fits), Ok(()));
            for wrong in ["?timeout_ms=9", "?prefix={a}", "?timeout=500", "/x"] {
                let wrong = format!("redis://me:secret@h:1{wrong}");
                refused(&|urls| urls.hotset = wrong.clone(), "hotset.url");
                refused(&|urls| urls.bus = wrong.clone(), "bus.url");
            }
        }
        #[cfg(feature = "mysql")]
        {
            let (right, wrong) =
                ("mysql://me:secret@h/db?init=DO%201", "mysql://me:secret@h/db?start=DO%201");
            assert_eq!(checked(&|urls| urls.store = right.to_owned()), Ok(()));
            refused(&|urls| urls.store = wrong.to_owned(), "store.url");
            let replica = |urls: &mut Urls| {
                urls.store = right.to_owned();
                urls.store_options.replica_url = Some(wrong.to_owned());
            };
            refused(&replica, "replica_url");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let text = refusal(open_hotset("redis://me:secret@h:1/x"));
        assert!(!text.contains("secret") && text.contains("me:***@h:1"), "{text}");
    }

    #[test]
    fn what_follows_a_scheme_that_takes_nothing_is_refused() {
        assert!(refusal(open_hotset("memory:big")).contains("nothing may follow memory:"));
        assert!(refusal(open_bus("none:x")).contains("nothing may follow none:"));
    }

    #[test]
    fn backends_inside_a_process_are_told_apart() {
        assert!(needs_one_process("memory:") && needs_one_process("embedded:"));
        for url in ["sqlite:memory", "none:", "static:", "redis://memory:1", "kafka://h"] {
            assert!(!needs_one_process(url), "{url}");
        }
    }

    #[tokio::test]
    async fn a_relative_path_lies_in_the_data_folder_and_an_absolute_one_does_not() {
        let (data, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let relative = open_store("sqlite:sub/one.db", data.path()).await.expect("opens");
        assert!(data.path().join("sub/one.db").exists());
        relative.close().await;
        let file = other.path().join("two.db");
        let url = format!("sqlite:{}", file.display());
        let absolute = open_store(&url, data.path()).await.expect("opens");
        assert!(file.exists());
        absolute.close().await;
    }

    #[tokio::test]
    async fn a_store_without_a_file_is_refused() {
        let data = tempfile::tempdir().expect("folder");
        for url in ["sqlite:", "sqlite::memory:", "mysql://h", "mysql:db", "postgres://h"] {
            assert!(open_store(url, data.path()).await.is_err(), "{url}");
        }
    }

    #[cfg(feature = "mysql")]
    #[tokio::test]
    async fn the_embedded_log_is_refused_on_a_server() {
        let data = tempfile::tempdir().expect("folder");
        let urls = Urls { store: "mysql://h/db".to_owned(), ..Urls::default() };
        assert!(refusal(Backends::open(&urls, data.path()).await).contains("only on a store in a file"));
    }

    #[tokio::test]
    async fn a_wrong_url_leaves_no_file_behind() {
        let data = tempfile::tempdir().expect("folder");
        let urls = Urls { log: "pigeons://h:9092".to_owned(), ..Urls::default() };
        assert!(refusal(Backends::open(&urls, data.path()).await).contains("log.url = \"pigeons://h:9092\""));
        assert_eq!(std::fs::read_dir(data.path()).expect("folder").count(), 0);
    }
}
