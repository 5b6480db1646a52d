//! Maintenance of the store, with logic stopped: the store's own lock sees to that.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use corecast_backends::store::Store;
use corecast_backends::url;

use crate::config::Config;
use crate::listening::say;

/// Raises the epoch of every room: mandatory after a restore from a backup, since clients
/// and gateways may have seen numbers that the restored store will give again.
///
/// # Errors
/// The store cannot be opened, or logic still runs on it.
pub async fn new_epoch(config: &Config) -> Result<()> {
    let urls = config.urls()?;
    let folder = &config.data_dir;
    ensure!(folder.is_dir(), "data_dir = {:?}: there is no such folder", folder.display().to_string());
    let store = url::open_store(&urls.store, folder).await.context("logic must be stopped")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let now_ms = u64::try_from(now.as_millis()).context("the clock is too far ahead")?;
    let raised = store.new_epoch(now_ms).await;
    store.close().await;
    say(&format!("new epoch for {} rooms", raised?));
    Ok(())
}
