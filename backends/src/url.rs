//! Backends by URL, chosen once at start.
//!
//! | seam | URL | |
//! |---|---|---|
//! | store | `sqlite:corecast.db` | a file; a relative path lies in the data folder |
//! | hotset | `memory:` | in process |
//! | log | `embedded:` | the store's outbox table |
//! | bus | `memory:` `none:` | in process; no fast path |
//! | registry | `static:gateway=ID@host:port,…;logic=ID@host:port,…` | a list, may be empty |

use std::path::Path;

use crate::bus::{AnyBus, memory::MemoryBus};
use crate::hotset::{AnyHotSet, memory::MemoryHotSet};
use crate::log::embedded::EmbeddedLog;
use crate::log::{AnyConsumer, AnyProducer};
use crate::registry::{AnyRegistry, fixed::FixedRegistry};
use crate::store::{AnyStore, StoreError, sqlite::SqliteStore};

/// Where each backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    /// Accounts, sessions, rooms, messages, outbox.
    pub store: String,
    /// Caches and routes.
    pub hotset: String,
    /// The complete path.
    pub log: String,
    /// The fast path.
    pub bus: String,
    /// Who is there.
    pub registry: String,
}

impl Default for Urls {
    /// Everything embedded: nothing to install.
    fn default() -> Self {
        Self {
            store: "sqlite:corecast.db".to_owned(),
            hotset: "memory:".to_owned(),
            log: "embedded:".to_owned(),
            bus: "memory:".to_owned(),
            registry: "static:".to_owned(),
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

impl Backends {
    /// Opens all of them. URLs are checked before anything is opened, so a wrong one leaves
    /// no file behind.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(urls: &Urls, data_dir: &Path) -> Result<Self, OpenError> {
        let registry = open_registry(&urls.registry)?;
        let bus = open_bus(&urls.bus)?;
        let hotset = open_hotset(&urls.hotset)?;
        known(&LOG, &urls.log)?;
        let store = open_store(&urls.store, data_dir).await?;
        let producer = AnyProducer::Embedded(EmbeddedLog::new(store.clone()));
        Ok(Self { store, hotset, producer, bus, registry })
    }

    /// Another consumer of the log. The embedded log serves one at a time.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn consumer(&self) -> Result<AnyConsumer, OpenError> {
        match &self.producer {
            AnyProducer::Embedded(log) => Ok(AnyConsumer::Embedded(log.consumer())),
        }
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
    let path = known(&STORE, url)?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.starts_with(':') {
        return Err(STORE.error(url, "expected sqlite:PATH of a file"));
    }
    // An absolute path replaces the folder.
    Ok(AnyStore::Sqlite(SqliteStore::open(data_dir.join(path)).await?))
}

/// Opens the hot set.
///
/// # Errors
/// See [`OpenError`].
pub fn open_hotset(url: &str) -> Result<AnyHotSet, OpenError> {
    known(&HOTSET, url)?;
    Ok(AnyHotSet::Memory(MemoryHotSet::default()))
}

/// Opens the bus.
///
/// # Errors
/// See [`OpenError`].
pub fn open_bus(url: &str) -> Result<AnyBus, OpenError> {
    known(&BUS, url)?;
    Ok(if scheme(url) == "none" { AnyBus::None } else { AnyBus::Memory(MemoryBus::new()) })
}

/// Opens the registry.
///
/// # Errors
/// See [`OpenError`].
pub fn open_registry(url: &str) -> Result<AnyRegistry, OpenError> {
    let list = known(&REGISTRY, url)?;
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
const STORE: Seam = Seam { name: "store", built: &[("sqlite", true)], absent: &["mysql"] };
const HOTSET: Seam = Seam { name: "hotset", built: &[("memory", false)], absent: &["redis", "rediss"] };
const LOG: Seam = Seam { name: "log", built: &[("embedded", false)], absent: &["kafka"] };
const BUS: Seam =
    Seam { name: "bus", built: &[("memory", false), ("none", false)], absent: &["redis", "rediss"] };
const REGISTRY: Seam = Seam { name: "registry", built: &[("static", true)], absent: &["etcd"] };

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
        let text = refusal(open_hotset("redis://127.0.0.1:6379"));
        assert!(text.contains("hotset.url") && text.contains("this build has no redis backend"), "{text}");
        assert!(refusal(open_registry("etcd://h:1")).contains("this build has no etcd backend"));
        assert!(refusal(open_bus("redis://h")).contains("this build has no redis backend"));
    }

    #[test]
    fn an_unknown_scheme_names_the_allowed_ones() {
        assert!(refusal(open_bus("carrier-pigeon:")).contains("allowed: memory:, none:"));
        assert!(refusal(open_hotset("")).contains("allowed: memory:"));
        assert!(refusal(open_registry("memory:")).contains("allowed: static:"));
    }

    #[test]
    fn a_password_is_not_repeated() {
        let text = refusal(open_hotset("redis://me:secret@h:1"));
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
        for url in ["sqlite:", "sqlite::memory:", "mysql://h/db", "postgres://h"] {
            assert!(open_store(url, data.path()).await.is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_wrong_url_leaves_no_file_behind() {
        let data = tempfile::tempdir().expect("folder");
        let urls = Urls { log: "kafka://h:9092".to_owned(), ..Urls::default() };
        assert!(refusal(Backends::open(&urls, data.path()).await).contains("no kafka backend"));
        assert_eq!(std::fs::read_dir(data.path()).expect("folder").count(), 0);
    }
}
