//! Maintenance of the store.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use corecast_backends::store::{Store, StoreError};
use corecast_backends::url::{self, OpenError};

use crate::config::Config;
use crate::listening::say;

/// A server that starts together with this command is waited for.
const SERVER_WAIT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(500);

/// Brings the tables of the store's server to the version of this build. Safe to repeat.
///
/// # Errors
/// A newer schema, a server that cannot be reached for 30 s, settings with which an
/// acknowledged message can be lost.
pub async fn migrate(config: &Config) -> Result<()> {
    let urls = config.urls()?;
    let started = Instant::now();
    let mut told = false;
    let migration = loop {
        match url::migrate_store(&urls.store).await {
            Err(OpenError::Store(StoreError::Unavailable(reason))) if started.elapsed() < SERVER_WAIT => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(reason, "the store's server cannot be reached yet");
                }
                tokio::time::sleep(RETRY).await;
            }
            ended => break ended?,
        }
    };
    let Some(migration) = migration else {
        say("the embedded store looks after its tables by itself, nothing to do");
        return Ok(());
    };
    match migration.from {
        Some(from) if from == migration.to => say(&format!("schema version {from} already, nothing to do")),
        Some(from) => say(&format!("schema version {from} is now {}", migration.to)),
        None => say(&format!("tables made, schema version {}", migration.to)),
    }
    match migration.durability.fault() {
        Some(fault) => bail!("the tables are there, but {fault}"),
        None => Ok(()),
    }
}

/// Raises the epoch of every room: mandatory after a restore from a backup, since clients
/// and gateways may have seen numbers that the restored store will give again. Logic must be
/// stopped: an embedded store's own lock sees to that, on a server nobody does.
///
/// # Errors
/// The store cannot be opened, or logic still runs on it.
pub async fn new_epoch(config: &Config) -> Result<()> {
    let urls = config.urls()?;
    let folder = &config.data_dir;
    let in_folder = urls.store.starts_with("sqlite:");
    ensure!(
        folder.is_dir() || !in_folder,
        "data_dir = {:?}: there is no such folder",
        folder.display().to_string()
    );
    let store = url::open_store(&urls.store, folder).await.context("logic must be stopped")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let now_ms = u64::try_from(now.as_millis()).context("the clock is too far ahead")?;
    let raised = store.new_epoch(now_ms).await;
    store.close().await;
    say(&format!("new epoch for {} rooms", raised?));
    Ok(())
}
